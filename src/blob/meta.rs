//! The META ring: where records are appended, and how a checkpoint begins each of its segments.
//!
//! A META segment holds everything: a checkpoint of all that was true when it was begun, then the
//! records since. The others are history, and kept only until the ring comes round. Whatever is
//! read back here has been checked; what cannot be read is counted as damage, never believed.

use std::sync::Arc;

use super::Error;
use super::format::{
    FRAME_HEADER_BYTES, HEADER_BYTES, Header, HeaderState, META_SEGMENTS, Part, Place, Record,
    decode_frame, decode_frame_header, encode_frame,
};
use crate::flash::Device;
use crate::kind::Kind;

/// The end of the log.
pub struct Meta {
    device: Arc<dyn Device>,
    sequence: u64,
    erase_counts: [u32; META_SEGMENTS as usize],
    /// Where the next unit of the current segment is programmed.
    offset: u32,
    /// Frames that were appended and not yet programmed.
    pending: Vec<u8>,
}

/// What was read of one META segment.
pub struct Scan {
    /// Its header.
    pub header: Header,
    /// Its records in order; those of its checkpoint first.
    pub records: Vec<Record>,
    /// Whether its checkpoint is whole.
    pub is_complete: bool,
    /// Whether records come after the checkpoint: it was whole once.
    pub was_used: bool,
    /// Places where something was written that cannot be read, before something that can.
    pub damaged: u32,
}

impl Meta {
    /// The end of a log of which `sequence` was the last number in use. Nothing may be appended
    /// before [`Meta::begin`].
    pub fn new(
        device: Arc<dyn Device>,
        sequence: u64,
        erase_counts: [u32; META_SEGMENTS as usize],
    ) -> Self {
        Self { device, sequence, erase_counts, offset: 0, pending: Vec::new() }
    }

    /// Appends a record; it is on the device after [`Meta::program`]. False when the segment has
    /// no room: then [`Meta::begin`] must be called with a checkpoint that contains it.
    pub fn append(&mut self, record: &Record) -> Result<bool, Error> {
        self.append_to(Part::Tail, record)
    }

    fn append_to(&mut self, part: Part, record: &Record) -> Result<bool, Error> {
        let before = self.pending.len();
        let place = Place { sequence: self.sequence, part };
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

    /// Programs what was appended, padded to whole units; gives the number of bytes.
    pub fn program(&mut self) -> Result<u64, Error> {
        if self.pending.is_empty() {
            return Ok(0);
        }
        let length = self.padded(self.pending.len() as u64);
        self.pending.resize(usize::try_from(length).unwrap_or(0), 0);
        self.device.program(self.slot(), self.offset, &self.pending)?;
        self.pending.clear();
        self.offset += u32::try_from(length).unwrap_or(u32::MAX);
        Ok(length)
    }

    /// Begins the next segment of the ring with a checkpoint and makes it durable; gives the
    /// number of bytes programmed. Frames that were pending are dropped: the checkpoint has them.
    pub fn begin(&mut self, checkpoint: impl Iterator<Item = Record>) -> Result<u64, Error> {
        self.pending.clear();
        self.sequence += 1;
        let slot = self.slot();
        let index = usize::try_from(slot).unwrap_or(0);
        let erase_count = self.erase_counts.get(index).map_or(0, |count| count + 1);
        if let Some(count) = self.erase_counts.get_mut(index) {
            *count = erase_count;
        }
        self.device.erase(slot)?;
        let header = Header { sequence: self.sequence, erase_count };
        let unit = self.padded(HEADER_BYTES as u64);
        let mut bytes = header.encode().to_vec();
        bytes.resize(usize::try_from(unit).unwrap_or(0), 0);
        self.device.program(slot, 0, &bytes)?;
        // A sequence number is never used again once a frame may carry it: the header that mount
        // goes by must be there first.
        self.device.sync()?;
        self.offset = u32::try_from(unit).unwrap_or(u32::MAX);
        let mut programmed = unit;
        let mut frames = 0;
        let bracketed = std::iter::once(Record::CheckpointBegin).chain(checkpoint);
        for record in bracketed {
            frames += u32::from(record != Record::CheckpointBegin);
            programmed += self.append_or_fail(&record)?;
        }
        programmed += self.append_or_fail(&Record::CheckpointEnd { frames })?;
        programmed += self.program()?;
        self.device.sync()?;
        Ok(programmed)
    }

    /// Appends within a checkpoint, programming as soon as a good piece has come together.
    fn append_or_fail(&mut self, record: &Record) -> Result<u64, Error> {
        if !self.append_to(Part::Checkpoint, record)? {
            let what = "the checkpoint does not fit a META segment".to_owned();
            return Err(Error::new(Kind::Full, what));
        }
        if self.pending.len() >= PIECE_BYTES { self.program() } else { Ok(0) }
    }

    fn slot(&self) -> u32 {
        u32::try_from(self.sequence % u64::from(META_SEGMENTS)).unwrap_or(0)
    }

    fn padded(&self, length: u64) -> u64 {
        length.next_multiple_of(u64::from(self.device.geometry().program_bytes))
    }
}

/// Reads what stands at the start of META segment `slot`.
pub fn read_header(device: &dyn Device, slot: u32) -> Result<HeaderState, Error> {
    let mut bytes = [0; HEADER_BYTES];
    device.read(slot, 0, &mut bytes)?;
    Ok(match Header::decode(&bytes) {
        HeaderState::Valid(Header { sequence, .. })
            if sequence % u64::from(META_SEGMENTS) != u64::from(slot)
                || sequence > SEQUENCE_MAX =>
        {
            HeaderState::Damaged
        }
        state => state,
    })
}

/// Reads all records of META segment `slot`, which began with `header`.
pub fn scan(device: &dyn Device, slot: u32, header: Header) -> Result<Scan, Error> {
    let geometry = device.geometry();
    let unit = u64::from(geometry.program_bytes);
    let end = u64::from(geometry.segment_bytes);
    let mut window = Window { device, slot, end, start: 0, bytes: Vec::new() };
    let mut scan =
        Scan { header, records: Vec::new(), is_complete: false, was_used: false, damaged: 0 };
    let mut unreadable = 0;
    let (mut begun, mut frames) = (false, 0);
    let mut at = (HEADER_BYTES as u64).next_multiple_of(unit);
    while at < end {
        let Some((record, part, length)) = window.frame(at, header.sequence)? else {
            // Padding to the end of a unit is no loss; anything else may be.
            unreadable += u32::from(!window.is_blank(at, unit)?);
            at = (at + 1).next_multiple_of(unit);
            continue;
        };
        scan.damaged += unreadable;
        unreadable = 0;
        at += length;
        scan.was_used |= part == Part::Tail;
        match record {
            Record::CheckpointBegin => begun = true,
            Record::CheckpointEnd { frames: expected } => {
                scan.is_complete = begun && frames == expected && scan.damaged == 0;
            }
            record => {
                frames += u32::from(part == Part::Checkpoint);
                scan.records.push(record);
            }
        }
    }
    Ok(scan)
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
    fn frame(&mut self, at: u64, sequence: u64) -> Result<Option<(Record, Part, u64)>, Error> {
        let header_bytes = FRAME_HEADER_BYTES as u64;
        let Some((length, checksum)) = decode_frame_header(self.get(at, header_bytes)?) else {
            return Ok(None);
        };
        let payload = self.get(at + header_bytes, u64::from(length))?;
        let record = decode_frame(payload, checksum, sequence);
        Ok(record.map(|(record, part)| (record, part, header_bytes + u64::from(length))))
    }

    /// Whether the rest of the unit at `at` was never written, or is padding.
    fn is_blank(&mut self, at: u64, unit: u64) -> Result<bool, Error> {
        let length = (at + 1).next_multiple_of(unit) - at;
        let bytes = self.get(at, length)?;
        Ok(bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|byte| *byte == 0xFF))
    }

    /// `length` bytes from `at`, or none where the segment ends before.
    fn get(&mut self, at: u64, length: u64) -> Result<&[u8], Error> {
        if at + length > self.end {
            return Ok(&[]);
        }
        if at < self.start || at + length > self.start + self.bytes.len() as u64 {
            let wanted = length.max(PIECE_BYTES as u64).min(self.end - at);
            self.bytes.resize(usize::try_from(wanted).unwrap_or(0), 0);
            self.start = at;
            let offset = u32::try_from(at).unwrap_or(u32::MAX);
            self.device.read(self.slot, offset, &mut self.bytes)?;
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(self.bytes.get(from..to).unwrap_or_default())
    }
}

/// More segments than any flash lives to begin; what is added to a number does not overflow.
const SEQUENCE_MAX: u64 = u64::MAX / 2;
/// What is programmed or read at a time.
const PIECE_BYTES: usize = 64 << 10;
