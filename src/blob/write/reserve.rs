//! Room for a blob before its first byte arrives.
//!
//! What a blob needs is known beforehand and set aside whole, so that it never runs out half way.
//! When there is none, what was deleted a moment ago is waited for, and shared segments are emptied
//! by copying; the index's room in a checkpoint is checked too.

use crate::blob::format::layout::{
    is_small, pieces, prefix, reserved_bytes, suffix, whole_segments,
};
use crate::blob::format::{BlobRecord, Extent, Record};
use crate::blob::index::space::Allocation;
use crate::blob::index::{EXTENT_BYTES, PartialBlob, partial_bytes};
use crate::blob::store::missing;
use crate::blob::{Error, Store};
use crate::kind::Kind;
use crate::oci::Digest;
use crate::units::ByteCount;

impl Store {
    /// The partial blob that a writer goes on with; it has room for the rest.
    pub(in crate::blob) async fn begin_writing(
        &self,
        digest: &Digest,
        size: u64,
        media_type: Option<&str>,
    ) -> Result<PartialBlob, Error> {
        let geometry = self.device().geometry();
        if is_small(size, geometry) {
            return self.begin_small(digest, size, media_type).await;
        }
        let known = self.0.state.borrow().index.partials.get(digest).cloned();
        let usable = known.as_ref().is_some_and(|known| known.continues(size, geometry));
        if known.is_some() && !usable {
            self.append(Record::Delete { digest: *digest })?;
        }
        // Where units are programmed once, those that were programmed and not recorded cannot be
        // programmed again: the rest of their segments is given up for other room.
        if !usable || !geometry.reprogram {
            self.retire_worn().await?;
            self.level().await?;
            match self.reserve(digest, size, media_type).await {
                Err(error) if error.kind() == Kind::Full && usable => {
                    // Better from the beginning than never.
                    self.append(Record::Delete { digest: *digest })?;
                    self.reserve(digest, size, media_type).await?;
                }
                other => other?,
            }
        }
        let partial = self.0.state.borrow().index.partials.get(digest).cloned();
        partial.ok_or_else(|| missing(digest))
    }

    /// A small blob has its place when it is committed, and is in memory until then.
    async fn begin_small(
        &self,
        digest: &Digest,
        size: u64,
        media_type: Option<&str>,
    ) -> Result<PartialBlob, Error> {
        self.retire_worn().await?;
        self.level().await?;
        let (media_type, extents) = (media_type.map(str::to_owned), Vec::new());
        let record = BlobRecord { digest: *digest, size, media_type, extents, pinned: false };
        Ok(PartialBlob::new(record))
    }

    /// Takes room for a blob, in place of what an earlier writer reserved and did not record;
    /// elsewhere, when a segment turns out to be bad.
    async fn reserve(
        &self,
        digest: &Digest,
        size: u64,
        media_type: Option<&str>,
    ) -> Result<(), Error> {
        self.elsewhere(async || self.try_reserve(digest, size, media_type).await).await
    }

    /// Does `attempt`, and again for as long as it fails because yet another segment is bad.
    pub(in crate::blob) async fn elsewhere(
        &self,
        attempt: impl AsyncFn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            let bad = self.0.state.borrow().space.bad_segments();
            let outcome = attempt().await;
            let is_other = self.0.state.borrow().space.bad_segments() > bad;
            if !is_other || !outcome.as_ref().is_err_and(|error| error.kind() == Kind::Retry) {
                return outcome;
            }
        }
    }

    async fn try_reserve(
        &self,
        digest: &Digest,
        size: u64,
        media_type: Option<&str>,
    ) -> Result<(), Error> {
        let geometry = self.device().geometry();
        let mounted = self.mounted();
        let capacity = self.0.state.borrow().space.capacity_bytes();
        let (mut extents, again) = self.kept(digest);
        extents.extend(&again);
        let kept: u64 = extents.iter().map(|extent| extent.bytes).sum();
        let media_type = media_type.map(str::to_owned);
        let mut record = BlobRecord { digest: *digest, size, media_type, extents, pinned: false };
        // What it needs at most is known only when it has its room; but room that was taken must
        // not be waited with, for the task that waits may go away.
        let expected = partial_bytes(&record) + PIECES_EXPECTED * EXTENT_BYTES;
        self.make_index_room(expected, &digest.to_string()).await?;
        let wanted =
            (size <= capacity).then(|| reserved_bytes(size, geometry).saturating_sub(kept));
        let allocation = match wanted {
            Some(bytes) => self.allocate(bytes).await?,
            None => None,
        };
        let Some(allocation) = allocation else { return Err(self.full(digest, size)) };
        record.extents.extend(&allocation.extents);
        let room = self.taken(allocation.extents);
        let bytes: u64 = again.iter().map(|extent| extent.bytes).sum();
        let again = pieces(&again, geometry.segment_bytes, 0, bytes);
        let fresh = again.iter().map(|piece| piece.segment).chain(allocation.fresh);
        self.check_index_room(partial_bytes(&record), &digest.to_string())?;
        self.erase(fresh).await?;
        self.check_mounted(mounted)?;
        self.append(Record::Reserve(record))?;
        room.keep();
        Ok(())
    }

    /// Of what an earlier writer of a blob reserved: where its recorded bytes are, and whole
    /// segments that can be erased once more.
    fn kept(&self, digest: &Digest) -> (Vec<Extent>, Vec<Extent>) {
        let state = self.0.state.borrow();
        let Some(partial) = state.index.partials.get(digest) else { return Default::default() };
        let extents = &partial.record.extents;
        let rest = suffix(extents, partial.frontier);
        let segment_bytes = self.device().geometry().segment_bytes;
        let mut again = whole_segments(&rest, segment_bytes);
        again.retain(|extent| !state.space.touches_bad(extent));
        (prefix(extents, partial.frontier), again)
    }

    /// Takes room, and makes some if there is none: what was deleted a moment ago only waits for
    /// a sync; what is not needed is evicted; what is dead in shared segments waits for copying.
    pub(in crate::blob) async fn allocate(&self, bytes: u64) -> Result<Option<Allocation>, Error> {
        let take = || {
            let state = &mut *self.0.state.borrow_mut();
            state.space.allocate(bytes, &state.index.wear)
        };
        let mut collected = 0;
        loop {
            if let Some(allocation) = take() {
                return Ok(Some(allocation));
            }
            if self.0.state.borrow().waits_for_sync() {
                self.flush().await?;
                if let Some(allocation) = take() {
                    return Ok(Some(allocation));
                }
            }
            let (used, capacity) = {
                let space = &self.0.state.borrow().space;
                (space.used_bytes(), space.capacity_bytes())
            };
            let lacking = (used + bytes).saturating_sub(capacity);
            let may_collect = lacking == 0 && collected < self.device().geometry().segment_count;
            if may_collect && self.collect_segment().await? {
                collected += 1;
                // Room that others have taken and not recorded yet may be what is in the way.
                smol::future::yield_now().await;
                continue;
            }
            let scattered = {
                let state = &mut *self.0.state.borrow_mut();
                state.space.allocate_scattered(bytes, &state.index.wear)
            };
            if scattered.is_some() {
                return Ok(scattered);
            }
            if !self.evict(lacking.max(1)).await? {
                return Ok(None);
            }
        }
    }

    /// Makes segments ready to be programmed, and counts that.
    pub(in crate::blob) async fn erase(
        &self,
        segments: impl Iterator<Item = u32>,
    ) -> Result<(), Error> {
        let segments: Vec<u32> = segments.collect();
        if segments.is_empty() {
            return Ok(());
        }
        self.metrics().flash_erases.add(segments.len() as u64);
        let erasing = segments.clone();
        let erased = self.0.queue.begin(move |device| {
            let erase = |segment: u32| device.erase(segment).map_err(|error| (segment, error));
            erasing.into_iter().try_for_each(erase)
        });
        erased.await.map_err(|(segment, error)| self.classify_failure(segment, error))?;
        self.append(Record::Erased { segments })
    }

    /// Holds room that was allocated, until it is known to be used.
    pub(in crate::blob) fn taken(&self, extents: Vec<Extent>) -> Taken<'_> {
        Taken { store: self, mounted: self.mounted(), extents }
    }

    pub(in crate::blob) fn full(&self, digest: &Digest, size: u64) -> Error {
        let stat = self.stat();
        let free = ByteCount(stat.size_max_bytes.saturating_sub(stat.used_bytes));
        let (size, all) = (ByteCount(size), ByteCount(stat.size_max_bytes));
        let what = format!("no room for {digest} ({size}): {free} of {all} free");
        Error::new(Kind::Full, what)
    }

    /// Makes room for `bytes` more in a checkpoint, which must leave the tail of a META segment
    /// enough: what is not needed is evicted, and what does not fit then is refused.
    pub(in crate::blob) async fn make_index_room(
        &self,
        bytes: u64,
        what: &str,
    ) -> Result<(), Error> {
        loop {
            let Err(error) = self.check_index_room(bytes, what) else { return Ok(()) };
            if !self.evict(1).await? {
                return Err(error);
            }
        }
    }

    /// Whether a checkpoint has room for `bytes` more.
    pub(in crate::blob) fn check_index_room(&self, bytes: u64, what: &str) -> Result<(), Error> {
        let max = self.index_bytes_max();
        let used = {
            let state = self.0.state.borrow();
            state.index.snapshot_bytes() + state.pack.index_bytes()
        };
        if used + bytes <= max {
            return Ok(());
        }
        let (used, max) = (ByteCount(used), ByteCount(max));
        let what = format!(
            "no room for {what} in the log's index: {used} of {max} in use; a store made with a \
             larger size_max has more"
        );
        Err(Error::new(Kind::Full, what))
    }

    /// Bytes that a checkpoint may have.
    pub(in crate::blob) fn index_bytes_max(&self) -> u64 {
        u64::from(self.device().geometry().segment_bytes) / 4 * 3
    }
}

/// Room that is given back unless it is kept: the task that waits for its erase or program may
/// go away.
pub(in crate::blob) struct Taken<'a> {
    store: &'a Store,
    mounted: u64,
    extents: Vec<Extent>,
}

impl Taken<'_> {
    /// Where it is.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Not when the log was mounted again: then it belongs to what was found there.
    fn is_current(&self) -> bool {
        self.store.check_mounted(self.mounted).is_ok()
    }

    /// It is used.
    pub fn keep(mut self) -> Vec<Extent> {
        std::mem::take(&mut self.extents)
    }

    /// Only its first `bytes` bytes are needed.
    pub fn shorten(&mut self, bytes: u64) {
        let rest = suffix(&self.extents, bytes);
        self.extents = prefix(&self.extents, bytes);
        if self.is_current() {
            self.store.0.state.borrow_mut().space.release(&rest);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.extents.is_empty() && self.is_current() {
            let space = &mut self.store.0.state.borrow_mut().space;
            space.end_writing(&self.extents);
            space.release(&self.extents);
        }
    }
}

/// More pieces than nearly all blobs are laid into.
const PIECES_EXPECTED: u64 = 4;
