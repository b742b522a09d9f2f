//! What is remembered of an image from pass to pass: how it stood, and what it waits for.

use std::time::Duration;

use crate::blob::{Room, Want};
use crate::oci::Digest;
use crate::pull::Plan;

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
    pub referrers_due: Option<Duration>,
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
