//! Looking for bit rot in the background, at a pace that disturbs no one.

use std::convert::Infallible;
use std::time::Duration;

use crate::blob::{Error, Store};
use crate::clock::SharedClock;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::units::to_usize;

/// Reads everything that is held, over and over, one pass in about `interval`; what is corrupt is
/// recorded, not served any more, and repaired at once by the reconciler. First comes what was
/// written shortly before the start. `random` says where to begin with the rest: a device that is
/// switched off daily must not check the same beginning every day. For as long as `is_busy`, it
/// waits: clients and the link come first. How far it is, `metrics` report.
pub async fn forever(
    store: &Store,
    clock: &SharedClock,
    interval: impl Fn() -> Duration,
    random: u64,
    metrics: &Metrics,
    is_busy: impl Fn() -> bool,
) -> Result<Infallible, Error> {
    let idle = async || {
        while is_busy() {
            clock.sleep(BUSY).await;
        }
    };
    for digest in store.suspects() {
        idle().await;
        store.verify_before_serve(&digest, async |_| idle().await).await?;
    }
    let mut from = random;
    loop {
        let digests: Vec<Digest> = store.digests();
        let held = store.stat().held_bytes;
        let count = digests.len().max(1) as u64;
        let begin = to_usize(from % count);
        metrics.scrub_checked_bytes.set(0);
        metrics.scrub_pass_bytes.set(held);
        for digest in digests.iter().cycle().skip(begin).take(digests.len()) {
            // Deleted meanwhile is no matter.
            if store.entry(digest).is_some() {
                let each = async |bytes| {
                    metrics.scrub_checked_bytes.add(bytes);
                    clock.sleep(pause(bytes, held, interval())).await;
                    idle().await;
                };
                store.check_all(digest, each).await?;
            }
        }
        from = 0;
        metrics.scrub_passes.add(1);
        clock.sleep(BETWEEN).await;
    }
}

/// How long to wait after `bytes` of `held`, so that all take one `interval`.
fn pause(bytes: u64, held: u64, interval: Duration) -> Duration {
    let millis = interval.as_millis() * u128::from(bytes) / u128::from(held.max(1));
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    Duration::from_millis(millis).clamp(PAUSE_MIN, PAUSE_MAX)
}

/// How often it is asked whether others are still at work.
const BUSY: Duration = Duration::from_secs(1);
const BETWEEN: Duration = Duration::from_hours(1);
/// 2.5 MiB/s at most, whatever is held.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_mins(10);
