//! The bytes on flash, version 1. FORMAT.md is normative; its sections are cited here.
//!
//! ```text
//! META segment: | header, one unit | checkpoint frames ... | tail frames ... |
//! frame:        | len u32 | !len u32 | crc32c u32 | payload (postcard) |
//! ```
//!
//! A frame's checksum covers the sequence number of its segment, so that what an earlier use of
//! the segment left behind never reads as a record, and the part it belongs to, so that a record
//! of the tail is known for one even where the checkpoint's end cannot be read.

pub mod counts;
pub(super) mod layout;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::blob::format::counts::{Counts, Wear};
use crate::flash::{Geometry, SEGMENTS_MAX};
use crate::oci::Digest;

/// The name of an image: FORMAT.md section 4, `Tag`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TagKey {
    /// The upstream's registry, such as `docker.io`.
    pub registry: String,
    /// The name there.
    pub repository: String,
    /// The tag; for an image that is wanted by digest only, the digest's text.
    pub tag: String,
}

impl fmt::Display for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.tag.contains(':') { '@' } else { ':' };
        write!(f, "{}/{}{separator}{}", self.registry, self.repository, self.tag)
    }
}

/// Bytes of a blob in one run on the device (FORMAT.md section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extent {
    /// Where it begins: `segment * segment_bytes + offset`; a multiple of the program unit.
    pub start: u64,
    /// How many bytes; a multiple of the program unit. A run goes on into the next segment.
    pub bytes: u64,
}

impl Extent {
    /// The first byte after it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }
}

/// What the log remembers of a blob: FORMAT.md section 4, `Blob`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Of a manifest, as it was pushed.
    pub media_type: Option<String>,
    /// Where its bytes and then its chunk hashes lie.
    pub extents: Vec<Extent>,
    /// Whether the desired state needs it.
    pub pinned: bool,
}

/// One record: FORMAT.md section 4. The order of the variants is part of the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A checkpoint begins: everything before this segment is superseded.
    CheckpointBegin,
    /// A checkpoint ends here and was of this many frames.
    CheckpointEnd {
        /// Frames between the begin and the end.
        frames: u32,
    },
    /// Room is set aside for a blob; nothing of it is known to be there.
    Reserve(BlobRecord),
    /// The first bytes of a reserved blob are there.
    Progress {
        /// Which blob.
        digest: Digest,
        /// Bytes that are there: a multiple of the program unit.
        frontier: u64,
        /// The digest's running state over them.
        midstate: Vec<u8>,
        /// How many chunk hashes came before these.
        chunks_from: u32,
        /// Hashes of the chunks that became complete.
        chunks: Vec<[u8; 32]>,
        /// Hash of the bytes between those and the frontier.
        rest: [u8; 32],
    },
    /// A blob is there, whole and verified.
    Commit(BlobRecord),
    /// A tag means this digest from now on.
    Tag {
        /// Which tag.
        key: TagKey,
        /// What it means.
        digest: Digest,
    },
    /// A tag means nothing any more.
    Untag {
        /// Which tag.
        key: TagKey,
    },
    /// The desired state needs a blob, or does not.
    Pin {
        /// Which blob.
        digest: Digest,
        /// Whether it is needed.
        pinned: bool,
    },
    /// A blob, whole or not, is gone and its room free.
    Delete {
        /// Which blob.
        digest: Digest,
    },
    /// These chunks of a blob do not read back as what they were, and no others.
    Rot {
        /// Which blob.
        digest: Digest,
        /// Their numbers, ascending.
        chunks: Vec<u32>,
    },
    /// What has been counted since the log was begun.
    Wear(Wear),
    /// These segments were made ready to be programmed anew.
    Erased {
        /// Their numbers.
        segments: Vec<u32>,
    },
    /// What has been counted, erases left out.
    Counts(Counts),
    /// What was spent in each period, all accounts of it.
    Ledger(Vec<Spent>),
    /// What time it was.
    Time {
        /// Seconds since 1970-01-01 UTC.
        unix_seconds: u64,
    },
    /// A named document takes the place of the one before it; of no bytes, it is gone.
    Document {
        /// Its name.
        name: String,
        /// What it says.
        bytes: Vec<u8>,
    },
}

/// What an account has spent in a period: FORMAT.md section 4, `Ledger`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Whose it is, such as `link/day`.
    pub account: String,
    /// The number of the period, as the program that keeps the account counts.
    pub period: u32,
    /// So many bytes.
    pub bytes: u64,
}

/// What a frame holds.
#[derive(Debug, PartialEq)]
pub enum Payload {
    /// A record.
    Known(Record),
    /// What was written, by a program that knows more records than this one.
    Newer,
}

/// The start of a META segment: FORMAT.md section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Counts META segments as they are begun.
    pub sequence: u64,
    /// How often this segment was begun.
    pub erase_count: u32,
    /// Bytes of a segment, of META and of the others.
    pub segment_bytes: u32,
    /// Bytes of a program unit.
    pub program_bytes: u32,
}

/// What stands where a header should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderState {
    /// A header of this version.
    Valid(Header),
    /// All zeros or all ones: never used, or erased.
    Blank,
    /// Sound, but of a version that this program does not know.
    Newer(u16),
    /// The magic of a header, and not the rest.
    Damaged,
    /// Anything else.
    Foreign,
}

impl HeaderState {
    /// Whether something stood here that cannot be read.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Damaged | Self::Foreign)
    }
}

impl Header {
    /// Its bytes: magic, version, then the fields in order, checksum.
    pub fn encode(self) -> heapless::Vec<u8, HEADER_BYTES> {
        let mut bytes = heapless::Vec::new();
        // The capacity is the sum of the parts.
        let _ = bytes.extend_from_slice(MAGIC);
        let _ = bytes.extend_from_slice(&VERSION.to_le_bytes());
        let _ = bytes.extend_from_slice(&self.sequence.to_le_bytes());
        let _ = bytes.extend_from_slice(&self.erase_count.to_le_bytes());
        let _ = bytes.extend_from_slice(&self.segment_bytes.to_le_bytes());
        let _ = bytes.extend_from_slice(&self.program_bytes.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes);
        let _ = bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads what stands at a META segment's start.
    pub fn decode(bytes: &[u8]) -> HeaderState {
        if bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|byte| *byte == 0xFF) {
            return HeaderState::Blank;
        }
        let mut healed = bytes.to_vec();
        // A header is all that says where the log is: one flipped bit is put right. The checksum
        // still distinguishes any two others (its Hamming distance at this length is 6).
        let state = Self::parse(bytes).or_else(|| {
            (0..8 * HEADER_BYTES).find_map(|bit| {
                let flip = |bytes: &mut [u8]| {
                    bytes.get_mut(bit / 8).into_iter().for_each(|byte| *byte ^= 1 << (bit % 8));
                };
                flip(&mut healed);
                let state = Self::parse(&healed);
                flip(&mut healed);
                state
            })
        });
        let is_ours = bytes.starts_with(MAGIC);
        state.unwrap_or(if is_ours { HeaderState::Damaged } else { HeaderState::Foreign })
    }

    fn parse(bytes: &[u8]) -> Option<HeaderState> {
        let body = bytes.get(..HEADER_BYTES - 4)?;
        let mut rest = bytes;
        let magic = take::<8>(&mut rest)?;
        let version = u16::from_le_bytes(take(&mut rest)?);
        let sequence = u64::from_le_bytes(take(&mut rest)?);
        let erase_count = u32::from_le_bytes(take(&mut rest)?);
        let segment_bytes = u32::from_le_bytes(take(&mut rest)?);
        let program_bytes = u32::from_le_bytes(take(&mut rest)?);
        let is_sound = u32::from_le_bytes(take(&mut rest)?) == crc32c::crc32c(body);
        let state = match version {
            VERSION => {
                HeaderState::Valid(Self { sequence, erase_count, segment_bytes, program_bytes })
            }
            newer => HeaderState::Newer(newer),
        };
        (is_sound && magic == *MAGIC).then_some(state)
    }
}

/// The two parts of a META segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All that was true when the segment was begun.
    Checkpoint,
    /// What came since. Nothing of it is programmed before the checkpoint is durable.
    Tail,
}

/// Which segment, and which part of it, a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment's.
    pub sequence: u64,
    /// The part.
    pub part: Part,
}

/// Appends `record` as a frame for `place`.
pub fn encode_frame(record: &Record, place: Place, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let payload = postcard::to_allocvec(record).map_err(|_| FrameError)?;
    let length = u32::try_from(payload.len()).map_err(|_| FrameError)?;
    if length > FRAME_PAYLOAD_MAX {
        return Err(FrameError);
    }
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(&checksum(place, &payload).to_le_bytes());
    out.extend_from_slice(&payload);
    Ok(())
}

/// The length of the payload that a frame's first [`FRAME_HEADER_BYTES`] promise, and its
/// checksum; `None` where no frame begins.
pub fn decode_frame_header(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut rest = bytes;
    let length = u32::from_le_bytes(take(&mut rest)?);
    let inverse = u32::from_le_bytes(take(&mut rest)?);
    let checksum = u32::from_le_bytes(take(&mut rest)?);
    let sound = length == !inverse && (1..=FRAME_PAYLOAD_MAX).contains(&length);
    sound.then_some((length, checksum))
}

/// What is in a frame's payload, and its part; `None` if it is not what was written.
pub fn decode_frame(payload: &[u8], expected: u32, sequence: u64) -> Option<(Payload, Part)> {
    let part = [Part::Checkpoint, Part::Tail]
        .into_iter()
        .find(|part| checksum(Place { sequence, part: *part }, payload) == expected)?;
    Some((decode_payload(payload)?, part))
}

fn decode_payload(payload: &[u8]) -> Option<Payload> {
    let (variant, _) = postcard::take_from_bytes::<u32>(payload).ok()?;
    if variant > RECORD_VARIANT_MAX {
        return Some(Payload::Newer);
    }
    match postcard::take_from_bytes(payload).ok()? {
        (record, []) => Some(Payload::Known(record)),
        // It says more than the record that is known.
        _ => Some(Payload::Newer),
    }
}

fn checksum(place: Place, payload: &[u8]) -> u32 {
    let seed = crc32c::crc32c(&place.sequence.to_le_bytes());
    let seed = crc32c::crc32c_append(seed, &[u8::from(place.part == Part::Tail)]);
    crc32c::crc32c_append(seed, payload)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

/// Segments of the META ring, the first of the device. Where the cells are the log's own to wear
/// out, there are as many again: each wears half as much, and some may go bad.
pub fn meta_segments(geometry: Geometry) -> u32 {
    if geometry.reprogram { 4 } else { 8 }
}

/// The most that [`meta_segments`] returns.
pub const META_SEGMENTS_MAX: usize = 8;

/// A record that does not fit a frame.
#[derive(Debug)]
pub struct FrameError;

const MAGIC: &[u8; 8] = b"MOONLET\0";
/// The version of the format: FORMAT.md section 1.
pub const VERSION: u16 = 1;
/// The number of the last record.
const RECORD_VARIANT_MAX: u32 = 15;
/// The most accounts of a ledger.
pub const ACCOUNTS_MAX: usize = 16;
/// The most documents.
pub const DOCUMENTS_MAX: usize = 8;
/// The longest name of an account or a document.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest document.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a header; the rest of its unit is zero.
pub const HEADER_BYTES: usize = 34;
/// Bytes before a frame's payload.
pub const FRAME_HEADER_BYTES: usize = 12;
/// The largest payload.
pub const FRAME_PAYLOAD_MAX: u32 = 1 << 20;
/// The longest blob: the hashes of its chunks fit one Progress record of a checkpoint.
pub const BLOB_BYTES_MAX: u64 = 7 << 30;
/// Bytes of a chunk: each has its own hash.
pub const CHUNK_BYTES: u64 = 256 << 10;
/// Bytes of a chunk's hash (blake3).
pub const CHUNK_HASH_BYTES: u64 = 32;

const _: () = assert!(HEADER_BYTES == 8 + 2 + 8 + 4 + 4 + 4 + 4);
const _: () = {
    let hashes = BLOB_BYTES_MAX / CHUNK_BYTES * CHUNK_HASH_BYTES;
    assert!(hashes + 4096 < FRAME_PAYLOAD_MAX as u64);
    assert!(SEGMENTS_MAX * 5 + 4096 < FRAME_PAYLOAD_MAX);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let header =
            Header { sequence: 7, erase_count: 3, segment_bytes: 1 << 20, program_bytes: 4096 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), HeaderState::Valid(header));
        assert_eq!(Header::decode(&[0; HEADER_BYTES]), HeaderState::Blank);
        assert_eq!(Header::decode(&[0xFF; HEADER_BYTES]), HeaderState::Blank);
        for index in 0..HEADER_BYTES {
            let mut wrong = bytes.clone();
            wrong[index] ^= 0x10;
            assert_eq!(Header::decode(&wrong), HeaderState::Valid(header), "byte {index}");
            wrong[(index + 3) % HEADER_BYTES] ^= 0x81;
            let state = Header::decode(&wrong);
            let expected = [HeaderState::Damaged, HeaderState::Foreign];
            assert!(expected.contains(&state), "byte {index}: {state:?}");
        }
        let mut newer = bytes.clone();
        newer[8] = 2;
        let checksum = crc32c::crc32c(&newer[..HEADER_BYTES - 4]);
        newer[HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&newer), HeaderState::Newer(2));
    }

    #[test]
    fn a_frame_belongs_to_its_segment() {
        let record = Record::Delete { digest: Digest::sha256(b"x") };
        let mut bytes = Vec::new();
        let place = Place { sequence: 9, part: Part::Tail };
        encode_frame(&record, place, &mut bytes).unwrap();
        let (length, checksum) = decode_frame_header(&bytes).unwrap();
        let payload = &bytes[FRAME_HEADER_BYTES..];
        assert_eq!(payload.len(), length as usize);
        assert_eq!(decode_frame(payload, checksum, 9), Some((Payload::Known(record), Part::Tail)));
        assert_eq!(decode_frame(payload, checksum, 8), None);
        assert_eq!(decode_frame_header(&[0; 12]), None);
        assert_eq!(decode_frame_header(&[0xFF; 12]), None);
    }
}
