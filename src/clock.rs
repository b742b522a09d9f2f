//! Time, handed in and never global.
//!
//! A device without a real-time clock starts in 1970. Wall time is therefore never taken to be
//! earlier than a floor: the day this binary was built, or the last time the blob log recorded.
//!
//! A clock that was wrong once, far in the future, must not make every certificate look expired
//! ever after: a recorded time that is more than [`DOUBT_SECONDS`] beyond a clock that shows a
//! possible time is not believed.

//!
//! All waiting is by the clock that was handed in: `tests/layers` holds that no timer and no
//! moment of the kernel's is used elsewhere. What runs on several threads, where a [`SharedClock`]
//! cannot go, measures by a [`Stopwatch`].

mod alarm;
pub mod date;
#[cfg(feature = "sim")]
pub mod sim;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use alarm::Alarm;

/// A source of time. Engines hold it as [`SharedClock`], so that a simulation can hand in a
/// virtual one.
pub trait Clock {
    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
    /// Seconds since 1970-01-01 UTC, never earlier than the floor.
    fn unix_seconds(&self) -> u64;
    /// Whether that is what the device's own clock shows. Where it is not, because the clock was
    /// never set, it is the floor, and stands still.
    fn is_set(&self) -> bool {
        true
    }
    /// Raises the floor of [`Clock::unix_seconds`]; a lower value changes nothing.
    fn raise_floor(&self, unix_seconds: u64);
    /// Ends when [`Clock::monotonic`] is `at` or later.
    fn alarm(&self, at: Duration) -> Alarm {
        Alarm::after(at.saturating_sub(self.monotonic()))
    }
}

impl dyn Clock + '_ {
    /// Ends after `duration`.
    pub fn sleep(&self, duration: Duration) -> Alarm {
        self.alarm(self.monotonic().saturating_add(duration))
    }

    /// The result of `future`, or none if that takes longer than `duration`.
    pub async fn timeout<T>(
        &self,
        duration: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let late = self.sleep(duration);
        smol::future::or(async { Some(future.await) }, async {
            late.await;
            None
        })
        .await
    }

    /// The time that has passed since [`Clock::monotonic`] was `moment`.
    pub fn since(&self, moment: Duration) -> Duration {
        self.monotonic().saturating_sub(moment)
    }
}

/// The form in which a clock is handed around.
pub type SharedClock = Rc<dyn Clock>;

/// The kernel's clocks.
pub struct SystemClock {
    start: Stopwatch,
    floor: Cell<u64>,
}

impl SystemClock {
    /// A clock whose floor is the day this binary was built.
    pub fn new() -> Self {
        Self { start: Stopwatch::start(), floor: Cell::new(BUILD_UNIX_SECONDS) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_seconds(&self) -> u64 {
        unix_seconds_from(self.floor.get())
    }

    fn is_set(&self) -> bool {
        let now = kernel_unix_seconds();
        later(now, self.floor.get()) == now
    }

    fn raise_floor(&self, unix_seconds: u64) {
        self.floor.set(self.floor.get().max(unix_seconds));
    }
}

/// Measures time by the kernel's clock, on whatever thread.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since then.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// What the kernel's clock shows, in seconds since 1970-01-01 UTC; `floor` instead, when that is
/// later and to be believed.
pub fn unix_seconds_from(floor: u64) -> u64 {
    later(kernel_unix_seconds(), floor)
}

/// What the kernel's clock shows, in seconds since 1970-01-01 UTC, right or wrong.
pub fn kernel_unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn later(now: u64, floor: u64) -> u64 {
    let is_possible = now >= BUILD_UNIX_SECONDS;
    if is_possible && floor.saturating_sub(now) > DOUBT_SECONDS {
        return now;
    }
    now.max(floor).max(BUILD_UNIX_SECONDS)
}

/// A device may lie in a drawer for so long, with a clock that goes on from where it was stopped.
const DOUBT_SECONDS: u64 = 400 * 24 * 60 * 60;
/// Set by `build.rs` from SOURCE_DATE_EPOCH, else from the time of the build.
const BUILD_UNIX_SECONDS: u64 = parse_decimal(env!("MOONLET_BUILD_UNIX_SECONDS"));

const fn parse_decimal(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let (mut value, mut rest) = (0_u64, bytes);
    while let [digit, tail @ ..] = rest {
        value = value * 10 + (*digit - b'0') as u64;
        rest = tail;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_not_earlier_than_what_was_recorded() {
        let build = BUILD_UNIX_SECONDS;
        assert_eq!(later(10, build), build, "1970");
        assert_eq!(later(10, build + 500), build + 500);
        assert_eq!(later(10, build + 2 * DOUBT_SECONDS), build + 2 * DOUBT_SECONDS);
        assert_eq!(later(build + 1, build + 500), build + 500);
        assert_eq!(later(build + 900, build + 500), build + 900);
        let wrong_once = build + 12 * 365 * 24 * 3600;
        assert_eq!(later(build + 1, wrong_once), build + 1, "set right since");
    }
}
