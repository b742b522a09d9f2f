//! One image: what its registry says it is, what is held of it, and what to do about the rest.

use std::time::Duration;

use log::{info, warn};

use super::memory::{End, Memory, Need};
use super::pass::{Lane, Pass};
use super::{Reconciler, key};
use crate::blob;
use crate::catalog::Root;
use crate::config::Image;
use crate::kind::Kind;
use crate::oci::{Digest, Platform};
use crate::pull::progress::State;
use crate::pull::{self, Plan};
use crate::units::ByteCount;

impl Reconciler {
    /// Makes one image be what its registry says it is.
    pub(super) async fn image(
        &self,
        index: usize,
        pass: &Pass,
        lane: &Lane,
    ) -> Result<End, pull::Error> {
        let images = self.images();
        let Some(image) = images.get(index) else { return Ok(End::Failed) };
        let held = self.held(image);
        let puller = &self.parts.puller;
        let asked = puller.current(&image.reference, &lane.answered);
        // Without a link the answer takes long, and other images may be desired meanwhile.
        let asked = pass.leave.unless_opened(asked).await.ok_or_else(pull::Error::left)?;
        let (current, gone) = match asked {
            Ok(digest) => (digest, None),
            Err(error) if error.kind() == Kind::Missing => match held {
                // The registry may have lost the tag only.
                Some(root) => (root, Some(error.to_string())),
                None => return Err(error),
            },
            Err(error) => return Err(error),
        };
        let end = gone.map_or(End::Held, End::Gone);
        self.remember(index, |memory| memory.current = Some(current));
        if held == Some(current) && self.is_sound(image, current, pass).await? {
            let is_due = end == End::Held && self.referrers_are_due(index);
            if !is_due {
                self.remember(index, |memory| memory.need = Need::Nothing);
                return Ok(end);
            }
            // What was planned before stays so, and what has come of it.
            puller.may_sync()?;
        }
        self.refuse_again(index, current)?;
        self.parts.progress.update(&image.reference.to_string(), |notice| {
            notice.state = State::Syncing;
        });
        let plan = match self.take_left(index, current) {
            Some(plan) => plan,
            None if pass.leave.is_open() => return Err(pull::Error::left()),
            None => {
                let plan = puller.plan(&image.reference, Some(current), &image.platforms);
                let mut plan = plan.await?;
                plan.key = key(image);
                plan
            }
        };
        // Before room is made for it.
        let checked = puller.check_signed(&plan, index, &pass.leave);
        let admitted = match pass.download(checked).await {
            Ok(()) => self.admit(index, &plan, pass).await,
            Err(error) => Err(error),
        };
        let fetched = match admitted {
            Ok(()) => self.fetch(index, &plan, &image.platforms, pass).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &fetched
            && error.is_left()
        {
            self.remember(index, |memory| memory.left = Some(plan));
            return Err(pull::Error::left());
        }
        self.remember(index, |memory| match (&fetched, &mut memory.need) {
            (Ok(None), need) if plan.waits.is_none() => *need = Need::Nothing,
            // What has come of the rest stays.
            (_, Need::Admitted(planned)) => planned.is_under_way = false,
            _ => {}
        });
        if let Some(waits) = fetched?.or(plan.waits.map(pull::Error::shared)) {
            // The tag means it now, and what accompanied the one before it may not be due.
            self.remember(index, |memory| memory.referrers_due = None);
            return Err(waits);
        }
        let interval = if plan.is_provisional { REFERRERS_RETRY } else { REFERRERS_INTERVAL };
        let due = self.parts.clock.monotonic() + interval;
        self.remember(index, |memory| memory.referrers_due = Some(due));
        self.check_repaired(Root { digest: plan.root, platforms: &image.platforms })?;
        Ok(end)
    }

    /// Fetches what was planned and admitted; returns why some of what accompanies it has to wait.
    async fn fetch(
        &self,
        index: usize,
        plan: &Plan,
        platforms: &[Platform],
        pass: &Pass,
    ) -> Result<Option<pull::Error>, pull::Error> {
        let name = &plan.name;
        let held = self.parts.store.tag(&plan.key);
        let total = plan.total_bytes();
        let missing: u64 = self.parts.puller.missing(plan).iter().map(|blob| blob.size).sum();
        let partial: u64 = self.partial_bytes(plan);
        self.parts.progress.update(name, |notice| {
            notice.total_bytes = total;
            notice.held_bytes = total.saturating_sub(missing) + partial;
            notice.error = None;
        });
        let fetch = || pass.download(self.parts.puller.fetch(plan, index, &pass.leave));
        let waits = match fetch().await {
            Err(error) if error.kind() == Kind::Full => {
                warn!("{error}; giving up what is not desired and trying once more");
                self.collect().await?;
                let again = fetch().await;
                if let Err(error) = &again
                    && error.kind() == Kind::Full
                {
                    self.fell_short(index, error);
                }
                again?
            }
            other => other?,
        };
        self.parts.catalog.learn(platforms).await?;
        self.parts.progress.update(name, |notice| {
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
        Ok(waits)
    }

    /// The plan of an image whose downloads go on, if it is `current` still.
    fn take_left(&self, index: usize, current: Digest) -> Option<Plan> {
        let left = self.memories.borrow_mut().get_mut(index)?.left.take();
        left.filter(|plan| plan.root == current)
    }

    /// Changes what is remembered of an image.
    pub(super) fn remember(&self, index: usize, change: impl FnOnce(&mut Memory)) {
        if let Some(memory) = self.memories.borrow_mut().get_mut(index) {
            change(memory);
        }
    }

    /// Signatures are often pushed after their image, and move no tag: they are asked for again
    /// from time to time.
    fn referrers_are_due(&self, index: usize) -> bool {
        let now = self.parts.clock.monotonic();
        let memories = self.memories.borrow();
        let due = memories.get(index).and_then(|memory| memory.referrers_due);
        due.is_none_or(|due| now >= due)
    }

    /// Whether all of an image is held, after what of it is known to be corrupt was repaired.
    async fn is_sound(
        &self,
        image: &Image,
        digest: Digest,
        pass: &Pass,
    ) -> Result<bool, pull::Error> {
        let root = Root { digest, platforms: &image.platforms };
        if self.is_corrupt_within(root)? {
            pass.download(self.repair(&pass.leave)).await;
            if pass.leave.is_open() && self.is_corrupt_within(root)? {
                return Err(pull::Error::left());
            }
            self.check_repaired(root)?;
        }
        Ok(self.parts.catalog.complete(&digest, &image.platforms)?)
    }

    /// Whether an image is held, whole and sound, as its registry had it last: `current`, where it
    /// was asked since the start.
    pub(super) fn is_held_as(&self, image: &Image, current: Option<Digest>) -> bool {
        let held = self.held(image);
        let is_whole = |digest| {
            let root = Root { digest, platforms: &image.platforms };
            let is_complete = || self.parts.catalog.complete(&digest, &image.platforms);
            Ok::<_, blob::Error>(!self.is_corrupt_within(root)? && is_complete()?)
        };
        held.is_some_and(|held| {
            current.is_none_or(|current| current == held) && is_whole(held).unwrap_or(false)
        })
    }

    fn partial_bytes(&self, plan: &Plan) -> u64 {
        let wanted = plan.digests();
        let partials = self.parts.store.partials();
        partials.iter().filter(|p| wanted.contains(&p.digest)).map(|p| p.frontier).sum()
    }
}

/// How long a new signature of a held image may go unnoticed. Asking costs about 3 KB a manifest,
/// as much as an hour of polls.
const REFERRERS_INTERVAL: Duration = Duration::from_hours(6);
/// The same where some of what accompanies an image could not be asked for.
const REFERRERS_RETRY: Duration = Duration::from_mins(30);
