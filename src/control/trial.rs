//! The trial of a remote configuration that changes a way: whom to obey, where to listen, which
//! proxy to go through. A mistake there would cut off a device that is out of reach.
//!
//! Such a configuration is kept together with the one before, and stays only when all of it was
//! seen to work within its time: the state was read, a report was taken, and every address is
//! listened on. Else the one before takes its place again, and this one is refused for as long as
//! it stays what it is. Power may go at any moment: what is kept says that a trial is under way; it
//! begins anew at the next start, and not more often than [`STARTS_MAX`] times, since it may be the
//! configuration that ends the program.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use log::info;

use super::desired::Desired;
use super::{Control, Error, Source};

/// What was seen since the configuration on trial took effect here.
#[derive(Default)]
pub(super) struct Trial {
    /// When that was; none while there is no trial, or it has not begun since the start.
    since: Cell<Option<Duration>>,
    was_polled: Cell<bool>,
    was_reported: Cell<bool>,
    /// Why the last attempt at either failed.
    error: RefCell<String>,
}

impl Trial {
    /// The state was read or not.
    pub fn polled(&self, outcome: Result<(), &Error>) {
        self.note(&self.was_polled, outcome);
    }

    /// A report was taken or not.
    pub fn reported(&self, outcome: Result<(), &Error>) {
        self.note(&self.was_reported, outcome);
    }

    fn note(&self, was_done: &Cell<bool>, outcome: Result<(), &Error>) {
        match outcome {
            Ok(()) => was_done.set(true),
            Err(error) => drop(self.error.replace(error.to_string())),
        }
    }

    /// Another configuration is in effect, or another try of this one.
    pub fn restart(&self, since: Option<Duration>) {
        self.since.set(since);
        self.was_polled.set(false);
        self.was_reported.set(false);
        self.error.take();
    }
}

impl Control {
    /// How often to look and to report while a configuration is on trial.
    pub fn trial_pause(&self) -> Option<Duration> {
        let span = self.desired.borrow().trial_span()?;
        Some((span / 10).clamp(PAUSE_MIN, PAUSE_MAX))
    }

    /// Judges the configuration that is on trial, if one is. `unserved` says what of its addresses
    /// is not listened on. Whether it was rolled back.
    ///
    /// # Errors
    /// Where the outcome cannot be kept; it is judged again.
    pub async fn judge(&self, unserved: Option<String>) -> Result<bool, Error> {
        let (Some(span), Ok(fleet)) = (self.desired.borrow().trial_span(), self.fleet()) else {
            self.trial.restart(None);
            return Ok(false);
        };
        let now = self.parts.clock.monotonic();
        let mut next = Desired::clone(&self.desired.borrow());
        let Some(since) = self.trial.since.get() else {
            self.trial.restart(Some(now));
            if next.count_start() <= STARTS_MAX {
                self.keep_desired(&fleet, next).await?;
                info!("the configuration that came is on trial for {span:?}");
                return Ok(false);
            }
            let why = format!("{STARTS_MAX} starts and no end of its trial");
            return self.roll_back(next, &why).await;
        };
        let is_told = self.trial.was_reported.get() || matches!(fleet.source, Source::Documents(_));
        let is_polled = self.trial.was_polled.get();
        if is_polled && is_told && unserved.is_none() {
            next.end_trial();
            self.keep_desired(&fleet, next).await?;
            info!("the configuration that came works, and stays");
            return Ok(false);
        }
        if now.saturating_sub(since) < span {
            return Ok(false);
        }
        let error = self.trial.error.borrow().clone();
        let why = match unserved {
            Some(problem) => problem,
            None if !is_polled => format!("the state could not be read: {error}"),
            None => format!("no report was taken: {error}"),
        };
        self.roll_back(next, &format!("after {span:?}, {why}")).await
    }

    /// What was rolled back, and why.
    pub fn refusal(&self) -> Option<String> {
        Some(self.desired.borrow().config.as_ref()?.refused.clone()?.1)
    }

    async fn roll_back(&self, mut next: Desired, why: &str) -> Result<bool, Error> {
        let fleet = self.fleet()?;
        next.roll_back(why);
        self.keep_desired(&fleet, next).await?;
        self.trial.restart(None);
        Ok(true)
    }
}

/// Starts of one trial.
const STARTS_MAX: u8 = 3;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
