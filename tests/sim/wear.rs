//! What the log does to cells: counted as the device counts it, and spread.

use std::sync::Arc;

use moonlet::blob::Store;
use moonlet::flash::Geometry;
use moonlet::flash::sim::Device;
use moonlet::oci::Digest;

use crate::NOR;
use crate::run::mount;

const GEOMETRY: Geometry = Geometry { segment_count: 28, ..NOR };
const META_SEGMENTS: usize = 8;
/// Fills most of a segment.
const BLOB_BYTES: usize = 60_000;

#[test]
fn data_that_never_changes_does_not_spare_its_segments() {
    let device = Arc::new(Device::new(GEOMETRY));
    let (mut store, _) = mount(&device).unwrap();
    let cold: Vec<Digest> = (0..12).map(|seed| put(&store, &content(seed))).collect();
    let hot = [100, 101, 102].map(content);
    for round in 0..CYCLES {
        let hot = put(&store, &hot[round % 3]);
        smol::block_on(store.delete(&[hot])).unwrap();
        if round % 1000 == 999 {
            drop(store);
            store = mount(&device).unwrap().0;
        }
    }
    for (seed, digest) in cold.iter().enumerate() {
        assert_eq!(store.read_all(digest, u64::MAX).unwrap(), content(seed), "cold blob {seed}");
    }
    let erases = device.erases();
    let data = &erases[META_SEGMENTS..];
    let (max, sum) = (*data.iter().max().unwrap(), data.iter().sum::<u32>());
    let mean = f64::from(sum) / data.len() as f64;
    assert!(f64::from(max) / mean <= 1.1, "max {max}, mean {mean}: {erases:?}");
    let stat = store.stat();
    assert_eq!((stat.erases_max, stat.erases_mean as u32), (max, mean as u32), "{erases:?}");
    // No mount forgets anything, and there was no clean end.
    assert_eq!(stat.image_bytes, BLOB_BYTES as u64 * (12 + CYCLES as u64));
    let forgotten = device.programmed_bytes() - stat.programmed_bytes;
    assert!(forgotten < 1 << 20, "{forgotten} bytes of META before each mount");
    // Each move is of a whole segment, and lets the one it frees be worn LEVEL_ERASES times.
    let copied = stat.copied_bytes as f64 / stat.image_bytes as f64;
    assert!(copied < 0.25, "{copied} bytes copied for each written");
}

fn put(store: &Store, content: &[u8]) -> Digest {
    let digest = Digest::sha256(content);
    smol::block_on(store.put(&digest, content, None)).unwrap();
    digest
}

fn content(seed: usize) -> Vec<u8> {
    (0..BLOB_BYTES).map(|index| ((index * (seed + 1)) >> 3) as u8).collect()
}

/// Of one blob put and deleted.
const CYCLES: usize = 10_000;
