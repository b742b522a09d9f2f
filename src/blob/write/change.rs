//! Changes of what is held: blobs, their media types and pins, and tags.
//!
//! Each is a record, and durable when the call returns; nothing in between is ever to be seen.

use log::warn;

use crate::blob::format::{BLOB_BYTES_MAX, BlobRecord, Extent, Record, TagKey};
use crate::blob::index::tag_bytes;
use crate::blob::store::missing;
use crate::blob::{Entry, Error, Store, Writer};
use crate::kind::Kind;
use crate::oci::Digest;
use crate::units::{ByteCount, to_usize};

impl Store {
    /// Begins to write a blob of `size` bytes, or goes on where an earlier writer of it stopped.
    ///
    /// # Errors
    /// [`Kind::Full`] when there is no room; [`Kind::Invalid`] when it is longer than
    /// [`BLOB_BYTES_MAX`], held already or has a live writer.
    pub async fn writer(
        &self,
        digest: &Digest,
        size: u64,
        media_type: Option<&str>,
    ) -> Result<Writer, Error> {
        if size > BLOB_BYTES_MAX {
            let (size, max) = (ByteCount(size), ByteCount(BLOB_BYTES_MAX));
            let what = format!("{digest}: a blob of {size}, expected at most {max}");
            return Err(Error::new(Kind::Invalid, what));
        }
        match self.new_writer(digest, size, media_type).await {
            Err(error) if error.kind() == Kind::Corrupt => {
                warn!("{error}; it begins again");
                self.delete(&[*digest]).await?;
                self.new_writer(digest, size, media_type).await
            }
            other => other,
        }
    }

    async fn new_writer(
        &self,
        digest: &Digest,
        size: u64,
        media_type: Option<&str>,
    ) -> Result<Writer, Error> {
        {
            let mut state = self.0.state.borrow_mut();
            state.check()?;
            if state.index.blobs.contains(digest) || !state.writing.insert(*digest) {
                let what = format!("{digest}: is held or being written, expected neither");
                return Err(Error::new(Kind::Invalid, what));
            }
        }
        // The task that waits for room may go away meanwhile.
        let claim = Claim { store: self, digest, mounted: self.mounted() };
        let partial = self.begin_writing(digest, size, media_type).await?;
        let writer = Writer::new(self.clone(), partial, claim.mounted).await?;
        std::mem::forget(claim);
        Ok(writer)
    }

    /// Holds `bytes` under their digest. When they are held already, nothing is done but to put
    /// right what of them has decayed.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when they have another digest; those of [`Store::writer`].
    pub async fn put(
        &self,
        digest: &Digest,
        bytes: &[u8],
        media_type: Option<&str>,
    ) -> Result<(), Error> {
        if self.is_finished(digest) {
            self.flush().await?;
        }
        if let Some(entry) = self.entry(digest) {
            if self.is_corrupt(digest, 0..u64::MAX) || self.read_all(digest, entry.size).is_err() {
                self.repair_all(digest, bytes).await?;
            }
            self.name_type(&entry, media_type).await?;
            // It is held from its Commit on, and its writer may wait for the sync still.
            return self.flush().await;
        }
        let mut writer = self.writer(digest, bytes.len() as u64, media_type).await?;
        let from = to_usize(writer.frontier());
        writer.write(bytes.get(from..).unwrap_or_default()).await?;
        writer.commit().await
    }

    /// Sets the media type that a held blob turns out to have; durable when it returns.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not held.
    pub async fn set_media_type(&self, digest: &Digest, media_type: &str) -> Result<(), Error> {
        let entry = self.entry(digest).ok_or_else(|| missing(digest))?;
        self.name_type(&entry, Some(media_type)).await?;
        // It is held from its Commit on, and its writer may wait for the sync still.
        self.flush().await
    }

    /// Makes a tag mean `digest`; durable when it returns, and never anything in between.
    ///
    /// # Errors
    /// [`Kind::Missing`] when the digest is not held.
    pub async fn set_tag(&self, key: &TagKey, digest: &Digest) -> Result<(), Error> {
        let is_new = {
            let index = &self.0.state.borrow().index;
            if !index.blobs.contains(digest) {
                return Err(missing(digest));
            }
            !index.tags.contains_key(key)
        };
        let bytes = if is_new { tag_bytes(key) } else { 0 };
        self.make_index_room(bytes, &key.to_string()).await?;
        self.append(Record::Tag { key: key.clone(), digest: *digest })?;
        self.flush().await
    }

    /// Makes a tag mean nothing.
    pub async fn remove_tag(&self, key: &TagKey) -> Result<(), Error> {
        if self.tag(key).is_none() {
            return Ok(());
        }
        self.append(Record::Untag { key: key.clone() })?;
        self.flush().await
    }

    /// Records which of `digests` the desired state needs; those that are not held are skipped.
    pub async fn pin(&self, digests: &[Digest], pinned: bool) -> Result<(), Error> {
        for digest in digests {
            let changes = self.entry(digest).is_some_and(|entry| entry.pinned != pinned);
            if changes {
                self.append(Record::Pin { digest: *digest, pinned })?;
            }
        }
        self.flush().await
    }

    /// Drops blobs and downloads, and frees their room; works when the log is full. What
    /// has a live writer, or is finished and not flushed, is left alone.
    pub async fn delete(&self, digests: &[Digest]) -> Result<(), Error> {
        for digest in digests {
            let is_there = {
                let state = self.0.state.borrow();
                let index = &state.index;
                !state.writing.contains(digest)
                    && (index.blobs.contains(digest) || index.partials.contains_key(digest))
            };
            if is_there {
                self.append(Record::Delete { digest: *digest })?;
            }
        }
        self.flush().await
    }

    /// A writer of `digest` is no more; nothing else will be programmed to `extents` by it.
    pub(in crate::blob) fn end_writing(&self, digest: &Digest, extents: &[Extent], mounted: u64) {
        if self.check_mounted(mounted).is_err() {
            return;
        }
        self.forget_placed(digest);
        let mut state = self.0.state.borrow_mut();
        state.space.end_writing(extents);
        // One that is finished is as good as being written until it is committed.
        if !state.is_finished(digest) {
            state.writing.remove(digest);
        }
    }

    /// Sets the media type that a blob, held already, turns out to have.
    async fn name_type(&self, entry: &Entry, media_type: Option<&str>) -> Result<(), Error> {
        if media_type.is_none() || media_type == entry.media_type.as_deref() {
            return Ok(());
        }
        let record = self.0.state.borrow().index.blobs.get(&entry.digest);
        let Some(record) = record else { return Err(missing(&entry.digest)) };
        let record = BlobRecord { media_type: media_type.map(str::to_owned), ..record };
        self.append(Record::Commit(record))?;
        self.flush().await
    }
}

/// The right to write a blob, until its writer has it.
struct Claim<'a> {
    store: &'a Store,
    digest: &'a Digest,
    mounted: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.store.check_mounted(self.mounted).is_ok() {
            self.store.0.state.borrow_mut().writing.remove(self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::flash::{Geometry, sim};
    use crate::metrics::Metrics;

    #[test]
    fn sizes_from_outside_are_bounded() {
        let geometry =
            Geometry { segment_count: 9, segment_bytes: 4096, program_bytes: 64, reprogram: true };
        let metrics = Rc::new(Metrics::default());
        let (store, _) = Store::open(Arc::new(sim::Device::new(geometry)), metrics).unwrap();
        let digest = Digest::sha256(b"x");
        for (size, kind) in [
            (4096 * 5 + 1, Kind::Full),
            (BLOB_BYTES_MAX, Kind::Full),
            (BLOB_BYTES_MAX + 1, Kind::Invalid),
            (u64::MAX, Kind::Invalid),
        ] {
            let refused = smol::block_on(store.writer(&digest, size, None)).err().unwrap();
            assert_eq!(refused.kind(), kind, "{size}: {refused}");
        }
        assert_eq!(smol::block_on(store.put(&digest, b"x", None)).map_err(|e| e.kind()), Ok(()));
    }
}
