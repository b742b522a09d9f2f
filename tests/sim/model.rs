//! The workload, the model of what it promises, and the check of a mounted log against both.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use moonlet::blob::format::meta_segments;
use moonlet::blob::{Error, MountReport, Spent, Store, TagKey};
use moonlet::flash::sim::Device;
use moonlet::flash::{Device as _, Geometry};
use moonlet::kind::Kind;
use moonlet::metrics::Metrics;
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
    /// Gives a blob up.
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
    bytes: Vec<Vec<u8>>,
    digests: Vec<Digest>,
}

impl Blobs {
    /// Made once, used by every run.
    pub fn new() -> Self {
        let bytes: Vec<_> = (0..SIZES.len()).map(bytes).collect();
        let digests = bytes.iter().map(|bytes| Digest::sha256(bytes)).collect();
        Self { bytes, digests }
    }

    fn index(&self, digest: &Digest) -> usize {
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
    held: BTreeSet<usize>,
    /// First missing byte that a suspended download may not fall behind.
    begun: BTreeMap<usize, usize>,
    tags: BTreeMap<&'static str, usize>,
    pinned: BTreeSet<usize>,
    /// What came as a part of an image.
    pulled: BTreeSet<usize>,
    documents: BTreeMap<&'static str, usize>,
    spent: u64,
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

/// Mounts `device`.
pub fn mount(device: &Arc<Device>) -> Result<(Store, MountReport), Error> {
    Store::open(Arc::clone(device) as _, Rc::new(Metrics::default()))
}

/// Does `steps` in order; gives the number acknowledged.
pub fn run(device: &Arc<Device>, blobs: &Blobs, steps: &[Step]) -> usize {
    run_noting(device, blobs, steps, |_| {})
}

/// As [`run`]; calls `after` with the number of steps each time one is acknowledged.
pub fn run_noting(
    device: &Arc<Device>,
    blobs: &Blobs,
    steps: &[Step],
    mut after: impl FnMut(usize),
) -> usize {
    let Ok((mut store, _)) = mount(device) else { return 0 };
    for (done, step) in steps.iter().enumerate() {
        let outcome = match step {
            Step::Remount => {
                let used = store.stat().used_bytes;
                drop(store);
                match mount(device) {
                    Ok((mounted, _)) => {
                        store = mounted;
                        assert_eq!(store.stat().used_bytes, used, "room that nothing names");
                    }
                    Err(_) => return done,
                }
                after(done + 1);
                continue;
            }
            step => smol::block_on(apply(&store, blobs, *step, device.geometry())),
        };
        if let Err(error) = outcome {
            assert_ne!(error.kind(), Kind::Invalid, "{step:?}: {error}");
            return done;
        }
        after(done + 1);
    }
    steps.len()
}

/// Does all of `steps`, trying again what fails for a reason that passes; gives the number of
/// times that something did.
pub fn run_stubbornly(device: &Arc<Device>, blobs: &Blobs, steps: &[Step], what: &str) -> usize {
    let mut failures = 0;
    let mut mounted = None;
    for step in steps {
        if mounted.is_none() || matches!(step, Step::Remount) {
            drop(mounted.take());
            mounted = Some(loop {
                match mount(device) {
                    Ok((store, _)) => break store,
                    Err(error) => note(device, &error, &mut failures, what),
                }
            });
        }
        let Some(store) = &mounted else { continue };
        while let Err(error) = smol::block_on(apply(store, blobs, *step, device.geometry())) {
            note(device, &error, &mut failures, &format!("{what}: {step:?}"));
        }
    }
    failures
}

/// Does all of `steps` in one store, which is mounted again by itself whenever an error has ended
/// writing, and does those again that failed; gives the number of times that happened.
pub fn run_remounting(device: &Arc<Device>, blobs: &Blobs, steps: &[Step], what: &str) -> usize {
    let (store, _) = mount(device).unwrap();
    let mut remounts = 0;
    for step in steps {
        while let Err(error) = smol::block_on(apply(&store, blobs, *step, device.geometry())) {
            assert!(remounts < FAILURES_MAX, "{what}: {step:?}: {error}");
            remounts += 1;
            smol::block_on(store.remount()).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
    remounts
}

fn note(device: &Device, error: &Error, failures: &mut usize, what: &str) {
    let passes = matches!(error.kind(), Kind::Retry | Kind::Full);
    assert!(passes && *failures < FAILURES_MAX, "{what}: failure {failures}: {error}");
    *failures += 1;
    device.fill_up_after(u64::MAX);
}

/// More than a few bad segments can cause.
const FAILURES_MAX: usize = 40;

/// One run of a workload, from which the power may have gone at any operation.
pub struct Trace {
    device: Arc<Device>,
    /// Operations after which each step was acknowledged.
    ends: Vec<u64>,
}

impl Trace {
    /// Runs `steps` on `device`, which must not fail.
    pub fn new(device: Arc<Device>, blobs: &Blobs, steps: &[Step]) -> Self {
        device.remember();
        let begun = device.operations();
        let mut ends = Vec::new();
        let done = run_noting(&device, blobs, steps, |_| ends.push(device.operations() - begun));
        assert_eq!(done, steps.len(), "the workload, without a cut");
        Self { device, ends }
    }

    /// Operations in all.
    pub fn operations(&self) -> usize {
        (0..).find(|cut| self.device.at(*cut).is_none()).unwrap_or(0)
    }

    /// The device when the power went at an operation, and how many steps were acknowledged.
    pub fn cut(&self, operation: usize) -> Option<(Device, usize)> {
        let done = self.ends.iter().take_while(|end| **end <= operation as u64).count();
        Some((self.device.at(operation)?, done))
    }
}

async fn apply(store: &Store, blobs: &Blobs, step: Step, geometry: Geometry) -> Result<(), Error> {
    match step {
        Step::Put(blob) => {
            let media_type =
                (blob % 2 == 0).then_some("application/vnd.oci.image.manifest.v1+json");
            put(store, &blobs.digests[blob], &blobs.bytes[blob], media_type).await
        }
        Step::PutSmall => put_small(store, blobs).await,
        Step::Pull(pulled) => {
            for blob in pulled {
                if store.is_whole(&blobs.digests[*blob]) {
                    store.pin(&[blobs.digests[*blob]], true).await?;
                } else {
                    finish(store, &blobs.digests[*blob], &blobs.bytes[*blob], None).await?;
                }
            }
            store.flush().await
        }
        Step::Begin(blob, end) => {
            if store.entry(&blobs.digests[blob]).is_some() {
                return Ok(());
            }
            let bytes = &blobs.bytes[blob];
            let mut writer = store.writer(&blobs.digests[blob], bytes.len() as u64, None).await?;
            let from = writer.frontier() as usize;
            for piece in bytes[from.min(end)..end].chunks(50_000) {
                writer.write(piece).await?;
            }
            writer.suspend().await
        }
        Step::Tag(tag, blob) => store.set_tag(&key(tag), &blobs.digests[blob]).await,
        Step::Untag(tag) => store.remove_tag(&key(tag)).await,
        Step::Delete(blob) => {
            // As a collector does: no tag may be left behind.
            for (key, digest) in store.tags() {
                if digest == blobs.digests[blob] {
                    store.remove_tag(&key).await?;
                }
            }
            store.delete(&[blobs.digests[blob]]).await
        }
        Step::Pin(blob) => store.pin(&[blobs.digests[blob]], true).await,
        Step::Fit(segments) => {
            let segments = meta_segments(geometry) + segments;
            let size_max = u64::from(segments) * u64::from(geometry.segment_bytes);
            assert!(store.resize(size_max).await?, "everything fits {segments} segments");
            Ok(())
        }
        Step::Document(name, bytes) => store.set_document(name, &vec![b'd'; bytes]).await,
        Step::Spend(bytes) => store.set_ledger(ledger(bytes)).await,
        Step::Remount => Ok(()),
    }
}

fn ledger(bytes: u64) -> Vec<Spent> {
    vec![Spent { account: "link/day".to_owned(), period: 1, bytes }]
}

/// As they arrive over several connections.
async fn put_small(store: &Store, blobs: &Blobs) -> Result<(), Error> {
    let executor = smol::LocalExecutor::new();
    let tasks = SMALL.map(|blob| {
        let (digest, bytes) = (&blobs.digests[blob], &blobs.bytes[blob]);
        executor.spawn(put(store, digest, bytes, None))
    });
    let tasks: Vec<_> = tasks.collect();
    executor
        .run(async {
            let mut outcome = Ok(());
            for task in tasks {
                outcome = outcome.and(task.await);
            }
            outcome
        })
        .await
}

async fn put(
    store: &Store,
    digest: &Digest,
    bytes: &[u8],
    media_type: Option<&str>,
) -> Result<(), Error> {
    if store.entry(digest).is_some() || bytes.len() < 10_000 {
        store.put(digest, bytes, media_type).await?;
        return store.pin(&[*digest], true).await;
    }
    finish(store, digest, bytes, media_type).await?;
    store.flush().await
}

async fn finish(
    store: &Store,
    digest: &Digest,
    bytes: &[u8],
    media_type: Option<&str>,
) -> Result<(), Error> {
    let mut writer = store.writer(digest, bytes.len() as u64, media_type).await?;
    writer.pin();
    let from = writer.frontier() as usize;
    for piece in bytes[from..].chunks(65_000) {
        writer.write(piece).await?;
    }
    writer.finish().await
}

/// Compares a mounted log with what was promised before and after the step that was cut. Gives
/// the first breach.
pub fn check(store: &Store, blobs: &Blobs, before: &Model, after: &Model) -> Result<(), String> {
    for digest in store.digests() {
        let entry = store.entry(&digest).ok_or("listed and not held")?;
        let blob = blobs.index(&entry.digest);
        if !before.held.contains(&blob) && !after.held.contains(&blob) {
            return Err(format!("blob {blob} is held and was never acknowledged"));
        }
        let mut found = vec![0; blobs.bytes[blob].len()];
        let reader = store.reader(&digest).map_err(|error| error.to_string())?;
        reader.read_at(0, &mut found).map_err(|error| error.to_string())?;
        if found != blobs.bytes[blob] {
            return Err(format!("blob {blob} has wrong bytes"));
        }
        let (pinned, promised) = (entry.pinned, before.pinned.contains(&blob));
        let is_new = !before.held.contains(&blob);
        if pinned != promised && pinned != after.pinned.contains(&blob) && !is_new {
            return Err(format!("blob {blob}: pinned {pinned}"));
        }
    }
    // What a cut kept from being pinned may give way to what comes.
    let promised = |blob: &&usize| before.pinned.contains(blob);
    for blob in before.held.intersection(&after.held).filter(promised) {
        if store.entry(&blobs.digests[*blob]).is_none() {
            return Err(format!("blob {blob} was acknowledged and is gone"));
        }
    }
    for tag in before.tags.keys().chain(after.tags.keys()) {
        let found = store.tag(&key(tag)).map(|digest| blobs.index(&digest));
        if found != before.tags.get(tag).copied() && found != after.tags.get(tag).copied() {
            return Err(format!("tag {tag} means {found:?}"));
        }
    }
    check_notes(store, before, after)?;
    for partial in store.partials() {
        let blob = blobs.index(&partial.digest);
        let promised = before.begun.get(&blob).filter(|_| after.begun.contains_key(&blob));
        // Less than a unit is kept in memory only.
        if promised.is_some_and(|end| partial.frontier + 4096 < *end as u64) {
            return Err(format!("blob {blob} begins again at {}", partial.frontier));
        }
    }
    for (blob, end) in &before.begun {
        let is_there = store.partials().iter().any(|p| p.digest == blobs.digests[*blob]);
        if *end > 0 && after.begun.contains_key(blob) && !is_there {
            return Err(format!("blob {blob} was suspended and is gone"));
        }
    }
    Ok(())
}

fn check_notes(store: &Store, before: &Model, after: &Model) -> Result<(), String> {
    for name in before.documents.keys().chain(after.documents.keys()) {
        let found = document_bytes(store, name);
        let promised = [before, after].map(|model| model.documents.get(name).copied().unwrap_or(0));
        if !promised.contains(&found) {
            return Err(format!("document {name} has {found} bytes, expected {promised:?}"));
        }
    }
    let spent = spent(store);
    if ![before.spent, after.spent].contains(&spent) {
        return Err(format!("{spent} bytes spent, expected {} or {}", before.spent, after.spent));
    }
    Ok(())
}

fn document_bytes(store: &Store, name: &str) -> usize {
    store.document(name).map_or(0, |bytes| bytes.len())
}

fn spent(store: &Store) -> u64 {
    store.ledger().iter().map(|spent| spent.bytes).sum()
}

/// The blobs of which every byte is served; what is served of the others is right, too.
pub fn check_served(store: &Store, blobs: &Blobs) -> Result<BTreeSet<usize>, String> {
    let mut whole = BTreeSet::new();
    for digest in store.digests() {
        let blob = blobs.index(&digest);
        // As the background does before anyone is served what was written before the cut.
        let checking = smol::block_on(store.check(&digest));
        let mut checking = checking.map_err(|error| error.to_string())?;
        while smol::block_on(checking.step()).is_some() {}
        let corrupt = checking.corrupt().clone();
        let reader = store.reader(&digest).map_err(|error| error.to_string())?;
        let mut at = 0;
        for (chunk, expected) in (0..).zip(chunks(&blobs.bytes[blob])) {
            let mut found = vec![0; expected.len()];
            let is_right = reader.read_at(at, &mut found).is_ok() && found == expected;
            if !is_right && !corrupt.contains(&chunk) {
                return Err(format!("blob {blob}: chunk {chunk} is wrong and passes for right"));
            }
            at += expected.len() as u64;
        }
        if corrupt.is_empty() {
            whole.insert(blob);
        }
    }
    Ok(whole)
}

fn chunks(bytes: &[u8]) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(moonlet::blob::format::CHUNK_BYTES as usize)
}

/// Whether everything that is held has the right bytes, and every tag a blob; gives the number
/// held.
pub fn check_bytes(store: &Store, blobs: &Blobs) -> Result<usize, String> {
    for digest in store.digests() {
        let found = store.read_all(&digest, u64::MAX).map_err(|error| error.to_string())?;
        let blob = blobs.index(&digest);
        if found != blobs.bytes[blob] {
            return Err(format!("blob {blob} has wrong bytes"));
        }
    }
    for (key, digest) in store.tags() {
        if store.entry(&digest).is_none() {
            return Err(format!("{key} means nothing that is held"));
        }
    }
    Ok(store.digests().len())
}

/// Finishes every download that the log knows of: what is on flash must fit what comes.
pub fn finish_partials(store: &Store, blobs: &Blobs) -> Result<(), String> {
    for blob in resume_partials(store, blobs)? {
        let found = store.read_all(&blobs.digests[blob], u64::MAX);
        if found.map_err(|error| error.to_string())? != blobs.bytes[blob] {
            return Err(format!("blob {blob} was resumed: wrong bytes"));
        }
    }
    Ok(())
}

/// Finishes every download that the log knows of, and gives the blobs.
pub fn resume_partials(store: &Store, blobs: &Blobs) -> Result<Vec<usize>, String> {
    let mut resumed = Vec::new();
    for partial in store.partials() {
        let blob = blobs.index(&partial.digest);
        let outcome = smol::block_on(put(store, &partial.digest, &blobs.bytes[blob], None));
        outcome.map_err(|error| format!("blob {blob} resumed at {}: {error}", partial.frontier))?;
        resumed.push(blob);
    }
    Ok(resumed)
}

fn key(tag: &str) -> TagKey {
    let (registry, repository) = ("registry.example".to_owned(), "app/web".to_owned());
    TagKey { registry, repository, tag: tag.to_owned() }
}
