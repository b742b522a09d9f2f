//! What an image needs: its manifests, read and verified, and the blobs that they name.
//!
//! An index is kept untouched together with the children that the wanted platforms select;
//! signatures and other referrers of what is kept are planned too, whether the registry lists them
//! (referrers API), tags them (`sha256-<hex>`), or cosign did (`sha256-<hex>.sig`).
//!
//! Manifests are small and come first, so the size of an image is known before its first layer;
//! they are held in memory until its blobs are on flash, bounded by [`PLAN_BYTES_MAX`].

use std::collections::BTreeSet;

use log::warn;

use super::{Error, Notes, Puller, Source};
use crate::blob::TagKey;
use crate::kind::Kind;
use crate::oci::{Descriptor, Digest, Manifest, ManifestKind, Platform, Reference, select};

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
    /// Children come before their parents.
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
    pub media_type: String,
    pub size: u64,
    /// Its bytes, unless the store has them already.
    pub bytes: Option<Vec<u8>>,
    /// What must be held for it to be of any use; empty for a manifest that is put regardless.
    pub needs: Vec<Digest>,
}

impl PlannedManifest {
    fn new(digest: Digest, media_type: String, bytes: Vec<u8>) -> Self {
        let size = bytes.len() as u64;
        Self { digest, media_type, size, bytes: Some(bytes), needs: Vec::new() }
    }
}

impl Plan {
    /// The tags to set, the image's own last.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&TagKey, &Digest)> {
        let signatures = self.signature_tags.iter().map(|(key, digest)| (key, digest));
        signatures.chain([(&self.key, &self.root)])
    }

    /// The manifests that are of use when everything but `absent` is held, children first.
    pub(super) fn manifests_without(&self, absent: &BTreeSet<Digest>) -> Vec<&PlannedManifest> {
        let mut absent = absent.clone();
        let mut kept = Vec::new();
        for manifest in &self.manifests {
            if manifest.needs.iter().any(|digest| absent.contains(digest)) {
                absent.insert(manifest.digest);
            } else {
                kept.push(manifest);
            }
        }
        kept
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

impl Puller {
    /// Reads the manifests of `reference`, at `digest` if that is known already.
    pub async fn plan(
        &self,
        reference: &Reference,
        digest: Option<Digest>,
        platforms: &[Platform],
    ) -> Result<Plan, Error> {
        let source = self.source(&reference.registry, &reference.repository)?;
        let wanted = digest.map_or_else(|| tag_text(reference), |digest| digest.to_string());
        let mut walk = Walk {
            puller: self,
            source: &source,
            name: reference.to_string(),
            platforms,
            manifests: Vec::new(),
            blobs: Vec::new(),
            seen: BTreeSet::new(),
            bytes: 0,
        };
        let root = walk.manifest(&wanted, 0).await?;
        let signature_tags = walk.referrers(&reference.registry).await?;
        let Walk { manifests, blobs, name, .. } = walk;
        let notes = Notes::default();
        Ok(Plan { name, key: tag_key(reference), root, blobs, manifests, signature_tags, notes })
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

/// The tag that is asked for; a reference by digest only is its own.
pub(super) fn tag_text(reference: &Reference) -> String {
    let digest = || reference.digest.map(|digest| digest.to_string());
    reference.tag.clone().or_else(digest).unwrap_or_else(|| "latest".to_owned())
}

/// A walk down an image's manifests.
struct Walk<'a> {
    puller: &'a Puller,
    source: &'a Source<'a>,
    name: String,
    platforms: &'a [Platform],
    manifests: Vec<PlannedManifest>,
    blobs: Vec<PlannedBlob>,
    seen: BTreeSet<Digest>,
    bytes: usize,
}

impl Walk<'_> {
    /// Takes in the manifest `wanted` (tag or digest) and everything below it; gives its digest.
    async fn manifest(&mut self, wanted: &str, depth: usize) -> Result<Digest, Error> {
        if depth > DEPTH_MAX || self.manifests.len() >= MANIFESTS_MAX {
            let limit = format!("more than {DEPTH_MAX} levels or {MANIFESTS_MAX} manifests");
            return Err(self.invalid(limit));
        }
        let planned = self.read(wanted).await?;
        let digest = planned.digest;
        if !self.seen.insert(digest) {
            return Ok(digest);
        }
        self.bytes += planned.bytes.as_deref().map_or(0, <[u8]>::len);
        if self.bytes > PLAN_BYTES_MAX {
            return Err(self.invalid(format!("manifests of more than {PLAN_BYTES_MAX} bytes")));
        }
        let manifest = Manifest::parse(
            planned.bytes.as_deref().unwrap_or_default(),
            Some(&planned.media_type),
        )
        .map_err(|error| Error::from(error).about(format!("{} {wanted}", self.name)))?;
        match manifest.kind {
            ManifestKind::Index { manifests } => {
                let chosen: Vec<Descriptor> =
                    select(&manifests, self.platforms).into_iter().cloned().collect();
                if chosen.is_empty() && !manifests.is_empty() {
                    return Err(self.no_platform(&manifests));
                }
                for child in chosen {
                    let text = child.digest.to_string();
                    Box::pin(self.manifest(&text, depth + 1)).await?;
                }
            }
            ManifestKind::Image { config, layers } => {
                for blob in std::iter::once(*config).chain(layers) {
                    if self.seen.insert(blob.digest) {
                        let (digest, size) = (blob.digest, blob.size);
                        self.blobs.push(PlannedBlob { digest, size, required: true });
                    }
                }
            }
        }
        self.manifests.push(planned);
        Ok(digest)
    }

    /// The bytes of one manifest: from the store if they are held, else from the registry.
    async fn read(&self, wanted: &str) -> Result<PlannedManifest, Error> {
        let store = &self.puller.parts.store;
        if let Ok(digest) = wanted.parse::<Digest>()
            && let Some(entry) = store.entry(&digest)
            && let Some(media_type) = entry.media_type
        {
            match store.read_all(&digest, crate::oci::MANIFEST_BYTES_MAX) {
                Ok(bytes) => return Ok(PlannedManifest::new(digest, media_type, bytes)),
                // What is fetched instead mends it.
                Err(error) if error.kind() == Kind::Corrupt => warn!("{error}; fetching it again"),
                Err(error) => return Err(error.into()),
            }
        }
        let Source { registry, repository } = self.source;
        let remote = self
            .puller
            .retrying(async || Ok(registry.manifest(repository, wanted).await?))
            .await
            .map_err(|error| error.about(self.name.clone()))?;
        self.puller.parts.metrics.fetch_body_bytes.add(remote.bytes.len() as u64);
        Ok(PlannedManifest::new(remote.digest, remote.media_type, remote.bytes))
    }

    /// Takes in signatures, attestations and other referrers of all manifests found so far, and
    /// of those referrers in turn.
    async fn referrers(&mut self, registry_name: &str) -> Result<Vec<(TagKey, Digest)>, Error> {
        let mut signature_tags = Vec::new();
        let images = self.manifests.len();
        let mut next = 0;
        while let Some(subject) = self.manifests.get(next).map(|manifest| manifest.digest) {
            next += 1;
            for referrer in self.listed(&subject).await? {
                let text = referrer.digest.to_string();
                // A referrer that cannot be had must not keep the image itself away.
                if let Err(error) = self.manifest(&text, 1).await {
                    self.tolerate(error)?;
                }
            }
            if next > images {
                continue;
            }
            for suffix in SIGNATURE_TAG_SUFFIXES {
                let tag = format!("{}{suffix}", subject.to_string().replace(':', "-"));
                match self.signature(&tag).await {
                    Ok(Some(digest)) => {
                        let key = TagKey {
                            registry: registry_name.to_owned(),
                            repository: self.source.repository.to_owned(),
                            tag,
                        };
                        signature_tags.push((key, digest));
                    }
                    Ok(None) => {}
                    Err(error) => self.tolerate(error)?,
                }
            }
        }
        Ok(signature_tags)
    }

    async fn listed(&self, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let Source { registry, repository } = self.source;
        let listed =
            self.puller.retrying(async || Ok(registry.referrers(repository, subject).await?)).await;
        match listed {
            Ok(descriptors) => Ok(descriptors),
            Err(error) => self.tolerate(error).map(|()| Vec::new()),
        }
    }

    /// The manifest under one of cosign's tags, if there is one.
    async fn signature(&mut self, tag: &str) -> Result<Option<Digest>, Error> {
        let Source { registry, repository } = self.source;
        let head = self
            .puller
            .retrying(async || match registry.head_manifest(repository, tag).await {
                Ok(head) => Ok(Some(head)),
                Err(error) if error.kind() == Kind::Missing => Ok(None),
                Err(error) => Err(error.into()),
            })
            .await?;
        let Some(head) = head else { return Ok(None) };
        // By its digest it is read from the store, if it is held.
        let wanted = head.digest.map_or_else(|| tag.to_owned(), |digest| digest.to_string());
        self.manifest(&wanted, 1).await.map(Some)
    }

    /// What a referrer's error means for its image: a link that fails fails it, to be tried again
    /// whole; a registry that has no such thing, or nonsense, does not.
    fn tolerate(&self, error: Error) -> Result<(), Error> {
        match error.kind() {
            Kind::Missing | Kind::Invalid | Kind::Denied | Kind::Corrupt => {
                warn!("{}: held without a referrer: {error}", self.name);
                Ok(())
            }
            Kind::Retry | Kind::Full => Err(error),
        }
    }

    fn no_platform(&self, offered: &[Descriptor]) -> Error {
        let list = |platforms: &mut dyn Iterator<Item = String>| {
            platforms.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
        };
        let wanted = list(&mut self.platforms.iter().map(Platform::to_string));
        let offered = offered.iter().filter_map(|child| child.platform.as_ref());
        let offered = list(&mut offered.map(Platform::to_string));
        self.invalid(format!("no manifest for {wanted}; the index offers {offered}"))
    }

    fn invalid(&self, problem: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, self.name.clone(), problem)
    }
}

/// Tags by which cosign ties signatures, attestations and SBOMs to a digest
/// (sigstore/cosign, specs/SIGNATURE_SPEC.md).
pub const SIGNATURE_TAG_SUFFIXES: [&str; 3] = [".sig", ".att", ".sbom"];

/// Indexes in indexes.
const DEPTH_MAX: usize = 4;
/// Manifests of one image, referrers included.
const MANIFESTS_MAX: usize = 128;
/// Bytes of manifests that one plan may hold in memory.
const PLAN_BYTES_MAX: usize = 8 << 20;
