//! Making one blob present: a task of its own, which all who ask for the digest share.
//!
//! A caller that leaves takes nothing with it: the download goes on, unless a stop is asked for,
//! and then it is suspended. A cut link is retried from the first missing byte. What an image waits
//! for is pinned and comes in the images' order; what a client waits for has slots of its own, or a
//! layer that takes hours would keep it from its first byte.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use log::warn;
use smol::future::or;

use super::backoff::Backoff;
use super::flight::{Download, Flight};
use super::plan::PlannedBlob;
use super::slots::{Priority, Slot};
use super::{Error, Job, Puller};
use crate::blob::{Want, Writer};
use crate::fetch::{self, Terms};
use crate::kind::Kind;
use crate::link::Urgency;
use crate::oci::Digest;
use crate::registry::{Opened, Registry};
use crate::units::ByteCount;

/// Starts a task that outlives its caller. A task that is dropped before its end ends its
/// download as a stop does.
pub type Spawner = Rc<dyn Fn(Pin<Box<dyn Future<Output = ()>>>)>;

/// A blob to download, and from where.
pub(super) struct Wanted {
    pub registry: Registry,
    pub repository: String,
    pub digest: Digest,
    /// None where no manifest states it.
    pub size: Option<u64>,
    /// Whether the image that asks is nothing without it: then it is tried more often.
    pub required: bool,
    /// As the progress names what asks.
    pub asker: String,
}

impl Wanted {
    /// Where it is from, for people.
    pub fn source(&self) -> String {
        format!("{}/{}", self.registry.name(), self.repository)
    }
}

/// Who waits for a download.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// An image, by its place in the configuration.
    Image(usize),
    /// A client.
    Client,
}

impl Puller {
    /// Makes one blob whole: from the store, by joining a download, or by downloading. It is held
    /// once the store is flushed.
    pub(super) async fn blob(
        self: &Rc<Self>,
        job: &Job<'_>,
        blob: &PlannedBlob,
    ) -> Result<(), Error> {
        let source = &job.source;
        loop {
            if self.parts.store.is_whole(&blob.digest) {
                return Ok(());
            }
            let wanted = Wanted {
                registry: source.registry.clone(),
                repository: source.repository.to_owned(),
                digest: blob.digest,
                size: Some(blob.size),
                required: blob.required,
                asker: job.image.to_owned(),
            };
            // One that is not required is abandoned sooner, and one from elsewhere may lack what is
            // here.
            let is_anothers = self.flight(&blob.digest).is_some_and(|flight| {
                let is_alike = flight.source == wanted.source();
                let is_lasting = flight.required || !wanted.required;
                !is_alike || !is_lasting || flight.unwanted.is_open()
            });
            match self.ensure(wanted, job.asker).landed().await {
                Err(_) if is_anothers && !self.stop().is_open() => {}
                outcome => return outcome,
            }
        }
    }

    /// The download of a digest: the one that is under way, or a new one.
    pub(super) fn ensure(self: &Rc<Self>, wanted: Wanted, asker: Asker) -> Download {
        let name = wanted.asker.clone();
        let flight = self.flight(&wanted.digest).unwrap_or_else(|| self.begin(wanted));
        match asker {
            Asker::Image(rank) => {
                if !flight.image.is_open() {
                    self.parts.progress.begin(flight.digest, &name);
                }
                flight.rank.set(rank.min(flight.rank.get()));
                flight.image.open();
            }
            Asker::Client => flight.client.open(),
        }
        flight.download()
    }

    /// The download of a digest that is under way.
    pub(super) fn flight(&self, digest: &Digest) -> Option<Rc<Flight>> {
        self.flights.borrow().get(digest).cloned()
    }

    /// Suspends the downloads for images that are not of `wanted`, and forgets what was promised to
    /// images that are not of `names`.
    pub fn call_off(&self, names: &BTreeSet<String>, wanted: &BTreeSet<Digest>) {
        self.promised.borrow_mut().retain(|name, _| names.contains(name));
        for flight in self.flights.borrow().values() {
            if !flight.client.is_open() && !wanted.contains(&flight.digest) {
                flight.unwanted.open();
            }
        }
    }

    /// Waits until no download is under way.
    pub async fn landed(&self) {
        loop {
            let flight = self.flights.borrow().values().next().cloned();
            let Some(flight) = flight else { return };
            // However it ended.
            let _ = flight.download().landed().await;
        }
    }

    fn begin(self: &Rc<Self>, wanted: Wanted) -> Rc<Flight> {
        let flight = Flight::new(wanted.digest, wanted.source(), wanted.required);
        self.flights.borrow_mut().insert(wanted.digest, Rc::clone(&flight));
        self.parts.progress.begin(wanted.digest, &wanted.asker);
        let landing = Landing { puller: Rc::clone(self), flight: Rc::clone(&flight) };
        (self.parts.spawn)(Box::pin(async move {
            let puller = Rc::clone(&landing.puller);
            let outcome = puller.fly(&landing.flight, &wanted).await;
            let outcome = outcome.map_err(|error| error.about(wanted.source()));
            if let Err(error) = &outcome {
                puller.note_failure(&landing.flight, &wanted, error);
            }
            landing.flight.end(outcome);
        }));
        flight
    }

    /// Attempt after attempt, until the blob is whole or there is no use in going on.
    async fn fly(&self, flight: &Flight, wanted: &Wanted) -> Result<(), Error> {
        let mut backoff = if wanted.required { Backoff::default() } else { Backoff::brief() };
        let mut refetched = false;
        loop {
            let slot = self.slot(flight, backoff.failures());
            let slot = self.terms(flight).unless_stopped(slot).await.ok_or_else(Error::stopped)?;
            let begun = self.parts.clock.monotonic();
            let progress = Cell::new(false);
            let outcome = self.attempt(flight, wanted, &progress).await;
            flight.follow(None);
            drop(slot);
            let error = match outcome {
                Ok(()) => return Ok(()),
                Err(End::Final(error)) if error.kind() == Kind::Corrupt && !refetched => {
                    refetched = true;
                    self.parts.metrics.fetch_digest_mismatches.add(1);
                    if !flight.image.is_open() {
                        return Err(error);
                    }
                    self.fetch_anew(flight, wanted, &error);
                    continue;
                }
                Err(End::Final(error)) => return Err(error),
                Err(End::Cut(error)) if flight.unwanted.is_open() => return Err(error),
                Err(End::Cut(error)) => error,
            };
            if progress.get() {
                backoff.progress();
            }
            let pause = self.back_off(&mut backoff, begun, error);
            self.terms(flight).unless_stopped(pause).await.ok_or_else(Error::stopped)??;
        }
    }

    /// The right to use the link, in the order of the images, or of the clients' own.
    async fn slot(&self, flight: &Flight, failures: u32) -> Slot<'_> {
        let client = async {
            flight.client.opened().await;
            let others = flight.begun_for.get().map_or(0, |(_, others)| others);
            let any = self.client_slots.take(Priority { failures, rank: others });
            match others {
                // Who has none yet is not to wait until another one's have landed.
                0 => or(any, self.first_slots.take(Priority { failures, rank: 0 })).await,
                _ => any.await,
            }
        };
        let image = async {
            flight.image.opened().await;
            self.slots.take(Priority { failures, rank: flight.rank.get() }).await
        };
        or(client, image).await
    }

    /// What came was wrong; images are worth another look, clients had enough of it.
    fn fetch_anew(&self, flight: &Flight, wanted: &Wanted, error: &Error) {
        self.parts.metrics.fetch_repeated_bytes.add(flight.size().unwrap_or(0));
        let from = wanted.source();
        warn!("{from}: {error}; fetching it once more from the beginning");
        self.note_failure(flight, wanted, error);
        flight.begin_anew();
    }

    /// One attempt, which goes on where the last one ended; says whether it got anywhere.
    async fn attempt(
        &self,
        flight: &Flight,
        wanted: &Wanted,
        progress: &Cell<bool>,
    ) -> Result<(), End> {
        let store = &self.parts.store;
        let begun = || store.partials().into_iter().find(|begun| begun.digest == wanted.digest);
        let (size, first) = match wanted.size.or_else(|| Some(begun()?.size)) {
            Some(size) => (size, None),
            None => {
                let opened = self.open(flight, wanted, 0, None).await.map_err(End::Cut)?;
                (opened.size, Some(opened))
            }
        };
        if wanted.size.is_none() {
            self.check_room(wanted, size).map_err(End::Final)?;
        }
        let mut writer = store.writer(&wanted.digest, size, None).await?;
        flight.follow(Some(writer.follow()));
        let begun_at = writer.frontier();
        if let Err(error) = self.stream(flight, wanted, size, &mut writer, first).await {
            progress.set(writer.frontier() >= begun_at + PROGRESS_BYTES);
            if wanted.size.is_none() && error.kind() == Kind::Invalid {
                // Its size came from outside, and may have been the wrong one.
                writer.abandon().await?;
            } else {
                writer.suspend().await?;
            }
            return Err(End::Cut(error));
        }
        flight.open(size);
        if flight.image.is_open() {
            writer.pin();
        }
        writer.finish().await?;
        if flight.client.is_open() {
            store.flush().await?;
        }
        Ok(())
    }

    /// Nothing is evicted for what has no room even then, beside what is pinned and what images
    /// need that are being fetched.
    fn check_room(&self, wanted: &Wanted, size: u64) -> Result<(), Error> {
        let want = Want { digest: wanted.digest, size };
        let promised: Vec<Want> = self.promised.borrow().values().flatten().copied().collect();
        let admission = self.parts.store.admission(&[want], &promised);
        if admission.is_granted() && admission.stuck() == 0 {
            return Ok(());
        }
        let what = format!("no room for {} ({})", wanted.digest, ByteCount(size));
        Err(Error::new(Kind::Full, "", what))
    }

    /// Requests chunk after chunk until the writer has all bytes.
    async fn stream(
        &self,
        flight: &Flight,
        wanted: &Wanted,
        size: u64,
        writer: &mut Writer,
        mut first: Option<Opened>,
    ) -> Result<(), Error> {
        while writer.frontier() < size {
            let start = writer.frontier();
            let began = self.parts.clock.monotonic();
            let outcome = async {
                let opened = match first.take() {
                    Some(opened) => opened,
                    None => self.open(flight, wanted, start, Some(size)).await?,
                };
                flight.open(size);
                self.take(flight, wanted, opened, writer).await
            };
            let outcome = outcome.await;
            let mut chunk = self.chunk.get();
            let span = self.parts.clock.monotonic().saturating_sub(began);
            match &outcome {
                Ok(()) => chunk.went_through(writer.frontier() - start, span),
                // What was held back says nothing of the link.
                Err(error) if error.held_back().is_some() => {}
                Err(_) => chunk.was_cut(),
            }
            self.chunk.set(chunk);
            outcome?;
        }
        Ok(())
    }

    /// Asks for a chunk from byte `start` on.
    async fn open(
        &self,
        flight: &Flight,
        wanted: &Wanted,
        start: u64,
        size: Option<u64>,
    ) -> Result<Opened, Error> {
        let Wanted { registry, repository, digest, .. } = wanted;
        let terms = self.terms(flight);
        terms.may_fetch()?;
        let bytes = terms.gate().fit(self.chunk.get().bytes());
        let end = start.saturating_add(bytes).min(size.unwrap_or(u64::MAX));
        let opening = registry.blob(repository, digest, start, end.saturating_sub(1), size);
        Ok(terms.unless_stopped(opening).await.ok_or_else(Error::stopped)??)
    }

    /// Writes what was opened.
    async fn take(
        &self,
        flight: &Flight,
        wanted: &Wanted,
        mut opened: Opened,
        writer: &mut Writer,
    ) -> Result<(), Error> {
        let digest = &wanted.digest;
        if opened.start < writer.frontier() {
            let again = ByteCount(writer.frontier() - opened.start);
            let name = wanted.registry.name();
            warn!("{name}: Range not kept to, {again} of {digest} come again");
        }
        // The whole blob may come, whatever was asked for. Taking all of it is the cheapest way on:
        // stopping would only mean paying for the same beginning again.
        let end = opened.end;
        let arrived = |bytes| {
            self.parts.progress.arrived(digest, bytes, self.parts.clock.monotonic());
            if !flight.image.is_open() {
                self.parts.metrics.pull_through_bytes.add(bytes);
            }
            flight.wake();
        };
        let terms = self.terms(flight);
        fetch::copy(&mut opened.body, opened.start, writer, end, &terms, arrived).await?;
        Ok(())
    }

    /// The pace of a download: what a client waits for may go outside the windows.
    fn terms(&self, flight: &Flight) -> Terms {
        let terms = self.parts.terms.until(&flight.unwanted);
        if flight.client.is_open() { terms.of(Urgency::Client) } else { terms }
    }
}

/// Why an attempt ended without the blob.
enum End {
    /// Another one may do better.
    Cut(Error),
    /// It would not.
    Final(Error),
}

impl From<crate::blob::Error> for End {
    fn from(error: crate::blob::Error) -> Self {
        Self::Final(error.into())
    }
}

/// Takes a download out of those that are under way, however its task ends.
struct Landing {
    puller: Rc<Puller>,
    flight: Rc<Flight>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let digest = &self.flight.digest;
        self.puller.flights.borrow_mut().remove(digest);
        self.puller.parts.progress.end(digest);
        self.flight.end_if_dropped();
    }
}

/// Progress that proves a link works.
const PROGRESS_BYTES: u64 = 1 << 20;
