//! What an archive says that it holds: an OCI layout (image-spec, image-layout.md) by its
//! `index.json`, or a docker-archive by its `manifest.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::source::Source;
use crate::kind::Kind;
use crate::oci::{Digest, Hasher, MANIFEST_BYTES_MAX, Manifest, Platform, Reference, media_type};

/// An archive that is open, and the images that it says it holds.
pub struct Archive {
    pub(super) source: Source,
    pub(super) listed: Vec<Listed>,
    /// Manifests that no file has: those that are made for a docker-archive, and the index itself,
    /// where it stands for one image.
    pub(super) made: BTreeMap<Digest, Vec<u8>>,
    /// Where the blobs of a docker-archive are.
    pub(super) places: BTreeMap<Digest, String>,
    /// Whether the manifests were made here.
    pub(super) is_docker: bool,
}

/// What an archive lists.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub name: Option<Reference>,
    pub digest: Digest,
    pub media_type: Option<String>,
    /// Whether it says what it runs on.
    pub has_platform: bool,
}

/// `index.json`, as far as it is of use.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    media_type: Option<String>,
    digest: Digest,
    platform: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
struct Annotations {
    /// What containerd, Docker and `BuildKit` write: the whole reference.
    #[serde(rename = "io.containerd.image.name")]
    name: Option<String>,
    /// What podman and skopeo write: the whole reference, or a tag only.
    #[serde(rename = "org.opencontainers.image.ref.name")]
    ref_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    image_layout_version: String,
}

/// What of an archive is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// One image under this name; else all, under their own.
    pub name: Option<Reference>,
    /// For these platforms; else for those of the desired image of that name, or this device's.
    pub platforms: Vec<Platform>,
}

impl Archive {
    /// Reads what an OCI layout lists.
    pub(super) fn read_layout(&mut self) -> Result<(), Error> {
        let Version { image_layout_version } = self.json(LAYOUT)?;
        if !image_layout_version.starts_with("1.") {
            let what = format!("OCI layout version {image_layout_version:?}, expected 1.0.0");
            return Err(self.source.wrong(&what));
        }
        let bytes = self.file(INDEX)?;
        let Index { manifests } = self.parse(INDEX, &bytes)?;
        self.listed = manifests
            .into_iter()
            .map(|item| Listed {
                name: item.annotations.reference(),
                digest: item.digest,
                media_type: item.media_type,
                has_platform: item.platform.is_some(),
            })
            .collect();
        self.made.insert(Digest::sha256(&bytes), bytes);
        Ok(())
    }

    /// The index itself as an image: one that lists nothing but what is for a platform and has no
    /// name of its own.
    pub(super) fn index(&self) -> Option<Listed> {
        let is_part = |listed: &Listed| listed.name.is_none() && listed.has_platform;
        let is_index = !self.is_docker && self.listed.len() > 1 && self.listed.iter().all(is_part);
        let digest = *self.made.keys().next().filter(|_| is_index)?;
        let media_type = Some(media_type::OCI_INDEX.to_owned());
        Some(Listed { name: None, digest, media_type, has_platform: false })
    }

    /// Whether its manifests were made here, so that their digests are not those of a registry.
    pub fn is_made(&self) -> bool {
        self.is_docker
    }

    /// What it lists and refers to nothing: the images.
    pub(super) fn subjectless(&mut self) -> Result<Vec<Listed>, Error> {
        let mut found = Vec::new();
        for listed in self.listed.clone() {
            let bytes = self.bytes(&listed.digest, MANIFEST_BYTES_MAX)?;
            let manifest = bytes.map(|bytes| Manifest::parse(&bytes, listed.media_type.as_deref()));
            let subject = manifest.transpose()?.and_then(|manifest| manifest.subject);
            if subject.is_none() {
                found.push(listed);
            }
        }
        Ok(found)
    }

    /// A short JSON file that must be there.
    pub(super) fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Error> {
        let bytes = self.file(name)?;
        self.parse(name, &bytes)
    }

    /// A short file that must be there.
    pub(super) fn file(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        let bytes = self.source.read(name, FILE_BYTES_MAX)?;
        bytes.ok_or_else(|| self.source.wrong(&format!("no {name}, expected one")))
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, name: &str, json: &[u8]) -> Result<T, Error> {
        let wrong =
            |error| self.source.wrong(&format!("{name} is not of the expected form: {error}"));
        serde_json::from_slice(json).map_err(wrong)
    }

    /// Bytes of a blob, if it is there.
    pub(super) fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        match self.made.get(digest) {
            Some(bytes) => Ok(Some(bytes.len() as u64)),
            None => self.source.size(&self.place(digest)),
        }
    }

    /// All bytes of a blob that has at most `max`, checked; none if it is not there.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when they are of another digest.
    pub(super) fn bytes(&mut self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>, Error> {
        if let Some(bytes) = self.made.get(digest) {
            return Ok(Some(bytes.clone()));
        }
        let place = self.place(digest);
        let Some(bytes) = self.source.read(&place, max)? else { return Ok(None) };
        let mut hash = Hasher::new(digest.algorithm());
        hash.update(&bytes);
        let found = hash.finish();
        if found != *digest {
            let what = format!("{place} has the digest {found}: the file is corrupt");
            return Err(Error::new(Kind::Corrupt, self.source.wrong(&what).to_string()));
        }
        Ok(Some(bytes))
    }

    /// Reads a blob from byte `from`.
    pub(super) fn reader(
        &mut self,
        digest: &Digest,
        from: u64,
    ) -> Result<Box<dyn Read + '_>, Error> {
        let place = self.place(digest);
        self.source.reader(&place, from)
    }

    /// Where a blob is, for those who read several in order.
    pub(super) fn offset(&self, digest: &Digest) -> u64 {
        self.source.offset(&self.place(digest))
    }

    fn place(&self, digest: &Digest) -> String {
        let known = self.places.get(digest).cloned();
        known.unwrap_or_else(|| blob_name(digest))
    }

    /// It could not be read.
    pub(super) fn failed(&self, error: io::Error) -> Error {
        self.source.failed(error)
    }

    /// Names for a person, the first few.
    pub(super) fn names(&self) -> String {
        let names = self.listed.iter().filter_map(|listed| listed.name.as_ref());
        let names: BTreeSet<String> = names.map(Reference::to_string).collect();
        let more = names.len().saturating_sub(SHOWN_MAX);
        let shown: Vec<String> = names.into_iter().take(SHOWN_MAX).collect();
        let shown = shown.join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    }
}

impl Annotations {
    fn reference(&self) -> Option<Reference> {
        let whole = self.name.as_deref().and_then(|text| text.parse().ok());
        // A tag alone is of no repository.
        let named = self.ref_name.as_deref().filter(|text| text.contains(['/', ':']));
        whole.or_else(|| named.and_then(|text| text.parse().ok()))
    }
}

/// Where an OCI layout has a blob.
pub(super) fn blob_name(digest: &Digest) -> String {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').unwrap_or_default();
    format!("blobs/{algorithm}/{hex}")
}

/// Marks an OCI layout.
pub(super) const LAYOUT: &str = "oci-layout";
/// What an OCI layout holds.
pub(super) const INDEX: &str = "index.json";
/// An `index.json` of a thousand images has less.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 10;
/// Names that an error lists.
const SHOWN_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_from_either_annotation() {
        for (name, ref_name, expected) in [
            (Some("docker.io/library/app:1"), Some("1"), Some("docker.io/library/app:1")),
            (None, Some("app:1"), Some("docker.io/library/app:1")),
            (None, Some("registry.test/app"), Some("registry.test/app:latest")),
            (Some("not a name"), Some("registry.test/app:2"), Some("registry.test/app:2")),
            (None, Some("latest"), None),
            (None, Some("../../x:1"), None),
            (None, None, None),
        ] {
            let text = |text: Option<&str>| text.map(str::to_owned);
            let annotations = Annotations { name: text(name), ref_name: text(ref_name) };
            let found = annotations.reference().map(|reference| reference.to_string());
            assert_eq!(found.as_deref(), expected, "{name:?} {ref_name:?}");
        }
    }
}
