//! Reading one blob, and checking what is read before somebody else relies on it.

use std::any::Any;
use std::fs::File;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use log::warn;

use crate::blob::format::layout;
use crate::blob::format::{BlobRecord, CHUNK_BYTES};
use crate::blob::index::checks::Checked;
use crate::blob::read::hashing::{self, Expected, Origin};
use crate::blob::store::missing;
use crate::blob::{Error, Store};
use crate::kind::Kind;
use crate::oci::Digest;
use crate::units::to_u32;

/// A blob that is held. While a reader or its lease lives, the blob's room is not used again, even
/// if the blob is deleted.
#[derive(Clone)]
pub struct Reader {
    pub(in crate::blob) store: Store,
    pub(in crate::blob) record: Rc<BlobRecord>,
    /// What is known of the blob's bytes at this place.
    pub(in crate::blob) checked: Rc<Checked>,
}

/// A run of a blob's bytes in a file.
#[derive(Clone, Debug)]
pub struct Span {
    /// The file.
    pub file: Arc<File>,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Store {
    /// Opens a blob that is held, for a client that uses it: it is evicted later than others.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not.
    pub fn reader(&self, digest: &Digest) -> Result<Reader, Error> {
        self.touch(digest);
        let reader = self.look(digest)?;
        let checked = self.0.state.borrow_mut().checks.of(digest);
        Ok(Reader { checked, ..reader })
    }

    /// Opens a blob that is held, to look at it.
    pub(in crate::blob) fn look(&self, digest: &Digest) -> Result<Reader, Error> {
        let mut state = self.0.state.borrow_mut();
        let record = state.index.blobs.get(digest).ok_or_else(|| missing(digest))?;
        let record = Rc::new(record);
        state.leases.retain(|lease| lease.strong_count() > 0);
        state.leases.push(Rc::downgrade(&record));
        Ok(Reader { store: self.clone(), record, checked: Rc::default() })
    }
}

impl Reader {
    /// The blob's name.
    pub fn digest(&self) -> &Digest {
        &self.record.digest
    }

    /// Bytes of the blob.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Reads from byte `offset` of the blob; returns the number of bytes, which is less than asked
    /// for only at the blob's end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let left = self.record.size.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        layout::read(self.store.device(), &self.record.extents, offset, buffer)?;
        Ok(length)
    }

    /// How many of `length` bytes from byte `offset` may be sent: at least one, of bytes whose
    /// chunks were compared with their hashes since the start, and not too long ago. Where that is
    /// not known of the first one, its chunk is checked now; all who wait for that share one check.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when the chunk is not what was written. That is recorded.
    pub async fn admit(&self, offset: u64, length: u64) -> Result<u64, Error> {
        match self.admitted(offset, length) {
            0 => Box::pin(self.check(offset, length)).await,
            bytes => Ok(bytes),
        }
    }

    /// How many bytes [`Reader::admit`] would admit without a check.
    pub fn admitted(&self, offset: u64, length: u64) -> u64 {
        let now = self.store.0.state.borrow().checks.now();
        self.checked.good_bytes(offset, length, now)
    }

    async fn check(&self, offset: u64, length: u64) -> Result<u64, Error> {
        let chunk = to_u32(offset / CHUNK_BYTES);
        let _turn = self.checked.turn.lock().await;
        // The task that had the turn before may have checked this one.
        let admitted = self.admitted(offset, length);
        if admitted > 0 {
            return Ok(admitted);
        }
        let is_known = self.store.is_corrupt(&self.record.digest, offset..offset + 1)
            && self.store.is_at(&self.record);
        let wanted = (offset + length - 1) / CHUNK_BYTES + 1 - u64::from(chunk);
        // A reader that goes on reads more; the first bytes are not to wait for that.
        let reads_on = chunk > 0 && self.admitted(offset - CHUNK_BYTES, 1) > 0;
        let count = wanted.min(if reads_on { RUN_MAX } else { 1 });
        let end = chunk.saturating_add(to_u32(count));
        if is_known || !self.check_chunks(chunk..end).await {
            let what = format!("{}: chunk {chunk} is corrupt on flash", self.record.digest);
            return Err(Error::new(Kind::Corrupt, what));
        }
        // However short the interval is, what was checked just now is good.
        let end = (u64::from(chunk) + 1) * CHUNK_BYTES;
        Ok(self.admitted(offset, length).max(length.min(end - offset)))
    }

    /// Checks chunks and notes the outcome; whether the first is right. The caller has the turn.
    async fn check_chunks(&self, chunks: Range<u32>) -> bool {
        let Self { store, record, checked } = self;
        let now = || store.0.state.borrow().checks.now();
        if record.size > CHUNK_BYTES && !checked.has_trailer(now()) {
            let trailer = hashing::trailer_hashes(store, record).await;
            if trailer.is_none() {
                return self.check_all_chunks().await;
            }
            checked.set_trailer(now());
        }
        let expected = match record.size {
            0..=CHUNK_BYTES => Expected::Digest(record.digest),
            _ => Expected::InTrailer,
        };
        let begun = now();
        let mut found =
            hashing::chunks_match(store, record, chunks.clone(), expected, Origin::Cache).await;
        if found.is_err() && chunks.len() > 1 {
            // One of them cannot be read; here it matters whether that is the first.
            let first = chunks.start..chunks.start + 1;
            found = hashing::chunks_match(store, record, first, expected, Origin::Cache).await;
        }
        // Bytes that cannot be read at all are no better than wrong ones.
        let found = found.unwrap_or_else(|_| vec![false]);
        let bytes = CHUNK_BYTES.saturating_mul(found.len() as u64).min(record.size);
        store.metrics().store_checked_bytes.add(bytes);
        for (chunk, is_right) in chunks.zip(&found) {
            if *is_right {
                checked.set_chunk(chunk, begun);
            } else {
                self.report(&[chunk]);
            }
        }
        found.first() == Some(&true)
    }

    /// Checks a blob by its digest, whose trailer is corrupt, and writes that anew where the bytes
    /// are sound: nothing else says what any of its chunks must be.
    async fn check_all_chunks(&self) -> bool {
        let Self { store, record, checked } = self;
        let begun = store.0.state.borrow().checks.now();
        let hashes = hashing::remade_hashes(store, record).await;
        store.metrics().store_checked_bytes.add(record.size);
        let chunks = 0..to_u32(record.size.div_ceil(CHUNK_BYTES));
        let Some(hashes) = hashes else {
            self.report(&chunks.collect::<Vec<u32>>());
            return false;
        };
        chunks.for_each(|chunk| checked.set_chunk(chunk, begun));
        store.rewrite_trailer(record, hashes).await;
        true
    }

    /// Records that chunks are corrupt. No one waits until that is durable: they are refused from
    /// here on, and after a start they would be checked again.
    fn report(&self, chunks: &[u32]) {
        if let Err(error) = self.store.judge(&self.record, chunks, true) {
            warn!("{}: that it is corrupt is not recorded: {error}", self.record.digest);
        }
    }

    /// Where `bytes` bytes from `offset` lie in files; none if the device has no files or the
    /// range is not within the blob.
    pub fn spans(&self, offset: u64, bytes: u64) -> Option<Vec<Span>> {
        if offset.checked_add(bytes)? > self.record.size {
            return None;
        }
        let segment_bytes = self.store.device().geometry().segment_bytes;
        let mut spans: Vec<Span> = Vec::new();
        for piece in layout::pieces(&self.record.extents, segment_bytes, offset, bytes) {
            let (file, offset) = self.store.device().file_span(piece.segment, piece.offset)?;
            let bytes = piece.bytes as u64;
            match spans.last_mut() {
                Some(last)
                    if Arc::ptr_eq(&last.file, &file) && last.offset + last.bytes == offset =>
                {
                    last.bytes += bytes;
                }
                _ => spans.push(Span { file, offset, bytes }),
            }
        }
        Some(spans)
    }

    /// Keeps the room of the blob from being used again for as long as it lives.
    pub fn lease(&self) -> Rc<dyn Any> {
        Rc::clone(&self.record) as Rc<dyn Any>
    }
}

/// Chunks that are checked at once for a reader that goes on: each time another thread is asked.
const RUN_MAX: u64 = 4;
