//! Blobs that are known, so that an image can hold them and what is read can be compared.

use std::sync::OnceLock;

use moonlet::blob::format::CHUNK_BYTES;
use moonlet::oci::{Algorithm, Digest};

/// A blob.
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its name.
    pub digest: Digest,
    /// What stands behind its bytes on flash; empty for one of a single chunk.
    pub trailer: Vec<u8>,
}

/// Those that an image may hold.
pub fn old() -> &'static [Content] {
    static OLD: OnceLock<Vec<Content>> = OnceLock::new();
    OLD.get_or_init(|| {
        let content = |(index, size): (usize, &usize)| {
            // A sha512 now and then.
            let algorithm = if index % 4 == 2 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            Content::new(index as u32, *size, algorithm)
        };
        OLD_SIZES.iter().enumerate().map(content).collect()
    })
}

/// Those that come after the mount.
pub fn new() -> &'static [Content] {
    static NEW: OnceLock<Vec<Content>> = OnceLock::new();
    NEW.get_or_init(|| {
        let content =
            |(index, size): (u32, &usize)| Content::new(NEW_SEED + index, *size, Algorithm::Sha256);
        (0..).zip(&NEW_SIZES).map(content).collect()
    })
}

/// The known blob of that name.
pub fn find(digest: &Digest) -> Option<&'static Content> {
    old().iter().chain(new()).find(|content| content.digest == *digest)
}

impl Content {
    fn new(seed: u32, size: usize, algorithm: Algorithm) -> Self {
        let bytes = bytes(seed, size);
        let digest = algorithm.digest(&bytes);
        let trailer = trailer(&digest, &bytes);
        Self { bytes, digest, trailer }
    }
}

/// The hashes of the chunks that are complete within `bytes`.
pub fn chunk_hashes(bytes: &[u8]) -> Vec<[u8; 32]> {
    bytes.chunks_exact(CHUNK_BYTES as usize).map(|chunk| *blake3::hash(chunk).as_bytes()).collect()
}

/// FORMAT.md section 5.
fn trailer(digest: &Digest, bytes: &[u8]) -> Vec<u8> {
    if bytes.len() as u64 <= CHUNK_BYTES {
        return Vec::new();
    }
    let chunks = bytes.chunks(CHUNK_BYTES as usize);
    let mut trailer: Vec<u8> = chunks.flat_map(|chunk| *blake3::hash(chunk).as_bytes()).collect();
    let seal = blake3::hash(&[digest.bytes(), &trailer].concat());
    trailer.extend_from_slice(seal.as_bytes());
    trailer
}

fn bytes(seed: u32, size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32.wrapping_mul(seed + 1) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// Around units, segments and chunks.
const OLD_SIZES: [usize; 14] =
    [0, 1, 100, 256, 4096, 5000, 2048, 9000, 30_000, 65_536, 262_145, 262_144, 300_001, 12_345];
const NEW_SIZES: [usize; 6] = [200, 3000, 20_000, 70_000, 270_000, 0x41];
const NEW_SEED: u32 = 1000;
