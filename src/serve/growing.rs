//! A blob that is sent while it lands.
//!
//! What is sent was read from flash, below the watermark of the download. Its end is kept back until
//! the digest of all of it was verified, so that no client ever has the whole of a wrong blob: one
//! that fails ends short, as any other body that does. What is verified leaves as a held blob does.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;

use super::Part;
use crate::blob::Store;
use crate::net::http::Source;
use crate::oci::Digest;
use crate::pull::Download;

/// A part of a blob that is being downloaded.
pub(super) struct Growing {
    store: Store,
    download: Download,
    digest: Digest,
    /// What is left to be sent.
    range: Range<u64>,
    /// Where the bytes begin that are kept back.
    kept_back: u64,
    /// What is sent from, once the blob is whole.
    part: Option<Part>,
}

impl Growing {
    /// `range` of a blob of `size` bytes.
    pub fn new(
        store: Store,
        download: Download,
        digest: Digest,
        range: Range<u64>,
        size: u64,
    ) -> Self {
        let kept_back = size.saturating_sub(KEPT_BACK_BYTES);
        Self { store, download, digest, range, kept_back, part: None }
    }

    async fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let other = |error: &dyn std::error::Error| io::Error::other(error.to_string());
        if self.part.is_none() {
            let shown = self.kept_back.min(self.range.end).saturating_sub(self.range.start);
            let room = usize::try_from(shown).unwrap_or(usize::MAX).min(buffer.len());
            let room = buffer.get_mut(..room).unwrap_or_default();
            let read = self.download.read(self.range.start, room).await;
            let read = read.map_err(|error| other(&error))?;
            if read > 0 {
                self.range.start += read as u64;
                return Ok(read);
            }
            self.store.flush().await.map_err(|error| other(&error))?;
            let reader = self.store.reader(&self.digest).map_err(|error| other(&error))?;
            self.part = Some(Part::new(reader, self.range.clone()));
        }
        match &mut self.part {
            Some(part) => part.read(buffer).await,
            None => Ok(0),
        }
    }
}

impl Source for Growing {
    fn read<'a>(
        &'a mut self,
        buffer: &'a mut [u8],
    ) -> Pin<Box<dyn Future<Output = io::Result<usize>> + 'a>> {
        Box::pin(self.next(buffer))
    }
}

/// Of a blob's end so much is sent only when all of it is known to be right. What is no longer is not
/// begun to be sent before.
pub(super) const KEPT_BACK_BYTES: u64 = 64 << 10;
