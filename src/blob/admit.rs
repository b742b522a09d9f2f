//! Whether there is room for all of an image, before its first byte is fetched.
//!
//! Room that blobs have which are pinned or tagged is theirs; all others give way. What is asked
//! for is counted as the log would lay it out, in bytes of data segments and in bytes of the index.
//! A log that is fragmented may still be full before that: then a reservation says so.

use std::collections::{BTreeMap, BTreeSet};

use super::format::{BlobRecord, Extent};
use super::index::{blob_bytes, partial_bytes};
use super::layout::reserved_bytes;
use super::{Partial, Store};
use crate::oci::Digest;

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
    /// Bytes of them that blobs have which give way by themselves.
    pub evictable: u64,
    /// Bytes that are asked for and have no room yet.
    pub fresh: u64,
}

impl Admission {
    /// Whether all that is asked for can be held.
    pub fn is_granted(&self) -> bool {
        self.data.is_enough() && self.index.is_enough()
    }

    /// Bytes that somebody must give up before all is there.
    pub fn lacking(&self) -> u64 {
        self.used.saturating_add(self.fresh).saturating_sub(self.data.capacity)
    }

    /// Of those, what no eviction will give.
    pub fn stuck(&self) -> u64 {
        self.lacking().saturating_sub(self.evictable)
    }
}

impl Store {
    /// Whether `wanted` can be held beside what is pinned, what tags name, and what is `promised`
    /// to others.
    pub fn admission(&self, wanted: &[Want], promised: &[Want]) -> Admission {
        let geometry = self.device().geometry();
        let bytes = |want: &Want| reserved_bytes(want.size, geometry);
        let wanted: BTreeMap<Digest, Want> = wanted.iter().map(|w| (w.digest, *w)).collect();
        let others = promised.iter().filter(|want| !wanted.contains_key(&want.digest));
        let promised: BTreeMap<Digest, Want> = others.map(|w| (w.digest, *w)).collect();
        let state = self.0.state.borrow();
        let tagged: BTreeSet<&Digest> = state.index.tags.values().collect();
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
            if record.pinned || tagged.contains(digest) {
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

/// The sum of sizes that a stranger may have made up.
fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

/// More pieces than nearly all blobs are laid into.
const EXTENTS_EXPECTED: usize = 2;
/// Blobs of one image that are written at the same time.
const UNDER_WAY_EXPECTED: usize = 3;
/// A manifest's type.
const MEDIA_TYPE_BYTES: u64 = 80;
