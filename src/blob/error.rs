//! What can go wrong in the blob log.

use std::fmt;

use crate::flash;
use crate::kind::Kind;

/// Why the log did not do what it was asked to.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    source: Option<flash::Error>,
}

impl Error {
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => source.fmt(f),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<flash::Error> for Error {
    fn from(source: flash::Error) -> Self {
        Self { kind: source.kind(), what: String::new(), source: Some(source) }
    }
}
