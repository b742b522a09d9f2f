//! Opens an archive, whichever of the two kinds it is.

use std::collections::BTreeMap;
use std::path::Path;

use super::contents::{Archive, LAYOUT};
use super::source::Source;
use super::{Error, docker};

impl Archive {
    /// Opens the archive at `path`: a directory, a tar or a compressed tar.
    ///
    /// # Errors
    /// [`crate::kind::Kind::Invalid`] for what is none; those of reading it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let source = Source::open(path)?;
        let mut archive = Self {
            source,
            listed: Vec::new(),
            made: BTreeMap::new(),
            places: BTreeMap::new(),
            is_docker: false,
        };
        if archive.source.size(LAYOUT)?.is_some() {
            archive.read_layout()?;
        } else if archive.source.size(docker::MANIFEST)?.is_some() {
            archive.is_docker = true;
            docker::read(&mut archive)?;
        } else {
            let expected = "expected an OCI layout (oci-layout at its top) or a docker-archive";
            return Err(archive.source.wrong(&format!("neither; {expected}")));
        }
        if archive.listed.len() > LISTED_MAX {
            let count = archive.listed.len();
            let what = format!("{count} images, expected at most {LISTED_MAX}");
            return Err(archive.source.wrong(&what));
        }
        Ok(archive)
    }
}

/// Images and what accompanies them in one archive.
const LISTED_MAX: usize = 1024;
