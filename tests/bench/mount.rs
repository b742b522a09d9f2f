//! What it costs to mount a full log: time, reads, memory.
//!
//! Mounting never reads a blob's bytes, so none have to be written for it: the log here is only
//! what META says of it, laid out as the allocator would have, in a checkpoint of FORMAT.md.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use moonlet::blob::TagKey;
use moonlet::blob::format::counts::Wear;
use moonlet::blob::format::{
    BlobRecord, CHUNK_BYTES, CHUNK_HASH_BYTES, Extent, Header, Part, Place, Record, encode_frame,
    meta_segments,
};
use moonlet::flash::{Device, Geometry, file};
use moonlet::oci::Digest;

use crate::content::Random;
use crate::counting::Counted;
use crate::heap;
use crate::{Outcome, device, figure, open};

/// Makes a store of `size_max` bytes whose META says that it holds `count` blobs.
pub fn lay_out(directory: &Path, size_max: u64, count: u64) -> Outcome<()> {
    let device = file::Device::open(directory, size_max)?;
    let geometry = device.geometry();
    let records = records(geometry, count)?;
    let (sequence, unit) = (1, geometry.program_bytes as usize);
    let header = Header {
        sequence,
        erase_count: 1,
        segment_bytes: geometry.segment_bytes,
        program_bytes: geometry.program_bytes,
    };
    let mut bytes = header.encode().to_vec();
    bytes.resize(unit, 0);
    let place = Place { sequence, part: Part::Checkpoint };
    let frames = records.len() as u32;
    let ends = [Record::CheckpointBegin, Record::CheckpointEnd { frames }];
    let [begin, end] = &ends;
    for record in std::iter::once(begin).chain(&records).chain([end]) {
        encode_frame(record, place, &mut bytes).map_err(|_| "a record without a frame")?;
    }
    bytes.resize(bytes.len().next_multiple_of(unit), 0);
    if bytes.len() > geometry.segment_bytes as usize / 4 * 3 {
        return Err(format!("{count} blobs are more than a checkpoint may hold").into());
    }
    device.program(0, 0, &bytes)?;
    device.sync()?;
    figure("checkpoint", bytes.len(), "bytes");
    Ok(())
}

/// Mounts it, once.
pub fn mount(directory: &Path) -> Outcome<()> {
    let device = Arc::new(Counted::new(device(directory)?));
    let (before, resident) = (heap::bytes(), status("VmRSS:")?);
    heap::forget_peak();
    let begun = Instant::now();
    let (store, report) = open(Arc::clone(&device) as _)?;
    let duration = begun.elapsed();
    let (left, peak) = (heap::bytes() - before, heap::peak_bytes() - before);
    let [reads, read_bytes, programs, syncs] = device.counts();
    let (grown, most) = (status("VmRSS:")? - resident, status("VmHWM:")? - resident);
    if report.dropped > 0 || report.damaged > 0 {
        return Err(format!("{}: {report}", directory.display()).into());
    }
    let two = store.stat();
    figure("blobs", report.blobs, "blobs");
    figure("used", two.used_bytes, "bytes");
    figure("duration", format!("{:.1}", duration.as_secs_f64() * 1e3), "ms");
    figure("reads", reads, "reads");
    figure("read", read_bytes, "bytes");
    figure("programs", programs, "programs");
    figure("syncs", syncs, "syncs");
    figure("heap-peak", peak, "bytes");
    figure("heap-left", left, "bytes");
    figure("resident-peak", most * 1024, "bytes");
    figure("resident-left", grown * 1024, "bytes");
    Ok(())
}

/// A number of /proc/self/status, in KiB.
fn status(name: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    crate::number(line.trim().trim_end_matches(" kB"))
}

/// `count` blobs that fill most of the device, a tag for one of fifty, and what wear there is.
fn records(geometry: Geometry, count: u64) -> Outcome<Vec<Record>> {
    let mut random = Random::new(1);
    let mut space = Space::new(geometry);
    let room = u64::from(geometry.segment_bytes) * u64::from(geometry.segment_count);
    let most = largest(room / 10 * 9 / count.max(1));
    let (mut blobs, mut tags, mut in_two) = (Vec::new(), Vec::new(), 0);
    for index in 0..count {
        let digest = Digest::sha256(&index.to_le_bytes());
        let size = random.size(SIZE_MIN, most);
        let extents =
            space.take(size, index % 2 == 0).ok_or("the device is too small for so many blobs")?;
        in_two += usize::from(extents.len() > 1);
        let is_manifest = size < MANIFEST_BYTES_MAX && index % 5 == 0;
        let media_type = is_manifest.then(|| MANIFEST.to_owned());
        blobs.push(Record::Commit(BlobRecord { digest, size, media_type, extents, pinned: true }));
        if index % 50 == 0 {
            let repository = format!("library/image-{}", index / 50);
            let key = TagKey { registry: "docker.io".into(), repository, tag: "1".into() };
            tags.push(Record::Tag { key, digest });
        }
    }
    figure("two-extents", in_two, "blobs");
    let erases = (0..geometry.segment_count).map(|segment| segment % 100 + 1).collect();
    let wear = Wear { erases, ..Wear::default() };
    Ok(blobs.into_iter().chain(tags).chain([Record::Wear(wear)]).collect())
}

/// The largest of log-uniform sizes whose mean is `mean`: (most - least) / ln(most / least).
fn largest(mean: u64) -> u64 {
    let mean_of = |most: u64| {
        let ratio = most as f64 / SIZE_MIN as f64;
        ((most - SIZE_MIN) as f64 / ratio.ln()) as u64
    };
    let mut most = 2 * SIZE_MIN;
    while mean_of(most) < mean {
        most += most / 100;
    }
    most
}

/// Whole segments in turn, tails where they fit tightest: what the log's allocator does with a
/// device that is filled once.
struct Space {
    geometry: Geometry,
    next: u64,
    /// Shared segments, and how much of each is taken.
    shared: Vec<(u64, u64)>,
}

impl Space {
    fn new(geometry: Geometry) -> Self {
        Self { geometry, next: u64::from(meta_segments(geometry)), shared: Vec::new() }
    }

    /// Room for a blob; `in_two`, as copying a part of it would have left it.
    fn take(&mut self, size: u64, in_two: bool) -> Option<Vec<Extent>> {
        let segment_bytes = u64::from(self.geometry.segment_bytes);
        let bytes = reserved(size, u64::from(self.geometry.program_bytes));
        let (whole, tail) = (bytes / segment_bytes, bytes % segment_bytes);
        let start = self.next * segment_bytes;
        self.next += whole;
        let mut extents = vec![Extent { start, bytes: whole * segment_bytes }];
        let unit = u64::from(self.geometry.program_bytes);
        let first = if in_two && whole == 0 && tail > unit { unit } else { 0 };
        for bytes in [first, tail - first].into_iter().filter(|bytes| *bytes > 0) {
            extents.push(Extent { start: self.take_tail(bytes, segment_bytes), bytes });
        }
        extents.retain(|extent| extent.bytes > 0);
        if extents.len() == 2 && extents[0].end() == extents[1].start {
            extents = vec![Extent { bytes, ..extents[0] }];
        }
        (self.next <= u64::from(self.geometry.segment_count)).then_some(extents)
    }

    fn take_tail(&mut self, bytes: u64, segment_bytes: u64) -> u64 {
        // As if no two small ones came at the same time.
        let tail = bytes.next_multiple_of(u64::from(self.geometry.program_bytes));
        let fitting = self.shared.iter_mut().filter(|(_, taken)| segment_bytes - *taken >= tail);
        if let Some((segment, taken)) = fitting.max_by_key(|(_, taken)| *taken) {
            *taken += tail;
            return *segment * segment_bytes + *taken - tail;
        }
        self.shared.push((self.next, tail));
        self.next += 1;
        (self.next - 1) * segment_bytes
    }
}

/// FORMAT.md section 5: the bytes, and the trailer of more than one chunk, in whole units; what is
/// less than one, in grains.
fn reserved(size: u64, unit: u64) -> u64 {
    if size < unit {
        return size.next_multiple_of(unit / 8);
    }
    let chunks = size.div_ceil(CHUNK_BYTES);
    let trailer = if chunks > 1 { (chunks + 1) * CHUNK_HASH_BYTES } else { 0 };
    (size + trailer).next_multiple_of(unit)
}

const SIZE_MIN: u64 = 1 << 10;
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
