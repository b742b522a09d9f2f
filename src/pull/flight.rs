//! One download under way, and those who wait for it or read behind it.
//!
//! A download has no owner: all who ask for the digest join it, and it goes on when they
//! leave. What it holds for them is a watermark; the bytes they read from flash.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Error;
use crate::blob::Follower;
use crate::fetch::Latch;
use crate::kind::Kind;
use crate::net::http::ClientAddress;
use crate::oci::Digest;

/// A download, as those who started or joined it see it. Clones are the same one.
#[derive(Clone)]
pub struct Download {
    flight: Rc<Flight>,
    /// What was written when it was joined may be given up, and begun anew.
    epoch: u32,
}

/// What a download and those who wait for it share.
pub(super) struct Flight {
    pub digest: Digest,
    /// The registry and repository that it is from.
    pub source: String,
    /// Whether it goes on trying as for what an image is nothing without.
    pub required: bool,
    /// Bytes of the blob, once they are known.
    size: Cell<Option<u64>>,
    /// Opened when the registry sends the blob.
    opened: Latch,
    /// Opened when an image waits for it: it is pinned, and takes part in the images' order.
    pub image: Latch,
    /// Opened when no image waits for it any more, nor a client: it is suspended.
    pub unwanted: Latch,
    /// The first place of such an image in the configuration.
    pub rank: Cell<usize>,
    /// Opened when a client waits for it: it may have a slot of the clients', and is visible as
    /// soon as it is whole.
    pub client: Latch,
    /// For which client it was begun, and beside how many others for that one.
    pub begun_for: Cell<Option<(ClientAddress, usize)>>,
    /// Reads behind the writer of this attempt.
    follower: RefCell<Option<Follower>>,
    /// How often the download was begun anew because its bytes were wrong.
    epoch: Cell<u32>,
    readers: RefCell<Vec<Waker>>,
    outcome: RefCell<Option<Result<(), Rc<Error>>>>,
    ended: Latch,
}

impl Flight {
    /// One that has not begun.
    pub fn new(digest: Digest, source: String, required: bool) -> Rc<Self> {
        Rc::new(Self {
            digest,
            source,
            required,
            size: Cell::default(),
            opened: Latch::default(),
            image: Latch::default(),
            unwanted: Latch::default(),
            rank: Cell::new(usize::MAX),
            client: Latch::default(),
            begun_for: Cell::default(),
            follower: RefCell::default(),
            epoch: Cell::default(),
            readers: RefCell::default(),
            outcome: RefCell::default(),
            ended: Latch::default(),
        })
    }

    /// What a caller waits by.
    pub fn download(self: &Rc<Self>) -> Download {
        Download { flight: Rc::clone(self), epoch: self.epoch.get() }
    }

    /// Bytes of the blob, once they are known.
    pub fn size(&self) -> Option<u64> {
        self.size.get()
    }

    /// The registry sends the blob, which has `size` bytes.
    pub fn open(&self, size: u64) {
        self.size.set(Some(size));
        self.opened.open();
    }

    /// An attempt begins, or ends: then there is nothing to read until the next one.
    pub fn follow(&self, follower: Option<Follower>) {
        self.follower.replace(follower);
        self.wake();
    }

    /// The bytes were wrong, and are fetched once more: what was read of them is of no use.
    pub fn begin_anew(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.wake();
    }

    /// More was written.
    pub fn wake(&self) {
        self.readers.take().into_iter().for_each(Waker::wake);
    }

    /// It is over.
    pub fn end(&self, outcome: Result<(), Error>) {
        self.outcome.replace(Some(outcome.map_err(Rc::new)));
        self.follower.take();
        self.ended.open();
        self.wake();
    }

    /// Its task was dropped, which is as good as a stop.
    pub fn end_if_dropped(&self) {
        if !self.ended.is_open() {
            self.end(Err(Error::stopped()));
        }
    }

    fn poll_read(
        &self,
        epoch: u32,
        at: u64,
        buffer: &mut [u8],
        context: &Context<'_>,
    ) -> Poll<Result<usize, Error>> {
        if self.epoch.get() != epoch {
            let what = "the bytes that came first were wrong";
            return Poll::Ready(Err(Error::new(Kind::Corrupt, self.digest.to_string(), what)));
        }
        if let Some(outcome) = &*self.outcome.borrow() {
            return Poll::Ready(outcome.clone().map(|()| 0).map_err(Error::shared));
        }
        let read = match &*self.follower.borrow() {
            Some(follower) if follower.is_mounted() => match follower.read_at(at, buffer) {
                Ok(read) => read,
                Err(error) => return Poll::Ready(Err(error.into())),
            },
            // One whose log was mounted again is about to end.
            _ => 0,
        };
        if read > 0 {
            return Poll::Ready(Ok(read));
        }
        let mut readers = self.readers.borrow_mut();
        if readers.iter().all(|reader| !reader.will_wake(context.waker())) {
            readers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Download {
    /// Waits until the registry sends the blob; returns its size in bytes.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn opened(&self) -> Result<u64, Error> {
        smol::future::or(self.flight.opened.opened(), self.flight.ended.opened()).await;
        match self.flight.size.get().filter(|_| self.flight.opened.is_open()) {
            Some(size) => Ok(size),
            None => self.landed().await.and_then(|()| {
                let what = "it came without a size";
                Err(Error::new(Kind::Invalid, self.flight.digest.to_string(), what))
            }),
        }
    }

    /// Reads what is on flash from byte `at` on, and waits for it where there is nothing yet.
    /// Returns 0 when all of the blob is there and right.
    ///
    /// # Errors
    /// Why the download failed, or that what was read before was wrong.
    pub async fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        poll_fn(|context| self.flight.poll_read(self.epoch, at, buffer, context)).await
    }

    /// Waits until all of the blob is there, and right. It is visible once the store is flushed.
    ///
    /// # Errors
    /// Why that did not come to be.
    pub async fn landed(&self) -> Result<(), Error> {
        self.flight.ended.opened().await;
        match &*self.flight.outcome.borrow() {
            Some(outcome) => outcome.clone().map_err(Error::shared),
            None => Err(Error::stopped()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::blob::Store;
    use crate::flash::{Geometry, sim};
    use crate::metrics::Metrics;

    #[test]
    fn flash_that_cannot_be_read_ends_a_reader() {
        let geometry = Geometry {
            segment_count: 16,
            segment_bytes: 16_384,
            program_bytes: 64,
            reprogram: true,
        };
        let device = Arc::new(sim::Device::new(geometry));
        let worn = Arc::clone(&device);
        let (store, _) = Store::open(device, Rc::new(Metrics::default())).unwrap();
        let bytes = [7; 20_000];
        let digest = Digest::sha256(&bytes);
        let mut writer = smol::block_on(store.writer(&digest, 20_000, None)).unwrap();
        smol::block_on(writer.write(&bytes[..10_000])).unwrap();
        let flight = Flight::new(digest, "a.test/app".to_owned(), true);
        flight.follow(Some(writer.follow()));
        let (download, mut buffer) = (flight.download(), [0; 100]);
        assert_eq!(smol::block_on(download.read(0, &mut buffer)).map_err(|e| e.kind()), Ok(100));
        (0..16).for_each(|segment| worn.wear_out(segment, sim::Worn::ReadError));
        let read = async { Some(download.read(0, &mut buffer).await.is_err()) };
        let waits = async { None };
        assert_eq!(smol::block_on(smol::future::or(read, waits)), Some(true));
    }

    #[test]
    fn all_who_wait_get_the_same_end() {
        let flight = Flight::new(Digest::sha256(b"x"), "a.test/app".to_owned(), true);
        let (one, other) = (flight.download(), flight.download());
        let waiting = async { smol::future::zip(one.landed(), other.opened()).await };
        let ending = async { flight.end(Err(Error::new(Kind::Missing, "app", "not there"))) };
        let ((landed, opened), ()) = smol::block_on(smol::future::zip(waiting, ending));
        for error in [landed.unwrap_err(), opened.unwrap_err()] {
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (Kind::Missing, "app: not there")
            );
        }
    }

    #[test]
    fn what_is_begun_anew_is_not_read_on() {
        let flight = Flight::new(Digest::sha256(b"x"), "a.test/app".to_owned(), true);
        let before = flight.download();
        flight.begin_anew();
        let mut buffer = [0; 4];
        let read = smol::block_on(before.read(0, &mut buffer));
        assert_eq!(read.map_err(|error| error.kind()), Err(Kind::Corrupt));
        let after = flight.download();
        flight.end(Ok(()));
        assert_eq!(smol::block_on(after.read(0, &mut buffer)).map_err(|e| e.kind()), Ok(0));
    }
}
