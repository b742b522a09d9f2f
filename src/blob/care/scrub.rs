//! Bit rot: found chunk by chunk, kept from being served, repaired chunk by chunk.
//!
//! Each chunk of a blob has a hash of its own (FORMAT.md section 5), so what decayed has a name and
//! 256 KiB fetched again put it right. A chunk that does not read back as what was written is
//! recorded as corrupt; `serve` asks [`Store::is_corrupt`] first. It is repaired by programming
//! the right bytes to new room and committing the blob with that room in its extents; the old
//! place is free then, and on media that wear out it is the device's to judge.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use log::{error, warn};

use crate::blob::format::layout::{self, merged, prefix, reserved_bytes, suffix, trailer};
use crate::blob::format::{BlobRecord, CHUNK_BYTES, Record};
use crate::blob::read::hashing::{
    Expected, Origin, bytes_match, chunk_matches, remade_hashes, trailer_hashes,
};
use crate::blob::store::missing;
use crate::blob::{Error, Store};
use crate::clock::SharedClock;
use crate::kind::Kind;
use crate::oci::Digest;
use crate::units::{ByteCount, to_u32, to_usize};

/// A blob that is being checked, one chunk after the other. Between steps nothing is held: a check
/// may take days, and the room of a blob that is deleted meanwhile must not wait for it.
pub struct Check {
    store: Store,
    digest: Digest,
    /// The blob, where its hashes were read.
    read: BlobRecord,
    hashes: Hashes,
    next: u32,
    corrupt: BTreeSet<u32>,
}

/// What a step of a check has found.
struct Step {
    /// The blob, where it was read.
    record: Rc<BlobRecord>,
    chunk: u32,
    bytes: u64,
    is_corrupt: bool,
}

/// What is known of the bytes that a blob's chunks must have.
enum Hashes {
    /// There is one chunk, and it has the blob's digest.
    Whole,
    /// A hash for each, from the trailer.
    Each(Vec<[u8; 32]>),
    /// A hash for each, from the bytes, which have the blob's digest: the trailer has decayed.
    Remade(Vec<[u8; 32]>),
    /// Nothing any more.
    Lost,
}

impl Hashes {
    /// What chunk number `chunk` of the blob `digest` must be.
    fn expected(&self, digest: &Digest, chunk: u32) -> Expected {
        match self {
            Self::Whole => Expected::Digest(*digest),
            Self::Each(hashes) | Self::Remade(hashes) => {
                let hash = usize::try_from(chunk).ok().and_then(|index| hashes.get(index));
                hash.map_or(Expected::Unknown, |hash| Expected::Hash(*hash))
            }
            Self::Lost => Expected::Unknown,
        }
    }
}

impl Check {
    /// Reads and compares the next chunk; returns its length in bytes, or none at the blob's end,
    /// or when it is not held any more.
    pub async fn step(&mut self) -> Option<u64> {
        self.advance().await.map(|step| step.bytes)
    }

    async fn advance(&mut self) -> Option<Step> {
        let reader = self.store.look(&self.digest).ok()?;
        let range = chunk_range(self.next, reader.size());
        let (chunk, bytes) = (self.next, range.end - range.start);
        if bytes == 0 {
            return None;
        }
        let expected = self.hashes.expected(&self.digest, chunk);
        let record = Rc::clone(&reader.record);
        let is_right = chunk_matches(&self.store, &record, chunk, expected, Origin::Medium).await;
        if !is_right {
            self.corrupt.insert(chunk);
        }
        self.next += 1;
        Some(Step { record, chunk, bytes, is_corrupt: !is_right })
    }

    /// The chunks found to be corrupt so far.
    pub fn corrupt(&self) -> &BTreeSet<u32> {
        &self.corrupt
    }
}

impl Store {
    /// Trusts what was read and found right for `interval`, by `clock`: what is sent after that is
    /// checked again.
    pub fn verify_every(&self, interval: Duration, clock: SharedClock) {
        self.0.state.borrow_mut().checks.trust_for(interval, clock);
    }

    /// Checks a blob and records what is found, at once, for its end may be days away; returns the
    /// number of corrupt chunks. `each` is called with the length of every chunk, and says how long
    /// to wait for the next.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not held; the device's own.
    pub async fn check_all(
        &self,
        digest: &Digest,
        each: impl AsyncFn(u64),
    ) -> Result<usize, Error> {
        let mut check = self.check(digest).await?;
        if let Hashes::Lost = check.hashes {
            let size = check.read.size;
            let chunks = 0..to_u32(size.div_ceil(CHUNK_BYTES));
            // In one record: each on its own, of thousands, would wear out flash. A blob that lies
            // elsewhere by now is not judged by what was read at its old place.
            if self.judge(&check.read, &chunks.collect::<Vec<u32>>(), true)? {
                self.flush().await?;
            }
            each(size).await;
            self.0.state.borrow_mut().suspects.remove(digest);
            return Ok(self.corrupt_of(digest).len());
        }
        while let Some(Step { record, chunk, bytes, is_corrupt }) = check.advance().await {
            if self.judge(&record, &[chunk], is_corrupt)? {
                self.flush().await?;
            }
            // Or the room of a blob that is deleted would wait for the next step.
            drop(record);
            each(bytes).await;
        }
        if let (Hashes::Remade(hashes), Ok(record)) = (check.hashes, self.record(digest)) {
            self.rewrite_trailer(&record, hashes).await;
        }
        self.0.state.borrow_mut().suspects.remove(digest);
        Ok(self.corrupt_of(digest).len())
    }

    /// Records whether chunks are corrupt, as they were found a moment ago where `read` says. Only
    /// those: the blob's others may have been repaired, or found to be corrupt, while a check was
    /// on its way. Of a blob that lies elsewhere by now, nothing is known. Whether there is
    /// something to be made durable.
    pub(in crate::blob) fn judge(
        &self,
        read: &BlobRecord,
        chunks: &[u32],
        is_corrupt: bool,
    ) -> Result<bool, Error> {
        let digest = &read.digest;
        if !self.is_at(read) {
            return Ok(false);
        }
        let mut known = self.corrupt_of(digest);
        let before = known.len();
        for chunk in chunks {
            if is_corrupt {
                known.insert(*chunk);
                self.0.state.borrow().checks.forget_chunk(digest, *chunk);
            } else {
                known.remove(chunk);
            }
        }
        if known.len() == before {
            return Ok(false);
        }
        if is_corrupt {
            let (size, count) = (ByteCount(read.size), known.len() - before);
            error!("{digest} ({size}): {count} corrupt chunks on flash; they are fetched again");
            // A waiter is woken once for all that is found until it looks.
            let _ = self.0.corrupt.0.try_send(());
        }
        let record = Record::Rot { digest: *digest, chunks: known.into_iter().collect() };
        if !self.is_writable() {
            // Where it cannot be recorded it must not be served all the same.
            self.0.state.borrow_mut().index.apply(record);
            return Ok(false);
        }
        self.append(record)?;
        Ok(true)
    }

    /// Whether a blob lies where a reader has read it.
    pub(in crate::blob) fn is_at(&self, read: &BlobRecord) -> bool {
        self.record(&read.digest).is_ok_and(|record| record.extents == read.extents)
    }

    /// Waits until a chunk is found to be corrupt that was not known to be; at once, if one was
    /// since this was last waited for.
    pub async fn corruption(&self) {
        // The sender lives as long as the store.
        let _ = self.0.corrupt.1.recv().await;
    }

    /// Checks a blob that was written shortly before the last mount, unless done since: a card
    /// that lies about syncs, or cells that were being programmed when the power went, may have
    /// kept less of it than the log believes. `each` is as for [`Store::check_all`].
    ///
    /// # Errors
    /// As of [`Store::check_all`].
    pub async fn verify_before_serve(
        &self,
        digest: &Digest,
        each: impl AsyncFn(u64),
    ) -> Result<(), Error> {
        if !self.0.state.borrow().suspects.contains(digest) {
            return Ok(());
        }
        match self.check_all(digest, each).await {
            // Given up meanwhile.
            Err(error) if error.kind() == Kind::Missing => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Blobs that [`Store::verify_before_serve`] would check.
    pub fn suspects(&self) -> Vec<Digest> {
        self.0.state.borrow().suspects.iter().copied().collect()
    }

    /// Begins to check a blob.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not held.
    pub async fn check(&self, digest: &Digest) -> Result<Check, Error> {
        // It keeps the place from being used again while it is read.
        let reader = self.look(digest)?;
        let hashes = self.chunk_hashes(&reader.record).await;
        let (store, read) = (self.clone(), BlobRecord::clone(&reader.record));
        Ok(Check { store, digest: *digest, read, hashes, next: 0, corrupt: BTreeSet::new() })
    }

    /// Records which chunks of a blob are corrupt, and that no others are.
    pub async fn set_corrupt(&self, digest: &Digest, chunks: &BTreeSet<u32>) -> Result<(), Error> {
        if self.corrupt_of(digest) != *chunks && self.entry(digest).is_some() {
            for chunk in chunks {
                self.0.state.borrow().checks.forget_chunk(digest, *chunk);
            }
            let chunks = chunks.iter().copied().collect();
            self.append(Record::Rot { digest: *digest, chunks })?;
        }
        self.flush().await
    }

    /// Every blob with corrupt chunks, and their numbers.
    pub fn corrupt(&self) -> Vec<(Digest, BTreeSet<u32>)> {
        let state = self.0.state.borrow();
        state.index.corrupt.iter().map(|(digest, chunks)| (*digest, chunks.clone())).collect()
    }

    /// The chunks of a blob that are known to be corrupt.
    fn corrupt_of(&self, digest: &Digest) -> BTreeSet<u32> {
        self.0.state.borrow().index.corrupt.get(digest).cloned().unwrap_or_default()
    }

    /// Whether any of a blob's bytes in `range` is known to be corrupt.
    pub fn is_corrupt(&self, digest: &Digest, range: Range<u64>) -> bool {
        let state = self.0.state.borrow();
        let Some(chunks) = state.index.corrupt.get(digest) else { return false };
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

    /// Puts a corrupt chunk right.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when `bytes` are not those of the chunk, or its hash is lost: then the
    /// blob is given up, to be fetched anew. [`Kind::Full`] when there is no room.
    pub async fn repair(&self, digest: &Digest, chunk: u32, bytes: &[u8]) -> Result<(), Error> {
        // It keeps the place from being used again while it is read.
        let reader = self.look(digest)?;
        let hashes = self.chunk_hashes(&reader.record).await;
        let record = BlobRecord::clone(&reader.record);
        drop(reader);
        self.repair_with(&record, chunk, bytes, &hashes).await
    }

    async fn repair_with(
        &self,
        record: &BlobRecord,
        chunk: u32,
        bytes: &[u8],
        hashes: &Hashes,
    ) -> Result<(), Error> {
        let digest = &record.digest;
        if let Hashes::Lost = hashes {
            if !self.is_at(record) {
                let what = format!("{digest}: was moved while its hashes were read");
                return Err(Error::new(Kind::Retry, what));
            }
            self.delete(&[*digest]).await?;
            let what = format!("{digest}: the hashes of its chunks are lost: given up");
            return Err(Error::new(Kind::Corrupt, what));
        }
        if !bytes_match(bytes, hashes.expected(digest, chunk)).await {
            let what = format!("{digest}: what arrived for chunk {chunk} is not that chunk");
            return Err(Error::new(Kind::Corrupt, what));
        }
        let at = u64::from(chunk) * CHUNK_BYTES;
        let mut bytes = bytes.to_vec();
        // The trailer begins in the unit in which the last chunk ends.
        if let Hashes::Each(hashes) | Hashes::Remade(hashes) = hashes
            && at + bytes.len() as u64 == record.size
        {
            bytes.extend(trailer(digest, hashes));
        }
        self.replace(digest, at, bytes).await?;
        let mut left = self.corrupt_of(digest);
        left.remove(&chunk);
        self.set_corrupt(digest, &left).await
    }

    /// Writes a trailer anew that has decayed, and with it the last chunk, in whose unit it begins.
    /// Nothing of the blob is wrong: when it fails, the next check tries again.
    pub(in crate::blob) async fn rewrite_trailer(
        &self,
        record: &BlobRecord,
        hashes: Vec<[u8; 32]>,
    ) {
        if !self.is_writable() || !self.is_at(record) {
            return;
        }
        let last = to_u32((record.size - 1) / CHUNK_BYTES);
        let range = chunk_range(last, record.size);
        let mut bytes = vec![0; to_usize(range.end - range.start)];
        let outcome = match layout::read(self.device(), &record.extents, range.start, &mut bytes) {
            Ok(()) => self.repair_with(record, last, &bytes, &Hashes::Remade(hashes)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            warn!("{}: its chunk hashes are corrupt and not written anew: {error}", record.digest);
        }
    }

    /// Puts all of a blob of at most one chunk right, or whatever of a longer one is wrong.
    pub(in crate::blob) async fn repair_all(
        &self,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let mut check = self.check(digest).await?;
        while check.step().await.is_some() {}
        for chunk in check.corrupt() {
            let range = chunk_range(*chunk, bytes.len() as u64);
            let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end))
            else {
                continue;
            };
            self.repair(digest, *chunk, bytes.get(start..end).unwrap_or_default()).await?;
        }
        // What read wrong once and reads right now is no rot.
        self.set_corrupt(digest, &BTreeSet::new()).await
    }

    /// Programs `bytes` to new room, which takes the place of what lies at byte `at` of a blob's
    /// extents, in whole units.
    async fn replace(&self, digest: &Digest, at: u64, mut bytes: Vec<u8>) -> Result<(), Error> {
        let _turn = self.0.collecting.lock().await;
        let geometry = self.device().geometry();
        let length = (bytes.len() as u64).next_multiple_of(u64::from(geometry.program_bytes));
        bytes.resize(to_usize(length), 0);
        // Not by collecting: this holds its turn. A chunk is small, and the reserve is there.
        let allocation = {
            let state = &mut *self.0.state.borrow_mut();
            state.space.allocate_copy(length, &state.index.wear, false)
        };
        let Some(allocation) = allocation else {
            let what = format!("no room to repair {digest}");
            return Err(Error::new(Kind::Full, what));
        };
        let mut room = self.taken(allocation.extents);
        self.erase(allocation.fresh.into_iter()).await?;
        self.program(room.extents(), 0, bytes).await?;
        self.0.state.borrow_mut().space.end_writing(room.extents());
        self.flush_bytes().await?;
        let record = self.record(digest)?;
        // A small blob needs less than the unit that it has now.
        room.shorten(reserved_bytes(record.size, geometry).saturating_sub(at).min(length));
        let room = room.keep();
        let before = prefix(&record.extents, at);
        let after = suffix(&record.extents, at + length);
        let extents = merged(before.into_iter().chain(room).chain(after));
        self.append(Record::Commit(BlobRecord { extents, ..record }))?;
        self.flush().await
    }

    fn record(&self, digest: &Digest) -> Result<BlobRecord, Error> {
        self.0.state.borrow().index.blobs.get(digest).ok_or_else(|| missing(digest))
    }

    /// Adds to the chunks of a blob that are known to be corrupt.
    pub(in crate::blob) fn add_corrupt(
        &self,
        digest: &Digest,
        size: u64,
        chunks: &BTreeSet<u32>,
    ) -> Result<(), Error> {
        let mut known = self.corrupt_of(digest);
        let before = known.len();
        // Those of the trailer are no chunks; it is made anew from the bytes.
        known.extend(chunks.iter().filter(|chunk| !chunk_range(**chunk, size).is_empty()));
        if known.len() == before {
            return Ok(());
        }
        self.append(Record::Rot { digest: *digest, chunks: known.into_iter().collect() })
    }

    /// What the bytes of a blob's chunks must be: from its trailer if that is sound, else from
    /// the bytes if those are.
    async fn chunk_hashes(&self, record: &BlobRecord) -> Hashes {
        if record.size <= CHUNK_BYTES {
            return Hashes::Whole;
        }
        if let Some(hashes) = trailer_hashes(self, record).await {
            return Hashes::Each(hashes);
        }
        let remade = remade_hashes(self, record).await;
        remade.map_or(Hashes::Lost, Hashes::Remade)
    }
}

fn chunk_range(chunk: u32, size: u64) -> Range<u64> {
    let start = (u64::from(chunk) * CHUNK_BYTES).min(size);
    start..start.saturating_add(CHUNK_BYTES).min(size)
}
