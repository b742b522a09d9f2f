//! What the log holds, in memory: the sum of all records, and what records do to it.
//!
//! Replaying a record twice, or after one that it depends on was lost, never makes anything appear
//! that is not wholly described by records that were read.

pub(super) mod blobs;
pub(super) mod checks;
pub(super) mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::blob::format::counts::Wear;
use crate::blob::format::layout::{difference, prefix};
use crate::blob::format::{
    ACCOUNTS_MAX, BlobRecord, CHUNK_BYTES, CHUNK_HASH_BYTES, DOCUMENT_BYTES_MAX, DOCUMENTS_MAX,
    Extent, FRAME_HEADER_BYTES, NAME_BYTES_MAX, Record, Spent, TagKey,
};
use crate::blob::index::blobs::Blobs;
use crate::flash::Geometry;
use crate::oci::{Digest, Hasher};
use crate::units::to_usize;

/// All blobs, whole and partial, and all tags.
pub struct Index {
    /// Whole blobs.
    pub blobs: Blobs,
    /// Downloads begun and not finished.
    pub partials: BTreeMap<Digest, PartialBlob>,
    /// What each tag means.
    pub tags: BTreeMap<TagKey, Digest>,
    /// Chunks of whole blobs that do not read back as what they were.
    pub corrupt: BTreeMap<Digest, BTreeSet<u32>>,
    /// What the device has been through.
    pub wear: Wear,
    /// What was spent by period.
    pub ledger: Vec<Spent>,
    /// The time that was recorded last, in seconds since 1970-01-01 UTC.
    pub time: Option<u64>,
    /// Documents by name.
    pub documents: BTreeMap<String, Arc<[u8]>>,
    /// Segments of the device: nothing is counted of others.
    segment_count: u32,
}

/// A blob of which the first bytes are there.
#[derive(Clone, Debug)]
pub struct PartialBlob {
    /// Its reservation.
    pub record: BlobRecord,
    /// Bytes that are known to be there.
    pub frontier: u64,
    /// The digest's running state over them; empty at frontier 0.
    pub midstate: Vec<u8>,
    /// Hashes of the complete chunks among them.
    pub chunks: Vec<[u8; 32]>,
    /// Hash of those that belong to none.
    pub rest: [u8; 32],
}

impl Index {
    /// Nothing, on a device of that shape.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            blobs: Blobs::new(geometry),
            partials: BTreeMap::new(),
            tags: BTreeMap::new(),
            corrupt: BTreeMap::new(),
            wear: Wear::default(),
            ledger: Vec::new(),
            time: None,
            documents: BTreeMap::new(),
            segment_count: geometry.segment_count,
        }
    }

    /// Takes in one record; frees the room that nothing names any more with it.
    pub fn apply(&mut self, record: Record) -> Vec<Extent> {
        let mut freed = Vec::new();
        match record {
            Record::CheckpointBegin | Record::CheckpointEnd { .. } => {}
            Record::Reserve(record) => {
                let old = self.partials.remove(&record.digest);
                let (partial, given_up) = PartialBlob::reserved(record, old);
                self.partials.insert(partial.record.digest, partial);
                freed = given_up;
            }
            Record::Progress { digest, frontier, midstate, chunks_from, chunks, rest } => {
                if let Some(partial) = self.partials.get_mut(&digest)
                    && partial.may_advance(frontier, chunks_from, chunks.len())
                {
                    (partial.frontier, partial.midstate, partial.rest) = (frontier, midstate, rest);
                    partial.chunks.extend(chunks);
                }
            }
            Record::Commit(record) => {
                let partial = self.partials.remove(&record.digest).map(|partial| partial.record);
                for old in self.blobs.remove(&record.digest).into_iter().chain(partial) {
                    // The reservation's extents are the blob's own from here on.
                    freed.extend(difference(&old.extents, &record.extents));
                }
                self.blobs.insert(record);
            }
            Record::Delete { digest } => {
                self.corrupt.remove(&digest);
                let partial = self.partials.remove(&digest).map(|partial| partial.record);
                let gone = self.blobs.remove(&digest).into_iter().chain(partial);
                freed.extend(gone.flat_map(|record| record.extents));
            }
            other => self.note(other),
        }
        freed
    }

    /// Takes in a record that frees no room.
    fn note(&mut self, record: Record) {
        match record {
            // A tag whose blob was not yet durable when the power went must not take the place of
            // the one before it.
            Record::Tag { key, digest } if self.blobs.contains(&digest) => {
                self.tags.insert(key, digest);
            }
            Record::Untag { key } => {
                self.tags.remove(&key);
            }
            Record::Pin { digest, pinned } => self.blobs.set_pinned(&digest, pinned),
            Record::Rot { digest, chunks } => {
                self.corrupt.remove(&digest);
                if self.blobs.contains(&digest) && !chunks.is_empty() {
                    self.corrupt.insert(digest, chunks.into_iter().collect());
                }
            }
            Record::Wear(mut wear) => {
                wear.erases.truncate(to_usize(self.segment_count));
                self.wear = wear;
            }
            Record::Counts(counts) => self.wear.counts = counts,
            Record::Erased { segments } => {
                let known = segments.into_iter().filter(|segment| *segment < self.segment_count);
                known.for_each(|segment| self.wear.erased(segment));
            }
            // What no store would have recorded is not taken in, for it may be of any size.
            Record::Ledger(ledger) if is_ledger(&ledger) => self.ledger = ledger,
            Record::Time { unix_seconds } => self.time = Some(unix_seconds),
            Record::Document { name, bytes } => {
                if bytes.is_empty() {
                    self.documents.remove(&name);
                } else if self.may_document(&name, bytes.len()) {
                    self.documents.insert(name, bytes.into());
                }
            }
            _ => {}
        }
    }

    /// The fewest records that say all of this: a checkpoint. Blobs come in the order of their
    /// last use, so that a mount knows it.
    pub fn snapshot(&self) -> impl Iterator<Item = Record> {
        let blobs = self.blobs.by_use().map(Record::Commit);
        let partials = self.partials.values().flat_map(|partial| {
            let progress = (partial.frontier > 0).then(|| Record::Progress {
                digest: partial.record.digest,
                frontier: partial.frontier,
                midstate: partial.midstate.clone(),
                chunks_from: 0,
                chunks: partial.chunks.clone(),
                rest: partial.rest,
            });
            [Some(Record::Reserve(partial.record.clone())), progress].into_iter().flatten()
        });
        let tags = self.tags.iter();
        let tags = tags.map(|(key, digest)| Record::Tag { key: key.clone(), digest: *digest });
        let corrupt = self.corrupt.iter().map(|(digest, chunks)| Record::Rot {
            digest: *digest,
            chunks: chunks.iter().copied().collect(),
        });
        let wear = Record::Wear(self.wear.clone());
        let ledger = (!self.ledger.is_empty()).then(|| Record::Ledger(self.ledger.clone()));
        let time = self.time.map(|unix_seconds| Record::Time { unix_seconds });
        let documents = self
            .documents
            .iter()
            .map(|(name, bytes)| Record::Document { name: name.clone(), bytes: bytes.to_vec() });
        let others = [Some(wear), ledger, time].into_iter().flatten().chain(documents);
        blobs.chain(partials).chain(tags).chain(corrupt).chain(others)
    }

    /// Whether a document of so many bytes may have that name beside those there are.
    pub fn may_document(&self, name: &str, bytes: usize) -> bool {
        let has_place = self.documents.len() < DOCUMENTS_MAX || self.documents.contains_key(name);
        has_place && name.len() <= NAME_BYTES_MAX && bytes <= DOCUMENT_BYTES_MAX
    }

    /// The tags of one repository, in order.
    pub fn repository<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> impl Iterator<Item = &'a TagKey> {
        let first = TagKey {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: String::new(),
        };
        let from = self.tags.range(first..).map(|(key, _)| key);
        from.take_while(move |key| key.registry == registry && key.repository == repository)
    }

    /// The tags of one repository behind `after`, in order.
    pub fn tags_after<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
        after: &str,
    ) -> impl Iterator<Item = &'a TagKey> {
        let tag = after.to_owned();
        let last = TagKey { registry: registry.to_owned(), repository: repository.to_owned(), tag };
        let from = self.tags.range((Bound::Excluded(last), Bound::Unbounded)).map(|(key, _)| key);
        from.take_while(move |key| key.registry == registry && key.repository == repository)
    }

    /// The repository of a registry that comes next behind `after`.
    pub fn repository_after(&self, registry: &str, after: &str) -> Option<&str> {
        let repository = after.to_owned();
        // No tag has such a letter.
        let tag = char::MAX.to_string();
        let last = TagKey { registry: registry.to_owned(), repository, tag };
        let mut from = self.tags.range((Bound::Excluded(last), Bound::Unbounded));
        let (key, _) = from.next()?;
        (key.registry == registry).then_some(key.repository.as_str())
    }

    /// An upper bound of a checkpoint's bytes, with all downloads at their ends.
    pub fn snapshot_bytes(&self) -> u64 {
        let blobs: u64 = self.blobs.records().map(|blob| blob_bytes(&blob)).sum();
        let partials = self.partials.values().map(|partial| partial_bytes(&partial.record));
        let tags = self.tags.keys().map(tag_bytes);
        let corrupt = self.corrupt.values().map(|chunks| RECORD_BYTES + 5 * chunks.len() as u64);
        let wear = RECORD_BYTES + 5 * self.wear.erases.len() as u64;
        let documents = self.documents.iter().map(|(name, bytes)| document_bytes(name, bytes));
        let others = wear + TIME_BYTES + ledger_bytes(&self.ledger) + documents.sum::<u64>();
        blobs + partials.sum::<u64>() + tags.sum::<u64>() + corrupt.sum::<u64>() + others
    }
}

/// Whether a ledger has no more, and no longer, accounts than it may.
pub fn is_ledger(ledger: &[Spent]) -> bool {
    ledger.len() <= ACCOUNTS_MAX && ledger.iter().all(|spent| spent.account.len() <= NAME_BYTES_MAX)
}

/// An upper bound of what a ledger needs in a checkpoint.
pub fn ledger_bytes(ledger: &[Spent]) -> u64 {
    let accounts = ledger.iter().map(|spent| SPENT_FIXED_BYTES + spent.account.len() as u64);
    if ledger.is_empty() { 0 } else { SMALL_RECORD_BYTES + accounts.sum::<u64>() }
}

/// An upper bound of what a document needs in a checkpoint.
pub fn document_bytes(name: &str, bytes: &[u8]) -> u64 {
    SMALL_RECORD_BYTES + (name.len() + bytes.len()) as u64
}

/// An upper bound of a blob's frame: its fixed parts, its digest, size, media type and extents, of
/// which it has one at least as soon as it has its place.
pub fn blob_bytes(record: &BlobRecord) -> u64 {
    let media_type = record.media_type.as_ref().map_or(0, String::len);
    let variable = record.digest.bytes().len() + media_type;
    BLOB_FIXED_BYTES + variable as u64 + EXTENT_BYTES * record.extents.len().max(1) as u64
}

/// An upper bound of what a download needs in a checkpoint at its end.
pub fn partial_bytes(record: &BlobRecord) -> u64 {
    2 * RECORD_BYTES + blob_bytes(record) + CHUNK_HASH_BYTES * record.size.div_ceil(CHUNK_BYTES)
}

/// An upper bound of what a tag needs in a checkpoint.
pub fn tag_bytes(key: &TagKey) -> u64 {
    RECORD_BYTES + (key.registry.len() + key.repository.len() + key.tag.len()) as u64
}

impl PartialBlob {
    /// Nothing of a blob is there yet.
    pub fn new(record: BlobRecord) -> Self {
        Self { record, frontier: 0, midstate: Vec::new(), chunks: Vec::new(), rest: [0; 32] }
    }

    /// Whether a download of `size` bytes can go on from here.
    pub fn continues(&self, size: u64, geometry: Geometry) -> bool {
        let algorithm = self.record.digest.algorithm();
        let has_state = || Hasher::resume(algorithm, &self.midstate).is_some();
        self.record.size == size
            && self.frontier.is_multiple_of(u64::from(geometry.program_bytes))
            && self.chunks.len() as u64 == self.frontier / CHUNK_BYTES
            && (self.frontier == 0 || has_state())
    }

    /// Whether a record of how far the download is follows on what is known, and covers as many
    /// chunks as it must.
    fn may_advance(&self, frontier: u64, chunks_from: u32, chunks: usize) -> bool {
        let known = self.chunks.len();
        usize::try_from(chunks_from) == Ok(known)
            && (known + chunks) as u64 == frontier / CHUNK_BYTES
            && frontier > self.frontier
            && frontier <= self.record.size
    }

    /// A new reservation, which keeps of an older one of the same blob what lies in the same
    /// place, and frees where the rest was.
    fn reserved(record: BlobRecord, old: Option<Self>) -> (Self, Vec<Extent>) {
        let fresh = Self::new(record);
        let Some(old) = old else { return (fresh, Vec::new()) };
        let kept = prefix(&old.record.extents, old.frontier);
        if old.record.size == fresh.record.size
            && kept == prefix(&fresh.record.extents, old.frontier)
        {
            let freed = difference(&old.record.extents, &fresh.record.extents);
            return (Self { record: fresh.record, ..old }, freed);
        }
        let freed = difference(&old.record.extents, &fresh.record.extents);
        (fresh, freed)
    }
}

/// Room for a record's fixed parts and its frame: a sha512 digest and its midstate are the longest.
const RECORD_BYTES: u64 = 200;
/// Room for the fixed parts of a record without a digest: a frame's header, variant and lengths.
const SMALL_RECORD_BYTES: u64 = FRAME_HEADER_BYTES as u64 + 12;
/// Room for a time, which is recorded without asking for any.
const TIME_BYTES: u64 = SMALL_RECORD_BYTES;
/// Room for the length of an account's name, its period and its bytes.
const SPENT_FIXED_BYTES: u64 = 17;
/// Room for one extent.
pub const EXTENT_BYTES: u64 = 20;
/// A frame's header, then variant, algorithm, lengths, size and flags in their longest forms.
const BLOB_FIXED_BYTES: u64 = FRAME_HEADER_BYTES as u64 + 24;
