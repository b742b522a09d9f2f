//! What a mounted log is, in memory.

use std::collections::BTreeSet;
use std::rc::{Rc, Weak};

use crate::blob::Error;
use crate::blob::format::layout::overlap;
use crate::blob::format::{BlobRecord, Extent};
use crate::blob::index::Index;
use crate::blob::index::blobs::Summary;
use crate::blob::index::checks::Checks;
use crate::blob::index::space::Space;
use crate::blob::meta::Meta;
use crate::blob::meta::recover::Mounted;
use crate::blob::store::pack::Pack;
use crate::kind::Kind;
use crate::oci::Digest;

pub(in crate::blob) struct State {
    pub(in crate::blob) index: Index,
    pub(in crate::blob) space: Space,
    pub(in crate::blob) meta: Meta,
    pub(in crate::blob) pack: Pack,
    /// Segments of the device that were not given up.
    pub(in crate::blob) segment_count: u32,
    /// Counts changes of data and records.
    pub(in crate::blob) generation: u64,
    /// Records of changes up to this one are durable.
    pub(in crate::blob) synced: u64,
    /// Bytes of blobs that were programmed up to this change are durable.
    pub(in crate::blob) bytes_synced: u64,
    /// Those up to this one will be when the sync has ended that began last, while that lives.
    pub(in crate::blob) bytes_sync: (u64, Weak<()>),
    /// The change with which the last blob was committed whose Commit had waited for a sync.
    pub(in crate::blob) committed: u64,
    /// Blobs that are whole, and not recorded yet.
    pub(in crate::blob) finished: Vec<Finished>,
    /// Room that is free as soon as nothing durable and nothing here names it.
    pub(in crate::blob) limbo: Vec<Limbo>,
    /// What readers hold: their room is not used again, even if the blob is deleted.
    pub(in crate::blob) leases: Vec<Weak<BlobRecord>>,
    /// Blobs that have a live writer, or are finished.
    pub(in crate::blob) writing: BTreeSet<Digest>,
    /// What was written shortly before the mount and not checked since.
    pub(in crate::blob) suspects: BTreeSet<Digest>,
    /// What was checked of the blobs that are sent.
    pub(in crate::blob) checks: Checks,
    /// Segments that went bad and hold something still, or are not marked yet.
    pub(in crate::blob) worn: BTreeSet<u32>,
    /// Why nothing can be written.
    pub(in crate::blob) failure: Option<String>,
    /// The change with which the log was mounted: what somebody did before is not to be relied on.
    pub(in crate::blob) mounted: u64,
}

/// A blob of which every byte was programmed and has the right digest.
pub(in crate::blob) struct Finished {
    pub(in crate::blob) record: BlobRecord,
    /// The last change when it was finished: a sync that began then or later covers all bytes.
    pub(in crate::blob) change: u64,
    /// Bytes that no Progress covers.
    pub(in crate::blob) unrecorded: u64,
}

pub(in crate::blob) struct Limbo {
    pub(in crate::blob) extents: Vec<Extent>,
    /// The change that freed the room.
    pub(in crate::blob) generation: u64,
}

/// A blob that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Of a manifest, as it was pushed.
    pub media_type: Option<String>,
    /// Whether the desired state needs it.
    pub pinned: bool,
}

/// A download that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The blob's name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The first byte that is missing.
    pub frontier: u64,
}

impl State {
    /// What was mounted, and nothing done to it yet.
    pub(in crate::blob) fn new(mounted: Mounted, segment_count: u32) -> Self {
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

    pub(in crate::blob) fn entry(&self, summary: Summary) -> Entry {
        let Summary { digest, size, pinned, .. } = summary;
        let media_type = self.index.blobs.media_type(&digest).map(str::to_owned);
        Entry { digest, size, media_type, pinned }
    }

    pub(in crate::blob) fn check(&self) -> Result<(), Error> {
        match &self.failure {
            None => Ok(()),
            Some(why) => {
                let what = format!("the store takes no writes: {why}");
                Err(Error::new(Kind::ReadOnly, what))
            }
        }
    }

    pub(in crate::blob) fn is_finished(&self, digest: &Digest) -> bool {
        self.finished.iter().any(|finished| finished.record.digest == *digest)
    }

    /// Whether room was given up that only a sync may free.
    pub(in crate::blob) fn waits_for_sync(&self) -> bool {
        !self.limbo.is_empty()
    }

    /// Frees the room that nothing names any more.
    pub(in crate::blob) fn reclaim(&mut self) {
        let synced = self.synced;
        let held: Vec<Rc<BlobRecord>> = self.leases.iter().filter_map(Weak::upgrade).collect();
        let is_held = |extents: &[Extent]| held.iter().any(|held| overlap(&held.extents, extents));
        let is_free = |limbo: &mut Limbo| limbo.generation <= synced && !is_held(&limbo.extents);
        for limbo in self.limbo.extract_if(.., is_free) {
            self.space.release(&limbo.extents);
        }
    }
}
