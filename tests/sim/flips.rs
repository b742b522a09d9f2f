//! One flipped bit, anywhere in META.

use std::sync::Arc;

use moonlet::flash::Geometry;
use moonlet::flash::sim::Device;

use crate::check::check_bytes;
use crate::model::{Blobs, Step};
use crate::run::{mount, run};

/// A small device, so that every byte can be tried.
const SMALL: Geometry =
    Geometry { segment_count: 24, segment_bytes: 8192, program_bytes: 256, reprogram: true };
const META_SEGMENTS: u32 = 4;

#[test]
fn a_corrupt_bit_in_meta_never_gives_wrong_bytes() {
    use Step::*;
    let blobs = Blobs::new();
    let device = Arc::new(Device::new(SMALL));
    let mut steps = vec![Put(0), Put(1), Tag("a", 0), Put(7), Tag("b", 7), Pin(7)];
    for _ in 0..12 {
        steps.extend([Delete(1), Put(4), Put(1), Delete(4), Tag("c", 1)]);
    }
    assert_eq!(run(&device, &blobs, &steps), steps.len());
    let (mut changed, mut least) = (0, usize::MAX);
    for segment in 0..META_SEGMENTS {
        for offset in 0..SMALL.segment_bytes {
            let corrupt = Arc::new(device.survivor(1));
            corrupt.flip(segment, offset, 1 << (offset % 8));
            let (store, report) = mount(&corrupt)
                .unwrap_or_else(|error| panic!("segment {segment}, byte {offset}: {error}"));
            let held = check_bytes(&store, &blobs)
                .unwrap_or_else(|why| panic!("segment {segment}, byte {offset}: {why}"));
            changed += u32::from(report.damaged > 0);
            least = least.min(held);
        }
    }
    assert!(changed > 0, "no flip was noticed");
    assert!(least >= 2, "a record that cannot be read costs the blob it describes and no other");
}
