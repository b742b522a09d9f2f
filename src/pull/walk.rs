//! A walk down an image's manifests.
//!
//! First what the image requires: an index is kept untouched together with the children that the
//! wanted platforms select. Then what accompanies it: attestations of those children; signatures
//! and other referrers, whether the registry lists them (referrers API), tags them
//! (`sha256-<hex>`), or cosign did (`sha256-<hex>.sig`); and the manifests and configurations of
//! all other children, because some clients ask for every child of an index. Whatever of that
//! cannot be had is noted, and decides nothing.
//!
//! Each digest is asked for once, and every count is bounded: what an upstream sends costs neither
//! memory nor requests beyond the limits at the end of these files. A manifest that is not short is
//! written to the store as it comes and read again from there.

mod accompany;

use std::collections::BTreeMap;
use std::rc::Rc;

use log::warn;
use smol::future::yield_now;

use super::backoff::Backoff;
use super::plan::{PlannedBlob, PlannedManifest, tag_key, tag_text};
use super::{Error, Notes, Plan, Puller, Source};
use crate::blob::{HashedReader, TagKey};
use crate::catalog;
use crate::fetch;
use crate::kind::Kind;
use crate::link::Urgency;
use crate::oci::{
    Child, Descriptor, Digest, MANIFEST_BYTES_MAX, Manifest, ManifestKind, Platform, Reference,
    SHA512_LEFT_OUT, Selection, media_type, platform_list,
};
use crate::registry::OpenedManifest;

impl Puller {
    /// Reads the manifests of `reference`, at `digest` if that is known already. Manifests that are
    /// too long to be held in memory are in the store afterwards, without their media type, so that
    /// no one is served them yet.
    pub async fn plan(
        &self,
        reference: &Reference,
        digest: Option<Digest>,
        platforms: &[Platform],
    ) -> Result<Plan, Error> {
        let source = self.source(&reference.registry, &reference.repository)?;
        let mut walk = Walk::new(self, &source, reference.to_string(), platforms);
        let root = walk.root(reference, &tag_text(reference), digest).await?;
        let signature_tags = walk.accompanying(&reference.registry).await;
        if self.stop().is_open() {
            // What could not be asked for any more is not missing.
            return Err(Error::stopped());
        }
        Ok(walk.plan(tag_key(reference), root, signature_tags))
    }
}

/// What was found of an image so far.
pub(super) struct Walk<'a> {
    puller: &'a Puller,
    source: &'a Source<'a>,
    name: String,
    platforms: &'a [Platform],
    /// For whose sake: a client may be let through where images wait.
    urgency: Urgency,
    manifests: Vec<PlannedManifest>,
    blobs: Vec<PlannedBlob>,
    /// Where each blob is in `blobs`.
    places: BTreeMap<Digest, usize>,
    /// Manifests that were asked for, and whether they were taken in.
    asked: BTreeMap<Digest, bool>,
    /// Children of an index that are attestations of chosen ones.
    attestations: Vec<Digest>,
    /// Children of an index for other platforms.
    others: Vec<Digest>,
    /// Bytes of all manifests, and of those that are held in memory.
    bytes: u64,
    memory_bytes: usize,
    /// What all manifests name.
    named: usize,
    /// Bytes that the manifests and configurations of other platforms may have yet.
    heads_room: u64,
    notes: Notes,
    /// Attempts at what accompanies the image that failed for want of an answer.
    failures: usize,
    /// Why some of that was not asked for, where the link's limits hold it back.
    waits: Option<Rc<Error>>,
}

/// What a manifest is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The image is nothing without it.
    Required,
    /// It accompanies the image, and is nothing without all that it names.
    Accompanying,
    /// It is for another platform: with its configuration and without its layers.
    Head,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        puller: &'a Puller,
        source: &'a Source<'a>,
        name: String,
        platforms: &'a [Platform],
    ) -> Self {
        Self {
            puller,
            source,
            name,
            platforms,
            urgency: Urgency::Sync,
            manifests: Vec::new(),
            blobs: Vec::new(),
            places: BTreeMap::new(),
            asked: BTreeMap::new(),
            attestations: Vec::new(),
            others: Vec::new(),
            bytes: 0,
            memory_bytes: 0,
            named: 0,
            heads_room: HEADS_BYTES_MAX,
            notes: Notes::default(),
            failures: 0,
            waits: None,
        }
    }

    /// The same for a client that waits.
    pub(super) fn for_client(self) -> Self {
        Self { urgency: Urgency::Client, ..self }
    }

    /// Takes in all that the image requires; returns the digest of its manifest or index.
    pub(super) async fn root(
        &mut self,
        reference: &Reference,
        tag: &str,
        digest: Option<Digest>,
    ) -> Result<Digest, Error> {
        let Some(digest) = digest else {
            return self.manifest(tag, None, Need::Required, 0).await;
        };
        let text = digest.to_string();
        match self.manifest(&text, Some(digest), Need::Required, 0).await {
            // There are registries that know their manifests by tag only.
            Err(error)
                if error.kind() == Kind::Missing
                    && self.asked.get(&digest) == Some(&false)
                    && tag != text =>
            {
                self.asked.remove(&digest);
                self.manifest(tag, reference.digest, Need::Required, 0).await
            }
            other => other,
        }
    }

    /// What came of it.
    pub(super) fn plan(
        self,
        key: TagKey,
        root: Digest,
        signature_tags: Vec<(TagKey, Digest)>,
    ) -> Plan {
        let Self { name, manifests, mut blobs, notes, failures, waits, .. } = self;
        blobs.sort_by_key(|blob| !blob.required);
        let is_provisional = failures > 0;
        Plan { name, key, root, blobs, is_provisional, waits, manifests, signature_tags, notes }
    }

    /// Takes in the manifest `wanted` (tag or digest), whose digest is to be `expected`, and
    /// everything below it; returns its digest.
    async fn manifest(
        &mut self,
        wanted: &str,
        expected: Option<Digest>,
        need: Need,
        depth: usize,
    ) -> Result<Digest, Error> {
        match expected.and_then(|digest| self.asked.get(&digest).map(|taken| (digest, *taken))) {
            Some((digest, true)) => return Ok(digest),
            Some((digest, false)) => {
                let what = format!("{digest} could not be had before");
                return Err(Error::new(Kind::Missing, self.name.clone(), what));
            }
            None => {}
        }
        if depth > DEPTH_MAX || self.asked.len() >= MANIFESTS_MAX {
            let limit = format!("more than {DEPTH_MAX} levels or {MANIFESTS_MAX} manifests");
            return Err(self.invalid(limit));
        }
        if let Some(digest) = expected {
            self.asked.insert(digest, false);
        }
        let (mut planned, manifest) = self.read(wanted, expected, need).await?;
        planned.required = need == Need::Required;
        let digest = planned.digest;
        if self.asked.insert(digest, true) == Some(true) {
            return Ok(digest);
        }
        self.count(planned.size, &manifest)?;
        match manifest.kind {
            ManifestKind::Index { manifests } => self.index(&manifests, need, depth).await?,
            ManifestKind::Image { config, layers } => {
                planned.needs = self.image(&config, &layers, need, planned.size)?;
            }
        }
        if let Some(bytes) = planned.bytes.take_if(|bytes| !self.fits_in_memory(bytes.len())) {
            // Two images may have the same manifests.
            let _turn = self.puller.holding.lock().await;
            self.puller.parts.store.put(&digest, &bytes, None).await?;
        }
        self.memory_bytes += planned.bytes.as_deref().map_or(0, <[u8]>::len);
        self.manifests.push(planned);
        // Where everything is held nothing else would wait.
        yield_now().await;
        Ok(digest)
    }

    fn fits_in_memory(&self, bytes: usize) -> bool {
        bytes as u64 <= SHORT_BYTES_MAX && self.memory_bytes + bytes <= MEMORY_BYTES_MAX
    }

    fn count(&mut self, bytes: u64, manifest: &Manifest) -> Result<(), Error> {
        self.bytes += bytes;
        self.named += manifest.children().len();
        if self.bytes > PLAN_BYTES_MAX {
            return Err(self.invalid(format!("manifests of more than {PLAN_BYTES_MAX} bytes")));
        }
        if self.named > NAMED_MAX {
            let what = format!("manifests that name more than {NAMED_MAX} digests");
            return Err(self.invalid(what));
        }
        Ok(())
    }

    async fn index(&mut self, children: &[Child], need: Need, depth: usize) -> Result<(), Error> {
        if need == Need::Head {
            return Ok(());
        }
        let Selection { mut chosen, attestations, others } =
            Selection::new(children, self.platforms);
        if need == Need::Required {
            if chosen.is_empty() && !children.is_empty() {
                return Err(self.no_platform(children));
            }
            self.attestations.extend(attestations);
            self.others.extend(others);
        } else if chosen.is_empty() {
            // A list of artifacts, which are for no platform.
            chosen = others;
        }
        for child in chosen {
            let text = child.to_string();
            Box::pin(self.manifest(&text, Some(child), need, depth + 1)).await?;
        }
        Ok(())
    }

    /// Takes in what an image names; returns that without which it is of no use.
    fn image(
        &mut self,
        config: &Descriptor,
        layers: &[Descriptor],
        need: Need,
        manifest_bytes: u64,
    ) -> Result<Vec<Digest>, Error> {
        let is_required = need == Need::Required;
        if need == Need::Head {
            let left = self.heads_room.checked_sub(manifest_bytes.saturating_add(config.size));
            self.heads_room = left.unwrap_or(0);
            if left.is_none() {
                let what = format!("other platforms with more than {HEADS_BYTES_MAX} bytes");
                return Err(self.invalid(what));
            }
            self.blob(config, false)?;
            return Ok(Vec::new());
        }
        let mut needs = Vec::new();
        for blob in std::iter::once(config).chain(layers) {
            self.blob(blob, is_required && !blob.is_foreign)?;
            if !is_required && !blob.is_foreign {
                needs.push(blob.digest);
            }
        }
        Ok(needs)
    }

    fn blob(&mut self, blob: &Descriptor, required: bool) -> Result<(), Error> {
        // Before the bytes of others are spent.
        if required && !blob.digest.algorithm().is_verified() {
            return Err(self.invalid(SHA512_LEFT_OUT));
        }
        let place = *self.places.entry(blob.digest).or_insert(self.blobs.len());
        if let Some(known) = self.blobs.get_mut(place) {
            known.required |= required;
            return Ok(());
        }
        if self.blobs.len() >= BLOBS_MAX {
            return Err(self.invalid(format!("more than {BLOBS_MAX} blobs")));
        }
        self.blobs.push(PlannedBlob { digest: blob.digest, size: blob.size, required });
        Ok(())
    }

    /// Reads one manifest: from the store if it is held, else from the registry.
    pub(super) async fn read(
        &self,
        wanted: &str,
        expected: Option<Digest>,
        need: Need,
    ) -> Result<(PlannedManifest, Manifest), Error> {
        let required = need == Need::Required;
        let mut backoff = if required { Backoff::default() } else { Backoff::brief() };
        loop {
            // It may have come meanwhile, for another image.
            if let Some(digest) = expected
                && let Some(held) = self.held(&digest).await?
            {
                return Ok(held);
            }
            let begun = self.puller.parts.clock.monotonic();
            match self.fetch(wanted, expected).await {
                Err(error) => {
                    // Notes are about one image as they are.
                    let error = if required { error.about(self.name.clone()) } else { error };
                    self.puller.back_off(&mut backoff, begun, error).await?;
                }
                fetched => return fetched,
            }
        }
    }

    /// A manifest that is held and sound.
    async fn held(&self, digest: &Digest) -> Result<Option<(PlannedManifest, Manifest)>, Error> {
        let store = &self.puller.parts.store;
        let Some(entry) = store.entry(digest) else { return Ok(None) };
        if store.is_corrupt(digest, 0..u64::MAX) {
            return Ok(None);
        }
        match catalog::read_aside(store, &entry).await {
            Ok(parsed) => {
                let manifest = parsed.map_err(|error| self.unreadable(error, digest))?;
                Ok(Some((planned(&manifest, *digest, entry.size, None), manifest)))
            }
            // What is fetched instead repairs it.
            Err(error) if error.kind() == Kind::Corrupt => {
                warn!("{error}; fetching it again");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn fetch(
        &self,
        wanted: &str,
        expected: Option<Digest>,
    ) -> Result<(PlannedManifest, Manifest), Error> {
        let Source { registry, repository } = self.source;
        let store = &self.puller.parts.store;
        self.puller.parts.terms.of(self.urgency).may_fetch()?;
        let opening = registry.open_manifest(repository, wanted);
        let opened = self.puller.unless_stopped(opening).await??;
        let expected = expected.or(opened.digest);
        let length = opened.body.len();
        let is_held = expected.is_some_and(|digest| store.entry(&digest).is_some());
        if let Some((digest, length)) = expected.zip(length)
            && (SHORT_BYTES_MAX + 1..=MANIFEST_BYTES_MAX).contains(&length)
            && !is_held
        {
            return self.fetch_to_store(opened, &digest, length).await;
        }
        // What is held has decayed, and is repaired from memory; of what says that it is too long
        // nothing is read, and the error has the limit.
        let is_too_long = length.is_some_and(|length| length > MANIFEST_BYTES_MAX);
        let max = if is_held || is_too_long { MANIFEST_BYTES_MAX } else { UNNAMED_BYTES_MAX };
        let bytes = self.puller.unless_stopped(opened.body.bytes(max)).await?;
        let bytes = bytes.map_err(fetch::Error::from)?;
        self.puller.parts.metrics.fetch_body_bytes.add(bytes.len() as u64);
        let content_type = opened.content_type.as_deref();
        let parsed = Manifest::parse(&bytes, content_type);
        if let Some(text) = content_type.filter(|text| media_type::manifest(text).is_none())
            && parsed.is_err()
        {
            return Err(self.invalid(format!(
                "{}/{repository}/manifests/{wanted}: a body of type {text:?}, expected an image \
                 manifest",
                registry.name()
            )));
        }
        let digest = match expected {
            Some(expected) => {
                let found = expected.algorithm().digest(&bytes);
                if found != expected {
                    let what = format!("bytes of digest {found}, expected {expected}");
                    return Err(Error::new(Kind::Corrupt, self.name.clone(), what));
                }
                found
            }
            None => Digest::sha256(&bytes),
        };
        let manifest = parsed.map_err(|error| self.unreadable(error, &digest))?;
        let size = bytes.len() as u64;
        Ok((planned(&manifest, digest, size, Some(bytes)), manifest))
    }

    /// Writes a manifest to the store as it comes. It has no media type there until the whole image
    /// is held, and so is no manifest to anybody.
    async fn fetch_to_store(
        &self,
        mut opened: OpenedManifest,
        digest: &Digest,
        length: u64,
    ) -> Result<(PlannedManifest, Manifest), Error> {
        let super::Parts { store, terms, .. } = &self.puller.parts;
        let terms = terms.of(self.urgency);
        let writer = store.writer(digest, length, None).await;
        let mut writer = writer.map_err(|error| match error.kind() {
            // Another image's walk is at it, and will be done with it soon.
            Kind::Invalid => Error::new(Kind::Retry, self.name.clone(), error.to_string()),
            _ => error.into(),
        })?;
        if self.urgency == Urgency::Sync {
            writer.pin();
        }
        let copied = fetch::copy(&mut opened.body, 0, &mut writer, length, &terms, |_| {}).await;
        if let Err(error) = copied {
            writer.suspend().await?;
            return Err(error.into());
        }
        writer.commit().await?;
        let content_type = opened.content_type;
        let parse =
            move |checked: &mut HashedReader| Manifest::read(checked, content_type.as_deref());
        match store.hashed_aside(digest, MANIFEST_BYTES_MAX, parse).await? {
            Ok(manifest) => Ok((planned(&manifest, *digest, length, None), manifest)),
            Err(error) => {
                store.delete(&[*digest]).await?;
                Err(self.unreadable(error, digest))
            }
        }
    }

    fn no_platform(&self, children: &[Child]) -> Error {
        let wanted = platform_list(self.platforms.iter());
        let offered = platform_list(children.iter().filter_map(|child| child.platform.as_ref()));
        self.invalid(format!("no manifest for {wanted}; the index offers {offered}"))
    }

    fn unreadable(&self, error: crate::oci::ManifestError, digest: &Digest) -> Error {
        Error::from(error).about(format!("{} {digest}", self.name))
    }

    fn invalid(&self, problem: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, self.name.clone(), problem)
    }
}

fn planned(
    manifest: &Manifest,
    digest: Digest,
    size: u64,
    bytes: Option<Vec<u8>>,
) -> PlannedManifest {
    let media_type = manifest.media_type;
    let (required, needs, subject) = (false, Vec::new(), manifest.subject);
    PlannedManifest { digest, media_type, size, bytes, required, needs, subject }
}

/// Indexes in indexes.
const DEPTH_MAX: usize = 4;
/// Manifests that are asked for, what accompanies the image included.
const MANIFESTS_MAX: usize = 256;
/// Bytes of those.
const HEADS_BYTES_MAX: u64 = 1 << 20;
/// Blobs of one image, and of all that accompanies it.
const BLOBS_MAX: usize = 4096;
/// Digests that all of an image's manifests name together: those for other platforms name layers
/// that are not planned.
const NAMED_MAX: usize = 8192;
/// Bytes of all manifests.
const PLAN_BYTES_MAX: u64 = 8 << 20;
/// A longer manifest is not held in memory.
const SHORT_BYTES_MAX: u64 = 64 << 10;
/// Bytes of manifests that one plan holds in memory.
const MEMORY_BYTES_MAX: usize = 256 << 10;
/// A manifest of which the registry states no length or no digest cannot be written as it comes.
const UNNAMED_BYTES_MAX: u64 = 1 << 20;
