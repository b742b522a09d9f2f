//! Whether an image fits, before its first layer is fetched, and what is evicted for it.
//!
//! What is pinned, and what other images were promised that are being fetched, stays. What cannot
//! fit beside that is refused with the figures, and nothing is fetched for it again, its manifests
//! neither, for as long as its registry has the same image and it still would not fit.

use std::collections::BTreeSet;

use log::info;

use super::Reconciler;
use super::memory::{Need, Planned};
use super::pass::Pass;
use super::sweep::give_way;
use crate::blob::{Admission, Want};
use crate::kind::Kind;
use crate::oci::Digest;
use crate::pull::{self, Plan};

impl Reconciler {
    /// Takes room for a plan, when it is the image's turn.
    ///
    /// # Errors
    /// [`Kind::Full`] with the figures when it does not fit; that is remembered.
    pub(super) async fn admit(
        &self,
        index: usize,
        plan: &Plan,
        pass: &Pass,
    ) -> Result<(), pull::Error> {
        let (wants, required) = plan.wants();
        let digest = plan.root;
        let planned = Planned { digest, wants, required, is_under_way: false, shortfall: None };
        self.parts.puller.unless_stopped(pass.turn(index, &self.parts.clock)).await?;
        let mut admission = self.admission(index, planned.required());
        if !admission.is_granted() {
            // Perhaps what is not desired any more is pinned still.
            self.collect().await?;
            admission = self.admission(index, planned.required());
        }
        if !admission.is_granted() {
            self.remember(index, |memory| memory.need = Need::Refused(planned));
            return Err(refusal(&plan.name, &admission));
        }
        let planned = Planned { is_under_way: true, ..planned };
        self.remember(index, |memory| memory.need = Need::Admitted(planned));
        self.call_off();
        pass.decide(index);
        self.make_room(index, &admission).await
    }

    /// Refuses what was refused before and is the same still, without asking for its manifests.
    pub(super) fn refuse_again(&self, index: usize, current: Digest) -> Result<(), pull::Error> {
        let memories = self.memories.borrow();
        let Some(memory) = memories.get(index) else { return Ok(()) };
        let Need::Refused(planned) = &memory.need else { return Ok(()) };
        if planned.digest != current {
            return Ok(());
        }
        let admission = self.admission(index, planned.required());
        match &planned.shortfall {
            _ if !admission.is_granted() => Err(refusal(&self.name(index), &admission)),
            Some((room, why)) if *room == admission.data => {
                Err(pull::Error::new(Kind::Full, "", why.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The log was full all the same, in pieces too small: what was admitted is refused until its
    /// room changes.
    pub(super) fn fell_short(&self, index: usize, error: &pull::Error) {
        let need = self.memories.borrow_mut().get_mut(index).map(|m| std::mem::take(&mut m.need));
        if let Some(Need::Admitted(planned)) = need {
            let room = self.admission(index, planned.required()).data;
            let shortfall = Some((room, error.to_string()));
            let planned = Planned { is_under_way: false, shortfall, ..planned };
            self.remember(index, |memory| memory.need = Need::Refused(planned));
        }
    }

    /// What is being downloaded now.
    pub(super) fn under_way(&self) -> BTreeSet<Digest> {
        let memories = self.memories.borrow();
        memories.iter().flat_map(|memory| memory.under_way()).map(|want| want.digest).collect()
    }

    fn admission(&self, index: usize, wants: &[Want]) -> Admission {
        let memories = self.memories.borrow();
        let others = memories.iter().enumerate().filter(|(other, _)| *other != index);
        let promised: Vec<Want> =
            others.flat_map(|(_, memory)| memory.under_way()).copied().collect();
        self.parts.store.admission(wants, &promised)
    }

    /// Drops downloads that stand in the way: of those that no image waits for, as many as are
    /// lacking; of others, as many as no cached blob makes room for.
    async fn make_room(&self, index: usize, admission: &Admission) -> Result<(), pull::Error> {
        let under_way = self.under_way();
        let dead = {
            let memories = self.memories.borrow();
            let planned = |digest: &Digest| {
                memories.iter().position(|memory| memory.planned().any(|other| other == *digest))
            };
            let mut partials = self.parts.store.reserved();
            partials.retain(|(partial, _)| !under_way.contains(&partial.digest));
            let (waited_for, unplanned): (Vec<_>, Vec<_>) =
                partials.into_iter().partition(|(partial, _)| planned(&partial.digest).is_some());
            let mut dead = give_way(&unplanned, planned, admission.lacking());
            let given = unplanned.iter().filter(|(partial, _)| dead.contains(&partial.digest));
            let given: u64 = given.map(|(_, bytes)| bytes).sum();
            let stuck = admission.stuck().saturating_sub(given);
            dead.extend(give_way(&waited_for, planned, stuck));
            dead
        };
        if !dead.is_empty() {
            let name = self.name(index);
            info!("{} downloads that were begun are dropped for {name}", dead.len());
            self.parts.store.delete(&dead).await?;
        }
        Ok(())
    }
}

/// Why an image is not fetched.
fn refusal(name: &str, admission: &Admission) -> pull::Error {
    pull::Error::new(Kind::Full, name, admission.refusal())
}
