//! Small blobs, several to a unit.
//!
//! A manifest or a config is shorter than a program unit, and a unit of its own would cost flash
//! several times what it is worth. Small blobs that are committed at the same time are laid into
//! one unit, each in whole grains, and one of those who wait for them to be durable programs it,
//! syncs, and records all of them. A unit is programmed once: from the first sync on nothing is
//! added to it, for what is durable must not share its fate with what is to come.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::blob::format::layout::{reserved_bytes, suffix};
use crate::blob::format::{BlobRecord, Extent};
use crate::blob::index::blob_bytes;
use crate::blob::store::pack::{Pack, Placed};
use crate::blob::{Error, Store};
use crate::oci::Digest;
use crate::units::to_usize;

impl Store {
    /// Makes a small blob visible, durably. All who wait for that share a unit and two syncs. When
    /// its segment turns out to be bad, another does as well.
    ///
    /// # Errors
    /// [`Kind::Full`] when there is no room; the device's own.
    pub(in crate::blob) async fn commit_small(
        &self,
        record: BlobRecord,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.elsewhere(async || self.try_commit_small(record.clone(), bytes).await).await
    }

    async fn try_commit_small(&self, record: BlobRecord, bytes: &[u8]) -> Result<(), Error> {
        let (digest, mounted) = (record.digest, self.mounted());
        self.place(record, bytes, mounted).await?;
        let _turn = self.sync_turn().await;
        self.check_mounted(mounted)?;
        if self.0.state.borrow().pack.is_placed(&digest) {
            // Those who are about to place theirs do it now.
            smol::future::yield_now().await;
            self.flush_pack().await;
            let covered = self.generation();
            self.sync_bytes(covered).await?;
            self.commit_placed(covered)?;
        }
        let (lost, committed) = {
            let mut state = self.0.state.borrow_mut();
            let lost = state.pack.take_lost(&digest);
            // The task that had the turn before may have failed to append this one's Commit.
            state.check()?;
            (lost, state.committed)
        };
        if let Some(error) = lost {
            return Err(error);
        }
        self.sync_records(committed).await
    }

    /// Chooses the place of a small blob, in the unit that is being filled or in a new one.
    async fn place(&self, record: BlobRecord, bytes: &[u8], mounted: u64) -> Result<(), Error> {
        let geometry = self.device().geometry();
        let (digest, size) = (record.digest, record.size);
        let (length, needed) = (reserved_bytes(size, geometry), blob_bytes(&record));
        let _turn = self.0.packing.lock().await;
        // Holding the turn, it cannot be mounted again.
        self.check_mounted(mounted)?;
        self.make_index_room(needed, &digest.to_string()).await?;
        if !self.0.state.borrow_mut().pack.lay(record.clone(), bytes, length) {
            let unit = self.allocate(u64::from(geometry.program_bytes)).await?;
            let Some(unit) = unit else { return Err(self.full(&digest, size)) };
            let room = self.taken(unit.extents);
            // Others came meanwhile.
            self.check_index_room(needed, &digest.to_string())?;
            self.erase(unit.fresh.into_iter()).await?;
            self.flush_pack().await;
            let mut state = self.0.state.borrow_mut();
            state.pack.open = room.keep().first().map(|unit| (*unit, Vec::new()));
            state.pack.lay(record, bytes, length);
        }
        if self.0.state.borrow().pack.is_full() {
            self.flush_pack().await;
        }
        Ok(())
    }

    /// Programs the unit that is being filled. When that fails, its blobs are lost, and their
    /// commits fail with the reason.
    async fn flush_pack(&self) {
        let _turn = self.0.flushing.lock().await;
        // What somebody has begun who is gone.
        self.land_pack().await;
        let open = self.0.state.borrow_mut().pack.open.take();
        let Some((unit, mut content)) = open else { return };
        let used = content.len() as u64;
        content.resize(to_usize(unit.bytes), 0);
        match self.begin_program(&[unit], 0, content) {
            Ok(flight) => self.0.state.borrow_mut().pack.under_way = Some((unit, used, flight)),
            Err(error) => self.end_pack(unit, used, Err(error)),
        }
        self.land_pack().await;
    }

    /// Waits for the unit that is being programmed. The caller has the turn to flush.
    async fn land_pack(&self) {
        let landed = poll_fn(|context| {
            let mut state = self.0.state.borrow_mut();
            let Some((unit, used, flight)) = &mut state.pack.under_way else {
                return Poll::Ready(None);
            };
            Pin::new(flight).poll(context).map(|outcome| Some((*unit, *used, outcome)))
        });
        let Some((unit, used, outcome)) = landed.await else { return };
        self.0.state.borrow_mut().pack.under_way = None;
        let outcome = self.end_program(outcome).map(|_| ());
        self.end_pack(unit, used, outcome);
    }

    fn end_pack(&self, unit: Extent, used: u64, outcome: Result<(), Error>) {
        let now = self.generation();
        let state = &mut *self.0.state.borrow_mut();
        state.space.end_writing(&[unit]);
        state.space.release(&suffix(&[unit], used));
        match outcome {
            Ok(()) => state.pack.in_unit(unit).for_each(|placed| placed.programmed = Some(now)),
            Err(error) => {
                let Pack { placed, lost, .. } = &mut state.pack;
                for Placed { record, .. } in placed.extract_if(.., |placed| placed.is_in(unit)) {
                    state.space.release(&record.extents);
                    lost.push((record.digest, error.kind(), error.to_string()));
                }
            }
        }
    }

    /// Appends the Commit of every small blob that a sync of all changes up to `covered` has made
    /// durable.
    fn commit_placed(&self, covered: u64) -> Result<(), Error> {
        let is_durable =
            |placed: &mut Placed| placed.programmed.is_some_and(|change| change <= covered);
        let durable: Vec<BlobRecord> = {
            let placed = &mut self.0.state.borrow_mut().pack.placed;
            placed.extract_if(.., is_durable).map(|placed| placed.record).collect()
        };
        durable.into_iter().try_for_each(|record| self.commit_durable(record))
    }

    /// The task that committed a small blob is gone: what is not recorded of it never will be.
    pub(in crate::blob) fn forget_placed(&self, digest: &Digest) {
        let state = &mut *self.0.state.borrow_mut();
        drop(state.pack.take_lost(digest));
        let is_its = |placed: &mut Placed| placed.record.digest == *digest;
        for Placed { record, .. } in state.pack.placed.extract_if(.., is_its) {
            state.space.release(&record.extents);
        }
        // A unit that no one waits for is not worth programming.
        let open = state.pack.open.take_if(|(unit, _)| {
            let unit = *unit;
            !state.pack.placed.iter().any(|placed| placed.is_in(unit))
        });
        if let Some((unit, content)) = open {
            state.space.end_writing(&[unit]);
            state.space.release(&suffix(&[unit], content.len() as u64));
        }
    }
}
