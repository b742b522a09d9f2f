//! What makes changes durable: records on their way to META, and syncs of those and of the bytes
//! of blobs.
//!
//! All who wait at the same time share one sync: the one that has the turn covers everything that
//! was changed before, and the others find theirs done.

use std::future::poll_fn;

use smol::lock::MutexGuard;

use crate::blob::format::{BlobRecord, Record};
use crate::blob::io::syncing::{Covers, Syncing};
use crate::blob::meta::Landed;
use crate::blob::store::state::{Limbo, State};
use crate::blob::{Error, Store};

impl Store {
    /// Waits until everything done so far is durable, finished blobs and their Commits included.
    /// Of a blob that is being written, it is what a Progress covers. All who wait share one
    /// sync, or two.
    pub async fn flush(&self) -> Result<(), Error> {
        let wanted = self.generation();
        let _turn = self.sync_turn().await;
        if self.has_finished() {
            self.sync_bytes(wanted).await?;
        }
        let committed = self.0.state.borrow().committed;
        self.sync_records(wanted.max(committed)).await
    }

    /// Waits until all records appended so far are durable.
    pub(in crate::blob) async fn flush_records(&self) -> Result<(), Error> {
        let wanted = self.generation();
        let _turn = self.sync_turn().await;
        self.sync_records(wanted).await
    }

    /// Waits until all bytes of blobs programmed so far are durable. Records that were appended
    /// and not yet programmed are left for the next page of META, which so holds more of them.
    pub(in crate::blob) async fn flush_bytes(&self) -> Result<(), Error> {
        let wanted = self.generation();
        let _turn = self.sync_turn().await;
        self.sync_bytes(wanted).await
    }

    /// Waits for the turn to sync.
    pub(in crate::blob) async fn sync_turn(&self) -> MutexGuard<'_, ()> {
        self.0.sync.lock().await
    }

    /// The number of the last change.
    pub(in crate::blob) fn generation(&self) -> u64 {
        self.0.state.borrow().generation
    }

    /// Makes all records of changes up to `wanted` durable, and leaves bytes of blobs alone that
    /// came meanwhile: to sync those often is what costs a file system most. The caller has the
    /// turn.
    pub(in crate::blob) async fn sync_records(&self, wanted: u64) -> Result<(), Error> {
        self.check_mounted_by(wanted)?;
        if self.0.state.borrow().synced < wanted {
            let covered = self.program_records().await?;
            let (segment, range) = self.0.state.borrow().meta.unsynced();
            self.end_sync(self.begin_sync(Covers::Records(covered, segment, range))).await?;
        }
        self.0.state.borrow_mut().reclaim();
        Ok(())
    }

    /// Makes the bytes of blobs that were programmed up to change `wanted` durable, and appends
    /// the Commits of those that are whole. The caller has the turn.
    pub(in crate::blob) async fn sync_bytes(&self, wanted: u64) -> Result<(), Error> {
        self.check_mounted_by(wanted)?;
        let synced = {
            let state = self.0.state.borrow();
            state.check()?;
            state.bytes_synced
        };
        if synced < wanted {
            self.end_sync(self.begin_bytes_sync()).await?;
        }
        self.commit_finished()
    }

    /// Starts a sync of all bytes of blobs that were programmed so far. When it has ended,
    /// [`Store::commit_finished`] is to follow.
    pub(in crate::blob) fn begin_bytes_sync(&self) -> Syncing {
        let covered = self.generation();
        let sync = self.begin_sync(Covers::Bytes(covered));
        self.0.state.borrow_mut().bytes_sync = (covered, sync.life());
        sync
    }

    fn begin_sync(&self, covers: Covers) -> Syncing {
        self.metrics().flash_syncs.add(u64::from(!covers.nothing()));
        Syncing::begin(self.shared_device(), covers)
    }

    /// Waits for a sync, and notes what it has made durable.
    pub(in crate::blob) async fn end_sync(&self, sync: Syncing) -> Result<(), Error> {
        let covers = sync.end().await.map_err(|error| self.fail(error.into()))?;
        let mut state = self.0.state.borrow_mut();
        match covers {
            Covers::Bytes(covered) => state.bytes_synced = state.bytes_synced.max(covered),
            // The same place may be another segment's since.
            Covers::Records(covered, ..) if covered < state.mounted => {}
            Covers::Records(covered, segment, range) => {
                state.synced = state.synced.max(covered);
                state.meta.synced(segment, range.end);
            }
        }
        Ok(())
    }

    /// Appends a record to the log; it is on the device, and durable, after [`Store::flush`].
    pub(in crate::blob) fn append(&self, record: Record) -> Result<(), Error> {
        let mut state = self.0.state.borrow_mut();
        state.check()?;
        let State { index, meta, suspects, checks, .. } = &mut *state;
        let appended = meta.append(&record);
        match &record {
            Record::Delete { digest } => {
                suspects.remove(digest);
                checks.forget(digest);
            }
            Record::Commit(BlobRecord { digest, .. }) => checks.forget(digest),
            _ => {}
        }
        let extents = index.apply(record);
        state.generation += 1;
        let generation = state.generation;
        if !extents.is_empty() {
            state.limbo.push(Limbo { extents, generation });
        }
        drop(state);
        appended.map_err(|error| self.fail(error))
    }

    /// Programs the records appended so far; returns the change up to which that covers. The caller
    /// has the turn.
    async fn program_records(&self) -> Result<u64, Error> {
        // What somebody has begun who is gone.
        self.land_records().await?;
        loop {
            let covered = self.begin_records()?;
            if self.land_records().await? {
                return Ok(covered);
            }
        }
    }

    /// Begins to program the records appended so far; returns the change up to which that covers.
    fn begin_records(&self) -> Result<u64, Error> {
        let mut state = self.0.state.borrow_mut();
        state.check()?;
        let covered = state.generation;
        let State { index, meta, .. } = &mut *state;
        // Beside others only: by itself no count is worth a page.
        let counted = match meta.has_pending() {
            true => meta.append(&Record::Counts(index.wear.counts)),
            false => Ok(()),
        };
        let outcome = counted.and_then(|()| meta.begin(index, covered));
        drop(state);
        outcome.map(|()| covered).map_err(|error| self.fail(error))
    }

    /// Waits for what is programmed of records; false when it has to be begun again.
    async fn land_records(&self) -> Result<bool, Error> {
        let landed = poll_fn(|context| self.0.state.borrow_mut().meta.poll(context)).await;
        match landed.map_err(|error| self.fail(error))? {
            Landed::Nothing => {}
            Landed::Again => return Ok(false),
            Landed::Programmed(bytes) => self.count_programmed(bytes),
            Landed::Begun { bytes, change } => {
                let mut state = self.0.state.borrow_mut();
                state.synced = state.synced.max(change);
                drop(state);
                self.metrics().flash_erases.add(1);
                self.count_programmed(bytes);
            }
        }
        Ok(true)
    }
}
