//! Images from files and to files, for devices without a network.
//!
//! | file | holds |
//! |---|---|
//! | `source` | a directory, a tar or a compressed tar, as files by name |
//! | `contents` | what an OCI layout or a docker-archive says that it holds |
//! | `docker` | manifests for a docker-archive, which has none |
//! | `plan` | what of it an image needs |
//! | `import` | into the log: blobs, then manifests, then tags |
//! | `export` | out of the log, as an OCI layout |
//! | `bundle` | a layout that is signed, with a sequence that cannot go back |
//!
//! What a file says is believed of nothing but names: every manifest and every blob is checked by
//! its digest. No name in a file opens another file.

mod bundle;
mod contents;
mod docker;
mod export;
mod import;
mod plan;
mod source;

use std::fmt;
use std::path::Path;

use crate::blob;
use crate::kind::Kind;
use crate::oci::ManifestError;
pub use bundle::{Signer, Terms, read_keys};
pub use contents::Archive;
pub use export::{Export, export};
pub use import::{Import, Imported, Wish};

/// Why images could not be taken from a file or put into one.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
}

impl Error {
    /// `what` is one line for a person.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }

    fn invalid(what: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, what)
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Says what it is about.
    fn about(self, what: impl fmt::Display) -> Self {
        Self { what: format!("{what}: {}", self.what), ..self }
    }

    /// Of a file that was read or written.
    fn io(path: &Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::Missing,
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => Kind::Invalid,
            std::io::ErrorKind::StorageFull => Kind::Full,
            _ => Kind::Retry,
        };
        Self::new(kind, format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        Self::new(Kind::Invalid, error.to_string())
    }
}
