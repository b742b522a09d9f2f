//! The face of the log: mounting it, and looking at what is held.

pub(super) mod pack;
pub(super) mod state;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use log::warn;
use smol::channel::{Receiver, Sender, bounded};
use smol::lock::Mutex;

use crate::blob::Error;
use crate::blob::format::TagKey;
use crate::blob::io::lane::Lane;
use crate::blob::io::queue::Queue;
use crate::blob::meta::recover::{MountReport, mount};
use crate::flash::{Device, Health};
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::oci::Digest;
use state::{Entry, Partial, State};

/// A mounted log. Clones share it.
///
/// Turns are taken in this order, and none behind it while a later one is held: `packing`,
/// `collecting`, `sync`, `flushing`. Making room for a small blob may collect a segment, collecting
/// flushes, and who flushes programs the small blobs. `state` is borrowed between awaits only.
#[derive(Clone)]
pub struct Store(pub(in crate::blob) Rc<Inner>);

pub(in crate::blob) struct Inner {
    device: Arc<dyn Device>,
    pub(in crate::blob) state: RefCell<State>,
    /// Held while a task waits for a sync on behalf of all that was changed before.
    pub(in crate::blob) sync: Mutex<()>,
    /// Held while blobs are copied to make room.
    pub(in crate::blob) collecting: Mutex<()>,
    /// Held while a small blob is given its place.
    pub(in crate::blob) packing: Mutex<()>,
    /// Held while a task programs a unit of small blobs.
    pub(in crate::blob) flushing: Mutex<()>,
    /// Has something in it when a chunk was found to be corrupt.
    pub(in crate::blob) corrupt: (Sender<()>, Receiver<()>),
    lane: Lane,
    /// Has something in it when writing has ended.
    pub(in crate::blob) failed: (Sender<()>, Receiver<()>),
    /// What changes the device.
    pub(in crate::blob) queue: Queue,
    metrics: Rc<Metrics>,
}

impl Store {
    /// Mounts the log on `device`, or begins one.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a log of a newer version or a device too small; the device's own.
    pub fn open(
        device: Arc<dyn Device>,
        metrics: Rc<Metrics>,
    ) -> Result<(Self, MountReport), Error> {
        let mut mounted = mount(&device, &[])?;
        let queue = Queue::new(&device);
        mounted.meta.set_queue(queue.clone());
        let failure = device.read_only().map(|why| format!("it can only be read: {why}"));
        let (report, programmed_bytes) = (mounted.report, mounted.programmed_bytes);
        let mut state = State::new(mounted, device.geometry().segment_count);
        state.failure = failure;
        let inner = Inner {
            device,
            state: RefCell::new(state),
            sync: Mutex::new(()),
            collecting: Mutex::new(()),
            packing: Mutex::new(()),
            flushing: Mutex::new(()),
            corrupt: bounded(1),
            lane: Lane::default(),
            failed: bounded(1),
            queue,
            metrics,
        };
        let store = Self(Rc::new(inner));
        store.count_programmed(programmed_bytes);
        Ok((store, report))
    }

    /// What is held under a digest.
    pub fn entry(&self, digest: &Digest) -> Option<Entry> {
        let state = self.0.state.borrow();
        state.index.blobs.summary(digest).map(|summary| state.entry(summary))
    }

    /// The names of all that is held, in order.
    pub fn digests(&self) -> Vec<Digest> {
        let state = self.0.state.borrow();
        let mut digests: Vec<Digest> = state.index.blobs.summaries().map(|b| b.digest).collect();
        digests.sort_unstable();
        digests
    }

    /// All that is held and has a media type, in no order.
    pub fn manifests(&self) -> Vec<Entry> {
        let state = self.0.state.borrow();
        let entries = state.index.blobs.summaries().map(|summary| state.entry(summary));
        entries.filter(|entry| entry.media_type.is_some()).collect()
    }

    /// Somebody uses a blob.
    pub fn touch(&self, digest: &Digest) {
        self.0.state.borrow_mut().index.blobs.touch(digest);
    }

    /// What a tag means.
    pub fn tag(&self, key: &TagKey) -> Option<Digest> {
        self.0.state.borrow().index.tags.get(key).copied()
    }

    /// How many tags there are.
    pub fn tag_count(&self) -> usize {
        self.0.state.borrow().index.tags.len()
    }

    /// All tags, ordered by registry, repository and tag.
    pub fn tags(&self) -> Vec<(TagKey, Digest)> {
        let state = self.0.state.borrow();
        state.index.tags.iter().map(|(key, digest)| (key.clone(), *digest)).collect()
    }

    /// At most `max` tags of one repository behind `after`, bytewise ordered, of those that `is_told`.
    pub fn tags_after(
        &self,
        (registry, repository): (&str, &str),
        after: &str,
        max: usize,
        is_told: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let state = self.0.state.borrow();
        let tags = state.index.tags_after(registry, repository, after);
        let tags = tags.map(|key| &key.tag).filter(|tag| is_told(tag));
        tags.take(max).cloned().collect()
    }

    /// What the tags of a repository mean.
    pub fn tagged(&self, registry: &str, repository: &str) -> Vec<Digest> {
        let state = self.0.state.borrow();
        let tags = state.index.tags_after(registry, repository, "");
        tags.filter_map(|key| state.index.tags.get(key).copied()).collect()
    }

    /// The repository of a registry that comes next behind `after` and has any tag.
    pub fn repository_after(&self, registry: &str, after: &str) -> Option<String> {
        let state = self.0.state.borrow();
        state.index.repository_after(registry, after).map(str::to_owned)
    }

    /// Whether a repository has any tag.
    pub fn has_repository(&self, registry: &str, repository: &str) -> bool {
        self.0.state.borrow().index.repository(registry, repository).next().is_some()
    }

    /// Downloads that were begun and not finished.
    pub fn partials(&self) -> Vec<Partial> {
        let state = self.0.state.borrow();
        let partials = state.index.partials.values();
        let partial = |size, digest, frontier| Partial { digest, size, frontier };
        partials.map(|p| partial(p.record.size, p.record.digest, p.frontier)).collect()
    }

    /// Whether anything can be added or given up.
    pub fn is_writable(&self) -> bool {
        self.0.state.borrow().failure.is_none()
    }

    /// What the device says of its wear.
    pub fn health(&self) -> Option<Health> {
        self.0.device.health()
    }

    pub(in crate::blob) fn device(&self) -> &dyn Device {
        self.0.device.as_ref()
    }

    pub(in crate::blob) fn lane(&self) -> &Lane {
        &self.0.lane
    }

    pub(in crate::blob) fn shared_device(&self) -> &Arc<dyn Device> {
        &self.0.device
    }

    pub(in crate::blob) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// From here on nothing is written: what the device holds of the last writes is unknown, and
    /// only mounting it again shows it.
    /// A file system that is full has taken nothing, and may take it later: then nothing changes.
    pub(in crate::blob) fn fail(&self, error: Error) -> Error {
        let mut state = self.0.state.borrow_mut();
        if state.failure.is_none() && error.kind() != Kind::Full {
            warn!("{error}; the store takes no more writes until it is mounted again");
            state.failure = Some(format!("an error left it in doubt: {error}"));
            // A waiter is woken once.
            let _ = self.0.failed.0.try_send(());
        }
        error
    }
}

pub(in crate::blob) fn missing(digest: &Digest) -> Error {
    Error::new(Kind::Missing, format!("{digest} is not held"))
}
