//! What an image needs: its manifests, read and verified, and the blobs that they name.
//!
//! Manifests are small and come first, so the size of an image is known before its first layer. What
//! is required is kept apart from what only accompanies an image: the latter may be missing.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{Error, Notes};
use crate::blob::TagKey;
use crate::oci::{Digest, Reference};

/// An image that is to be made present.
#[derive(Debug)]
pub struct Plan {
    /// The reference as the configuration has it.
    pub name: String,
    /// The tag that the image is to be found under.
    pub key: TagKey,
    /// The digest that the tag is to mean.
    pub root: Digest,
    /// Blobs that are not manifests, each once; those that the image requires come first.
    pub blobs: Vec<PlannedBlob>,
    /// What accompanies the image could not all be asked for, and may be had another time.
    pub is_provisional: bool,
    /// Why some of it was not asked for, where the link's limits hold it back.
    pub waits: Option<Rc<Error>>,
    /// Of those that are required, children come before their parents.
    pub(super) manifests: Vec<PlannedManifest>,
    /// Cosign's tags of what is planned.
    pub(super) signature_tags: Vec<(TagKey, Digest)>,
    /// What accompanies the image and could not be had.
    pub(super) notes: Notes,
}

/// A blob that is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedBlob {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Whether the image is nothing without it. Of what only accompanies the image (signatures,
    /// foreign layers, other platforms) whatever cannot be had is noted and left out.
    pub required: bool,
}

/// A manifest that is to be held, as the registry sent it.
#[derive(Debug)]
pub(super) struct PlannedManifest {
    pub digest: Digest,
    pub media_type: &'static str,
    pub size: u64,
    /// Its bytes, unless the store has them already.
    pub bytes: Option<Vec<u8>>,
    /// Whether the image is nothing without it.
    pub required: bool,
    /// What must be held for it to be of any use; empty for a manifest that is put regardless.
    pub needs: Vec<Digest>,
    /// What it refers to, if it is a referrer.
    pub subject: Option<Digest>,
}

impl Plan {
    /// The tags to set, the image's own last.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&TagKey, &Digest)> {
        let signatures = self.signature_tags.iter().map(|(key, digest)| (key, digest));
        signatures.chain([(&self.key, &self.root)])
    }

    /// The manifests that are of use when everything but `absent` is held.
    pub(super) fn manifests_without(&self, absent: &BTreeSet<Digest>) -> Vec<&PlannedManifest> {
        let is_of_use = |manifest: &&PlannedManifest| {
            !manifest.needs.iter().any(|digest| absent.contains(digest))
        };
        self.manifests.iter().filter(is_of_use).collect()
    }

    /// The manifests that may sign the image: its referrers, and what has cosign's tag.
    pub(super) fn signatures(&self) -> impl Iterator<Item = &PlannedManifest> {
        let tag = format!("{}{SIGNATURE_TAG_SUFFIX}", self.root.to_tag());
        let tagged = self.signature_tags.iter().find(|(key, _)| key.tag == tag);
        let tagged = tagged.map(|(_, digest)| *digest);
        self.manifests.iter().filter(move |manifest| {
            manifest.subject == Some(self.root) || tagged == Some(manifest.digest)
        })
    }

    /// Bytes of the image on flash once it is held.
    pub fn total_bytes(&self) -> u64 {
        let manifests: u64 = self.manifests.iter().map(|manifest| manifest.size).sum();
        self.blobs.iter().map(|blob| blob.size).sum::<u64>() + manifests
    }

    /// Every digest that belongs to the image.
    pub fn digests(&self) -> BTreeSet<Digest> {
        let manifests = self.manifests.iter().map(|manifest| manifest.digest);
        self.blobs.iter().map(|blob| blob.digest).chain(manifests).collect()
    }
}

/// The tag under which the log keeps `reference`; a reference by digest only is its own tag.
pub fn tag_key(reference: &Reference) -> TagKey {
    TagKey {
        registry: reference.registry.clone(),
        repository: reference.repository.clone(),
        tag: tag_text(reference),
    }
}

/// The tag under which the log keeps an image until its own may mean it. No client can ask for it:
/// what has a colon is a digest to them.
pub fn staged_key(reference: &Reference) -> TagKey {
    let TagKey { registry, repository, tag } = tag_key(reference);
    TagKey { registry, repository, tag: format!("{STAGED}{tag}") }
}

/// Whether a tag is one of those.
pub fn is_staged_tag(tag: &str) -> bool {
    tag.starts_with(STAGED)
}

/// The tag that is asked for; a reference by digest only is its own.
pub(super) fn tag_text(reference: &Reference) -> String {
    let digest = || reference.digest.map(|digest| digest.to_string());
    reference.tag.clone().or_else(digest).unwrap_or_else(|| "latest".to_owned())
}

/// The digest that a cosign tag such as `sha256-<hex>.sig` speaks of.
pub fn signed_digest(tag: &str) -> Option<Digest> {
    let stem = SIGNATURE_TAG_SUFFIXES.iter().find_map(|suffix| tag.strip_suffix(suffix))?;
    Digest::from_tag(stem)
}

/// Whether a tag names what accompanies a digest: cosign's, or the fallback of the referrers API.
pub fn is_companion_tag(tag: &str) -> bool {
    signed_digest(tag).is_some() || Digest::from_tag(tag).is_some()
}

/// Tags by which cosign ties signatures, attestations and SBOMs to a digest
/// (sigstore/cosign, specs/SIGNATURE_SPEC.md).
pub const SIGNATURE_TAG_SUFFIXES: [&str; 3] = [SIGNATURE_TAG_SUFFIX, ".att", ".sbom"];
const STAGED: &str = "staged:";
const SIGNATURE_TAG_SUFFIX: &str = ".sig";

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    #[test]
    fn cosign_tags_name_their_subject() {
        let stem = digest("x").to_tag();
        assert_eq!(signed_digest(&format!("{stem}.sig")), Some(digest("x")));
        assert_eq!(signed_digest(&stem), None);
        assert_eq!(signed_digest("v1.sig"), None);
        assert!(is_companion_tag(&stem) && is_companion_tag(&format!("{stem}.att")));
        assert!(!is_companion_tag("v1") && !is_companion_tag("sha256-v1"));
    }
}
