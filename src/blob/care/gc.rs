//! Making room by copying.
//!
//! A blob's whole segments are free as soon as it is deleted, without copying. A shared segment is
//! free only when nothing lives in it; when room is wanted and there is none, what still lives in
//! the segment that is best given up is copied elsewhere. Copies are written and synced before the
//! Commit records that name them, and the old room is kept until those are durable and no one
//! reads there: at every moment one of the two places is whole.
//!
//! Which segment: cost-benefit, (1 - u) * age / (1 + u) for the live share u (M. Rosenblum and
//! J. Ousterhout, "The Design and Implementation of a Log-Structured File System", 1992).

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::blob::format::layout::{
    self, bytes_within, is_small, merged, pieces, prefix, relocated, reserved_bytes, suffix,
};
use crate::blob::format::{BlobRecord, CHUNK_BYTES, Extent, Record};
use crate::blob::io::queue::program_pieces;
use crate::blob::write::reserve::Taken;
use crate::blob::{Error, Store};
use crate::flash::Device;
use crate::units::{to_u32, to_usize};

/// A blob with a part of it copied elsewhere.
struct Move<'a> {
    /// As it was; while this lives, its room is not used again.
    old: Rc<BlobRecord>,
    new: BlobRecord,
    /// Where the copy is.
    room: Taken<'a>,
    /// Chunks that could not be read whole.
    unreadable: BTreeSet<u32>,
}

impl Store {
    /// Frees the shared segment that is best given up; false when there is none.
    pub(in crate::blob) async fn collect_segment(&self) -> Result<bool, Error> {
        let _turn = self.0.collecting.lock().await;
        let Some(victim) = self.victim() else { return Ok(false) };
        self.empty_segment(victim, false).await
    }

    /// Uses at most `size_max` bytes of the device from here on, and frees what is beyond as
    /// soon as it holds nothing: what lives there is copied, as far as there is room. True when
    /// everything fits.
    ///
    /// # Errors
    /// The device's own.
    pub async fn resize(&self, size_max: u64) -> Result<bool, Error> {
        let geometry = self.device().geometry();
        // A configuration may ask for more than any device has.
        let wanted = size_max / u64::from(geometry.segment_bytes);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let (limit, beyond) = {
            let mut state = self.0.state.borrow_mut();
            // What was given up comes back at the next start only, when it is allocated.
            let wanted = wanted.min(state.segment_count);
            state.space.set_limit(wanted);
            if state.space.limit() == state.segment_count || self.device().read_only().is_some() {
                return Ok(true);
            }
            (state.space.limit(), state.space.beyond())
        };
        let _turn = self.0.collecting.lock().await;
        let held = self.held_by_uncommitted();
        for segment in beyond {
            while !held.contains(&segment) && !self.empty_segment(segment, false).await? {
                if !self.evict(u64::from(geometry.segment_bytes)).await? {
                    return Ok(false);
                }
            }
        }
        // A reader may still be at the old place of something.
        if !self.0.state.borrow().space.beyond().is_empty() {
            return Ok(false);
        }
        self.0.queue.begin(move |device| device.give_up_from(limit)).await?;
        self.0.state.borrow_mut().segment_count = limit;
        Ok(true)
    }

    /// Copies everything that lives in a segment elsewhere, what is `cold` to where the device is
    /// worn most; false when the room ran out. The caller holds `collecting`.
    pub(in crate::blob) async fn empty_segment(
        &self,
        victim: u32,
        cold: bool,
    ) -> Result<bool, Error> {
        let mut moves = Vec::new();
        let is_empty = self.copy_residents(victim, cold, &mut moves).await?;
        if !moves.is_empty() {
            // The copies are durable before anything says that they are there.
            self.flush_bytes().await?;
        }
        for Move { old, new, room, unreadable } in moves {
            let held = self.0.state.borrow().index.blobs.get(&new.digest);
            let is_same = |held: &BlobRecord| {
                held.extents == old.extents && held.media_type == old.media_type
            };
            // Otherwise it was deleted, or given another media type, meanwhile.
            if let Some(BlobRecord { pinned, digest, size, .. }) = held.filter(is_same) {
                // Before anyone can read the copy.
                self.add_corrupt(&digest, size, &unreadable)?;
                self.append(Record::Commit(BlobRecord { pinned, ..new }))?;
                room.keep();
            }
        }
        self.flush().await?;
        Ok(is_empty)
    }

    fn victim(&self) -> Option<u32> {
        let mut held = self.held_by_uncommitted();
        // Emptied already, but somebody reads there still, or its record is not durable.
        held.extend(self.segments_in_limbo());
        let extra = self.unused_of_small();
        self.0.state.borrow_mut().space.pick_victim(|segment| !held.contains(&segment), &extra)
    }

    /// By segment, the bytes that a copy of the small blobs in it leaves unused in their units, as
    /// [`Store::copy_small`] lays them.
    fn unused_of_small(&self) -> Vec<u32> {
        let geometry = self.device().geometry();
        let unit = u64::from(geometry.program_bytes);
        let mut small: Vec<Extent> = {
            let state = self.0.state.borrow();
            let records = state.index.blobs.records();
            let small = records.filter(|record| is_small(record.size, geometry));
            small.filter_map(|record| record.extents.first().copied()).collect()
        };
        small.sort_unstable();
        let segment_of = |extent: &Extent| extent.start / u64::from(geometry.segment_bytes);
        let mut unused = vec![0; to_usize(geometry.segment_count)];
        let mut filled = 0;
        let mut rest = small.iter().peekable();
        while let Some(extent) = rest.next() {
            filled += extent.bytes;
            let fits = |next: &&&Extent| {
                segment_of(next) == segment_of(extent) && filled + next.bytes <= unit
            };
            if rest.peek().filter(fits).is_none() {
                let index = usize::try_from(segment_of(extent)).ok();
                let left = to_u32(unit.saturating_sub(filled));
                let of_segment = index.and_then(|index| unused.get_mut(index));
                of_segment.into_iter().for_each(|bytes: &mut u32| *bytes += left);
                filled = 0;
            }
        }
        unused
    }

    /// The segments in which a blob that is not committed has its place.
    pub(in crate::blob) fn held_by_uncommitted(&self) -> BTreeSet<u32> {
        let segment_bytes = u64::from(self.device().geometry().segment_bytes);
        let state = self.0.state.borrow();
        let partials = state.index.partials.values();
        let extents = partials.flat_map(|partial| &partial.record.extents);
        segments_of(extents.chain(state.pack.extents()), segment_bytes)
    }

    fn segments_in_limbo(&self) -> BTreeSet<u32> {
        let segment_bytes = u64::from(self.device().geometry().segment_bytes);
        let state = self.0.state.borrow();
        segments_of(state.limbo.iter().flat_map(|limbo| &limbo.extents), segment_bytes)
    }

    /// Copies everything that lives in `victim`; false when the room for it ran out.
    async fn copy_residents<'a>(
        &'a self,
        victim: u32,
        cold: bool,
        moves: &mut Vec<Move<'a>>,
    ) -> Result<bool, Error> {
        let residents: Vec<Rc<BlobRecord>> = {
            let state = &mut *self.0.state.borrow_mut();
            let segment_bytes = self.device().geometry().segment_bytes;
            let lives =
                |record: &BlobRecord| bytes_within(&record.extents, victim, segment_bytes) > 0;
            let residents: Vec<Rc<BlobRecord>> =
                state.index.blobs.records().filter(lives).map(Rc::new).collect();
            // What is copied stays where it is until then.
            state.leases.extend(residents.iter().map(Rc::downgrade));
            residents
        };
        let geometry = self.device().geometry();
        let (small, others): (Vec<_>, Vec<_>) =
            residents.into_iter().partition(|record| is_small(record.size, geometry));
        if !self.copy_small(small, cold, moves).await? {
            return Ok(false);
        }
        for old in others {
            // The first takes a segment of that kind, the others follow it there.
            let cold = cold && moves.is_empty();
            let Some(moved) = self.copy(old, victim, cold).await? else { return Ok(false) };
            moves.push(moved);
        }
        Ok(true)
    }

    /// Copies blobs that share units, into as few units as they fit; false when the room ran out.
    async fn copy_small<'a>(
        &'a self,
        mut blobs: Vec<Rc<BlobRecord>>,
        cold: bool,
        moves: &mut Vec<Move<'a>>,
    ) -> Result<bool, Error> {
        let unit = u64::from(self.device().geometry().program_bytes);
        // In the order in which they lie they need no more units than now.
        blobs.sort_by_key(|blob| blob.extents.first().map(|extent| extent.start));
        while !blobs.is_empty() {
            let mut ends = blobs.iter().scan(0, |end, blob| {
                *end += blob.extents.iter().map(|extent| extent.bytes).sum::<u64>();
                Some(*end)
            });
            let count = ends.position(|end| end > unit).unwrap_or(blobs.len()).max(1);
            let later = blobs.split_off(count);
            let allocation = {
                let state = &mut *self.0.state.borrow_mut();
                state.space.allocate_copy(unit, &state.index.wear, cold && moves.is_empty())
            };
            let Some(allocation) = allocation else { return Ok(false) };
            let room = self.taken(allocation.extents);
            self.erase(allocation.fresh.into_iter()).await?;
            self.lay_small(blobs, room, moves).await?;
            blobs = later;
        }
        Ok(true)
    }

    /// Programs blobs that share units into the unit at `room`.
    async fn lay_small<'a>(
        &'a self,
        blobs: Vec<Rc<BlobRecord>>,
        room: Taken<'a>,
        moves: &mut Vec<Move<'a>>,
    ) -> Result<(), Error> {
        self.0.state.borrow().check()?;
        let geometry = self.device().geometry();
        let unit = to_usize(geometry.program_bytes);
        let sources: Vec<(Vec<Extent>, u64)> = blobs
            .iter()
            .map(|old| (old.extents.clone(), reserved_bytes(old.size, geometry)))
            .collect();
        let target = pieces(room.extents(), geometry.segment_bytes, 0, unit as u64);
        let laid = self.0.queue.begin(move |device| {
            let mut content = Vec::new();
            let mut unreadable = Vec::new();
            for (extents, bytes) in sources {
                let start = content.len();
                content.resize(start + to_usize(bytes), 0);
                let target = content.get_mut(start..).unwrap_or_default();
                unreadable.push(layout::read(device, &extents, 0, target).is_err());
            }
            content.resize(unit, 0);
            program_pieces(device, &target, &content).map(|()| unreadable)
        });
        let unreadable =
            laid.await.map_err(|(segment, error)| self.classify_failure(segment, error))?;
        self.note_programmed(unit as u64);
        self.0.state.borrow_mut().space.end_writing(room.extents());
        let mut rest = room.keep();
        for (old, is_unreadable) in blobs.into_iter().zip(unreadable) {
            let bytes = reserved_bytes(old.size, geometry);
            let room = self.taken(prefix(&rest, bytes));
            rest = suffix(&rest, bytes);
            self.count_copied(bytes);
            let unreadable = is_unreadable.then_some(0).into_iter().collect();
            let new = BlobRecord { extents: room.extents().to_vec(), ..BlobRecord::clone(&old) };
            moves.push(Move { old, new, room, unreadable });
        }
        self.give_back(&rest);
        Ok(())
    }

    /// Copies what of a blob lies in `victim`.
    async fn copy(
        &self,
        old: Rc<BlobRecord>,
        victim: u32,
        cold: bool,
    ) -> Result<Option<Move<'_>>, Error> {
        let geometry = self.device().geometry();
        let bytes = bytes_within(&old.extents, victim, geometry.segment_bytes);
        let allocation = {
            let state = &mut *self.0.state.borrow_mut();
            state.space.allocate_copy(bytes, &state.index.wear, cold)
        };
        let Some(allocation) = allocation else { return Ok(None) };
        let room = self.taken(allocation.extents);
        let moves = relocated(&old.extents, victim, geometry.segment_bytes, room.extents());
        self.erase(allocation.fresh.into_iter()).await?;
        let unreadable = self.copy_moved(&moves).await?;
        self.0.state.borrow_mut().space.end_writing(room.extents());
        self.count_copied(bytes);
        let extents = merged(moves.into_iter().map(|(_, to)| to));
        let new = BlobRecord { extents, ..BlobRecord::clone(&old) };
        Ok(Some(Move { old, new, room, unreadable }))
    }

    /// Copies, of a blob's extents in order, those that change their place; returns the chunks of
    /// which something could not be read.
    async fn copy_moved(&self, moves: &[(Extent, Extent)]) -> Result<BTreeSet<u32>, Error> {
        let unit = u64::from(self.device().geometry().program_bytes);
        let piece_bytes = PIECE_BYTES.next_multiple_of(unit);
        let mut unreadable = BTreeSet::new();
        let mut offset = 0;
        for (from, to) in moves {
            let pieces = (0..from.bytes).step_by(to_usize(piece_bytes));
            for at in pieces.filter(|_| from != to) {
                let bytes = piece_bytes.min(from.bytes - at);
                let source = Extent { start: from.start + at, bytes };
                if !self.copy_piece(source, to.start + at).await? {
                    // The rest of the blob is worth moving; these chunks are fetched again.
                    let chunks =
                        (offset + at) / CHUNK_BYTES..=(offset + at + bytes - 1) / CHUNK_BYTES;
                    unreadable.extend(chunks.filter_map(|chunk| u32::try_from(chunk).ok()));
                }
            }
            offset += from.bytes;
        }
        Ok(unreadable)
    }

    /// Copies the bytes at `source` to device address `to`; false when some could not be read.
    async fn copy_piece(&self, source: Extent, to: u64) -> Result<bool, Error> {
        self.0.state.borrow().check()?;
        let bytes = source.bytes;
        let segment_bytes = self.device().geometry().segment_bytes;
        let target = pieces(&[Extent { start: to, bytes }], segment_bytes, 0, bytes);
        let copied = self.0.queue.begin(move |device| {
            let mut buffer = vec![0; to_usize(bytes)];
            let is_read = layout::read(device, &[source], 0, &mut buffer).is_ok();
            if !is_read {
                salvage(device, source.start, &mut buffer);
            }
            program_pieces(device, &target, &buffer).map(|()| is_read)
        });
        let is_read =
            copied.await.map_err(|(segment, error)| self.classify_failure(segment, error))?;
        self.note_programmed(bytes);
        Ok(is_read)
    }

    fn give_back(&self, room: &[Extent]) {
        self.0.state.borrow_mut().space.release(room);
    }
}

/// Fills `buffer` from device address `start`, and with zeros where units cannot be read.
fn salvage(device: &dyn Device, start: u64, buffer: &mut [u8]) {
    let unit = device.geometry().program_bytes;
    let mut at = start;
    for piece in buffer.chunks_mut(to_usize(unit)) {
        let source = Extent { start: at, bytes: u64::from(unit) };
        if layout::read(device, &[source], 0, piece).is_err() {
            piece.fill(0);
        }
        at += u64::from(unit);
    }
}

fn segments_of<'a>(extents: impl Iterator<Item = &'a Extent>, segment_bytes: u64) -> BTreeSet<u32> {
    let segments = extents.flat_map(|extent| {
        extent.start / segment_bytes..=(extent.end().saturating_sub(1)) / segment_bytes
    });
    segments.filter_map(|segment| u32::try_from(segment).ok()).collect()
}

/// What is copied at a time, in bytes, or a unit if that is more.
const PIECE_BYTES: u64 = 64 << 10;
