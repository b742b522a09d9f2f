//! A look at the desired state: what has changed is read, checked, kept, and put into effect.

use std::rc::Rc;
use std::time::Duration;

use log::info;
use serde::de::DeserializeOwned;

use super::desired::Desired;
use super::documents::Documents;
use super::enrolment::refused;
use super::{
    Control, DESIRED, DESIRED_BYTES_MAX, DESIRED_VERSION, Error, Fleet, Source, artifact, left,
};
use crate::fleet::Invalid;
use crate::fleet::config::Taken;
use crate::fleet::document::{self, Document};
use crate::fleet::state::{GroupState, SatelliteState, Url};
use crate::kind::Kind;
use crate::oci::Digest;

impl Control {
    /// Looks at the desired state. What has not changed costs no body and no write.
    ///
    /// Returns the artifacts that are left as they were, and why, a line each.
    ///
    /// # Errors
    /// Where the state itself cannot be read; what was known stays in effect.
    pub async fn poll(&self) -> Result<Vec<String>, Error> {
        let fleet = self.fleet()?;
        let polled = self.read_state(&fleet).await;
        self.note(polled.as_ref().err());
        self.trial.polled(polled.as_ref().map(drop));
        polled.map_err(refused)
    }

    async fn read_state(&self, fleet: &Rc<Fleet>) -> Result<Vec<String>, Error> {
        let unkept = self.unkept.borrow().clone();
        let (is_kept, mut whole) = (unkept.is_none(), None);
        let before = unkept.unwrap_or_else(|| Desired::clone(&self.desired.borrow()));
        let mut next = match &fleet.source {
            Source::Ground(..) => {
                let place = fleet.state_of(&self.enrolled()?);
                let check = SatelliteState::check;
                let read = self.artifact(fleet, &place, before.digest, &mut whole, check).await?;
                let is_known = whole.is_some() && whole == *fleet.whole.borrow();
                if read.is_none() && is_known && is_kept {
                    return Ok(Vec::new());
                }
                match read {
                    Some((digest, state)) => before.with(digest, &state),
                    None => before,
                }
            }
            Source::Documents(documents) => read_first(documents, before).await?,
        };
        let mut problems = Vec::new();
        for group in &mut next.groups {
            // A document that is the whole state was read already.
            if group.digest.is_some() && group.digest == next.digest {
                continue;
            }
            match self.part(fleet, &group.url, group.digest, GroupState::check).await {
                Ok(None) => {}
                Ok(Some((digest, state))) => *group = group.with(digest, state),
                // What is new and cannot be had yet must not cost what it takes the place of.
                Err(error) if group.digest.is_none() && error.kind() == Kind::Retry => {
                    return Err(error);
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        if let Some(config) = &mut next.config {
            if let Some((digest, why)) = &config.refused {
                fleet.refuse(&config.url, *digest, why);
            }
            match self.part(fleet, &config.url, config.digest, Taken::check).await {
                Ok(None) => config.refused = None,
                Ok(Some((digest, taken))) => match &config.refused {
                    Some((refused, why)) if *refused == digest => problems.push(why.clone()),
                    _ => *config = config.with(digest, fleet.plain(taken)),
                },
                Err(error) if config.digest.is_none() && error.kind() == Kind::Retry => {
                    return Err(error);
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        self.keep_active(fleet, next).await?;
        fleet.whole.replace(whole.filter(|_| problems.is_empty()));
        Ok(problems)
    }

    /// Puts into effect what is staged and whose time has come, without the network. That is kept
    /// first, so that it stays so though the clock is lost with the power.
    ///
    /// # Errors
    /// Where it cannot be kept; it is due still.
    pub async fn activate(&self) -> Result<(), Error> {
        let is_due = self.activates_in() == Some(Duration::ZERO);
        let (true, Ok(fleet)) = (is_due, self.fleet()) else { return Ok(()) };
        let next = Desired::clone(&self.desired.borrow());
        self.keep_active(&fleet, next).await
    }

    /// Puts a desired state into effect, with what of it is staged and whose time has come.
    async fn keep_active(&self, fleet: &Rc<Fleet>, mut next: Desired) -> Result<(), Error> {
        let is_activated = next.activate(self.parts.clock.unix_seconds());
        self.keep_desired(fleet, next).await?;
        if is_activated {
            info!("it is time: what was staged is desired now");
        }
        Ok(())
    }

    /// How long it is until something that is staged takes its place, by the clock as it is now.
    pub fn activates_in(&self) -> Option<Duration> {
        let at = self.desired.borrow().activates_at()?;
        Some(Duration::from_secs(at.saturating_sub(self.parts.clock.unix_seconds())))
    }

    /// Reads a part of the state, an artifact or a document, unless it is still the one `known`.
    async fn part<T: DeserializeOwned>(
        &self,
        fleet: &Fleet,
        place: &str,
        known: Option<Digest>,
        check: impl Fn(&T) -> Result<(), Invalid>,
    ) -> Result<Option<(Digest, T)>, Error> {
        if let Source::Documents(documents) = &fleet.source {
            let parse = |bytes: &[u8]| document::checked(bytes, check);
            return documents.read(place, known.as_ref(), parse).await;
        }
        self.artifact(fleet, place, known, &mut None, check).await
    }

    /// The same for an artifact, with what was said of the whole state with it.
    async fn artifact<T: DeserializeOwned>(
        &self,
        fleet: &Fleet,
        place: &str,
        known: Option<Digest>,
        whole: &mut Option<String>,
        check: impl Fn(&T) -> Result<(), Invalid>,
    ) -> Result<Option<(Digest, T)>, Error> {
        let enrolment = self.enrolled()?;
        let parsed = Url::parse(place)?;
        let registry = self.registry(fleet, &enrolment, &parsed.base)?;
        artifact::read(&registry, &parsed, known.as_ref(), &fleet.unusable, whole, check).await
    }

    /// Puts another desired state into effect, once it is durable.
    pub(super) async fn keep_desired(&self, fleet: &Rc<Fleet>, next: Desired) -> Result<(), Error> {
        if next == **self.desired.borrow() {
            self.unkept.replace(None);
            return Ok(());
        }
        let mut bytes = vec![DESIRED_VERSION];
        bytes = postcard::to_extend(&next, bytes)
            .map_err(|error| Error::new(Kind::Invalid, format!("desired state: {error}")))?;
        if bytes.len() > DESIRED_BYTES_MAX {
            let (length, images) = (bytes.len(), next.image_count());
            self.unkept.replace(Some(next));
            let expected = format!("expected at most {DESIRED_BYTES_MAX}, some 800 images");
            let what = format!("the desired state has {length} bytes of {images} images");
            return Err(Error::new(Kind::Invalid, format!("{what}: {expected}")));
        }
        let kept = self.keep(fleet, DESIRED, &bytes).await;
        if !self.is_current(fleet) {
            return Err(left());
        }
        if let Err(error) = kept {
            self.unkept.replace(Some(next));
            return Err(error);
        }
        self.unkept.replace(None);
        fleet.follow(&next);
        let is_tried = next.trial_digest() == self.desired.borrow().trial_digest();
        self.desired.replace(Rc::new(next));
        if !is_tried {
            self.trial.restart(None);
        }
        self.is_changed.set(true);
        Ok(())
    }
}

/// The first document of a state, and with it the places of the others.
async fn read_first(documents: &Documents, before: Desired) -> Result<Desired, Error> {
    let first = documents.first();
    let read = documents.read(&first, before.digest.as_ref(), Document::parse).await?;
    Ok(match read {
        None => before,
        Some((digest, Document::Group(group))) => Desired::of_group(first, digest, group),
        Some((digest, Document::Satellite(mut state))) => {
            for place in &mut state.states {
                *place = documents.place(place)?;
            }
            if !state.config.is_empty() {
                state.config = documents.place(&state.config)?;
            }
            before.with(digest, &state)
        }
    })
}
