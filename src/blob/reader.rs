//! Reading one blob.

use std::any::Any;
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;

use super::Error;
use super::format::BlobRecord;
use super::layout;
use crate::flash::Device;

/// A blob that is held. While a reader or its lease lives, the blob's room is not used again, even
/// if the blob is deleted.
pub struct Reader {
    device: Arc<dyn Device>,
    record: Rc<BlobRecord>,
}

/// A run of a blob's bytes in a file.
#[derive(Clone, Debug)]
pub struct Span {
    /// The file.
    pub file: Arc<File>,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Reader {
    pub(super) fn new(device: Arc<dyn Device>, record: Rc<BlobRecord>) -> Self {
        Self { device, record }
    }

    /// Bytes of the blob.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Reads from byte `offset` of the blob; gives the number of bytes, which is less than asked
    /// for only at the blob's end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let left = self.record.size.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        layout::read(self.device.as_ref(), &self.record.extents, offset, buffer)?;
        Ok(length)
    }

    /// As [`Reader::read_at`], from the medium itself, and without leaving the bytes in memory
    /// where others could have theirs.
    pub(super) fn read_medium(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let segment_bytes = self.device.geometry().segment_bytes;
        // Whole units, with what else is in them: nothing less can be dropped.
        let unit = self.device.geometry().program_bytes;
        let length = buffer.len() as u64;
        let pieces = layout::pieces(&self.record.extents, segment_bytes, offset, length);
        let uncache = || {
            pieces.iter().for_each(|piece| {
                let start = piece.offset / unit * unit;
                let end = u64::from(piece.offset) + piece.bytes as u64;
                let end = end.next_multiple_of(u64::from(unit));
                self.device.uncache(piece.segment, start, end - u64::from(start));
            });
        };
        uncache();
        let outcome = self.read_at(offset, buffer);
        uncache();
        outcome
    }

    /// Where `bytes` bytes from `offset` lie in files; none if the device has no files or the
    /// range is not within the blob.
    pub fn spans(&self, offset: u64, bytes: u64) -> Option<Vec<Span>> {
        if offset.checked_add(bytes)? > self.record.size {
            return None;
        }
        let segment_bytes = self.device.geometry().segment_bytes;
        let mut spans: Vec<Span> = Vec::new();
        for piece in layout::pieces(&self.record.extents, segment_bytes, offset, bytes) {
            let (file, offset) = self.device.file_span(piece.segment, piece.offset)?;
            let bytes = piece.bytes as u64;
            match spans.last_mut() {
                Some(last)
                    if Arc::ptr_eq(&last.file, &file) && last.offset + last.bytes == offset =>
                {
                    last.bytes += bytes;
                }
                _ => spans.push(Span { file, offset, bytes }),
            }
        }
        Some(spans)
    }

    /// Keeps the room of the blob from being used again for as long as it lives.
    pub fn lease(&self) -> Rc<dyn Any> {
        Rc::clone(&self.record) as Rc<dyn Any>
    }
}
