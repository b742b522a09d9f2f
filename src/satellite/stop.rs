//! The end of a satellite that is asked to stop: what is under way has [`PATIENCE`] to end by
//! itself.
//!
//! Whatever waits for the link or for a time returns at once at the sign to stop; downloads write
//! and record what they have. That takes as long as flash takes, which has no bound. A device that
//! is being switched off does not wait: what has not ended in time is left where it is, as a pulled
//! plug would leave it.

use std::future::Future;
use std::time::Duration;

use smol::future::or;

use crate::clock::SharedClock;
use crate::fetch::Latch;

/// The result of `work`, or nothing if it goes on for too long after `stop`: then it is dropped
/// where it waits.
pub async fn in_time<T>(
    work: impl Future<Output = T>,
    stop: &Latch,
    clock: &SharedClock,
) -> Option<T> {
    let late = async {
        stop.opened().await;
        clock.sleep(PATIENCE).await;
        None
    };
    or(async { Some(work.await) }, late).await
}

/// Of the two seconds that a stop may take; what is left is for the last records and their sync.
pub const PATIENCE: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::rc::Rc;

    use smol::LocalExecutor;

    use super::*;
    use crate::clock::sim::SimulatedClock;

    #[test]
    fn what_does_not_end_is_left_in_time() {
        let simulated = Rc::new(SimulatedClock::new(0));
        let clock: SharedClock = Rc::<SimulatedClock>::clone(&simulated);
        let stop = Latch::default();
        let begun = clock.monotonic();
        let work = in_time(pending::<()>(), &stop, &clock);
        let signal = async {
            clock.sleep(Duration::from_hours(1)).await;
            stop.open();
            pending().await
        };
        let left = simulated.run(&LocalExecutor::new(), or(work, signal));
        assert_eq!(left, None);
        assert_eq!(clock.monotonic() - begun, Duration::from_hours(1) + PATIENCE);
    }

    #[test]
    fn what_ends_by_itself_is_waited_for() {
        let simulated = Rc::new(SimulatedClock::new(0));
        let clock: SharedClock = Rc::<SimulatedClock>::clone(&simulated);
        let stop = Latch::default();
        stop.open();
        let work = async {
            clock.sleep(PATIENCE / 2).await;
            7
        };
        assert_eq!(simulated.run(&LocalExecutor::new(), in_time(work, &stop, &clock)), Some(7));
    }
}
