//! Programming bytes of blobs: through the queue, in pieces that lie within a segment each.

use crate::blob::format::Extent;
use crate::blob::format::layout::pieces;
use crate::blob::io::queue::{Outcome, Programming, program_pieces};
use crate::blob::{Error, Store};

impl Store {
    /// Programs bytes of a blob from byte `start` of its extents. Lengths and `start` are
    /// multiples of the program unit.
    ///
    /// # Errors
    /// [`Kind::Retry`] when a segment went bad under it: other room is to be reserved.
    pub(in crate::blob) async fn program(
        &self,
        extents: &[Extent],
        start: u64,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let outcome = self.begin_program(extents, start, bytes)?.await;
        self.end_program(outcome).map(|_| ())
    }

    /// Begins to do what [`Store::program`] does; its outcome is for [`Store::end_program`].
    pub(in crate::blob) fn begin_program(
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

    /// Counts what was programmed, and returns it.
    pub(in crate::blob) fn end_program(&self, outcome: Outcome<Vec<u8>>) -> Result<Vec<u8>, Error> {
        let bytes = outcome.map_err(|(segment, error)| self.classify_failure(segment, error))?;
        self.note_programmed(bytes.len() as u64);
        Ok(bytes)
    }

    /// Bytes of blobs were programmed.
    pub(in crate::blob) fn note_programmed(&self, bytes: u64) {
        self.count_programmed(bytes);
        self.0.state.borrow_mut().generation += 1;
    }
}
