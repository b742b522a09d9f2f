//! Reading bytes of a blob to hash them, without holding up anybody else.
//!
//! Where a device's calls may take long, a chunk is read and hashed on a thread for that. Elsewhere
//! it happens here, in pieces of [`PIECE_BYTES`], and others have their turn between two of them.
//! Nothing of a blob is kept in memory but one piece.

use std::ops::Range;
use std::sync::Arc;

use crate::blob::format::layout::{Piece, pieces, read_trailer};
use crate::blob::format::{BlobRecord, CHUNK_BYTES, CHUNK_HASH_BYTES};
use crate::blob::{Error, Store};
use crate::flash::Device;
use crate::oci::{Digest, Hasher};
use crate::units::to_u32;

/// Where bytes are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Where a client would have them from: what the kernel keeps in memory, if it does.
    Cache,
    /// The medium itself, without leaving the bytes in memory where others could have theirs.
    Medium,
}

/// What the bytes of a chunk must be.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// There is one chunk, and it has the blob's digest.
    Digest(Digest),
    /// Those of this hash.
    Hash([u8; 32]),
    /// Those of the hash that the trailer, which is known to be sound, has for the chunk.
    InTrailer,
    /// Not known any more: nothing is right.
    Unknown,
}

/// Whether chunk number `chunk` of a blob reads as `expected`; what cannot be read does not.
pub async fn chunk_matches(
    store: &Store,
    record: &BlobRecord,
    chunk: u32,
    expected: Expected,
    origin: Origin,
) -> bool {
    let found = chunks_match(store, record, chunk..chunk + 1, expected, origin).await;
    found.is_ok_and(|found| found == [true])
}

/// Which of some chunks of a blob, one after the other, read as `expected`.
///
/// # Errors
/// The device's own, whichever of them it is of.
pub async fn chunks_match(
    store: &Store,
    record: &BlobRecord,
    chunks: Range<u32>,
    expected: Expected,
    origin: Origin,
) -> Result<Vec<bool>, Error> {
    let segment_bytes = store.device().geometry().segment_bytes;
    let mut wanted = Vec::new();
    let mut sums = Vec::new();
    for chunk in chunks.clone() {
        let start = u64::from(chunk) * CHUNK_BYTES;
        debug_assert!(start < record.size, "chunk {chunk} of {} bytes", record.size);
        let length = CHUNK_BYTES.min(record.size.saturating_sub(start));
        let Some(sum) = Sum::new(expected, length) else { return Ok(vec![false; chunks.len()]) };
        sums.push(sum);
        wanted.extend(pieces(&record.extents, segment_bytes, start, length));
        if let Expected::InTrailer = expected {
            let at = record.size + u64::from(chunk) * CHUNK_HASH_BYTES;
            wanted.extend(pieces(&record.extents, segment_bytes, at, CHUNK_HASH_BYTES));
        }
    }
    let each = |(sums, at): &mut (Vec<Sum>, usize), bytes: &[u8]| {
        if sums.get(*at).is_some_and(Sum::has_all) {
            *at += 1;
        }
        sums.get_mut(*at).into_iter().for_each(|sum| sum.update(bytes));
    };
    let (sums, _) = feed(store, wanted, origin, (sums, 0), each).await?;
    Ok(sums.into_iter().map(Sum::ends_right).collect())
}

/// Whether `bytes`, at most a chunk of them, are `expected`.
pub async fn bytes_match(bytes: &[u8], expected: Expected) -> bool {
    let Some(mut sum) = Sum::new(expected, bytes.len() as u64) else { return false };
    for piece in bytes.chunks(PIECE_BYTES) {
        sum.update(piece);
        smol::future::yield_now().await;
    }
    sum.ends_right()
}

/// The hashes in a blob's trailer; none when it is not what was written.
pub async fn trailer_hashes(store: &Store, record: &BlobRecord) -> Option<Vec<[u8; 32]>> {
    let (device, record) = (Arc::clone(store.shared_device()), record.clone());
    store.aside(move || read_trailer(device.as_ref(), &record)).await
}

impl Store {
    /// Does what reads the device where it holds up nothing: on the thread for that if the device's
    /// calls may take long, else here.
    pub(in crate::blob) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match self.device().is_slow() {
            true => self.lane().run(work).await,
            false => work(),
        }
    }
}

/// The hashes of a blob's chunks, made from its bytes; none when those do not have its digest.
pub async fn remade_hashes(store: &Store, record: &BlobRecord) -> Option<Vec<[u8; 32]>> {
    type State = (Hasher, Box<blake3::Hasher>);
    let each = |(whole, chunk): &mut State, bytes: &[u8]| {
        whole.update(bytes);
        chunk.update(bytes);
    };
    let segment_bytes = store.device().geometry().segment_bytes;
    let mut state = (Hasher::new(record.digest.algorithm()), Box::<blake3::Hasher>::default());
    let mut hashes = Vec::new();
    let mut at = 0;
    while at < record.size {
        let length = CHUNK_BYTES.min(record.size - at);
        let wanted = pieces(&record.extents, segment_bytes, at, length);
        state = feed(store, wanted, Origin::Cache, state, each).await.ok()?;
        hashes.push(*state.1.finalize().as_bytes());
        state.1.reset();
        at += length;
    }
    (state.0.finish() == record.digest).then_some(hashes)
}

/// Bytes that are hashed, and what is expected of them.
enum Sum {
    Digest(Hasher, Digest),
    /// Behind the `left` bytes of the chunk comes its hash, unless that was given.
    Chunk {
        hasher: Box<blake3::Hasher>,
        left: u64,
        hash: Vec<u8>,
    },
}

impl Sum {
    fn new(expected: Expected, length: u64) -> Option<Self> {
        let chunk = |hash| Self::Chunk { hasher: Box::default(), left: length, hash };
        match expected {
            Expected::Digest(digest) => Some(Self::Digest(Hasher::new(digest.algorithm()), digest)),
            Expected::Hash(hash) => Some(chunk(hash.to_vec())),
            Expected::InTrailer => Some(chunk(Vec::new())),
            Expected::Unknown => None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Digest(hasher, _) => hasher.update(bytes),
            Self::Chunk { left: 0, hash, .. } => hash.extend_from_slice(bytes),
            Self::Chunk { hasher, left, .. } => {
                hasher.update(bytes);
                debug_assert!(
                    *left >= bytes.len() as u64,
                    "a piece reaches over the end of a chunk"
                );
                *left = left.saturating_sub(bytes.len() as u64);
            }
        }
    }

    /// Whether what comes next is of another chunk.
    fn has_all(&self) -> bool {
        let hash_bytes = blake3::OUT_LEN;
        matches!(self, Self::Chunk { left: 0, hash, .. } if hash.len() >= hash_bytes)
    }

    fn ends_right(self) -> bool {
        match self {
            Self::Digest(hasher, digest) => hasher.finish() == digest,
            Self::Chunk { hasher, hash, .. } => hasher.finalize().as_bytes().as_slice() == hash,
        }
    }
}

/// Hands what lies in `pieces` to `each`, in order, and never of two of them at once.
async fn feed<S: Send + 'static>(
    store: &Store,
    pieces: Vec<Piece>,
    origin: Origin,
    state: S,
    each: fn(&mut S, &[u8]),
) -> Result<S, Error> {
    let device = Arc::clone(store.shared_device());
    let mut feed = Feed { device, pieces, origin, state, each, buffer: vec![0; PIECE_BYTES] };
    if store.device().is_slow() {
        let work = move || {
            let outcome = feed.parts().into_iter().try_for_each(|part| feed.read(part));
            feed.uncache();
            outcome.map(|()| feed.state)
        };
        return store.aside(work).await;
    }
    let mut outcome = Ok(());
    for part in feed.parts() {
        outcome = outcome.and_then(|()| feed.read(part));
        smol::future::yield_now().await;
    }
    feed.uncache();
    outcome.map(|()| feed.state)
}

struct Feed<S> {
    device: Arc<dyn Device>,
    pieces: Vec<Piece>,
    origin: Origin,
    state: S,
    each: fn(&mut S, &[u8]),
    buffer: Vec<u8>,
}

impl<S> Feed<S> {
    /// What is read at a time, of bytes that are where they are to be read from.
    fn parts(&self) -> Vec<Piece> {
        self.uncache();
        let mut parts = Vec::new();
        for piece in &self.pieces {
            for at in (0..piece.bytes).step_by(PIECE_BYTES) {
                let bytes = (piece.bytes - at).min(PIECE_BYTES);
                // A piece lies within a segment, whose bytes are counted in u32.
                let offset = piece.offset + to_u32(at);
                parts.push(Piece { offset, bytes, ..*piece });
            }
        }
        parts
    }

    fn read(&mut self, part: Piece) -> Result<(), Error> {
        let buffer = self.buffer.get_mut(..part.bytes).unwrap_or_default();
        self.device.read(part.segment, part.offset, buffer)?;
        (self.each)(&mut self.state, buffer);
        Ok(())
    }

    fn uncache(&self) {
        if self.origin == Origin::Cache {
            return;
        }
        // Whole units, with what else is in them: nothing less can be dropped.
        let unit = self.device.geometry().program_bytes;
        for piece in &self.pieces {
            let start = piece.offset / unit * unit;
            let end = u64::from(piece.offset) + piece.bytes as u64;
            let end = end.next_multiple_of(u64::from(unit));
            self.device.uncache(piece.segment, start, end - u64::from(start));
        }
    }
}

/// What is read and hashed before others have their turn: about a millisecond on a Cortex-A7.
const PIECE_BYTES: usize = 32 << 10;
