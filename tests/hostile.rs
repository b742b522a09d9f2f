//! The log on images that no log wrote: a part of what `scripts/fuzz` does, without a fuzzer.
//!
//! Replays the inputs in `tests/data/hostile`, which are what the fuzzer found worth keeping and
//! every input that ever was a finding, then some drawn from a seed, half of them by changing
//! those. A failure prints what replays it. `SEEDS` says how many are drawn, `SEED` the first;
//! `INPUT` is a file to replay instead of the directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

#[path = "fuzz/hostile/mod.rs"]
mod hostile;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use moonlet::blob::Store;
use moonlet::blob::format::{
    BlobRecord, CHUNK_BYTES, Extent, Header, Part, Place, Record, encode_frame,
};
use moonlet::flash::sim::Device;
use moonlet::flash::{Geometry, SEGMENTS_MAX};
use moonlet::metrics::Metrics;
use moonlet::oci::Digest;

#[test]
fn what_was_found_once_stays_found() {
    if let Some(path) = std::env::var_os("INPUT") {
        return hostile::check(&std::fs::read(path).unwrap());
    }
    let files = corpus();
    assert!(files.len() > 10, "tests/data/hostile has {} files", files.len());
    for (path, input) in files {
        check(&path, &input);
    }
}

#[test]
fn drawn_images_are_survived() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seeds: u64 = number("SEEDS").unwrap_or(SEEDS);
    let first: u64 = number("SEED").unwrap_or(1);
    let corpus: Vec<Vec<u8>> = corpus().into_iter().map(|(_, input)| input).collect();
    for seed in first..first + seeds {
        let input = draw(seed, &corpus);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{seed}"));
        check(&path, &input);
    }
}

/// What a mount costs is bounded by the device, whatever its records claim: pieces by the hundred
/// thousand, given up and replaced again and again, and many times as many bytes as there are.
#[test]
fn claims_without_measure_take_no_longer_than_reading_the_device() {
    let unit = u64::from(GEOMETRY.program_bytes);
    let (first, end) = (u64::from(GEOMETRY.segment_bytes) * 4, GEOMETRY.bytes());
    let blob = |name: &[u8], size, extents| {
        let digest = Digest::sha256(name);
        Record::Commit(BlobRecord { digest, size, media_type: None, extents, pinned: true })
    };
    // One unit in two, then the others.
    let scattered = |from: u64| {
        let extent = |index| Extent { start: first + (from + 2 * index) * unit, bytes: unit };
        (0..PIECES).map(extent).collect()
    };
    let mut records = vec![Record::CheckpointBegin];
    for round in 0..4 {
        records.push(blob(b"scattered", PIECES * unit, scattered(round % 2)));
    }
    let whole = Extent { start: first, bytes: end - first };
    let over = (end - first) * 70;
    let trailer = (over.div_ceil(CHUNK_BYTES) + 1) * 32;
    let mut extents = vec![whole; 70];
    extents.push(Extent { start: first, bytes: trailer.next_multiple_of(unit) });
    for index in 0..200_u32 {
        records.push(blob(&index.to_le_bytes(), over, extents.clone()));
    }
    records.push(Record::Erased { segments: (0..SEGMENTS_MAX).collect() });
    records.push(Record::CheckpointEnd { frames: records.len() as u32 - 1 });
    let mut image = meta_segment(&records);
    // And something is damaged, so that all that is claimed has to be read.
    image.extend_from_slice(b"MOONLET\0 and then nothing that could be read");
    let device = Arc::new(Device::with_image(GEOMETRY, &image));
    let (store, report) = Store::open(device, Rc::new(Metrics::default())).unwrap();
    assert_eq!((report.blobs, report.damaged, report.dropped), (0, 1, 201), "{report}");
    smol::block_on(store.put(&Digest::sha256(b"x"), b"x", None)).unwrap();
}

/// A META segment with a checkpoint of these records, begin and end included.
fn meta_segment(records: &[Record]) -> Vec<u8> {
    let Geometry { segment_bytes, program_bytes, .. } = GEOMETRY;
    let header = Header { sequence: 1, erase_count: 1, segment_bytes, program_bytes };
    let mut bytes = header.encode().to_vec();
    bytes.resize(program_bytes as usize, 0);
    let place = Place { sequence: 1, part: Part::Checkpoint };
    records.iter().for_each(|record| encode_frame(record, place, &mut bytes).unwrap());
    assert!(bytes.len() < segment_bytes as usize, "{}", bytes.len());
    bytes.resize(segment_bytes as usize, 0);
    bytes
}

const GEOMETRY: Geometry =
    Geometry { segment_count: 29, segment_bytes: 4 << 20, program_bytes: 256, reprogram: true };
const PIECES: u64 = 150_000;

/// Checks `input`, which is kept at `path`, or put there when it turns out to be a finding.
fn check(path: &Path, input: &[u8]) {
    if std::panic::catch_unwind(|| hostile::check(input)).is_err() {
        std::fs::write(path, input).unwrap();
        panic!("replay: INPUT={} cargo test --test hostile found", path.display());
    }
}

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn draw(seed: u64, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    if seed.is_multiple_of(2) {
        let length = 2 + random.below(300);
        return (0..length).map(|_| random.below(256) as u8).collect();
    }
    let mut input = corpus[random.below(corpus.len() as u64) as usize].clone();
    let other = &corpus[random.below(corpus.len() as u64) as usize];
    for _ in 0..1 + random.below(6) {
        let at = random.below(input.len() as u64 + 1) as usize;
        match random.below(4) {
            0 => input.insert(at, random.below(256) as u8),
            1 => drop(input.drain(at..input.len().min(at + 3))),
            2 => {
                let from = random.below(other.len() as u64 + 1) as usize;
                let piece = &other[from..other.len().min(from + 40)];
                drop(input.splice(at..at, piece.iter().copied()));
            }
            _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.below(256) as u8),
        }
    }
    input
}

/// Xorshift64* (Vigna 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % limit
    }
}

const SEEDS: u64 = 3000;
