//! Copies of a SQLite database, made while it is in use, and put back.
//!
//! SQLite writes the copy itself, from one moment. A restore puts nothing over data that is there
//! unless it is forced to, and then keeps what was there; it refuses while a server holds the
//! directory (`lock`). The copy is checked, and brought up to date, before anything is moved.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::output::say;
use super::{Failure, variable};
use crate::ground::lock;
use crate::ground::settings::{Database, Place};
use crate::ground::store::Store;

#[derive(Args)]
pub struct Backup {
    #[command(flatten)]
    place: Place,
    /// The copy; it must not exist
    file: PathBuf,
}

#[derive(Args)]
pub struct Restore {
    #[command(flatten)]
    place: Place,
    /// A copy that backup made
    file: PathBuf,
    /// Also where data is; it is kept beside, in before-restore, before-restore-2 and so on
    #[arg(long)]
    force: bool,
}

pub fn backup(backup: &Backup) -> Result<ExitCode, Failure> {
    let directory = directory(&backup.place, "pg_dump --format=custom")?;
    let (from, to) = (directory.join(NAME), &backup.file);
    if !from.exists() {
        return Err(format!("{}: no database there", from.display()).into());
    }
    if to.exists() {
        return Err(format!("{}: exists; expected a new file", to.display()).into());
    }
    let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", to.display());
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    // Beside its place, and moved when it is whole: a copy that was interrupted has no name.
    let mut partial = to.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    // Hashes of passwords and secrets are in it.
    let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&partial);
    let made = made.map_err(|error| failed(&error))?;
    let result = copy_out(&from, &partial)
        .and_then(|()| made.sync_all().map_err(|error| failed(&error).into()))
        .and_then(|()| fs::rename(&partial, to).map_err(|error| failed(&error).into()));
    if let Err(failure) = result {
        // What is left of it is of no use.
        let _ = fs::remove_file(&partial);
        return Err(failure);
    }
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| failed(&error))?;
    let bytes = fs::metadata(to).map_err(|error| failed(&error))?.len();
    let size = crate::units::ByteCount(bytes);
    say(&format!("{}: {size} of {}", to.display(), from.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn copy_out(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error: sqlx::Error| format!("{}: {error}", from.display());
    let to = to.to_str().ok_or_else(|| format!("{}: not UTF-8", to.display()))?;
    block_on(async {
        let mut connection = open(from).await.map_err(failed)?;
        let copied = sqlx::query("VACUUM INTO $1").bind(to).execute(&mut connection).await;
        copied.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        Ok(())
    })
}

pub fn restore(restore: &Restore) -> Result<ExitCode, Failure> {
    let directory = directory(&restore.place, "pg_restore")?;
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    check(&restore.file)?;
    fs::create_dir_all(&directory).map_err(failed)?;
    let _held = lock::exclusive(&directory)?;
    let there = directory.join(NAME);
    // A log without its database counts as well: it would be taken for the copy's.
    let is_there = FILES.iter().any(|name| directory.join(name).exists());
    if is_there && !restore.force {
        let there = there.display();
        return Err(format!("{there}: data is there; --force puts the copy in its place").into());
    }
    let staging = directory.join("restore.partial");
    remove(&staging).map_err(failed)?;
    fs::DirBuilder::new().mode(0o700).create(&staging).map_err(failed)?;
    let staged = staging.join(NAME);
    fs::copy(&restore.file, &staged).map_err(failed)?;
    // A copy by an older version is brought up to date; one by a newer is refused.
    block_on(async {
        let store = Store::open(&Database::Directory(staging.clone())).await?;
        store.close().await;
        Ok(())
    })?;
    give_to_owner(&directory, &staged).map_err(failed)?;
    File::open(&staged).and_then(|file| file.sync_all()).map_err(failed)?;
    let kept = if is_there { Some(keep(&directory).map_err(failed)?) } else { None };
    fs::rename(&staged, &there).map_err(failed)?;
    remove(&staging).map_err(failed)?;
    File::open(&directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    say(&format!("{}: restored from {}", there.display(), restore.file.display()))?;
    if let Some(kept) = kept {
        say(&format!("what was there is in {}", kept.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps what is there in a directory of its own, which is returned, and leaves the database in its
/// place too, until the copy is renamed over it: at no time there is none. Its log goes: beside
/// a database that is not its own it would be taken for it.
fn keep(directory: &Path) -> std::io::Result<PathBuf> {
    // The log's part of the data goes into the database first; if it cannot, both are kept anyway.
    let _ = block_on(write_log_back(&directory.join(NAME)));
    let before = new_directory(directory)?;
    let if_there = |done: std::io::Result<()>| match done {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    for name in FILES {
        if_there(fs::hard_link(directory.join(name), before.join(name)))?;
    }
    File::open(&before)?.sync_all()?;
    File::open(directory)?.sync_all()?;
    for name in LOGS {
        if_there(fs::remove_file(directory.join(name)))?;
    }
    Ok(before)
}

/// Makes `before-restore`, or `before-restore-2` and so on: what an earlier restore kept stays.
fn new_directory(directory: &Path) -> std::io::Result<PathBuf> {
    for number in 1..=KEPT_MAX {
        let before = match number {
            1 => directory.join(BEFORE),
            number => directory.join(format!("{BEFORE}-{number}")),
        };
        match fs::DirBuilder::new().mode(0o700).create(&before) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| before),
        }
    }
    let message = format!("{KEPT_MAX} directories {BEFORE} are there: expected fewer");
    Err(std::io::Error::other(message))
}

async fn write_log_back(path: &Path) -> Result<(), Failure> {
    let failed = |error: sqlx::Error| error.to_string();
    let mut connection = open(path).await.map_err(failed)?;
    let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
    checkpoint.execute(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)?;
    Ok(())
}

fn remove(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Root restores for the server's user.
fn give_to_owner(directory: &Path, file: &Path) -> std::io::Result<()> {
    let (owner, own) = (fs::metadata(directory)?, fs::metadata(file)?);
    if (owner.uid(), owner.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Whether the file is a database of Ground Control, and sound.
fn check(path: &Path) -> Result<(), Failure> {
    let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if Path::new(&log).exists() {
        let log = Path::new(&log).display();
        return Err(failed(&format!(
            "no copy but a database in use, for {log} is beside it: \
            expected what ground-control backup made of it"
        ))
        .into());
    }
    let mut head = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    match read {
        Ok(()) if head == *MAGIC => {}
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(failed(&error).into());
        }
        _ => return Err(failed(&"expected a copy that backup made").into()),
    }
    block_on(async {
        let broken = |error: sqlx::Error| failed(&error);
        // Nothing beside the copy is looked at or written.
        let options = SqliteConnectOptions::new().filename(path).immutable(true).read_only(true);
        let mut connection = options.connect().await.map_err(broken)?;
        let tables = "SELECT count(*) AS count FROM sqlite_master WHERE name = 'schema_version'";
        let row = sqlx::query(tables).fetch_one(&mut connection).await.map_err(broken)?;
        if row.try_get::<i64, _>("count").map_err(broken)? == 0 {
            return Err(failed(&"a database of another program").into());
        }
        let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection).await;
        let found: String = row.and_then(|row| row.try_get(0)).map_err(broken)?;
        if found != "ok" {
            return Err(failed(&format!("corrupt: {found}")).into());
        }
        connection.close().await.map_err(broken)?;
        Ok(())
    })
}

async fn open(path: &Path) -> sqlx::Result<SqliteConnection> {
    SqliteConnectOptions::new().filename(path).connect().await
}

fn directory(place: &Place, instead: &str) -> Result<PathBuf, Failure> {
    match place.resolve(&variable)? {
        Database::Directory(directory) => Ok(directory),
        Database::Postgres(_) => {
            Err(format!("the database is PostgreSQL: expected {instead}").into())
        }
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("starting threads: {error}"))?.block_on(work)
}

const NAME: &str = "ground-control.db";
/// What SQLite keeps beside the database.
const LOGS: [&str; 2] = ["ground-control.db-shm", "ground-control.db-wal"];
const FILES: [&str; 3] = [NAME, LOGS[0], LOGS[1]];
/// Where a restore puts what it finds.
const BEFORE: &str = "before-restore";
/// Restores of which what was there before is kept.
const KEPT_MAX: u32 = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
