//! From the bytes of a fuzzer to the image of a device.
//!
//! Either they are the image, or they are read as a list of steps that write one: META segments
//! with sound headers, frames with sound checksums and whatever in them, known blobs at their
//! extents, and then bits that flip. So neither a checksum nor a digest stops the fuzzer.

use moonlet::blob::format::{
    Header, META_SEGMENTS_MAX, Part, Place, Record, encode_frame, meta_segments,
};
use moonlet::flash::Geometry;
use moonlet::flash::sim::{Device, Worn};

use super::input::Input;
use super::records::Records;

/// What a device is made of.
pub struct Image {
    /// The shape.
    pub geometry: Geometry,
    bytes: Vec<u8>,
    bad: Vec<u32>,
    worn: Vec<(u32, Worn)>,
    /// No sequence number stands where a log would never have used it: then what is written from
    /// now on is promised to last.
    pub is_plausible: bool,
}

impl Image {
    /// Reads the image from `input`; what is left of that is for what comes after the mount.
    pub fn read(input: &mut Input<'_>) -> Self {
        let choice = input.byte();
        let geometry = GEOMETRIES[usize::from(choice) % GEOMETRIES.len()];
        let length = geometry.segment_count as usize * geometry.segment_bytes as usize;
        let blank = if geometry.reprogram { 0 } else { 0xFF };
        let mut image = Self {
            geometry,
            bytes: vec![blank; length],
            bad: Vec::new(),
            worn: Vec::new(),
            is_plausible: true,
        };
        if choice >= RAW_FROM {
            let raw = input.rest();
            let raw = &raw[..raw.len().min(length)];
            image.bytes[..raw.len()].copy_from_slice(raw);
            image.is_plausible = false;
        } else {
            Builder::new(&mut image, input).run();
        }
        image
    }

    /// Whether a segment fails, or is marked.
    pub fn is_worn(&self) -> bool {
        !self.worn.is_empty() || !self.bad.is_empty()
    }

    /// The device.
    pub fn device(&self) -> Device {
        use moonlet::flash::Device as _;
        let device = Device::with_image(self.geometry, &self.bytes);
        for segment in &self.bad {
            device.mark_bad(*segment).unwrap();
        }
        self.worn.iter().for_each(|(segment, how)| device.wear_out(*segment, *how));
        device
    }
}

struct Builder<'a, 'b> {
    image: &'a mut Image,
    input: &'a mut Input<'b>,
    records: Records,
    /// Where in the log the next frame goes.
    slot: u32,
    at: u32,
    place: Place,
    /// Since the checkpoint's begin.
    frames: u32,
    /// The first segment's sequence is near this.
    base: u64,
    /// The highest number that each segment was begun with.
    begun: [u64; META_SEGMENTS_MAX],
}

impl<'a, 'b> Builder<'a, 'b> {
    fn new(image: &'a mut Image, input: &'a mut Input<'b>) -> Self {
        let base = u64::from(input.byte());
        let records = Records::new(image.geometry);
        let place = Place { sequence: base, part: Part::Checkpoint };
        let begun = [0; META_SEGMENTS_MAX];
        Self { image, input, records, slot: 0, at: 0, place, frames: 0, base, begun }
    }

    fn run(&mut self) {
        self.begin(0, self.base);
        for _ in 0..STEPS_MAX {
            if self.input.is_empty() {
                return;
            }
            match self.input.byte() {
                // What comes after the mount needs bytes, too.
                255 => return,
                choice => self.step(choice),
            }
        }
    }

    fn step(&mut self, choice: u8) {
        match choice % 40 {
            0 => {
                let slot = self.input.below(self.meta());
                let sequence = self.sequence();
                self.begin(slot, sequence);
            }
            1 | 2 => self.end_checkpoint(),
            3 => self.pad(),
            4 => {
                self.pad();
                self.at += self.unit();
            }
            5 | 6 => {
                let (slot, offset) = (self.input.below(self.meta()), self.input.pair());
                let bit = self.input.byte();
                self.flip(slot, offset, bit);
            }
            7 => {
                let segment = self.input.below(self.image.geometry.segment_count);
                let (offset, bit) = (self.input.pair(), self.input.byte());
                self.flip(segment, offset, bit);
            }
            8 => self.overwrite(),
            9 => self.wear_out(),
            // A sound frame with what a newer program may have written.
            10 if choice >= 200 => self.append_newer(),
            10 => {
                // Frames under a number that is not their segment's.
                self.place.sequence = self.sequence();
                self.image.is_plausible = false;
            }
            11 => self.many(),
            12..20 => {
                let written = self.records.blob(self.input);
                self.write_blob(written.writes);
                for record in &written.records {
                    self.append(record);
                }
            }
            other => {
                let record = self.records.any(other - 20, self.input);
                self.append(&record);
            }
        }
    }

    /// As the log does it: a header, and the begin of a checkpoint.
    fn begin(&mut self, slot: u32, sequence: u64) {
        let Geometry { segment_bytes, program_bytes, .. } = self.image.geometry;
        let header = Header { sequence, erase_count: 1, segment_bytes, program_bytes };
        self.put(slot, 0, &header.encode());
        // Behind a number that is less, frames of the other stand where a log will use it again.
        let highest = &mut self.begun[slot as usize];
        self.image.is_plausible &= *highest <= sequence;
        *highest = sequence.max(*highest);
        self.slot = slot;
        self.at = 0;
        self.at = self.unit();
        self.place = Place { sequence, part: Part::Checkpoint };
        self.append(&Record::CheckpointBegin);
        self.frames = 0;
    }

    fn end_checkpoint(&mut self) {
        let frames = self.frames;
        self.append(&Record::CheckpointEnd { frames });
        self.pad();
        self.place.part = Part::Tail;
    }

    /// False when the segment has no room for it.
    fn append(&mut self, record: &Record) -> bool {
        let mut frame = Vec::new();
        // What is larger than a frame may be has no bytes.
        let _ = encode_frame(record, self.place, &mut frame);
        self.append_frame(&frame)
    }

    fn append_frame(&mut self, frame: &[u8]) -> bool {
        let end = u64::from(self.at) + frame.len() as u64;
        let fits = end <= u64::from(self.image.geometry.segment_bytes);
        if fits {
            self.put(self.slot, self.at, frame);
            self.at += frame.len() as u32;
            self.frames += 1;
        }
        fits
    }

    fn append_newer(&mut self) {
        let variant = 16 + self.input.byte() % 100;
        let payload = [variant, self.input.byte()];
        let length = payload.len() as u32;
        let seed = crc32c::crc32c(&self.place.sequence.to_le_bytes());
        let seed = crc32c::crc32c_append(seed, &[u8::from(self.place.part == Part::Tail)]);
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend_from_slice(&(!length).to_le_bytes());
        frame.extend_from_slice(&crc32c::crc32c_append(seed, &payload).to_le_bytes());
        frame.extend_from_slice(&payload);
        self.append_frame(&frame);
    }

    /// A number for a segment: one that a ring could have, or any.
    fn sequence(&mut self) -> u64 {
        let choice = self.input.byte();
        if choice < 240 {
            return self.base + u64::from(choice) % u64::from(self.meta());
        }
        self.image.is_plausible = false;
        self.input.number(&[1 << 63, u64::MAX / 2, u64::MAX / 2 - 4])
    }

    /// The same few records again and again.
    fn many(&mut self) {
        let count = self.input.byte();
        let choice = self.input.byte();
        let seed = self.input.take(8).to_vec();
        for index in 0..count {
            let bytes: Vec<u8> = [index].into_iter().chain(seed.iter().copied()).collect();
            let record = self.records.any(choice % 20, &mut Input::new(&bytes));
            if !self.append(&record) {
                return;
            }
        }
    }

    fn write_blob(&mut self, writes: Vec<(u64, Vec<u8>)>) {
        for (address, bytes) in writes {
            let from = usize::try_from(address).unwrap_or(usize::MAX);
            let to = from.saturating_add(bytes.len());
            if let Some(target) = self.image.bytes.get_mut(from..to) {
                target.copy_from_slice(&bytes);
            }
        }
    }

    fn overwrite(&mut self) {
        let (slot, offset) = (self.input.below(self.meta()), self.input.pair());
        let count = self.input.byte();
        let bytes = match self.input.byte() {
            0 => vec![0; usize::from(count) * 16],
            1 => vec![0xFF; usize::from(count) * 16],
            _ => self.input.take(usize::from(count)).to_vec(),
        };
        self.put(slot, offset % self.image.geometry.segment_bytes, &bytes);
    }

    fn wear_out(&mut self) {
        let segment = self.input.below(self.image.geometry.segment_count);
        let how = [
            Worn::ProgramError,
            Worn::ProgramNothing,
            Worn::EraseError,
            Worn::EraseNothing,
            Worn::ReadError,
        ];
        match self.input.byte() {
            choice @ 0..5 => self.image.worn.push((segment, how[usize::from(choice)])),
            _ => self.image.bad.push(segment),
        }
    }

    fn flip(&mut self, segment: u32, offset: u32, bit: u8) {
        let Geometry { segment_bytes, .. } = self.image.geometry;
        let at = segment as usize * segment_bytes as usize + (offset % segment_bytes) as usize;
        self.image.bytes[at] ^= 1 << (bit % 8);
    }

    fn put(&mut self, segment: u32, offset: u32, bytes: &[u8]) {
        let segment_bytes = self.image.geometry.segment_bytes as usize;
        let room = segment_bytes - (offset as usize).min(segment_bytes);
        let bytes = &bytes[..bytes.len().min(room)];
        let from = segment as usize * segment_bytes + offset as usize;
        self.image.bytes[from..from + bytes.len()].copy_from_slice(bytes);
    }

    fn pad(&mut self) {
        let end = self.at.next_multiple_of(self.unit());
        let end = end.min(self.image.geometry.segment_bytes);
        if let Some(left) = end.checked_sub(self.at) {
            self.put(self.slot, self.at, &vec![0; left as usize]);
            self.at = end;
        }
    }

    fn unit(&self) -> u32 {
        self.image.geometry.program_bytes
    }

    fn meta(&self) -> u32 {
        meta_segments(self.image.geometry)
    }
}

const fn shape(count: u32, bytes: u32, unit: u32, reprogram: bool) -> Geometry {
    Geometry { segment_count: count, segment_bytes: bytes, program_bytes: unit, reprogram }
}

/// Cards, NAND and serial NOR, all small: some hold a blob of several chunks, some hardly anything.
const GEOMETRIES: [Geometry; 8] = [
    shape(24, 32 << 10, 4096, true),
    shape(48, 16 << 10, 2048, false),
    shape(32, 4096, 256, false),
    shape(150, 21 * 256, 256, false),
    shape(12, 2048, 64, true),
    shape(14, 2048, 64, false),
    shape(9, 8192, 4096, true),
    shape(20, 9 * 512, 512, false),
];
/// First bytes from here on: what follows is the image itself.
const RAW_FROM: u8 = 240;
const STEPS_MAX: usize = 500;
