//! Why a log could not be mounted, and whether it may be later.

use std::fmt;

use super::user;
use crate::kind::Kind;
use crate::{blob, flash};

/// Why a log could not be mounted.
#[derive(Debug)]
pub enum Unmounted {
    /// Its device could not be opened.
    Device(flash::Error),
    /// It cannot be opened as the user that the configuration names.
    User(user::Error),
    /// What is on it is no log, or one that cannot be read.
    Log(blob::Error),
}

impl Unmounted {
    /// Whether it may be mounted later: a disk that is not attached yet, one that answers with
    /// errors, or is full. What is damaged, newer than this program or in use stays so.
    pub fn may_pass(&self) -> bool {
        let kind = match self {
            Self::User(_) => return false,
            Self::Device(error) => error.kind(),
            Self::Log(error) => error.kind(),
        };
        matches!(kind, Kind::Missing | Kind::Retry | Kind::Full)
    }
}

impl fmt::Display for Unmounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unmounted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::User(error) => Some(error),
            Self::Device(error) => Some(error),
            Self::Log(error) => Some(error),
        }
    }
}

impl From<flash::Error> for Unmounted {
    fn from(error: flash::Error) -> Self {
        Self::Device(error)
    }
}

impl From<user::Error> for Unmounted {
    fn from(error: user::Error) -> Self {
        Self::User(error)
    }
}

impl From<blob::Error> for Unmounted {
    fn from(error: blob::Error) -> Self {
        Self::Log(error)
    }
}
