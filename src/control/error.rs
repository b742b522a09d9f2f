//! What can go wrong between a satellite and its fleet.

use std::fmt;

use super::seal::Unsealed;
use crate::kind::Kind;
use crate::{blob, fleet, net, registry};

/// Why the fleet's part of the work failed, in one line.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    text: String,
    source: Option<Box<dyn std::error::Error>>,
}

impl Error {
    pub(super) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), source: None }
    }

    fn from_source(kind: Kind, source: impl std::error::Error + 'static) -> Self {
        Self { kind, text: source.to_string(), source: Some(Box::new(source)) }
    }

    /// Says what it is about.
    pub(super) fn about(self, what: impl fmt::Display) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }

    /// Says what to do, too.
    pub(super) fn hinting(self, hint: &str) -> Self {
        Self { text: format!("{}; {hint}", self.text), ..self }
    }

    /// The same, without a secret that may be part of it, and so without its cause.
    pub(super) fn without(self, secret: &str) -> Self {
        Self::new(self.kind, self.text.replace(secret, "********"))
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref()
    }
}

impl From<net::Error> for Error {
    fn from(error: net::Error) -> Self {
        Self::from_source(error.kind(), error)
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self::from_source(error.kind(), error)
    }
}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        Self::from_source(error.kind(), error)
    }
}

impl From<fleet::Invalid> for Error {
    fn from(error: fleet::Invalid) -> Self {
        Self::from_source(Kind::Invalid, error)
    }
}

impl From<Unsealed> for Error {
    fn from(error: Unsealed) -> Self {
        Self::from_source(Kind::Invalid, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_path_is_not_shown() {
        let error = Error::new(Kind::Retry, "GET ground/satellites/ztr/abc123: connection closed");
        assert_eq!(
            error.without("abc123").to_string(),
            "GET ground/satellites/ztr/********: connection closed"
        );
    }
}
