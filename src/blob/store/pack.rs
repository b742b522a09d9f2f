//! The small blobs that are on their way, as they lie in memory.

use crate::blob::Error;
use crate::blob::format::{BlobRecord, Extent};
use crate::blob::index::blob_bytes;
use crate::blob::io::queue::Programming;
use crate::kind::Kind;
use crate::oci::Digest;
use crate::units::to_usize;

/// The small blobs that are not committed yet: no more than are written at the same time.
#[derive(Default)]
pub(in crate::blob) struct Pack {
    /// The unit that is being filled, and what is in it.
    pub(in crate::blob) open: Option<(Extent, Vec<u8>)>,
    /// The unit that is being programmed, and how many bytes of it are used.
    pub(in crate::blob) under_way: Option<(Extent, u64, Programming)>,
    /// The blobs in it, and in those that were programmed and await a sync.
    pub(in crate::blob) placed: Vec<Placed>,
    /// Blobs whose unit could not be programmed, and why.
    pub(in crate::blob) lost: Vec<(Digest, Kind, String)>,
}

pub(in crate::blob) struct Placed {
    pub(in crate::blob) record: BlobRecord,
    /// The change with which its unit was programmed, if it was.
    pub(in crate::blob) programmed: Option<u64>,
}

impl Pack {
    /// Where these blobs lie.
    pub fn extents(&self) -> impl Iterator<Item = &Extent> {
        let unit = self.open.iter().map(|(unit, _)| unit);
        let unit = unit.chain(self.under_way.iter().map(|(unit, ..)| unit));
        self.placed.iter().flat_map(|placed| &placed.record.extents).chain(unit)
    }

    /// What they need in a checkpoint at most, in bytes.
    pub fn index_bytes(&self) -> u64 {
        self.placed.iter().map(|placed| blob_bytes(&placed.record)).sum()
    }

    pub fn is_placed(&self, digest: &Digest) -> bool {
        self.placed.iter().any(|placed| placed.record.digest == *digest)
    }

    /// Why a blob was lost, if it was; reported once.
    pub fn take_lost(&mut self, digest: &Digest) -> Option<Error> {
        let index = self.lost.iter().position(|(lost, ..)| lost == digest)?;
        let (_, kind, what) = self.lost.swap_remove(index);
        Some(Error::new(kind, what))
    }

    /// Lays a blob behind the others, if the unit has room for it.
    pub fn lay(&mut self, mut record: BlobRecord, bytes: &[u8], length: u64) -> bool {
        let Some((unit, content)) = &mut self.open else { return false };
        let used = content.len() as u64;
        if used + length > unit.bytes {
            return false;
        }
        content.extend_from_slice(bytes);
        content.resize(to_usize(used + length), 0);
        record.extents = vec![Extent { start: unit.start + used, bytes: length }];
        self.placed.push(Placed { record, programmed: None });
        true
    }

    /// The blobs in a unit that is not programmed yet.
    pub fn in_unit(&mut self, unit: Extent) -> impl Iterator<Item = &mut Placed> {
        self.placed.iter_mut().filter(move |placed| placed.is_in(unit))
    }

    pub fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|(unit, content)| content.len() as u64 == unit.bytes)
    }
}

impl Placed {
    /// Whether it waits for `unit` to be programmed.
    pub fn is_in(&self, unit: Extent) -> bool {
        let mut starts = self.record.extents.iter().map(|extent| extent.start);
        self.programmed.is_none() && starts.any(|start| (unit.start..unit.end()).contains(&start))
    }
}
