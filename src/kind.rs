//! The seven kinds of error, and the one reaction that each has.
//!
//! There is no central error type: each layer owns an opaque `Error` with `kind()`. What the
//! layers share is only this word, because the reaction to a kind lives in one place whatever
//! layer it came from.

/// What an error asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A passing fault of link or server: `pull` backs off with jitter and tries again.
    Retry,
    /// No room on the device: `reconcile` collects once, then reports.
    Full,
    /// Bytes are not what their digest or checksum says: fetched again, never served.
    Corrupt,
    /// Credentials refused: `registry` refreshes its token once.
    Denied,
    /// The device, or the log on it, takes no writes: reported, and what is held is served on.
    ReadOnly,
    /// The input can never work: refused and reported.
    Invalid,
    /// It is not there: `pull` tries the next source.
    Missing,
}
