//! Mounting: from what a device holds to what the log knows.
//!
//! The newest META segment whose checkpoint is whole is the base; its tail is replayed. A newer
//! segment without a tail is a compaction that power cut short, and is ignored: nothing was
//! appended to it. A newer one with a tail was in use and is damaged: what can be read of it is
//! replayed over the base, and then nothing is believed without its hash, because a Delete may be
//! among what was lost. Mount ends by beginning a new segment, so that nothing is ever appended
//! after a torn unit.

use std::fmt;
use std::sync::Arc;

use super::Error;
use super::format::{BlobRecord, Extent, Header, HeaderState, META_SEGMENTS, Record, VERSION};
use super::index::Index;
use super::layout::{is_intact, read_chunks};
use super::meta::{Meta, Scan, read_header, scan};
use super::space::Space;
use crate::flash::{Device, SEGMENTS_MAX};
use crate::kind::Kind;
use crate::oci::{Digest, Hasher};

/// What was found on the device. Its `Display` is one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountReport {
    /// Whole blobs.
    pub blobs: usize,
    /// Downloads that will go on.
    pub partials: usize,
    /// Tags.
    pub tags: usize,
    /// Places in the META ring that could not be read.
    pub damaged: u32,
    /// Blobs and downloads that were dropped because their bytes or their room are not theirs.
    pub dropped: usize,
    /// Nothing could be read where a log had been: it was begun anew.
    pub was_lost: bool,
}

impl fmt::Display for MountReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blobs, partials, tags, damaged, dropped, was_lost } = self;
        write!(f, "{blobs} blobs held, {partials} under way, {tags} tags")?;
        if *was_lost {
            write!(f, "; the index of an older log cannot be read: begun anew")?;
        }
        if *damaged > 0 || *dropped > 0 {
            write!(
                f,
                "; {damaged} damaged places, {dropped} blobs dropped: the next sync fetches"
            )?;
        }
        Ok(())
    }
}

/// A log ready for use.
pub struct Mounted {
    /// What it holds.
    pub index: Index,
    /// What is free.
    pub space: Space,
    /// Its end.
    pub meta: Meta,
    /// What was found.
    pub report: MountReport,
    /// Bytes programmed to begin the new segment.
    pub programmed_bytes: u64,
}

/// Mounts what `device` holds, or begins a log on it. What can only be read is left as it is, and
/// nothing may be appended to it.
pub fn mount(device: &Arc<dyn Device>) -> Result<Mounted, Error> {
    let geometry = device.geometry();
    if geometry.segment_count <= META_SEGMENTS {
        let count = geometry.segment_count;
        let what =
            format!("device of {count} segments: expected more than the {META_SEGMENTS} of META");
        return Err(Error::new(Kind::Invalid, what));
    }
    if geometry.segment_count > SEGMENTS_MAX {
        let count = geometry.segment_count;
        let what = format!("device of {count} segments: expected at most {SEGMENTS_MAX}");
        return Err(Error::new(Kind::Invalid, what));
    }
    let ring = Ring::read(device.as_ref())?;
    let mut report = ring.report;
    let mut index = Index::default();
    for record in ring.records {
        index.apply(record);
    }
    let mut space = Space::new(geometry);
    report.dropped += drop_wrong_places(&space, &mut index);
    if report.damaged > 0 {
        report.dropped += drop_wrong_bytes(device.as_ref(), &mut index)?;
    }
    report.dropped += drop_overlaps(&mut index);
    index.tags.retain(|_, digest| index.blobs.contains_key(digest));
    index.pins.retain(|digest| index.blobs.contains_key(digest));
    claim_all(&mut space, &index);
    let mut meta = Meta::new(Arc::clone(device), ring.last_sequence, ring.erase_counts);
    let programmed_bytes = match device.read_only() {
        Some(_) => 0,
        None => meta.begin(index.snapshot())?,
    };
    report.blobs = index.blobs.len();
    report.partials = index.partials.len();
    report.tags = index.tags.len();
    Ok(Mounted { index, space, meta, report, programmed_bytes })
}

/// What the META ring tells.
struct Ring {
    /// All that must be replayed, in order.
    records: Vec<Record>,
    /// The number after which the next segment is counted.
    last_sequence: u64,
    erase_counts: [u32; META_SEGMENTS as usize],
    report: MountReport,
}

impl Ring {
    fn read(device: &dyn Device) -> Result<Self, Error> {
        let mut erase_counts = [0; META_SEGMENTS as usize];
        let mut found: Vec<(u32, Header)> = Vec::new();
        let mut unreadable = Vec::new();
        for (slot, erase_count) in (0..META_SEGMENTS).zip(&mut erase_counts) {
            match read_header(device, slot)? {
                HeaderState::Valid(header) => {
                    *erase_count = header.erase_count;
                    found.push((slot, header));
                }
                HeaderState::Blank => {}
                HeaderState::Newer(version) => return Err(newer(version)),
                HeaderState::Damaged => unreadable.push(slot),
            }
        }
        let last = found.iter().map(|(_, header)| header.sequence).max();
        let mut report = MountReport {
            was_lost: last.is_none() && !unreadable.is_empty(),
            ..MountReport::default()
        };
        let mut scans = Vec::new();
        for (slot, header) in &found {
            scans.push(scan(device, *slot, *header)?);
        }
        if let Some(last) = last {
            for slot in &unreadable {
                scans.extend(rescue(device, *slot, last)?);
            }
        }
        scans.sort_by_key(|scan| std::cmp::Reverse(scan.header.sequence));
        // A number that a header now unreadable may have had is not used again.
        let slack = if unreadable.is_empty() { 0 } else { u64::from(META_SEGMENTS) };
        let mut last_sequence = last.unwrap_or(0) + slack;
        let (records, base) = replayed(scans, &mut report);
        let slot = |sequence: u64| sequence % u64::from(META_SEGMENTS);
        if base.is_some_and(|base| slot(base) == slot(last_sequence + 1)) {
            // The base is what there is until the next segment stands.
            last_sequence += 1;
        }
        Ok(Self { records, last_sequence, erase_counts, report })
    }
}

/// The records of the base and of what was in use after it, in order, and the base's number.
fn replayed(newest_first: Vec<Scan>, report: &mut MountReport) -> (Vec<Record>, Option<u64>) {
    let mut parts = Vec::new();
    let mut base = None;
    for scan in newest_first {
        report.damaged += scan.damaged;
        if scan.is_complete {
            base = Some(scan.header.sequence);
            parts.push(scan.records);
            break;
        }
        if scan.was_used {
            report.damaged += 1;
            parts.push(scan.records);
        }
    }
    if base.is_none() && parts.is_empty() {
        report.damaged = 0;
    }
    (parts.into_iter().rev().flatten().collect(), base)
}

/// Looks behind a header that cannot be read: were frames written there after segment `last`?
fn rescue(device: &dyn Device, slot: u32, last: u64) -> Result<Option<Scan>, Error> {
    let sequences = last + 1..last + u64::from(META_SEGMENTS);
    for sequence in sequences {
        if sequence % u64::from(META_SEGMENTS) == u64::from(slot) {
            let found = scan(device, slot, Header { sequence, erase_count: 0 })?;
            return Ok((found.is_complete || found.was_used).then_some(found));
        }
    }
    Ok(None)
}

/// Drops what does not lie within the device; gives the number.
fn drop_wrong_places(space: &Space, index: &mut Index) -> usize {
    let records = index.blobs.values().map(AsRef::as_ref);
    let records = records.chain(index.partials.values().map(|partial| &partial.record));
    let is_wrong = |record: &&BlobRecord| !space.is_whole(record.size, &record.extents);
    let wrong = records.filter(is_wrong).map(|record| record.digest).collect();
    drop_all(wrong, index)
}

/// Drops whatever does not read back as what its record says; gives the number.
fn drop_wrong_bytes(device: &dyn Device, index: &mut Index) -> Result<usize, Error> {
    let mut wrong = Vec::new();
    for (digest, record) in &index.blobs {
        if !is_intact(device, record)? {
            wrong.push(*digest);
        }
    }
    for (digest, partial) in &index.partials {
        let mut hash = Hasher::new(digest.algorithm());
        read_chunks(device, &partial.record, partial.frontier, |bytes| hash.update(bytes))?;
        if partial.frontier > 0 && hash.state() != partial.midstate {
            wrong.push(*digest);
        }
    }
    Ok(drop_all(wrong, index))
}

/// Drops what claims the same bytes as another; gives the number. Of two owners at most one is
/// right; between a blob and a download, the download is the one that is cheap to lose.
fn drop_overlaps(index: &mut Index) -> usize {
    let records = index.blobs.values().map(AsRef::as_ref);
    let records = records.chain(index.partials.values().map(|partial| &partial.record));
    let mut taken: Vec<(Extent, Digest)> = records
        .flat_map(|record| record.extents.iter().map(|extent| (*extent, record.digest)))
        .collect();
    taken.sort_by_key(|(extent, _)| *extent);
    let is_partial = |digest: &Digest| index.partials.contains_key(digest);
    let mut wrong = Vec::new();
    let mut furthest: Option<(Extent, Digest)> = None;
    for (extent, digest) in taken {
        if let Some((before, other)) = furthest
            && before.end() > extent.start
        {
            match (is_partial(&other), is_partial(&digest)) {
                (true, false) => wrong.push(other),
                (false, true) => wrong.push(digest),
                _ => wrong.extend([other, digest]),
            }
        }
        if furthest.is_none_or(|(before, _)| before.end() < extent.end()) {
            furthest = Some((extent, digest));
        }
    }
    drop_all(wrong, index)
}

fn drop_all(mut digests: Vec<Digest>, index: &mut Index) -> usize {
    digests.sort();
    digests.dedup();
    for digest in &digests {
        index.apply(Record::Delete { digest: *digest });
    }
    digests.len()
}

fn claim_all(space: &mut Space, index: &Index) {
    let blobs = index.blobs.values().map(|record| &record.extents);
    let partials = index.partials.values().map(|partial| &partial.record.extents);
    let all = blobs.chain(partials);
    all.clone().for_each(|extents| space.claim(extents));
    space.reopen(all.flatten());
}

fn newer(version: u16) -> Error {
    let what = format!(
        "the log is of format version {version}, this program knows version {VERSION}: \
         run the newer moonlet that wrote it, or give this one an empty store"
    );
    Error::new(Kind::Invalid, what)
}
