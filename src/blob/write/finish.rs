//! Blobs that are whole, and not recorded yet.
//!
//! A Commit may be programmed once the blob's bytes are durable. A caller that needs the blob has
//! to wait for that; a pull of an image only needs all of its blobs before its tag, and goes on
//! with the next one: the Commit is appended when any sync has covered the bytes, and shares a page
//! of META with what else there is to say. Until then nothing of the blob is visible, and what is
//! at stake is counted with the writers' own bytes.

use crate::blob::format::{BlobRecord, Record};
use crate::blob::store::state::Finished;
use crate::blob::{Error, Store};
use crate::oci::Digest;

impl Store {
    /// Whether a blob is held, or will be when the store is flushed.
    pub fn is_whole(&self, digest: &Digest) -> bool {
        let state = self.0.state.borrow();
        state.index.blobs.contains(digest) || state.is_finished(digest)
    }

    /// Takes a blob that was programmed whole; no Progress covers `unrecorded` bytes of it. Its
    /// writer goes away next.
    pub(in crate::blob) fn finish(&self, record: BlobRecord, unrecorded: u64) {
        let mut state = self.0.state.borrow_mut();
        let change = state.generation;
        state.finished.push(Finished { record, change, unrecorded });
    }

    pub(in crate::blob) fn is_finished(&self, digest: &Digest) -> bool {
        self.0.state.borrow().is_finished(digest)
    }

    pub(in crate::blob) fn has_finished(&self) -> bool {
        !self.0.state.borrow().finished.is_empty()
    }

    /// Bytes of finished blobs that no sync under way covers, so that nothing will commit them.
    pub(in crate::blob) fn unsynced_finished_bytes(&self) -> u64 {
        let state = self.0.state.borrow();
        let (covered, life) = &state.bytes_sync;
        let is_covered =
            |finished: &&Finished| life.strong_count() > 0 && finished.change <= *covered;
        let others = state.finished.iter().filter(|finished| !is_covered(finished));
        others.map(|finished| finished.unrecorded).sum()
    }

    /// Appends the Commit of every finished blob whose bytes are durable.
    pub(in crate::blob) fn commit_finished(&self) -> Result<(), Error> {
        let durable: Vec<BlobRecord> = {
            let state = &mut *self.0.state.borrow_mut();
            let synced = state.bytes_synced;
            let durable = state.finished.extract_if(.., |finished| finished.change <= synced);
            durable.map(|finished| finished.record).collect()
        };
        for record in durable {
            let digest = record.digest;
            self.commit_durable(record)?;
            self.0.state.borrow_mut().writing.remove(&digest);
        }
        Ok(())
    }

    /// Appends the Commit of a blob whose bytes are durable; the next to flush waits for it.
    pub(in crate::blob) fn commit_durable(&self, record: BlobRecord) -> Result<(), Error> {
        let size = record.size;
        self.append(Record::Commit(record))?;
        self.count_committed(size);
        let mut state = self.0.state.borrow_mut();
        state.committed = state.generation;
        Ok(())
    }
}
