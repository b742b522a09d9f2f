//! Why an image could not be made present.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::kind::Kind;
use crate::oci::ManifestError;
use crate::{blob, fetch, registry};

/// Why something could not be made present.
#[derive(Debug)]
pub struct Error {
    what: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Registry(registry::Error),
    Fetch(fetch::Error),
    Store(blob::Error),
    Manifest(ManifestError),
    /// That of something which others wait for as well.
    Shared(Rc<Error>),
    /// The image is not signed as it must be.
    Unsigned(String),
    /// It was not waited for to the end.
    Left,
    Other(Kind, String),
}

impl Error {
    /// An error of this layer's own: `what` was being done, and `problem` is wrong with it.
    pub fn new(kind: Kind, what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { what: what.into(), cause: Cause::Other(kind, problem.into()) }
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match &self.cause {
            Cause::Registry(error) => error.kind(),
            Cause::Fetch(error) => error.kind(),
            Cause::Store(error) => error.kind(),
            Cause::Manifest(_) => Kind::Invalid,
            Cause::Shared(error) => error.kind(),
            // As a wrong answer: what its registry has is not missing, nor another registry's to
            // serve.
            Cause::Unsigned(_) => Kind::Invalid,
            Cause::Left => Kind::Retry,
            Cause::Other(kind, _) => *kind,
        }
    }

    /// Downloads of an image go on, and are not waited for any longer.
    pub fn left() -> Self {
        Self { what: String::new(), cause: Cause::Left }
    }

    /// Whether that is all.
    pub fn is_left(&self) -> bool {
        matches!(self.cause, Cause::Left)
    }

    /// An image is not signed as it must be.
    pub(super) fn unsigned(what: impl Into<String>, problem: String) -> Self {
        Self { what: what.into(), cause: Cause::Unsigned(problem) }
    }

    /// Whether that is what is wrong: a signature may come later.
    pub fn is_unsigned(&self) -> bool {
        matches!(self.cause, Cause::Unsigned(_))
    }

    /// A stop was asked for while something was waited for.
    pub(super) fn stopped() -> Self {
        Self { what: String::new(), cause: Cause::Fetch(fetch::Error::Stopped) }
    }

    /// Whether the registry did not answer at all, as against answering with an error.
    pub fn is_unanswered(&self) -> bool {
        match &self.cause {
            Cause::Registry(error) => error.is_unanswered(),
            Cause::Shared(error) => error.is_unanswered(),
            _ => false,
        }
    }

    /// Of something that ended for all who wait for it.
    pub fn shared(error: Rc<Self>) -> Self {
        Self { what: String::new(), cause: Cause::Shared(error) }
    }

    /// Whether it was only a stop.
    pub(super) fn is_stopped(&self) -> bool {
        match &self.cause {
            Cause::Fetch(fetch::Error::Stopped) => true,
            Cause::Shared(error) => error.is_stopped(),
            _ => false,
        }
    }

    /// Why the link's limits or windows do not let it go now, where it is they.
    pub fn held_back(&self) -> Option<String> {
        match &self.cause {
            Cause::Registry(error) if error.is_held_back() => Some(error.to_string()),
            Cause::Fetch(error) if error.retry_after().is_some() => Some(error.to_string()),
            Cause::Shared(error) => error.held_back(),
            _ => None,
        }
    }

    /// How long the registry asked to be left alone, or the link's limits do.
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.cause {
            Cause::Registry(error) => error.retry_after(),
            Cause::Shared(error) => error.retry_after(),
            Cause::Fetch(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Says what was being done when the error came up.
    pub fn about(self, what: impl Into<String>) -> Self {
        Self { what: what.into(), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.what.is_empty() {
            write!(f, "{}: ", self.what)?;
        }
        match &self.cause {
            Cause::Registry(error) => error.fmt(f),
            Cause::Fetch(error) => error.fmt(f),
            Cause::Store(error) => error.fmt(f),
            Cause::Manifest(error) => error.fmt(f),
            Cause::Shared(error) => error.fmt(f),
            Cause::Left => f.write_str("its downloads go on"),
            Cause::Unsigned(problem) | Cause::Other(_, problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Registry(error) => Some(error),
            Cause::Fetch(error) => Some(error),
            Cause::Store(error) => Some(error),
            Cause::Manifest(error) => Some(error),
            Cause::Shared(error) => Some(error.as_ref()),
            Cause::Unsigned(_) | Cause::Left | Cause::Other(..) => None,
        }
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self { what: String::new(), cause: Cause::Registry(error) }
    }
}

impl From<fetch::Error> for Error {
    fn from(error: fetch::Error) -> Self {
        Self { what: String::new(), cause: Cause::Fetch(error) }
    }
}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        Self { what: String::new(), cause: Cause::Store(error) }
    }
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        Self { what: String::new(), cause: Cause::Manifest(error) }
    }
}
