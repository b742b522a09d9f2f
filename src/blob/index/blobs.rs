//! Whole blobs, described in as little memory as they can be.
//!
//! A gateway with 32 GB of flash holds ten thousand blobs and has 128 MiB of memory for everything
//! else. An ordinary blob (named by a sha256, in at most two runs on the device) takes one
//! [`Slot`] of 56 bytes and 4 bytes in the order by digest; whatever does not fit that shape is
//! kept as its whole record. The digest is there in full, so that a look-up never has to read
//! flash and two blobs are never taken for one another.
//!
//! Each blob carries when it was last used, so that what is not needed can be given up oldest
//! first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::blob::format::layout::{grain_bytes, reserved_bytes};
use crate::blob::format::{BlobRecord, Extent};
use crate::flash::Geometry;
use crate::oci::Digest;
use crate::units::to_u32;

/// All whole blobs.
pub struct Blobs {
    geometry: Geometry,
    slots: Vec<Slot>,
    /// Slots that hold nothing.
    vacant: Vec<u32>,
    /// The others, by digest.
    order: Vec<u32>,
    /// Blobs that do not fit a slot.
    overflow: BTreeMap<Digest, Overflow>,
    /// Media types that slots name by number.
    media_types: Vec<Arc<str>>,
    /// Counts uses.
    clock: u32,
}

/// An ordinary blob.
#[derive(Clone, Copy)]
struct Slot {
    digest: [u8; 32],
    size_low: u32,
    /// Where the first run begins, and its length, in grains.
    start: u32,
    grains: u32,
    /// Where the second begins. It is as long as the blob needs.
    start_second: u32,
    used: u32,
    size_high: u8,
    /// Number in `media_types` and one; 0 for none.
    media_type: u8,
    pinned: bool,
}

/// Any other.
struct Overflow {
    record: BlobRecord,
    used: u32,
}

/// What is worth knowing of a blob without knowing where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Whether the desired state needs it.
    pub pinned: bool,
    /// When it was last used, on a clock that counts uses.
    pub used: u32,
}

impl Blobs {
    /// None yet.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            slots: Vec::new(),
            vacant: Vec::new(),
            order: Vec::new(),
            overflow: BTreeMap::new(),
            media_types: Vec::new(),
            clock: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.order.len() + self.overflow.len()
    }

    /// Whether a blob is there.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.slot(digest).is_some() || self.overflow.contains_key(digest)
    }

    /// The record of a blob.
    pub fn get(&self, digest: &Digest) -> Option<BlobRecord> {
        match self.slot(digest) {
            Some(slot) => Some(self.record(slot)),
            None => self.overflow.get(digest).map(|overflow| overflow.record.clone()),
        }
    }

    /// What is worth knowing of a blob.
    pub fn summary(&self, digest: &Digest) -> Option<Summary> {
        let overflow = || self.overflow.get(digest).map(Overflow::summary);
        self.slot(digest).map(Slot::summary).or_else(overflow)
    }

    /// The media type of a blob that is a manifest.
    pub fn media_type(&self, digest: &Digest) -> Option<&str> {
        match self.slot(digest) {
            Some(slot) => self.media_type_of(slot),
            None => self.overflow.get(digest)?.record.media_type.as_deref(),
        }
    }

    /// All of them, in no order.
    pub fn summaries(&self) -> impl Iterator<Item = Summary> {
        let slots = self.order.iter().filter_map(|index| self.slot_at(*index)).map(Slot::summary);
        slots.chain(self.overflow.values().map(Overflow::summary))
    }

    /// The records of all of them, in no order.
    pub fn records(&self) -> impl Iterator<Item = BlobRecord> {
        let slots = self.order.iter().filter_map(|index| self.slot_at(*index));
        let slots = slots.map(|slot| self.record(slot));
        slots.chain(self.overflow.values().map(|overflow| overflow.record.clone()))
    }

    /// The records of all of them, the one that was used longest ago first.
    pub fn by_use(&self) -> impl Iterator<Item = BlobRecord> {
        let overflow: Vec<&Overflow> = self.overflow.values().collect();
        let slots = self.order.iter().filter_map(|index| {
            let used = self.slot_at(*index)?.used;
            Some((used, true, *index))
        });
        let others =
            overflow.iter().zip(0..).map(|(overflow, index)| (overflow.used, false, index));
        let mut all: Vec<(u32, bool, u32)> = Vec::with_capacity(self.len());
        all.extend(slots.chain(others));
        all.sort_unstable();
        all.into_iter().filter_map(move |(_, is_slot, index)| match is_slot {
            true => self.slot_at(index).map(|slot| self.record(slot)),
            false => {
                overflow.get(usize::try_from(index).ok()?).map(|overflow| overflow.record.clone())
            }
        })
    }

    /// Puts a blob in, or another record in its place; it counts as used now.
    pub fn insert(&mut self, record: BlobRecord) {
        self.take_out(&record.digest);
        let used = self.tick();
        match self.compact(&record, used) {
            Some(slot) => {
                let place = self.order.partition_point(|index| {
                    self.slot_at(*index).is_some_and(|other| other.digest < slot.digest)
                });
                let index = self.occupy(slot);
                grow(&mut self.order);
                self.order.insert(place, index);
            }
            None => {
                self.overflow.insert(record.digest, Overflow { record, used });
            }
        }
    }

    /// Takes a blob out.
    pub fn remove(&mut self, digest: &Digest) -> Option<BlobRecord> {
        let record = self.get(digest);
        self.take_out(digest);
        record
    }

    /// Says whether the desired state needs a blob.
    pub fn set_pinned(&mut self, digest: &Digest, pinned: bool) {
        match self.slot_mut(digest) {
            Some(slot) => slot.pinned = pinned,
            None => {
                self.overflow
                    .get_mut(digest)
                    .into_iter()
                    .for_each(|overflow| overflow.record.pinned = pinned);
            }
        }
    }

    /// A blob is used now.
    pub fn touch(&mut self, digest: &Digest) {
        // What was used last need not be noted again, however often it is asked for.
        if self.summary(digest).is_none_or(|summary| summary.used == self.clock) {
            return;
        }
        let now = self.tick();
        self.set_used(digest, now);
    }

    fn set_used(&mut self, digest: &Digest, used: u32) {
        match self.slot_mut(digest) {
            Some(slot) => slot.used = used,
            None => {
                self.overflow.get_mut(digest).into_iter().for_each(|overflow| overflow.used = used)
            }
        }
    }

    fn tick(&mut self) -> u32 {
        if self.clock == u32::MAX {
            self.renumber();
        }
        self.clock += 1;
        self.clock
    }

    /// Counts uses from the beginning again, in the same order.
    fn renumber(&mut self) {
        let names: Vec<Digest> = self.by_use().map(|record| record.digest).collect();
        self.clock = 0;
        for digest in &names {
            self.clock += 1;
            self.set_used(digest, self.clock);
        }
    }

    fn take_out(&mut self, digest: &Digest) {
        self.overflow.remove(digest);
        if let Some(place) = self.place(digest)
            && place < self.order.len()
        {
            let index = self.order.remove(place);
            self.vacant.push(index);
        }
    }

    /// Stores a slot; returns its number.
    fn occupy(&mut self, slot: Slot) -> u32 {
        if let Some(index) = self.vacant.pop()
            && let Some(vacant) = usize::try_from(index).ok().and_then(|i| self.slots.get_mut(i))
        {
            *vacant = slot;
            return index;
        }
        grow(&mut self.slots);
        self.slots.push(slot);
        // Fewer than the 2^32 that a checkpoint of 3 MiB could never name.
        to_u32(self.slots.len() - 1)
    }

    fn place(&self, digest: &Digest) -> Option<usize> {
        let Digest::Sha256(bytes) = digest else { return None };
        let compare = |index: &u32| {
            self.slot_at(*index).map_or(std::cmp::Ordering::Less, |slot| slot.digest.cmp(bytes))
        };
        self.order.binary_search_by(compare).ok()
    }

    fn slot(&self, digest: &Digest) -> Option<&Slot> {
        self.order.get(self.place(digest)?).and_then(|index| self.slot_at(*index))
    }

    fn slot_mut(&mut self, digest: &Digest) -> Option<&mut Slot> {
        let index = *self.order.get(self.place(digest)?)?;
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    fn slot_at(&self, index: u32) -> Option<&Slot> {
        self.slots.get(usize::try_from(index).ok()?)
    }

    fn media_type_of(&self, slot: &Slot) -> Option<&str> {
        let number = usize::from(slot.media_type).checked_sub(1)?;
        self.media_types.get(number).map(AsRef::as_ref)
    }

    /// The slot for a record, if it fits one.
    fn compact(&mut self, record: &BlobRecord, used: u32) -> Option<Slot> {
        let BlobRecord { digest, size, media_type, extents, pinned } = record;
        let Digest::Sha256(digest) = *digest else { return None };
        let grain = grain_bytes(self.geometry);
        let size_high = u8::try_from(size >> 32).ok()?;
        // What an unsound log claims is kept as it is, to be judged at the mount.
        let claimed = extents.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.bytes))?;
        let is_aligned =
            |part: &Extent| part.start.is_multiple_of(grain) && part.bytes.is_multiple_of(grain);
        if claimed != reserved_bytes(*size, self.geometry) || !extents.iter().all(is_aligned) {
            return None;
        }
        let grains = |bytes: u64| u32::try_from(bytes / grain).ok();
        let nothing = Extent { start: 0, bytes: 0 };
        let (first, second) = match extents.as_slice() {
            [] => (nothing, nothing),
            [first] if first.bytes > 0 => (*first, nothing),
            [first, second] if first.bytes > 0 && second.bytes > 0 => (*first, *second),
            _ => return None,
        };
        Some(Slot {
            digest,
            size_low: u32::try_from(size & u64::from(u32::MAX)).ok()?,
            start: grains(first.start)?,
            grains: grains(first.bytes)?,
            start_second: grains(second.start)?,
            used,
            size_high,
            media_type: self.number(media_type.as_deref())?,
            pinned: *pinned,
        })
    }

    fn record(&self, slot: &Slot) -> BlobRecord {
        let bytes = |grains: u32| u64::from(grains) * grain_bytes(self.geometry);
        let first = Extent { start: bytes(slot.start), bytes: bytes(slot.grains) };
        let all = reserved_bytes(slot.size(), self.geometry);
        let rest = all.saturating_sub(first.bytes);
        let second = Extent { start: bytes(slot.start_second), bytes: rest };
        BlobRecord {
            digest: Digest::Sha256(slot.digest),
            size: slot.size(),
            media_type: self.media_type_of(slot).map(str::to_owned),
            extents: [first, second].into_iter().filter(|part| part.bytes > 0).collect(),
            pinned: slot.pinned,
        }
    }

    /// The number of a media type, new ones included; none when there are too many to number.
    fn number(&mut self, media_type: Option<&str>) -> Option<u8> {
        let Some(media_type) = media_type else { return Some(0) };
        let known = self.media_types.iter().position(|known| **known == *media_type);
        let index = known.unwrap_or(self.media_types.len());
        let number = u8::try_from(index + 1).ok()?;
        if known.is_none() {
            self.media_types.push(media_type.into());
        }
        Some(number)
    }
}

impl Slot {
    fn size(&self) -> u64 {
        u64::from(self.size_high) << 32 | u64::from(self.size_low)
    }

    fn summary(&self) -> Summary {
        let digest = Digest::Sha256(self.digest);
        Summary { digest, size: self.size(), pinned: self.pinned, used: self.used }
    }
}

impl Overflow {
    fn summary(&self) -> Summary {
        let BlobRecord { digest, size, pinned, .. } = self.record;
        Summary { digest, size, pinned, used: self.used }
    }
}

/// Makes room for one more by an eighth: doubling would leave half of the memory unused.
fn grow<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact(vec.len() / 8 + GROWTH_MIN);
    }
}

const GROWTH_MIN: usize = 16;
const _: () = assert!(size_of::<Slot>() == 56);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Hasher};

    const GEOMETRY: Geometry = Geometry {
        segment_count: 99,
        segment_bytes: 1 << 20,
        program_bytes: 4096,
        reprogram: true,
    };

    fn record(seed: u32, size: u64, runs: u64) -> BlobRecord {
        let all = reserved_bytes(size, GEOMETRY);
        let last = all - (runs - 1) * 4096;
        let run = |index| Extent {
            start: (1 << 22) + (u64::from(seed) * 100 + index * 10) * 4096,
            bytes: if index + 1 == runs { last } else { 4096 },
        };
        BlobRecord {
            digest: Digest::sha256(&seed.to_le_bytes()),
            size,
            media_type: seed.is_multiple_of(3).then(|| format!("type/{seed}")),
            extents: (0..runs).map(run).collect(),
            pinned: seed.is_multiple_of(2),
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let mut blobs = Blobs::new(GEOMETRY);
        let mut expected: BTreeMap<Digest, BlobRecord> = BTreeMap::new();
        for seed in 0..1200 {
            let size = [1, 4096, 70_000, 300_000, 5 << 30][seed as usize % 5];
            let mut record = record(seed, size, 1 + u64::from(seed) % 3 * u64::from(size > 9000));
            if seed % 100 == 0 {
                record.digest = Hasher::new(Algorithm::Sha512).finish();
            }
            if seed % 70 == 1 {
                record.size += 1 << 41;
            }
            blobs.insert(record.clone());
            expected.insert(record.digest, record);
            if seed % 4 == 3 {
                let digest = *expected.keys().nth(seed as usize / 2 % expected.len()).unwrap();
                assert_eq!(blobs.remove(&digest), expected.remove(&digest));
                assert_eq!(blobs.remove(&digest), None);
            }
        }
        assert_eq!(blobs.len(), expected.len());
        assert!(blobs.overflow.len() < expected.len() / 2, "most are ordinary");
        for (digest, record) in &expected {
            assert_eq!(blobs.get(digest).as_ref(), Some(record));
            assert_eq!(blobs.media_type(digest), record.media_type.as_deref());
            let summary = blobs.summary(digest).unwrap();
            assert_eq!((summary.size, summary.pinned), (record.size, record.pinned));
        }
        assert_eq!(blobs.records().count(), expected.len());
    }

    #[test]
    fn uses_are_kept_in_order() {
        let mut blobs = Blobs::new(GEOMETRY);
        let digests: Vec<Digest> = (0..4).map(|seed| record(seed, 9000, 2).digest).collect();
        (0..4).for_each(|seed| blobs.insert(record(seed, 9000, 2)));
        blobs.touch(&digests[1]);
        blobs.touch(&digests[1]);
        assert_eq!(blobs.clock, 5, "used last already");
        let by_use = |blobs: &Blobs| -> Vec<usize> {
            let names = blobs.by_use().map(|record| record.digest);
            names.filter_map(|name| digests.iter().position(|digest| *digest == name)).collect()
        };
        assert_eq!(by_use(&blobs), [0, 2, 3, 1]);
        blobs.clock = u32::MAX;
        blobs.touch(&digests[0]);
        assert_eq!(by_use(&blobs), [2, 3, 1, 0]);
        assert!(blobs.clock < 10);
    }
}
