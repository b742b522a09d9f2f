//! Small blobs share units, whether they are written or copied, and cost two syncs together.

use std::sync::Arc;

use moonlet::blob::Store;
use moonlet::flash::Geometry;
use moonlet::flash::sim::{Device, Worn};
use moonlet::kind::Kind;
use moonlet::oci::Digest;
use smol::LocalExecutor;

use crate::model::bytes;
use crate::run::mount;
use crate::{EMMC, NAND};

#[test]
fn a_batch_shares_units_and_syncs() {
    let device = Arc::new(Device::new(EMMC));
    let store = open(&device);
    let (programmed, operations) = (device.programmed_bytes(), device.operations());
    put_all(&store, &contents(16, 1024)).unwrap();
    // Four units of blobs and one of records.
    assert_eq!(device.programmed_bytes() - programmed, 5 * 4096);
    assert_eq!(device.operations() - operations, 8, "an erase, five programs and two syncs");
    assert_eq!(store.stat().used_bytes, 16 << 10);
    // What comes next begins a unit of its own.
    let programmed = device.programmed_bytes();
    put_all(&store, &contents(1, 700)).unwrap();
    assert_eq!(device.programmed_bytes() - programmed, 2 * 4096);
    assert_eq!(store.stat().used_bytes, (16 << 10) + 1024);
}

#[test]
fn copies_share_units_as_well() {
    for shape in [EMMC, NAND] {
        let segment_count = if shape.reprogram { 10 } else { 14 };
        let geometry = Geometry { segment_count, segment_bytes: 64 << 10, ..shape };
        let device = Arc::new(Device::new(geometry));
        let store = open(&device);
        // One at a time, so that each is all that lives in its unit.
        let small = contents(12, 300);
        small.iter().for_each(|one| put_all(&store, std::slice::from_ref(one)).unwrap());
        // Five segments in all, of which the small ones take a part.
        let large = contents(4, 60_000);
        put_all(&store, &large).unwrap();
        let gone = [Digest::sha256(&large[0]), Digest::sha256(&large[1])];
        smol::block_on(store.delete(&gone)).unwrap();
        put_all(&store, &contents(1, 3 * 60_000)).unwrap();
        let stat = store.stat();
        assert_eq!(stat.copied_bytes, 12 * 512, "{geometry:?}: no more than the small ones");
        drop(store);
        let store = open(&device);
        assert_eq!(store.stat().used_bytes, stat.used_bytes, "{geometry:?}");
        for bytes in small {
            assert_eq!(store.read_all(&Digest::sha256(&bytes), 300).unwrap(), bytes);
        }
    }
}

#[test]
fn a_small_blob_is_repaired_in_less_than_a_unit() {
    let device = Arc::new(Device::new(EMMC));
    let store = open(&device);
    let small = contents(2, 900);
    put_all(&store, &small).unwrap();
    let used = store.stat().used_bytes;
    let digest = Digest::sha256(&small[1]);
    let at = device.image().windows(900).position(|window| window == small[1]).unwrap() as u32;
    device.flip(at / EMMC.segment_bytes, at % EMMC.segment_bytes, 4);
    assert_eq!(smol::block_on(store.check_all(&digest, async |_| {})).unwrap(), 1);
    smol::block_on(store.repair(&digest, 0, &small[1])).unwrap();
    assert_eq!(store.stat().used_bytes, used);
    drop(store);
    let (store, report) = mount(&device).unwrap();
    assert_eq!(report.dropped, 0);
    assert_eq!(store.read_all(&digest, 900).unwrap(), small[1]);
    assert_eq!(store.stat().used_bytes, used);
}

#[test]
fn a_bad_unit_costs_nothing_while_there_are_others() {
    for how in [Worn::ProgramError, Worn::ProgramNothing, Worn::EraseError] {
        let device = Arc::new(Device::new(NAND));
        let store = open(&device);
        (8..20).for_each(|segment| device.wear_out(segment, how));
        let small = contents(3, 100);
        put_all(&store, &small).unwrap();
        assert_eq!(store.digests().len(), 3);
        assert_eq!(store.stat().used_bytes, 3 * 256);
        if how == Worn::EraseError {
            // Their segment is erased already.
            continue;
        }
        smol::block_on(store.pin(&store.digests(), true)).unwrap();
        (20..NAND.segment_count).for_each(|segment| device.wear_out(segment, how));
        let errors = put_all(&store, &contents(6, 1000)[3..]).unwrap_err();
        assert!(errors.iter().all(|kind| matches!(kind, Kind::Full | Kind::Retry)), "{errors:?}");
        assert_eq!(store.digests().len(), 3);
        assert_eq!(store.stat().used_bytes, 3 * 256);
    }
}

#[test]
fn nobody_is_told_yes_when_the_records_cannot_be_synced() {
    for sound in [0, 1] {
        let device = Arc::new(Device::new(EMMC));
        let store = open(&device);
        device.fail_sync_after(sound);
        let errors = put_all(&store, &contents(3, 100)).unwrap_err();
        assert_eq!(errors, [Kind::Retry, Kind::ReadOnly, Kind::ReadOnly]);
    }
}

/// What is free within units that others live in is not worth copying them for.
#[test]
fn room_that_no_copying_frees_is_not_chased() {
    let geometry = Geometry { segment_count: 10, segment_bytes: 64 << 10, ..EMMC };
    let device = Arc::new(Device::new(geometry));
    let store = open(&device);
    let small = contents(81, 3500);
    for one in &small[..80] {
        put_all(&store, std::slice::from_ref(one)).unwrap();
        smol::block_on(store.pin(&[Digest::sha256(one)], true)).unwrap();
    }
    let stat = store.stat();
    assert!(stat.size_max_bytes - stat.used_bytes > 10 * 3584);
    assert_eq!(put_all(&store, &small[80..]), Err(vec![Kind::Full]));
    assert_eq!(store.stat().copied_bytes, 0);
    smol::block_on(store.delete(&[Digest::sha256(&small[5])])).unwrap();
    put_all(&store, &small[80..]).unwrap();
    assert_eq!(store.stat().copied_bytes, 15 * 3584, "those that lie beside it");
}

#[test]
fn whoever_goes_away_leaves_no_room_taken() {
    let device = Arc::new(Device::new(EMMC));
    let store = open(&device);
    let small = contents(2, 2000);
    let digest = Digest::sha256(&small[0]);
    let put = store.put(&digest, &small[0], None);
    let once = smol::future::poll_once(put);
    // It has its place, and is dropped while it waits for others.
    assert!(smol::block_on(once).is_none());
    assert!(store.entry(&digest).is_none());
    put_all(&store, &small[1..]).unwrap();
    assert_eq!(store.stat().used_bytes, 2048);
    put_all(&store, &small[..1]).unwrap();
    assert_eq!(store.read_all(&digest, 2000).unwrap(), small[0]);
}

fn open(device: &Arc<Device>) -> Store {
    mount(device).unwrap().0
}

/// Bytes of blobs, each unlike the others.
fn contents(count: usize, length: usize) -> Vec<Vec<u8>> {
    let long = bytes(3);
    (0..count).map(|index| long[index * 997 + length..][..length].to_vec()).collect()
}

/// Puts blobs at the same time; says how each failed that did.
fn put_all(store: &Store, blobs: &[Vec<u8>]) -> Result<(), Vec<Kind>> {
    let executor = LocalExecutor::new();
    let tasks = blobs.iter().map(|bytes| {
        executor.spawn(async { store.put(&Digest::sha256(bytes), bytes, None).await })
    });
    let tasks: Vec<_> = tasks.collect();
    let failures = smol::block_on(executor.run(async {
        let mut failures = Vec::new();
        for task in tasks {
            failures.extend(task.await.err().map(|error| error.kind()));
        }
        failures
    }));
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}
