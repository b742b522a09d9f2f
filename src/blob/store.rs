//! The face of the log: what is held, and every change to it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use log::warn;
use smol::channel::{Receiver, Sender, bounded};
use smol::lock::{Mutex, MutexGuard};

use super::blobs::Summary;
use super::checks::Checks;
use super::finish::Finished;
use super::format::{BLOB_BYTES_MAX, BlobRecord, Extent, Record, TagKey};
use super::index::{Index, tag_bytes};
use super::lane::Lane;
use super::layout::{Piece, overlap, pieces};
use super::meta::{Landed, Meta};
use super::pack::Pack;
use super::queue::{Flight, Queue};
use super::recover::{MountReport, Mounted, mount};
use super::space::Space;
use super::syncing::{Covers, Syncing};
use super::view::{Entry, Partial, Stat};
use super::{Error, Reader, Writer};
use crate::flash::{self, Device, Health, program_checked};
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::units::ByteCount;

/// A mounted log. Clones share it.
#[derive(Clone)]
pub struct Store(pub(super) Rc<Inner>);

pub(super) struct Inner {
    device: Arc<dyn Device>,
    pub(super) state: RefCell<State>,
    /// Held while a task waits for a sync on behalf of all that was changed before.
    sync: Mutex<()>,
    /// Held while blobs are copied to make room.
    pub(super) collecting: Mutex<()>,
    /// Held while a small blob is given its place.
    pub(super) packing: Mutex<()>,
    /// Held while a task programs a unit of small blobs.
    pub(super) flushing: Mutex<()>,
    /// Has something in it when a chunk was found to be corrupt.
    pub(super) corrupt: (Sender<()>, Receiver<()>),
    lane: Lane,
    /// Has something in it when writing has ended.
    pub(super) failed: (Sender<()>, Receiver<()>),
    /// What changes the device.
    pub(super) queue: Queue,
    metrics: Rc<Metrics>,
}

pub(super) struct State {
    pub(super) index: Index,
    pub(super) space: Space,
    pub(super) meta: Meta,
    pub(super) pack: Pack,
    /// Segments of the device that were not given up.
    pub(super) segment_count: u32,
    /// Counts changes of data and records.
    pub(super) generation: u64,
    /// Records of changes up to this one are durable.
    pub(super) synced: u64,
    /// Bytes of blobs that were programmed up to this change are durable.
    pub(super) bytes_synced: u64,
    /// Those up to this one will be when the sync has ended that began last, while that lives.
    pub(super) bytes_sync: (u64, Weak<()>),
    /// The change with which the last blob was committed whose Commit had waited for a sync.
    pub(super) committed: u64,
    /// Blobs that are whole, and not recorded yet.
    pub(super) finished: Vec<Finished>,
    /// Room that is free as soon as nothing durable and nothing here names it.
    pub(super) limbo: Vec<Limbo>,
    /// What readers hold: their room is not used again, even if the blob is deleted.
    pub(super) leases: Vec<Weak<BlobRecord>>,
    /// Blobs that have a live writer, or are finished.
    pub(super) writing: BTreeSet<Digest>,
    /// What was written shortly before the mount and not checked since.
    pub(super) suspects: BTreeSet<Digest>,
    /// What was checked of the blobs that are sent.
    pub(super) checks: Checks,
    /// Segments that went bad and hold something still, or are not marked yet.
    pub(super) worn: BTreeSet<u32>,
    /// Why nothing can be written.
    pub(super) failure: Option<String>,
    /// The change with which the log was mounted: what somebody did before is not to be relied on.
    pub(super) mounted: u64,
}

pub(super) struct Limbo {
    pub(super) extents: Vec<Extent>,
    /// The change that gave the room up.
    pub(super) generation: u64,
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

    /// Opens a blob that is held, for somebody who uses it: it gives way later than others.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not.
    pub fn reader(&self, digest: &Digest) -> Result<Reader, Error> {
        self.touch(digest);
        let reader = self.look(digest)?;
        let checked = self.0.state.borrow_mut().checks.of(digest);
        Ok(Reader { checked, ..reader })
    }

    /// Somebody uses a blob.
    pub fn touch(&self, digest: &Digest) {
        self.0.state.borrow_mut().index.blobs.touch(digest);
    }

    /// Opens a blob that is held, to look at it.
    pub(super) fn look(&self, digest: &Digest) -> Result<Reader, Error> {
        let mut state = self.0.state.borrow_mut();
        let record = state.index.blobs.get(digest).ok_or_else(|| missing(digest))?;
        let record = Rc::new(record);
        state.leases.retain(|lease| lease.strong_count() > 0);
        state.leases.push(Rc::downgrade(&record));
        Ok(Reader { store: self.clone(), record, checked: Rc::default() })
    }

    /// What a tag means.
    pub fn tag(&self, key: &TagKey) -> Option<Digest> {
        self.0.state.borrow().index.tags.get(key).copied()
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

    /// The log in figures.
    pub fn stat(&self) -> Stat {
        let state = self.0.state.borrow();
        let wear = &state.index.wear;
        let mut bytes = [0; 2];
        for summary in state.index.blobs.summaries() {
            let [pinned, cached] = &mut bytes;
            *if summary.pinned { pinned } else { cached } += summary.size;
        }
        let [pinned_bytes, cached_bytes] = bytes;
        let erases = state.space.data_segments().map(|segment| wear.erases_of(segment));
        Stat {
            size_max_bytes: state.space.capacity_bytes(),
            used_bytes: state.space.used_bytes(),
            blobs: state.index.blobs.len() as u64,
            held_bytes: pinned_bytes.saturating_add(cached_bytes),
            cached_bytes,
            partials: state.index.partials.len() as u64,
            free_segments: state.space.free_segments(),
            programmed_bytes: wear.counts.programmed_bytes,
            image_bytes: wear.counts.image_bytes,
            copied_bytes: wear.counts.copied_bytes,
            recent_bytes: wear.counts.recent_bytes,
            recent_seconds: wear.counts.recent_seconds,
            device_bytes: self.0.device.geometry().bytes(),
            bad_segments: state.space.bad_segments(),
            erases_max: erases.clone().max().unwrap_or(0),
            erases_mean: erases.clone().map(u64::from).sum::<u64>() / erases.count().max(1) as u64,
        }
    }

    /// Begins to write a blob of `size` bytes, or goes on where an earlier writer of it stopped.
    ///
    /// # Errors
    /// [`Kind::Full`] when there is no room; [`Kind::Invalid`] when it is longer than
    /// [`BLOB_BYTES_MAX`], held already or has a live writer.
    pub async fn writer(
        &self,
        digest: &Digest,
        size: u64,
        media_type: Option<&str>,
    ) -> Result<Writer, Error> {
        if size > BLOB_BYTES_MAX {
            let (size, max) = (ByteCount(size), ByteCount(BLOB_BYTES_MAX));
            let what = format!("{digest}: a blob of {size}, expected at most {max}");
            return Err(Error::new(Kind::Invalid, what));
        }
        match self.new_writer(digest, size, media_type).await {
            Err(error) if error.kind() == Kind::Corrupt => {
                warn!("{error}; it begins again");
                self.delete(&[*digest]).await?;
                self.new_writer(digest, size, media_type).await
            }
            other => other,
        }
    }

    async fn new_writer(
        &self,
        digest: &Digest,
        size: u64,
        media_type: Option<&str>,
    ) -> Result<Writer, Error> {
        {
            let mut state = self.0.state.borrow_mut();
            state.check()?;
            if state.index.blobs.contains(digest) || !state.writing.insert(*digest) {
                let what = format!("{digest}: is held or being written, expected neither");
                return Err(Error::new(Kind::Invalid, what));
            }
        }
        // The task that waits for room may go away meanwhile.
        let claim = Claim { store: self, digest, mounted: self.mounted() };
        let partial = self.begin_writing(digest, size, media_type).await?;
        let writer = Writer::new(self.clone(), partial, claim.mounted).await?;
        std::mem::forget(claim);
        Ok(writer)
    }

    /// Holds `bytes` under their digest. When they are held already, nothing is done but to put
    /// right what of them has decayed.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when they have another digest; those of [`Store::writer`].
    pub async fn put(
        &self,
        digest: &Digest,
        bytes: &[u8],
        media_type: Option<&str>,
    ) -> Result<(), Error> {
        if self.is_finished(digest) {
            self.flush().await?;
        }
        if let Some(entry) = self.entry(digest) {
            if self.is_corrupt(digest, 0..u64::MAX) || self.read_all(digest, entry.size).is_err() {
                self.repair_all(digest, bytes).await?;
            }
            self.name_type(&entry, media_type).await?;
            // It is held from its Commit on, and its writer may wait for the sync still.
            return self.flush().await;
        }
        let mut writer = self.writer(digest, bytes.len() as u64, media_type).await?;
        let from = usize::try_from(writer.frontier()).unwrap_or(usize::MAX);
        writer.write(bytes.get(from..).unwrap_or_default()).await?;
        writer.commit().await
    }

    /// Gives a blob that is held the media type that it turns out to have; durable when it returns.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not held.
    pub async fn set_media_type(&self, digest: &Digest, media_type: &str) -> Result<(), Error> {
        let entry = self.entry(digest).ok_or_else(|| missing(digest))?;
        self.name_type(&entry, Some(media_type)).await?;
        // It is held from its Commit on, and its writer may wait for the sync still.
        self.flush().await
    }

    /// Makes a tag mean `digest`; durable when it returns, and never anything in between.
    ///
    /// # Errors
    /// [`Kind::Missing`] when the digest is not held.
    pub async fn set_tag(&self, key: &TagKey, digest: &Digest) -> Result<(), Error> {
        let is_new = {
            let index = &self.0.state.borrow().index;
            if !index.blobs.contains(digest) {
                return Err(missing(digest));
            }
            !index.tags.contains_key(key)
        };
        let bytes = if is_new { tag_bytes(key) } else { 0 };
        self.make_index_room(bytes, &key.to_string()).await?;
        self.append(Record::Tag { key: key.clone(), digest: *digest })?;
        self.flush().await
    }

    /// Makes a tag mean nothing.
    pub async fn remove_tag(&self, key: &TagKey) -> Result<(), Error> {
        if self.tag(key).is_none() {
            return Ok(());
        }
        self.append(Record::Untag { key: key.clone() })?;
        self.flush().await
    }

    /// Records which of `digests` the desired state needs; those that are not held are skipped.
    pub async fn pin(&self, digests: &[Digest], pinned: bool) -> Result<(), Error> {
        for digest in digests {
            let changes = self.entry(digest).is_some_and(|entry| entry.pinned != pinned);
            if changes {
                self.append(Record::Pin { digest: *digest, pinned })?;
            }
        }
        self.flush().await
    }

    /// Gives up blobs and downloads, and with them their room; works when the log is full. What
    /// has a live writer, or is finished and not flushed, is left alone.
    pub async fn delete(&self, digests: &[Digest]) -> Result<(), Error> {
        for digest in digests {
            let is_there = {
                let state = self.0.state.borrow();
                let index = &state.index;
                !state.writing.contains(digest)
                    && (index.blobs.contains(digest) || index.partials.contains_key(digest))
            };
            if is_there {
                self.append(Record::Delete { digest: *digest })?;
            }
        }
        self.flush().await
    }

    /// Waits until everything done so far is durable, finished blobs and their Commits included.
    /// Of a blob that is being written, it is what a Progress covers. All who wait share one
    /// sync, or two.
    pub async fn flush(&self) -> Result<(), Error> {
        let wanted = self.generation();
        let _turn = self.sync_turn().await;
        if self.has_finished() {
            self.sync_bytes(wanted).await?;
        }
        let committed = self.0.state.borrow().committed;
        self.sync_records(wanted.max(committed)).await
    }

    /// Waits until all records appended so far are durable.
    pub(super) async fn flush_records(&self) -> Result<(), Error> {
        let wanted = self.generation();
        let _turn = self.sync_turn().await;
        self.sync_records(wanted).await
    }

    /// Waits until all bytes of blobs programmed so far are durable. Records that were appended
    /// and not yet programmed are left for the next page of META, which so holds more of them.
    pub(super) async fn flush_bytes(&self) -> Result<(), Error> {
        let wanted = self.generation();
        let _turn = self.sync_turn().await;
        self.sync_bytes(wanted).await
    }

    /// Waits for the turn to sync.
    pub(super) async fn sync_turn(&self) -> MutexGuard<'_, ()> {
        self.0.sync.lock().await
    }

    /// The number of the last change.
    pub(super) fn generation(&self) -> u64 {
        self.0.state.borrow().generation
    }

    /// Makes all records of changes up to `wanted` durable, and leaves bytes of blobs alone that
    /// came meanwhile: to sync those often is what costs a file system most. The caller has the
    /// turn.
    pub(super) async fn sync_records(&self, wanted: u64) -> Result<(), Error> {
        self.check_mounted_by(wanted)?;
        if self.0.state.borrow().synced < wanted {
            let covered = self.program_records().await?;
            let (segment, range) = self.0.state.borrow().meta.unsynced();
            self.end_sync(self.begin_sync(Covers::Records(covered, segment, range))).await?;
        }
        self.0.state.borrow_mut().reclaim();
        Ok(())
    }

    /// Makes the bytes of blobs that were programmed up to change `wanted` durable, and appends
    /// the Commits of those that are whole. The caller has the turn.
    pub(super) async fn sync_bytes(&self, wanted: u64) -> Result<(), Error> {
        self.check_mounted_by(wanted)?;
        let synced = {
            let state = self.0.state.borrow();
            state.check()?;
            state.bytes_synced
        };
        if synced < wanted {
            self.end_sync(self.begin_bytes_sync()).await?;
        }
        self.commit_finished()
    }

    /// Starts a sync of all bytes of blobs that were programmed so far. When it has ended,
    /// [`Store::commit_finished`] is to follow.
    pub(super) fn begin_bytes_sync(&self) -> Syncing {
        let covered = self.generation();
        let sync = self.begin_sync(Covers::Bytes(covered));
        self.0.state.borrow_mut().bytes_sync = (covered, sync.life());
        sync
    }

    fn begin_sync(&self, covers: Covers) -> Syncing {
        self.0.metrics.flash_syncs.add(u64::from(!covers.nothing()));
        Syncing::begin(&self.0.device, covers)
    }

    /// Waits for a sync, and notes what it has made durable.
    pub(super) async fn end_sync(&self, sync: Syncing) -> Result<(), Error> {
        let covers = sync.end().await.map_err(|error| self.fail(error.into()))?;
        let mut state = self.0.state.borrow_mut();
        match covers {
            Covers::Bytes(covered) => state.bytes_synced = state.bytes_synced.max(covered),
            // The same place may be another segment's since.
            Covers::Records(covered, ..) if covered < state.mounted => {}
            Covers::Records(covered, segment, range) => {
                state.synced = state.synced.max(covered);
                state.meta.synced(segment, range.end);
            }
        }
        Ok(())
    }

    /// Appends a record to the log; it is on the device, and durable, after [`Store::flush`].
    pub(super) fn append(&self, record: Record) -> Result<(), Error> {
        let mut state = self.0.state.borrow_mut();
        state.check()?;
        let State { index, meta, suspects, checks, .. } = &mut *state;
        let appended = meta.append(&record);
        match &record {
            Record::Delete { digest } => {
                suspects.remove(digest);
                checks.forget(digest);
            }
            Record::Commit(BlobRecord { digest, .. }) => checks.forget(digest),
            _ => {}
        }
        let extents = index.apply(record);
        state.generation += 1;
        let generation = state.generation;
        if !extents.is_empty() {
            state.limbo.push(Limbo { extents, generation });
        }
        drop(state);
        appended.map_err(|error| self.fail(error))
    }

    /// Programs the records appended so far; gives the change up to which that covers. The caller
    /// has the turn.
    async fn program_records(&self) -> Result<u64, Error> {
        // What somebody has begun who is gone.
        self.land_records().await?;
        loop {
            let covered = self.begin_records()?;
            if self.land_records().await? {
                return Ok(covered);
            }
        }
    }

    /// Begins to program the records appended so far; gives the change up to which that covers.
    fn begin_records(&self) -> Result<u64, Error> {
        let mut state = self.0.state.borrow_mut();
        state.check()?;
        let covered = state.generation;
        let State { index, meta, .. } = &mut *state;
        // Beside others only: by itself no count is worth a page.
        let counted = match meta.has_pending() {
            true => meta.append(&Record::Counts(index.wear.counts)),
            false => Ok(()),
        };
        let outcome = counted.and_then(|()| meta.begin(index, covered));
        drop(state);
        outcome.map(|()| covered).map_err(|error| self.fail(error))
    }

    /// Waits for what is programmed of records; false when it has to be begun again.
    async fn land_records(&self) -> Result<bool, Error> {
        let landed = poll_fn(|context| self.0.state.borrow_mut().meta.poll(context)).await;
        match landed.map_err(|error| self.fail(error))? {
            Landed::Nothing => {}
            Landed::Again => return Ok(false),
            Landed::Programmed(bytes) => self.count_programmed(bytes),
            Landed::Begun { bytes, change } => {
                let mut state = self.0.state.borrow_mut();
                state.synced = state.synced.max(change);
                drop(state);
                self.0.metrics.flash_erases.add(1);
                self.count_programmed(bytes);
            }
        }
        Ok(true)
    }

    /// Programs bytes of a blob from byte `start` of its extents. Lengths and `start` are
    /// multiples of the program unit.
    ///
    /// # Errors
    /// [`Kind::Retry`] when a segment went bad under it: other room is to be reserved.
    pub(super) async fn program(
        &self,
        extents: &[Extent],
        start: u64,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let outcome = self.begin_program(extents, start, bytes)?.await;
        self.end_program(outcome).map(|_| ())
    }

    /// Begins to do what [`Store::program`] does; its outcome is for [`Store::end_program`].
    pub(super) fn begin_program(
        &self,
        extents: &[Extent],
        start: u64,
        bytes: Vec<u8>,
    ) -> Result<Programming, Error> {
        self.0.state.borrow().check()?;
        let segment_bytes = self.device().geometry().segment_bytes;
        let pieces = pieces(extents, segment_bytes, start, bytes.len() as u64);
        Ok(self.0.queue.begin(move |device| {
            program_pieces(device, &pieces, &bytes)?;
            Ok(bytes)
        }))
    }

    /// Counts what was programmed, and gives it back.
    pub(super) fn end_program(&self, outcome: Outcome<Vec<u8>>) -> Result<Vec<u8>, Error> {
        let bytes = outcome.map_err(|(segment, error)| self.classify_failure(segment, error))?;
        self.note_programmed(bytes.len() as u64);
        Ok(bytes)
    }

    /// Bytes of blobs were programmed.
    pub(super) fn note_programmed(&self, bytes: u64) {
        self.count_programmed(bytes);
        self.0.state.borrow_mut().generation += 1;
    }

    /// A writer of `digest` is no more; nothing else will be programmed to `extents` by it.
    pub(super) fn end_writing(&self, digest: &Digest, extents: &[Extent], mounted: u64) {
        if self.check_mounted(mounted).is_err() {
            return;
        }
        self.forget_placed(digest);
        let mut state = self.0.state.borrow_mut();
        state.space.end_writing(extents);
        // One that is finished is as good as being written until it is committed.
        if !state.is_finished(digest) {
            state.writing.remove(digest);
        }
    }

    pub(super) fn device(&self) -> &dyn Device {
        self.0.device.as_ref()
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.0.lane
    }

    pub(super) fn shared_device(&self) -> &Arc<dyn Device> {
        &self.0.device
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// From here on nothing is written: what the device holds of the last writes is unknown, and
    /// only mounting it again shows it.
    /// A file system that is full has taken nothing, and may take it later: then nothing changes.
    pub(super) fn fail(&self, error: Error) -> Error {
        let mut state = self.0.state.borrow_mut();
        if state.failure.is_none() && error.kind() != Kind::Full {
            warn!("{error}; the store takes no more writes until it is mounted again");
            state.failure = Some(format!("an error left it in doubt: {error}"));
            // A waiter is woken once.
            let _ = self.0.failed.0.try_send(());
        }
        error
    }

    /// Gives a blob that is held already the media type that it turns out to have.
    async fn name_type(&self, entry: &Entry, media_type: Option<&str>) -> Result<(), Error> {
        if media_type.is_none() || media_type == entry.media_type.as_deref() {
            return Ok(());
        }
        let record = self.0.state.borrow().index.blobs.get(&entry.digest);
        let Some(record) = record else { return Err(missing(&entry.digest)) };
        let record = BlobRecord { media_type: media_type.map(str::to_owned), ..record };
        self.append(Record::Commit(record))?;
        self.flush().await
    }

    /// Sets the gauges that follow from the state: they are to be read next.
    pub fn export_gauges(&self) {
        let stat = self.stat();
        let metrics = &self.0.metrics;
        metrics.flash_erases_max.set(u64::from(stat.erases_max));
        metrics.flash_erases_mean.set(stat.erases_mean);
        metrics.flash_bad_segments.set(stat.bad_segments as u64);
        let used = self.health().and_then(|health| health.life_used_percent).unwrap_or(0);
        metrics.flash_life_used_percent.set(u64::from(used));
        metrics.flash_programmed_bytes_per_day.set(stat.programmed_bytes_per_day().unwrap_or(0));
        metrics.store_size_max_bytes.set(stat.size_max_bytes);
        metrics.store_used_bytes.set(stat.used_bytes);
        metrics.store_blobs.set(stat.blobs);
        metrics.store_cached_bytes.set(stat.cached_bytes);
        let corrupt = self.corrupt();
        let corrupt = corrupt.iter().map(|(_, chunks)| chunks.len() as u64);
        metrics.store_corrupt_chunks.set(corrupt.sum());
    }
}

/// The right to write a blob, until its writer has it.
struct Claim<'a> {
    store: &'a Store,
    digest: &'a Digest,
    mounted: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.store.check_mounted(self.mounted).is_ok() {
            self.store.0.state.borrow_mut().writing.remove(self.digest);
        }
    }
}

impl State {
    /// What was mounted, and nothing done to it yet.
    pub(super) fn new(mounted: Mounted, segment_count: u32) -> Self {
        Self {
            index: mounted.index,
            space: mounted.space,
            meta: mounted.meta,
            pack: Pack::default(),
            segment_count,
            generation: 0,
            synced: 0,
            bytes_synced: 0,
            bytes_sync: (0, Weak::new()),
            committed: 0,
            finished: Vec::new(),
            limbo: Vec::new(),
            leases: Vec::new(),
            writing: BTreeSet::new(),
            suspects: mounted.suspects,
            checks: Checks::default(),
            worn: BTreeSet::new(),
            failure: None,
            mounted: 0,
        }
    }

    fn entry(&self, summary: Summary) -> Entry {
        let Summary { digest, size, pinned, .. } = summary;
        let media_type = self.index.blobs.media_type(&digest).map(str::to_owned);
        Entry { digest, size, media_type, pinned }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.failure {
            None => Ok(()),
            Some(why) => {
                let what = format!("the store takes no writes: {why}");
                Err(Error::new(Kind::Denied, what))
            }
        }
    }

    /// Whether room was given up that only a sync may free.
    pub(super) fn waits_for_sync(&self) -> bool {
        !self.limbo.is_empty()
    }

    /// Frees the room that nothing names any more.
    fn reclaim(&mut self) {
        let synced = self.synced;
        let held: Vec<Rc<BlobRecord>> = self.leases.iter().filter_map(Weak::upgrade).collect();
        let is_held = |extents: &[Extent]| held.iter().any(|held| overlap(&held.extents, extents));
        let is_free = |limbo: &mut Limbo| limbo.generation <= synced && !is_held(&limbo.extents);
        for limbo in self.limbo.extract_if(.., is_free) {
            self.space.release(&limbo.extents);
        }
    }
}

/// Programs `bytes` to `pieces`; with an error comes the segment that it is of.
pub(super) fn program_pieces(device: &dyn Device, pieces: &[Piece], bytes: &[u8]) -> Outcome<()> {
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
pub(super) type Outcome<T> = Result<T, (u32, flash::Error)>;

/// Bytes that are being programmed, which are given back.
pub(super) type Programming = Flight<Outcome<Vec<u8>>>;

pub(super) fn missing(digest: &Digest) -> Error {
    Error::new(Kind::Missing, format!("{digest} is not held"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flash::{Geometry, sim};

    #[test]
    fn sizes_from_outside_are_bounded() {
        let geometry =
            Geometry { segment_count: 9, segment_bytes: 4096, program_bytes: 64, reprogram: true };
        let metrics = Rc::new(Metrics::default());
        let (store, _) = Store::open(Arc::new(sim::Device::new(geometry)), metrics).unwrap();
        let digest = Digest::sha256(b"x");
        for (size, kind) in [
            (4096 * 5 + 1, Kind::Full),
            (BLOB_BYTES_MAX, Kind::Full),
            (BLOB_BYTES_MAX + 1, Kind::Invalid),
            (u64::MAX, Kind::Invalid),
        ] {
            let refused = smol::block_on(store.writer(&digest, size, None)).err().unwrap();
            assert_eq!(refused.kind(), kind, "{size}: {refused}");
        }
        assert_eq!(smol::block_on(store.put(&digest, b"x", None)).map_err(|e| e.kind()), Ok(()));
    }
}
