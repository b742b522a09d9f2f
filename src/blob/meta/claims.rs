//! What blobs and downloads claim of the device, once all records are read: of whatever cannot be
//! true, nothing is believed.

use std::collections::BTreeSet;

use crate::blob::format::layout::{grain_bytes, is_intact, read_chunks};
use crate::blob::format::{BlobRecord, Extent, Record};
use crate::blob::index::Index;
use crate::blob::index::space::Space;
use crate::flash::{Device, Geometry};
use crate::oci::{Digest, Hasher};
use crate::units::to_u32;

/// Drops what does not lie within the device, and what is empty and should not be; returns the
/// number.
pub fn drop_wrong_places(space: &Space, index: &mut Index) -> usize {
    let is_empty = |digest: &Digest| digest.algorithm().digest(&[]) == *digest;
    let is_wrong = |record: &BlobRecord| {
        !space.is_whole(record.size, &record.extents)
            || record.size == 0 && !is_empty(&record.digest)
    };
    let wrong = all_records(index).filter(is_wrong).map(|record| record.digest).collect();
    drop_all(wrong, index)
}

/// Drops whatever does not read back as what its record says; returns the number. What is there can
/// be no more than the device has bytes, and what was there before and lost its `Delete` not much
/// more; where records claim so many times as much, those that are left are not worth reading.
pub fn drop_wrong_bytes(device: &dyn Device, index: &mut Index) -> usize {
    let mut left = device.geometry().bytes().saturating_mul(CLAIMED_MAX);
    let mut is_affordable = |bytes: u64| {
        let rest = left.checked_sub(bytes);
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let wrong = index
        .blobs
        .records()
        .filter(|record| !is_affordable(record.size) || !is_intact(device, record));
    let mut wrong: Vec<Digest> = wrong.map(|record| record.digest).collect();
    for (digest, partial) in &index.partials {
        let mut hash = Hasher::new(digest.algorithm());
        let is_sound = partial.frontier == 0
            || is_affordable(partial.frontier)
                && read_chunks(device, &partial.record, partial.frontier, |b| hash.update(b))
                    .is_ok()
                && hash.state() == partial.midstate;
        if !is_sound {
            wrong.push(*digest);
        }
    }
    drop_all(wrong, index)
}

/// Drops what claims the same bytes as another; returns the number. Of two owners at most one is
/// right; between a blob and a download, the download is the one that is cheap to lose.
pub fn drop_overlaps(geometry: Geometry, index: &mut Index) -> usize {
    // In grains and by position, not by digest: there may be many.
    let grain = grain_bytes(geometry);
    let grains = |bytes: u64| to_u32(bytes / grain);
    let count = all_records(index).map(|record| record.extents.len()).sum();
    let mut taken: Vec<(u32, u32, u32)> = Vec::with_capacity(count);
    for (record, owner) in all_records(index).zip(0..) {
        let extents = record.extents.iter();
        taken.extend(extents.map(|extent| (grains(extent.start), grains(extent.end()), owner)));
    }
    taken.sort_unstable();
    let blobs = to_u32(index.blobs.len());
    let is_partial = |owner: u32| owner >= blobs;
    let mut wrong = BTreeSet::new();
    // What reaches furthest so far, and whose it is: of blobs and of downloads, because a download
    // that is dropped for one blob may not hide it from another.
    let mut furthest: [Option<(u32, u32)>; 2] = [None; 2];
    for (start, end, owner) in taken {
        let [blob, partial] = furthest
            .map(|reach| reach.filter(|(before, _)| *before > start).map(|(_, other)| other));
        wrong.extend(partial);
        match (is_partial(owner), blob) {
            (false, Some(blob)) => wrong.extend([blob, owner]),
            (true, _) if blob.or(partial).is_some() => wrong.extend([owner]),
            _ => {}
        }
        let [of_blobs, of_partials] = &mut furthest;
        let own = if is_partial(owner) { of_partials } else { of_blobs };
        if own.is_none_or(|(before, _)| before < end) {
            *own = Some((end, owner));
        }
    }
    if wrong.is_empty() {
        return 0;
    }
    let owners = all_records(index).zip(0..);
    let wrong = owners.filter(|(_, owner)| wrong.contains(owner));
    drop_all(wrong.map(|(record, _)| record.digest).collect(), index)
}

/// Blobs, then downloads.
fn all_records(index: &Index) -> impl Iterator<Item = BlobRecord> {
    let partials = index.partials.values().map(|partial| partial.record.clone());
    index.blobs.records().chain(partials)
}

fn drop_all(mut digests: Vec<Digest>, index: &mut Index) -> usize {
    digests.sort();
    digests.dedup();
    for digest in &digests {
        index.apply(Record::Delete { digest: *digest });
    }
    digests.len()
}

pub fn claim_all(space: &mut Space, index: &Index, read: &[Extent]) {
    all_records(index).for_each(|record| space.claim(&record.extents));
    space.claim(read);
    let live = all_records(index).flat_map(|record| record.extents);
    space.reopen(live.chain(read.iter().copied()));
}

/// How often a damaged log may claim all of its device before it is not worth reading.
const CLAIMED_MAX: u64 = 4;
