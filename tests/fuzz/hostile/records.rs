//! Records as no log would write them, and blobs as one would.

use moonlet::blob::format::counts::{Counts, Wear};
use moonlet::blob::format::{
    ACCOUNTS_MAX, BlobRecord, CHUNK_BYTES, DOCUMENT_BYTES_MAX, Extent, Record, meta_segments,
};
use moonlet::blob::{Spent, TagKey};
use moonlet::flash::Geometry;
use moonlet::oci::{Algorithm, Digest, Hasher};

use super::contents::{Content, chunk_hashes, old};
use super::input::Input;

/// Draws records for a device.
pub struct Records {
    geometry: Geometry,
    /// Where the next blob goes that is placed as a log would.
    next: u64,
}

/// A blob that is where its records say.
#[derive(Default)]
pub struct Written {
    /// What the log says of it.
    pub records: Vec<Record>,
    /// Bytes and their device addresses.
    pub writes: Vec<(u64, Vec<u8>)>,
}

impl Records {
    /// None drawn yet.
    pub fn new(geometry: Geometry) -> Self {
        let next = u64::from(meta_segments(geometry)) * u64::from(geometry.segment_bytes);
        Self { geometry, next }
    }

    /// A known blob, whole or begun, its bytes included.
    pub fn blob(&mut self, input: &mut Input<'_>) -> Written {
        let content = input.of(&old().iter().collect::<Vec<_>>());
        let choice = input.byte();
        let length = self.reserved_bytes(content.bytes.len() as u64);
        // Small ones share units.
        let start = self.next.next_multiple_of(self.alignment(length));
        if start + length > self.device_bytes() {
            return Written::default();
        }
        self.next = start + length;
        let extents = self.extents_of(start, length, choice & 1 == 1);
        let record = BlobRecord {
            digest: content.digest,
            size: content.bytes.len() as u64,
            media_type: (choice & 2 == 2).then(|| MEDIA_TYPE.to_owned()),
            extents: extents.clone(),
            pinned: choice & 4 == 4,
        };
        let mut laid = content.bytes.clone();
        laid.extend_from_slice(&content.trailer);
        let mut records = vec![Record::Commit(record.clone())];
        if choice >= 128 && !content.bytes.is_empty() {
            let share = u64::from(input.byte());
            let frontier = content.bytes.len() as u64 * share / 256;
            let frontier = frontier / self.unit() * self.unit();
            laid.truncate(frontier as usize);
            records = vec![Record::Reserve(record), progress(content, frontier as usize)];
        }
        let mut rest = laid.as_slice();
        let mut writes = Vec::new();
        for extent in extents {
            let (here, later) = rest.split_at(rest.len().min(extent.bytes as usize));
            writes.push((extent.start, here.to_vec()));
            rest = later;
        }
        Written { records, writes }
    }

    /// One run, or two of which the second lies first.
    fn extents_of(&self, start: u64, length: u64, is_split: bool) -> Vec<Extent> {
        let first = length / self.unit() / 2 * self.unit();
        match (length, is_split && first > 0) {
            (0, _) => Vec::new(),
            (_, false) => vec![Extent { start, bytes: length }],
            (_, true) => {
                let second = length - first;
                vec![
                    Extent { start: start + second, bytes: first },
                    Extent { start, bytes: second },
                ]
            }
        }
    }

    /// Any record, of any content.
    pub fn any(&mut self, choice: u8, input: &mut Input<'_>) -> Record {
        match choice {
            0..4 => Record::Commit(self.blob_record(input)),
            4..6 => Record::Reserve(self.blob_record(input)),
            6 | 7 => self.progress(input),
            8 | 9 => Record::Tag { key: tag_key(input), digest: any_digest(input) },
            10 if input.byte() < 150 => Record::Untag { key: tag_key(input) },
            11 => Record::Pin { digest: any_digest(input), pinned: input.byte() & 1 == 1 },
            12 => Record::Delete { digest: any_digest(input) },
            13 | 14 => Record::Rot { digest: any_digest(input), chunks: self.numbers(input, &[2]) },
            15 | 16 => {
                let counts = counts(input);
                Record::Wear(Wear { counts, erases: self.numbers(input, &[]) })
            }
            17 | 18 => {
                let count = u64::from(self.geometry.segment_count);
                Record::Erased { segments: self.numbers(input, &[count]) }
            }
            19 => Record::Counts(counts(input)),
            _ => note(input),
        }
    }

    fn blob_record(&mut self, input: &mut Input<'_>) -> BlobRecord {
        let digest = any_digest(input);
        let known = old().iter().find(|content| content.digest == digest);
        let known = known.map_or(0, |content| content.bytes.len() as u64);
        let unit = self.unit();
        let size = input.number(&[known, known, known, unit, 0, self.device_bytes()]);
        let choice = input.byte();
        let media_type = (choice & 1 == 1).then(|| text(input));
        let pinned = choice & 2 == 2;
        let extents = self.extents(size, choice >> 2, input);
        BlobRecord { digest, size, media_type, extents, pinned }
    }

    /// Extents for a blob: as many bytes as it needs, somewhere; or anything.
    fn extents(&self, size: u64, choice: u8, input: &mut Input<'_>) -> Vec<Extent> {
        let segment = u64::from(self.geometry.segment_bytes);
        let first = u64::from(meta_segments(self.geometry)) * segment;
        let needed = self.reserved_bytes(size);
        match choice % 8 {
            0..5 => {
                let at = first + u64::from(input.pair()) * self.unit() / 4;
                let start = at / self.alignment(size) * self.alignment(size);
                match (needed, choice % 8) {
                    (0, _) => Vec::new(),
                    (_, 0..4) => vec![Extent { start, bytes: needed }],
                    _ => self.extents_of(start, needed.min(1 << 40), true),
                }
            }
            5 => {
                // The smallest pieces, one after another or one upon another.
                let step = self.unit() * u64::from(input.below(3));
                let count = (needed / self.unit()).min(1000);
                let piece = |index| Extent { start: first + index * step, bytes: self.unit() };
                (0..count).map(piece).collect()
            }
            _ => {
                let count = usize::from(input.byte());
                let near = [first, needed, self.device_bytes(), segment, self.unit(), 0];
                let mut extent = Extent { start: 0, bytes: 0 };
                let mut extents = Vec::new();
                for _ in 0..count {
                    // Where the input ends, the last is repeated.
                    if !input.is_empty() {
                        extent = Extent { start: input.number(&near), bytes: input.number(&near) };
                    }
                    extents.push(extent);
                }
                extents
            }
        }
    }

    fn progress(&self, input: &mut Input<'_>) -> Record {
        let content = input.of(&old().iter().collect::<Vec<_>>());
        let size = content.bytes.len() as u64;
        if input.byte() & 1 == 1 {
            let frontier = size * u64::from(input.byte()) / 255;
            return progress(content, frontier as usize);
        }
        let known = [0, 104, 208];
        let midstate = vec![input.byte(); (input.number(&known) % 5000) as usize];
        Record::Progress {
            digest: content.digest,
            frontier: input.number(&[size, self.unit(), CHUNK_BYTES]),
            midstate,
            chunks_from: input.number(&[0, 1]) as u32,
            chunks: vec![[input.byte(); 32]; usize::from(input.byte() % 40)],
            rest: [0; 32],
        }
    }

    fn numbers(&self, input: &mut Input<'_>, near: &[u64]) -> Vec<u32> {
        let count = input.number(&[0, 1, 2, u64::from(self.geometry.segment_count)]);
        // What is longer fits no segment.
        let count = count.min(u64::from(self.geometry.segment_bytes));
        let first = input.number(near) as u32;
        let step = u32::from(input.byte() % 3);
        (0..count as u32).map(|index| first.wrapping_add(index.wrapping_mul(step))).collect()
    }

    /// FORMAT.md section 5.
    fn reserved_bytes(&self, size: u64) -> u64 {
        let trailer = match size.div_ceil(CHUNK_BYTES) {
            0 | 1 => 0,
            chunks => (chunks + 1) * 32,
        };
        let bytes = size.saturating_add(trailer);
        bytes.checked_next_multiple_of(self.alignment(size)).unwrap_or(u64::MAX)
    }

    /// What the places of a blob of `size` bytes are multiples of.
    fn alignment(&self, size: u64) -> u64 {
        if size < self.unit() { self.unit() / 8 } else { self.unit() }
    }

    fn unit(&self) -> u64 {
        u64::from(self.geometry.program_bytes)
    }

    fn device_bytes(&self) -> u64 {
        u64::from(self.geometry.segment_count) * u64::from(self.geometry.segment_bytes)
    }
}

/// What a log says when the first `frontier` bytes are there.
fn progress(content: &Content, frontier: usize) -> Record {
    let bytes = &content.bytes[..frontier];
    let mut hash = Hasher::new(content.digest.algorithm());
    hash.update(bytes);
    let (whole, rest) = bytes.split_at(frontier - frontier % CHUNK_BYTES as usize);
    Record::Progress {
        digest: content.digest,
        frontier: frontier as u64,
        midstate: hash.state(),
        chunks_from: 0,
        chunks: chunk_hashes(whole),
        rest: *blake3::hash(rest).as_bytes(),
    }
}

/// That of a known blob, or of nothing.
fn any_digest(input: &mut Input<'_>) -> Digest {
    let choice = input.byte();
    let known = old().get(usize::from(choice % 32)).map(|content| content.digest);
    known.unwrap_or_else(|| {
        let algorithm = if choice >= 128 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let bytes = vec![choice; algorithm.digest_bytes()];
        Digest::from_bytes(algorithm, &bytes).unwrap_or_else(|| algorithm.digest(&bytes))
    })
}

fn tag_key(input: &mut Input<'_>) -> TagKey {
    TagKey { registry: text(input), repository: text(input), tag: text(input) }
}

fn text(input: &mut Input<'_>) -> String {
    match input.byte() {
        choice @ 0..8 => format!("n{choice}"),
        8 => String::new(),
        9 => "sha256:\u{0}".to_owned(),
        choice @ 10..250 => String::from_utf8_lossy(input.take(usize::from(choice % 16))).into(),
        choice => "x".repeat(usize::from(choice - 249) * 700),
    }
}

/// What a log remembers besides blobs, of sizes around the largest.
fn note(input: &mut Input<'_>) -> Record {
    match input.byte() % 3 {
        0 => {
            let spent = Spent {
                account: text(input),
                period: input.byte().into(),
                bytes: input.number(&[]),
            };
            let count = input.number(&[0, 1, ACCOUNTS_MAX as u64]).min(40);
            Record::Ledger(vec![spent; count as usize])
        }
        1 => Record::Time { unix_seconds: input.number(&[]) },
        _ => {
            let name = text(input);
            let length = input.number(&[0, 1, DOCUMENT_BYTES_MAX as u64]).min(100_000);
            Record::Document { name, bytes: vec![input.byte(); length as usize] }
        }
    }
}

const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn counts(input: &mut Input<'_>) -> Counts {
    let (programmed_bytes, image_bytes) = (input.number(&[]), input.number(&[]));
    Counts {
        programmed_bytes,
        image_bytes,
        copied_bytes: input.number(&[]),
        recent_bytes: programmed_bytes,
        recent_seconds: image_bytes,
    }
}
