//! What the log wants done while time goes by: its days counted, and free segments trimmed when
//! nothing else goes on.

use std::convert::Infallible;
use std::time::Duration;

use smol::Timer;

use crate::blob::{Error, Store};
use crate::clock::SharedClock;

/// Goes on until something fails; a log that takes no writes is left alone.
pub async fn forever(
    store: &Store,
    clock: &SharedClock,
    is_busy: impl Fn() -> bool,
) -> Result<Infallible, Error> {
    let mut last = clock.monotonic();
    loop {
        Timer::after(PAUSE).await;
        let span = clock.monotonic().saturating_sub(last).as_secs();
        last += Duration::from_secs(span);
        if !store.is_writable() {
            continue;
        }
        store.passed(span).await?;
        if !is_busy() {
            store.trim_some(TRIMMED_AT_ONCE)?;
        }
    }
}

const PAUSE: Duration = Duration::from_mins(1);
/// A card that trims is deaf meanwhile: some milliseconds each.
const TRIMMED_AT_ONCE: usize = 8;
