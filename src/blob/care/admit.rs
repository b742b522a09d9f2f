//! Whether there is room for all of an image, before its first byte is fetched.
//!
//! Pinned blobs keep their room; all others may be evicted. What is asked
//! for is counted as the log would lay it out, in bytes of data segments and in bytes of the index.
//! A log that is fragmented may still be full before that: then a reservation says so.

use std::collections::{BTreeMap, BTreeSet};

use crate::blob::format::layout::reserved_bytes;
use crate::blob::format::{BlobRecord, Extent};
use crate::blob::index::{blob_bytes, partial_bytes};
use crate::blob::{Partial, Store};
use crate::oci::Digest;
use crate::units::ByteCount;

/// A blob that is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// What is needed beside what stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are asked for, with those of it that are there.
    pub needed: u64,
    /// Bytes of other things that stay.
    pub kept: u64,
    /// Bytes of all.
    pub capacity: u64,
}

impl Room {
    /// Bytes that what is asked for can have.
    pub fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.kept)
    }

    /// Whether they are enough.
    pub fn is_enough(&self) -> bool {
        self.needed <= self.free()
    }
}

/// The figures by which something is admitted or refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// In the data segments.
    pub data: Room,
    /// In the index.
    pub index: Room,
    /// Bytes of the data segments that are in use or reserved.
    pub used: u64,
    /// Bytes of them in blobs that are evicted when needed.
    pub evictable: u64,
    /// Bytes that are asked for and have no room yet.
    pub fresh: u64,
}

impl Admission {
    /// Whether all that is asked for can be held.
    pub fn is_granted(&self) -> bool {
        self.data.is_enough() && self.index.is_enough()
    }

    /// Why it cannot, with the figures that somebody can act upon.
    pub fn refusal(&self) -> String {
        let (room, place, cure) = match self.data.is_enough() {
            false => (self.data, "", "raise size_max or remove images"),
            true => {
                let cure = "remove images, or begin the store anew with a larger size_max";
                (self.index, " in the log's index", cure)
            }
        };
        let Room { needed, kept, capacity } = room;
        let (needed, free) = (ByteCount(needed), ByteCount(room.free()));
        let (capacity, kept) = (ByteCount(capacity), ByteCount(kept));
        format!("no room{place}: needs {needed}, {free} free of {capacity}, {kept} pinned: {cure}")
    }

    /// Bytes that must be freed before all is there.
    pub fn lacking(&self) -> u64 {
        self.used.saturating_add(self.fresh).saturating_sub(self.data.capacity)
    }

    /// Of those, what no eviction will free.
    pub fn stuck(&self) -> u64 {
        self.lacking().saturating_sub(self.evictable)
    }
}

impl Store {
    /// Whether `wanted` can be held beside what is pinned, and what is `promised` to others.
    pub fn admission(&self, wanted: &[Want], promised: &[Want]) -> Admission {
        let geometry = self.device().geometry();
        let bytes = |want: &Want| reserved_bytes(want.size, geometry);
        let wanted: BTreeMap<Digest, Want> = wanted.iter().map(|w| (w.digest, *w)).collect();
        let others = promised.iter().filter(|want| !wanted.contains_key(&want.digest));
        let promised: BTreeMap<Digest, Want> = others.map(|w| (w.digest, *w)).collect();
        let state = self.0.state.borrow();
        let mut admission = Admission::default();
        let Admission { data, index, .. } = &mut admission;
        data.capacity = state.space.capacity_bytes();
        data.needed = sum(wanted.values().map(bytes));
        index.capacity = self.index_bytes_max();
        index.needed = needed_in_index(wanted.values());
        data.kept = sum(promised.values().map(bytes));
        // Tags and counts, to which what stays is added.
        let partials = state.index.partials.values();
        let partials: u64 = partials.map(|partial| partial_bytes(&partial.record)).sum();
        let blobs: u64 = state.index.blobs.records().map(|record| blob_bytes(&record)).sum();
        index.kept = state.index.snapshot_bytes().saturating_sub(partials + blobs);
        index.kept = index.kept.saturating_add(needed_in_index(promised.values()));
        let mut absent: BTreeSet<&Digest> = wanted.keys().collect();
        let mut evictable = 0;
        for record in state.index.blobs.records() {
            let digest = &record.digest;
            if absent.remove(digest) || promised.contains_key(digest) {
                continue;
            }
            let reserved = reserved_bytes(record.size, geometry);
            if record.pinned {
                data.kept = data.kept.saturating_add(reserved);
                index.kept += blob_bytes(&record);
            } else {
                evictable += reserved;
            }
        }
        admission.evictable = evictable;
        let has_room = |digest: &&Digest| {
            state.index.partials.contains_key(*digest) || state.is_finished(digest)
        };
        let fresh = absent.iter().filter(|digest| !has_room(digest));
        admission.fresh = sum(fresh.filter_map(|digest| wanted.get(*digest)).map(bytes));
        let limbo = state.limbo.iter().flat_map(|limbo| &limbo.extents);
        let limbo: u64 = limbo.map(|extent| extent.bytes).sum();
        admission.used = state.space.used_bytes().saturating_sub(limbo);
        admission
    }

    /// Downloads that were begun and not finished, with the bytes that each has room for.
    pub fn reserved(&self) -> Vec<(Partial, u64)> {
        let geometry = self.device().geometry();
        let partials = self.partials().into_iter();
        partials.map(|partial| (partial, reserved_bytes(partial.size, geometry))).collect()
    }
}

/// What blobs need in a checkpoint, with as many of them under way as there may be at a time.
fn needed_in_index<'a>(wants: impl Iterator<Item = &'a Want>) -> u64 {
    let mut extra = Vec::new();
    let mut bytes = 0_u64;
    for want in wants {
        let extents = vec![Extent { start: 0, bytes: 0 }; EXTENTS_EXPECTED];
        let Want { digest, size } = *want;
        let record = BlobRecord { digest, size, media_type: None, extents, pinned: true };
        let whole = blob_bytes(&record);
        bytes = bytes.saturating_add(whole + MEDIA_TYPE_BYTES);
        extra.push(partial_bytes(&record).saturating_sub(whole));
    }
    extra.sort_unstable_by(|one, other| other.cmp(one));
    bytes.saturating_add(sum(extra.into_iter().take(UNDER_WAY_EXPECTED)))
}

/// The sum of sizes that come from outside, and may be anything.
fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

/// More pieces than nearly all blobs are laid into.
const EXTENTS_EXPECTED: usize = 2;
/// Blobs of one image that are written at the same time.
const UNDER_WAY_EXPECTED: usize = 3;
/// A manifest's type.
const MEDIA_TYPE_BYTES: u64 = 80;

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::blob::TagKey;
    use crate::flash::{Geometry, sim};
    use crate::metrics::Metrics;

    #[test]
    fn a_refusal_has_the_figures() {
        let mib = |count: u64| count << 20;
        let data = Room { needed: mib(43), kept: mib(4), capacity: mib(28) };
        let plenty = Room { needed: 1, kept: 1, capacity: mib(3) };
        let admission = Admission { data, index: plenty, ..Admission::default() };
        let expected = "no room: needs 43 MiB, 24 MiB free of 28 MiB, 4 MiB pinned: raise size_max \
                        or remove images";
        assert_eq!(admission.refusal(), expected);
        let full = Room { needed: mib(1), kept: mib(2) + 1, capacity: mib(3) };
        let refusal = Admission { data: plenty, index: full, ..Admission::default() }.refusal();
        assert!(refusal.contains("in the log's index: needs 1 MiB"), "{refusal}");
    }

    #[test]
    fn what_is_lacking_follows_from_the_figures() {
        let room = |needed, kept| Room { needed, kept, capacity: 100 };
        let cases = [
            // needed, kept, used, evictable, fresh: granted, lacking, stuck
            ((100, 0, 0, 0, 100), (true, 0, 0)),
            ((101, 0, 0, 0, 101), (false, 1, 1)),
            ((60, 40, 40, 0, 60), (true, 0, 0)),
            ((60, 41, 41, 0, 60), (false, 1, 1)),
            // A cached blob is evicted when needed, a download that was begun does not.
            ((60, 0, 90, 90, 60), (true, 50, 0)),
            ((60, 0, 90, 20, 60), (true, 50, 30)),
            // What is there already needs nothing fresh.
            ((60, 40, 100, 0, 0), (true, 0, 0)),
            ((u64::MAX, 1, 1, 0, u64::MAX), (false, u64::MAX - 100, u64::MAX - 100)),
        ];
        for ((needed, kept, used, evictable, fresh), expected) in cases {
            let (data, index) = (room(needed, kept), room(1, 1));
            let admission = Admission { data, index, used, evictable, fresh };
            let found = (admission.is_granted(), admission.lacking(), admission.stuck());
            assert_eq!(found, expected, "{admission:?}");
        }
        let admission = Admission { data: room(1, 1), index: room(1, 100), ..Admission::default() };
        assert!(!admission.is_granted(), "no room in the index");
    }

    #[test]
    fn what_is_pinned_or_promised_stays_and_the_rest_gives_way() {
        let (segment_count, segment_bytes, program_bytes) = (24, 16_384, 64);
        let geometry = Geometry { segment_count, segment_bytes, program_bytes, reprogram: true };
        let device = Arc::new(sim::Device::new(geometry));
        let (store, _) = Store::open(device, Rc::new(Metrics::default())).unwrap();
        let put = |seed: u8| {
            let bytes = vec![seed; 640];
            let digest = Digest::sha256(&bytes);
            smol::block_on(store.put(&digest, &bytes, None)).unwrap();
            Want { digest, size: 640 }
        };
        let [pinned, tagged, cached, part] = [1, 2, 3, 4].map(put);
        smol::block_on(store.pin(&[pinned.digest], true)).unwrap();
        let (registry, repository, tag) = ("r".to_owned(), "app".to_owned(), "1".to_owned());
        let key = TagKey { registry, repository, tag };
        smol::block_on(store.set_tag(&key, &tagged.digest)).unwrap();
        let absent = |name: &str, size| Want { digest: Digest::sha256(name.as_bytes()), size };
        let begun = absent("begun", 1024);
        let mut writer = smol::block_on(store.writer(&begun.digest, begun.size, None)).unwrap();
        smol::block_on(writer.write(&[7; 512])).unwrap();
        smol::block_on(writer.suspend()).unwrap();
        let fresh = absent("fresh", 1000);
        let wanted = [part, begun, fresh];
        // One that both want counts once.
        let promised = [absent("promised", 2048), fresh];
        let admission = store.admission(&wanted, &promised);
        assert_eq!(admission.data.needed, 640 + 1024 + 1024);
        assert_eq!(admission.data.kept, 640 + 2048);
        // A tag alone keeps nothing: what is not desired is a cache.
        assert_eq!((admission.evictable, admission.fresh), (2 * 640, 1024));
        assert_eq!(admission.used, 4 * 640 + 1024);
        assert!(admission.is_granted() && admission.lacking() == 0);
        assert_eq!(store.reserved().into_iter().map(|(_, bytes)| bytes).sum::<u64>(), 1024);
        let huge = absent("huge", admission.data.free() + 1);
        assert!(!store.admission(&[huge], &promised).is_granted());
        assert!(store.entry(&cached.digest).is_some(), "nothing was evicted for the asking");
    }
}
