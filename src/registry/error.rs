//! What can go wrong with a registry.

use std::fmt;
use std::time::Duration;

use crate::kind::Kind;

/// Why a registry did not give what was asked for.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    retry_after: Option<Duration>,
}

impl Error {
    pub(super) fn new(kind: Kind, what: String) -> Self {
        Self { kind, what, retry_after: None }
    }

    /// With the seconds that the registry asked to be left alone for.
    pub(super) fn after(self, seconds: Option<u64>) -> Self {
        Self { retry_after: seconds.map(Duration::from_secs), ..self }
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How long the registry asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}
