//! The workload, and the model of what it promises.

use std::collections::{BTreeMap, BTreeSet};

use moonlet::blob::{Store, TagKey};
use moonlet::oci::Digest;

/// One thing done to the log, acknowledged as a whole.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Holds blob `.0` whole, pinned.
    Put(usize),
    /// Holds all of [`SMALL`], put at the same time, pinned.
    PutSmall,
    /// Holds these blobs, pinned: each is finished, and all are flushed at the end, as an image is
    /// pulled.
    Pull(&'static [usize]),
    /// Writes blob `.0` up to byte `.1` and suspends.
    Begin(usize, usize),
    /// Makes tag `.0` mean blob `.1`.
    Tag(&'static str, usize),
    /// Makes a tag mean nothing.
    Untag(&'static str),
    /// Drops a blob.
    Delete(usize),
    /// Pins a blob.
    Pin(usize),
    /// Uses at most `.0` segments beside META.
    Fit(u32),
    /// Makes a document say so many bytes; none, and it is gone.
    Document(&'static str, usize),
    /// Records what was spent.
    Spend(u64),
    /// Unmounts and mounts again.
    Remount,
}

/// Sizes of the blobs: around units, chunks and segments, and two that take several syncs; then
/// those of [`churn`]; then small ones, which share units, or do not on NOR.
pub const SIZES: [usize; 29] = [
    100, 4096, 700_001, 2_400_000, 0, 262_144, 1_300_000, 5000, 262_145, 30_000, 30_001, 30_002,
    30_003, 30_004, 30_005, 30_006, 30_007, 30_008, 30_009, 60_000, 120_000, 90, 200, 700, 1000,
    1500, 40, 3000, 250,
];

/// The small ones. They fill a unit of an eMMC and begin another.
pub const SMALL: std::ops::Range<usize> = 21..29;
/// A blob shorter than this may be in memory until it is whole.
const UNIT_BYTES_MAX: usize = 4096;

/// Blobs that come and go, tags that move, a download that is suspended and resumed, room used
/// again, and enough records for several checkpoints on the smaller shapes.
pub fn workload() -> Vec<Step> {
    use Step::*;
    let mut steps = vec![
        Put(0),
        Put(1),
        Tag("a", 0),
        Begin(3, 1_500_000),
        Put(2),
        Tag("a", 1),
        Pin(1),
        Delete(0),
        Put(4),
        Put(3),
        Tag("b", 3),
        Put(0),
        Tag("c", 0),
        Untag("b"),
        Delete(3),
        Begin(6, 1_200_000),
        Remount,
        Put(5),
        Put(6),
        Tag("b", 6),
        Delete(2),
        Put(7),
        PutSmall,
        Delete(22),
        Delete(25),
        Put(8),
        PutSmall,
        Tag("a", 8),
        Delete(23),
        Delete(1),
        Begin(3, 2_200_000),
        Delete(3),
        Delete(6),
        Pull(&[2, 27, 6, 10]),
        Document("x", 3000),
        Document("y", 9),
        Spend(7),
        Document("x", 0),
        Spend(8),
        Delete(2),
    ];
    for _ in 0..3 {
        steps.extend([Put(3), Tag("d", 3), Untag("d"), Delete(3)]);
    }
    steps
}

/// Fills a device of five usable segments of 64 KiB with blobs that share segments, and takes some
/// away, so that what comes next finds room only where something is copied first.
pub fn churn() -> Vec<Step> {
    use Step::*;
    let mut steps: Vec<Step> = (9..19).map(Put).collect();
    steps.extend([Tag("a", 9), Pin(11), Delete(10), Delete(12), Delete(14), Delete(16)]);
    steps.extend([Put(19), Tag("b", 19), Remount, Begin(10, 20_000), Delete(13)]);
    steps.extend([Delete(11), Delete(15), Put(10), Put(20), Delete(20), Pull(&[12, 14])]);
    steps.extend([Delete(9), Delete(19), Fit(5), Put(13), Fit(4)]);
    steps.extend([Delete(10), Delete(12), Delete(13), Delete(14), Remount, Put(20), Fit(4)]);
    steps
}

/// As [`churn`], with small blobs in the segments that are emptied.
pub fn small_churn() -> Vec<Step> {
    use Step::*;
    let mut steps = vec![PutSmall];
    steps.extend((9..18).map(Put));
    steps.extend([Tag("a", 21), Delete(9), Delete(24), Delete(10), Delete(12), Delete(14)]);
    steps.extend([Delete(16), Put(20), Delete(22), Delete(20), PutSmall, Remount, Put(19)]);
    steps.extend([Delete(11), Delete(13), Delete(23), Put(20), PutSmall, Delete(20), Fit(5)]);
    steps
}

/// Few operations, of every kind: for what is tried in pairs.
pub fn brief() -> Vec<Step> {
    use Step::*;
    vec![
        Put(9),
        Tag("a", 9),
        Begin(20, 70_000),
        Put(0),
        Tag("a", 0),
        Delete(9),
        Pull(&[10, 20]),
        Pin(10),
        Document("x", 5),
        Delete(0),
        Put(9),
    ]
}

/// Bytes of blob `index`, the same in every run, and unlike those of any other.
pub fn bytes(index: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32.wrapping_mul(index as u32 + 1) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    std::iter::repeat_with(next).take(SIZES[index]).collect()
}

/// All blobs of the workload.
pub struct Blobs {
    pub bytes: Vec<Vec<u8>>,
    pub digests: Vec<Digest>,
}

impl Blobs {
    /// Made once, used by every run.
    pub fn new() -> Self {
        let bytes: Vec<_> = (0..SIZES.len()).map(bytes).collect();
        let digests = bytes.iter().map(|bytes| Digest::sha256(bytes)).collect();
        Self { bytes, digests }
    }

    /// Which blob it is.
    pub fn index(&self, digest: &Digest) -> usize {
        self.digests.iter().position(|known| known == digest).expect("a blob of the workload")
    }
}

/// What was promised before the step that was cut, and what after it.
pub fn models(steps: &[Step], done: usize) -> (Model, Model) {
    let before = steps.iter().take(done).fold(Model::default(), |model, step| model.after(*step));
    let after = steps.get(done).map_or_else(|| before.clone(), |step| before.after(*step));
    (before, after)
}

/// What has been promised.
#[derive(Clone, Default, Debug)]
pub struct Model {
    pub held: BTreeSet<usize>,
    /// First missing byte that a suspended download may not fall behind.
    pub begun: BTreeMap<usize, usize>,
    pub tags: BTreeMap<&'static str, usize>,
    pub pinned: BTreeSet<usize>,
    /// What came as a part of an image.
    pub pulled: BTreeSet<usize>,
    pub documents: BTreeMap<&'static str, usize>,
    pub spent: u64,
}

impl Model {
    /// The blobs that are promised here and in another.
    pub fn held_both(&self, other: &Self) -> BTreeSet<usize> {
        self.held.intersection(&other.held).copied().collect()
    }

    /// How many of the blobs that are promised here and in `other` are not `served`; those that
    /// may lie in the same unit, or have their Commits there, are one.
    pub fn missing(&self, other: &Self, served: &BTreeSet<usize>) -> usize {
        let missing = &self.held_both(other) - served;
        let shares = |blob: &usize| SIZES[*blob] < UNIT_BYTES_MAX || self.pulled.contains(blob);
        let (sharing, others): (Vec<usize>, Vec<usize>) =
            missing.into_iter().partition(|blob| shares(blob));
        others.len() + usize::from(!sharing.is_empty())
    }

    /// What is to be expected from here on, when `store` shows which of the two it is.
    pub fn observed(&self, after: &Self, store: &Store, blobs: &Blobs) -> Self {
        let mut seen = self.clone();
        let is_held = |blob: &usize| store.entry(&blobs.digests[*blob]).is_some();
        seen.held = self.held.union(&after.held).copied().filter(is_held).collect();
        let is_pinned =
            |blob: &usize| store.entry(&blobs.digests[*blob]).is_some_and(|entry| entry.pinned);
        seen.pinned = seen.held.iter().copied().filter(is_pinned).collect();
        let tags = self.tags.keys().chain(after.tags.keys());
        let meaning = |tag: &&'static str| {
            let digest = store.tag(&key(tag))?;
            Some((*tag, blobs.index(&digest)))
        };
        seen.tags = tags.filter_map(meaning).collect();
        let documents = self.documents.keys().chain(after.documents.keys());
        seen.documents = documents.map(|name| (*name, document_bytes(store, name))).collect();
        seen.spent = spent(store);
        seen.begun.clear();
        for partial in store.partials() {
            seen.begun.insert(blobs.index(&partial.digest), partial.frontier as usize);
        }
        seen
    }

    /// When every download is finished.
    pub fn finished(&self) -> Self {
        self.begun.keys().fold(self.clone(), |model, blob| model.after(Step::Put(*blob)))
    }

    /// After `step` was acknowledged.
    pub fn after(&self, step: Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Put(blob) => {
                next.held.insert(blob);
                next.pinned.insert(blob);
                next.begun.remove(&blob);
            }
            Step::PutSmall => next = SMALL.fold(next, |model, blob| model.after(Step::Put(blob))),
            Step::Pull(blobs) => {
                next = blobs.iter().fold(next, |model, blob| model.after(Step::Put(*blob)));
                next.pulled.extend(blobs);
            }
            Step::Begin(blob, end) => {
                if !next.held.contains(&blob) && SIZES[blob] >= UNIT_BYTES_MAX {
                    let begun = next.begun.entry(blob).or_default();
                    *begun = end.max(*begun);
                }
            }
            Step::Tag(tag, blob) => {
                next.tags.insert(tag, blob);
            }
            Step::Untag(tag) => {
                next.tags.remove(tag);
            }
            Step::Delete(blob) => {
                next.held.remove(&blob);
                next.begun.remove(&blob);
                next.pinned.remove(&blob);
                next.pulled.remove(&blob);
                next.tags.retain(|_, tagged| *tagged != blob);
            }
            Step::Pin(blob) => {
                next.pinned.insert(blob);
            }
            Step::Document(name, bytes) => {
                next.documents.insert(name, bytes);
            }
            Step::Spend(bytes) => next.spent = bytes,
            Step::Fit(_) | Step::Remount => {}
        }
        next
    }
}

/// A tag as the workload names it.
pub fn key(tag: &str) -> TagKey {
    let (registry, repository) = ("registry.example".to_owned(), "app/web".to_owned());
    TagKey { registry, repository, tag: tag.to_owned() }
}

/// Of a document; 0 when there is none.
pub fn document_bytes(store: &Store, name: &str) -> usize {
    store.document(name).map_or(0, |bytes| bytes.len())
}

/// In all accounts.
pub fn spent(store: &Store) -> u64 {
    store.ledger().iter().map(|spent| spent.bytes).sum()
}
