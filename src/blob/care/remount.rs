//! Going on after an error that has ended writing.
//!
//! What the device holds of the last writes is unknown then, and only mounting it shows it; what is
//! held is served meanwhile. The log is mounted beside the one that is in use, from the medium, and
//! takes its place when it is whole. Writers to the one before get an error and begin anew, and
//! nothing is reported as durable that was not before; readers go on, and the
//! room that is read is not used again. What was checked is checked again, for it may have been
//! read from memory.

use std::rc::Weak;
use std::sync::Arc;

use crate::blob::format::BlobRecord;
use crate::blob::meta::recover::{MountReport, Mounted, mount_again};
use crate::blob::store::state::{Limbo, State};
use crate::blob::{Error, Store};
use crate::kind::Kind;

impl Store {
    /// Why nothing can be written, if that is so.
    pub fn failure(&self) -> Option<String> {
        self.0.state.borrow().failure.clone()
    }

    /// Waits until an error ends writing; at once, if one has since this was last waited for.
    pub async fn failed(&self) {
        // The sender lives as long as the store.
        let _ = self.0.failed.1.recv().await;
    }

    /// Mounts the log again after an error has ended writing. Clones and readers stay what they
    /// are; writers are to begin anew.
    ///
    /// # Errors
    /// [`Kind::ReadOnly`] where the device can only be read; the device's own. Then nothing changes,
    /// and it may be tried again.
    pub async fn remount(&self) -> Result<MountReport, Error> {
        if let Some(why) = self.device().read_only() {
            return Err(Error::new(Kind::ReadOnly, format!("the store can only be read: {why}")));
        }
        let _packing = self.0.packing.lock().await;
        let _collecting = self.0.collecting.lock().await;
        let _turn = self.sync_turn().await;
        let report = loop {
            let held = self.held();
            let (device, read) = (Arc::clone(self.shared_device()), held.clone());
            // Behind all that was begun.
            let mounting = self.0.queue.begin(move |_| {
                device.recover()?;
                mount_again(&device, &read)
            });
            let mounted = mounting.await?;
            let is_lost = |read: &BlobRecord| {
                let blob = mounted.index.blobs.get(&read.digest);
                !held.contains(read) && blob.is_none_or(|blob| blob.extents != read.extents)
            };
            // No reader has begun meanwhile to read what is not there any more.
            if !self.held().iter().any(is_lost) {
                let programmed = mounted.programmed_bytes;
                let report = self.replace_state(mounted);
                self.count_programmed(programmed);
                break report;
            }
        };
        Ok(report)
    }

    /// What is read by anybody, each once.
    fn held(&self) -> Vec<BlobRecord> {
        let state = self.0.state.borrow();
        let held = state.leases.iter().filter_map(Weak::upgrade);
        let mut held: Vec<BlobRecord> = held.map(|record| BlobRecord::clone(&record)).collect();
        held.sort_by(|one, other| one.extents.cmp(&other.extents));
        held.dedup_by(|one, other| one.extents == other.extents);
        held
    }

    fn replace_state(&self, mut mounted: Mounted) -> MountReport {
        let report = mounted.report;
        let before = &mut *self.0.state.borrow_mut();
        let change = before.generation + 1;
        mounted.meta.set_queue(self.0.queue.clone());
        mounted.space.set_limit(before.space.limit());
        before.worn.iter().for_each(|segment| mounted.space.retire(*segment));
        let blobs = &mounted.index.blobs;
        let unchecked = before.suspects.iter().filter(|digest| blobs.contains(digest));
        mounted.suspects.extend(unchecked);
        let extents = std::mem::take(&mut mounted.read);
        let mut state = State::new(mounted, before.segment_count);
        (state.generation, state.mounted) = (change, change);
        (state.synced, state.bytes_synced) = (change, change);
        if !extents.is_empty() {
            state.limbo.push(Limbo { extents, generation: change });
        }
        std::mem::swap(&mut state.leases, &mut before.leases);
        std::mem::swap(&mut state.checks, &mut before.checks);
        std::mem::swap(&mut state.worn, &mut before.worn);
        state.checks.forget_all();
        *before = state;
        report
    }

    /// The change with which the log was mounted last.
    pub(in crate::blob) fn mounted(&self) -> u64 {
        self.0.state.borrow().mounted
    }

    /// Whether the log is the one that was `mounted`.
    ///
    /// # Errors
    /// [`Kind::Retry`] when it was mounted again since.
    pub(in crate::blob) fn check_mounted(&self, mounted: u64) -> Result<(), Error> {
        if self.mounted() == mounted {
            return Ok(());
        }
        let what = "the store was mounted again meanwhile: what was not durable may be lost";
        Err(Error::new(Kind::Retry, what))
    }

    /// Whether `change` was made since the log was mounted.
    ///
    /// # Errors
    /// As of [`Store::check_mounted`].
    pub(in crate::blob) fn check_mounted_by(&self, change: u64) -> Result<(), Error> {
        self.check_mounted(change.min(self.mounted()))
    }
}
