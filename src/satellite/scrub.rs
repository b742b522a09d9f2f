//! Looking for bit rot in the background, at a pace that nobody notices.

use std::time::Duration;

use log::error;
use smol::Timer;

use crate::blob::{Error, Store};
use crate::oci::Digest;
use crate::units::ByteCount;

/// Reads everything that is held, over and over, one pass in about [`PASS`]; what is rotten is
/// recorded, not served any more, and mended by the next reconciliation. `random` says where to
/// begin: a device that is switched off daily must not check the same beginning every day.
pub async fn forever(store: &Store, random: u64) -> Result<(), Error> {
    let mut from = random;
    loop {
        let digests: Vec<Digest> = store.digests();
        let held = store.stat().held_bytes;
        let count = digests.len().max(1) as u64;
        let begin = usize::try_from(from % count).unwrap_or(0);
        for digest in digests.iter().cycle().skip(begin).take(digests.len()) {
            // Deleted meanwhile is no matter.
            if store.entry(digest).is_some() {
                blob(store, digest, async |bytes| {
                    Timer::after(pause(bytes, held)).await;
                })
                .await?;
            }
        }
        from = 0;
        Timer::after(BETWEEN).await;
    }
}

/// Checks one blob and records what is found; gives the number of rotten chunks. `each` is called
/// with the length of every chunk.
pub async fn blob(store: &Store, digest: &Digest, each: impl AsyncFn(u64)) -> Result<usize, Error> {
    let mut check = store.check(digest)?;
    let known = store.rotten().into_iter().find(|(rotten, _)| rotten == digest);
    let mut known = known.map(|(_, chunks)| chunks).unwrap_or_default();
    while let Some(bytes) = check.step() {
        if !check.rotten().is_subset(&known) {
            // At once: the end of the blob may be days away.
            known.extend(check.rotten());
            let size = ByteCount(store.entry(digest).map_or(0, |entry| entry.size));
            error!("{digest} ({size}): a chunk has rotted on flash; the next sync mends it");
            store.set_rotten(digest, &known).await?;
        }
        each(bytes).await;
    }
    store.set_rotten(digest, check.rotten()).await?;
    Ok(check.rotten().len())
}

/// How long to wait after `bytes` of `held`, so that all take one [`PASS`].
fn pause(bytes: u64, held: u64) -> Duration {
    let millis = PASS.as_millis() * u128::from(bytes) / u128::from(held.max(1));
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    Duration::from_millis(millis).clamp(PAUSE_MIN, PAUSE_MAX)
}

/// Cells lose their charge over months; cards are replaced after years.
const PASS: Duration = Duration::from_hours(7 * 24);
const BETWEEN: Duration = Duration::from_hours(1);
/// 2.5 MiB/s at most, whatever is held.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_mins(10);
