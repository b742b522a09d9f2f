//! What images are held: the blob log read as manifests.
//!
//! The log knows digests and tags; this module knows which of them are manifests, what they need
//! and what refers to them. Manifests never change, so each is parsed once and remembered by its
//! digest; only what serving and collecting need of it is kept.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use log::{error, warn};

use crate::blob::{Entry, Error, Store};
use crate::kind::Kind;
use crate::oci::{
    Descriptor, Digest, MANIFEST_BYTES_MAX, Manifest, ManifestKind, Platform, select,
};

/// The images of one store. Clones share what was read.
#[derive(Clone)]
pub struct Catalog {
    store: Store,
    known: Rc<RefCell<BTreeMap<Digest, Known>>>,
    /// Manifests that rotted on flash: what they need is not known.
    rotten: Rc<RefCell<BTreeSet<Digest>>>,
}

/// What is remembered of a manifest.
struct Known {
    children: Vec<Digest>,
    subject: Option<Digest>,
    /// As the referrers API lists it.
    descriptor: Descriptor,
}

impl Catalog {
    /// A catalog that has read nothing yet.
    pub fn new(store: Store) -> Self {
        Self { store, known: Rc::default(), rotten: Rc::default() }
    }

    /// Reads the manifests that came since, and forgets those that went.
    pub fn refresh(&self) -> Result<(), Error> {
        let manifests = self.store.manifests();
        let mut known = self.known.borrow_mut();
        known.retain(|digest, _| self.store.entry(digest).is_some());
        self.rotten.borrow_mut().retain(|digest| self.store.entry(digest).is_some());
        for entry in manifests {
            if known.contains_key(&entry.digest) {
                continue;
            }
            if let Some(manifest) = self.read(&entry)? {
                known.insert(entry.digest, Known::new(&entry, &manifest));
            }
        }
        Ok(())
    }

    /// The tags of a repository, bytewise ordered.
    pub fn tags(&self, registry: &str, repository: &str) -> Vec<String> {
        let mut tags = self.store.repository_tags(registry, repository);
        // An image that is wanted by its digest has no tag to list.
        tags.retain(|tag| !tag.contains(':'));
        tags
    }

    /// The held manifests whose subject is `digest`.
    pub fn referrers(&self, digest: &Digest) -> Vec<Descriptor> {
        let known = self.known.borrow();
        let of = known.values().filter(|known| known.subject == Some(*digest));
        of.map(|known| known.descriptor.clone()).collect()
    }

    /// Everything that `roots` need, themselves and their referrers included, as far as it is
    /// held.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when one of the manifests has rotted: what it needs must not be taken for
    /// needless.
    pub fn reachable(&self, roots: &[Digest]) -> Result<BTreeSet<Digest>, Error> {
        self.refresh()?;
        let known = self.known.borrow();
        let mut referrers: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for (digest, manifest) in known.iter() {
            if let Some(subject) = manifest.subject {
                referrers.entry(subject).or_default().push(*digest);
            }
        }
        let mut found = BTreeSet::new();
        let mut queue = roots.to_vec();
        while let Some(digest) = queue.pop() {
            if !found.insert(digest) {
                continue;
            }
            if self.rotten.borrow().contains(&digest) {
                let what = format!("{digest} has rotted on flash: what it needs is not known");
                return Err(Error::new(Kind::Corrupt, what));
            }
            queue.extend(known.get(&digest).into_iter().flat_map(|known| &known.children));
            queue.extend(referrers.get(&digest).into_iter().flatten());
        }
        Ok(found)
    }

    /// Whether everything that an image needs on `platforms` is held.
    pub fn complete(&self, root: &Digest, platforms: &[Platform]) -> Result<bool, Error> {
        let mut queue = vec![*root];
        let mut seen = BTreeSet::new();
        while let Some(digest) = queue.pop() {
            if !seen.insert(digest) {
                continue;
            }
            let Some(entry) = self.store.entry(&digest) else { return Ok(false) };
            if entry.media_type.is_none() {
                continue;
            }
            let Some(manifest) = self.read(&entry)? else { return Ok(false) };
            match &manifest.kind {
                ManifestKind::Index { manifests } => {
                    let chosen = select(manifests, platforms);
                    if chosen.is_empty() && !manifests.is_empty() {
                        return Ok(false);
                    }
                    queue.extend(chosen.iter().map(|child| child.digest));
                }
                ManifestKind::Image { .. } => {
                    queue.extend(manifest.children().map(|child| child.digest));
                }
            }
        }
        Ok(true)
    }

    /// Parses a held manifest; one that cannot be, or that has rotted, is logged and passed over.
    fn read(&self, entry: &Entry) -> Result<Option<Manifest>, Error> {
        let bytes = match self.store.read_all(&entry.digest, MANIFEST_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == Kind::Corrupt => {
                if self.rotten.borrow_mut().insert(entry.digest) {
                    error!("{error}; the next sync mends it");
                }
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.rotten.borrow_mut().remove(&entry.digest);
        match Manifest::parse(&bytes, entry.media_type.as_deref()) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) => {
                warn!("{}: {error}", entry.digest);
                Ok(None)
            }
        }
    }
}

impl Known {
    fn new(entry: &Entry, manifest: &Manifest) -> Self {
        // Annotations can be long, and only those of referrers are ever told.
        let annotations = manifest.subject.as_ref().map(|_| manifest.annotations.clone());
        let descriptor = Descriptor {
            artifact_type: manifest.artifact_type.clone(),
            annotations: annotations.unwrap_or_default(),
            ..Descriptor::new(&manifest.media_type, entry.digest, entry.size)
        };
        Self {
            children: manifest.children().map(|child| child.digest).collect(),
            subject: manifest.subject.as_ref().map(|subject| subject.digest),
            descriptor,
        }
    }
}
