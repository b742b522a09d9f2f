//! Moves one opened body into a blob's writer.
//!
//! Bytes go from the network to their final place on flash and nowhere else: one buffer of
//! [`BUFFER_BYTES`] is all that is held. Who the source is, and what to do when it fails, is known
//! one row up. Whatever arrived before a failure has been written: the writer's frontier tells.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use smol::Timer;

use crate::blob::{self, Writer};
use crate::clock::SharedClock;
use crate::kind::Kind;
use crate::link::rate::Bucket;
use crate::metrics::Metrics;
use crate::net::{self, http::Body};

/// The pace that all bodies of one process share.
#[derive(Clone)]
pub struct Pace {
    bucket: Rc<RefCell<Option<Bucket>>>,
    clock: SharedClock,
    metrics: Rc<Metrics>,
}

impl Pace {
    /// Holds all downloads together to `bucket`; `None` means as fast as the link goes.
    pub fn new(bucket: Option<Bucket>, clock: SharedClock, metrics: Rc<Metrics>) -> Self {
        Self { bucket: Rc::new(RefCell::new(bucket)), clock, metrics }
    }

    /// Changes the pace of all downloads, those under way included.
    pub fn set_bucket(&self, bucket: Option<Bucket>) {
        self.bucket.replace(bucket);
    }

    /// Whether a rate was set: such a link is metered, and carries one download at a time.
    pub fn is_limited(&self) -> bool {
        self.bucket.borrow().is_some()
    }

    /// Charges what the link has carried, and waits until more may come.
    pub async fn wait(&self) {
        let counter = self.metrics.link_received_bytes.value();
        let now = self.clock.monotonic();
        let wait = self.bucket.borrow_mut().as_mut().map(|bucket| bucket.charge(now, counter));
        let wait = wait.unwrap_or_default();
        if !wait.is_zero() {
            Timer::after(wait).await;
        }
    }
}

/// Copies from `body`, whose first byte is byte `body_start` of the blob, until the blob's byte
/// `end` (exclusive) is written, and calls `arrived` with the length of every piece.
///
/// What lies before the writer's frontier is read and dropped, and counted as fetched twice.
pub async fn copy(
    body: &mut Body,
    body_start: u64,
    writer: &mut Writer,
    end: u64,
    pace: &Pace,
    mut arrived: impl FnMut(u64),
) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut position = body_start;
    while position < end {
        pace.wait().await;
        let room = usize::try_from(end - position).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        let length = body.read(buffer.get_mut(..room).unwrap_or_default()).await?;
        if length == 0 {
            return Err(Error::Short { at: position, expected: end });
        }
        let bytes = buffer.get(..length).unwrap_or_default();
        pace.metrics.fetch_body_bytes.add(length as u64);
        let repeated = writer.frontier().saturating_sub(position).min(length as u64);
        pace.metrics.fetch_repeated_bytes.add(repeated);
        position += length as u64;
        let fresh = usize::try_from(repeated).ok().and_then(|skip| bytes.get(skip..));
        if let Some(fresh) = fresh.filter(|fresh| !fresh.is_empty()) {
            writer.write(fresh).await?;
            arrived(fresh.len() as u64);
        }
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
    /// The link failed.
    Link(net::Error),
    /// The device failed.
    Store(blob::Error),
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Short { .. } => Kind::Retry,
            Self::Link(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { at, expected } => {
                write!(f, "body ended at byte {at}, expected {expected}")
            }
            Self::Link(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Short { .. } => None,
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
