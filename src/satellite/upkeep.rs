//! What is to be done while time goes by: the blob log's days counted, the time recorded, and free
//! segments trimmed when nothing else goes on; and the lines that were counted printed.

use std::convert::Infallible;
use std::time::Duration;

use log::{info, warn};

use crate::blob::{Error, Store};
use crate::clock::SharedClock;

/// Goes on until something fails; a log that takes no writes is left alone.
pub async fn forever(
    store: &Store,
    clock: &SharedClock,
    is_busy: impl Fn() -> bool,
) -> Result<Infallible, Error> {
    let mut last = clock.monotonic();
    let mut shown = clock.unix_seconds();
    loop {
        clock.sleep(PAUSE).await;
        super::log::print_counts();
        let span = clock.monotonic().saturating_sub(last).as_secs();
        last += Duration::from_secs(span);
        let before = std::mem::replace(&mut shown, clock.unix_seconds());
        if !store.is_writable() {
            continue;
        }
        // A clock that stands still is one that shows an earlier time than its floor.
        if shown > before && is_worth_recording(store, shown) {
            store.record_time(shown)?;
        }
        store.tick(span).await?;
        if !is_busy() {
            store.trim_some(TRIMMED_AT_ONCE).await?;
        }
    }
}

/// Waits for an error that ends writing, and mounts the log again, with pauses that grow as long as
/// it does not help. `report` is called with why nothing can be written.
pub async fn remount(store: &Store, clock: &SharedClock, report: impl Fn(&str)) {
    store.failed().await;
    let mut pause = REMOUNT_PAUSE_MIN;
    while let Some(why) = store.failure() {
        report(&why);
        clock.sleep(pause).await;
        match store.remount().await {
            Ok(report) => info!("the store is mounted again: {report}"),
            Err(error) => warn!("the store cannot be mounted again: {error}"),
        }
        pause = (pause * 2).min(REMOUNT_PAUSE_MAX);
    }
}

/// Records what is kept in memory only, for a clean end.
pub async fn finish(store: &Store, clock: &SharedClock) -> Result<(), Error> {
    if store.is_writable() {
        // It shares the page of the counts.
        let outcome = match store.record_time(clock.unix_seconds()) {
            Ok(()) => store.record_wear().await,
            failed => failed,
        };
        if let Err(error) = outcome {
            warn!("{error}; some of what was counted of wear is lost");
        }
    }
    store.flush().await
}

fn is_worth_recording(store: &Store, shown: u64) -> bool {
    store.recorded_time().is_none_or(|recorded| recorded.abs_diff(shown) >= TIME_RECORD_SECONDS)
}

/// A disk that was reset answers again after some seconds; one that is worn out never does.
const REMOUNT_PAUSE_MIN: Duration = Duration::from_secs(10);
const REMOUNT_PAUSE_MAX: Duration = Duration::from_mins(10);
const PAUSE: Duration = Duration::from_mins(1);
/// The time has no page of its own in the log, and is not worth more than a record now and then.
const TIME_RECORD_SECONDS: u64 = 6 * 60 * 60;
/// A card that trims is deaf meanwhile: some milliseconds each.
const TRIMMED_AT_ONCE: usize = 8;
