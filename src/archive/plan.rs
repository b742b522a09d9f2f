//! What of an archive an image needs: its manifests, read and checked, and the blobs that they name.
//!
//! As a pull plans it: an index is kept untouched, with the children that the platforms choose; what
//! only accompanies those comes along where the archive has it. What is held already need not be in
//! the archive.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::contents::{Archive, Listed};
use crate::blob::{Store, Want};
use crate::kind::Kind;
use crate::oci::{
    Child, Descriptor, Digest, MANIFEST_BYTES_MAX, Manifest, ManifestKind, Platform, Reference,
    Selection, platform_list,
};

/// An image that is to be taken in.
pub struct Plan {
    /// Under which name.
    pub name: Reference,
    /// Its manifest or index.
    pub root: Digest,
    /// For which platforms.
    pub platforms: Vec<Platform>,
    /// Its manifests; children come before their parents.
    pub manifests: Vec<PlannedManifest>,
    /// Its blobs that are no manifests, and their lengths.
    pub blobs: BTreeMap<Digest, u64>,
}

/// A manifest that is to be held.
pub struct PlannedManifest {
    pub digest: Digest,
    pub media_type: &'static str,
    pub size: u64,
}

impl Plan {
    /// All that is to be held.
    pub fn wants(&self) -> impl Iterator<Item = Want> {
        let manifests = self.manifests.iter().map(|m| Want { digest: m.digest, size: m.size });
        manifests
            .chain(self.blobs.iter().map(|(digest, size)| Want { digest: *digest, size: *size }))
    }
}

/// What a manifest is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The image is nothing without it.
    Required,
    /// It accompanies the image, and is nothing without all that it names.
    Accompanying,
    /// It is for another platform: with its configuration, and without its layers.
    Head,
}

/// Plans an image of `archive`.
///
/// # Errors
/// [`Kind::Missing`] for what is neither in the archive nor in the store; [`Kind::Invalid`] when no
/// child serves a platform, for what is no manifest, and beyond the limits below.
pub fn plan(
    archive: &mut Archive,
    store: &Store,
    listed: &Listed,
    name: Reference,
    platforms: Vec<Platform>,
) -> Result<Plan, Error> {
    let (root, media_type) = (listed.digest, listed.media_type.as_deref());
    if let Some(expected) = name.digest.filter(|expected| *expected != root) {
        let what = format!("{name}: the archive has {root}, expected {expected}");
        return Err(Error::invalid(what));
    }
    let mut walk = Walk {
        archive,
        store,
        platforms: &platforms,
        manifests: Vec::new(),
        blobs: BTreeMap::new(),
        asked: BTreeSet::new(),
        attestations: Vec::new(),
        others: Vec::new(),
        named: 0,
    };
    let walked = walk.manifest(root, media_type, Need::Required, 0);
    walked.and_then(|_| walk.accompanying()).map_err(|error| error.about(&name))?;
    let Walk { manifests, blobs, .. } = walk;
    Ok(Plan { name, root, platforms, manifests, blobs })
}

struct Walk<'a> {
    archive: &'a mut Archive,
    store: &'a Store,
    platforms: &'a [Platform],
    manifests: Vec<PlannedManifest>,
    blobs: BTreeMap<Digest, u64>,
    /// Manifests that were looked for.
    asked: BTreeSet<Digest>,
    attestations: Vec<Digest>,
    others: Vec<Digest>,
    /// What all manifests name.
    named: usize,
}

impl Walk<'_> {
    /// Takes in a manifest and everything below it; false for one that is not required and not
    /// whole.
    fn manifest(
        &mut self,
        digest: Digest,
        media_type: Option<&str>,
        need: Need,
        depth: usize,
    ) -> Result<bool, Error> {
        if !self.asked.insert(digest) {
            return Ok(true);
        }
        if depth > DEPTH_MAX || self.asked.len() > MANIFESTS_MAX {
            let limit = format!("more than {DEPTH_MAX} levels or {MANIFESTS_MAX} manifests");
            return Err(Error::invalid(limit));
        }
        let Some((manifest, size)) = self.read(&digest, media_type)? else {
            return match need {
                Need::Required => Err(self.missing(&format!("manifest {digest}"))),
                Need::Accompanying | Need::Head => Ok(false),
            };
        };
        self.named += manifest.children().len();
        if self.named > NAMED_MAX {
            let what = format!("manifests that name more than {NAMED_MAX} digests");
            return Err(Error::invalid(what));
        }
        let is_whole = match &manifest.kind {
            ManifestKind::Index { manifests } => self.index(manifests, need, depth)?,
            ManifestKind::Image { config, layers } => self.image(config, layers, need)?,
        };
        if is_whole {
            let media_type = manifest.media_type;
            self.manifests.push(PlannedManifest { digest, media_type, size });
        }
        Ok(is_whole)
    }

    /// A manifest of the archive, or else of the store, and its length.
    fn read(
        &mut self,
        digest: &Digest,
        media_type: Option<&str>,
    ) -> Result<Option<(Manifest, u64)>, Error> {
        let held = self.store.entry(digest);
        let known = held.as_ref().and_then(|entry| entry.media_type.as_deref());
        let bytes = match self.archive.bytes(digest, MANIFEST_BYTES_MAX)? {
            Some(bytes) => bytes,
            None if held.is_some() => self.store.read_all(digest, MANIFEST_BYTES_MAX)?,
            None => return Ok(None),
        };
        let manifest = Manifest::parse(&bytes, media_type.or(known));
        let manifest = manifest.map_err(|error| Error::from(error).about(digest))?;
        Ok(Some((manifest, bytes.len() as u64)))
    }

    fn index(&mut self, children: &[Child], need: Need, depth: usize) -> Result<bool, Error> {
        if need == Need::Head {
            return Ok(true);
        }
        let selection = Selection::new(children, self.platforms);
        let Selection { mut chosen, attestations, mut others } = selection;
        if need == Need::Required {
            self.attestations.extend(attestations);
        } else {
            others.extend(attestations);
        }
        if need == Need::Required {
            if chosen.is_empty() && !children.is_empty() {
                let wanted = platform_list(self.platforms.iter());
                let offered =
                    platform_list(children.iter().filter_map(|child| child.platform.as_ref()));
                let what = format!("no manifest for {wanted}; the index offers {offered}");
                return Err(Error::invalid(what));
            }
            self.others.append(&mut others);
        } else if chosen.is_empty() {
            // A list of artifacts, which are for no platform.
            chosen = others;
        }
        let mut is_whole = true;
        for child in chosen {
            is_whole &= self.manifest(child, None, need, depth + 1)?;
        }
        Ok(is_whole)
    }

    /// Takes in what an image names, as far as it is needed; false where it is not whole without
    /// what is missing.
    fn image(
        &mut self,
        config: &Descriptor,
        layers: &[Descriptor],
        need: Need,
    ) -> Result<bool, Error> {
        let layers = if need == Need::Head { &[] } else { layers };
        let mut found = Vec::new();
        for blob in std::iter::once(config).chain(layers) {
            let size = match self.archive.size(&blob.digest)? {
                None if self.store.is_whole(&blob.digest) => Some(blob.size),
                size => size,
            };
            match size {
                Some(size) if size != blob.size => {
                    let expected = format!("expected {}", blob.size);
                    let what = format!("blob {} has {size} bytes, {expected}", blob.digest);
                    return Err(Error::invalid(what));
                }
                Some(size) => found.push((blob.digest, size)),
                None if need == Need::Required && !blob.is_foreign => {
                    return Err(self.missing(&format!("blob {}", blob.digest)));
                }
                None if need == Need::Accompanying && !blob.is_foreign => return Ok(false),
                None => {}
            }
        }
        self.blobs.extend(found);
        if self.blobs.len() > BLOBS_MAX {
            return Err(Error::invalid(format!("more than {BLOBS_MAX} blobs")));
        }
        Ok(true)
    }

    /// Takes in what accompanies the image and is there: attestations, what refers to any of its
    /// manifests, and the manifests of other platforms.
    fn accompanying(&mut self) -> Result<(), Error> {
        for digest in std::mem::take(&mut self.attestations) {
            self.manifest(digest, None, Need::Accompanying, 1)?;
        }
        let mut referrers = Vec::new();
        let unnamed = self.archive.listed.iter().filter(|listed| listed.name.is_none());
        for Listed { digest, media_type, .. } in unnamed.cloned().collect::<Vec<Listed>>() {
            if let Some((Manifest { subject: Some(subject), .. }, _)) =
                self.read(&digest, media_type.as_deref())?
            {
                referrers.push((digest, subject));
            }
        }
        // One may refer to another that comes behind it.
        loop {
            let is_due = |(digest, subject): &(Digest, Digest)| {
                let is_taken = self.manifests.iter().any(|known| known.digest == *subject);
                is_taken && !self.asked.contains(digest)
            };
            let Some((digest, _)) = referrers.iter().find(|referrer| is_due(referrer)).copied()
            else {
                break;
            };
            self.manifest(digest, None, Need::Accompanying, 1)?;
        }
        for digest in std::mem::take(&mut self.others) {
            self.manifest(digest, None, Need::Head, 1)?;
        }
        Ok(())
    }

    fn missing(&self, what: &str) -> Error {
        let path = self.archive.source.path().display();
        Error::new(Kind::Missing, format!("{path} has no {what}, and it is not held"))
    }
}

/// Indexes in indexes.
const DEPTH_MAX: usize = 4;
/// Manifests of one image and of what accompanies it.
const MANIFESTS_MAX: usize = 256;
/// Blobs of those.
const BLOBS_MAX: usize = 4096;
/// Digests that all of an image's manifests name together.
const NAMED_MAX: usize = 8192;
