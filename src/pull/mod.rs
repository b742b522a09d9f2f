//! The one verb: make this digest present.
//!
//! A digest is downloaded once, by a task of its own that all who ask share, an image or a client.
//! A cut link is retried here, with backoff, from the first missing byte; the digest is verified by
//! the log before anything becomes visible. Any number of images may be fetched at the same time:
//! their downloads share the link's slots, and none keeps one while it backs off.
//!
//! When a stop is asked for, whatever waits for the link returns, and each download is suspended:
//! what has arrived is on flash then, and is not fetched again.
//!
//! An image is planned first ([`Puller::plan`]: its manifests are read, so that its size is known
//! and admission can be checked), then fetched ([`Puller::fetch`]): blobs, then manifests from the
//! leaves up, and the tag last, in one record. Until that record the old image is served, after it
//! the new one, and nothing in between. Where the configuration wants a signature, it is checked
//! before the first layer.

mod backoff;
mod current;
mod download;
mod error;
mod flight;
mod notes;
mod plan;
pub mod progress;
mod refusals;
mod repair;
#[cfg(feature = "verify")]
mod signed;
#[cfg(not(feature = "verify"))]
#[path = "unsigned.rs"]
mod signed;
mod slots;
mod through;
mod walk;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use log::{info, warn};
use smol::future::zip;
use smol::lock::Mutex;

use crate::blob::{Store, TagKey, Want};
use crate::clock::SharedClock;
use crate::config::{PullThrough, Verify};
use crate::fetch::{Latch, Terms};
use crate::kind::Kind;
use crate::link::chunk::ChunkSize;
use crate::metrics::Metrics;
use crate::oci::Digest;
use crate::registry::Registry;
use crate::units::ByteCount;
use backoff::Backoff;
use download::Asker;
pub use download::Spawner;
pub use error::Error;
pub use flight::Download;
use flight::Flight;
use notes::Notes;
use plan::PlannedManifest;
use plan::SIGNATURE_TAG_SUFFIXES;
pub use plan::{
    Plan, PlannedBlob, is_companion_tag, is_staged_tag, signed_digest, staged_key, tag_key,
};
use progress::Progress;
use slots::Slots;
use through::Asked;
pub use through::Tagged;

/// What the pull engine works with.
pub struct Parts {
    /// Where blobs go.
    pub store: Store,
    /// The upstreams, by the registry's name; the satellite changes them.
    pub registries: Registries,
    /// What clients may have fetched from them, by the registry's name.
    pub policies: Policies,
    /// Which images must be signed.
    pub verify: Rules,
    /// Starts downloads.
    pub spawn: Spawner,
    /// What all downloads are bound to.
    pub terms: Terms,
    /// Where progress is posted.
    pub progress: Progress,
    /// For deadlines and rates.
    pub clock: SharedClock,
    /// For retries and mismatches.
    pub metrics: Rc<Metrics>,
    /// Uniform over all of u64: the jitter of retries.
    pub random: Rc<dyn Fn() -> u64>,
}

/// Upstreams by the registry's name, shared and changeable.
pub type Registries = Rc<RefCell<BTreeMap<String, Registry>>>;

/// Those of them that clients' misses are fetched from, shared and changeable.
pub type Policies = Rc<RefCell<BTreeMap<String, PullThrough>>>;

/// Which images must be signed, shared and changeable; the first rule that covers one counts.
pub type Rules = Rc<RefCell<Vec<Verify>>>;

/// Makes digests present. Cheap to share behind one `Rc`.
pub struct Puller {
    parts: Parts,
    /// The downloads under way.
    flights: RefCell<BTreeMap<Digest, Rc<Flight>>>,
    chunk: Cell<ChunkSize>,
    slots: Slots,
    /// Those of downloads that clients wait for.
    client_slots: Slots,
    /// One for the first download of a client, when all of those are taken.
    first_slots: Slots,
    /// When a HEAD last had no answer, by what was asked for.
    head_in_vain: RefCell<BTreeMap<TagKey, Duration>>,
    /// What images need that are being fetched, by their names.
    promised: RefCell<BTreeMap<String, Vec<Want>>>,
    /// Held while a task puts an image's manifests and tags.
    holding: Mutex<()>,
    /// Tags of the desired state, which are the reconciler's.
    desired: RefCell<BTreeSet<TagKey>>,
    /// What clients asked for of late.
    asked: Asked,
}

/// Where a digest is to be had.
struct Source<'a> {
    registry: Registry,
    repository: &'a str,
}

/// For whom a blob is downloaded, and from where.
struct Job<'a> {
    source: Source<'a>,
    image: &'a str,
    asker: Asker,
}

impl Plan {
    /// What must have room for the image to be held, first, and what accompanies it after that;
    /// and the number of the former.
    pub fn wants(&self) -> (Vec<Want>, usize) {
        let manifests = |required| {
            let manifests = self.manifests.iter().filter(move |m| m.required == required);
            manifests.map(|m| Want { digest: m.digest, size: m.size })
        };
        let blobs = |required| {
            let blobs = self.blobs.iter().filter(move |blob| blob.required == required);
            blobs.map(|blob| Want { digest: blob.digest, size: blob.size })
        };
        let mut wants: Vec<Want> = manifests(true).chain(blobs(true)).collect();
        let required = wants.len();
        wants.extend(manifests(false).chain(blobs(false)));
        (wants, required)
    }
}

impl Puller {
    /// An engine at rest.
    pub fn new(parts: Parts) -> Self {
        let puller = Self {
            parts,
            flights: RefCell::default(),
            chunk: Cell::default(),
            slots: Slots::new(1),
            client_slots: Slots::new(1),
            first_slots: Slots::new(1),
            head_in_vain: RefCell::default(),
            promised: RefCell::default(),
            holding: Mutex::new(()),
            desired: RefCell::default(),
            asked: Asked::default(),
        };
        puller.resize_slots();
        puller
    }

    /// Sets how many downloads there may be at a time, by whether the link is limited now.
    pub fn resize_slots(&self) {
        let (images, clients) = match self.parts.terms.gate().is_limited() {
            true => (1, CLIENT_DOWNLOADS_MAX),
            false => (DOWNLOADS_MAX, CLIENT_DOWNLOADS_MAX),
        };
        self.slots.resize(images);
        self.client_slots.resize(clients);
    }

    /// The clock of its pauses.
    pub fn clock(&self) -> &SharedClock {
        &self.parts.clock
    }

    /// The sign to stop.
    pub fn stop(&self) -> &Latch {
        self.parts.terms.stop()
    }

    /// Downloads what `plan` lacks and makes it visible under its tag. What had to be left out of
    /// what only accompanies the image goes into the progress. The downloads of an image with a
    /// lower `rank` come first.
    ///
    /// Returns why some of what only accompanies the image was left out, where it is the link's
    /// limits that held it back: it is to be fetched when they allow it.
    ///
    /// # Errors
    /// Why it is not visible; [`Error::is_left`] when `leave` was opened first: then its downloads
    /// go on, and another call waits for them again.
    pub async fn fetch(
        self: &Rc<Self>,
        plan: &Plan,
        rank: usize,
        leave: &Latch,
    ) -> Result<Option<Error>, Error> {
        let before = self.promised.borrow_mut().insert(plan.name.clone(), plan.wants().0);
        let missing = self.missing(plan);
        if before.is_none() && !missing.is_empty() {
            let bytes = missing.iter().map(|blob| blob.size).sum();
            info!("{}: fetching {} blobs, {}", plan.name, missing.len(), ByteCount(bytes));
        }
        let outcome = self.fetch_promised(plan, rank, leave).await;
        if !outcome.as_ref().is_err_and(Error::is_left) {
            self.promised.borrow_mut().remove(&plan.name);
        }
        outcome
    }

    async fn fetch_promised(
        self: &Rc<Self>,
        plan: &Plan,
        rank: usize,
        leave: &Latch,
    ) -> Result<Option<Error>, Error> {
        let source = self.source(&plan.key.registry, &plan.key.repository)?;
        let job = Job { source, image: &plan.name, asker: Asker::Image(rank) };
        // What is there already must not be evicted for what comes.
        let wanted: Vec<Digest> = plan.digests().into_iter().collect();
        self.parts.store.pin(&wanted, true).await?;
        let queue = RefCell::new(self.missing(plan).into_iter());
        let left_out = RefCell::new((BTreeSet::new(), plan.notes.clone(), None));
        let worker = async || -> Result<(), Error> {
            loop {
                let Some(blob) = queue.borrow_mut().next() else { return Ok(()) };
                let landed = leave.unless_opened(self.blob(&job, &blob)).await;
                match landed.unwrap_or_else(|| Err(Error::left())) {
                    Ok(()) => {}
                    Err(error) if !blob.required && !self.stop().is_open() && !error.is_left() => {
                        let (absent, notes, waits) = &mut *left_out.borrow_mut();
                        absent.insert(blob.digest);
                        match error.held_back() {
                            Some(_) => *waits = Some(error),
                            None => notes.add(error.to_string()),
                        }
                    }
                    Err(error) => {
                        // The others finish the blob they are at and stop.
                        while queue.borrow_mut().next().is_some() {}
                        return Err(error);
                    }
                }
            }
        };
        let fetched = if self.parts.terms.gate().is_limited() {
            worker().await
        } else {
            let (first, (second, third)) = zip(worker(), zip(worker(), worker())).await;
            // What went wrong is worth more than that another was not waited for.
            let ends = [first, second, third].into_iter();
            let (left, ends): (Vec<_>, Vec<_>) =
                ends.partition(|end| end.as_ref().is_err_and(Error::is_left));
            ends.into_iter().chain(left).collect()
        };
        // Whatever became of the others, what arrived whole stays.
        let flushed = self.parts.store.flush().await;
        fetched?;
        flushed?;
        let (absent, notes, waits) = left_out.into_inner();
        let is_gone = |blob: &PlannedBlob| {
            !absent.contains(&blob.digest) && self.parts.store.entry(&blob.digest).is_none()
        };
        if plan.blobs.iter().any(is_gone) {
            // The log was mounted again, for instance, and had no record yet of what was finished.
            let what = "some of what was fetched is not held any more";
            return Err(Error::new(Kind::Retry, plan.name.clone(), what));
        }
        let manifests = plan.manifests_without(&absent);
        let (required, others): (Vec<_>, Vec<_>) = manifests.into_iter().partition(|m| m.required);
        // Two images may have the same manifests.
        let _turn = self.holding.lock().await;
        for manifest in required {
            self.check_not_stopped()?;
            self.hold(manifest).await?;
        }
        for some in others.chunks(HELD_AT_ONCE) {
            self.check_not_stopped()?;
            self.hold_all(some).await?;
        }
        self.parts.store.pin(&wanted, true).await?;
        // A signature that was left out has no tag.
        let tags = plan.tags().filter(|(_, digest)| self.holds_manifest(digest));
        for (key, digest) in tags {
            if self.parts.store.tag(key) != Some(*digest) {
                self.parts.store.set_tag(key, digest).await?;
            }
        }
        if !notes.is_empty() {
            warn!("{}: held without what accompanies it: {}", plan.name, notes.lines().join("; "));
        }
        self.parts.progress.update(&plan.name, |image| image.missing = notes.lines());
        Ok(waits)
    }

    fn check_not_stopped(&self) -> Result<(), Error> {
        if self.stop().is_open() { Err(Error::stopped()) } else { Ok(()) }
    }

    /// As [`Puller::hold`] for some manifests at once: they are short, and share units and records.
    async fn hold_all(&self, manifests: &[&PlannedManifest]) -> Result<(), Error> {
        if let [manifest] = manifests {
            return self.hold(manifest).await;
        }
        let (first, second) = manifests.split_at(manifests.len() / 2);
        if first.is_empty() {
            return Ok(());
        }
        let halves = (Box::pin(self.hold_all(first)), Box::pin(self.hold_all(second)));
        let (first, second) = zip(halves.0, halves.1).await;
        first.and(second)
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
        match self.parts.registries.borrow().get(registry).cloned() {
            Some(registry) => Ok(Source { registry, repository }),
            None => Err(Error::new(
                Kind::Invalid,
                registry,
                "no [[upstream]] of this registry can be used",
            )),
        }
    }

    /// Waits before another attempt if `error`, of one that began at `begun`, calls for one; else
    /// returns it. What a registry wants a longer pause for is for the next pass.
    async fn back_off(
        &self,
        backoff: &mut Backoff,
        begun: Duration,
        error: Error,
    ) -> Result<(), Error> {
        let (now, asked) = (self.parts.clock.monotonic(), error.retry_after());
        let is_worth_trying = error.kind() == Kind::Retry
            && !self.stop().is_open()
            && error.held_back().is_none()
            && !error.is_left()
            && asked.is_none_or(|asked| asked <= PAUSE_MAX)
            && backoff.is_worth_trying(error.is_unanswered(), begun, now);
        let wait = match is_worth_trying {
            true => backoff.next((self.parts.random)(), asked),
            false => None,
        };
        let Some(wait) = wait else { return Err(error) };
        self.parts.metrics.fetch_retries.add(1);
        warn!("{error}; trying again in {}", crate::units::format_duration(wait));
        self.unless_stopped(self.parts.clock.sleep(wait)).await?;
        Ok(())
    }

    /// Does `attempt` until it works, is refused, or was tried often enough. A stop ends it where
    /// it waits.
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
            let begun = self.parts.clock.monotonic();
            match self.unless_stopped(attempt()).await? {
                Ok(value) => return Ok(value),
                Err(error) => self.back_off(&mut backoff, begun, error).await?,
            }
        }
    }

    /// Waits for something that may be dropped half way; fails when a stop is asked for.
    ///
    /// # Errors
    /// [`Kind::Retry`] when it is.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        self.stop().unless_opened(work).await.ok_or_else(Error::stopped)
    }
}

/// Downloads at a time where the link is not limited; else there is one.
const DOWNLOADS_MAX: usize = 3;
/// Downloads at a time that clients wait for, beside those; and one more for a client that has none.
const CLIENT_DOWNLOADS_MAX: usize = 3;
/// Manifests that are put into the store at the same time.
const HELD_AT_ONCE: usize = 16;
/// A pause that is waited for with the image in hand.
const PAUSE_MAX: Duration = Duration::from_secs(10);
