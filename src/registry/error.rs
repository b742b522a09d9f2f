//! What can go wrong with a registry.

use std::fmt;
use std::time::Duration;

use crate::kind::Kind;
use crate::net;

/// Why a registry did not serve what was asked for.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    source: Option<Box<net::Error>>,
    retry_after: Option<Duration>,
    is_unanswered: bool,
    is_throttled: bool,
    is_held_back: bool,
}

impl Error {
    pub(super) fn new(kind: Kind, what: String) -> Self {
        Self {
            kind,
            what,
            source: None,
            retry_after: None,
            is_unanswered: false,
            is_throttled: false,
            is_held_back: false,
        }
    }

    /// With its cause, of which the line says enough.
    pub(super) fn caused_by(self, source: net::Error) -> Self {
        Self { source: Some(Box::new(source)), ..self }
    }

    /// With the time that the registry asked to be left alone for.
    pub(super) fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// Of a request that may not go over the link before that time.
    pub(super) fn held_back(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), is_held_back: true, ..self }
    }

    /// Of a request that the registry did not answer.
    pub(super) fn unanswered(self) -> Self {
        Self { is_unanswered: true, ..self }
    }

    /// Of a request that was one too many.
    pub(super) fn throttled(self) -> Self {
        Self { is_throttled: true, ..self }
    }

    /// Whether the registry asks for fewer requests (status 429).
    pub fn is_throttled(&self) -> bool {
        self.is_throttled
    }

    /// Whether the registry could not be reached or did not answer in time.
    pub fn is_unanswered(&self) -> bool {
        self.is_unanswered
    }

    /// Whether it is the link's limits and no registry that asks for a pause.
    pub fn is_held_back(&self) -> bool {
        self.is_held_back
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

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
