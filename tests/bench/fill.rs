//! Filling a store, filling it again, and the same blobs as files.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use moonlet::blob::{Error, Store};
use moonlet::flash::file;
use moonlet::oci::Digest;
use smol::LocalExecutor;

use crate::content::blob;
use crate::{Outcome, device, figure, number, open};

/// Blobs of one size, known by number.
#[derive(Clone, Copy)]
pub struct Blobs {
    count: u64,
    bytes: u64,
    seed: u64,
}

impl Blobs {
    /// From a command's words.
    pub fn parse(count: &str, bytes: &str, seed: &str) -> Outcome<Self> {
        Ok(Self { count: number(count)?, bytes: number(bytes)?, seed: number(seed)? })
    }

    fn get(&self, index: u64) -> (Digest, Vec<u8>) {
        blob(self.seed << 32 | index, self.bytes)
    }
}

/// Makes a store, mounted once.
pub fn make(path: &Path, size_max: u64) -> Outcome<()> {
    open(std::sync::Arc::new(file::Device::open(path, size_max)?))?;
    Ok(())
}

/// How blobs come: several make an image, and some of them are on the way at the same time.
#[derive(Clone, Copy)]
pub struct Pulls {
    image: u64,
    at_once: u64,
}

impl Pulls {
    /// From a command's word, such as `8x3`.
    pub fn parse(word: &str) -> Outcome<Self> {
        let (image, at_once) =
            word.split_once('x').ok_or(format!("{word}: expected BLOBSxATONCE"))?;
        Ok(Self { image: number::<u64>(image)?.max(1), at_once: number::<u64>(at_once)?.max(1) })
    }
}

/// Puts blobs into the store at `path`, an image after the other, and says after each how many are
/// held: what kills this knows what was promised.
pub fn fill(path: &Path, blobs: Blobs, pulls: Pulls) -> Outcome<()> {
    put_all(&open(device(path)?)?.0, blobs, pulls)
}

/// As [`fill`], where everything else was deleted.
pub fn refill(path: &Path, blobs: Blobs, pulls: Pulls) -> Outcome<()> {
    let (store, _) = open(device(path)?)?;
    smol::block_on(store.delete(&store.digests()))?;
    put_all(&store, blobs, pulls)
}

fn put_all(store: &Store, blobs: Blobs, pulls: Pulls) -> Outcome<()> {
    let begun = Instant::now();
    let before = store.stat();
    for first in (0..blobs.count).step_by(pulls.image as usize) {
        let last = blobs.count.min(first + pulls.image);
        put_image(store, blobs, first..last, pulls.at_once)?;
        figure("held", last, "blobs");
    }
    let programmed = store.stat().programmed_bytes - before.programmed_bytes;
    figure("payload", blobs.count * blobs.bytes, "bytes");
    figure("programmed", programmed, "bytes");
    figure("duration", format!("{:.3}", begun.elapsed().as_secs_f64()), "s");
    Ok(())
}

/// As an image is pulled: each connection brings one blob after the other, and all that came is
/// flushed at the end.
fn put_image(store: &Store, blobs: Blobs, range: Range<u64>, at_once: u64) -> Outcome<()> {
    let range = Cell::new(range);
    let next = || {
        let mut rest = range.take();
        let index = rest.next();
        range.set(rest);
        index
    };
    let connection = async || -> Result<(), Error> {
        while let Some(index) = next() {
            let (digest, bytes) = blobs.get(index);
            put(store, &digest, &bytes).await?;
        }
        Ok(())
    };
    let executor = LocalExecutor::new();
    let tasks: Vec<_> = (0..at_once).map(|_| executor.spawn(connection())).collect();
    smol::block_on(executor.run(async {
        for task in tasks {
            task.await?;
        }
        Ok(store.flush().await?)
    }))
}

/// One blob, in the pieces in which it comes from the network; nothing where it is held. It is
/// when the store is flushed.
pub async fn put(store: &Store, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
    if store.is_whole(digest) {
        return Ok(());
    }
    let mut writer = store.writer(digest, bytes.len() as u64, None).await?;
    for piece in bytes.get(writer.frontier() as usize..).unwrap_or_default().chunks(PIECE_BYTES) {
        writer.write(piece).await?;
    }
    writer.finish().await
}

/// Reads all that is held, and fails when anything is corrupt or one of `blobs` is missing.
pub fn verify(path: &Path, blobs: Blobs) -> Outcome<()> {
    let (store, report) = open(device(path)?)?;
    let digests = store.digests();
    let is_whole = |digest: &&Digest| store.read_all(digest, u64::MAX).is_ok();
    let whole: BTreeSet<&Digest> = digests.iter().filter(is_whole).collect();
    let missing = (0..blobs.count).filter(|index| !whole.contains(&blobs.get(*index).0)).count();
    figure("blobs", digests.len(), "blobs");
    figure("corrupt", digests.len() - whole.len(), "blobs");
    figure("missing", missing, "blobs");
    figure("dropped", report.dropped, "blobs");
    figure("damaged", report.damaged, "places");
    let wrong = missing + digests.len() - whole.len() + report.dropped;
    if wrong == 0 {
        Ok(())
    } else {
        Err(format!("{}: {wrong} blobs are lost", path.display()).into())
    }
}

/// The blobs as a registry or a runtime keeps them: a temporary file, its sync, its rename, the
/// sync of the directory, for each.
pub fn files(directory: &Path, blobs: Blobs) -> Outcome<()> {
    fs::create_dir_all(directory)?;
    let parent = File::open(directory)?;
    for (digest, bytes) in (0..blobs.count).map(|index| blobs.get(index)) {
        let draft = directory.join("draft");
        let mut file = File::create(&draft)?;
        bytes.chunks(PIECE_BYTES).try_for_each(|piece| file.write_all(piece))?;
        file.sync_all()?;
        fs::rename(&draft, directory.join(digest.to_string().replace(':', "-")))?;
        parent.sync_all()?;
    }
    figure("payload", blobs.count * blobs.bytes, "bytes");
    Ok(())
}

/// What is written at once.
pub const PIECE_BYTES: usize = 64 << 10;
