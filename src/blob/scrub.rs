//! Bit rot: found chunk by chunk, kept from being served, mended chunk by chunk.
//!
//! Each chunk of a blob has a hash of its own (FORMAT.md section 5), so what rotted has a name and
//! 256 KiB fetched again put it right. A chunk that does not read back as what was written is
//! recorded as rotten; whoever serves asks [`Store::is_rotten`] first. It is mended by programming
//! the right bytes to new room and committing the blob with that room in its extents; the old
//! place is free then, and on media that wear out it is the device's to judge.

use std::collections::BTreeSet;
use std::ops::Range;

use super::format::{BlobRecord, CHUNK_BYTES, Record};
use super::layout::{self, chunks_root, data_bytes, merged, prefix, suffix};
use super::{Error, Store};
use crate::kind::Kind;
use crate::oci::Digest;

/// A blob that is being checked, one chunk after the other. Between steps nothing is held: a check
/// may take days, and the room of a blob that is deleted meanwhile must not wait for it.
pub struct Check {
    store: Store,
    digest: Digest,
    /// What each chunk's hash must be; none where that is lost.
    hashes: Option<Vec<[u8; 32]>>,
    next: u32,
    rotten: BTreeSet<u32>,
}

impl Check {
    /// Reads and compares the next chunk; gives its length in bytes, or none at the blob's end, or
    /// when it is not held any more.
    pub fn step(&mut self) -> Option<u64> {
        let reader = self.store.reader(&self.digest).ok()?;
        let range = chunk_range(self.next, reader.size());
        let length = usize::try_from(range.end - range.start).ok().filter(|length| *length > 0)?;
        let mut bytes = vec![0; length];
        // Bytes that cannot be read at all are no better than wrong ones.
        let is_read = reader.read_at(range.start, &mut bytes).is_ok();
        let index = usize::try_from(self.next).unwrap_or(usize::MAX);
        let expected = self.hashes.as_ref().and_then(|hashes| hashes.get(index));
        if !is_read || expected != Some(blake3::hash(&bytes).as_bytes()) {
            self.rotten.insert(self.next);
        }
        self.next += 1;
        Some(length as u64)
    }

    /// The chunks found to be rotten so far.
    pub fn rotten(&self) -> &BTreeSet<u32> {
        &self.rotten
    }
}

impl Store {
    /// Begins to check a blob.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not held.
    pub fn check(&self, digest: &Digest) -> Result<Check, Error> {
        let hashes = self.chunk_hashes(&self.record(digest)?);
        let store = self.clone();
        Ok(Check { store, digest: *digest, hashes, next: 0, rotten: BTreeSet::new() })
    }

    /// Records which chunks of a blob are rotten, and that no others are.
    pub async fn set_rotten(&self, digest: &Digest, chunks: &BTreeSet<u32>) -> Result<(), Error> {
        let known = self.0.state.borrow().index.rotten.get(digest).cloned().unwrap_or_default();
        if known != *chunks && self.entry(digest).is_some() {
            let chunks = chunks.iter().copied().collect();
            self.append(Record::Rot { digest: *digest, chunks })?;
        }
        self.settle().await
    }

    /// Every blob with rotten chunks, and their numbers.
    pub fn rotten(&self) -> Vec<(Digest, BTreeSet<u32>)> {
        let state = self.0.state.borrow();
        state.index.rotten.iter().map(|(digest, chunks)| (*digest, chunks.clone())).collect()
    }

    /// Whether any of a blob's bytes in `range` is known to be rotten.
    pub fn is_rotten(&self, digest: &Digest, range: Range<u64>) -> bool {
        let state = self.0.state.borrow();
        let Some(chunks) = state.index.rotten.get(digest) else { return false };
        chunks.iter().any(|chunk| {
            let chunk = chunk_range(*chunk, u64::MAX);
            chunk.start < range.end && range.start < chunk.end
        })
    }

    /// The bytes of a blob that chunk number `chunk` has.
    ///
    /// # Errors
    /// [`Kind::Missing`] when the blob is not held.
    pub fn chunk_range(&self, digest: &Digest, chunk: u32) -> Result<Range<u64>, Error> {
        Ok(chunk_range(chunk, self.record(digest)?.size))
    }

    /// Puts a rotten chunk right.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when `bytes` are not those of the chunk, or its hash is lost: then the
    /// blob is given up, to be fetched anew. [`Kind::Full`] when there is no room.
    pub async fn mend(&self, digest: &Digest, chunk: u32, bytes: &[u8]) -> Result<(), Error> {
        let record = self.record(digest)?;
        let Some(hashes) = self.chunk_hashes(&record) else {
            self.delete(&[*digest]).await?;
            let what = format!("{digest}: the hashes of its chunks are lost: given up");
            return Err(Error::new(Kind::Corrupt, what));
        };
        let index = usize::try_from(chunk).unwrap_or(usize::MAX);
        if hashes.get(index) != Some(blake3::hash(bytes).as_bytes()) {
            let what = format!("{digest}: what arrived for chunk {chunk} is not that chunk");
            return Err(Error::new(Kind::Corrupt, what));
        }
        self.replace(digest, u64::from(chunk) * CHUNK_BYTES, bytes).await?;
        let mut left = self.0.state.borrow().index.rotten.get(digest).cloned().unwrap_or_default();
        left.remove(&chunk);
        self.set_rotten(digest, &left).await
    }

    /// Puts all of a blob of at most one chunk right, or whatever of a longer one is wrong.
    pub(super) async fn mend_all(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let mut check = self.check(digest)?;
        while check.step().is_some() {}
        for chunk in check.rotten() {
            let range = chunk_range(*chunk, bytes.len() as u64);
            let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end))
            else {
                continue;
            };
            self.mend(digest, *chunk, bytes.get(start..end).unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// Programs `bytes` to new room, which takes the place of what lies at byte `at` of a blob's
    /// extents.
    async fn replace(&self, digest: &Digest, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let _turn = self.0.collecting.lock().await;
        let geometry = self.device().geometry();
        let length = data_bytes(bytes.len() as u64, geometry);
        let mut padded = bytes.to_vec();
        padded.resize(usize::try_from(length).unwrap_or(0), 0);
        // Not by collecting: this holds its turn. A chunk is small, and the reserve is there.
        let allocation = {
            let state = &mut *self.0.state.borrow_mut();
            state.space.allocate_copy(length, &state.index.wear, false)
        };
        let Some(allocation) = allocation else {
            let what = format!("no room to mend {digest}");
            return Err(Error::new(Kind::Full, what));
        };
        let room = allocation.extents;
        let programmed =
            self.erase(allocation.fresh.into_iter()).and_then(|()| self.program(&room, 0, &padded));
        self.0.state.borrow_mut().space.settle(&room);
        let ready = match programmed {
            Ok(()) => self.settle().await,
            Err(error) => Err(error),
        };
        let record = ready.and_then(|()| self.record(digest));
        let record = record.inspect_err(|_| self.0.state.borrow_mut().space.release(&room))?;
        let before = prefix(&record.extents, at);
        let after = suffix(&record.extents, at + length);
        let extents = merged(before.into_iter().chain(room).chain(after));
        let pinned = self.0.state.borrow().index.pins.contains(digest);
        self.append(Record::Commit(BlobRecord { extents, pinned, ..record }))?;
        self.settle().await
    }

    fn record(&self, digest: &Digest) -> Result<BlobRecord, Error> {
        let state = self.0.state.borrow();
        let record = state.index.blobs.get(digest).map(|record| BlobRecord::clone(record));
        record.ok_or_else(|| Error::new(Kind::Missing, format!("{digest} is not held")))
    }

    /// What the hashes of a blob's chunks must be: from its trailer if that is sound, else from
    /// its bytes if those are.
    fn chunk_hashes(&self, record: &BlobRecord) -> Option<Vec<[u8; 32]>> {
        let root = record.chunks_root?;
        let count = usize::try_from(record.size.div_ceil(CHUNK_BYTES)).ok()?;
        if count <= 1 {
            return Some(vec![root; count]);
        }
        let mut trailer = vec![[0; 32]; count];
        let at = data_bytes(record.size, self.device().geometry());
        let read = layout::read(self.device(), &record.extents, at, trailer.as_flattened_mut());
        if read.is_ok() && chunks_root(&trailer) == root {
            return Some(trailer);
        }
        let mut hashes = Vec::with_capacity(count);
        let each = |bytes: &[u8]| hashes.push(*blake3::hash(bytes).as_bytes());
        layout::read_chunks(self.device(), record, record.size, each).ok()?;
        (chunks_root(&hashes) == root).then_some(hashes)
    }
}

fn chunk_range(chunk: u32, size: u64) -> Range<u64> {
    let start = (u64::from(chunk) * CHUNK_BYTES).min(size);
    start..start.saturating_add(CHUNK_BYTES).min(size)
}
