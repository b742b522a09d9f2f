//! The error of the network layer: one plain line and a kind.
//!
//! The line says what was tried, where, and what was expected, so that it can be logged as it is;
//! it never holds a credential, for only hosts, ports, paths and file names are put into it. What
//! the system said is part of the line; [`source`](std::error::Error::source) has it as a value.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::kind::Kind;

/// What went wrong on the network.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<io::Error>,
    retry_after: Option<Duration>,
}

impl Error {
    /// What the error asks of its caller.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// When what was held back may be tried again; none for whatever else went wrong.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Nothing failed: the bytes may not go now, and can be asked for again after a while.
    pub fn held_back(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Kind::Retry, message) }
    }

    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, retry_after: None }
    }

    /// A failed operation on a socket or file: `what` names it, the cause is appended.
    pub(crate) fn io(kind: Kind, what: impl fmt::Display, source: io::Error) -> Self {
        let message = format!("{what}: {}", plain(&source));
        Self::new(kind, message).caused_by(source)
    }

    /// With its cause, of which the message says enough.
    pub(super) fn caused_by(self, source: io::Error) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Says what it is about.
    pub(super) fn about(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// The cause in lower case and without the number that std appends.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    // A word that is all capitals (TLS, DNS) keeps them.
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_plain() {
        let error = Error::io(Kind::Retry, "connect to [::1]:1", io::Error::from_raw_os_error(111));
        assert_eq!(error.to_string(), "connect to [::1]:1: connection refused");
        assert!(std::error::Error::source(&error).is_some());
    }
}
