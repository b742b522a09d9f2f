//! The database: SQLite in a directory, or PostgreSQL by URL, spoken to in the SQL both know.
//!
//! SQLite has one writer, so writes take turns here and wait in order instead of polling inside the
//! database. A change of what the fleet is to be holds a lock for its whole transaction on
//! PostgreSQL too, because the artifacts it publishes are made from rows that another change may be
//! about to write. Reports do not: each touches its own satellite only.

mod batches;
mod configs;
mod groups;
mod history;
mod images;
mod journal;
mod labels;
mod lead;
mod published;
mod pushed;
mod rollouts;
mod satellites;
mod schema;
mod tags;
mod tokens;
mod users;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::AnyConnection;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Row as _, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use batches::{Batch, NewDevice};
pub use configs::{Config, NewConfig};
pub use groups::Group;
pub use history::FleetSample;
pub use images::Holder;
pub use journal::{Entry, Event, Part};
pub use labels::Label;
pub use lead::{Duty, Lead};
pub use published::Published;
pub use pushed::{Publishing, Robot, Unpushed};
pub use rollouts::{NewRollout, Released, Rollout};
pub use satellites::{Satellite, Status, Summary, Wanted};
pub use tags::GroupTag;
pub use tokens::Token;
pub use users::{Role, Session, User};

use super::settings::Database;

/// The rows of the fleet. Each method is one or a few statements on the connection it is given.
pub struct Rows<'c>(pub &'c mut AnyConnection);

impl Rows<'_> {
    /// A value that the server keeps for itself.
    pub async fn setting(&mut self, name: &str) -> sqlx::Result<Option<String>> {
        let query = sqlx::query("SELECT value FROM settings WHERE name = $1").bind(name);
        let row = query.fetch_optional(&mut *self.0).await?;
        row.map(|row| row.try_get("value")).transpose()
    }

    pub async fn set_setting(&mut self, name: &str, value: &str) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO settings (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }
}

/// The database.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    /// SQLite: the connection that reports are written on. What it commits survives the program at
    /// once, and the machine's power a little later.
    reports: Option<AnyPool>,
    kind: Kind,
    /// SQLite's directory.
    directory: Option<PathBuf>,
    /// SQLite's one writer; the one change on PostgreSQL.
    writer: Arc<Mutex<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// A transaction that writes; dropped without `commit` it never happened.
pub struct Write {
    transaction: Transaction<'static, Any>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Write {
    pub fn rows(&mut self) -> Rows<'_> {
        Rows(&mut self.transaction)
    }

    pub async fn commit(self) -> sqlx::Result<()> {
        self.transaction.commit().await
    }
}

/// A connection that reads.
pub struct Read(PoolConnection<Any>);

impl Read {
    pub fn rows(&mut self) -> Rows<'_> {
        Rows(&mut self.0)
    }
}

impl Store {
    /// Opens the database, makes it when it is new, and brings its tables up to date.
    pub async fn open(database: &Database) -> Result<Self, String> {
        sqlx::any::install_default_drivers();
        let (url, kind, directory) = match database {
            Database::Directory(path) => (sqlite_url(path)?, Kind::Sqlite, Some(path.clone())),
            Database::Postgres(url) => (url.clone(), Kind::Postgres, None),
        };
        let shown = directory.as_ref().map(|path| path.display().to_string());
        let shown = shown.unwrap_or_else(|| "PostgreSQL".to_owned());
        let failed = |error: sqlx::Error| format!("database in {shown}: {error}");
        let options =
            |max| AnyPoolOptions::new().max_connections(max).acquire_timeout(ACQUIRE_TIMEOUT);
        let (pool, reports) = match kind {
            Kind::Sqlite => (
                sqlite(options(CONNECTIONS_MAX), DURABLE).connect(&url).await.map_err(failed)?,
                Some(sqlite(options(1), LAZY).connect(&url).await.map_err(failed)?),
            ),
            Kind::Postgres => (options(CONNECTIONS_MAX).connect(&url).await.map_err(failed)?, None),
        };
        let store = Self { pool, reports, kind, directory, writer: Arc::default() };
        schema::migrate(&store).await.map_err(|error| format!("database in {shown}: {error}"))?;
        Ok(store)
    }

    /// Begins a change of what the fleet is to be; others wait until it ended.
    pub async fn change(&self) -> sqlx::Result<Write> {
        self.change_within(POSTGRES_BEGIN).await
    }

    /// The same before anything is served: other replicas may be preparing the database.
    pub async fn change_at_start(&self) -> sqlx::Result<Write> {
        self.change_within(POSTGRES_BEGIN_AT_START).await
    }

    async fn change_within(&self, postgres: &'static str) -> sqlx::Result<Write> {
        // The turn is before the connection: one of them waits for another replica's change, and
        // the others are free for those who read.
        let turn = Arc::clone(&self.writer).lock_owned().await;
        let mut write = self.begin(&self.pool, Some(turn), postgres).await?;
        if self.kind == Kind::Postgres {
            let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CHANGE_LOCK);
            lock.execute(&mut *write.transaction).await?;
        }
        Ok(write)
    }

    /// Begins a transaction that writes rows nothing is published from.
    pub async fn write(&self) -> sqlx::Result<Write> {
        let turn = self.turn().await;
        self.begin(&self.pool, turn, POSTGRES_BEGIN).await
    }

    /// Begins a transaction for a report. When the server loses power the last ones may be missing,
    /// and the satellites' next ones take their place: no disk is waited for.
    pub async fn report(&self) -> sqlx::Result<Write> {
        let turn = self.turn().await;
        let pool = self.reports.as_ref().unwrap_or(&self.pool);
        let mut write = self.begin(pool, turn, POSTGRES_BEGIN).await?;
        if self.kind == Kind::Postgres {
            let lazy = sqlx::query("SET LOCAL synchronous_commit TO OFF");
            lazy.execute(&mut *write.transaction).await?;
        }
        Ok(write)
    }

    /// The turn of a write that is no change.
    async fn turn(&self) -> Option<OwnedMutexGuard<()>> {
        match self.kind {
            Kind::Sqlite => Some(Arc::clone(&self.writer).lock_owned().await),
            Kind::Postgres => None,
        }
    }

    async fn begin(
        &self,
        pool: &AnyPool,
        turn: Option<OwnedMutexGuard<()>>,
        postgres: &'static str,
    ) -> sqlx::Result<Write> {
        let begin = match self.kind {
            Kind::Sqlite => "BEGIN IMMEDIATE",
            Kind::Postgres => postgres,
        };
        let transaction = pool.begin_with(begin).await?;
        Ok(Write { transaction, _turn: turn })
    }

    /// A connection to read with.
    pub async fn read(&self) -> sqlx::Result<Read> {
        Ok(Read(self.pool.acquire().await?))
    }

    /// Whether the database answers.
    pub async fn is_healthy(&self) -> bool {
        sqlx::query("SELECT 1").execute(&self.pool).await.is_ok()
    }

    /// Writes all out and closes the connections.
    pub async fn close(&self) {
        if let Some(reports) = &self.reports {
            reports.close().await;
        }
        self.pool.close().await;
    }
}

/// Connections to SQLite that begin with these settings.
fn sqlite(options: AnyPoolOptions, settings: &'static str) -> AnyPoolOptions {
    options.after_connect(move |connection, _| {
        Box::pin(async move { sqlx::raw_sql(settings).execute(connection).await.map(drop) })
    })
}

fn sqlite_url(directory: &Path) -> Result<String, String> {
    std::fs::create_dir_all(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let file = directory.join("ground-control.db");
    restrict(directory, &file).map_err(|error| format!("{}: {error}", file.display()))?;
    let absolute =
        std::path::absolute(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut url = url::Url::parse("sqlite:///").map_err(|error| error.to_string())?;
    let text = absolute.to_str().ok_or_else(|| format!("{}: not UTF-8", file.display()))?;
    url.set_path(text);
    url.set_query(Some("mode=rwc"));
    Ok(url.to_string())
}

/// Hashes of passwords and secrets are for the server's user alone, in the files beside the
/// database too: SQLite creates them with its mode.
fn restrict(directory: &Path, file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(file);
    match made {
        Ok(made) => {
            made.sync_all()?;
            std::fs::File::open(directory)?.sync_all()
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let mut permissions = std::fs::metadata(file)?.permissions();
            permissions.set_mode(0o600);
            std::fs::set_permissions(file, permissions)
        }
        Err(error) => Err(error),
    }
}

/// A value as it is kept in a column of text.
fn to_json(value: &impl Serialize) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn from_json<T: DeserializeOwned>(row: &AnyRow, column: &str) -> sqlx::Result<T> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Whether an insert failed because the name is taken.
pub fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// What was committed is on the disk before it is answered for.
const DURABLE: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
    PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000";
/// What was committed is on the disk with the next that is durable.
const LAZY: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
    PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000";
const CONNECTIONS_MAX: u32 = 8;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// No lock is waited for without end, and a replica that hangs in a change does not hold it for
/// ever.
const POSTGRES_BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '5s'; \
    SET LOCAL idle_in_transaction_session_timeout = '60s'";
const POSTGRES_BEGIN_AT_START: &str = "BEGIN; SET LOCAL lock_timeout = '120s'; \
    SET LOCAL idle_in_transaction_session_timeout = '60s'";
/// Any number that no other program takes for an advisory lock in the same database.
const CHANGE_LOCK: i64 = 0x006d_6f6f_6e6c_6574;
