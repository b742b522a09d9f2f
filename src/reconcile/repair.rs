//! Chunks that are corrupt on flash: fetched again from wherever an image that needs them comes
//! from, at once when they are found and at each pass until it works.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::Rc;

use log::{error, info};

use super::{Parts, Reconciler};
use crate::blob::{self, Entry};
use crate::catalog::Root;
use crate::fetch::Latch;
use crate::kind::Kind;
use crate::oci::Digest;
use crate::pull;

/// Where a blob may be had: the name of a registry, and a repository.
type Source = (String, String);

/// Where blobs may be had: from where the images come that need them.
#[derive(Default)]
struct Origins {
    needed: BTreeMap<Digest, BTreeSet<Source>>,
    /// Of images with a corrupt manifest: they may need any blob.
    unknown: BTreeSet<Source>,
}

impl Origins {
    /// Each once, in order.
    fn of(&self, digest: &Digest) -> impl Iterator<Item = &Source> {
        let needed = self.needed.get(digest);
        let unknown = self.unknown.iter();
        let others = unknown.filter(move |of| !needed.is_some_and(|needed| needed.contains(of)));
        needed.into_iter().flatten().chain(others)
    }
}

impl Reconciler {
    /// Repairs what is found to be corrupt, as soon as it is.
    pub async fn keep_repaired(&self) -> Infallible {
        loop {
            self.parts.store.corruption().await;
            self.repair(&Latch::default()).await;
        }
    }

    /// Tries to repair whatever is known to be corrupt. One blob that cannot be had, or one
    /// registry that does not answer, does not keep the others from being repaired. It ends where it
    /// waits for the link when `leave` is opened.
    pub(super) async fn repair(&self, leave: &Latch) {
        let Some(_turn) = leave.unless_opened(self.repairing.lock()).await else { return };
        let store = &self.parts.store;
        let (mut origins, mut silent) = (None, BTreeSet::new());
        let corrupt = store.corrupt();
        let digests: BTreeSet<Digest> = corrupt.iter().map(|(digest, _)| *digest).collect();
        for (digest, chunks) in corrupt {
            if self.parts.puller.stop().is_open() || !store.is_writable() {
                return;
            }
            let Some(entry) = store.entry(&digest) else { continue };
            let outcome = async {
                let origins = match &mut origins {
                    Some(origins) => origins,
                    none => none.insert(self.origins(&digests)?),
                };
                self.repair_blob(&entry, &chunks, origins, &mut silent, leave).await
            };
            match outcome.await {
                Ok(()) => {
                    self.unrepaired.borrow_mut().remove(&digest);
                }
                Err(error) if error.is_left() => return,
                Err(error) => {
                    let error = Rc::new(error);
                    let known = self.unrepaired.borrow_mut().insert(digest, Rc::clone(&error));
                    let is_news = known.is_none_or(|known| known.to_string() != error.to_string());
                    match error.held_back() {
                        _ if !is_news => {}
                        Some(_) => info!("{digest}: {NOT_REPAIRED}: {error}"),
                        None => error!("{digest}: {NOT_REPAIRED}: {error}"),
                    }
                }
            }
        }
        let corrupt: BTreeSet<Digest> =
            store.corrupt().into_iter().map(|(digest, _)| digest).collect();
        self.unrepaired.borrow_mut().retain(|digest, _| corrupt.contains(digest));
    }

    async fn repair_blob(
        &self,
        blob: &Entry,
        chunks: &BTreeSet<u32>,
        origins: &Origins,
        silent: &mut BTreeSet<String>,
        leave: &Latch,
    ) -> Result<(), pull::Error> {
        let Parts { store, puller, .. } = &self.parts;
        let digest = blob.digest;
        if origins.of(&digest).next().is_none()
            && !self.under_way().contains(&digest)
            // Others were repaired since that was found out, and an image may have come meanwhile.
            && self.origins(&BTreeSet::from([digest]))?.of(&digest).next().is_none()
        {
            info!("{digest}: corrupt on flash, no image needs it: given up");
            return Ok(store.delete(&[digest]).await?);
        }
        let mut problem = None;
        for (registry, repository) in origins.of(&digest) {
            if silent.contains(registry) {
                continue;
            }
            match puller.repair(registry, repository, blob, chunks, leave).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_left() => return Err(error),
                Err(error) => {
                    if error.is_unanswered() {
                        silent.insert(registry.clone());
                    }
                    problem = Some(error);
                }
            }
        }
        let waits = || pull::Error::new(Kind::Retry, "", "no registry that has it answers");
        Err(problem.unwrap_or_else(waits))
    }

    /// Where each of `digests` may be had, by the images that are held.
    fn origins(&self, digests: &BTreeSet<Digest>) -> Result<Origins, blob::Error> {
        let mut origins = Origins::default();
        for (key, root) in self.parts.store.tags() {
            let source = (key.registry, key.repository);
            match self.parts.catalog.reachable(&[Root::whole(root)]) {
                Ok(needed) => {
                    for digest in digests.intersection(&needed) {
                        origins.needed.entry(*digest).or_default().insert(source.clone());
                    }
                }
                Err(error) if error.kind() == Kind::Corrupt => {
                    origins.unknown.insert(source);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(origins)
    }

    /// Whether anything that an image needs is known to be corrupt.
    pub(super) fn is_corrupt_within(&self, root: Root<'_>) -> Result<bool, blob::Error> {
        let corrupt = self.parts.store.corrupt();
        if corrupt.is_empty() {
            return Ok(false);
        }
        match self.parts.catalog.reachable(&[root]) {
            Ok(needed) => Ok(corrupt.iter().any(|(digest, _)| needed.contains(digest))),
            Err(error) if error.kind() == Kind::Corrupt => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Fails when something that an image needs is corrupt and could not be repaired.
    pub(super) fn check_repaired(&self, root: Root<'_>) -> Result<(), pull::Error> {
        let unrepaired = self.unrepaired.borrow();
        if unrepaired.is_empty() {
            return Ok(());
        }
        let needed = match self.parts.catalog.reachable(&[root]) {
            // What its manifests are will be asked next.
            Err(error) if error.kind() == Kind::Corrupt => return Ok(()),
            other => other?,
        };
        match unrepaired.iter().find(|(digest, _)| needed.contains(digest)) {
            Some((digest, error)) => Err(not_repaired(digest, error)),
            None => Ok(()),
        }
    }
}

/// What becomes of an image with a blob that could not be repaired: it waits as long as that has to.
/// That another registry does not answer says nothing of the image's own.
fn not_repaired(digest: &Digest, error: &Rc<pull::Error>) -> pull::Error {
    match error.retry_after() {
        Some(_) => pull::Error::shared(Rc::clone(error)).about(format!("{digest}: {NOT_REPAIRED}")),
        None => {
            pull::Error::new(Kind::Retry, format!("{digest}: {NOT_REPAIRED}"), error.to_string())
        }
    }
}

const NOT_REPAIRED: &str = "corrupt on flash and not repaired";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fetch;

    #[test]
    fn an_image_waits_as_long_as_its_repair_and_no_longer() {
        let digest = Digest::sha256(b"x");
        let (reason, hour) = ("waits for the window until 18:00", Duration::from_hours(1));
        let waits = fetch::Error::HeldBack { reason: reason.to_owned(), retry_after: hour };
        let error = not_repaired(&digest, &Rc::new(waits.into()));
        assert_eq!(error.to_string(), format!("{digest}: {NOT_REPAIRED}: {reason}"));
        let expected = (Some(reason.to_owned()), Some(hour));
        assert_eq!((error.held_back(), error.retry_after()), expected);
        let missing = Rc::new(pull::Error::new(Kind::Missing, "", "not there"));
        let error = not_repaired(&digest, &missing);
        assert_eq!((error.kind(), error.held_back()), (Kind::Retry, None));
    }
}
