//! Segments made of erase blocks, for MTD and UBI.
//!
//! An erase block may hold fewer bytes than lie between two of them: a UBI volume on NOR has room
//! for a broken number of units in each. What is left over is not used, so that a unit never lies
//! across two erase blocks.

use std::ops::Range;

use super::{Error, Geometry, shape};
use crate::kind::Kind;
use crate::units::{ByteCount, to_usize};

/// How segments lie on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EraseBlocks {
    /// Between the beginnings of two erase blocks.
    stride_bytes: u32,
    /// Used of each: whole units.
    used_bytes: u32,
    /// Erase blocks of a segment.
    per_segment: u32,
    segment_count: u32,
    program_bytes: u32,
}

impl EraseBlocks {
    /// A device of `count` erase blocks of `bytes` each, which is written `write_bytes` at a time.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where there is no segment in it.
    pub fn new(count: u64, bytes: u32, write_bytes: u32) -> Result<Self, Error> {
        let program_bytes = PROGRAM_BYTES_MIN.next_multiple_of(write_bytes.max(1));
        let used_bytes = bytes / program_bytes * program_bytes;
        let per_segment = shape::erase_blocks(used_bytes, count);
        let segment_bytes = u64::from(used_bytes) * u64::from(per_segment);
        // What does not fit holds no segment, as is said below.
        let segment_bytes = u32::try_from(segment_bytes).unwrap_or(0);
        let segments = shape::segment_count(count * u64::from(used_bytes), segment_bytes);
        if segments == 0 {
            let what = format!(
                "{count} erase blocks of {}, written in units of {program_bytes} bytes: expected \
                 room for at least one segment of them",
                ByteCount(u64::from(bytes))
            );
            return Err(Error::new(Kind::Invalid, what));
        }
        let segment_count = segments;
        Ok(Self { stride_bytes: bytes, used_bytes, per_segment, segment_count, program_bytes })
    }

    /// For the log.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            segment_count: self.segment_count,
            segment_bytes: self.used_bytes * self.per_segment,
            program_bytes: self.program_bytes,
            reprogram: false,
        }
    }

    /// The numbers of the erase blocks of a segment.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a segment that is not there.
    pub fn of_segment(&self, segment: u32) -> Result<Range<u64>, Error> {
        self.check(segment, 0, 0)?;
        let first = u64::from(segment) * u64::from(self.per_segment);
        Ok(first..first + u64::from(self.per_segment))
    }

    /// Where an erase block begins on the device.
    pub fn position(&self, block: u64) -> u64 {
        block * u64::from(self.stride_bytes)
    }

    /// Hands what lies at `offset` of a segment to `read`, a piece in each erase block, to be filled.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is not within the segment; those of `read`.
    pub fn read(
        &self,
        (segment, offset): (u32, u32),
        mut buffer: &mut [u8],
        mut read: impl FnMut(Piece, &mut [u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (piece, length) in self.pieces(segment, offset, buffer.len())? {
            let (here, later) = buffer.split_at_mut_checked(length).unwrap_or_default();
            read(piece, here)?;
            buffer = later;
        }
        Ok(())
    }

    /// Hands `bytes` for `offset` of a segment to `program`, a piece for each erase block.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is not within the segment, and what is no whole units; those of
    /// `program`.
    pub fn program(
        &self,
        (segment, offset): (u32, u32),
        mut bytes: &[u8],
        mut program: impl FnMut(Piece, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let pieces = self.pieces(segment, offset, bytes.len())?;
        self.geometry().check_units(offset, bytes.len())?;
        for (piece, length) in pieces {
            let (here, later) = bytes.split_at_checked(length).unwrap_or_default();
            program(piece, here)?;
            bytes = later;
        }
        Ok(())
    }

    /// The pieces, one in each erase block, of `length` bytes at `offset` of a segment, and how many
    /// bytes each has.
    fn pieces(
        &self,
        segment: u32,
        offset: u32,
        length: usize,
    ) -> Result<Vec<(Piece, usize)>, Error> {
        self.check(segment, offset, length)?;
        let used = u64::from(self.used_bytes);
        let first = u64::from(segment) * u64::from(self.per_segment);
        let mut at = u64::from(offset);
        let end = at + length as u64;
        let mut pieces = Vec::new();
        while at < end {
            let within = at % used;
            let bytes = (used - within).min(end - at);
            let block = first + at / used;
            let position = self.position(block) + within;
            pieces.push((Piece { block, position }, to_usize(bytes)));
            at += bytes;
        }
        Ok(pieces)
    }

    fn check(&self, segment: u32, offset: u32, length: usize) -> Result<(), Error> {
        let checked = self.geometry().position(segment, offset, length);
        checked.map(|_| ()).map_err(|what| Error::new(Kind::Invalid, what))
    }
}

/// Where bytes lie that are within one erase block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The erase block's number.
    pub block: u64,
    /// Where on the device.
    pub position: u64,
}

/// A page of the usual serial NOR, and the least that is worth a frame of the log.
const PROGRAM_BYTES_MIN: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(segment_count: u32, segment_bytes: u32, program_bytes: u32) -> Geometry {
        Geometry { segment_count, segment_bytes, program_bytes, reprogram: false }
    }

    #[test]
    fn segments_are_whole_erase_blocks() {
        let nand = EraseBlocks::new(2048, 128 << 10, 2048).unwrap();
        assert_eq!(nand.geometry(), geometry(512, 512 << 10, 2048));
        let ubi = EraseBlocks::new(2002, 126_976, 2048).unwrap();
        assert_eq!(ubi.geometry(), geometry(1001, 2 * 126_976, 2048));
        let large = EraseBlocks::new(8192, 256 << 10, 4096).unwrap();
        assert_eq!(large.geometry(), geometry(512, 4 << 20, 4096));
        let serial = EraseBlocks::new(4096, 4096, 1).unwrap();
        assert_eq!(serial.geometry(), geometry(256, 64 << 10, 256));
        assert!(EraseBlocks::new(0, 4096, 1).is_err());
        assert!(EraseBlocks::new(8, 4096, 8192).is_err());
    }

    #[test]
    fn what_no_unit_fits_into_is_skipped() {
        // A LEB of NOR: 128 KiB less two headers of 64 bytes.
        let blocks = EraseBlocks::new(1024, 130_944, 1).unwrap();
        assert_eq!(blocks.geometry(), geometry(512, 2 * 130_816, 256));
        let pieces = blocks.pieces(3, 130_816 - 256, 512).unwrap();
        let expected = [
            (Piece { block: 6, position: 6 * 130_944 + 130_560 }, 256),
            (Piece { block: 7, position: 7 * 130_944 }, 256),
        ];
        assert_eq!(pieces, expected);
        assert_eq!(blocks.of_segment(511).unwrap(), 1022..1024);
        assert!(blocks.of_segment(512).is_err() && blocks.pieces(0, 2 * 130_816, 1).is_err());
    }
}
