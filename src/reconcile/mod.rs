//! Brings what is held in line with what is desired.
//!
//! Observed state is the blob log itself, never a second file that could disagree with it. Each
//! image stands alone: one that fails keeps what it had, is reported, and holds up no other. What
//! an unreachable registry cannot answer is left as it is. Only after every image was looked at
//! does anything lose its place, except when there is no room. A download outlives the pass that
//! began it when images are due again, or others are desired: the next pass waits for it, or calls
//! it off.
//!
//! | file | holds |
//! |---|---|
//! | `pass` | one look at all images, several at a time |
//! | `image` | one image: what it is now, and what to do about the rest |
//! | `memory` | what is remembered of an image: what it needs, how that ended |
//! | `admission` | whether an image fits, and what is evicted for it |
//! | `repair` | chunks that are corrupt on flash |
//! | `sweep` | what differs between desired and held, as values |

mod admission;
mod image;
mod join;
mod memory;
mod pass;
mod repair;
mod sweep;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use log::info;
use smol::lock::Mutex;

use crate::blob::{self, Store, TagKey};
use crate::catalog::{Catalog, Imports, Root};
use crate::clock::SharedClock;
use crate::config::{Activation, Image};
use crate::fetch::Latch;
use crate::fleet::state::activation_text;
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::oci::{Digest, Reference};
use crate::pull::progress::{Progress, State};
use crate::pull::{self, Puller};
use memory::Memory;
pub use pass::Patience;
use sweep::Idle;

/// What the reconciler works with.
pub struct Parts {
    /// Where it is to be.
    pub store: Store,
    /// What is there.
    pub catalog: Catalog,
    /// Makes present what is not.
    pub puller: Rc<Puller>,
    /// Where progress is posted.
    pub progress: Progress,
    /// For the time of the last success.
    pub clock: SharedClock,
    /// For runs and failures.
    pub metrics: Rc<Metrics>,
}

/// What is to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The images; what comes first has priority.
    pub images: Vec<Image>,
    /// Whether these are all. While some are not known, nothing that is held is removed.
    pub is_whole: bool,
}

/// Brings what is held in line with what is desired, pass by pass.
pub struct Reconciler {
    parts: Parts,
    /// The desired state of this pass, or of the last; what comes first has priority.
    images: RefCell<Rc<[Image]>>,
    /// The desired state of the next pass, where it is another one.
    next_images: RefCell<Option<Desired>>,
    /// Whether what is not desired may be removed.
    is_whole: Cell<bool>,
    /// What is remembered of each image, in their order.
    memories: RefCell<Vec<Memory>>,
    /// When all images are to be looked at again, by the monotonic clock.
    poll_at: Cell<Duration>,
    /// Opened when the pass that is under way is to wait for no download any more.
    leave: RefCell<Latch>,
    /// Held while a task repairs.
    repairing: Mutex<()>,
    /// Blobs that could not be repaired, and why.
    unrepaired: RefCell<BTreeMap<Digest, Rc<pull::Error>>>,
    /// Downloads that no image waits for.
    idle: RefCell<Idle>,
}

/// How things stand after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Images that are held whole and as their registry has them, or had them last.
    pub held: usize,
    /// Images that are not; each was logged with its reason.
    pub failed: usize,
    /// Images of either sort that wait for the link's data plan or windows.
    pub waiting: usize,
    /// Whether it is known what is desired.
    pub is_obeyed: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} images held, {} not", self.held, self.failed)?;
        match self.waiting {
            0 => Ok(()),
            waiting => write!(f, "; {waiting} wait for the link's data plan or windows"),
        }
    }
}

impl Outcome {
    /// Whether everything that is desired is held.
    pub fn is_converged(self) -> bool {
        self.failed == 0 && self.is_obeyed
    }
}

impl Reconciler {
    /// A reconciler that has looked at nothing yet.
    pub fn new(parts: Parts, desired: Desired) -> Self {
        let Desired { images, is_whole } = desired;
        let memories = images.iter().map(|_| Memory::default()).collect();
        let reconciler = Self {
            parts,
            images: RefCell::new(images.into()),
            next_images: RefCell::default(),
            is_whole: Cell::new(is_whole),
            memories: RefCell::new(memories),
            poll_at: Cell::default(),
            leave: RefCell::default(),
            repairing: Mutex::new(()),
            unrepaired: RefCell::default(),
            idle: RefCell::default(),
        };
        reconciler.set_desired(&reconciler.images());
        reconciler
    }

    /// What makes digests present.
    pub fn puller(&self) -> &Rc<Puller> {
        &self.parts.puller
    }

    /// Posts what is already on flash, before the registry is asked anything.
    pub fn observe(&self) -> Result<(), blob::Error> {
        self.parts.catalog.refresh()?;
        for image in self.images().iter().chain(&self.imported()) {
            self.post(image)?;
        }
        self.export_gauges();
        Ok(())
    }

    /// Changes the desired state, and makes all images due. A pass that is under way begins no
    /// further image and waits for no download; the next one brings what is new, and drops what is
    /// not desired any more.
    pub fn set_images(&self, desired: Desired) -> Result<(), blob::Error> {
        let before = self.images();
        let is_same = |one: &Image, other: &Image| {
            one.reference == other.reference && one.is_staged() == other.is_staged()
        };
        let is_new = |image: &&Image| !before.iter().any(|other| is_same(other, image));
        let new: Vec<Image> = desired.images.iter().filter(is_new).cloned().collect();
        self.set_desired(&desired.images);
        self.next_images.replace(Some(desired));
        self.leave.borrow().open();
        self.poll_now();
        new.iter().try_for_each(|image| self.post(image))
    }

    /// Makes all images due, for the pass after one that is under way.
    pub fn poll_now(&self) {
        self.poll_at.set(Duration::ZERO);
    }

    /// Puts the desired state of the next pass into effect. What is remembered of an image that
    /// stays as it was is kept.
    fn take_next_images(&self) {
        let Some(Desired { images, is_whole }) = self.next_images.take() else { return };
        self.is_whole.set(is_whole);
        let kept = self.imported();
        let kept = images.iter().chain(&kept).map(|image| image.reference.to_string());
        let names: BTreeSet<String> = kept.collect();
        self.parts.progress.retain(|name| names.contains(name));
        let before = self.images.replace(images.into());
        let mut kept: BTreeMap<String, (&Image, Memory)> = BTreeMap::new();
        for (image, memory) in before.iter().zip(self.memories.take()) {
            kept.insert(image.reference.to_string(), (image, memory));
        }
        let images = self.images();
        let memories = images.iter().map(|image| {
            let known = kept.remove(&image.reference.to_string());
            let known = known.filter(|(before, _)| *before == image);
            let mut memory = known.map(|(_, memory)| memory).unwrap_or_default();
            memory.not_before = memory.not_before.filter(|_| !memory.is_unsigned);
            memory
        });
        self.memories.replace(memories.collect());
    }

    /// Suspends the downloads for images that are not planned, or not desired, any more.
    fn call_off(&self) {
        let memories = self.memories.borrow();
        let planned: BTreeSet<Digest> = memories.iter().flat_map(Memory::planned).collect();
        let images = self.images();
        let images = images.iter().zip(memories.iter());
        let under_way = images.filter(|(_, memory)| !memory.under_way().is_empty());
        let names = under_way.map(|(image, _)| image.reference.to_string()).collect();
        self.parts.puller.call_off(&names, &planned);
    }

    fn images(&self) -> Rc<[Image]> {
        Rc::clone(&self.images.borrow())
    }

    /// What came from files and stays though it is not desired, as far as it is held.
    fn imported(&self) -> Vec<Image> {
        let imports = Imports::of(&self.parts.store);
        let image = |name: &Reference| Image {
            reference: name.clone(),
            platforms: Vec::new(),
            activation: Activation::Now,
        };
        imports.names().iter().map(image).collect()
    }

    /// No client's request moves a tag of `images`, nor one that came from a file.
    fn set_desired(&self, images: &[Image]) {
        let imported = self.imported();
        let keys = images.iter().chain(&imported).map(key);
        self.parts.puller.set_desired(keys.collect());
    }

    /// The name of image number `index`.
    fn name(&self, index: usize) -> String {
        self.images().get(index).map(|image| image.reference.to_string()).unwrap_or_default()
    }

    /// Posts how much of an image is on flash.
    fn post(&self, image: &Image) -> Result<(), blob::Error> {
        let digest = self.held(image);
        let bytes = match digest {
            Some(digest) => match self.held_bytes(image, digest) {
                Err(error) if error.kind() == Kind::Corrupt => 0,
                other => other?,
            },
            None => 0,
        };
        self.parts.progress.update(&image.reference.to_string(), |notice| {
            notice.digest = digest;
            (notice.state, notice.error) = match digest {
                Some(_) => standing(image),
                None => (State::Pending, None),
            };
            (notice.held_bytes, notice.total_bytes) = (bytes, bytes);
        });
        Ok(())
    }

    /// Waits until it is time for another pass: when all images are due, or
    /// when a registry may be asked again that wanted a pause, or when a stop is asked for.
    pub async fn pause(&self) {
        let due = self.memories.borrow().iter().filter_map(|memory| memory.not_before).min();
        let due = due.map_or(self.poll_at.get(), |due| due.min(self.poll_at.get()));
        let stop = self.parts.puller.stop();
        stop.unless_opened(self.parts.clock.alarm(due)).await;
    }

    /// What is held of each image.
    pub fn held_digests(&self) -> Vec<Option<Digest>> {
        self.images().iter().map(|image| self.held(image)).collect()
    }

    /// The digest that is held under an image's tag.
    fn held(&self, image: &Image) -> Option<Digest> {
        self.parts.store.tag(&key(image))
    }

    fn held_bytes(&self, image: &Image, digest: Digest) -> Result<u64, blob::Error> {
        let root = Root { digest, platforms: &image.platforms };
        let digests = self.parts.catalog.reachable(&[root])?;
        let entries = digests.iter().filter_map(|digest| self.parts.store.entry(digest));
        Ok(entries.map(|entry| entry.size).sum())
    }

    /// Removes the tags that are not desired, but for those that clients may have fetched or that
    /// another image of their repository is to replace and cannot yet, and pins what the desired
    /// ones reach; every other blob, but what images under way need, is held only for as long as
    /// nothing else needs its room.
    async fn collect(&self) -> Result<(), blob::Error> {
        let Parts { store, catalog, .. } = &self.parts;
        if !self.is_whole.get() {
            return Ok(());
        }
        let (images, imported) = (self.images(), self.imported());
        let kept = || images.iter().chain(&imported);
        let desired: BTreeSet<TagKey> = kept().map(key).collect();
        let tags = store.tags();
        let held = kept().filter_map(|image| self.held(image).map(|root| (root, image)));
        let roots: Vec<Root<'_>> =
            held.map(|(digest, image)| Root { digest, platforms: &image.platforms }).collect();
        let mut reachable = catalog.reachable(&roots)?;
        let missing = images.iter().filter(|image| self.held(image).is_none()).map(key);
        let missing: BTreeSet<(String, String)> =
            missing.map(|key| (key.registry, key.repository)).collect();
        let (signatures, gone) = sweep::sort_tags(&tags, &desired, &reachable, |key| {
            self.parts.puller.pulls_through(&key.registry, &key.repository)
                || missing.contains(&(key.registry.clone(), key.repository.clone()))
        });
        for key in gone {
            info!("{}/{}:{} is not desired any more", key.registry, key.repository, key.tag);
            store.remove_tag(key).await?;
        }
        let signatures: Vec<Root<'_>> = signatures.into_iter().map(Root::whole).collect();
        reachable.extend(catalog.reachable(&signatures)?);
        let pinned: Vec<Digest> = reachable.iter().copied().collect();
        store.pin(&pinned, true).await?;
        let under_way = self.under_way();
        let mut idle = store.digests();
        idle.retain(|digest| !reachable.contains(digest) && !under_way.contains(digest));
        store.pin(&idle, false).await
    }

    /// Makes the tags mean what was staged for them and is desired now, each in one record. What
    /// was not staged whole is fetched as any other.
    async fn switch(&self) -> Result<(), blob::Error> {
        let Parts { store, catalog, .. } = &self.parts;
        for image in self.images().iter().filter(|image| !image.is_staged()) {
            let staged = pull::staged_key(&image.reference);
            let Some(digest) = store.tag(&staged) else { continue };
            let is_meant = image.reference.digest.is_none_or(|wanted| wanted == digest);
            if is_meant && catalog.complete(&digest, &image.platforms)? {
                store.set_tag(&key(image), &digest).await?;
                info!("{}: activated at {}", image.reference, digest.short());
                self.post(image)?;
            }
            store.remove_tag(&staged).await?;
        }
        Ok(())
    }

    /// Drops the downloads that no image waits for, once every image is known to wait for what
    /// it was planned with, or for nothing. Those that a client may come back for are kept a while.
    async fn drop_downloads(&self) -> Result<(), blob::Error> {
        if !self.is_whole.get() {
            return Ok(());
        }
        let dead: Vec<Digest> = {
            let memories = self.memories.borrow();
            if !memories.iter().all(Memory::is_known) {
                return Ok(());
            }
            let planned: BTreeSet<Digest> = memories.iter().flat_map(Memory::planned).collect();
            let mut partials = self.parts.store.partials();
            partials.retain(|partial| !planned.contains(&partial.digest));
            let now = self.parts.clock.monotonic();
            let for_clients = self.parts.puller.pulls_any_through();
            self.idle.borrow_mut().dead(&partials, now, for_clients)
        };
        self.parts.store.delete(&dead).await
    }

    /// Sets the gauges that follow from the store.
    fn export_gauges(&self) {
        let images = self.images();
        let held = images.iter().filter(|image| self.held(image).is_some());
        self.parts.metrics.images_held.set(held.count() as u64);
        self.parts.metrics.images_desired.set(images.len() as u64);
    }
}

/// The tag under which the log keeps an image.
fn key(image: &Image) -> TagKey {
    match image.is_staged() {
        true => pull::staged_key(&image.reference),
        false => pull::tag_key(&image.reference),
    }
}

/// How an image stands that is held, and what is to be said of that.
fn standing(image: &Image) -> (State, Option<String>) {
    match image.activation {
        Activation::Now => (State::Held, None),
        Activation::At(at) => (State::Staged, Some(activation_text(Some(at)))),
        Activation::Undecided => (State::Staged, Some(activation_text(None))),
    }
}
