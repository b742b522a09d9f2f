//! Fetching again the chunks of a held blob that are corrupt on flash, and nothing else of it.

use std::collections::BTreeSet;
use std::ops::Range;

use log::info;

use super::slots::Priority;
use super::{Error, Puller, Source};
use crate::blob::Entry;
use crate::fetch::{self, Part};

impl Puller {
    /// Fetches `chunks` of a held blob again, which `repository` of `registry` is to have. One that
    /// cannot be had does not keep the others from being repaired.
    pub async fn repair(
        &self,
        registry: &str,
        repository: &str,
        blob: &Entry,
        chunks: &BTreeSet<u32>,
    ) -> Result<(), Error> {
        let source = self.source(registry, repository)?;
        let about = |error: Error| error.about(format!("{registry}/{repository}"));
        if blob.media_type.is_some() {
            return self.repair_manifest(&source, blob).await.map_err(about);
        }
        let mut outcome = Ok(());
        for chunk in chunks {
            if let Err(error) = self.repair_chunk(&source, blob, *chunk).await {
                outcome = Err(about(error));
            }
        }
        outcome
    }

    async fn repair_manifest(&self, source: &Source<'_>, blob: &Entry) -> Result<(), Error> {
        let Source { registry, repository } = source;
        let text = blob.digest.to_string();
        let read = self.retrying(async || Ok(registry.manifest(repository, &text).await?));
        let manifest = read.await?;
        self.parts.metrics.fetch_body_bytes.add(manifest.bytes.len() as u64);
        let media_type = Some(manifest.media_type.as_str());
        self.parts.store.put(&blob.digest, &manifest.bytes, media_type).await?;
        self.repaired(blob, "the manifest");
        Ok(())
    }

    async fn repair_chunk(
        &self,
        source: &Source<'_>,
        blob: &Entry,
        chunk: u32,
    ) -> Result<(), Error> {
        let range = self.parts.store.chunk_range(&blob.digest, chunk)?;
        let read = self.retrying(async || self.part(source, blob, range.clone()).await);
        let bytes = read.await?;
        self.parts.store.mend(&blob.digest, chunk, &bytes).await?;
        self.repaired(blob, &format!("chunk {chunk}"));
        Ok(())
    }

    fn repaired(&self, blob: &Entry, what: &str) {
        self.parts.metrics.flash_mended_chunks.add(1);
        info!("{}: {what} was corrupt on flash and is repaired", blob.digest);
    }

    /// Fetches a part of a blob into memory; `range` is a chunk's.
    async fn part(
        &self,
        source: &Source<'_>,
        blob: &Entry,
        range: Range<u64>,
    ) -> Result<Vec<u8>, Error> {
        let Source { registry, repository } = source;
        let _slot = self.slots.take(Priority { failures: 0, rank: 0 }).await;
        let (first, last) = (range.start, range.end.saturating_sub(1));
        let mut opened = registry.blob(repository, &blob.digest, first, last, blob.size).await?;
        let mut part = Part { start: range.start, bytes: Vec::new() };
        let (pace, end) = (&self.parts.pace, range.end);
        let again = |bytes| self.parts.metrics.fetch_repeated_bytes.add(bytes);
        fetch::copy(&mut opened.body, opened.start, &mut part, end, pace, again).await?;
        Ok(part.bytes)
    }
}
