//! What mounting a large store costs: 32 GB with ten thousand blobs, in 1 MiB of memory and 600
//! reads of the device.
//!
//! No test writes 32 GB: the META segment is written as a satellite would have left it,
//! and no byte of a blob is read at a mount.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod heap;

use std::fs::File;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use moonlet::blob::Store;
use moonlet::blob::format::counts::Wear;
use moonlet::blob::format::{
    BlobRecord, CHUNK_BYTES, Extent, Header, Part, Place, Record, encode_frame,
};
use moonlet::flash::{self, Geometry};
use moonlet::metrics::Metrics;
use moonlet::oci::Digest;

const GEOMETRY: Geometry =
    Geometry { segment_count: 8192, segment_bytes: 4 << 20, program_bytes: 4096, reprogram: true };
const META_SEGMENTS: usize = 4;
const BLOBS: u64 = 10_000;

/// A device of which only META is there.
struct Device {
    meta: Mutex<Vec<u8>>,
    reads: AtomicU64,
}

impl flash::Device for Device {
    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), flash::Error> {
        self.reads.fetch_add(1, Relaxed);
        let at = place(segment, offset);
        buffer.copy_from_slice(&self.meta.lock().unwrap()[at..at + buffer.len()]);
        Ok(())
    }

    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), flash::Error> {
        let at = place(segment, offset);
        self.meta.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn erase(&self, _: u32) -> Result<(), flash::Error> {
        Ok(())
    }

    fn sync(&self) -> Result<(), flash::Error> {
        Ok(())
    }

    fn is_slow(&self) -> bool {
        false
    }

    fn read_only(&self) -> Option<&str> {
        None
    }

    fn give_up_from(&self, _: u32) -> Result<(), flash::Error> {
        Ok(())
    }

    fn file_span(&self, _: u32, _: u32) -> Option<(Arc<File>, u64)> {
        None
    }
}

fn place(segment: u32, offset: u32) -> usize {
    segment as usize * GEOMETRY.segment_bytes as usize + offset as usize
}

#[test]
fn ten_thousand_blobs_take_a_mebibyte() {
    let device = Arc::new(Device { meta: Mutex::new(meta()), reads: AtomicU64::new(0) });
    for round in ["the first mount", "and the next"] {
        heap::forget_peak();
        let before = heap::bytes();
        device.reads.store(0, Relaxed);
        let (store, report) =
            Store::open(Arc::clone(&device) as _, Rc::new(Metrics::default())).unwrap();
        let (peak, left) = (heap::peak_bytes() - before, heap::bytes() - before);
        let reads = device.reads.load(Relaxed);
        eprintln!("{round}: {report}; {peak} bytes at most, {left} in the end, {reads} reads");
        assert_eq!((report.blobs as u64, report.damaged, report.dropped), (BLOBS, 0, 0));
        assert!(store.stat().used_bytes > 28 << 30, "{:?}", store.stat());
        assert!(peak <= 1 << 20, "{peak} bytes");
        assert!(reads <= 600, "{reads} reads");
    }
}

/// META as a satellite leaves it: one whole checkpoint.
fn meta() -> Vec<u8> {
    let mut records = vec![Record::CheckpointBegin];
    records.extend(blobs().map(Record::Commit));
    let erases = (0..GEOMETRY.segment_count).map(|segment| 300 + segment % 7).collect();
    records.push(Record::Wear(Wear { erases, ..Wear::default() }));
    records.push(Record::CheckpointEnd { frames: BLOBS as u32 + 1 });
    let header = Header {
        sequence: 4,
        erase_count: 1,
        segment_bytes: GEOMETRY.segment_bytes,
        program_bytes: GEOMETRY.program_bytes,
    };
    let mut bytes = header.encode().to_vec();
    bytes.resize(GEOMETRY.program_bytes as usize, 0);
    let place = Place { sequence: 4, part: Part::Checkpoint };
    for record in &records {
        encode_frame(record, place, &mut bytes).unwrap();
    }
    assert!(bytes.len() < GEOMETRY.segment_bytes as usize / 4 * 3, "{}", bytes.len());
    bytes.resize(META_SEGMENTS * GEOMETRY.segment_bytes as usize, 0);
    bytes
}

/// Layers of up to 15 MB, most of them small, half of those that are longer than a segment in two
/// pieces; one in ten is a manifest.
fn blobs() -> impl Iterator<Item = BlobRecord> {
    let mut next = (META_SEGMENTS as u64) * u64::from(GEOMETRY.segment_bytes);
    // Where tails are put, one after the other.
    let mut tails = u64::from(GEOMETRY.segment_count) * u64::from(GEOMETRY.segment_bytes);
    (0..BLOBS).map(move |index| {
        let size = match index % 10 {
            0 => 700,
            1..5 => 90_000 + index,
            5..8 => 2_000_000 + index * 10,
            8 => 9_000_000 + index * 10,
            _ => 15_000_000 + index * 10,
        };
        let all = reserved(size);
        let segment = u64::from(GEOMETRY.segment_bytes);
        let tail = if index % 2 == 0 && all > segment { all % segment } else { 0 };
        let first = Extent { start: next, bytes: all - tail };
        next = first.end().next_multiple_of(u64::from(GEOMETRY.program_bytes));
        tails -= tail;
        let second = Extent { start: tails, bytes: tail };
        BlobRecord {
            digest: Digest::sha256(&index.to_le_bytes()),
            size,
            media_type: (index % 10 == 0)
                .then(|| "application/vnd.oci.image.manifest.v1+json".to_owned()),
            extents: [first, second].into_iter().filter(|extent| extent.bytes > 0).collect(),
            pinned: index % 3 > 0,
        }
    })
}

/// FORMAT.md section 5.
fn reserved(size: u64) -> u64 {
    let chunks = size.div_ceil(CHUNK_BYTES);
    let trailer = if chunks > 1 { (chunks + 1) * 32 } else { 0 };
    let unit = u64::from(GEOMETRY.program_bytes);
    if size < unit {
        return size.next_multiple_of(unit / 8);
    }
    (size + trailer).next_multiple_of(unit)
}
