//! Brings what is held in line with what is desired.
//!
//! Observed state is the blob log itself, never a second file that could disagree with it. Each
//! image stands alone: one that fails keeps what it had, is reported, and holds up no other. What
//! an unreachable registry cannot tell is left as it is. Only after every image was looked at does
//! anything lose its place.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use log::{error, info, warn};

use crate::blob::{self, Store, TagKey};
use crate::catalog::{Catalog, Root};
use crate::clock::SharedClock;
use crate::config::Image;
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::oci::{Digest, Platform};
use crate::pull::board::{Board, State};
use crate::pull::{self, Plan, Puller, SIGNATURE_TAG_SUFFIXES};
use crate::units::ByteCount;

/// What the reconciler works with.
pub struct Reconciler {
    /// The desired state.
    pub images: Vec<Image>,
    /// Where it is to be.
    pub store: Store,
    /// What is there.
    pub catalog: Catalog,
    /// Makes present what is not.
    pub puller: Rc<Puller>,
    /// Where progress is posted.
    pub board: Board,
    /// For the time of the last success.
    pub clock: SharedClock,
    /// For runs and failures.
    pub metrics: Rc<Metrics>,
    /// When each image's referrers were asked for, by the monotonic clock; begins empty.
    pub referrers_asked: RefCell<BTreeMap<TagKey, Duration>>,
}

/// How one reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Images that are held whole and up to date.
    pub held: usize,
    /// Images that are not; each was logged with its reason.
    pub failed: usize,
}

impl Outcome {
    /// Whether everything that is desired is held.
    pub fn is_converged(self) -> bool {
        self.failed == 0
    }
}

impl Reconciler {
    /// Posts what is already on flash, before the registry is asked anything.
    pub fn observe(&self) -> Result<(), blob::Error> {
        self.catalog.refresh()?;
        for image in &self.images {
            let digest = self.store.tag(&pull::tag_key(&image.reference));
            let bytes = match digest {
                Some(digest) => match self.held_bytes(image, digest) {
                    Err(error) if error.kind() == Kind::Corrupt => 0,
                    other => other?,
                },
                None => 0,
            };
            self.board.update(&image.reference.to_string(), |notice| {
                notice.digest = digest;
                notice.state = if digest.is_some() { State::Held } else { State::Pending };
                (notice.held_bytes, notice.total_bytes) = (bytes, bytes);
            });
        }
        self.count();
        Ok(())
    }

    /// One pass over all images; then what is not desired any more loses its place.
    pub async fn run(&self) -> Outcome {
        self.metrics.sync_runs.add(1);
        let mut outcome = Outcome { held: 0, failed: 0 };
        for image in &self.images {
            let name = image.reference.to_string();
            let problem = match self.image(image).await {
                Ok(()) => None,
                Err(error) => {
                    let held = self.store.tag(&pull::tag_key(&image.reference)).is_some();
                    let next = if held { "what is held stays served" } else { "not held yet" };
                    error!("{error}; {next}; tried again at the next poll");
                    Some(error.to_string())
                }
            };
            match problem {
                None => outcome.held += 1,
                Some(_) => outcome.failed += 1,
            }
            self.board.update(&name, |notice| {
                notice.state = if problem.is_none() { State::Held } else { State::Failed };
                notice.error = problem;
            });
        }
        let keep_partials = !outcome.is_converged();
        if let Err(error) = self.collect(&BTreeSet::new(), keep_partials).await {
            error!("giving up what is not desired any more: {error}");
        }
        if outcome.is_converged() {
            self.metrics.sync_last_success_seconds.set(self.clock.unix_seconds());
        } else {
            self.metrics.sync_failures.add(1);
        }
        self.count();
        outcome
    }

    /// Makes one image be what its registry says it is.
    async fn image(&self, image: &Image) -> Result<(), pull::Error> {
        let name = image.reference.to_string();
        let key = pull::tag_key(&image.reference);
        let current = self.puller.current(&image.reference).await?;
        let held = self.store.tag(&key);
        let is_current = current.is_some() && current == held && self.is_sound(image, held)?;
        if is_current && !self.referrers_are_due(&key) {
            return Ok(());
        }
        self.board.update(&name, |notice| notice.state = State::Syncing);
        let plan = self.puller.plan(&image.reference, current, &image.platforms).await?;
        let total = plan.total_bytes();
        let missing: u64 = self.puller.missing(&plan).iter().map(|blob| blob.size).sum();
        let partial: u64 = self.partial_bytes(&plan);
        self.board.update(&name, |notice| {
            notice.total_bytes = total;
            notice.held_bytes = total.saturating_sub(missing) + partial;
            notice.error = None;
        });
        match self.puller.fetch(&plan).await {
            Err(error) if error.kind() == Kind::Full => {
                warn!("{error}; giving up what is not desired and trying once more");
                self.collect(&plan.digests(), true).await?;
                self.puller.fetch(&plan).await?;
            }
            other => other?,
        }
        self.catalog.refresh()?;
        self.referrers_asked.borrow_mut().insert(key, self.clock.monotonic());
        self.board.update(&name, |notice| {
            notice.digest = Some(plan.root);
            notice.held_bytes = total;
        });
        match held {
            Some(old) if old != plan.root => {
                info!("{name}: moved from {} to {}", old.short(), plan.root.short());
            }
            Some(_) if missing == 0 => {}
            _ => info!("{name}: held at {}, {}", plan.root.short(), ByteCount(total)),
        }
        Ok(())
    }

    /// Signatures are often pushed after their image, and move no tag: they are asked for again
    /// from time to time.
    fn referrers_are_due(&self, key: &TagKey) -> bool {
        let now = self.clock.monotonic();
        let asked = self.referrers_asked.borrow().get(key).copied();
        asked.is_none_or(|asked| now.saturating_sub(asked) >= REFERRERS_INTERVAL)
    }

    /// Whether all of an image is held, and nothing of it is known to be rotten.
    fn is_sound(&self, image: &Image, held: Option<Digest>) -> Result<bool, blob::Error> {
        let Some(root) = held else { return Ok(false) };
        if !self.catalog.complete(&root, &image.platforms)? {
            return Ok(false);
        }
        let rotten = self.store.rotten();
        if rotten.is_empty() {
            return Ok(true);
        }
        let root = Root { digest: root, platforms: &image.platforms };
        let needed = self.catalog.reachable(&[root])?;
        Ok(!rotten.iter().any(|(digest, _)| needed.contains(digest)))
    }

    fn partial_bytes(&self, plan: &Plan) -> u64 {
        let wanted = plan.digests();
        let partials = self.store.partials();
        partials.iter().filter(|p| wanted.contains(&p.digest)).map(|p| p.frontier).sum()
    }

    fn held_bytes(&self, image: &Image, digest: Digest) -> Result<u64, blob::Error> {
        let root = Root { digest, platforms: &image.platforms };
        let digests = self.catalog.reachable(&[root])?;
        let entries = digests.iter().filter_map(|digest| self.store.entry(digest));
        Ok(entries.map(|entry| entry.size).sum())
    }

    /// Removes the tags that nobody desires and pins what the others reach; every other blob except
    /// `keep` is held only for as long as nothing else needs its room. Downloads that nobody
    /// desires are given up, except while an image still waits for some.
    async fn collect(
        &self,
        keep: &BTreeSet<Digest>,
        keep_partials: bool,
    ) -> Result<(), blob::Error> {
        let desired: BTreeSet<TagKey> =
            self.images.iter().map(|image| pull::tag_key(&image.reference)).collect();
        let tags = self.store.tags();
        let held = |image: &Image| self.store.tag(&pull::tag_key(&image.reference));
        let held = self.images.iter().filter_map(|image| held(image).map(|root| (root, image)));
        let roots: Vec<Root<'_>> =
            held.map(|(digest, image)| Root { digest, platforms: &image.platforms }).collect();
        let mut reachable = self.catalog.reachable(&roots)?;
        let everything = [Platform::all()];
        let mut signatures = Vec::new();
        for (key, root) in &tags {
            if desired.contains(key) {
                continue;
            }
            match signed_digest(&key.tag) {
                Some(subject) if reachable.contains(&subject) => {
                    signatures.push(Root { digest: *root, platforms: &everything });
                }
                _ => {
                    info!(
                        "{}/{}:{} is not desired any more",
                        key.registry, key.repository, key.tag
                    );
                    self.store.remove_tag(key).await?;
                }
            }
        }
        reachable.extend(self.catalog.reachable(&signatures)?);
        let desired: Vec<Digest> = reachable.iter().copied().collect();
        self.store.pin(&desired, true).await?;
        let kept = |digest: &Digest| reachable.contains(digest) || keep.contains(digest);
        let mut idle = self.store.digests();
        idle.retain(|digest| !kept(digest));
        self.store.pin(&idle, false).await?;
        if !keep_partials {
            let partials = self.store.partials().into_iter().map(|partial| partial.digest);
            let dead: Vec<Digest> = partials.filter(|digest| !kept(digest)).collect();
            self.store.delete(&dead).await?;
        }
        Ok(())
    }

    /// Sets the gauges that follow from the store.
    fn count(&self) {
        let held = |image: &&Image| self.store.tag(&pull::tag_key(&image.reference)).is_some();
        let held = self.images.iter().filter(held).count();
        self.metrics.images_desired.set(self.images.len() as u64);
        self.metrics.images_held.set(held as u64);
    }
}

/// The digest that a cosign tag such as `sha256-<hex>.sig` speaks of.
fn signed_digest(tag: &str) -> Option<Digest> {
    let stem = SIGNATURE_TAG_SUFFIXES.iter().find_map(|suffix| tag.strip_suffix(suffix))?;
    stem.replacen('-', ":", 1).parse().ok()
}

/// How long a new signature of a held image may go unnoticed. Asking costs about 3 KB a manifest,
/// as much as an hour of polls.
const REFERRERS_INTERVAL: Duration = Duration::from_hours(6);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosign_tags_name_their_subject() {
        let digest = Digest::sha256(b"x");
        let stem = digest.to_string().replace(':', "-");
        assert_eq!(signed_digest(&format!("{stem}.sig")), Some(digest));
        assert_eq!(signed_digest(&stem), None);
        assert_eq!(signed_digest("v1.sig"), None);
    }
}
