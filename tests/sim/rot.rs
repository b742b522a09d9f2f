//! Flipped bits in what is held: found by chunk, kept back, repaired by chunk, and a cut in the
//! middle of repairing costs nothing.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use moonlet::blob::Store;
use moonlet::flash::sim::Device;
use moonlet::flash::{Device as _, Geometry};
use moonlet::kind::Kind;
use moonlet::oci::Digest;

use crate::model::{SIZES, bytes};
use crate::run::mount;
use crate::{EMMC, NAND, NOR};

/// Three chunks, the last one short.
const BLOB: usize = 2;
pub const CHUNK_BYTES: usize = 256 << 10;

#[test]
fn a_corrupt_chunk_is_kept_back_and_repaired() {
    for shape in [EMMC, NAND, NOR] {
        let (device, content, digest) = held(shape);
        let chunk = &content[CHUNK_BYTES..2 * CHUNK_BYTES];
        let (segment, offset) = find(&device, &chunk[..64]);
        device.flip(segment, offset + 7, 0x10);
        let (store, _) = mount(&device).unwrap();
        assert_eq!(store.read_all(&digest, u64::MAX).unwrap_err().kind(), Kind::Corrupt);
        let corrupt = check(&store, &digest);
        assert_eq!(corrupt, BTreeSet::from([1]));
        smol::block_on(store.set_corrupt(&digest, &corrupt)).unwrap();
        drop(store);
        let (store, _) = mount(&device).unwrap();
        assert_eq!(store.corrupt(), [(digest, corrupt)], "kept across a mount");
        let end = SIZES[BLOB] as u64;
        for (range, expected) in [(0..262_144, false), (262_143..262_145, true), (0..end, true)] {
            assert_eq!(store.is_corrupt(&digest, range.clone()), expected, "{range:?}");
        }
        assert!(!store.is_corrupt(&digest, 524_288..end));
        let wrong = smol::block_on(store.repair(&digest, 1, &content[..CHUNK_BYTES]));
        assert_eq!(wrong.unwrap_err().kind(), Kind::Corrupt);
        smol::block_on(store.repair(&digest, 1, chunk)).unwrap();
        drop(store);
        let (store, _) = mount(&device).unwrap();
        assert!(store.corrupt().is_empty() && check(&store, &digest).is_empty());
        assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), content);
    }
}

#[test]
fn corrupt_hashes_of_sound_bytes_are_no_rot() {
    let (device, content, digest) = held(EMMC);
    let first = blake3::hash(&content[..CHUNK_BYTES]);
    let (segment, offset) = find(&device, first.as_bytes());
    device.flip(segment, offset, 1);
    let (store, _) = mount(&device).unwrap();
    assert!(check(&store, &digest).is_empty());
    // With a corrupt chunk as well nothing says which: the blob is given up to be fetched anew.
    let (segment, offset) = find(&device, &content[..64]);
    device.flip(segment, offset, 1);
    assert_eq!(check(&store, &digest).len(), 3);
    let lost = smol::block_on(store.repair(&digest, 0, &content[..CHUNK_BYTES]));
    assert_eq!(lost.unwrap_err().kind(), Kind::Corrupt);
    assert!(store.entry(&digest).is_none());
}

#[test]
fn corrupt_hashes_are_written_anew() {
    for shape in [EMMC, NAND, NOR] {
        let (device, content, digest) = held(shape);
        let first = blake3::hash(&content[..CHUNK_BYTES]);
        let (segment, offset) = find(&device, first.as_bytes());
        device.flip(segment, offset, 1);
        let (store, _) = mount(&device).unwrap();
        assert_eq!(smol::block_on(store.check_all(&digest, async |_| {})).unwrap(), 0);
        drop(store);
        let (segment, offset) = find(&device, &content[..64]);
        device.flip(segment, offset, 1);
        let (store, _) = mount(&device).unwrap();
        assert_eq!(check(&store, &digest), BTreeSet::from([0]), "and no others");
        smol::block_on(store.repair(&digest, 0, &content[..CHUNK_BYTES])).unwrap();
        assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), content);
    }
}

/// A check takes days; what others find or repair meanwhile stays found and repaired.
#[test]
fn a_slow_check_judges_only_what_it_has_just_read() {
    let (device, content, digest) = held(EMMC);
    let (segment, offset) = find(&device, &content[..64]);
    device.flip(segment, offset, 1);
    let (store, _) = mount(&device).unwrap();
    let calls = Cell::new(0);
    let found = smol::block_on(store.check_all(&digest, async |_| {
        calls.set(calls.get() + 1);
        if calls.get() == 1 {
            assert_eq!(store.corrupt(), [(digest, BTreeSet::from([0]))]);
            store.repair(&digest, 0, &content[..CHUNK_BYTES]).await.unwrap();
        }
    }));
    assert_eq!((found.unwrap(), calls.get()), (0, 3));
    assert!(store.corrupt().is_empty(), "repaired, and not called corrupt again");
    let found = smol::block_on(store.check_all(&digest, async |_| {
        if store.corrupt().is_empty() {
            store.set_corrupt(&digest, &BTreeSet::from([0])).await.unwrap();
        }
    }));
    assert_eq!(found.unwrap(), 1, "found by somebody else behind the check");
}

#[test]
fn a_check_holds_no_room() {
    let (device, content, digest) = held(EMMC);
    let (store, _) = mount(&device).unwrap();
    let used = store.stat().used_bytes;
    let mut check = smol::block_on(store.check(&digest)).unwrap();
    assert!(smol::block_on(check.step()).is_some());
    smol::block_on(store.delete(&[digest])).unwrap();
    assert_eq!(store.stat().used_bytes, 0, "of {used}");
    assert_eq!(smol::block_on(check.step()), None);
    smol::block_on(store.set_corrupt(&digest, check.corrupt())).unwrap();
    smol::block_on(store.put(&digest, &content, None)).unwrap();
    assert!(store.corrupt().is_empty());
}

#[test]
fn repairing_survives_a_cut_anywhere() {
    for shape in [EMMC, NAND, NOR] {
        let (device, content, digest) = held(shape);
        let (segment, offset) = find(&device, &content[..64]);
        device.flip(segment, offset, 0x80);
        let (store, _) = mount(&device).unwrap();
        smol::block_on(store.set_corrupt(&digest, &BTreeSet::from([0]))).unwrap();
        drop(store);
        for cut in 0.. {
            let cut_short = Arc::new(device.survivor(0));
            cut_short.cut_after(cut);
            let is_done = mount(&cut_short).is_ok_and(|(store, _)| {
                smol::block_on(store.repair(&digest, 0, &content[..CHUNK_BYTES])).is_ok()
            });
            for seed in 0..5 {
                let (store, _) = mount(&Arc::new(cut_short.survivor(seed))).unwrap();
                let is_flagged = !store.corrupt().is_empty();
                assert!(!is_flagged || !is_done, "cut at {cut}: repaired and corrupt again");
                if !is_flagged {
                    let found = store.read_all(&digest, u64::MAX);
                    assert!(found.is_ok_and(|found| found == content), "cut at {cut}: wrong bytes");
                }
                smol::block_on(store.put(&digest, &content, None)).unwrap();
                assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), content, "cut at {cut}");
            }
            if is_done {
                assert!(cut > 3, "only {cut} operations");
                break;
            }
        }
    }
}

pub fn held(shape: Geometry) -> (Arc<Device>, Vec<u8>, Digest) {
    let device = Arc::new(Device::new(shape));
    let content = bytes(BLOB);
    let digest = Digest::sha256(&content);
    let (store, _) = mount(&device).unwrap();
    smol::block_on(store.put(&digest, &content, None)).unwrap();
    (device, content, digest)
}

pub fn check(store: &Store, digest: &Digest) -> BTreeSet<u32> {
    smol::block_on(async {
        let mut check = store.check(digest).await.unwrap();
        while check.step().await.is_some() {}
        check.corrupt().clone()
    })
}

/// Where `pattern` begins, the last of those places: segment and offset.
pub fn find(device: &Device, pattern: &[u8]) -> (u32, u32) {
    let image = device.image();
    let at = memchr::memmem::rfind(&image, pattern).expect("on the device") as u32;
    (at / device.geometry().segment_bytes, at % device.geometry().segment_bytes)
}
