//! Chunks that are corrupt on flash: fetched again from wherever an image that needs them comes
//! from, at once when they are found and at each pass until it works.

use std::collections::BTreeSet;
use std::convert::Infallible;

use log::{error, info};

use super::{Parts, Reconciler};
use crate::blob::{self, Entry};
use crate::catalog::Root;
use crate::kind::Kind;
use crate::oci::Digest;
use crate::pull;

/// Where a blob may be had: the name of a registry, and a repository.
type Source = (String, String);

impl Reconciler {
    /// Repairs what is found to be corrupt, as soon as it is.
    pub async fn keep_repaired(&self) -> Infallible {
        loop {
            self.parts.store.corruption().await;
            self.repair().await;
        }
    }

    /// Tries to repair whatever is known to be corrupt. One blob that cannot be had, or one
    /// registry that does not answer, does not keep the others from being repaired.
    pub(super) async fn repair(&self) {
        let _turn = self.repairing.lock().await;
        let store = &self.parts.store;
        let mut silent = BTreeSet::new();
        for (digest, chunks) in store.corrupt() {
            if self.parts.puller.stop().is_open() || !store.is_writable() {
                return;
            }
            let Some(entry) = store.entry(&digest) else { continue };
            match self.repair_blob(&entry, &chunks, &mut silent).await {
                Ok(()) => {
                    self.unrepaired.borrow_mut().remove(&digest);
                }
                Err(error) => {
                    let text = error.to_string();
                    let known = self.unrepaired.borrow_mut().insert(digest, text.clone());
                    if known.as_ref() != Some(&text) {
                        error!("{digest}: corrupt on flash and not repaired: {text}");
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
        silent: &mut BTreeSet<String>,
    ) -> Result<(), pull::Error> {
        let Parts { store, puller, .. } = &self.parts;
        let (sources, is_certain) = self.sources(&blob.digest)?;
        if sources.is_empty() && is_certain && !self.under_way().contains(&blob.digest) {
            info!("{}: corrupt on flash, no image needs it: given up", blob.digest);
            return Ok(store.delete(&[blob.digest]).await?);
        }
        let mut problem = None;
        for (registry, repository) in sources {
            if silent.contains(&registry) {
                continue;
            }
            match puller.repair(&registry, &repository, blob, chunks).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if error.is_unanswered() {
                        silent.insert(registry);
                    }
                    problem = Some(error);
                }
            }
        }
        let waits = || pull::Error::new(Kind::Retry, "", "no registry that has it answers");
        Err(problem.unwrap_or_else(waits))
    }

    /// Where a blob is to be had: from where the images come that need it, or may need it, which is
    /// not known of those with a corrupt manifest; and whether there are none of the latter.
    fn sources(&self, digest: &Digest) -> Result<(BTreeSet<Source>, bool), blob::Error> {
        let mut sources = BTreeSet::new();
        let mut is_certain = true;
        for (key, root) in self.parts.store.tags() {
            match self.parts.catalog.reachable(&[Root::whole(root)]) {
                Ok(needed) if !needed.contains(digest) => continue,
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Corrupt => is_certain = false,
                Err(error) => return Err(error),
            }
            sources.insert((key.registry, key.repository));
        }
        Ok((sources, is_certain))
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
            Some((digest, why)) => {
                let what = format!("corrupt on flash and not repaired: {why}");
                Err(pull::Error::new(Kind::Retry, digest.to_string(), what))
            }
            None => Ok(()),
        }
    }
}
