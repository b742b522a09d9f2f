//! What every device promises, whichever it is.

use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::sync::Arc;

use moonlet::blob::Store;
use moonlet::flash::{Device, Error, Geometry};
use moonlet::kind::Kind;
use moonlet::metrics::Metrics;
use moonlet::oci::Digest;

/// Every rule of the trait; what lies on the device's good segments is lost.
pub fn conforms(device: &dyn Device) {
    let Geometry { segment_count, segment_bytes, program_bytes, .. } = device.geometry();
    assert!(segment_count > 4 && segment_bytes.is_multiple_of(program_bytes));
    assert!(device.read_only().is_none());
    let good: Vec<u32> = (0..segment_count).filter(|&s| !device.is_bad(s).unwrap()).collect();
    assert!(good.len() > 4, "{} of {segment_count} segments are good", good.len());
    let (first, second, last) = (good[0], good[1], good[good.len() - 1]);
    reads_what_was_programmed(device, first, last);
    syncs_a_range(device, first, last);
    is_recycled(device, first, last);
    leaves_neighbours_alone(device, first, second);
    takes_a_whole_segment(device, second);
    takes_a_trim(device, first, last);
    refuses_what_is_outside(device, first);
}

fn unit(device: &dyn Device) -> usize {
    device.geometry().program_bytes as usize
}

fn pattern(device: &dyn Device) -> Vec<u8> {
    (0..2 * unit(device)).map(|index| (index * 7 + 1) as u8).collect()
}

fn read(device: &dyn Device, segment: u32, offset: usize, length: usize) -> Vec<u8> {
    let mut found = vec![0; length];
    device.read(segment, offset as u32, &mut found).unwrap();
    found
}

fn reads_what_was_programmed(device: &dyn Device, first: u32, last: u32) {
    let Geometry { segment_bytes, program_bytes, .. } = device.geometry();
    let (unit, pattern) = (unit(device), pattern(device));
    let end = segment_bytes - program_bytes;
    for segment in [first, last] {
        device.erase(segment).unwrap();
        // What was never programmed reads as anything, but it reads.
        read(device, segment, 0, segment_bytes as usize);
        device.program(segment, 0, &pattern).unwrap();
        device.program(segment, end, &pattern[..unit]).unwrap();
    }
    device.sync().unwrap();
    device.sync().unwrap();
    // Reads of any alignment.
    for (offset, length) in [(0, 1), (1, 3), (unit - 1, 2), (3, unit), (0, 2 * unit), (5, 0)] {
        let found = read(device, last, offset, length);
        assert_eq!(found, pattern[offset..offset + length], "{length} bytes at {offset}");
    }
    assert_eq!(read(device, first, end as usize, unit), pattern[..unit]);
}

/// A part of what was programmed is synced, and nothing is changed by that.
fn syncs_a_range(device: &dyn Device, first: u32, last: u32) {
    let (unit, pattern) = (unit(device), pattern(device));
    for segment in [first, last] {
        device.erase(segment).unwrap();
        device.program(segment, 0, &pattern).unwrap();
        device.sync_range(segment, unit as u32..2 * unit as u32).unwrap();
        device.sync_range(segment, 0..2 * unit as u32).unwrap();
        assert_eq!(read(device, segment, 0, 2 * unit), pattern);
    }
    device.sync().unwrap();
    assert_eq!(read(device, first, 0, 2 * unit), pattern);
}

/// Erased, a segment can be programmed from its beginning again.
fn is_recycled(device: &dyn Device, first: u32, last: u32) {
    let (unit, pattern) = (unit(device), pattern(device));
    device.erase(first).unwrap();
    let other: Vec<u8> = pattern.iter().map(|byte| !byte).collect();
    device.program(first, 0, &other).unwrap();
    if device.geometry().reprogram {
        device.program(first, 0, &other).unwrap();
    }
    assert_eq!(read(device, first, 0, unit), other[..unit]);
    assert_eq!(read(device, last, 0, unit), pattern[..unit], "another segment is left alone");
    if let Some((file, position)) = device.file_span(last, 0) {
        let mut found = vec![0; unit];
        file.read_exact_at(&mut found, position).unwrap();
        assert_eq!(found, pattern[..unit], "the span is where the segment is");
    }
}

/// A segment goes on where it was after its neighbour was recycled.
fn leaves_neighbours_alone(device: &dyn Device, first: u32, second: u32) {
    let (unit, pattern) = (unit(device), pattern(device));
    device.erase(first).unwrap();
    device.program(first, 0, &pattern[..unit]).unwrap();
    device.erase(second).unwrap();
    device.program(second, 0, &pattern).unwrap();
    device.sync().unwrap();
    device.program(first, unit as u32, &pattern[unit..]).unwrap();
    assert_eq!(read(device, first, 0, 2 * unit), pattern);
    assert_eq!(read(device, second, 0, 2 * unit), pattern);
}

/// In one call, from an address of any alignment.
fn takes_a_whole_segment(device: &dyn Device, segment: u32) {
    let length = device.geometry().segment_bytes as usize;
    let bytes: Vec<u8> = (0..=length as u64).map(|index| ((index * index) >> 7) as u8).collect();
    for from in [0, 1] {
        device.erase(segment).unwrap();
        device.program(segment, 0, &bytes[from..from + length]).unwrap();
        // The same bytes by the way that serves, and by the way that looks.
        assert!(read(device, segment, 0, length) == bytes[from..from + length], "from {from}");
        if let Some((file, position)) = device.file_span(segment, 0) {
            let mut found = vec![0; length];
            file.read_exact_at(&mut found, position).unwrap();
            assert!(found == bytes[from..from + length], "the span, from {from}");
        }
    }
}

fn takes_a_trim(device: &dyn Device, first: u32, last: u32) {
    let (unit, pattern) = (unit(device), pattern(device));
    device.trim(first).unwrap();
    read(device, first, 0, unit);
    assert_eq!(read(device, last, 0, unit), pattern[..unit], "another segment is left alone");
    device.erase(first).unwrap();
    device.program(first, 0, &pattern).unwrap();
    device.sync().unwrap();
    assert_eq!(read(device, first, 0, 2 * unit), pattern);
}

fn refuses_what_is_outside(device: &dyn Device, first: u32) {
    let Geometry { segment_count, segment_bytes, program_bytes, .. } = device.geometry();
    let mut unit = vec![0; program_bytes as usize];
    for (segment, offset) in [(segment_count, 0), (first, segment_bytes - program_bytes + 1)] {
        assert!(device.read(segment, offset, &mut unit).is_err());
        assert!(device.program(segment, offset, &unit).is_err());
    }
    assert!(device.erase(segment_count).is_err());
}

/// One process has the store, or several look at it.
pub fn belongs_to_one(
    open: &dyn Fn() -> Result<Arc<dyn Device>, Error>,
    inspect: &dyn Fn() -> Result<Arc<dyn Device>, Error>,
) {
    let device = open().unwrap();
    let (unit, pattern) = (unit(&*device), pattern(&*device));
    let count = device.geometry().segment_count;
    let segment = (0..count).find(|&segment| !device.is_bad(segment).unwrap()).unwrap();
    for refused in [open().err().unwrap(), inspect().err().unwrap()] {
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
        assert!(refused.to_string().contains("in use"), "{refused}");
    }
    device.erase(segment).unwrap();
    device.program(segment, 0, &pattern).unwrap();
    device.sync().unwrap();
    let geometry = device.geometry();
    drop(device);
    let look = inspect().unwrap();
    let other = inspect().unwrap();
    assert_eq!((look.geometry(), other.geometry()), (geometry, geometry));
    assert!(look.read_only().is_some() && look.program(segment, 0, &pattern[..unit]).is_err());
    assert_eq!(read(&*look, segment, 0, 2 * unit), pattern, "it lasts");
    assert_eq!(open().err().unwrap().kind(), Kind::Invalid);
    drop((look, other));
    assert!(open().unwrap().read_only().is_none());
}

/// The log comes, goes and is recycled on it. It has to be blank.
pub fn carries_the_log(device: &Arc<dyn Device>) {
    let contents: Vec<Vec<u8>> = (0..40).map(|seed| vec![seed; 30_000]).collect();
    let digests: Vec<Digest> = contents.iter().map(|content| Digest::sha256(content)).collect();
    let open = || Store::open(Arc::clone(device), Rc::new(Metrics::default())).unwrap().0;
    let mut store = open();
    for (index, (content, digest)) in contents.iter().zip(&digests).enumerate() {
        smol::block_on(async {
            if let Some(old) = index.checked_sub(8) {
                store.delete(&[digests[old]]).await.unwrap();
            }
            store.put(digest, content, None).await.unwrap();
        });
        if index % 5 == 4 {
            drop(store);
            store = open();
        }
    }
    for (content, digest) in contents.iter().zip(&digests).skip(32) {
        assert_eq!(store.read_all(digest, u64::MAX).unwrap(), *content);
    }
    assert!(store.entry(&digests[31]).is_none());
}
