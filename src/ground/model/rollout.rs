//! Where a rollout is, and where each of its satellites.

use super::satellite::Connection;

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Running,
    /// A batch is complete, and a person is asked whether to go on.
    AwaitingApproval,
    /// By a person.
    Paused,
    /// The new state is taken back, by rule.
    RollingBack,
    /// The same, by a person.
    Aborting,
    Completed,
    RolledBack,
    Aborted,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Running,
        Self::AwaitingApproval,
        Self::Paused,
        Self::RollingBack,
        Self::Aborting,
        Self::Completed,
        Self::RolledBack,
        Self::Aborted,
    ];

    /// Its name in the API and the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::AwaitingApproval => "AwaitingApproval",
            Self::Paused => "Paused",
            Self::RollingBack => "RollingBack",
            Self::Aborting => "Aborting",
            Self::Completed => "Completed",
            Self::RolledBack => "RolledBack",
            Self::Aborted => "Aborted",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.word() == word)
    }

    /// Whether nothing comes after it.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack | Self::Aborted)
    }
}

/// What a satellite said of the new state, as of its last report since it was released to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not reported since.
    Unseen,
    Updating,
    Updated,
    /// An image of it cannot be had.
    Failed,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Unseen, Self::Updating, Self::Updated, Self::Failed];

    /// Its name in the API and the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unseen => "Unseen",
            Self::Updating => "Updating",
            Self::Updated => "Updated",
            Self::Failed => "Failed",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.word() == word)
    }
}

/// A satellite of the current batch.
#[derive(Clone, Debug)]
pub struct Member {
    pub satellite_id: i64,
    /// Since when its state names the new version; None while it waits.
    pub released_at: Option<i64>,
    pub outcome: Outcome,
    /// Since when an image of it fails; an attempt that is under way ends that not.
    pub failed_at: Option<i64>,
    pub connection: Connection,
}
