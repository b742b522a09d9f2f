//! Fetching again the chunks of a held blob that rotted on flash, and nothing else of it.

use std::ops::Range;

use log::info;

use super::{Error, Plan, PlannedBlob, Puller, Source};
use crate::kind::Kind;

impl Puller {
    /// Puts right whatever of the image's blobs is known to be rotten.
    pub(super) async fn mend(&self, source: &Source<'_>, plan: &Plan) -> Result<(), Error> {
        for (digest, chunks) in self.parts.store.rotten() {
            let Some(blob) = plan.blobs.iter().find(|blob| blob.digest == digest) else { continue };
            for chunk in chunks {
                let range = self.parts.store.chunk_range(&digest, chunk)?;
                let bytes = self
                    .retrying(async || self.part(source, blob, range.clone()).await)
                    .await
                    .map_err(|error| error.about(plan.name.clone()))?;
                self.parts.store.mend(&digest, chunk, &bytes).await?;
                self.parts.metrics.flash_mended_chunks.add(1);
                info!("{}: chunk {chunk} of {digest} had rotted and is mended", plan.name);
            }
        }
        Ok(())
    }

    /// Fetches a part of a blob into memory; `range` is a chunk's.
    async fn part(
        &self,
        source: &Source<'_>,
        blob: &PlannedBlob,
        range: Range<u64>,
    ) -> Result<Vec<u8>, Error> {
        let Source { registry, repository } = source;
        let (first, last) = (range.start, range.end.saturating_sub(1));
        let opened = registry.blob(repository, &blob.digest, first, last, blob.size).await?;
        let (mut body, mut at) = (opened.body, opened.start);
        let mut bytes = Vec::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        while at < range.end {
            self.parts.pace.wait().await;
            let length = body.read(&mut buffer).await.map_err(crate::fetch::Error::from)?;
            if length == 0 {
                let what = format!("body ended at byte {at}, expected {}", range.end);
                return Err(Error::new(Kind::Retry, blob.digest.to_string(), what));
            }
            self.parts.metrics.fetch_body_bytes.add(length as u64);
            self.parts.metrics.fetch_repeated_bytes.add(length as u64);
            // A registry that ignores Range begins at the beginning.
            let skip = range.start.saturating_sub(at).min(length as u64);
            let end = range.end.saturating_sub(at).min(length as u64);
            let piece = usize::try_from(skip).ok().zip(usize::try_from(end).ok());
            let piece = piece.and_then(|(skip, end)| buffer.get(skip..end.max(skip)));
            bytes.extend_from_slice(piece.unwrap_or_default());
            at += length as u64;
        }
        Ok(bytes)
    }
}

const BUFFER_BYTES: usize = 16 << 10;
