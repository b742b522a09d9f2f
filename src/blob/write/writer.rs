//! Writing one blob: in order, once, to its final place, resumable, verified.
//!
//! Whole program units are programmed and hashed as they come; less than a unit waits in memory. So
//! a blob of less than a unit is there until it is committed, when it may share one with others.
//! Every [`PROGRESS_BYTES`] a sync is started beside the writing; when it is done, a Progress
//! record with the state of the hash at its start says that the bytes until there are durable, and
//! is made durable itself. A writer [`LAG_BYTES`] further before that waits. So neither a kill
//! nor a power cut loses more than the two together, and the pieces in which bytes came.

use std::cell::Cell;
use std::rc::Rc;

use crate::blob::format::layout::{self, is_small, trailer};
use crate::blob::format::{BlobRecord, CHUNK_BYTES, Record};
use crate::blob::index::PartialBlob;
use crate::blob::io::queue::Programming;
use crate::blob::io::syncing::Syncing;
use crate::blob::write::follow::Follower;
use crate::blob::{Error, Store};
use crate::flash::Device;
use crate::kind::Kind;
use crate::oci::Hasher;
use crate::units::{to_u32, to_usize};

/// The one writer of a blob. Dropped, it leaves the blob to be resumed from its last Progress.
pub struct Writer {
    store: Store,
    record: BlobRecord,
    /// Over what was programmed.
    hash: Hasher,
    /// Over what was programmed of the chunk that is not complete.
    chunk: blake3::Hasher,
    /// Hashes of the chunks that are.
    chunks: Vec<[u8; 32]>,
    /// How many of them a Progress has recorded.
    recorded_chunks: usize,
    /// Bytes programmed; a multiple of the program unit until the blob's end.
    programmed: u64,
    /// The same, for those who read behind this writer.
    landed: Rc<Cell<u64>>,
    /// What is being programmed, and how many bytes. It outlasts the task that waits for it.
    under_way: Option<(Programming, u64)>,
    /// What arrived after that, less than a unit.
    rest: Vec<u8>,
    /// Memory of what was programmed last.
    spare: Vec<u8>,
    /// The sync under way, and what it makes durable.
    syncing: Option<(Syncing, Mark)>,
    /// Where the last sync was started.
    marked: u64,
    /// Where this writer began: the segments before are not its own any more.
    begun: u64,
    /// The mount that this writer is of.
    mounted: u64,
}

/// How far the blob was, when a sync was started.
struct Mark {
    frontier: u64,
    midstate: Vec<u8>,
    chunks: usize,
    /// Hash of the bytes of the chunk that was not complete.
    rest: [u8; 32],
}

impl Writer {
    /// A writer that goes on where `partial` ends.
    pub(in crate::blob) async fn new(
        store: Store,
        partial: PartialBlob,
        mounted: u64,
    ) -> Result<Self, Error> {
        let PartialBlob { record, frontier, midstate, chunks, rest } = partial;
        let algorithm = record.digest.algorithm();
        let hash = match frontier {
            0 => Hasher::new(algorithm),
            _ => Hasher::resume(algorithm, &midstate).ok_or_else(|| {
                let digest = record.digest;
                Error::new(Kind::Corrupt, format!("{digest}: the log's hash state is none"))
            })?,
        };
        let mut writer = Self {
            store,
            record,
            hash,
            chunk: blake3::Hasher::new(),
            recorded_chunks: chunks.len(),
            chunks,
            programmed: frontier,
            landed: Rc::new(Cell::new(frontier)),
            under_way: None,
            rest: Vec::new(),
            spare: Vec::new(),
            syncing: None,
            marked: frontier,
            begun: frontier,
            mounted,
        };
        writer.resume_chunk(rest).await?;
        Ok(writer)
    }

    /// The first byte that is missing.
    pub fn frontier(&self) -> u64 {
        let under_way = self.under_way.as_ref().map_or(0, |(_, bytes)| *bytes);
        self.programmed + under_way + self.rest.len() as u64
    }

    /// Reads what this writer has written, for as long as it lives.
    pub fn follow(&self) -> Follower {
        Follower {
            store: self.store.clone(),
            extents: self.record.extents.clone(),
            landed: Rc::clone(&self.landed),
            mounted: self.mounted,
        }
    }

    /// The desired state needs the blob: it is pinned from the moment that it is held.
    pub fn pin(&mut self) {
        self.record.pinned = true;
    }

    /// Takes the next bytes of the blob.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for more bytes than the blob has; the device's own.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.frontier() + bytes.len() as u64;
        if end > self.record.size {
            let (digest, size) = (self.record.digest, self.record.size);
            let what = format!("{digest}: byte {end} arrived, expected {size} bytes in all");
            return Err(Error::new(Kind::Corrupt, what));
        }
        self.land().await?;
        let whole = (self.rest.len() + bytes.len()) / self.unit() * self.unit();
        let mut later = bytes;
        if whole > 0 {
            let missing = whole.saturating_sub(self.rest.len());
            let (first, behind) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            // In one piece, and in the memory of the one before: each asks another thread.
            let mut units = std::mem::take(&mut self.spare);
            units.clear();
            units.append(&mut self.rest);
            units.extend_from_slice(first);
            later = behind;
            self.program(units).await?;
        }
        self.rest.extend_from_slice(later);
        self.progress().await
    }

    /// Makes the blob visible, durably, if all of it arrived and its digest is right.
    ///
    /// # Errors
    /// As for [`Writer::finish`].
    pub async fn commit(self) -> Result<(), Error> {
        let store = self.store.clone();
        self.finish().await?;
        store.flush().await
    }

    /// Ends the blob, if all of it arrived and its digest is right: it becomes visible, and
    /// durable, with [`Store::flush`] or with a sync that somebody else needs before. One that is
    /// shorter than a unit is when this returns.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when the digest is another: the bytes are given up, and nothing of them
    /// was visible. [`Kind::Invalid`] when bytes are missing.
    pub async fn finish(mut self) -> Result<(), Error> {
        let (digest, size) = (self.record.digest, self.record.size);
        if self.frontier() != size {
            let what = format!("{digest}: {} bytes arrived, expected {size}", self.frontier());
            return Err(Error::new(Kind::Invalid, what));
        }
        self.land().await?;
        let mut end = std::mem::take(&mut self.rest);
        self.absorb(&end);
        if !size.is_multiple_of(CHUNK_BYTES) {
            self.chunks.push(*self.chunk.finalize().as_bytes());
        }
        let found = std::mem::replace(&mut self.hash, Hasher::new(digest.algorithm())).finish();
        if found != digest {
            self.abandon().await?;
            let what = format!("{digest}: the bytes that arrived have digest {found}");
            return Err(Error::new(Kind::Corrupt, what));
        }
        if is_small(size, self.store.device().geometry()) {
            return self.store.commit_small(self.record.clone(), &end).await;
        }
        if self.chunks.len() > 1 {
            end.extend(trailer(&digest, &self.chunks));
        }
        end.resize(end.len().next_multiple_of(self.unit()), 0);
        self.store.program(&self.record.extents, self.programmed, end).await?;
        self.programmed = size;
        self.end_sync().await?;
        self.store.check_mounted(self.mounted)?;
        let store = self.store.clone();
        store.finish(self.record.clone(), size - self.marked);
        // Once it is committed somebody else may write it, with whom this must not interfere.
        drop(self);
        // What follows may be as short, and start none.
        if store.unsynced_finished_bytes() >= PROGRESS_BYTES { store.flush().await } else { Ok(()) }
    }

    /// Stops for now: what arrived is recorded, so that the next writer goes on from there.
    pub async fn suspend(mut self) -> Result<(), Error> {
        self.land().await?;
        self.end_sync().await?;
        if self.programmed > self.marked {
            let mark = self.mark();
            self.store.flush_bytes().await?;
            self.store.check_mounted(self.mounted)?;
            self.record_progress(mark)?;
        }
        self.store.flush().await
    }

    /// Drops the blob and frees its room.
    pub async fn abandon(self) -> Result<(), Error> {
        let (store, digest) = (self.store.clone(), self.record.digest);
        drop(self);
        store.delete(&[digest]).await
    }

    fn unit(&self) -> usize {
        to_usize(self.store.device().geometry().program_bytes)
    }

    /// Programs whole units; nothing else is under way.
    async fn program(&mut self, units: Vec<u8>) -> Result<(), Error> {
        let length = units.len() as u64;
        let flight = self.store.begin_program(&self.record.extents, self.programmed, units)?;
        self.under_way = Some((flight, length));
        self.land().await
    }

    /// Waits for what is being programmed.
    async fn land(&mut self) -> Result<(), Error> {
        self.store.check_mounted(self.mounted)?;
        let Some((flight, _)) = &mut self.under_way else { return Ok(()) };
        let outcome = flight.await;
        self.under_way = None;
        self.store.check_mounted(self.mounted)?;
        let units = self.store.end_program(outcome)?;
        self.absorb(&units);
        self.programmed += units.len() as u64;
        self.landed.set(self.programmed);
        self.spare = units;
        Ok(())
    }

    /// Takes bytes of the blob into its hashes; `programmed` is still where they begin.
    fn absorb(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        let mut at = self.programmed;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = to_usize(CHUNK_BYTES - at % CHUNK_BYTES);
            let (here, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.chunk.update(here);
            at += here.len() as u64;
            rest = later;
            if at.is_multiple_of(CHUNK_BYTES) {
                self.chunks.push(*self.chunk.finalize().as_bytes());
                self.chunk.reset();
            }
        }
    }

    /// Reads again what is on the device of the chunk that is not complete, of which `rest` is the
    /// hash: a hash over anything else would make wrong bytes pass for right ever after.
    async fn resume_chunk(&mut self, rest: [u8; 32]) -> Result<(), Error> {
        let start = self.programmed / CHUNK_BYTES * CHUNK_BYTES;
        let length = to_usize(self.programmed - start);
        let extents = self.record.extents.clone();
        let read = move |device: &dyn Device| {
            let mut bytes = vec![0; length];
            layout::read(device, &extents, start, &mut bytes).map(|()| bytes)
        };
        let bytes = self.store.0.queue.begin(read).await?;
        self.chunk.update(&bytes);
        if self.programmed > 0 && *self.chunk.finalize().as_bytes() != rest {
            let digest = self.record.digest;
            let what = format!("{digest}: bytes {start} to {} have decayed", self.programmed);
            return Err(Error::new(Kind::Corrupt, what));
        }
        Ok(())
    }

    /// Records what a sync that ended made durable, and starts the next one when it is due.
    async fn progress(&mut self) -> Result<(), Error> {
        let unmarked = self.programmed - self.marked;
        let is_late = unmarked >= LAG_BYTES || self.is_due();
        if self.syncing.as_ref().is_some_and(|(sync, _)| is_late || sync.is_finished()) {
            self.end_sync().await?;
        }
        if self.is_due() {
            let mark = self.mark();
            self.marked = mark.frontier;
            self.syncing = Some((self.store.begin_bytes_sync(), mark));
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let unmarked = self.programmed - self.marked;
        // A blob that ends soon has its Commit instead.
        let goes_on = unmarked > 0 && self.frontier() + END_BYTES < self.record.size;
        goes_on && unmarked + self.store.unsynced_finished_bytes() >= PROGRESS_BYTES
    }

    fn mark(&self) -> Mark {
        Mark {
            frontier: self.programmed,
            midstate: self.hash.state(),
            chunks: self.chunks.len(),
            rest: *self.chunk.finalize().as_bytes(),
        }
    }

    /// Waits for the sync under way, and records durably what it has covered.
    async fn end_sync(&mut self) -> Result<(), Error> {
        let Some((sync, mark)) = self.syncing.take() else { return Ok(()) };
        self.store.end_sync(sync).await?;
        self.store.check_mounted(self.mounted)?;
        self.store.commit_finished()?;
        self.record_progress(mark)?;
        self.store.flush_records().await
    }

    /// Says that everything up to `mark`, which a sync has covered, is there.
    fn record_progress(&mut self, mark: Mark) -> Result<(), Error> {
        let from = self.recorded_chunks;
        let chunks = self.chunks.get(from..mark.chunks).unwrap_or_default().to_vec();
        self.store.append(Record::Progress {
            digest: self.record.digest,
            frontier: mark.frontier,
            midstate: mark.midstate,
            chunks_from: to_u32(from),
            chunks,
            rest: mark.rest,
        })?;
        self.recorded_chunks = mark.chunks;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let own = layout::suffix(&self.record.extents, self.begun);
        self.store.end_writing(&self.record.digest, &own, self.mounted);
    }
}

/// How often a sync is started, in bytes of one blob and of those that are finished.
pub const PROGRESS_BYTES: u64 = 3 << 19;
/// What may arrive while bytes and then the records of them are made durable. With
/// [`PROGRESS_BYTES`], [`END_BYTES`] and a piece of 64 KiB that ends each, it makes 2 MiB.
const LAG_BYTES: u64 = 5 << 16;
/// So close to a blob's end no sync is started.
const END_BYTES: u64 = 64 << 10;
