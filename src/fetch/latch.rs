//! A sign that is given once and stays: all who wait for it go on, and later ones do not
//! wait. Nothing is sent over the channel inside; closing it is the sign.

use std::convert::Infallible;
use std::future::Future;

use smol::channel::{Receiver, Sender};

/// A sign that is given once. Clones share it.
#[derive(Clone)]
pub struct Latch {
    receiver: Receiver<Infallible>,
    /// Dropped, it would close the channel.
    _sender: Sender<Infallible>,
}

impl Default for Latch {
    fn default() -> Self {
        let (sender, receiver) = smol::channel::bounded(1);
        Self { receiver, _sender: sender }
    }
}

impl Latch {
    /// Opens the latch.
    pub fn open(&self) {
        self.receiver.close();
    }

    /// Whether it was given.
    pub fn is_open(&self) -> bool {
        self.receiver.is_closed()
    }

    /// Waits for it.
    pub async fn opened(&self) {
        // There is nothing to receive but the end.
        let _ = self.receiver.recv().await;
    }

    /// The result of `work`, or nothing when the sign comes first: then `work` is dropped where it
    /// waits.
    pub async fn unless_opened<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            self.opened().await;
            None
        };
        smol::future::or(async { Some(work.await) }, stopped).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn whoever_waits_goes_on_and_whoever_comes_later_does_not_wait() {
        let latch = Latch::default();
        let other = latch.clone();
        assert!(!latch.is_open());
        let waited =
            async { smol::future::zip(latch.opened(), latch.unless_opened(pending::<()>())).await };
        let opening = async { other.open() };
        let ((_, stopped), ()) = smol::block_on(smol::future::zip(waited, opening));
        assert_eq!((stopped, latch.is_open()), (None, true));
        smol::block_on(latch.opened());
        assert_eq!(smol::block_on(latch.unless_opened(async { 7 })), Some(7), "ready comes first");
    }
}
