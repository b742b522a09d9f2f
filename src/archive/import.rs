//! Takes images from an archive into the log: all blobs, in the order in which the archive has
//! them, then each image's manifests from the leaves up, and at last its tag.
//!
//! What was begun is gone on with where it was, as with a download: the log has its progress. An
//! image that is not desired is recorded as imported, or it would be given up at the next pass.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use log::{info, warn};
use smol::future::yield_now;

use super::Error;
use super::bundle::{self, Terms};
use super::contents::{Archive, Listed, Wish};
use super::plan::{Plan, plan};
use crate::blob::{Store, Want, Writer};
use crate::catalog::{Catalog, Imports};
use crate::config::Image;
use crate::fetch::{BUFFER_BYTES, Latch};
use crate::kind::Kind;
use crate::oci::{Digest, MANIFEST_BYTES_MAX, Platform, Reference};
use crate::pull::tag_key;
use crate::units::ByteCount;

/// What an import works with.
pub struct Import<'a> {
    /// Where it goes.
    pub store: &'a Store,
    /// To see that an image is whole.
    pub catalog: &'a Catalog,
    /// The sign to stop.
    pub stop: &'a Latch,
    /// What is desired, with the platforms of it.
    pub desired: &'a [Image],
    /// Called with the bytes that are there, and those of all that is to be written.
    pub each: &'a dyn Fn(u64, u64),
}

/// An image that is held now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Under which name.
    pub name: Reference,
    /// Its manifest or index.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: u64,
    /// Whether the configuration or Ground Control desires it: else it is held until it is removed.
    pub is_desired: bool,
}

impl Import<'_> {
    /// Takes in what `wish` says, or what a bundle says whose signature was good; all of it or, but
    /// for blobs, nothing.
    ///
    /// # Errors
    /// [`Kind::Full`] before anything is written when there is no room; [`Kind::Corrupt`] for a
    /// blob of another digest; [`Kind::Retry`] after a stop; those of planning and of the log.
    pub async fn run(
        &self,
        archive: &mut Archive,
        wish: &Wish,
        terms: Option<&Terms>,
    ) -> Result<Vec<Imported>, Error> {
        let chosen = match terms {
            Some(terms) => terms.chosen(archive, wish)?,
            None => chosen(archive, wish)?,
        };
        if let Some(terms) = terms {
            terms.check(self.store)?;
        }
        let mut imports = Imports::of(self.store);
        let mut plans = Vec::new();
        for (name, listed) in chosen {
            let desired = self.desired(&name);
            if desired.is_none() {
                imports.add(&name)?;
            }
            let platforms = match (wish.platforms.as_slice(), desired) {
                ([], Some(image)) => image.platforms.clone(),
                ([], None) => vec![Platform::device()],
                (platforms, _) => platforms.to_vec(),
            };
            plans.push(plan(archive, self.store, &listed, name, platforms)?);
        }
        let wants: BTreeMap<Digest, Want> =
            plans.iter().flat_map(Plan::wants).map(|want| (want.digest, want)).collect();
        let wants: Vec<Want> = wants.into_values().collect();
        let admission = self.store.admission(&wants, &[]);
        if !admission.is_granted() {
            return Err(Error::new(Kind::Full, admission.refusal()));
        }
        // What is there already must not be evicted for what comes.
        let digests: Vec<Digest> = wants.iter().map(|want| want.digest).collect();
        self.store.pin(&digests, true).await?;
        let blobs = plans.iter().flat_map(|plan| &plan.blobs);
        let blobs = blobs.map(|(digest, size)| (*digest, *size)).collect();
        let written = self.blobs(archive, blobs).await;
        // Whatever became of the others, what is whole stays.
        let flushed = self.store.flush().await;
        written?;
        flushed?;
        for plan in &plans {
            self.manifests(archive, plan).await?;
        }
        self.store.pin(&digests, true).await?;
        if let Some(terms) = terms {
            // Before the tags: a plug that is pulled now must not make room for an older one.
            terms.record(self.store).await?;
        }
        imports.record(self.store).await?;
        let mut imported = Vec::new();
        for plan in plans {
            let key = tag_key(&plan.name);
            if self.store.tag(&key) != Some(plan.root) {
                self.store.set_tag(&key, &plan.root).await?;
            }
            let bytes = plan.wants().map(|want| want.size).sum();
            let is_desired = self.desired(&plan.name).is_some();
            imported.push(Imported { name: plan.name, digest: plan.root, bytes, is_desired });
        }
        Ok(imported)
    }

    fn desired(&self, name: &Reference) -> Option<&Image> {
        self.desired.iter().find(|image| image.reference.is_same_tag(name))
    }

    /// Writes what is not held, and repairs what is held and corrupt.
    async fn blobs(
        &self,
        archive: &mut Archive,
        blobs: BTreeMap<Digest, u64>,
    ) -> Result<(), Error> {
        let mut missing = Vec::new();
        for (digest, size) in blobs {
            if !self.store.is_whole(&digest) {
                missing.push((archive.offset(&digest), digest, size));
            } else if self.store.is_corrupt(&digest, 0..u64::MAX) {
                self.repair(archive, &digest).await?;
            }
        }
        missing.sort_unstable();
        let all = missing.iter().map(|(.., size)| size).sum();
        if !missing.is_empty() {
            let partials = self.store.partials().into_iter();
            let is_wanted = |of: &Digest| missing.iter().any(|(_, digest, _)| digest == of);
            let there = partials.filter(|partial| is_wanted(&partial.digest));
            let there = ByteCount(there.map(|partial| partial.frontier).sum());
            let (count, all) = (missing.len(), ByteCount(all));
            info!("writing {count} blobs, {all}, of which {there} are there already");
        }
        let before = Cell::new(0);
        for (_, digest, size) in missing {
            let each = |frontier| (self.each)(before.get() + frontier, all);
            self.blob(archive, &digest, size, each).await?;
            before.set(before.get() + size);
        }
        Ok(())
    }

    async fn blob(
        &self,
        archive: &mut Archive,
        digest: &Digest,
        size: u64,
        each: impl Fn(u64),
    ) -> Result<(), Error> {
        let mut writer = self.store.writer(digest, size, None).await?;
        writer.pin();
        if let Err(error) = self.copy(archive, digest, size, &mut writer, each).await {
            writer.suspend().await?;
            return Err(error);
        }
        let path = archive.source.path().display();
        writer.finish().await.map_err(|error| Error::from(error).about(path))
    }

    async fn copy(
        &self,
        archive: &mut Archive,
        digest: &Digest,
        size: u64,
        writer: &mut Writer,
        each: impl Fn(u64),
    ) -> Result<(), Error> {
        let path = archive.source.path().to_owned();
        let mut reader = archive.reader(digest, writer.frontier())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        while writer.frontier() < size {
            each(writer.frontier());
            if self.stop.is_open() {
                let what = "stopped; the same import goes on from here";
                return Err(Error::new(Kind::Retry, what));
            }
            let length = reader.read(&mut buffer).map_err(|error| Error::io(&path, error))?;
            if length == 0 {
                let (path, at) = (path.display(), writer.frontier());
                let what = format!("{path}: blob {digest} ends at byte {at}, expected {size}");
                return Err(Error::invalid(what));
            }
            writer.write(buffer.get(..length).unwrap_or_default()).await?;
            // Signals are looked at.
            yield_now().await;
        }
        each(size);
        Ok(())
    }

    /// Puts right the chunks of a held blob that are corrupt, if the archive has it.
    async fn repair(&self, archive: &mut Archive, digest: &Digest) -> Result<(), Error> {
        if archive.size(digest)?.is_none() {
            return Ok(());
        }
        let corrupt = self.store.corrupt().into_iter().find(|(corrupt, _)| corrupt == digest);
        for chunk in corrupt.map(|(_, chunks)| chunks).unwrap_or_default() {
            let range = self.store.chunk_range(digest, chunk)?;
            let mut bytes = Vec::new();
            let reader = archive.reader(digest, range.start)?;
            let read = reader.take(range.end - range.start).read_to_end(&mut bytes);
            read.map_err(|error| archive.failed(error))?;
            self.store.repair(digest, chunk, &bytes).await?;
            warn!("{digest}: chunk {chunk} was corrupt on flash and is repaired");
        }
        Ok(())
    }

    /// Holds the manifests of an image, all of whose blobs are there.
    async fn manifests(&self, archive: &mut Archive, plan: &Plan) -> Result<(), Error> {
        for manifest in &plan.manifests {
            let digest = &manifest.digest;
            match archive.bytes(digest, MANIFEST_BYTES_MAX)? {
                Some(bytes) => {
                    self.store.put(digest, &bytes, Some(manifest.media_type)).await?;
                }
                None => self.store.set_media_type(digest, manifest.media_type).await?,
            }
        }
        if !self.catalog.complete(&plan.root, &plan.platforms)? {
            let what = format!("{}: not all of it is held any more", plan.name);
            return Err(Error::new(Kind::Retry, what));
        }
        Ok(())
    }
}

/// The images of an archive that are wanted, and the names that they are to have.
fn chosen(archive: &mut Archive, wish: &Wish) -> Result<Vec<(Reference, Listed)>, Error> {
    if archive.source.size(bundle::DOCUMENT)?.is_some() {
        warn!("a signed bundle: its signature is not checked, for there is no [import] key_file");
    }
    let named = archive.listed.iter().filter(|listed| listed.name.is_some());
    let named: Vec<(Reference, Listed)> =
        named.filter_map(|listed| Some((listed.name.clone()?, listed.clone()))).collect();
    let Some(name) = &wish.name else {
        if named.is_empty() {
            let what = "no image in it has a name, expected --name REFERENCE";
            return Err(archive.source.wrong(what));
        }
        let mut seen = BTreeMap::new();
        for (name, listed) in &named {
            if seen.insert(tag_key(name), listed.digest).is_some_and(|old| old != listed.digest) {
                return Err(archive.source.wrong(&format!("{name} is in it twice, expected once")));
            }
        }
        return Ok(named);
    };
    if let Some((_, listed)) = named.iter().find(|(known, _)| known.is_same_tag(name)) {
        return Ok(vec![(name.clone(), listed.clone())]);
    }
    let mut roots: Vec<Listed> = named.into_iter().map(|(_, listed)| listed).collect();
    if roots.is_empty() {
        roots = match archive.index() {
            Some(index) => vec![index],
            None => archive.subjectless()?,
        };
    }
    let mut seen = BTreeSet::new();
    roots.retain(|listed| seen.insert(listed.digest));
    match roots.as_slice() {
        [root] => Ok(vec![(name.clone(), root.clone())]),
        roots => {
            let what = match archive.names() {
                names if names.is_empty() => format!("{} images without names", roots.len()),
                names => names,
            };
            let what = format!("holds {what}: expected one image to call {name}");
            Err(archive.source.wrong(&what))
        }
    }
}
