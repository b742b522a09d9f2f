//! Reading a blob that is still being written, as far as it has come.
//!
//! Nothing of it was verified yet, and it may turn out to be wrong as a whole: a reader that passes
//! bytes on keeps enough back for that. The bytes come from where they were programmed, so that no
//! second copy of them is held for readers.

use std::cell::Cell;
use std::rc::Rc;

use crate::blob::format::Extent;
use crate::blob::format::layout;
use crate::blob::{Error, Store};

/// Reads behind one writer. It is of no use once that writer is gone.
pub struct Follower {
    pub(in crate::blob) store: Store,
    pub(in crate::blob) extents: Vec<Extent>,
    /// Bytes that the writer has programmed.
    pub(in crate::blob) landed: Rc<Cell<u64>>,
    /// The mount that the writer is of.
    pub(in crate::blob) mounted: u64,
}

impl Follower {
    /// Whether the log is still mounted as it was: else the writer is about to fail.
    pub fn is_mounted(&self) -> bool {
        self.store.check_mounted(self.mounted).is_ok()
    }

    /// Reads from byte `offset` of the blob; returns the number of bytes, 0 where nothing is there
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::flash::{Geometry, sim};
    use crate::kind::Kind;
    use crate::metrics::Metrics;
    use crate::oci::Digest;

    #[test]
    fn what_was_programmed_is_read_and_no_more() {
        for reprogram in [true, false] {
            let geometry =
                Geometry { segment_count: 16, segment_bytes: 16_384, program_bytes: 64, reprogram };
            let device = Arc::new(sim::Device::new(geometry));
            let (store, _) = Store::open(device, Rc::new(Metrics::default())).unwrap();
            let bytes: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).take(40_000).collect();
            let digest = Digest::sha256(&bytes);
            let mut writer = smol::block_on(store.writer(&digest, 40_000, None)).unwrap();
            let follower = writer.follow();
            let mut buffer = vec![0; 50_000];
            assert_eq!(follower.read_at(0, &mut buffer).ok(), Some(0));
            smol::block_on(writer.write(&bytes[..20_050])).unwrap();
            let whole_units = 20_050 / 64 * 64;
            assert_eq!(follower.read_at(0, &mut buffer).ok(), Some(whole_units));
            assert!(buffer[..whole_units] == bytes[..whole_units]);
            assert_eq!(follower.read_at(17_000, &mut buffer[..100]).ok(), Some(100));
            assert!(buffer[..100] == bytes[17_000..17_100], "over the end of a segment");
            assert_eq!(follower.read_at(30_000, &mut buffer).ok(), Some(0));
            smol::block_on(writer.write(&bytes[20_050..])).unwrap();
            assert_eq!(follower.read_at(20_000, &mut buffer).ok(), Some(20_000));
            assert!(buffer[..20_000] == bytes[20_000..]);
            smol::block_on(writer.commit()).unwrap();
            assert!(follower.is_mounted());
            smol::block_on(store.remount()).unwrap();
            assert!(!follower.is_mounted());
            let after = follower.read_at(0, &mut buffer).map_err(|error| error.kind());
            assert_eq!(after, Err(Kind::Retry), "its room may be another's now");
        }
    }
}
