//! Making room by copying.
//!
//! A blob's whole segments are free as soon as it is deleted, without copying. A shared segment is
//! free only when nothing lives in it; when room is wanted and there is none, what still lives in
//! the segment that is best given up is copied elsewhere. Copies are written and synced before the
//! Commit records that name them, and the old room is kept until those are durable and nobody
//! reads there: at every moment one of the two places is whole.
//!
//! Which segment: cost-benefit, (1 - u) * age / (1 + u) for the live share u (M. Rosenblum and
//! J. Ousterhout, "The Design and Implementation of a Log-Structured File System", 1992).

use std::collections::BTreeSet;
use std::rc::Rc;

use super::format::{BlobRecord, Extent, Record};
use super::layout::{self, bytes_within, merged, relocated};
use super::{Error, Store};

/// A blob with a part of it copied elsewhere.
struct Move {
    old: Rc<BlobRecord>,
    new: BlobRecord,
    /// Where the copy is.
    room: Vec<Extent>,
}

impl Store {
    /// Frees the shared segment that is best given up; false when there is none.
    pub(super) async fn collect_segment(&self) -> Result<bool, Error> {
        let _turn = self.0.collecting.lock().await;
        let Some(victim) = self.victim() else { return Ok(false) };
        self.empty_segment(victim, false).await
    }

    /// Uses at most `size_max` bytes of the device from here on, and gives back what is beyond as
    /// soon as it holds nothing: what lives there is copied, as far as there is room. True when
    /// everything fits.
    ///
    /// # Errors
    /// The device's own.
    pub async fn fit(&self, size_max: u64) -> Result<bool, Error> {
        let geometry = self.device().geometry();
        let wanted = size_max / u64::from(geometry.segment_bytes);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).min(geometry.segment_count);
        let (limit, beyond) = {
            let mut state = self.0.state.borrow_mut();
            state.space.set_limit(wanted);
            if state.space.limit() == state.segment_count || self.device().read_only().is_some() {
                return Ok(true);
            }
            (state.space.limit(), state.space.beyond())
        };
        let _turn = self.0.collecting.lock().await;
        let held = self.held_by_downloads();
        for segment in beyond {
            if held.contains(&segment) || !self.empty_segment(segment, false).await? {
                return Ok(false);
            }
        }
        let mut state = self.0.state.borrow_mut();
        // A reader may still be at the old place of something.
        if !state.space.beyond().is_empty() {
            return Ok(false);
        }
        self.device().give_up_from(limit)?;
        state.segment_count = limit;
        Ok(true)
    }

    /// Copies everything that lives in a segment elsewhere, what is `cold` to where the device is
    /// worn most; false when the room ran out. The caller holds `collecting`.
    pub(super) async fn empty_segment(&self, victim: u32, cold: bool) -> Result<bool, Error> {
        let mut moves = Vec::new();
        let copied = self.copy_residents(victim, cold, &mut moves);
        if copied.is_err() {
            moves.iter().for_each(|moved| self.give_back(&moved.room));
        }
        let is_empty = copied?;
        // The copies are durable before anything says that they are there.
        self.settle().await?;
        for Move { old, new, room } in moves {
            let (held, pinned) = {
                let index = &self.0.state.borrow().index;
                (index.blobs.get(&new.digest).cloned(), index.pins.contains(&new.digest))
            };
            // Deleted, or given another media type, while the sync was under way.
            if held.is_some_and(|held| Rc::ptr_eq(&held, &old)) {
                self.append(Record::Commit(BlobRecord { pinned, ..new }))?;
            } else {
                self.give_back(&room);
            }
        }
        self.settle().await?;
        Ok(is_empty)
    }

    fn victim(&self) -> Option<u32> {
        let held = self.held_by_downloads();
        self.0.state.borrow_mut().space.give_up(|segment| !held.contains(&segment))
    }

    /// The segments in which a download has its place, for as long as it takes.
    pub(super) fn held_by_downloads(&self) -> BTreeSet<u32> {
        let segment_bytes = u64::from(self.device().geometry().segment_bytes);
        let state = self.0.state.borrow();
        let partials = state.index.partials.values();
        let extents = partials.flat_map(|partial| &partial.record.extents);
        let segments = extents.flat_map(|extent| {
            extent.start / segment_bytes..=(extent.end().saturating_sub(1)) / segment_bytes
        });
        segments.filter_map(|segment| u32::try_from(segment).ok()).collect()
    }

    /// Copies everything that lives in `victim`; false when the room for it ran out.
    fn copy_residents(
        &self,
        victim: u32,
        cold: bool,
        moves: &mut Vec<Move>,
    ) -> Result<bool, Error> {
        let residents: Vec<Rc<BlobRecord>> = {
            let state = self.0.state.borrow();
            let segment_bytes = self.device().geometry().segment_bytes;
            let lives =
                |record: &&Rc<BlobRecord>| bytes_within(&record.extents, victim, segment_bytes) > 0;
            state.index.blobs.values().filter(lives).cloned().collect()
        };
        for old in residents {
            let Some(moved) = self.copy(old, victim, cold)? else { return Ok(false) };
            moves.push(moved);
        }
        Ok(true)
    }

    /// Copies what of a blob lies in `victim`.
    fn copy(&self, old: Rc<BlobRecord>, victim: u32, cold: bool) -> Result<Option<Move>, Error> {
        let geometry = self.device().geometry();
        let bytes = bytes_within(&old.extents, victim, geometry.segment_bytes);
        let allocation = {
            let state = &mut *self.0.state.borrow_mut();
            state.space.allocate_copy(bytes, &state.index.wear, cold)
        };
        let Some(allocation) = allocation else { return Ok(None) };
        let room = allocation.extents;
        let outcome = self.erase(allocation.fresh.into_iter()).and_then(|()| {
            let new = relocated(&old.extents, victim, geometry.segment_bytes, &room);
            let mut at = 0;
            for (from, to) in new.iter().filter(|(from, to)| from != to) {
                let mut bytes = vec![0; usize::try_from(from.bytes).unwrap_or(0)];
                layout::read(self.device(), &[*from], 0, &mut bytes)?;
                self.program(&[*to], 0, &bytes)?;
                at += from.bytes;
            }
            self.count_copied(at);
            Ok(merged(new.into_iter().map(|(_, to)| to)))
        });
        self.0.state.borrow_mut().space.settle(&room);
        match outcome {
            Ok(extents) => {
                let new = BlobRecord { extents, ..BlobRecord::clone(&old) };
                Ok(Some(Move { old, new, room }))
            }
            Err(error) => {
                self.give_back(&room);
                Err(error)
            }
        }
    }

    fn give_back(&self, room: &[Extent]) {
        self.0.state.borrow_mut().space.release(room);
    }
}
