//! What clients ask for and is not held: fetched on demand, where the configuration lets it.
//!
//! Only what a client names is fetched: the manifest and not its children, the blob and not the
//! image. A tag is what its registry said last, for `tag_ttl`; then the registry is asked by HEAD.
//! If that cannot answer, what is held is still the best answer, and marked as stale. Tags of the
//! desired state are left to the reconciler, which switches them when their image is whole.
//!
//! A client decides nothing but names: who is asked, and of what, is configured. How much is asked
//! at once, and what is remembered of it, is bounded.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, warn};
use smol::lock::{Mutex, Semaphore};

use super::backoff::Backoff;
use super::download::{Asker, Wanted};
use super::flight::{Download, Flight};
use super::refusals::{Refusal, Refusals};
use super::walk::{Need, Walk};
use super::{Error, Puller};
use crate::blob::TagKey;
use crate::fetch::Latch;
use crate::kind::Kind;
use crate::net::http::ClientAddress;
use crate::oci::{Digest, Reference, valid_repository};
use crate::units::format_duration;

/// What clients asked for of late, and how that ended.
pub(super) struct Asked {
    refusals: RefCell<Refusals>,
    /// When a registry said last what a tag means.
    checked: RefCell<BTreeMap<TagKey, Duration>>,
    /// One lock for each name that is asked for; entries live as long as somebody holds or awaits
    /// one.
    turns: RefCell<BTreeMap<String, Rc<Mutex<()>>>>,
    /// How many requests may be under way.
    requests: Semaphore,
}

/// What a tag means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The manifest, which is held.
    pub digest: Digest,
    /// Its registry could not be asked, or does not have the tag any more.
    pub is_stale: bool,
}

impl Default for Asked {
    fn default() -> Self {
        let (refusals, checked, turns) = Default::default();
        Self { refusals, checked, turns, requests: Semaphore::new(REQUESTS_MAX) }
    }
}

impl Puller {
    /// Whether what is not held of a repository is fetched when a client asks for it.
    pub fn pulls_through(&self, registry: &str, repository: &str) -> bool {
        self.tag_ttl(registry, repository).is_some()
    }

    /// Whether there is any repository of which that is so.
    pub fn pulls_any_through(&self) -> bool {
        !self.parts.policies.borrow().is_empty()
    }

    /// Whether what clients ask for has to wait for the link's windows or data plan.
    pub fn is_held_back(&self) -> bool {
        self.parts.terms.gate().is_shut()
    }

    /// Whether the content of images may be fetched now.
    ///
    /// # Errors
    /// Where the link's windows are closed, with when to ask again.
    pub fn may_sync(&self) -> Result<(), Error> {
        Ok(self.parts.terms.may_fetch()?)
    }

    /// These tags are the reconciler's from here on.
    pub fn set_desired(&self, keys: BTreeSet<TagKey>) {
        self.desired.replace(keys);
    }

    /// Whether a tag is the reconciler's.
    pub fn is_desired(&self, key: &TagKey) -> bool {
        self.desired.borrow().contains(key)
    }

    /// Whether a manifest is held, and not known to be corrupt. One that was only written ahead has
    /// no media type yet.
    pub fn holds_manifest(&self, digest: &Digest) -> bool {
        let store = &self.parts.store;
        let is_typed = store.entry(digest).is_some_and(|entry| entry.media_type.is_some());
        is_typed && !store.is_corrupt(digest, 0..u64::MAX)
    }

    /// Counts a request for what may be fetched: whether it was a hit in what is held.
    pub fn count(&self, is_hit: bool) {
        let metrics = &self.parts.metrics;
        let counter =
            if is_hit { &metrics.pull_through_hits } else { &metrics.pull_through_misses };
        counter.add(1);
    }

    /// What a tag means: as its registry says, or as it said last. Its manifest is held then.
    ///
    /// # Errors
    /// [`Kind::Missing`] and [`Kind::Denied`] when nothing is held and its registry does not have,
    /// or not serve it; others when that could not be found out.
    pub async fn tag(self: &Rc<Self>, key: &TagKey) -> Result<Tagged, Error> {
        let outcome = match self.fresh(key) {
            Some(digest) => Ok(digest),
            None => self.asked.in_turn(key.to_string(), self.ask_tag(key)).await,
        };
        match (outcome, self.held(key)) {
            (Ok(digest), _) => Ok(Tagged { digest, is_stale: false }),
            (Err(error), Some(digest)) => {
                debug!("{error}; what is held is served");
                self.parts.metrics.pull_through_stale.add(1);
                Ok(Tagged { digest, is_stale: true })
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Makes a manifest held.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn manifest(
        &self,
        registry: &str,
        repository: &str,
        digest: &Digest,
    ) -> Result<(), Error> {
        let name = format!("{registry}/{repository}/manifests/{digest}");
        let work = async {
            if self.holds_manifest(digest) {
                return Ok(());
            }
            let names = [digest.to_string()];
            let taking = self.take_manifest(registry, repository, &names, digest);
            self.ask(registry, name, MISS_PATIENCE, taking).await
        };
        self.asked.in_turn(digest.to_string(), work).await
    }

    /// Begins to download a blob, or joins that.
    ///
    /// # Errors
    /// Why it is not worth an attempt now. Why it cannot be had, the download reports.
    pub fn client_blob(
        self: &Rc<Self>,
        registry: &str,
        repository: &str,
        digest: &Digest,
        client: ClientAddress,
    ) -> Result<Download, Error> {
        if self.stop().is_open() {
            return Err(Error::stopped());
        }
        self.check_refusals(&[&digest.to_string()])?;
        let is_new = self.flight(digest).is_none();
        let of_client = |flight: &&Rc<Flight>| {
            flight.begun_for.get().is_some_and(|(begun_for, _)| begun_for == client)
        };
        let others = self.flights.borrow().values().filter(of_client).count();
        if is_new {
            self.check_refusals(&[registry, &blob_name(registry, repository, digest)])?;
            let of_clients = |flight: &&Rc<Flight>| flight.client.is_open();
            if self.flights.borrow().values().filter(of_clients).count() >= CLIENT_FLIGHTS_MAX {
                let what = format!("{CLIENT_FLIGHTS_MAX} downloads for clients are under way");
                return Err(Error::new(Kind::Retry, digest.to_string(), what));
            }
            if others >= CLIENT_FLIGHTS_EACH_MAX {
                let what = format!("{others} downloads for this client are under way");
                return Err(Error::new(Kind::Retry, digest.to_string(), what));
            }
        }
        let source = self.source(registry, repository)?;
        let wanted = Wanted {
            registry: source.registry,
            repository: repository.to_owned(),
            digest: *digest,
            size: None,
            required: false,
            asker: "a client".to_owned(),
        };
        let download = self.ensure(wanted, Asker::Client);
        if let Some(flight) = self.flight(digest).filter(|_| is_new) {
            flight.begun_for.set(Some((client, others)));
        }
        Ok(download)
    }

    /// The size of a blob that is not held, in bytes; nothing of it is fetched.
    ///
    /// # Errors
    /// As of [`Puller::manifest`].
    pub async fn blob_size(
        &self,
        registry: &str,
        repository: &str,
        digest: &Digest,
    ) -> Result<u64, Error> {
        if let Some(size) = self.flight(digest).and_then(|flight| flight.size()) {
            return Ok(size);
        }
        self.check_refusals(&[&digest.to_string()])?;
        let name = blob_name(registry, repository, digest);
        let source = self.source(registry, repository)?;
        let asking = self.retrying_with(Backoff::brief(), async || {
            Ok(source.registry.blob_size(source.repository, digest).await?)
        });
        self.ask(registry, name, MISS_PATIENCE, asking).await
    }

    /// Asks a repository's registry whether it has a manifest or a blob, whatever is held here.
    ///
    /// # Errors
    /// As of [`Puller::manifest`].
    pub async fn confirm(
        &self,
        registry: &str,
        repository: &str,
        digest: &Digest,
        is_manifest: bool,
    ) -> Result<(), Error> {
        let source = self.source(registry, repository)?;
        let text = digest.to_string();
        let asking = self.retrying_with(Backoff::brief(), async || {
            let (registry, repository) = (&source.registry, source.repository);
            if is_manifest {
                registry.head_manifest(repository, &text).await?;
            } else {
                registry.blob_size(repository, digest).await?;
            }
            Ok(())
        });
        let name = match is_manifest {
            true => format!("{registry}/{repository}/manifests/{digest}"),
            false => blob_name(registry, repository, digest),
        };
        self.ask(registry, name, MISS_PATIENCE, asking).await
    }

    /// Notes a download that came to nothing, so that clients' next attempts wait.
    pub(super) fn note_failure(&self, flight: &Flight, wanted: &Wanted, error: &Error) {
        if !flight.client.is_open() || error.is_stopped() || error.held_back().is_some() {
            return;
        }
        let Wanted { registry, repository, digest, .. } = wanted;
        let registry = registry.name();
        match error.kind() {
            Kind::Missing | Kind::Denied => {
                self.refuse(registry, blob_name(registry, repository, digest), error);
            }
            _ => {
                let pause = format_duration(FAILURE_PAUSE);
                warn!("{error}; clients who ask for it are refused for {pause}");
                self.refuse(registry, digest.to_string(), error);
            }
        }
    }

    /// For how long a tag of a repository is believed; none if clients may have nothing fetched.
    fn tag_ttl(&self, registry: &str, repository: &str) -> Option<Duration> {
        let policies = self.parts.policies.borrow();
        let policy = policies.get(registry).filter(|policy| policy.allows(repository));
        policy.filter(|_| valid_repository(repository)).map(|policy| policy.tag_ttl)
    }

    /// What is held under a tag.
    fn held(&self, key: &TagKey) -> Option<Digest> {
        self.parts.store.tag(key).filter(|digest| self.holds_manifest(digest))
    }

    /// The same, if its registry said so not long ago.
    fn fresh(&self, key: &TagKey) -> Option<Digest> {
        let ttl = self.tag_ttl(&key.registry, &key.repository)?;
        let checked = self.asked.checked.borrow().get(key).copied()?;
        let age = self.parts.clock.monotonic().saturating_sub(checked);
        self.held(key).filter(|_| age < ttl)
    }

    async fn ask_tag(self: &Rc<Self>, key: &TagKey) -> Result<Digest, Error> {
        // The request before this one may have asked.
        if let Some(digest) = self.fresh(key) {
            return Ok(digest);
        }
        let patience = if self.held(key).is_some() { STALE_PATIENCE } else { MISS_PATIENCE };
        self.ask(&key.registry, key.to_string(), patience, self.look_up(key)).await
    }

    /// Asks what a tag means, makes its manifest held, and the tag mean it.
    async fn look_up(self: &Rc<Self>, key: &TagKey) -> Result<Digest, Error> {
        let TagKey { registry, repository, tag } = key.clone();
        let reference = Reference { registry, repository, tag: Some(tag), digest: None };
        let digest = self.current_with(&reference, &Latch::default(), Backoff::brief).await?;
        if self.parts.store.tag(key) != Some(digest) {
            self.check_signed_for_client(key, digest).await?;
        }
        if !self.holds_manifest(&digest) {
            // There are registries that know their manifests by tag only.
            let names = [digest.to_string(), key.tag.clone()];
            self.take_manifest(&key.registry, &key.repository, &names, &digest).await?;
        }
        self.parts.store.touch(&digest);
        if !self.is_desired(key) {
            self.cache_tag(key, &digest).await;
        }
        Ok(digest)
    }

    /// Remembers what a tag means now. Without that it is asked for once more, and nothing is
    /// worse.
    async fn cache_tag(&self, key: &TagKey, digest: &Digest) {
        let store = &self.parts.store;
        let before = store.tag(key);
        if before != Some(*digest) {
            if before.is_none() && store.tag_count() >= TAGS_MAX {
                debug!("{key}: more than {TAGS_MAX} tags, and not kept");
                return;
            }
            if let Err(error) = store.set_tag(key, digest).await {
                warn!("{key}: {error}; the tag is not kept");
                return;
            }
        }
        let mut checked = self.asked.checked.borrow_mut();
        if checked.len() >= CHECKED_MAX && !checked.contains_key(key) {
            let oldest = checked.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                checked.remove(&oldest);
            }
        }
        checked.insert(key.clone(), self.parts.clock.monotonic());
    }

    /// Fetches a manifest by the first of `names` that leads to it.
    async fn take_manifest(
        &self,
        registry: &str,
        repository: &str,
        names: &[String],
        digest: &Digest,
    ) -> Result<(), Error> {
        let source = self.source(registry, repository)?;
        let walk = Walk::new(self, &source, format!("{registry}/{repository}"), &[]);
        let walk = walk.for_client();
        let mut outcome = Ok(());
        for name in names {
            match walk.read(name, Some(*digest), Need::Accompanying).await {
                Ok((manifest, _)) => {
                    let _turn = self.holding.lock().await;
                    return self.hold(&manifest).await;
                }
                Err(error) if error.kind() == Kind::Missing => outcome = Err(error),
                Err(error) => return Err(error),
            }
        }
        outcome
    }

    /// Asks a registry for something, unless it was asked in vain a moment ago: not too much at
    /// once, and not for ever.
    async fn ask<T>(
        &self,
        registry: &str,
        name: String,
        patience: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.check_refusals(&[registry, &name])?;
        let is_asked = Cell::new(false);
        let asking = async {
            let _permit = self.asked.requests.acquire().await;
            is_asked.set(true);
            work.await
        };
        let outcome = self.parts.clock.timeout(patience, asking);
        let (error, is_silent) = match outcome.await {
            Some(Ok(value)) => return Ok(value),
            Some(Err(error)) if error.is_stopped() => return Err(error),
            Some(Err(error)) => (error, false),
            None => {
                let what = format!("no answer within {}", format_duration(patience));
                (Error::new(Kind::Retry, name.clone(), what), true)
            }
        };
        if is_silent && is_asked.get() {
            self.refuse(registry, registry.to_owned(), &error);
        } else if !is_silent {
            self.refuse(registry, name, &error);
        }
        Err(error)
    }

    /// Refuses `name` for a while; and all of a registry that does not answer, or wants a pause.
    /// What the link's limits hold back costs nothing to ask for again, and says nothing of a
    /// registry.
    fn refuse(&self, registry: &str, name: String, error: &Error) {
        if error.held_back().is_some() {
            return;
        }
        let now = self.parts.clock.monotonic();
        let pause = match error.kind() {
            Kind::Missing | Kind::Denied => MISSING_PAUSE,
            _ => FAILURE_PAUSE,
        };
        let mut refusals = self.asked.refusals.borrow_mut();
        let what = error.to_string();
        let wanted = error.retry_after();
        if error.is_unanswered() || wanted.is_some() {
            let pause = pause.max(wanted.unwrap_or_default());
            // Whether it has what else is asked for is not known.
            refusals.note(registry.to_owned(), Kind::Retry, &what, now, pause);
        }
        refusals.note(name, error.kind(), &what, now, pause);
    }

    fn check_refusals(&self, names: &[&str]) -> Result<(), Error> {
        let now = self.parts.clock.monotonic();
        let refusals = self.asked.refusals.borrow();
        match names.iter().find_map(|name| refusals.get(name, now)) {
            Some(Refusal { kind, what, .. }) => {
                Err(Error::new(kind, "", format!("{what}; not asked again yet")))
            }
            None => Ok(()),
        }
    }
}

impl Asked {
    /// Does `work` when no other request does any for `name`.
    async fn in_turn<T>(&self, name: String, work: impl Future<Output = T>) -> T {
        let lock = Rc::clone(self.turns.borrow_mut().entry(name.clone()).or_default());
        let place = Place { asked: self, name, lock };
        let _turn = place.lock.lock().await;
        work.await
    }
}

/// What a blob that is refused goes by: a registry may have a manifest of that digest.
fn blob_name(registry: &str, repository: &str, digest: &Digest) -> String {
    format!("{registry}/{repository}/blobs/{digest}")
}

/// A place among those who want a turn, left when the request goes away.
struct Place<'a> {
    asked: &'a Asked,
    name: String,
    lock: Rc<Mutex<()>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Two are left: this one and the map's.
        if Rc::strong_count(&self.lock) == 2 {
            self.asked.turns.borrow_mut().remove(&self.name);
        }
    }
}

/// Requests for manifests, tags and sizes that clients cause at a time.
const REQUESTS_MAX: usize = 8;
/// Downloads that clients caused, under way or waiting for a slot.
const CLIENT_FLIGHTS_MAX: usize = 32;
/// The same of one client.
const CLIENT_FLIGHTS_EACH_MAX: usize = 16;
/// How long a registry is waited for when what is held can be served instead.
const STALE_PATIENCE: Duration = Duration::from_secs(10);
/// The same when there is nothing: runtimes give up after 30 s, and go on to their next registry.
const MISS_PATIENCE: Duration = Duration::from_secs(20);
/// For how long a registry that does not have something, or refuses it, is not asked for it again.
const MISSING_PAUSE: Duration = Duration::from_secs(15);
/// The same for what failed: no more bytes are spent on a digest meanwhile.
const FAILURE_PAUSE: Duration = Duration::from_secs(15);
/// Tags of which it is known when they were asked for.
const CHECKED_MAX: usize = 1024;
/// Tags in the store beyond which no further one of a client's is kept.
const TAGS_MAX: usize = 1024;
