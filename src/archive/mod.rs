//! Images from files and to files, for devices without a network.
//!
//! | file | holds |
//! |---|---|
//! | `source` | a directory, a tar or a compressed tar, as files by name |
//! | `contents` | what an OCI layout or a docker-archive says that it holds |
//! | `open` | which of the two it is |
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
mod open;
mod plan;
mod source;

use std::fmt;
use std::path::Path;

use crate::blob;
use crate::kind::Kind;
use crate::oci::ManifestError;
pub use bundle::{Signer, Terms, read_keys};
pub use contents::{Archive, Wish};
pub use export::{Export, export};
pub use import::{Import, Imported};

/// Why images could not be taken from a file or put into one.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    source: Option<Box<dyn std::error::Error>>,
}

impl Error {
    /// `what` is one line for a person.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
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
    fn io(path: &Path, error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::Missing,
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => Kind::Invalid,
            std::io::ErrorKind::StorageFull => Kind::Full,
            _ => Kind::Retry,
        };
        Self::from_source(kind, error).about(path.display())
    }

    fn from_source(kind: Kind, source: impl std::error::Error + 'static) -> Self {
        Self { kind, what: source.to_string(), source: Some(Box::new(source)) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref()
    }
}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        Self::from_source(error.kind(), error)
    }
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        Self::from_source(Kind::Invalid, error)
    }
}
