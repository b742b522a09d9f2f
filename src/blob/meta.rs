//! The META ring: where records are appended, and how a checkpoint begins each of its segments.
//!
//! A META segment holds everything: a checkpoint of all that was true when it was begun, then the
//! records since. The others are history, and kept only until the ring comes round. Whatever is
//! read back here has been checked; what cannot be read is counted as damage, never believed.

use std::ops::Range;
use std::sync::Arc;

use log::warn;

use super::Error;
use super::format::{
    FRAME_HEADER_BYTES, HEADER_BYTES, Header, HeaderState, META_SEGMENTS_MAX, Part, Payload, Place,
    Record, decode_frame, decode_frame_header, encode_frame, meta_segments,
};
use super::index::Index;
use super::wear::mark_bad;
use crate::flash::{Device, program_checked};
use crate::kind::Kind;

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
}

/// What was programmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// So many bytes.
    pub bytes: u64,
    /// Whether a segment was begun, and so everything is durable.
    pub begun: bool,
}

/// Where in the ring the log is.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// The last number in use.
    pub sequence: u64,
    /// The segment that has it.
    pub slot: u32,
    /// The newest segment that tells everything by itself, and those that were in use after it and
    /// are damaged: they are left alone until there is another that tells everything.
    pub spared: Vec<u32>,
    /// How often each segment was begun.
    pub erase_counts: [u32; META_SEGMENTS_MAX],
}

/// What was read of one META segment.
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    /// Where it is.
    pub slot: u32,
    /// Its header.
    pub header: Header,
    /// Whether its checkpoint is whole.
    pub is_complete: bool,
    /// Whether records come after the checkpoint: it was whole once.
    pub was_used: bool,
    /// Places where something was written that cannot be read, before something that can.
    pub damaged: u32,
    /// Whether a newer program wrote some of it.
    pub is_newer: bool,
}

impl Meta {
    /// The end of a log. The first program begins a segment.
    pub fn new(device: Arc<dyn Device>, ring: Ring) -> Self {
        Self { device, ring, stands: false, offset: 0, unsynced: 0, pending: Vec::new() }
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

    /// Programs what was appended, padded to whole units. Where the segment has no room for that,
    /// or goes bad under it, another is begun with all of `index`.
    ///
    /// # Errors
    /// After [`Kind::Full`] nothing is lost, and it may be tried again.
    pub fn program(&mut self, index: &Index) -> Result<Programmed, Error> {
        if !self.stands {
            return self.begin(index);
        }
        match self.program_pending() {
            Err(error) if self.is_worn_out(&error) => {
                let slot = self.ring.slot;
                warn!("{error}; META goes on in another segment");
                let programmed = self.begin(index)?;
                mark_bad(self.device.as_ref(), slot);
                Ok(programmed)
            }
            other => Ok(Programmed { bytes: other?, begun: false }),
        }
    }

    fn program_pending(&mut self) -> Result<u64, Error> {
        if self.pending.is_empty() {
            return Ok(0);
        }
        let frames = self.pending.len();
        let length = self.padded(frames as u64);
        self.pending.resize(usize::try_from(length).unwrap_or(0), 0);
        program_checked(self.device.as_ref(), self.ring.slot, self.offset, &self.pending)
            // When it is tried again, no padding may stand between the frames.
            .inspect_err(|_| self.pending.truncate(frames))?;
        self.pending.clear();
        self.offset += u32::try_from(length).unwrap_or(u32::MAX);
        Ok(length)
    }

    /// Begins the next segment of the ring with all of `index` and makes it durable. Frames that
    /// were pending are dropped: the index has them.
    fn begin(&mut self, index: &Index) -> Result<Programmed, Error> {
        let count = meta_segments(self.device.geometry());
        self.stands = false;
        let mut outcome = Err(Error::new(Kind::Denied, "all segments of META are bad"));
        let mut worn = Vec::new();
        let is_sound = |slot: &u32| self.device.is_bad(*slot).is_ok_and(|is_bad| !is_bad);
        let sound = (0..count).filter(is_sound).count();
        // Two places are needed to go on with; where so many are not left, the oldest is worth most.
        let spared = self.ring.spared.len();
        let kept = if spared + 2 <= sound { spared } else { 1 };
        for _ in 0..count {
            self.ring.slot = (self.ring.slot + 1) % count;
            let is_spared = self.ring.spared.iter().take(kept).any(|slot| *slot == self.ring.slot);
            if is_spared || self.device.is_bad(self.ring.slot)? {
                continue;
            }
            self.pending.clear();
            outcome = self.begin_here(index);
            match &outcome {
                Err(error) if self.is_worn_out(error) => {
                    warn!("{error}; another segment of META is begun");
                    worn.push(self.ring.slot);
                }
                _ => break,
            }
        }
        let bytes = outcome?;
        self.stands = true;
        // Only now is it known that these are to blame, and not the device.
        for slot in worn {
            mark_bad(self.device.as_ref(), slot);
        }
        Ok(Programmed { bytes, begun: true })
    }

    fn begin_here(&mut self, index: &Index) -> Result<u64, Error> {
        let (slot, geometry) = (self.ring.slot, self.device.geometry());
        self.ring.sequence += 1;
        let count = usize::try_from(slot).ok().and_then(|i| self.ring.erase_counts.get_mut(i));
        let count = count.map_or(0, |count| {
            *count = count.saturating_add(1);
            *count
        });
        self.device.erase(slot)?;
        let header = Header {
            sequence: self.ring.sequence,
            erase_count: count,
            segment_bytes: geometry.segment_bytes,
            program_bytes: geometry.program_bytes,
        };
        let unit = self.padded(HEADER_BYTES as u64);
        let mut bytes = header.encode().to_vec();
        bytes.resize(usize::try_from(unit).unwrap_or(0), 0);
        program_checked(self.device.as_ref(), slot, 0, &bytes)?;
        // A sequence number is never used again once a frame may carry it: the header that mount
        // goes by must be there first.
        self.device.sync()?;
        self.offset = u32::try_from(unit).unwrap_or(u32::MAX);
        // A piece and the record that completes it; doubling would take twice as much.
        self.pending.reserve_exact(PIECE_BYTES + PIECE_BYTES / 8);
        let mut programmed = unit + self.append_or_fail(&Record::CheckpointBegin)?;
        let mut frames = 0;
        for record in index.snapshot() {
            frames += 1;
            programmed += self.append_or_fail(&record)?;
        }
        programmed += self.append_or_fail(&Record::CheckpointEnd { frames })?;
        programmed += self.program_pending()?;
        self.device.sync()?;
        self.unsynced = self.offset;
        // What follows is much smaller, and comes one by one.
        self.pending = Vec::new();
        self.ring.spared = vec![slot];
        Ok(programmed)
    }

    /// Whether an error tells of the segment rather than of the device: where cells wear out
    /// under the log's own hands.
    fn is_worn_out(&self, error: &Error) -> bool {
        !self.device.geometry().reprogram && matches!(error.kind(), Kind::Retry | Kind::Corrupt)
    }

    /// Appends within a checkpoint, programming as soon as a good piece has come together.
    fn append_or_fail(&mut self, record: &Record) -> Result<u64, Error> {
        if !self.append_to(Part::Checkpoint, record)? {
            let what = "the checkpoint does not fit a META segment".to_owned();
            return Err(Error::new(Kind::Full, what));
        }
        if self.pending.len() >= PIECE_BYTES { self.program_pending() } else { Ok(0) }
    }

    fn padded(&self, length: u64) -> u64 {
        length.next_multiple_of(u64::from(self.device.geometry().program_bytes))
    }
}

/// Reads what stands at the start of META segment `slot`. What cannot be read is damaged.
pub fn read_header(device: &dyn Device, slot: u32) -> HeaderState {
    let mut bytes = [0; HEADER_BYTES];
    if device.read(slot, 0, &mut bytes).is_err() {
        return HeaderState::Damaged;
    }
    match Header::decode(&bytes) {
        HeaderState::Valid(header) if header.sequence > SEQUENCE_MAX => HeaderState::Damaged,
        state => state,
    }
}

/// Reads META segment `slot`, which began with `header`, and hands out its records in order, those
/// of its checkpoint first. What cannot be read is damage and no error.
pub fn scan(
    device: &dyn Device,
    slot: u32,
    header: Header,
    mut each: impl FnMut(Part, Record),
) -> Survey {
    let geometry = device.geometry();
    let unit = u64::from(geometry.program_bytes);
    let end = u64::from(geometry.segment_bytes);
    let mut window = Window { device, slot, end, start: 0, bytes: Vec::new() };
    let mut survey =
        Survey { slot, header, is_complete: false, was_used: false, damaged: 0, is_newer: false };
    let mut unreadable = 0;
    let (mut begun, mut frames) = (false, 0);
    let mut at = (HEADER_BYTES as u64).next_multiple_of(unit);
    while at < end {
        let Some((payload, part, length)) = window.frame(at, header.sequence) else {
            // Padding to the end of a unit is no loss; anything else may be, a unit that was
            // never programmed too, if something was programmed behind it.
            unreadable += u32::from(at.is_multiple_of(unit) || !window.is_blank(at, unit));
            at = (at + 1).next_multiple_of(unit);
            continue;
        };
        survey.damaged += unreadable;
        unreadable = 0;
        at += length;
        survey.was_used |= part == Part::Tail;
        match payload {
            Payload::Known(Record::CheckpointBegin) => begun = true,
            Payload::Known(Record::CheckpointEnd { frames: expected }) => {
                survey.is_complete = begun && frames == expected && survey.damaged == 0;
            }
            other => {
                frames += u32::from(part == Part::Checkpoint);
                match other {
                    Payload::Known(record) => each(part, record),
                    Payload::Newer => survey.is_newer = true,
                }
            }
        }
    }
    survey
}

/// Bytes of a META segment, read in pieces.
struct Window<'a> {
    device: &'a dyn Device,
    slot: u32,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The frame at `at`, its part, and its length with its header, if one is there.
    fn frame(&mut self, at: u64, sequence: u64) -> Option<(Payload, Part, u64)> {
        let header_bytes = FRAME_HEADER_BYTES as u64;
        let (length, checksum) = decode_frame_header(self.get(at, header_bytes))?;
        let payload = self.get(at + header_bytes, u64::from(length));
        let (payload, part) = decode_frame(payload, checksum, sequence)?;
        Some((payload, part, header_bytes + u64::from(length)))
    }

    /// Whether the rest of the unit at `at` was never written, or is padding.
    fn is_blank(&mut self, at: u64, unit: u64) -> bool {
        let length = (at + 1).next_multiple_of(unit) - at;
        let bytes = self.get(at, length);
        bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|byte| *byte == 0xFF)
    }

    /// `length` bytes from `at`, or none where the segment ends before.
    fn get(&mut self, at: u64, length: u64) -> &[u8] {
        if at + length > self.end {
            return &[];
        }
        if at < self.start || at + length > self.start + self.bytes.len() as u64 {
            let wanted = length.max(PIECE_BYTES as u64).min(self.end - at);
            self.bytes.resize(usize::try_from(wanted).unwrap_or(0), 0);
            self.start = at;
            self.fill();
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        self.bytes.get(from..to).unwrap_or_default()
    }

    /// Reads what the window covers; units that cannot be read become what no frame is.
    fn fill(&mut self) {
        let offset = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        if self.device.read(self.slot, offset(self.start), &mut self.bytes).is_ok() {
            return;
        }
        let unit = usize::try_from(self.device.geometry().program_bytes).unwrap_or(1);
        let mut at = self.start;
        for piece in self.bytes.chunks_mut(unit) {
            if self.device.read(self.slot, offset(at), piece).is_err() {
                piece.fill(UNREADABLE);
            }
            at += piece.len() as u64;
        }
    }
}

/// Stands for what cannot be read: neither blank nor a length beside its inverse.
const UNREADABLE: u8 = 0xA5;
/// More segments than any flash lives to begin; what is added to a number does not overflow.
pub const SEQUENCE_MAX: u64 = u64::MAX / 2;
/// What is programmed or read at a time.
const PIECE_BYTES: usize = 64 << 10;
