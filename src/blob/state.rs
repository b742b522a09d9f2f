//! What a mounted log is, in memory.

use std::collections::BTreeSet;
use std::rc::{Rc, Weak};

use super::Error;
use super::blobs::Summary;
use super::checks::Checks;
use super::finish::Finished;
use super::format::{BlobRecord, Extent};
use super::index::Index;
use super::layout::overlap;
use super::meta::Meta;
use super::pack::Pack;
use super::recover::Mounted;
use super::space::Space;
use super::view::Entry;
use crate::kind::Kind;
use crate::oci::Digest;

pub(super) struct State {
    pub(super) index: Index,
    pub(super) space: Space,
    pub(super) meta: Meta,
    pub(super) pack: Pack,
    /// Segments of the device that were not given up.
    pub(super) segment_count: u32,
    /// Counts changes of data and records.
    pub(super) generation: u64,
    /// Records of changes up to this one are durable.
    pub(super) synced: u64,
    /// Bytes of blobs that were programmed up to this change are durable.
    pub(super) bytes_synced: u64,
    /// Those up to this one will be when the sync has ended that began last, while that lives.
    pub(super) bytes_sync: (u64, Weak<()>),
    /// The change with which the last blob was committed whose Commit had waited for a sync.
    pub(super) committed: u64,
    /// Blobs that are whole, and not recorded yet.
    pub(super) finished: Vec<Finished>,
    /// Room that is free as soon as nothing durable and nothing here names it.
    pub(super) limbo: Vec<Limbo>,
    /// What readers hold: their room is not used again, even if the blob is deleted.
    pub(super) leases: Vec<Weak<BlobRecord>>,
    /// Blobs that have a live writer, or are finished.
    pub(super) writing: BTreeSet<Digest>,
    /// What was written shortly before the mount and not checked since.
    pub(super) suspects: BTreeSet<Digest>,
    /// What was checked of the blobs that are sent.
    pub(super) checks: Checks,
    /// Segments that went bad and hold something still, or are not marked yet.
    pub(super) worn: BTreeSet<u32>,
    /// Why nothing can be written.
    pub(super) failure: Option<String>,
    /// The change with which the log was mounted: what somebody did before is not to be relied on.
    pub(super) mounted: u64,
}

pub(super) struct Limbo {
    pub(super) extents: Vec<Extent>,
    /// The change that gave the room up.
    pub(super) generation: u64,
}

impl State {
    /// What was mounted, and nothing done to it yet.
    pub(super) fn new(mounted: Mounted, segment_count: u32) -> Self {
        Self {
            index: mounted.index,
            space: mounted.space,
            meta: mounted.meta,
            pack: Pack::default(),
            segment_count,
            generation: 0,
            synced: 0,
            bytes_synced: 0,
            bytes_sync: (0, Weak::new()),
            committed: 0,
            finished: Vec::new(),
            limbo: Vec::new(),
            leases: Vec::new(),
            writing: BTreeSet::new(),
            suspects: mounted.suspects,
            checks: Checks::default(),
            worn: BTreeSet::new(),
            failure: None,
            mounted: 0,
        }
    }

    pub(super) fn entry(&self, summary: Summary) -> Entry {
        let Summary { digest, size, pinned, .. } = summary;
        let media_type = self.index.blobs.media_type(&digest).map(str::to_owned);
        Entry { digest, size, media_type, pinned }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.failure {
            None => Ok(()),
            Some(why) => {
                let what = format!("the store takes no writes: {why}");
                Err(Error::new(Kind::ReadOnly, what))
            }
        }
    }

    /// Whether room was given up that only a sync may free.
    pub(super) fn waits_for_sync(&self) -> bool {
        !self.limbo.is_empty()
    }

    /// Frees the room that nothing names any more.
    pub(super) fn reclaim(&mut self) {
        let synced = self.synced;
        let held: Vec<Rc<BlobRecord>> = self.leases.iter().filter_map(Weak::upgrade).collect();
        let is_held = |extents: &[Extent]| held.iter().any(|held| overlap(&held.extents, extents));
        let is_free = |limbo: &mut Limbo| limbo.generation <= synced && !is_held(&limbo.extents);
        for limbo in self.limbo.extract_if(.., is_free) {
            self.space.release(&limbo.extents);
        }
    }
}
