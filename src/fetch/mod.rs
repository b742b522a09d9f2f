//! Moves one opened body to where its bytes belong.
//!
//! Bytes go from the network to their final place on flash and nowhere else: one buffer of
//! [`BUFFER_BYTES`] is all that is held. Who the source is, and what to do when it fails, is known
//! one row up. Whatever arrived before a failure has been written: see the sink's frontier.
//!
//! A stop is obeyed between two pieces, and while waiting for one. A piece that has arrived is
//! written whole, so that the writer can be suspended after it and nothing comes twice.
//!
//! [`gate`] keeps the link to its rate and its data plan, for which every byte of the uplink passes
//! it, and to its windows, for which it is asked before content is and between two pieces.

pub mod gate;
mod latch;

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use crate::blob::{self, Writer};
use crate::kind::Kind;
use crate::link::Urgency;
use crate::metrics::Metrics;
use crate::net::{self, http::Body};
pub use gate::Gate;
pub use latch::Latch;

/// What a transfer is bound to: the link's gate, for whom it is, and what ends it. Clones share the
/// gate and the sign to stop.
#[derive(Clone)]
pub struct Terms {
    gate: Gate,
    urgency: Urgency,
    stop: Latch,
    /// Ends one download only.
    unwanted: Option<Latch>,
    metrics: Rc<Metrics>,
}

impl Terms {
    /// Of transfers for the desired images, which go through `gate` and end when `stop` is opened.
    pub fn new(gate: Gate, stop: Latch, metrics: Rc<Metrics>) -> Self {
        Self { gate, urgency: Urgency::Sync, stop, unwanted: None, metrics }
    }

    /// The same for what is fetched for another's sake.
    pub fn of(&self, urgency: Urgency) -> Self {
        Self { urgency, ..self.clone() }
    }

    /// The same for a download that ends when `unwanted` is opened, too.
    pub fn until(&self, unwanted: &Latch) -> Self {
        Self { unwanted: Some(unwanted.clone()), ..self.clone() }
    }

    /// The link's limits.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether the content of images may be fetched now: to be asked before a request for some.
    ///
    /// # Errors
    /// [`Error::HeldBack`] where the windows are closed.
    pub fn may_fetch(&self) -> Result<(), Error> {
        self.gate.may_fetch(self.urgency)
    }

    /// The sign to stop.
    pub fn stop(&self) -> &Latch {
        &self.stop
    }

    /// The result of `work`, or nothing when it is to end first: then `work` is dropped where it
    /// waits.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match &self.unwanted {
            None => self.stop.unless_opened(work).await,
            Some(unwanted) => self.stop.unless_opened(unwanted.unless_opened(work)).await.flatten(),
        }
    }
}

/// Where bytes go, in order.
pub trait Sink {
    /// The first byte that is missing.
    fn frontier(&self) -> u64;
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), blob::Error>>;
}

impl Sink for Writer {
    fn frontier(&self) -> u64 {
        Self::frontier(self)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), blob::Error> {
        Self::write(self, bytes).await
    }
}

/// A part of a blob, in memory: no more of it than the caller has room for.
#[derive(Debug)]
pub struct Part {
    /// The blob's byte that the part begins with.
    pub start: u64,
    /// The bytes that arrived.
    pub bytes: Vec<u8>,
}

impl Sink for Part {
    fn frontier(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), blob::Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Copies from `body`, whose first byte is byte `body_start` of the blob, until the blob's byte
/// `end` (exclusive) is written, and calls `arrived` with the length of every piece.
///
/// What lies before the sink's frontier is read and dropped, and counted as fetched twice.
pub async fn copy(
    body: &mut Body,
    body_start: u64,
    sink: &mut impl Sink,
    end: u64,
    terms: &Terms,
    mut arrived: impl FnMut(u64),
) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut position = body_start;
    while position < end {
        let room = usize::try_from(end - position).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        let into = buffer.get_mut(..room).unwrap_or_default();
        terms.may_fetch()?;
        let length = terms.unless_stopped(body.read(into)).await.ok_or(Error::Stopped)??;
        if length == 0 {
            return Err(Error::Short { at: position, expected: end });
        }
        let bytes = buffer.get(..length).unwrap_or_default();
        terms.metrics.fetch_body_bytes.add(length as u64);
        let repeated = sink.frontier().saturating_sub(position).min(length as u64);
        terms.metrics.fetch_repeated_bytes.add(repeated);
        position += length as u64;
        let fresh = usize::try_from(repeated).ok().and_then(|skip| bytes.get(skip..));
        if let Some(fresh) = fresh.filter(|fresh| !fresh.is_empty()) {
            sink.write(fresh).await?;
            arrived(fresh.len() as u64);
        }
        // A socket that always has more would leave clients waiting.
        smol::future::yield_now().await;
    }
    Ok(())
}

/// Why a body could not be moved.
#[derive(Debug)]
pub enum Error {
    /// The body ended early.
    Short {
        /// The blob's byte at which it ended.
        at: u64,
        /// The byte that was asked for, exclusive.
        expected: u64,
    },
    /// A stop was asked for.
    Stopped,
    /// It may not be fetched now.
    HeldBack {
        /// Why, in one line.
        reason: String,
        /// After how long to ask again.
        retry_after: Duration,
    },
    /// The link failed.
    Link(net::Error),
    /// The device failed.
    Store(blob::Error),
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Short { .. } | Self::Stopped | Self::HeldBack { .. } => Kind::Retry,
            Self::Link(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }

    /// When what was held back may be asked for again; none for whatever else went wrong.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::HeldBack { retry_after, .. } => Some(*retry_after),
            Self::Link(error) => error.retry_after(),
            Self::Short { .. } | Self::Stopped | Self::Store(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { at, expected } => {
                write!(f, "body ended at byte {at}, expected {expected}")
            }
            Self::Stopped => f.write_str("stopped"),
            Self::HeldBack { reason, .. } => f.write_str(reason),
            Self::Link(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Short { .. } | Self::Stopped | Self::HeldBack { .. } => None,
            Self::Link(error) => Some(error),
            Self::Store(error) => Some(error),
        }
    }
}

impl From<net::Error> for Error {
    fn from(error: net::Error) -> Self {
        Self::Link(error)
    }
}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        Self::Store(error)
    }
}

/// What is read from the network at a time.
pub const BUFFER_BYTES: usize = 64 << 10;
