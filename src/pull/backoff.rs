//! When to try again: decorrelated jitter, so that a fleet does not come back in step.
//!
//! Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: each wait
//! is drawn between the base and three times the last wait.

use std::time::Duration;

/// The waits between attempts at one thing.
#[derive(Debug)]
pub struct Backoff {
    last: Duration,
    attempts: u32,
    /// Whether nothing may wait for it long.
    is_brief: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { last: BASE, attempts: 0, is_brief: false }
    }
}

impl Backoff {
    /// For what nothing may wait for long: one more attempt, unless the server asks for a pause.
    pub fn brief() -> Self {
        Self { is_brief: true, ..Self::default() }
    }

    /// How long to wait before the next attempt, or `None` after [`ATTEMPTS_MAX`] without
    /// progress. `random` is uniform over all of u64; `asked` is the server's Retry-After.
    pub fn next(&mut self, random: u64, asked: Option<Duration>) -> Option<Duration> {
        self.attempts += 1;
        let attempts_max = if self.is_brief { BRIEF_ATTEMPTS_MAX } else { ATTEMPTS_MAX };
        if self.attempts >= attempts_max || self.is_brief && asked > Some(BASE) {
            return None;
        }
        let ceiling = (self.last * 3).min(WAIT_MAX);
        let span = ceiling.saturating_sub(BASE).as_millis().max(1);
        let drawn = u64::try_from(u128::from(random) % span).unwrap_or(0);
        self.last = BASE + Duration::from_millis(drawn);
        Some(self.last.max(asked.unwrap_or_default()).min(WAIT_MAX))
    }

    /// Bytes got through: the link works, start over.
    pub fn progress(&mut self) {
        *self = Self { is_brief: self.is_brief, ..Self::default() };
    }
}

/// Attempts at one thing without any progress in between; the next reconciliation tries again.
pub const ATTEMPTS_MAX: u32 = 5;
const BRIEF_ATTEMPTS_MAX: u32 = 2;
const BASE: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_and_end() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            let mut backoff = Backoff::default();
            let mut waits = Vec::new();
            while let Some(wait) = backoff.next(random, None) {
                assert!((BASE..=WAIT_MAX).contains(&wait), "{wait:?}");
                waits.push(wait);
            }
            assert_eq!(waits.len(), usize::try_from(ATTEMPTS_MAX - 1).unwrap());
        }
    }

    #[test]
    fn brief_is_one_more_attempt() {
        let mut backoff = Backoff::brief();
        assert!(backoff.next(7, None).is_some());
        assert_eq!(backoff.next(7, None), None);
        assert_eq!(Backoff::brief().next(7, Some(Duration::from_secs(60))), None);
    }

    #[test]
    fn the_server_is_obeyed_and_progress_starts_over() {
        let mut backoff = Backoff::default();
        let minute = Duration::from_secs(60);
        assert_eq!(backoff.next(0, Some(minute)), Some(minute));
        backoff.next(0, None);
        backoff.progress();
        assert!((1..ATTEMPTS_MAX).all(|_| backoff.next(7, None).is_some()));
        assert_eq!(backoff.next(7, None), None);
    }
}
