//! The one verb: make this digest present.
//!
//! Whoever asks, a digest is downloaded once: a second asker waits for the first and then finds it
//! on flash. A cut link is retried here, with backoff, from the first missing byte; the digest is
//! verified by the log before anything becomes visible.
//!
//! An image is planned first ([`Puller::plan`]: its manifests are read, so that its size is known
//! and admission can be checked), then fetched ([`Puller::fetch`]): blobs, then manifests from the
//! leaves up, and the tag last, in one record. Until that record the old image is served, after it
//! the new one, and nothing in between.

mod backoff;
pub mod board;
mod error;
mod mend;
mod notes;
mod plan;
mod walk;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use log::{info, warn};
use smol::Timer;
use smol::future::zip;
use smol::lock::Mutex;

use crate::blob::{Store, Writer};
use crate::clock::SharedClock;
use crate::fetch::{self, Pace};
use crate::kind::Kind;
use crate::link::chunk::ChunkSize;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::registry::Registry;
use crate::units::ByteCount;
use backoff::Backoff;
use board::Board;
pub use error::Error;
use notes::Notes;
use plan::PlannedManifest;
pub use plan::{Plan, PlannedBlob, SIGNATURE_TAG_SUFFIXES, tag_key};

/// What the pull engine works with.
pub struct Parts {
    /// Where blobs go.
    pub store: Store,
    /// The upstreams, by the registry's name.
    pub registries: BTreeMap<String, Registry>,
    /// The pace that all downloads share.
    pub pace: Pace,
    /// Where progress is posted.
    pub board: Board,
    /// For deadlines and rates.
    pub clock: SharedClock,
    /// For retries and mismatches.
    pub metrics: Rc<Metrics>,
    /// Uniform over all of u64: the jitter of retries.
    pub random: Rc<dyn Fn() -> u64>,
}

/// Makes digests present. Cheap to share behind one `Rc`.
pub struct Puller {
    parts: Parts,
    /// One lock a digest in flight; entries live as long as somebody holds or awaits one.
    inflight: RefCell<BTreeMap<Digest, Rc<Mutex<()>>>>,
    chunk: Cell<ChunkSize>,
}

/// Where a digest is to be had.
struct Source<'a> {
    registry: &'a Registry,
    repository: &'a str,
}

impl Puller {
    /// An engine at rest.
    pub fn new(parts: Parts) -> Self {
        Self { parts, inflight: RefCell::default(), chunk: Cell::default() }
    }

    /// Downloads what `plan` lacks and makes it visible under its tag. What had to be left out of
    /// what only accompanies the image is posted on the board.
    pub async fn fetch(&self, plan: &Plan) -> Result<(), Error> {
        let source = self.source(&plan.key.registry, &plan.key.repository)?;
        let missing = self.missing(plan);
        let bytes = missing.iter().map(|blob| blob.size).sum();
        if !missing.is_empty() {
            info!("{}: fetching {} blobs, {}", plan.name, missing.len(), ByteCount(bytes));
        }
        // What is there already must not give way to what comes.
        let wanted: Vec<Digest> = plan.digests().into_iter().collect();
        self.parts.store.pin(&wanted, true).await?;
        let queue = RefCell::new(missing.into_iter());
        let left_out = RefCell::new((BTreeSet::new(), plan.notes.clone()));
        let worker = async || -> Result<(), Error> {
            loop {
                let Some(blob) = queue.borrow_mut().next() else { return Ok(()) };
                match self.blob(&source, &plan.name, &blob).await {
                    Ok(()) => {}
                    Err(error) if !blob.required => {
                        let (absent, notes) = &mut *left_out.borrow_mut();
                        absent.insert(blob.digest);
                        notes.add(error.to_string());
                    }
                    Err(error) => {
                        // The others finish the blob they are at and stop.
                        while queue.borrow_mut().next().is_some() {}
                        return Err(error);
                    }
                }
            }
        };
        let fetched = if self.parts.pace.is_limited() {
            worker().await
        } else {
            let (first, (second, third)) = zip(worker(), zip(worker(), worker())).await;
            first.and(second).and(third)
        };
        // Whatever became of the others, what arrived whole stays.
        let settled = self.parts.store.settle().await;
        fetched?;
        settled?;
        self.mend(&source, plan).await?;
        let (absent, notes) = left_out.into_inner();
        for manifest in plan.manifests_without(&absent) {
            self.hold(manifest).await?;
        }
        self.parts.store.pin(&wanted, true).await?;
        // A signature that was left out has no tag.
        let is_held = |digest: &Digest| {
            self.parts.store.entry(digest).is_some_and(|entry| entry.media_type.is_some())
        };
        let tags = plan.tags().filter(|(_, digest)| is_held(digest));
        for (key, digest) in tags {
            if self.parts.store.tag(key) != Some(*digest) {
                self.parts.store.set_tag(key, digest).await?;
            }
        }
        if !notes.is_empty() {
            warn!("{}: held without what accompanies it: {}", plan.name, notes.lines().join("; "));
        }
        self.parts.board.update(&plan.name, |image| image.missing = notes.lines());
        Ok(())
    }

    /// Puts a planned manifest into the store, or what is there already under its media type.
    async fn hold(&self, manifest: &PlannedManifest) -> Result<(), Error> {
        let PlannedManifest { digest, media_type, bytes, .. } = manifest;
        match bytes {
            Some(bytes) => self.parts.store.put(digest, bytes, Some(media_type)).await?,
            None => self.parts.store.set_media_type(digest, media_type).await?,
        }
        Ok(())
    }

    /// Blobs that `plan` needs and the store does not have, each once, in the manifests' order.
    pub fn missing(&self, plan: &Plan) -> Vec<PlannedBlob> {
        let lacks = |blob: &&PlannedBlob| !self.parts.store.is_whole(&blob.digest);
        plan.blobs.iter().filter(lacks).copied().collect()
    }

    fn source<'a>(&'a self, registry: &str, repository: &'a str) -> Result<Source<'a>, Error> {
        match self.parts.registries.get(registry) {
            Some(registry) => Ok(Source { registry, repository }),
            None => Err(Error::new(Kind::Invalid, registry, "no [[upstream]] has this registry")),
        }
    }

    /// Makes one blob whole: from the store, by joining a download, or by downloading. It is held
    /// once the store is settled.
    async fn blob(
        &self,
        source: &Source<'_>,
        image: &str,
        wanted: &PlannedBlob,
    ) -> Result<(), Error> {
        let lock = Rc::clone(self.inflight.borrow_mut().entry(wanted.digest).or_default());
        let guard = lock.lock().await;
        let outcome = if self.parts.store.is_whole(&wanted.digest) {
            Ok(())
        } else {
            self.parts.board.begin(wanted.digest, image);
            let outcome = self.download(source, wanted).await;
            self.parts.board.end(&wanted.digest);
            outcome.map_err(|error| {
                error.about(format!("{}/{}", source.registry.name(), source.repository))
            })
        };
        drop(guard);
        // Two are left: this one and the map's.
        if Rc::strong_count(&lock) == 2 {
            self.inflight.borrow_mut().remove(&wanted.digest);
        }
        outcome
    }

    async fn download(&self, source: &Source<'_>, wanted: &PlannedBlob) -> Result<(), Error> {
        let mut backoff = if wanted.required { Backoff::default() } else { Backoff::brief() };
        let mut refetched = false;
        loop {
            let mut writer = self.parts.store.writer(&wanted.digest, wanted.size, None).await?;
            writer.pin();
            let begun_at = writer.frontier();
            let error = match self.stream(source, wanted, &mut writer).await {
                Ok(()) => match writer.finish().await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.kind() == Kind::Corrupt && !refetched => {
                        refetched = true;
                        self.parts.metrics.fetch_digest_mismatches.add(1);
                        self.parts.metrics.fetch_repeated_bytes.add(wanted.size);
                        let Source { registry, repository } = source;
                        let from = format!("{}/{repository}", registry.name());
                        warn!("{from}: {error}; fetching it once more from the beginning");
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                },
                Err(error) => {
                    if writer.frontier() >= begun_at + PROGRESS_BYTES {
                        backoff.progress();
                    }
                    writer.suspend().await?;
                    error
                }
            };
            self.back_off(&mut backoff, error).await?;
        }
    }

    /// Requests chunk after chunk until the writer has all bytes.
    async fn stream(
        &self,
        source: &Source<'_>,
        wanted: &PlannedBlob,
        writer: &mut Writer,
    ) -> Result<(), Error> {
        while writer.frontier() < wanted.size {
            let start = writer.frontier();
            let end = (start + self.chunk.get().bytes()).min(wanted.size);
            let began = self.parts.clock.monotonic();
            let outcome = self.chunk(source, wanted, writer, start..end).await;
            let mut chunk = self.chunk.get();
            let span = self.parts.clock.monotonic().saturating_sub(began);
            match &outcome {
                Ok(()) => chunk.went_through(writer.frontier() - start, span),
                Err(_) => chunk.was_cut(),
            }
            self.chunk.set(chunk);
            outcome?;
        }
        Ok(())
    }

    async fn chunk(
        &self,
        source: &Source<'_>,
        wanted: &PlannedBlob,
        writer: &mut Writer,
        range: std::ops::Range<u64>,
    ) -> Result<(), Error> {
        let Source { registry, repository } = source;
        let last = range.end - 1;
        let digest = &wanted.digest;
        let mut opened = registry.blob(repository, digest, range.start, last, wanted.size).await?;
        let mut end = range.end;
        if !opened.honoured {
            // The whole blob comes, whatever was asked for. Taking all of it is the cheapest way
            // on: stopping would only mean paying for the same beginning again.
            end = wanted.size;
            if range.start > 0 {
                let again = ByteCount(range.start);
                warn!("{}: Range ignored, {again} of {digest} come again", registry.name());
            }
        }
        let arrived = |bytes| {
            self.parts.board.arrived(digest, bytes, self.parts.clock.monotonic());
        };
        let pace = &self.parts.pace;
        fetch::copy(&mut opened.body, opened.start, writer, end, pace, arrived).await?;
        Ok(())
    }

    /// Waits before another attempt if `error` calls for one, else gives it back.
    async fn back_off(&self, backoff: &mut Backoff, error: Error) -> Result<(), Error> {
        if error.kind() != Kind::Retry {
            return Err(error);
        }
        match backoff.next((self.parts.random)(), error.retry_after()) {
            Some(wait) => {
                self.parts.metrics.fetch_retries.add(1);
                warn!("{error}; trying again in {}", crate::units::format_duration(wait));
                Timer::after(wait).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Does `attempt` until it works, is refused, or was tried often enough.
    async fn retrying<T>(
        &self,
        attempt: impl AsyncFnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.retrying_with(Backoff::default(), attempt).await
    }

    async fn retrying_with<T>(
        &self,
        mut backoff: Backoff,
        mut attempt: impl AsyncFnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => self.back_off(&mut backoff, error).await?,
            }
        }
    }
}

/// Progress that proves a link works.
const PROGRESS_BYTES: u64 = 1 << 20;
