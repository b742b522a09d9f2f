//! What changes a device, one after the other, in the order in which it was begun.
//!
//! A program may take as long as a card likes, and no other is to wait for that. So where calls
//! take long they are made on another thread, one at a time; elsewhere at once, so that a simulated
//! device does the same each time.
//!
//! The order is what makes it safe to stop waiting: what somebody began who is gone comes before
//! whatever is begun later, and so before its room is erased, trimmed or programmed by another.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::blob::format::layout::Piece;
use crate::flash::{self, Device, program_checked};

/// The operations of one device. Clones share it.
#[derive(Clone)]
pub struct Queue {
    device: Arc<dyn Device>,
    /// None where operations are done at once.
    jobs: Option<Arc<Mutex<Jobs>>>,
}

/// As many as there are tasks that write, and those that some of them have left behind.
#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Whether a thread is at it.
    is_running: bool,
}

type Job = Box<dyn FnOnce(&dyn Device) + Send>;

/// An operation that goes on, awaited or not. Polled after that, it is pending.
pub struct Flight<T>(Arc<Mutex<Landing<T>>>);

struct Landing<T> {
    outcome: Option<T>,
    waker: Option<Waker>,
}

impl Queue {
    /// The queue of `device`.
    pub fn new(device: &Arc<dyn Device>) -> Self {
        let jobs = device.is_slow().then(Arc::default);
        Self { device: Arc::clone(device), jobs }
    }

    /// Does everything at once, however long it takes: for a caller with nothing else to do.
    pub fn at_once(device: &Arc<dyn Device>) -> Self {
        Self { device: Arc::clone(device), jobs: None }
    }

    /// The device, where operations are done at once.
    pub fn here(&self) -> Option<&dyn Device> {
        self.jobs.is_none().then(|| self.device.as_ref())
    }

    /// Begins an operation.
    pub fn begin<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn Device) -> T + Send + 'static,
    ) -> Flight<T> {
        let Some(jobs) = &self.jobs else { return Flight::landed(operation(self.device.as_ref())) };
        let flight = Flight(Arc::new(Mutex::new(Landing { outcome: None, waker: None })));
        let landing = Arc::clone(&flight.0);
        let job = move |device: &dyn Device| {
            let outcome = operation(device);
            let mut landing = lock(&landing);
            landing.outcome = Some(outcome);
            let waker = landing.waker.take();
            drop(landing);
            waker.into_iter().for_each(Waker::wake);
        };
        let mut queued = lock(jobs);
        queued.waiting.push_back(Box::new(job));
        if !std::mem::replace(&mut queued.is_running, true) {
            let (device, jobs) = (Arc::clone(&self.device), Arc::clone(jobs));
            smol::unblock(move || work(device.as_ref(), &jobs)).detach();
        }
        flight
    }
}

impl<T> Flight<T> {
    /// One whose outcome is there.
    pub fn landed(outcome: T) -> Self {
        Self(Arc::new(Mutex::new(Landing { outcome: Some(outcome), waker: None })))
    }
}

impl<T> Future for Flight<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut landing = lock(&self.0);
        match landing.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                landing.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Does what waits, until nothing does.
fn work(device: &dyn Device, jobs: &Mutex<Jobs>) {
    loop {
        let job = {
            let mut jobs = lock(jobs);
            let job = jobs.waiting.pop_front();
            jobs.is_running = job.is_some();
            job
        };
        match job {
            Some(job) => job(device),
            None => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Programs `bytes` to `pieces`; with an error comes the segment that it is of.
pub(in crate::blob) fn program_pieces(
    device: &dyn Device,
    pieces: &[Piece],
    bytes: &[u8],
) -> Outcome<()> {
    let mut rest = bytes;
    for piece in pieces {
        let (here, later) = rest.split_at_checked(piece.bytes).unwrap_or((rest, &[]));
        program_checked(device, piece.segment, piece.offset, here)
            .map_err(|error| (piece.segment, error))?;
        rest = later;
    }
    Ok(())
}

/// What became of an operation on segments, and which of them failed.
pub(in crate::blob) type Outcome<T> = Result<T, (u32, flash::Error)>;

/// Bytes that are being programmed, which are given back.
pub(in crate::blob) type Programming = Flight<Outcome<Vec<u8>>>;
