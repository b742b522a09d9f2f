//! Fetching again the chunks of a held blob that are corrupt on flash, and nothing else of it.

use std::collections::BTreeSet;
use std::ops::Range;

use log::info;

use super::slots::Priority;
use super::{Error, Puller, Source};
use crate::blob::Entry;
use crate::fetch::{self, Latch, Part};
use crate::kind::Kind;
use crate::oci::MANIFEST_BYTES_MAX;

impl Puller {
    /// Fetches `chunks` of a held blob again, which `repository` of `registry` is to have. One that
    /// comes wrong does not keep the others from being repaired.
    ///
    /// # Errors
    /// Why some are not; [`Error::is_left`] when `leave` was opened before the link was free.
    pub async fn repair(
        &self,
        registry: &str,
        repository: &str,
        blob: &Entry,
        chunks: &BTreeSet<u32>,
        leave: &Latch,
    ) -> Result<(), Error> {
        let source = self.source(registry, repository)?;
        let about = |error: Error| error.about(format!("{registry}/{repository}"));
        if blob.media_type.is_some() {
            return self.repair_manifest(&source, blob).await.map_err(about);
        }
        let mut outcome = Ok(());
        for chunk in chunks {
            if let Err(error) = self.repair_chunk(&source, blob, *chunk, leave).await {
                // Only wrong bytes say nothing of the other chunks.
                let is_about_all = error.kind() != Kind::Corrupt;
                outcome = Err(about(error));
                if is_about_all {
                    break;
                }
            }
        }
        outcome
    }

    async fn repair_manifest(&self, source: &Source<'_>, blob: &Entry) -> Result<(), Error> {
        let Source { registry, repository } = source;
        let text = blob.digest.to_string();
        let read = self.retrying(async || {
            self.parts.terms.may_fetch()?;
            let opened = registry.open_manifest(repository, &text).await?;
            let bytes = opened.body.bytes(MANIFEST_BYTES_MAX).await;
            Ok(bytes.map_err(fetch::Error::from)?)
        });
        let bytes = read.await?;
        self.parts.metrics.fetch_body_bytes.add(bytes.len() as u64);
        let found = blob.digest.algorithm().digest(&bytes);
        if found != blob.digest {
            let what = format!("bytes of digest {found}, expected {text}");
            return Err(Error::new(Kind::Corrupt, "", what));
        }
        self.parts.store.put(&blob.digest, &bytes, blob.media_type.as_deref()).await?;
        self.repaired(blob, "the manifest");
        Ok(())
    }

    async fn repair_chunk(
        &self,
        source: &Source<'_>,
        blob: &Entry,
        chunk: u32,
        leave: &Latch,
    ) -> Result<(), Error> {
        let range = self.parts.store.chunk_range(&blob.digest, chunk)?;
        let read = self.retrying(async || self.part(source, blob, range.clone(), leave).await);
        let bytes = read.await?;
        self.parts.store.repair(&blob.digest, chunk, &bytes).await?;
        self.repaired(blob, &format!("chunk {chunk}"));
        Ok(())
    }

    fn repaired(&self, blob: &Entry, what: &str) {
        self.parts.metrics.flash_repaired_chunks.add(1);
        info!("{}: {what} was corrupt on flash and is repaired", blob.digest);
    }

    /// Fetches a part of a blob into memory; `range` is a chunk's.
    async fn part(
        &self,
        source: &Source<'_>,
        blob: &Entry,
        range: Range<u64>,
        leave: &Latch,
    ) -> Result<Vec<u8>, Error> {
        let Source { registry, repository } = source;
        let slot = leave.unless_opened(self.slots.take(Priority { failures: 0, rank: 0 })).await;
        let _slot = slot.ok_or_else(Error::left)?;
        self.parts.terms.may_fetch()?;
        let (first, last) = (range.start, range.end.saturating_sub(1));
        let size = Some(blob.size);
        let mut opened = registry.blob(repository, &blob.digest, first, last, size).await?;
        let mut part = Part { start: range.start, bytes: Vec::new() };
        let (terms, end) = (&self.parts.terms, range.end);
        let again = |bytes| self.parts.metrics.fetch_repeated_bytes.add(bytes);
        fetch::copy(&mut opened.body, opened.start, &mut part, end, terms, again).await?;
        Ok(part.bytes)
    }
}
