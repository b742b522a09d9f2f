//! Blobs that are whole, and not recorded yet.
//!
//! A Commit may be programmed once the blob's bytes are durable. Whoever needs the blob itself has
//! to wait for that; whoever pulls an image only needs all of its blobs before its tag, and goes on
//! with the next one: the Commit is appended when any sync has covered the bytes, and shares a page
//! of META with what else there is to say. Until then nothing of the blob is visible, and what is
//! at stake is counted with the writers' own bytes.

use super::format::{BlobRecord, Record};
use super::store::State;
use super::{Error, Store};
use crate::oci::Digest;

/// A blob of which every byte was programmed and has the right digest.
pub(super) struct Finished {
    pub record: BlobRecord,
    /// The change with which the last byte was programmed.
    pub programmed: u64,
    /// Bytes that no Progress tells of.
    pub unrecorded: u64,
}

impl Store {
    /// Whether a blob is held, or will be when the store is settled.
    pub fn is_whole(&self, digest: &Digest) -> bool {
        let state = self.0.state.borrow();
        state.index.blobs.contains(digest) || state.is_finished(digest)
    }

    /// Takes a blob that was programmed whole. Its writer goes away next.
    pub(super) fn finish(&self, finished: Finished) {
        self.0.state.borrow_mut().finished.push(finished);
    }

    pub(super) fn is_finished(&self, digest: &Digest) -> bool {
        self.0.state.borrow().is_finished(digest)
    }

    pub(super) fn has_finished(&self) -> bool {
        !self.0.state.borrow().finished.is_empty()
    }

    /// Bytes of finished blobs that no sync of bytes covers, not even one that is under way.
    pub(super) fn unsynced_finished_bytes(&self) -> u64 {
        let state = self.0.state.borrow();
        let (covered, alive) = &state.bytes_sync;
        let begun = if alive.strong_count() > 0 { *covered } else { state.bytes_synced };
        let later = state.finished.iter().filter(|finished| finished.programmed > begun);
        later.map(|finished| finished.unrecorded).sum()
    }

    /// Appends the Commit of every finished blob whose bytes are durable.
    pub(super) fn commit_finished(&self) -> Result<(), Error> {
        let durable: Vec<BlobRecord> = {
            let state = &mut *self.0.state.borrow_mut();
            let synced = state.bytes_synced;
            let durable = state.finished.extract_if(.., |finished| finished.programmed <= synced);
            durable.map(|finished| finished.record).collect()
        };
        for record in durable {
            let digest = record.digest;
            self.commit_durable(record)?;
            self.0.state.borrow_mut().writing.remove(&digest);
        }
        Ok(())
    }

    /// Appends the Commit of a blob whose bytes are durable; the next to settle waits for it.
    pub(super) fn commit_durable(&self, record: BlobRecord) -> Result<(), Error> {
        let size = record.size;
        self.append(Record::Commit(record))?;
        self.count_committed(size);
        let mut state = self.0.state.borrow_mut();
        state.committed = state.generation;
        Ok(())
    }
}

impl State {
    pub(super) fn is_finished(&self, digest: &Digest) -> bool {
        self.finished.iter().any(|finished| finished.record.digest == *digest)
    }
}
