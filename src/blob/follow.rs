//! Reading a blob that is still being written, as far as it has come.
//!
//! Nothing of it was verified yet, and it may turn out to be wrong as a whole: whoever passes bytes
//! on keeps enough back for that. The bytes come from where they were programmed, so that no second
//! copy of them is held for readers.

use std::cell::Cell;
use std::rc::Rc;

use super::format::Extent;
use super::{Error, Store, layout};

/// Reads behind one writer. It is of no use once that writer is gone.
pub struct Follower {
    pub(super) store: Store,
    pub(super) extents: Vec<Extent>,
    /// Bytes that the writer has programmed.
    pub(super) landed: Rc<Cell<u64>>,
    /// The mount that the writer is of.
    pub(super) mounted: u64,
}

impl Store {
    /// How many tags there are.
    pub fn tag_count(&self) -> usize {
        self.0.state.borrow().index.tags.len()
    }
}

impl Follower {
    /// Reads from byte `offset` of the blob; gives the number of bytes, 0 where nothing is there
    /// yet. The last bytes of a blob, less than a program unit, are not there before it is whole.
    ///
    /// # Errors
    /// [`crate::kind::Kind::Retry`] when the log was mounted again since; the device's own.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        self.store.check_mounted(self.mounted)?;
        let there = self.landed.get().saturating_sub(offset);
        let length = usize::try_from(there).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        layout::read(self.store.device(), &self.extents, offset, buffer)?;
        Ok(length)
    }
}
