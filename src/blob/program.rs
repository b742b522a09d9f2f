//! Programming bytes of blobs: through the queue, in pieces that lie within a segment each.

use super::format::Extent;
use super::layout::{Piece, pieces};
use super::queue::Flight;
use super::{Error, Store};
use crate::flash::{self, Device, program_checked};

impl Store {
    /// Programs bytes of a blob from byte `start` of its extents. Lengths and `start` are
    /// multiples of the program unit.
    ///
    /// # Errors
    /// [`Kind::Retry`] when a segment went bad under it: other room is to be reserved.
    pub(super) async fn program(
        &self,
        extents: &[Extent],
        start: u64,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let outcome = self.begin_program(extents, start, bytes)?.await;
        self.end_program(outcome).map(|_| ())
    }

    /// Begins to do what [`Store::program`] does; its outcome is for [`Store::end_program`].
    pub(super) fn begin_program(
        &self,
        extents: &[Extent],
        start: u64,
        bytes: Vec<u8>,
    ) -> Result<Programming, Error> {
        self.0.state.borrow().check()?;
        let segment_bytes = self.device().geometry().segment_bytes;
        let pieces = pieces(extents, segment_bytes, start, bytes.len() as u64);
        Ok(self.0.queue.begin(move |device| {
            program_pieces(device, &pieces, &bytes)?;
            Ok(bytes)
        }))
    }

    /// Counts what was programmed, and gives it back.
    pub(super) fn end_program(&self, outcome: Outcome<Vec<u8>>) -> Result<Vec<u8>, Error> {
        let bytes = outcome.map_err(|(segment, error)| self.classify_failure(segment, error))?;
        self.note_programmed(bytes.len() as u64);
        Ok(bytes)
    }

    /// Bytes of blobs were programmed.
    pub(super) fn note_programmed(&self, bytes: u64) {
        self.count_programmed(bytes);
        self.0.state.borrow_mut().generation += 1;
    }
}

/// Programs `bytes` to `pieces`; with an error comes the segment that it is of.
pub(super) fn program_pieces(device: &dyn Device, pieces: &[Piece], bytes: &[u8]) -> Outcome<()> {
    let mut rest = bytes;
    for piece in pieces {
        let (here, later) = rest.split_at_checked(piece.bytes).unwrap_or((rest, &[]));
        program_checked(device, piece.segment, piece.offset, here)
            .map_err(|error| (piece.segment, error))?;
        rest = later;
    }
    Ok(())
}

/// What became of an operation on segments, and which of them failed.
pub(super) type Outcome<T> = Result<T, (u32, flash::Error)>;

/// Bytes that are being programmed, which are given back.
pub(super) type Programming = Flight<Outcome<Vec<u8>>>;
