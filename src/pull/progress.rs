//! What is going on, for people to look at: images, and the transfers under way.
//!
//! The pull engine and the reconciler write here, the status service reads. Plain values behind
//! one `Rc`; no borrow leaves this file.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::oci::Digest;

/// The progress of all images, shared.
#[derive(Clone, Default)]
pub struct Progress(Rc<RefCell<Notices>>);

#[derive(Default)]
struct Notices {
    images: BTreeMap<String, Image>,
    transfers: BTreeMap<Digest, Transfer>,
}

/// One desired image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Where it stands.
    pub state: State,
    /// The digest held under its tag.
    pub digest: Option<Digest>,
    /// Bytes of it that are on flash.
    pub held_bytes: u64,
    /// Bytes of it in all, as far as its manifests are known.
    pub total_bytes: u64,
    /// The last error, in one line.
    pub error: Option<String>,
    /// What accompanies it and could not be had, a line each.
    pub missing: Vec<String>,
    /// Bytes per second, averaged over the last seconds; zero when nothing moves.
    pub rate: u64,
    meter: Meter,
}

/// Where an image stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not looked at yet.
    #[default]
    Pending,
    /// Being replicated.
    Syncing,
    /// Held whole, as of the last look at the registry.
    Held,
    /// Held whole, and its tag does not mean it yet.
    Staged,
    /// Held whole; the registry does not have it any more.
    Gone,
    /// Held whole, as of the last answer of the registry, which cannot be asked now.
    Unchecked,
    /// It waits for a window or for the data plan; what was held before is still served.
    Waiting,
    /// The last attempt failed; what was held before is still served.
    Failed,
}

/// One download.
#[derive(Clone, Debug)]
struct Transfer {
    image: String,
}

impl Progress {
    /// Changes what is shown of `image`.
    pub fn update(&self, image: &str, change: impl FnOnce(&mut Image)) {
        let mut notices = self.0.borrow_mut();
        change(notices.images.entry(image.to_owned()).or_default());
    }

    /// Takes down the images that `keep` refuses.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.0.borrow_mut().images.retain(|image, _| keep(image));
    }

    /// A download of `digest` for `image` begins; one that was going on for another image is
    /// shared by both.
    pub fn begin(&self, digest: Digest, image: &str) {
        let transfer = Transfer { image: image.to_owned() };
        self.0.borrow_mut().transfers.insert(digest, transfer);
    }

    /// `bytes` of a download have been written.
    pub fn arrived(&self, digest: &Digest, bytes: u64, now: Duration) {
        let mut notices = self.0.borrow_mut();
        let Some(transfer) = notices.transfers.get(digest) else { return };
        let image = transfer.image.clone();
        if let Some(image) = notices.images.get_mut(&image) {
            image.held_bytes = (image.held_bytes + bytes).min(image.total_bytes);
            image.meter.add(bytes, now);
        }
    }

    /// A download has ended, well or badly.
    pub fn end(&self, digest: &Digest) {
        self.0.borrow_mut().transfers.remove(digest);
    }

    /// Digests that are being downloaded.
    pub fn transfers(&self) -> Vec<Digest> {
        self.0.borrow().transfers.keys().copied().collect()
    }

    /// All images by name, with their rates as of `now`.
    pub fn images(&self, now: Duration) -> Vec<(String, Image)> {
        let mut notices = self.0.borrow_mut();
        let images = notices.images.iter_mut().map(|(name, image)| {
            image.rate = if image.state == State::Syncing { image.meter.rate(now) } else { 0 };
            (name.clone(), image.clone())
        });
        images.collect()
    }
}

/// Bytes per second over the last [`METER_SECONDS`].
#[derive(Clone, Debug, Default, PartialEq)]
struct Meter(VecDeque<(u64, u64)>);

impl Meter {
    fn add(&mut self, bytes: u64, now: Duration) {
        let second = now.as_secs();
        match self.0.back_mut() {
            Some((last, sum)) if *last == second => *sum += bytes,
            _ => self.0.push_back((second, bytes)),
        }
        self.forget(second);
    }

    fn rate(&mut self, now: Duration) -> u64 {
        self.forget(now.as_secs());
        let Some((first, _)) = self.0.front() else { return 0 };
        let sum: u64 = self.0.iter().map(|(_, bytes)| bytes).sum();
        let span = now.saturating_sub(Duration::from_secs(*first)).as_millis().max(1_000);
        u64::try_from(u128::from(sum) * 1_000 / span).unwrap_or(u64::MAX)
    }

    fn forget(&mut self, second: u64) {
        while self.0.front().is_some_and(|(first, _)| first + METER_SECONDS < second) {
            self.0.pop_front();
        }
    }
}

const METER_SECONDS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_last_seconds() {
        let progress = Progress::default();
        let digest = Digest::sha256(b"layer");
        progress.update("a", |image| {
            image.state = State::Syncing;
            image.total_bytes = 10_000;
        });
        progress.begin(digest, "a");
        for second in 0..4 {
            progress.arrived(&digest, 1_000, Duration::from_secs(second));
        }
        let images = progress.images(Duration::from_secs(4));
        assert_eq!((images[0].1.held_bytes, images[0].1.rate), (4_000, 1_000));
        assert_eq!(progress.images(Duration::from_secs(60))[0].1.rate, 0);
        progress.end(&digest);
        progress.arrived(&digest, 1_000, Duration::from_secs(61));
        assert_eq!(progress.images(Duration::from_secs(61))[0].1.held_bytes, 4_000);
    }
}
