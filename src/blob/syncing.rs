//! A sync of the device, beside the writing.

use std::sync::Arc;

use smol::Task;

use crate::flash::{Device, Error};

/// A sync that was started. It goes on whether or not it is awaited.
pub enum Syncing {
    /// The device is quick: it is done. Not a task, because when a task counts as finished is up
    /// to threads, and a simulated device must do the same each time.
    Done(Result<(), Error>),
    /// On another thread.
    Running(Task<Result<(), Error>>),
}

impl Syncing {
    /// Starts a sync of everything programmed so far.
    pub fn begin(device: &Arc<dyn Device>) -> Self {
        if !device.is_slow() {
            return Self::Done(device.sync());
        }
        let device = Arc::clone(device);
        Self::Running(smol::unblock(move || device.sync()))
    }

    /// Whether [`Syncing::end`] would not have to wait.
    pub fn is_finished(&self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Running(task) => task.is_finished(),
        }
    }

    /// How it ended.
    pub async fn end(self) -> Result<(), Error> {
        match self {
            Self::Done(outcome) => outcome,
            Self::Running(task) => task.await,
        }
    }
}
