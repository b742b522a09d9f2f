//! Reading what is in the META ring: headers, and the records behind them.

use super::{PIECE_BYTES, SEQUENCE_MAX};
use crate::blob::format::{
    FRAME_HEADER_BYTES, HEADER_BYTES, Header, HeaderState, Part, Payload, Record, decode_frame,
    decode_frame_header,
};
use crate::flash::Device;
use crate::units::{to_u32, to_usize};

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
            drop(std::mem::take(&mut self.bytes));
            self.bytes = vec![0; to_usize(wanted)];
            self.start = at;
            self.fill();
        }
        let from = to_usize(at - self.start);
        let to = from.saturating_add(to_usize(length));
        self.bytes.get(from..to).unwrap_or_default()
    }

    /// Reads what the window covers; units that cannot be read become what no frame is.
    fn fill(&mut self) {
        let offset = |at: u64| to_u32(at);
        if self.device.read(self.slot, offset(self.start), &mut self.bytes).is_ok() {
            return;
        }
        let unit = to_usize(self.device.geometry().program_bytes);
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
