//! How the tags of groups are taken.

/// How a group's tags are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each satellite asks the registry for itself.
    Off,
    /// What the registry says counts.
    Follow,
    /// What it said first counts, until another is approved.
    Pin,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Off, Self::Follow, Self::Pin];

    /// Its name in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Follow => "follow",
            Self::Pin => "pin",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.word() == word)
    }
}
