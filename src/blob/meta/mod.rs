//! The META ring: where records are appended, and how a checkpoint begins each of its segments.
//!
//! A META segment holds everything: a checkpoint of all that was true when it was begun, then the
//! records since. The others are history, and kept only until the ring comes round. Whatever is
//! read back here has been checked; what cannot be read is counted as damage, never believed.

mod claims;
mod read;
pub(super) mod recover;

use std::future::Future as _;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use log::warn;

use crate::blob::Error;
use crate::blob::format::{
    HEADER_BYTES, Header, META_SEGMENTS_MAX, Part, Place, Record, encode_frame, meta_segments,
};
use crate::blob::index::Index;
use crate::blob::io::queue::{Flight, Queue};
use crate::flash::{self, Device, program_checked};
use crate::kind::Kind;
use crate::units::{to_u32, to_usize};

/// The end of the log.
pub struct Meta {
    device: Arc<dyn Device>,
    ring: Ring,
    /// Whether records may be appended to the current segment. Where not, the next program begins
    /// another one, with everything in it.
    stands: bool,
    /// Where the next unit of the current segment is programmed.
    offset: u32,
    /// From here to there, no sync of records has covered what was programmed.
    unsynced: u32,
    /// Frames that were appended and not yet programmed.
    pending: Vec<u8>,
    queue: Queue,
    under_way: Option<UnderWay>,
    /// Places of the ring that were gone through since a segment was begun last.
    passed: u32,
    /// Segments that failed, to be marked when another one did not.
    worn: Vec<u32>,
    /// Why the last of them failed.
    fault: Option<Error>,
}

/// What was begun, and is not known to have ended.
enum UnderWay {
    /// Frames of this length, at this place.
    Records { frames: usize, offset: u32, run: Flight<(Vec<u8>, Result<(), flash::Error>)> },
    /// A segment with a checkpoint that ends here, of everything up to this change.
    Segment { bytes: u64, end: u32, change: u64, run: Flight<Result<(), flash::Error>> },
}

/// How what was begun has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    /// Nothing was under way.
    Nothing,
    /// So many bytes are programmed.
    Programmed(u64),
    /// So many bytes are, and with them everything up to a change is durable.
    Begun { bytes: u64, change: u64 },
    /// A segment is bad: it is to be begun again, in another.
    Again,
}

/// Where in the ring the log is.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// The last number in use.
    pub sequence: u64,
    /// The segment that has it.
    pub slot: u32,
    /// The newest segment that is complete by itself, and those that were in use after it and
    /// are damaged: they are left alone until there is another complete one.
    pub spared: Vec<u32>,
    /// How often each segment was begun.
    pub erase_counts: [u32; META_SEGMENTS_MAX],
}

impl Meta {
    /// The end of a log. The first program begins a segment. Everything is done at once, until
    /// [`Meta::set_queue`].
    pub fn new(device: &Arc<dyn Device>, ring: Ring) -> Self {
        Self {
            device: Arc::clone(device),
            ring,
            stands: false,
            offset: 0,
            unsynced: 0,
            pending: Vec::new(),
            queue: Queue::at_once(device),
            under_way: None,
            passed: 0,
            worn: Vec::new(),
            fault: None,
        }
    }

    /// From here on operations go through `queue`.
    pub fn set_queue(&mut self, queue: Queue) {
        self.queue = queue;
    }

    /// Appends a record that the index has taken in; it is on the device after [`Meta::program`].
    pub fn append(&mut self, record: &Record) -> Result<(), Error> {
        self.stands = self.stands && self.append_to(Part::Tail, record)?;
        Ok(())
    }

    /// Whether something was appended that is not programmed yet.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The current segment, and the range of it that may not be durable. Nothing that was ever
    /// programmed anywhere else is needed any more.
    pub fn unsynced(&self) -> (u32, Range<u32>) {
        (self.ring.slot, self.unsynced..self.offset)
    }

    /// What was programmed to `slot` up to `end` is durable.
    pub fn synced(&mut self, slot: u32, end: u32) {
        if slot == self.ring.slot {
            self.unsynced = self.unsynced.max(end);
        }
    }

    fn append_to(&mut self, part: Part, record: &Record) -> Result<bool, Error> {
        let before = self.pending.len();
        let place = Place { sequence: self.ring.sequence, part };
        encode_frame(record, place, &mut self.pending).map_err(|_| {
            Error::new(Kind::Invalid, "a record is larger than its frame may be".to_owned())
        })?;
        let needed = self.padded(self.pending.len() as u64);
        if u64::from(self.offset) + needed <= u64::from(self.device.geometry().segment_bytes) {
            return Ok(true);
        }
        self.pending.truncate(before);
        Ok(false)
    }

    /// Begins to program what was appended, padded to whole units; where the segment has no room
    /// for that, another is begun with all of `index`, which is of change number `change`. What is
    /// appended meanwhile comes behind it. Nothing else is under way.
    ///
    /// # Errors
    /// Those of what cannot even be begun.
    pub fn begin(&mut self, index: &Index, change: u64) -> Result<(), Error> {
        if !self.stands {
            return self.begin_segment(index, change);
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let frames = self.pending.len();
        let length = self.padded(frames as u64);
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.resize(to_usize(length), 0);
        let (slot, offset) = (self.ring.slot, self.offset);
        self.offset += to_u32(length);
        self.under_way = Some(UnderWay::Records {
            frames,
            offset,
            run: self.queue.begin(move |device| {
                let outcome = program_checked(device, slot, offset, &bytes);
                (bytes, outcome)
            }),
        });
        Ok(())
    }

    /// Whether what was begun has ended, and how.
    ///
    /// # Errors
    /// After [`Kind::Full`] nothing is lost, and it may be tried again.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Landed, Error>> {
        let landed = match &mut self.under_way {
            None => return Poll::Ready(Ok(Landed::Nothing)),
            Some(UnderWay::Records { frames, offset, run }) => {
                let (frames, offset) = (*frames, *offset);
                let (bytes, outcome) = ready!(Pin::new(run).poll(context));
                self.end_records(frames, offset, bytes, outcome)
            }
            Some(UnderWay::Segment { bytes, end, change, run }) => {
                let (bytes, end, change) = (*bytes, *end, *change);
                let outcome = ready!(Pin::new(run).poll(context));
                self.end_segment(outcome).map(|is_begun| match is_begun {
                    true => {
                        self.unsynced = end;
                        Landed::Begun { bytes, change }
                    }
                    false => Landed::Again,
                })
            }
        };
        self.under_way = None;
        Poll::Ready(landed)
    }

    /// Programs what was appended, and waits for it: at a mount, when there is nothing else to do.
    pub fn program_now(&mut self, index: &Index) -> Result<u64, Error> {
        loop {
            self.begin(index, 0)?;
            let mut context = Context::from_waker(Waker::noop());
            match self.poll(&mut context) {
                Poll::Ready(Ok(Landed::Programmed(bytes) | Landed::Begun { bytes, .. })) => {
                    return Ok(bytes);
                }
                Poll::Ready(Ok(Landed::Nothing)) => return Ok(0),
                Poll::Ready(Err(error)) => return Err(error),
                // Done at once, nothing is pending.
                Poll::Ready(Ok(Landed::Again)) | Poll::Pending => {}
            }
        }
    }

    fn end_records(
        &mut self,
        frames: usize,
        offset: u32,
        mut bytes: Vec<u8>,
        outcome: Result<(), flash::Error>,
    ) -> Result<Landed, Error> {
        let Err(error) = outcome else { return Ok(Landed::Programmed(bytes.len() as u64)) };
        let error = Error::from(error);
        if self.is_worn_out(&error) {
            warn!("{error}; META goes on in another segment");
            self.worn.push(self.ring.slot);
            self.stands = false;
            return Ok(Landed::Again);
        }
        // When it is tried again, no padding may stand between the frames.
        bytes.truncate(frames);
        bytes.append(&mut self.pending);
        (self.pending, self.offset) = (bytes, offset);
        Err(error)
    }

    /// True when the segment was begun, false when another is to be.
    fn end_segment(&mut self, outcome: Result<(), flash::Error>) -> Result<bool, Error> {
        let Err(error) = outcome else {
            self.ring.spared = vec![self.ring.slot];
            self.passed = 0;
            self.fault = None;
            // Only now is it known that these are corrupt, and not the device at fault.
            for slot in self.worn.drain(..) {
                mark_bad(self.device.as_ref(), slot);
            }
            return Ok(true);
        };
        let error = Error::from(error);
        self.stands = false;
        if !self.is_worn_out(&error) {
            self.passed = 0;
            return Err(error);
        }
        warn!("{error}; another segment of META is begun");
        self.worn.push(self.ring.slot);
        self.fault = Some(error);
        Ok(false)
    }

    /// Begins the next segment of the ring with all of `index`, durably. Frames that were pending
    /// are dropped: the index has them.
    fn begin_segment(&mut self, index: &Index, change: u64) -> Result<(), Error> {
        self.next_slot()?;
        let (slot, geometry) = (self.ring.slot, self.device.geometry());
        self.ring.sequence += 1;
        let count = usize::try_from(slot).ok().and_then(|i| self.ring.erase_counts.get_mut(i));
        let count = count.map_or(0, |count| {
            *count = count.saturating_add(1);
            *count
        });
        let header = Header {
            sequence: self.ring.sequence,
            erase_count: count,
            segment_bytes: geometry.segment_bytes,
            program_bytes: geometry.program_bytes,
        };
        let unit = self.padded(HEADER_BYTES as u64);
        let mut header = header.encode().to_vec();
        header.resize(to_usize(unit), 0);
        self.offset = to_u32(unit);
        let run = if self.queue.here().is_some() {
            let device = Arc::clone(&self.device);
            let outcome = begin_slot(device.as_ref(), slot, &header).and_then(|()| {
                // Each piece when it is there: all of them together may be megabytes.
                let mut outcome = Ok(());
                let encoded = self.encode_checkpoint(index, |offset, piece| {
                    if outcome.is_ok() {
                        outcome = program_checked(device.as_ref(), slot, offset, piece);
                    }
                });
                encoded.map_err(|error| flash::Error::new(error.kind(), error.to_string()))?;
                outcome.and_then(|()| device.sync())
            });
            Flight::landed(outcome)
        } else {
            let mut pieces = Vec::new();
            let encoded = self.encode_checkpoint(index, |offset, piece| {
                pieces.push((offset, piece.to_vec()));
            });
            encoded.inspect_err(|_| self.passed = 0)?;
            self.queue.begin(move |device| {
                begin_slot(device, slot, &header)?;
                for (offset, piece) in pieces {
                    program_checked(device, slot, offset, &piece)?;
                }
                device.sync()
            })
        };
        let end = self.offset;
        self.stands = true;
        self.under_way = Some(UnderWay::Segment { bytes: u64::from(end), end, change, run });
        Ok(())
    }

    /// Goes to the next place of the ring that a segment may be begun in.
    fn next_slot(&mut self) -> Result<(), Error> {
        let count = meta_segments(self.device.geometry());
        let is_sound = |slot: &u32| self.device.is_bad(*slot).is_ok_and(|is_bad| !is_bad);
        let sound = (0..count).filter(is_sound).count();
        // Two places are needed to go on with; where so many are not left, the oldest is worth
        // most.
        let spared = self.ring.spared.len();
        let kept = if spared + 2 <= sound { spared } else { 1 };
        while self.passed < count {
            self.passed += 1;
            self.ring.slot = (self.ring.slot + 1) % count;
            let is_spared = self.ring.spared.iter().take(kept).any(|slot| *slot == self.ring.slot);
            if !is_spared && !self.device.is_bad(self.ring.slot)? {
                return Ok(());
            }
        }
        self.passed = 0;
        let fault = self.fault.take();
        Err(fault.unwrap_or_else(|| Error::new(Kind::ReadOnly, "all segments of META are bad")))
    }

    /// Hands out the checkpoint of `index` in pieces, from `offset` on, which is behind it then.
    fn encode_checkpoint(
        &mut self,
        index: &Index,
        mut each: impl FnMut(u32, &[u8]),
    ) -> Result<(), Error> {
        // A piece and the record that completes it; doubling would take twice as much.
        self.pending = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        self.encode(&Record::CheckpointBegin, &mut each)?;
        let mut frames = 0;
        for record in index.snapshot() {
            frames += 1;
            self.encode(&record, &mut each)?;
        }
        self.encode(&Record::CheckpointEnd { frames }, &mut each)?;
        self.hand_out(&mut each);
        // What follows is much smaller, and comes one by one.
        self.pending = Vec::new();
        Ok(())
    }

    /// Encodes a record of a checkpoint, and hands out a piece as soon as a good one has come
    /// together.
    fn encode(&mut self, record: &Record, each: &mut impl FnMut(u32, &[u8])) -> Result<(), Error> {
        if !self.append_to(Part::Checkpoint, record)? {
            let what = "the checkpoint does not fit a META segment".to_owned();
            return Err(Error::new(Kind::Full, what));
        }
        if self.pending.len() >= PIECE_BYTES {
            self.hand_out(each);
        }
        Ok(())
    }

    fn hand_out(&mut self, each: &mut impl FnMut(u32, &[u8])) {
        let length = self.padded(self.pending.len() as u64);
        self.pending.resize(to_usize(length), 0);
        each(self.offset, &self.pending);
        self.pending.clear();
        self.offset += to_u32(length);
    }

    /// Whether an error is of the segment rather than of the device: where cells wear out
    /// under the log's own hands.
    fn is_worn_out(&self, error: &Error) -> bool {
        !self.device.geometry().reprogram && matches!(error.kind(), Kind::Retry | Kind::Corrupt)
    }

    fn padded(&self, length: u64) -> u64 {
        length.next_multiple_of(u64::from(self.device.geometry().program_bytes))
    }
}

/// Erases a segment of META and programs its header, durably: a sequence number is never used again
/// once a frame may carry it, so the header that mount goes by must be there first.
fn begin_slot(device: &dyn Device, slot: u32, header: &[u8]) -> Result<(), flash::Error> {
    device.erase(slot)?;
    program_checked(device, slot, 0, header)?;
    device.sync()
}

/// Marks a segment on the device. A mark that fails costs no more than finding out again.
pub(in crate::blob) fn mark_bad(device: &dyn Device, segment: u32) {
    if let Err(error) = device.mark_bad(segment) {
        warn!("segment {segment} cannot be marked as bad: {error}");
    }
}

/// More segments than any flash lives to begin; what is added to a number does not overflow.
pub const SEQUENCE_MAX: u64 = u64::MAX / 2;
/// What is programmed or read at a time.
const PIECE_BYTES: usize = 64 << 10;
