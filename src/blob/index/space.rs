//! Which bytes of the device are taken.
//!
//! A blob's whole segments are its own (BULK); its tail, or all of it when it is smaller than a
//! segment, shares a segment with other tails (SMALL). A segment is free again when nothing live
//! is left in it, without copying. Free segments are taken in turn, so that all wear alike.
//!
//! Where units are programmed once, a shared segment is written by one blob at a time, and none
//! that was begun before the last mount is continued: its last pages may be torn.

mod choose;

use std::collections::BTreeSet;

use crate::blob::format::counts::Wear;
use crate::blob::format::layout::{grain_bytes, is_small, reserved_bytes};
use crate::blob::format::{BLOB_BYTES_MAX, Extent, meta_segments};
use crate::flash::Geometry;
use crate::units::{to_u32, to_usize};

/// The allocator of all segments after the META ring.
pub struct Space {
    geometry: Geometry,
    /// Segments from this one on are not for use: `size_max` became less.
    limit: u32,
    /// Bytes taken, by segment.
    live: Vec<u32>,
    open: Vec<Open>,
    /// Where the search for a free segment goes on.
    cursor: usize,
    used_bytes: u64,
    /// Counts allocations.
    clock: u32,
    /// When a segment was last given room in, by that clock.
    touched: Vec<u32>,
    /// Segments that nothing is allocated in any more.
    bad: BTreeSet<u32>,
    /// Whether a segment was trimmed since something lived in it.
    trimmed: Vec<bool>,
}

/// A shared segment that has room after `next`.
#[derive(Clone, Copy, Debug)]
struct Open {
    segment: usize,
    next: u32,
    /// A blob is being written to it, in a place that must be programmed before later ones.
    busy: bool,
}

/// Room for a blob.
#[derive(Debug, PartialEq)]
pub struct Allocation {
    /// Where.
    pub extents: Vec<Extent>,
    /// Segments that must be erased before they are programmed.
    pub fresh: Vec<u32>,
}

impl Space {
    /// All free.
    pub fn new(geometry: Geometry) -> Self {
        let count = to_usize(geometry.segment_count);
        let first = to_usize(meta_segments(geometry));
        Self {
            geometry,
            limit: geometry.segment_count,
            live: vec![0; count],
            open: Vec::new(),
            cursor: first,
            used_bytes: 0,
            clock: 0,
            touched: vec![0; count],
            bad: BTreeSet::new(),
            trimmed: vec![false; count],
        }
    }

    /// Allocates nothing in a segment any more.
    pub fn retire(&mut self, segment: u32) {
        self.bad.insert(segment);
        self.open.retain(|open| u32::try_from(open.segment) != Ok(segment));
    }

    /// How many segments are bad.
    pub fn bad_segments(&self) -> usize {
        self.bad.len()
    }

    /// Whether a part of an extent lies in a bad segment.
    pub fn touches_bad(&self, extent: &Extent) -> bool {
        let segment = |at: u64| to_u32(at / self.segment_bytes());
        self.bad.range(segment(extent.start)..=segment(extent.end() - 1)).next().is_some()
    }

    /// Whether nothing lives in a segment.
    pub fn is_empty(&self, segment: u32) -> bool {
        usize::try_from(segment).is_ok_and(|segment| self.live_of(segment) == 0)
    }

    /// Bytes that blobs can have in all: what is kept free for copying is not among them.
    pub fn capacity_bytes(&self) -> u64 {
        let bad = self.bad.range(..self.limit).count();
        let unusable = meta_segments(self.geometry) + RESERVE_SEGMENTS;
        let segments = self.limit.saturating_sub(unusable).saturating_sub(to_u32(bad));
        u64::from(segments) * u64::from(self.geometry.segment_bytes)
    }

    /// Bytes taken, reservations included.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Segments with nothing in them.
    pub fn free_segments(&self) -> usize {
        self.data_segments().filter(|segment| self.is_free(*segment)).count()
    }

    /// Bytes that could be allocated, in one piece or in several.
    fn room_bytes(&self) -> u64 {
        let rooms = self.open.iter().filter(|open| !open.busy).map(|open| self.room(open));
        self.free_segments() as u64 * self.segment_bytes() + rooms.map(u64::from).sum::<u64>()
    }

    fn is_free(&self, segment: usize) -> bool {
        self.live_of(segment) == 0 && !self.is_bad(segment)
    }

    fn is_bad(&self, segment: usize) -> bool {
        !self.bad.is_empty() && u32::try_from(segment).is_ok_and(|s| self.bad.contains(&s))
    }

    /// Whether an extent lies among the data segments, aligned to `unit`.
    fn is_sound(&self, extent: &Extent, unit: u64) -> bool {
        let first = u64::from(meta_segments(self.geometry)) * self.segment_bytes();
        let end = u64::from(self.geometry.segment_count) * self.segment_bytes();
        extent.start >= first
            && extent.start.checked_add(extent.bytes).is_some_and(|last| last <= end)
            && extent.start.is_multiple_of(unit)
            && extent.bytes.is_multiple_of(unit)
            && extent.bytes > 0
    }

    /// Whether `extents` are sound and all that a blob of `size` bytes needs.
    pub fn is_whole(&self, size: u64, extents: &[Extent]) -> bool {
        let bytes = extents.iter().try_fold(0_u64, |sum, extent| sum.checked_add(extent.bytes));
        let unit = match is_small(size, self.geometry) {
            true => grain_bytes(self.geometry),
            false => u64::from(self.geometry.program_bytes),
        };
        size <= BLOB_BYTES_MAX
            && bytes == Some(reserved_bytes(size, self.geometry))
            && extents.iter().all(|extent| self.is_sound(extent, unit))
    }

    /// Marks sound extents as taken: the log is being mounted.
    pub fn claim(&mut self, extents: &[Extent]) {
        self.change(extents, |live, bytes| live.saturating_add(bytes));
        self.used_bytes += extents.iter().map(|extent| extent.bytes).sum::<u64>();
    }

    /// After all claims of `extents`: segments that have room behind what is live in them are
    /// continued.
    pub fn reopen(&mut self, extents: impl Iterator<Item = Extent>) {
        if !self.geometry.reprogram {
            return;
        }
        let segment_bytes = self.segment_bytes();
        let mut ends = vec![0_u32; self.live.len()];
        for extent in extents {
            for segment in extent.start / segment_bytes..=(extent.end() - 1) / segment_bytes {
                let here =
                    extent.end().min((segment + 1) * segment_bytes) - segment * segment_bytes;
                // A unit of small blobs that is not full is not programmed again.
                let here = here.next_multiple_of(u64::from(self.geometry.program_bytes));
                let here = to_u32(here);
                let index = usize::try_from(segment).ok();
                if let Some(end) = index.and_then(|index| ends.get_mut(index)) {
                    *end = here.max(*end);
                }
            }
        }
        let partly = ends.into_iter().enumerate();
        let partly = partly.filter(|(segment, end)| {
            (1..self.geometry.segment_bytes).contains(end) && !self.is_bad(*segment)
        });
        self.open = partly.map(|(segment, next)| Open { segment, next, busy: false }).collect();
    }

    /// Takes room for `bytes` (a multiple of the program unit), or nothing. The last
    /// [`RESERVE_SEGMENTS`] free segments are not for this.
    pub fn allocate(&mut self, bytes: u64, wear: &Wear) -> Option<Allocation> {
        self.take(bytes, to_usize(RESERVE_SEGMENTS), wear, false)
    }

    /// As [`Space::allocate`], in as many pieces as it takes: blobs of a little more than half a
    /// segment would leave a store half empty otherwise.
    pub fn allocate_scattered(&mut self, bytes: u64, wear: &Wear) -> Option<Allocation> {
        let segment_bytes = self.segment_bytes();
        let spared = to_usize(RESERVE_SEGMENTS);
        let free = self.free_segments().saturating_sub(spared) as u64;
        if self.room_bytes() < bytes + segment_bytes * spared as u64 {
            return None;
        }
        let whole = (bytes / segment_bytes).min(free) * segment_bytes;
        let mut allocation = self.take(whole, spared, wear, false)?;
        let mut left = bytes - whole;
        while left > 0 {
            let roomy =
                self.open.iter().filter(|open| !open.busy).map(|open| self.room(open)).max();
            let here = u64::from(roomy.unwrap_or(0)).min(left);
            // Behind the last of them comes what is left of a free segment.
            let here = if here == 0 { left } else { here };
            let Some(piece) = self.take(here, spared, wear, false) else {
                self.end_writing(&allocation.extents);
                self.release(&allocation.extents);
                return None;
            };
            allocation.extents.extend(piece.extents);
            allocation.fresh.extend(piece.fresh);
            left -= here;
        }
        Some(allocation)
    }

    /// As [`Space::allocate`], down to the last free segment, for what is copied to free another.
    /// What is `cold`, not expected to change, goes to where the device is worn most.
    pub fn allocate_copy(&mut self, bytes: u64, wear: &Wear, cold: bool) -> Option<Allocation> {
        self.take(bytes, 0, wear, cold)
    }

    /// Uses only the first `segment_count` segments from here on; those of META and one more at
    /// least.
    pub fn set_limit(&mut self, segment_count: u32) {
        let least = meta_segments(self.geometry) + RESERVE_SEGMENTS + 1;
        self.limit = segment_count.max(least).min(self.geometry.segment_count);
        let limit = to_usize(self.limit);
        self.open.retain(|open| open.segment < limit);
    }

    /// The number of segments in use.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The segments beyond the limit in which something lives.
    pub fn beyond(&self) -> Vec<u32> {
        let beyond = self.limit..self.geometry.segment_count;
        let lives = |segment: &u32| {
            usize::try_from(*segment).is_ok_and(|segment| self.live_of(segment) > 0)
        };
        beyond.filter(lives).collect()
    }

    fn take(&mut self, bytes: u64, spared: usize, wear: &Wear, cold: bool) -> Option<Allocation> {
        let segment_bytes = self.segment_bytes();
        let whole = usize::try_from(bytes / segment_bytes).ok()?;
        let tail = u32::try_from(bytes % segment_bytes).ok()?;
        let shared = if cold { None } else { self.find_open(tail) };
        let wanted = whole + usize::from(tail > 0 && shared.is_none());
        let segments = self.find_free(wanted, spared, wear, cold)?;
        let mut extents: Vec<Extent> = Vec::new();
        for segment in segments.iter().take(whole) {
            let start = *segment as u64 * segment_bytes;
            match extents.last_mut() {
                Some(last) if last.end() == start => last.bytes += segment_bytes,
                _ => extents.push(Extent { start, bytes: segment_bytes }),
            }
        }
        if tail > 0 {
            let busy = !self.geometry.reprogram;
            let index = match (shared, segments.get(whole)) {
                (Some(index), _) => index,
                (None, Some(segment)) => {
                    self.open.push(Open { segment: *segment, next: 0, busy });
                    self.open.len() - 1
                }
                (None, None) => return None,
            };
            let open = self.open.get_mut(index)?;
            let start = open.segment as u64 * segment_bytes + u64::from(open.next);
            open.next += tail;
            open.busy = busy;
            match extents.last_mut() {
                Some(last) if last.end() == start => last.bytes += u64::from(tail),
                _ => extents.push(Extent { start, bytes: u64::from(tail) }),
            }
        }
        self.claim(&extents);
        if let Some(last) = segments.last() {
            self.cursor = last + 1;
        }
        self.touch(&extents);
        let fresh = segments.iter().filter_map(|segment| u32::try_from(*segment).ok()).collect();
        Some(Allocation { extents, fresh })
    }

    /// The blob in `extents` will not program them any more.
    pub fn end_writing(&mut self, extents: &[Extent]) {
        let segment_bytes = self.segment_bytes();
        for extent in extents {
            let segment = (extent.end() - 1) / segment_bytes;
            for open in &mut self.open {
                open.busy &= open.segment as u64 != segment;
            }
        }
    }

    /// Frees room. Only what no durable record names any more may be freed.
    pub fn release(&mut self, extents: &[Extent]) {
        self.change(extents, |live, bytes| {
            debug_assert!(live >= bytes, "room is given back twice: {bytes} of {live}");
            live.saturating_sub(bytes)
        });
        let bytes: u64 = extents.iter().map(|extent| extent.bytes).sum();
        debug_assert!(self.used_bytes >= bytes, "more is given back than is used");
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
        let live = &self.live;
        self.open.retain(|open| live.get(open.segment).is_some_and(|live| *live > 0));
    }

    fn find_open(&self, tail: u32) -> Option<usize> {
        // The tightest fit leaves the roomy ones to those that need them.
        (0..self.open.len())
            .filter_map(|index| self.open.get(index).map(|open| (index, open)))
            .filter(|(_, open)| tail > 0 && !open.busy && self.room(open) >= tail)
            .min_by_key(|(_, open)| self.room(open))
            .map(|(index, _)| index)
    }

    /// Bytes behind what was allocated in a shared segment.
    fn room(&self, open: &Open) -> u32 {
        self.geometry.segment_bytes - open.next
    }

    fn touch(&mut self, extents: &[Extent]) {
        self.clock = self.clock.wrapping_add(1);
        let segment_bytes = self.segment_bytes();
        for extent in extents {
            for segment in extent.start / segment_bytes..=(extent.end() - 1) / segment_bytes {
                let index = usize::try_from(segment).ok();
                if let Some(touched) = index.and_then(|index| self.touched.get_mut(index)) {
                    *touched = self.clock;
                }
                if let Some(trimmed) = index.and_then(|index| self.trimmed.get_mut(index)) {
                    *trimmed = false;
                }
            }
        }
    }

    /// `count` free segments if `spared` others stay free: in turn from the cursor where somebody
    /// else levels, else the least worn first, or the most worn for what is `cold`.
    fn find_free(
        &self,
        count: usize,
        spared: usize,
        wear: &Wear,
        cold: bool,
    ) -> Option<Vec<usize>> {
        if count == 0 {
            return Some(Vec::new());
        }
        let (before, after): (Vec<usize>, Vec<usize>) =
            self.data_segments().partition(|segment| *segment < self.cursor);
        let free = after.into_iter().chain(before).filter(|segment| self.is_free(*segment));
        let mut found: Vec<usize> = free.collect();
        if found.len() < count + spared {
            return None;
        }
        if !self.geometry.reprogram {
            found.sort_by_key(|segment| wear.erases_of(*segment));
        }
        if cold {
            found.reverse();
        }
        found.truncate(count);
        Some(found)
    }

    fn change(&mut self, extents: &[Extent], change: impl Fn(u32, u32) -> u32) {
        let segment_bytes = self.segment_bytes();
        for extent in extents {
            let mut at = extent.start;
            while at < extent.end() {
                let here = (segment_bytes - at % segment_bytes).min(extent.end() - at);
                let index = usize::try_from(at / segment_bytes).ok();
                let live = index.and_then(|index| self.live.get_mut(index));
                if let (Some(live), Ok(bytes)) = (live, u32::try_from(here)) {
                    *live = change(*live, bytes);
                }
                at += here;
            }
        }
    }

    /// The numbers of the segments that blobs may have.
    pub fn data_segments(&self) -> std::ops::Range<usize> {
        let first = meta_segments(self.geometry);
        to_usize(first)..to_usize(self.limit)
    }

    fn live_of(&self, segment: usize) -> u32 {
        self.live.get(segment).copied().unwrap_or(u32::MAX)
    }

    fn segment_bytes(&self) -> u64 {
        u64::from(self.geometry.segment_bytes)
    }
}

/// Segments that only copying may fill, so that it always can: deleting half of a shared segment
/// must be worth something on a full store.
pub const RESERVE_SEGMENTS: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::blob) const GEOMETRY: Geometry =
        Geometry { segment_count: 9, segment_bytes: 1024, program_bytes: 64, reprogram: true };

    #[test]
    fn whole_segments_and_tails() {
        let mut space = Space::new(GEOMETRY);
        assert_eq!(space.capacity_bytes(), 4096);
        let first = space.allocate(1024 + 128, &Wear::default()).unwrap();
        assert_eq!(first.extents, [Extent { start: 4096, bytes: 1152 }]);
        assert_eq!(first.fresh, [4, 5]);
        let second = space.allocate(256, &Wear::default()).unwrap();
        assert_eq!(second.extents, [Extent { start: 5120 + 128, bytes: 256 }]);
        assert!(second.fresh.is_empty(), "shares the tail's segment");
        assert!(space.allocate(3072, &Wear::default()).is_none(), "one stays free for copying");
        assert_eq!(space.free_segments(), 3);
        space.release(&first.extents);
        assert_eq!(space.free_segments(), 4, "the tail's segment still holds the second");
        space.release(&second.extents);
        assert_eq!((space.free_segments(), space.used_bytes()), (5, 0));
        assert_eq!(
            space.allocate(4096, &Wear::default()).unwrap().extents.len(),
            2,
            "taken in turn, wrapping"
        );
    }

    #[test]
    fn a_mounted_segment_is_continued_behind_its_last_byte() {
        let mut space = Space::new(GEOMETRY);
        let extent = |start, bytes| Extent { start, bytes };
        // Two that fill a segment, one that ends in the middle of the next, one across two.
        let live = [extent(4096, 512), extent(4608, 512), extent(5120, 448), extent(7104, 128)];
        space.claim(&live);
        space.reopen(live.into_iter());
        assert_eq!(space.allocate(960, &Wear::default()).unwrap().extents, [extent(7232, 960)]);
        assert_eq!(space.allocate(576, &Wear::default()).unwrap().extents, [extent(5568, 576)]);
        assert!(space.allocate(64, &Wear::default()).is_none(), "nothing behind the others");
    }

    #[test]
    fn what_fits_in_pieces_only_is_taken_in_pieces() {
        let mut space = Space::new(GEOMETRY);
        let wear = Wear::default();
        (0..4).for_each(|_| assert!(space.allocate(576, &wear).is_some()));
        assert!(
            space.allocate(576, &wear).is_none(),
            "448 bytes behind each, and one segment spared"
        );
        let extent = |start, bytes| Extent { start, bytes };
        let pieces = space.allocate_scattered(576, &wear).unwrap();
        let expected = [extent(4672, 448), extent(5696, 128)];
        assert_eq!((pieces.extents.as_slice(), pieces.fresh.len()), (expected.as_slice(), 0));
        assert_eq!(space.allocate_scattered(1280, &wear), None, "more than is there");
        assert!(space.allocate_scattered(1216, &wear).is_some());
        assert_eq!(space.used_bytes(), space.capacity_bytes());
    }

    #[test]
    fn program_once_segments_have_one_writer_at_a_time() {
        let mut space = Space::new(Geometry { reprogram: false, segment_count: 13, ..GEOMETRY });
        let first = space.allocate(64, &Wear::default()).unwrap();
        let second = space.allocate(64, &Wear::default()).unwrap();
        assert_ne!(first.fresh, second.fresh);
        space.end_writing(&first.extents);
        let third = space.allocate(64, &Wear::default()).unwrap();
        assert_eq!(third.extents[0].start, first.extents[0].end());
    }

    #[test]
    fn nothing_is_taken_beyond_the_limit() {
        let mut space = Space::new(GEOMETRY);
        let far = [Extent { start: 7168, bytes: 1024 }];
        space.claim(&far);
        space.set_limit(7);
        assert_eq!((space.capacity_bytes(), space.beyond()), (2048, vec![7]));
        assert_eq!(space.allocate(2048, &Wear::default()).unwrap().fresh, [4, 5]);
        assert!(space.allocate(64, &Wear::default()).is_none());
        assert_eq!(space.allocate_copy(1024, &Wear::default(), false).unwrap().fresh, [6]);
        space.release(&far);
        assert!(space.beyond().is_empty());
    }

    #[test]
    fn unsound_extents_are_known() {
        let space = Space::new(GEOMETRY);
        for (start, bytes) in [(0, 64), (4096, 0), (4097, 64), (9152, 128), (u64::MAX, 64)] {
            assert!(!space.is_sound(&Extent { start, bytes }, 64), "{start} {bytes}");
        }
        assert!(space.is_sound(&Extent { start: 9152, bytes: 64 }, 64));
    }
}
