//! What images are held: the blob log read as manifests.
//!
//! The log knows digests and tags; this module knows which of them are manifests, what they need
//! and what refers to them. Manifests never change, so each is parsed once and remembered by its
//! digest: only the digests that it names, and what the referrers API lists of it. Which children of
//! an index serve some platforms is worked out once, too.

mod imports;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;

use log::{error, warn};
use serde::Serialize;

use crate::blob::{Entry, Error, HashedReader, Store};
use crate::kind::Kind;
use crate::oci::{
    Digest, MANIFEST_BYTES_MAX, Manifest, ManifestError, ManifestKind, Platform, Selection,
};
pub use imports::Imports;

/// The images of one store. Clones share what was read.
#[derive(Clone)]
pub struct Catalog {
    store: Store,
    known: Rc<RefCell<BTreeMap<Digest, Rc<Known>>>>,
    /// Of those each that has a subject, behind that.
    referrers: Rc<RefCell<BTreeSet<(Digest, Digest)>>>,
    /// What the children of an index are to some platforms.
    selections: Rc<RefCell<Selections>>,
    /// Manifests that decayed on flash: what they need is not known.
    corrupt: Rc<RefCell<BTreeSet<Digest>>>,
}

/// An image, and the platforms that it is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// Its manifest or index.
    pub digest: Digest,
    /// For which of an index's children layers are held; for all of them if there are none.
    pub platforms: &'a [Platform],
}

impl Root<'_> {
    /// An image that is needed as far as it is held.
    pub fn whole(digest: Digest) -> Self {
        Self { digest, platforms: &[] }
    }
}

/// A held manifest as the referrers API lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// What it is.
    pub media_type: &'static str,
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free text by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is remembered of a manifest.
struct Known {
    media_type: &'static str,
    is_index: bool,
    /// What it names, each once; what an image requires comes first, and of that its configuration.
    children: Box<[Digest]>,
    required: usize,
    /// Of a referrer, what it refers to and what it is.
    refers: Option<(Digest, Option<String>)>,
}

/// By the digest of an index, and platforms.
type Selections = BTreeMap<(Digest, Vec<Platform>), Rc<Selection>>;

/// How much of a manifest is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All of it, whatever it is.
    Whole,
    /// What the platforms need.
    Chosen,
    /// The manifest and its configuration, for those who ask for every child of an index.
    Head,
}

impl Catalog {
    /// A catalog that has read nothing yet.
    pub fn new(store: Store) -> Self {
        let (known, referrers) = (Rc::default(), Rc::default());
        let (selections, corrupt) = (Rc::default(), Rc::default());
        Self { store, known, referrers, selections, corrupt }
    }

    /// Reads the manifests that came since, and forgets those that went.
    pub fn refresh(&self) -> Result<(), Error> {
        let is_held = |digest: &Digest| self.store.entry(digest).is_some();
        self.known.borrow_mut().retain(|digest, _| is_held(digest));
        self.selections.borrow_mut().retain(|(digest, _), _| is_held(digest));
        self.referrers.borrow_mut().retain(|(_, referrer)| is_held(referrer));
        self.corrupt.borrow_mut().retain(is_held);
        for entry in self.store.manifests() {
            self.known(&entry)?;
        }
        Ok(())
    }

    /// Reads the manifests that came since as [`Catalog::refresh`] does, with pauses, and what the
    /// children of indexes are to `platforms` with them.
    pub async fn learn(&self, platforms: &[Platform]) -> Result<(), Error> {
        for entry in self.store.manifests() {
            if self.known.borrow().contains_key(&entry.digest) {
                continue;
            }
            let outcome = read_aside(&self.store, &entry).await;
            let Some(manifest) = self.manifest(&entry, outcome)? else { continue };
            self.remember(entry.digest, &manifest);
            if matches!(manifest.kind, ManifestKind::Index { .. }) {
                let key = (entry.digest, platforms.to_vec());
                let selection = selection(&manifest, platforms);
                self.selections.borrow_mut().insert(key, selection);
            }
        }
        self.refresh()
    }

    fn remember(&self, digest: Digest, manifest: &Manifest) -> Rc<Known> {
        let known = Rc::new(Known::new(manifest));
        self.known.borrow_mut().insert(digest, Rc::clone(&known));
        if let Some((subject, _)) = known.refers {
            self.referrers.borrow_mut().insert((subject, digest));
        }
        known
    }

    /// At most `max` tags of a repository behind `after`, bytewise ordered.
    pub fn tags(&self, repository: (&str, &str), after: &str, max: usize) -> Vec<String> {
        // An image that is wanted by its digest has no tag to list.
        self.store.tags_after(repository, after, max, |tag| !tag.contains(':'))
    }

    /// Of the held manifests whose subject is `subject` the one that comes next behind `after`, and
    /// its length; of those of one artifact type if one is given.
    pub fn referrer_after(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&Digest>,
    ) -> Option<(Digest, u64)> {
        let (known, referrers) = (self.known.borrow(), self.referrers.borrow());
        let mut of = referrers_of(&referrers, *subject, after).filter_map(|referrer| {
            let (_, held_type) = known.get(&referrer)?.refers.as_ref()?;
            let is_asked = artifact_type.is_none_or(|asked| held_type.as_deref() == Some(asked));
            self.store.entry(&referrer).filter(|_| is_asked)
        });
        of.next().map(|entry| (entry.digest, entry.size))
    }

    /// A held manifest as the referrers API lists it. Its annotations are read from flash, unless
    /// the manifest has more than [`ANNOTATED_BYTES_MAX`]: that would take too long.
    pub fn referrer(&self, digest: &Digest) -> Option<Referrer> {
        let entry = self.store.entry(digest)?;
        let (media_type, artifact_type) = {
            let known = self.known.borrow();
            let known = known.get(digest)?;
            (known.media_type, known.refers.as_ref()?.1.clone())
        };
        let is_short = entry.size <= ANNOTATED_BYTES_MAX;
        let annotations = is_short.then(|| self.annotations(digest)).flatten().unwrap_or_default();
        Some(Referrer { media_type, digest: *digest, size: entry.size, artifact_type, annotations })
    }

    fn annotations(&self, digest: &Digest) -> Option<BTreeMap<String, String>> {
        let mut reader = self.store.open_hashed(digest, MANIFEST_BYTES_MAX).ok()?;
        let annotations = Manifest::annotations(&mut reader).ok()?;
        reader.finish().ok().map(|()| annotations)
    }

    /// Everything that `roots` need, themselves and what accompanies them included, as far as it is
    /// held.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when one of the manifests has decayed: what it needs must not be taken for
    /// needless.
    pub fn reachable(&self, roots: &[Root<'_>]) -> Result<BTreeSet<Digest>, Error> {
        self.refresh()?;
        let mut found = BTreeSet::new();
        for root in roots {
            self.reach(root, &mut found)?;
        }
        Ok(found)
    }

    /// Whether a tag of a repository, or one of `roots`, leads to a digest, or that is one of these.
    ///
    /// # Errors
    /// As of [`Catalog::reachable`].
    pub fn leads_to(
        &self,
        (registry, repository): (&str, &str),
        roots: &[Digest],
        digest: &Digest,
    ) -> Result<bool, Error> {
        let tagged = self.store.tagged(registry, repository);
        let roots: Vec<Root<'_>> = tagged.iter().chain(roots).copied().map(Root::whole).collect();
        if roots.iter().any(|root| root.digest == *digest) {
            return Ok(true);
        }
        Ok(self.reachable(&roots)?.contains(digest))
    }

    fn reach(&self, root: &Root<'_>, found: &mut BTreeSet<Digest>) -> Result<(), Error> {
        let (known, referrers) = (self.known.borrow(), self.referrers.borrow());
        // What only its head is needed of may turn out to be needed whole.
        let mut seen = BTreeSet::new();
        let part = if root.platforms.is_empty() { Part::Whole } else { Part::Chosen };
        let mut queue = vec![(root.digest, part)];
        while let Some((digest, part)) = queue.pop() {
            if !seen.insert((digest, part == Part::Head)) {
                continue;
            }
            found.insert(digest);
            if part != Part::Head && self.corrupt.borrow().contains(&digest) {
                return Err(corrupt(&digest));
            }
            if part != Part::Head {
                let of = referrers_of(&referrers, digest, None);
                queue.extend(of.map(|referrer| (referrer, Part::Whole)));
            }
            let Some(manifest) = known.get(&digest) else { continue };
            let children = manifest.children.iter();
            match (part, manifest.is_index) {
                (Part::Head, true) => {}
                (Part::Head, false) => found.extend(children.take(1)),
                (_, false) => found.extend(children),
                (Part::Whole, true) => queue.extend(children.map(|child| (*child, Part::Whole))),
                (Part::Chosen, true) => {
                    let selection = self.selection(&digest, root.platforms)?;
                    let selection = selection.ok_or_else(|| corrupt(&digest))?;
                    let Selection { chosen, attestations, others } = &*selection;
                    queue.extend(chosen.iter().map(|child| (*child, Part::Chosen)));
                    queue.extend(attestations.iter().map(|child| (*child, Part::Whole)));
                    queue.extend(others.iter().map(|child| (*child, Part::Head)));
                }
            }
        }
        Ok(())
    }

    /// Whether everything that an image requires on `platforms` is held. What only accompanies it
    /// may be missing: attestations, foreign layers, and the manifests of other platforms.
    pub fn complete(&self, root: &Digest, platforms: &[Platform]) -> Result<bool, Error> {
        let mut queue = vec![*root];
        let mut seen = BTreeSet::new();
        while let Some(digest) = queue.pop() {
            if !seen.insert(digest) {
                continue;
            }
            // A manifest without its type was only written ahead: what it needs is not known.
            let entry = self.store.entry(&digest).filter(|entry| entry.media_type.is_some());
            let Some(entry) = entry else { return Ok(false) };
            let Some(known) = self.known(&entry)? else { return Ok(false) };
            if known.is_index {
                let Some(selection) = self.selection(&digest, platforms)? else { return Ok(false) };
                if selection.chosen.is_empty() && !known.children.is_empty() {
                    return Ok(false);
                }
                queue.extend(&selection.chosen);
            } else {
                let mut required = known.children.iter().take(known.required);
                if !required.all(|blob| self.store.entry(blob).is_some()) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What is remembered of a held manifest; it is read if nothing is.
    fn known(&self, entry: &Entry) -> Result<Option<Rc<Known>>, Error> {
        if let Some(known) = self.known.borrow().get(&entry.digest) {
            return Ok(Some(Rc::clone(known)));
        }
        let Some(manifest) = self.manifest(entry, read(&self.store, entry))? else {
            return Ok(None);
        };
        Ok(Some(self.remember(entry.digest, &manifest)))
    }

    /// What the children of a held index are to `platforms`.
    fn selection(
        &self,
        index: &Digest,
        platforms: &[Platform],
    ) -> Result<Option<Rc<Selection>>, Error> {
        let key = (*index, platforms.to_vec());
        if let Some(selection) = self.selections.borrow().get(&key) {
            return Ok(Some(Rc::clone(selection)));
        }
        let Some(entry) = self.store.entry(index) else { return Ok(None) };
        let Some(manifest) = self.manifest(&entry, read(&self.store, &entry))? else {
            return Ok(None);
        };
        let selection = selection(&manifest, platforms);
        self.selections.borrow_mut().insert(key, Rc::clone(&selection));
        Ok(Some(selection))
    }

    /// What came of reading a manifest: one that is none, or that has decayed, is logged and passed
    /// over.
    fn manifest(&self, entry: &Entry, outcome: Outcome) -> Result<Option<Manifest>, Error> {
        match outcome {
            Ok(parsed) => {
                self.corrupt.borrow_mut().remove(&entry.digest);
                Ok(parsed.map_err(|error| warn!("{}: {error}", entry.digest)).ok())
            }
            Err(error) if error.kind() == Kind::Corrupt => {
                if self.corrupt.borrow_mut().insert(entry.digest) {
                    error!("{error}; it is passed over until it is repaired");
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What came of reading a held manifest: [`Kind::Corrupt`] when it has decayed; the inner error
/// is for what is no manifest.
pub type Outcome = Result<Result<Manifest, ManifestError>, Error>;

/// As [`read`], but one that is not short is read on another thread.
pub async fn read_aside(store: &Store, entry: &Entry) -> Outcome {
    if entry.size <= SHORT_BYTES_MAX {
        return read(store, entry);
    }
    let content_type = entry.media_type.clone();
    let parse = move |checked: &mut HashedReader| Manifest::read(checked, content_type.as_deref());
    store.hashed_aside(&entry.digest, MANIFEST_BYTES_MAX, parse).await
}

/// Parses a held manifest as it is read from flash, without holding its bytes.
fn read(store: &Store, entry: &Entry) -> Outcome {
    let mut checked = store.open_hashed(&entry.digest, MANIFEST_BYTES_MAX)?;
    let parsed = Manifest::read(&mut checked, entry.media_type.as_deref());
    checked.finish()?;
    Ok(parsed)
}

impl Known {
    fn new(manifest: &Manifest) -> Self {
        let mut seen = BTreeSet::new();
        let mut children = manifest.children();
        let required = match &manifest.kind {
            ManifestKind::Image { config, layers } => {
                let (foreign, own): (Vec<_>, Vec<_>) =
                    layers.iter().partition(|layer| layer.is_foreign);
                let own = std::iter::once(config).chain(own).map(|blob| blob.digest);
                children = own.filter(|digest| seen.insert(*digest)).collect();
                let required = children.len();
                let foreign = foreign.into_iter().map(|layer| layer.digest);
                children.extend(foreign.filter(|digest| seen.insert(*digest)));
                required
            }
            ManifestKind::Index { .. } => {
                children.retain(|digest| seen.insert(*digest));
                children.len()
            }
        };
        let refers = manifest.subject.map(|subject| (subject, manifest.artifact_type.clone()));
        Self {
            media_type: manifest.media_type,
            is_index: matches!(manifest.kind, ManifestKind::Index { .. }),
            children: children.into(),
            required,
            refers,
        }
    }
}

/// What the children of an index are to `platforms`.
fn selection(manifest: &Manifest, platforms: &[Platform]) -> Rc<Selection> {
    Rc::new(match &manifest.kind {
        ManifestKind::Index { manifests } => Selection::new(manifests, platforms),
        ManifestKind::Image { .. } => Selection::default(),
    })
}

/// Of pairs of a subject and a referrer, the referrers of one subject behind `after`, in order.
fn referrers_of(
    pairs: &BTreeSet<(Digest, Digest)>,
    subject: Digest,
    after: Option<&Digest>,
) -> impl Iterator<Item = Digest> {
    let from =
        after.map_or(Bound::Included((subject, FIRST)), |after| Bound::Excluded((subject, *after)));
    let of = pairs.range((from, Bound::Unbounded));
    of.take_while(move |(of, _)| *of == subject).map(|(_, referrer)| *referrer)
}

fn corrupt(digest: &Digest) -> Error {
    let what = format!("{digest} has decayed on flash: what it needs is not known");
    Error::new(Kind::Corrupt, what)
}

/// A longer manifest takes milliseconds to read.
const SHORT_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a manifest whose annotations are listed.
pub const ANNOTATED_BYTES_MAX: u64 = 16 << 10;
/// No digest comes before it.
const FIRST: Digest = Digest::Sha256([0; 32]);

#[cfg(test)]
mod tests;
