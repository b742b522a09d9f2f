//! A sync of the device, beside the writing.

use std::ops::Range;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use smol::Task;

use crate::flash::{Device, Error};

/// A sync that was started. It goes on while others work; dropped, it may never happen.
pub struct Syncing {
    run: Run,
    covers: Covers,
    life: Rc<()>,
}

/// What is durable when a sync has ended.
#[derive(Clone, Debug)]
pub enum Covers {
    /// Whatever was programmed up to a change, and so all bytes of blobs.
    Bytes(u64),
    /// All records that were appended up to a change; those that were programmed and are not
    /// durable yet lie in a range of one segment.
    Records(u64, u32, Range<u32>),
}

enum Run {
    /// The device is quick, or there was nothing to do: it is done. Not a task, because when a task
    /// counts as finished is up to threads, and a simulated device must do the same each time.
    Done(Result<(), Error>),
    /// On another thread.
    Running(Task<Result<(), Error>>),
}

impl Syncing {
    /// Starts a sync.
    pub fn begin(device: &Arc<dyn Device>, covers: Covers) -> Self {
        let run = if device.is_slow() && !covers.nothing() {
            let (device, covers) = (Arc::clone(device), covers.clone());
            Run::Running(smol::unblock(move || covers.sync(device.as_ref())))
        } else {
            Run::Done(covers.sync(device.as_ref()))
        };
        Self { run, covers, life: Rc::default() }
    }

    /// What lives as long as it may still end.
    pub fn life(&self) -> Weak<()> {
        Rc::downgrade(&self.life)
    }

    /// Whether [`Syncing::end`] would not have to wait.
    pub fn is_finished(&self) -> bool {
        match &self.run {
            Run::Done(_) => true,
            Run::Running(task) => task.is_finished(),
        }
    }

    /// What is durable now, or why not.
    pub async fn end(self) -> Result<Covers, Error> {
        let outcome = match self.run {
            Run::Done(outcome) => outcome,
            Run::Running(task) => task.await,
        };
        outcome.map(|()| self.covers)
    }
}

impl Covers {
    /// Whether there is nothing to do.
    pub fn nothing(&self) -> bool {
        matches!(self, Self::Records(_, _, range) if range.is_empty())
    }

    fn sync(&self, device: &dyn Device) -> Result<(), Error> {
        match self {
            _ if self.nothing() => Ok(()),
            Self::Records(_, segment, range) => device.sync_range(*segment, range.clone()),
            Self::Bytes(_) => device.sync(),
        }
    }
}
