//! How fast one core takes a blob in, beside the least that any store could do with the same bytes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use moonlet::blob::{PROGRESS_BYTES, Store};
use moonlet::oci::{Algorithm, Digest, Hasher};

use crate::content::blob;
use crate::fill::{PIECE_BYTES, put};
use crate::{Outcome, device, figure, open};

/// Rounds of one blob through the log, through plain writes with one sync at the end, and through
/// plain writes with a sync as often as the log syncs what came, in turn.
pub fn ingest(directory: &Path, bytes: u64, rounds: u64) -> Outcome<()> {
    let (store, _) = open(device(&directory.join("store"))?)?;
    let file = directory.join("plain");
    // Recycled, as the log is.
    std::fs::write(&file, vec![1; bytes as usize])?;
    let file = File::options().write(true).open(file)?;
    for round in 0..rounds {
        let (digest, content) = blob(round, bytes);
        for seconds in [
            ("log", timed(|| through_log(&store, &digest, &content))?),
            ("plain", timed(|| plainly(&file, &digest, &content, u64::MAX))?),
            ("plain-syncs", timed(|| plainly(&file, &digest, &content, PROGRESS_BYTES))?),
        ] {
            let (name, seconds) = seconds;
            figure(name, format!("{:.1}", bytes as f64 / 1e6 / seconds), "MB/s");
        }
        smol::block_on(store.delete(&[digest]))?;
    }
    Ok(())
}

fn timed(work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn through_log(store: &Store, digest: &Digest, content: &[u8]) -> Outcome<()> {
    smol::block_on(put(store, digest, content))?;
    Ok(smol::block_on(store.flush())?)
}

fn plainly(file: &File, digest: &Digest, content: &[u8], sync_bytes: u64) -> Outcome<()> {
    let (mut name, mut chunk) = (Hasher::new(Algorithm::Sha256), blake3::Hasher::new());
    let mut at = 0;
    for piece in content.chunks(PIECE_BYTES) {
        file.write_all_at(piece, at)?;
        name.update(piece);
        chunk.update(piece);
        at += piece.len() as u64;
        if at.is_multiple_of(sync_bytes) {
            file.sync_data()?;
        }
    }
    file.sync_data()?;
    assert_eq!(name.finish(), *digest, "of {}", chunk.finalize());
    Ok(())
}
