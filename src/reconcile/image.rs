//! One image: what its registry says it is, what is held of it, and what to do about the rest.

use std::time::Duration;

use log::{info, warn};

use super::pass::{Lane, Pass};
use super::{Reconciler, key};
use crate::blob::{self, Room, Want};
use crate::catalog::Root;
use crate::config::Image;
use crate::kind::Kind;
use crate::oci::{Digest, Platform};
use crate::pull::progress::State;
use crate::pull::{self, Plan};
use crate::units::ByteCount;

/// What is remembered of an image from pass to pass.
#[derive(Default)]
pub(super) struct Memory {
    /// How it stood when it was looked at last.
    pub end: End,
    /// What its registry said last that it is.
    pub current: Option<Digest>,
    /// Before when its registry is not to be asked again, by the monotonic clock.
    pub not_before: Option<Duration>,
    /// Whether that is the link's doing, which a reload may change.
    pub is_held_back: bool,
    /// Whether it waits for a signature: with other keys it is tried at once.
    pub is_unsigned: bool,
    /// What was last reported of it.
    pub reported: Option<String>,
    /// Whether its registry left the last request for it without an answer.
    pub was_unanswered: bool,
    /// When what accompanies it is to be asked for again, by the monotonic clock.
    referrers_due: Option<Duration>,
    /// What it waits for.
    pub need: Need,
    /// The plan of what is being downloaded for it, where a pass did not wait for the end of that.
    pub left: Option<Plan>,
}

/// How an image stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// Held whole, as its registry has it.
    Held,
    /// Held whole, and its registry does not have it any more, in its words.
    Gone(String),
    /// Neither, or not known yet.
    #[default]
    Failed,
}

/// What an image waits for.
#[derive(Debug, Default)]
pub(super) enum Need {
    /// That is not known: it was not planned since the start.
    #[default]
    Unknown,
    /// Nothing.
    Nothing,
    /// This, for which there was room.
    Admitted(Planned),
    /// This, and for room.
    Refused(Planned),
}

/// What was planned for an image.
#[derive(Debug)]
pub(super) struct Planned {
    /// What the image was at its registry.
    pub digest: Digest,
    /// The required ones come first.
    pub wants: Vec<Want>,
    /// How many they are.
    pub required: usize,
    /// Whether it is being fetched now.
    pub is_under_way: bool,
    /// Why the log was full although it has room, and the room that it had.
    pub shortfall: Option<(Room, String)>,
}

impl End {
    pub fn is_held(&self) -> bool {
        !matches!(self, Self::Failed)
    }
}

impl Planned {
    /// What must have room for the image to be held.
    pub fn required(&self) -> &[Want] {
        self.wants.get(..self.required).unwrap_or_default()
    }
}

impl Memory {
    /// Whether it is known what the image waits for.
    pub fn is_known(&self) -> bool {
        !matches!(self.need, Need::Unknown)
    }

    /// Whether it waits for room.
    pub fn is_refused(&self) -> bool {
        matches!(self.need, Need::Refused(_))
    }

    /// What is to be downloaded for it.
    pub fn planned(&self) -> impl Iterator<Item = Digest> {
        let wants = match &self.need {
            Need::Admitted(planned) => planned.wants.as_slice(),
            _ => &[],
        };
        wants.iter().map(|want| want.digest)
    }

    /// What is being downloaded for it now.
    pub fn under_way(&self) -> &[Want] {
        match &self.need {
            Need::Admitted(planned) if planned.is_under_way => &planned.wants,
            _ => &[],
        }
    }

    /// Notes what is reported; says whether that is another thing than the last time.
    pub fn is_news(&mut self, text: &str) -> bool {
        self.reported.replace(text.to_owned()).as_deref() != Some(text)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_is_news_once() {
        let mut memory = Memory::default();
        assert!(memory.is_news("no room") && !memory.is_news("no room"));
        assert!(memory.is_news("gone") && memory.is_news("no room"));
    }

    #[test]
    fn only_what_was_admitted_is_downloaded() {
        let wants = vec![Want { digest: Digest::sha256(b"x"), size: 1 }];
        let planned = |is_under_way| {
            let digest = Digest::sha256(b"image");
            Planned { digest, wants: wants.clone(), required: 1, is_under_way, shortfall: None }
        };
        let memory = |need| Memory { need, ..Memory::default() };
        for (need, known, planned, under_way) in [
            (Need::Unknown, false, 0, 0),
            (Need::Nothing, true, 0, 0),
            (Need::Refused(planned(false)), true, 0, 0),
            (Need::Admitted(planned(false)), true, 1, 0),
            (Need::Admitted(planned(true)), true, 1, 1),
        ] {
            let memory = memory(need);
            let found = (memory.is_known(), memory.planned().count(), memory.under_way().len());
            assert_eq!(found, (known, planned, under_way), "{:?}", memory.need);
        }
    }
}
