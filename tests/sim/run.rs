//! Doing a workload on a simulated device: to its end, in spite of failures, or with the power cut.

use std::rc::Rc;
use std::sync::Arc;

use moonlet::blob::format::meta_segments;
use moonlet::blob::{Error, MountReport, Spent, Store};
use moonlet::flash::sim::Device;
use moonlet::flash::{Device as _, Geometry};
use moonlet::kind::Kind;
use moonlet::metrics::Metrics;
use moonlet::oci::Digest;

use crate::model::{Blobs, SMALL, Step, key};

/// Mounts `device`.
pub fn mount(device: &Arc<Device>) -> Result<(Store, MountReport), Error> {
    Store::open(Arc::clone(device) as _, Rc::new(Metrics::default()))
}

/// Does `steps` in order; returns the number acknowledged.
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

/// Does all of `steps`, trying again what fails for a reason that passes; returns the number of
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
/// writing, and does those again that failed; returns the number of times that happened.
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

/// Finishes every download that the log knows of, and returns the blobs.
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
