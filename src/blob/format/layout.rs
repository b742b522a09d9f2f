//! Where the bytes of a blob lie: FORMAT.md section 5.
//!
//! A blob's extents, laid end to end, hold its bytes, the hashes of its chunks where it has more
//! than one, and padding to a program unit. A small one, of less than a unit, shares a unit with
//! others and is padded to a grain.

use crate::blob::Error;
use crate::blob::format::{BlobRecord, CHUNK_BYTES, CHUNK_HASH_BYTES, Extent};
use crate::flash::{Device, Geometry};
use crate::oci::{Digest, Hasher};
use crate::units::to_usize;

/// A run of bytes within one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The segment.
    pub segment: u32,
    /// Where in it, in bytes.
    pub offset: u32,
    /// How many bytes.
    pub bytes: usize,
}

/// The pieces of `bytes` bytes from byte `start` of what lies in `extents`.
pub fn pieces(extents: &[Extent], segment_bytes: u32, start: u64, bytes: u64) -> Vec<Piece> {
    let segment_bytes = u64::from(segment_bytes);
    let mut pieces = Vec::new();
    for extent in prefix(&suffix(extents, start), bytes) {
        let mut at = extent.start;
        while at < extent.end() {
            let here = (segment_bytes - at % segment_bytes).min(extent.end() - at);
            let segment = u32::try_from(at / segment_bytes);
            let offset = u32::try_from(at % segment_bytes);
            // Extents were checked against the geometry, which counts in u32.
            if let (Ok(segment), Ok(offset), Ok(bytes)) = (segment, offset, usize::try_from(here)) {
                pieces.push(Piece { segment, offset, bytes });
            }
            at += here;
        }
    }
    pieces
}

/// The first `bytes` bytes of `extents`.
pub fn prefix(extents: &[Extent], bytes: u64) -> Vec<Extent> {
    let mut left = bytes;
    let mut kept = Vec::new();
    for extent in extents {
        let taken = extent.bytes.min(left);
        if taken == 0 {
            break;
        }
        kept.push(Extent { bytes: taken, ..*extent });
        left -= taken;
    }
    kept
}

/// `extents` without their first `bytes` bytes.
pub fn suffix(extents: &[Extent], bytes: u64) -> Vec<Extent> {
    let mut skip = bytes;
    let mut rest = Vec::new();
    for extent in extents {
        let cut = extent.bytes.min(skip);
        skip -= cut;
        if cut < extent.bytes {
            rest.push(Extent { start: extent.start + cut, bytes: extent.bytes - cut });
        }
    }
    rest
}

/// What of `extents` is not in `others`. What a log claims may be of very many pieces, in any order
/// and one upon another: this takes no longer than sorting them.
pub fn difference(extents: &[Extent], others: &[Extent]) -> Vec<Extent> {
    let others = joined(others);
    let mut left = Vec::new();
    for extent in extents {
        let mut at = extent.start;
        let first = others.partition_point(|other| other.end() <= at);
        let meeting = others.iter().skip(first).take_while(|other| other.start < extent.end());
        for other in meeting {
            if at < other.start {
                left.push(Extent { start: at, bytes: other.start - at });
            }
            at = other.end();
        }
        if at < extent.end() {
            left.push(Extent { start: at, bytes: extent.end() - at });
        }
    }
    left
}

/// The same bytes in as few extents as possible, ascending.
fn joined(extents: &[Extent]) -> Vec<Extent> {
    let mut sorted = extents.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<Extent> = Vec::new();
    for extent in sorted {
        match joined.last_mut() {
            Some(last) if last.end() >= extent.start => {
                last.bytes = last.end().max(extent.end()) - last.start;
            }
            _ => joined.push(extent),
        }
    }
    joined
}

/// Whether any byte of `extents` is in `others`.
pub fn overlap(extents: &[Extent], others: &[Extent]) -> bool {
    let meets = |one: &Extent, other: &Extent| one.start < other.end() && other.start < one.end();
    extents.iter().any(|one| others.iter().any(|other| meets(one, other)))
}

/// Those parts of `extents` that are whole segments.
pub fn whole_segments(extents: &[Extent], segment_bytes: u32) -> Vec<Extent> {
    let bytes = u64::from(segment_bytes);
    let whole = |extent: &Extent| Extent {
        start: extent.start.next_multiple_of(bytes),
        bytes: (extent.end() / bytes * bytes).saturating_sub(extent.start.next_multiple_of(bytes)),
    };
    extents.iter().map(whole).filter(|extent| extent.bytes > 0).collect()
}

/// Bytes of `extents` that lie in one segment.
pub fn bytes_within(extents: &[Extent], segment: u32, segment_bytes: u32) -> u64 {
    let within = |extent: &Extent| clipped(*extent, segment, segment_bytes).map_or(0, |c| c.bytes);
    extents.iter().map(within).sum()
}

/// `extents` in pieces, each with the place it has when what lies in `segment` is moved to `room`.
pub fn relocated(
    extents: &[Extent],
    segment: u32,
    segment_bytes: u32,
    room: &[Extent],
) -> Vec<(Extent, Extent)> {
    let mut moves = Vec::new();
    let mut used = 0;
    for extent in extents {
        let Some(within) = clipped(*extent, segment, segment_bytes) else {
            moves.push((*extent, *extent));
            continue;
        };
        let part = |start, end| Extent { start, bytes: end - start };
        let before = part(extent.start, within.start);
        let after = part(within.end(), extent.end());
        let mut from = within.start;
        let targets = prefix(&suffix(room, used), within.bytes).into_iter().map(|to| {
            from += to.bytes;
            (Extent { start: from - to.bytes, bytes: to.bytes }, to)
        });
        let targets: Vec<_> = targets.collect();
        used += within.bytes;
        let kept = |part: Extent| (part.bytes > 0).then_some((part, part));
        moves.extend(kept(before).into_iter().chain(targets).chain(kept(after)));
    }
    moves
}

/// Extents with neighbours joined.
pub fn merged(extents: impl Iterator<Item = Extent>) -> Vec<Extent> {
    let mut merged: Vec<Extent> = Vec::new();
    for extent in extents {
        match merged.last_mut() {
            Some(last) if last.end() == extent.start => last.bytes += extent.bytes,
            _ => merged.push(extent),
        }
    }
    merged
}

/// The part of an extent that lies in one segment.
fn clipped(extent: Extent, segment: u32, segment_bytes: u32) -> Option<Extent> {
    let first = u64::from(segment) * u64::from(segment_bytes);
    let start = extent.start.max(first);
    let end = extent.end().min(first + u64::from(segment_bytes));
    (start < end).then(|| Extent { start, bytes: end - start })
}

/// Whether a blob of `size` bytes shares a unit with others.
pub fn is_small(size: u64, geometry: Geometry) -> bool {
    (1..u64::from(geometry.program_bytes)).contains(&size)
}

/// What the places of small blobs are multiples of, in bytes.
pub fn grain_bytes(geometry: Geometry) -> u64 {
    u64::from(geometry.program_bytes / GRAINS)
}

/// Bytes of all extents of a blob of `size` bytes.
pub fn reserved_bytes(size: u64, geometry: Geometry) -> u64 {
    if is_small(size, geometry) {
        return size.next_multiple_of(grain_bytes(geometry));
    }
    let chunks = size.div_ceil(CHUNK_BYTES);
    let trailer = if chunks > 1 { (chunks + 1) * CHUNK_HASH_BYTES } else { 0 };
    let bytes = size.saturating_add(trailer);
    // What claims to be longer than any device is no multiple, and fits nowhere either.
    bytes.checked_next_multiple_of(u64::from(geometry.program_bytes)).unwrap_or(u64::MAX)
}

/// What follows the bytes of a blob of more than one chunk: the hashes of its chunks, then a hash
/// over its digest and those, which distinguishes them from whatever else may lie there.
pub fn trailer(digest: &Digest, chunks: &[[u8; 32]]) -> Vec<u8> {
    let mut bytes = chunks.as_flattened().to_vec();
    bytes.extend_from_slice(&seal(digest, chunks));
    bytes
}

fn seal(digest: &Digest, chunks: &[[u8; 32]]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(digest.bytes()).update(chunks.as_flattened());
    *hash.finalize().as_bytes()
}

/// The hashes of the chunks of a blob that has more than one, from its trailer; none when that is
/// not what was written.
pub fn read_trailer(device: &dyn Device, record: &BlobRecord) -> Option<Vec<[u8; 32]>> {
    let count = usize::try_from(record.size.div_ceil(CHUNK_BYTES)).ok()?;
    let mut hashes = vec![[0; 32]; count.checked_add(1)?];
    read(device, &record.extents, record.size, hashes.as_flattened_mut()).ok()?;
    let found = hashes.pop()?;
    (found == seal(&record.digest, &hashes)).then_some(hashes)
}

/// Whether the bytes of a finished blob are what was committed; those that cannot be read are not.
pub fn is_intact(device: &dyn Device, record: &BlobRecord) -> bool {
    let trailer = match record.size {
        0..=CHUNK_BYTES => None,
        _ => read_trailer(device, record),
    };
    let Some(expected) = trailer else {
        // One chunk has its digest, and a trailer that decayed makes none of the bytes wrong.
        return has_digest(device, record);
    };
    let mut expected = expected.into_iter();
    let mut is_same = true;
    let outcome = read_chunks(device, record, record.size, |bytes| {
        is_same &= expected.next() == Some(*blake3::hash(bytes).as_bytes());
    });
    outcome.is_ok() && is_same
}

/// Whether the bytes of a finished blob have its digest.
pub fn has_digest(device: &dyn Device, record: &BlobRecord) -> bool {
    let mut hash = Hasher::new(record.digest.algorithm());
    let read = read_chunks(device, record, record.size, |bytes| hash.update(bytes));
    read.is_ok() && hash.finish() == record.digest
}

/// Reads the first `size` bytes of a blob, chunk by chunk.
pub fn read_chunks(
    device: &dyn Device,
    record: &BlobRecord,
    size: u64,
    mut each: impl FnMut(&[u8]),
) -> Result<(), Error> {
    let mut buffer = vec![0; to_usize(CHUNK_BYTES.min(size))];
    let mut at = 0;
    while at < size {
        let length = to_usize(CHUNK_BYTES.min(size - at));
        let bytes = buffer.get_mut(..length).unwrap_or_default();
        read(device, &record.extents, at, bytes)?;
        each(bytes);
        at += length as u64;
    }
    Ok(())
}

/// Fills `buffer` from byte `start` of what lies in `extents`.
pub fn read(
    device: &dyn Device,
    extents: &[Extent],
    start: u64,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let mut rest = buffer;
    for piece in pieces(extents, device.geometry().segment_bytes, start, rest.len() as u64) {
        let (here, later) = rest.split_at_mut_checked(piece.bytes).unwrap_or_default();
        device.read(piece.segment, piece.offset, here)?;
        rest = later;
    }
    Ok(())
}

/// Grains of a unit. Fewer would waste more of it, and more would take more bits to count.
pub const GRAINS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry =
        Geometry { segment_count: 9, segment_bytes: 1024, program_bytes: 64, reprogram: true };

    #[test]
    fn pieces_follow_extents_and_segments() {
        let extents =
            [Extent { start: 4096, bytes: 1024 + 64 }, Extent { start: 8192 + 128, bytes: 64 }];
        let found = pieces(&extents, 1024, 1000, 24 + 64 + 10);
        let expected = [(4, 1000, 24), (5, 0, 64), (8, 128, 10)];
        let expected = expected.map(|(segment, offset, bytes)| Piece { segment, offset, bytes });
        assert_eq!(found, expected);
    }

    #[test]
    fn extents_as_sets() {
        let extent = |start, bytes| Extent { start, bytes };
        let all = [extent(0, 100), extent(200, 100)];
        let others = [extent(90, 20), extent(230, 10), extent(300, 10)];
        let left = [extent(0, 90), extent(200, 30), extent(240, 60)];
        assert_eq!(difference(&all, &others), left);
        assert_eq!(difference(&all, &[]), all);
        let scattered = [extent(240, 70), extent(0, 20), extent(230, 15), extent(10, 30)];
        assert_eq!(difference(&all, &scattered), [extent(40, 60), extent(200, 30)]);
        assert_eq!(difference(&all, &[extent(0, u64::MAX)]), []);
        assert_eq!(difference(&[extent(u64::MAX - 5, 9)], &[extent(u64::MAX - 3, 9)]).len(), 1);
        assert_eq!(whole_segments(&[extent(10, 39)], 10), [extent(10, 30)]);
        assert_eq!(whole_segments(&[extent(11, 18)], 10), []);
    }

    #[test]
    fn one_segment_is_moved_out_of_extents() {
        let extent = |start, bytes| Extent { start, bytes };
        let blob = [extent(1000, 2200), extent(4090, 10)];
        assert_eq!(bytes_within(&blob, 2, 1000), 1000);
        assert_eq!(bytes_within(&blob, 4, 1000), 10);
        assert_eq!(bytes_within(&blob, 5, 1000), 0);
        let room = [extent(7000, 600), extent(9000, 400)];
        let moves = relocated(&blob, 2, 1000, &room);
        let expected = [
            (extent(1000, 1000), extent(1000, 1000)),
            (extent(2000, 600), extent(7000, 600)),
            (extent(2600, 400), extent(9000, 400)),
            (extent(3000, 200), extent(3000, 200)),
            (extent(4090, 10), extent(4090, 10)),
        ];
        assert_eq!(moves, expected);
        assert_eq!(merged(moves.into_iter().map(|(from, _)| from)), blob);
    }

    #[test]
    fn small_blobs_have_no_trailer() {
        assert_eq!(reserved_bytes(0, GEOMETRY), 0);
        assert_eq!(reserved_bytes(1, GEOMETRY), 8);
        assert_eq!(reserved_bytes(63, GEOMETRY), 64);
        assert_eq!(reserved_bytes(65, GEOMETRY), 128);
        assert_eq!(reserved_bytes(CHUNK_BYTES, GEOMETRY), CHUNK_BYTES);
        assert_eq!(reserved_bytes(CHUNK_BYTES + 1, GEOMETRY), CHUNK_BYTES + 128);
        assert_eq!(reserved_bytes(2 * CHUNK_BYTES, GEOMETRY), 2 * CHUNK_BYTES + 128);
        assert_eq!(reserved_bytes(u64::MAX, GEOMETRY), u64::MAX);
    }
}
