//! What goes wrong besides the power: segments that wear out, a file system without room, a card
//! that lies, a store that is full to the last byte.

use std::collections::BTreeSet;
use std::sync::Arc;

use moonlet::blob::{Store, TagKey};
use moonlet::flash::sim::{Device, Worn};
use moonlet::flash::{Device as _, Geometry};
use moonlet::kind::Kind;
use moonlet::oci::Digest;

use crate::check::{check, check_served};
use crate::model::{Blobs, models, workload};
use crate::run::{mount, resume_partials, run, run_stubbornly};
use crate::{EMMC, NAND, NOR};

/// Any one segment, of META or of data, is bad from the start or goes bad half way.
#[test]
fn a_segment_that_cannot_be_programmed_or_erased_costs_nothing() {
    let blobs = Blobs::new();
    let steps = workload();
    let end = models(&steps, steps.len()).0;
    let ways = [Worn::ProgramError, Worn::ProgramNothing, Worn::EraseError, Worn::EraseNothing];
    for geometry in [NAND, NOR] {
        for (how, segment) in ways.into_iter().flat_map(|how| (0..16).map(move |s| (how, s))) {
            for from in [0, steps.len() / 2] {
                let what = format!("{geometry:?}: segment {segment}, {how:?} from step {from}");
                let device = Arc::new(Device::new(geometry));
                let (first, rest) = steps.split_at(from);
                run_stubbornly(&device, &blobs, first, &what);
                device.wear_out(segment, how);
                run_stubbornly(&device, &blobs, rest, &what);
                for seed in 0..2 {
                    let (store, report) = mount(&Arc::new(device.survivor(seed))).unwrap();
                    check(&store, &blobs, &end, &end)
                        .unwrap_or_else(|why| panic!("{what}: {why}; {report}"));
                }
            }
        }
    }
}

/// A log on which several segments are bad, some of META among them, marks them and goes on.
#[test]
fn many_bad_segments_are_marked_and_worked_around() {
    let blobs = Blobs::new();
    let steps = workload();
    let geometry = Geometry { segment_count: 60, ..NAND };
    let device = Arc::new(Device::new(geometry));
    let bad: BTreeSet<u32> = [1, 2, 5, 9, 10, 20, 33].into();
    bad.iter().for_each(|segment| device.wear_out(*segment, Worn::EraseError));
    for _ in 0..3 {
        run_stubbornly(&device, &blobs, &steps, "many");
    }
    let marked = (0..geometry.segment_count).filter(|segment| device.is_bad(*segment).unwrap());
    let marked: BTreeSet<u32> = marked.collect();
    assert!(marked.is_subset(&bad) && marked.len() >= 4, "{marked:?}");
}

/// Whatever cannot be read is said to be corrupt; everything else is there, and META that cannot be
/// read costs at most what it alone held.
#[test]
fn a_segment_that_cannot_be_read_is_no_silent_loss() {
    let blobs = Blobs::new();
    let steps = workload();
    let end = models(&steps, steps.len()).0;
    for geometry in [EMMC, NAND, NOR] {
        let whole = Arc::new(Device::new(geometry));
        assert_eq!(run(&whole, &blobs, &steps), steps.len());
        let mut corrupt = 0;
        for segment in 0..geometry.segment_count {
            let device = Arc::new(whole.survivor(1));
            device.wear_out(segment, Worn::ReadError);
            let (store, report) = mount(&device).unwrap();
            let served = check_served(&store, &blobs)
                .unwrap_or_else(|why| panic!("{geometry:?}: segment {segment}: {why}"));
            let held = store.digests().len();
            let lost = end.held_both(&end).len() - held;
            assert!(lost == 0 || report.damaged > 0, "{geometry:?}: {segment}: {report}");
            corrupt += held - served.len();
        }
        assert!(corrupt > 0, "{geometry:?}: nothing could not be read");
    }
}

/// The file system below has no block left, at any program: nothing is lost, and the store goes on
/// without a restart once there is room.
#[test]
fn a_full_file_system_loses_nothing() {
    let blobs = Blobs::new();
    let steps = workload();
    let end = models(&steps, steps.len()).0;
    let whole = Arc::new(Device::new(EMMC));
    assert_eq!(run(&whole, &blobs, &steps), steps.len());
    let mut met = 0;
    for programs in (0..whole.operations()).step_by(2) {
        let device = Arc::new(Device::new(EMMC));
        device.fill_up_after(programs);
        let what = format!("full after {programs} programs");
        met += run_stubbornly(&device, &blobs, &steps, &what);
        // Such a start serves what is held, all the same.
        device.fill_up_after(0);
        let (store, report) = mount(&device).unwrap();
        check(&store, &blobs, &end, &end).unwrap_or_else(|why| panic!("{what}: {why}; {report}"));
    }
    assert!(met > 100, "met a full file system {met} times");
}

/// Where units are programmed in order, a segment has one writer at a time: one that goes on with
/// an earlier blob has no part any more in the segment in which that began.
#[test]
fn a_resumed_writer_leaves_the_segment_to_its_next_writer() {
    for geometry in [NAND, NOR] {
        let device = Arc::new(Device::new(geometry));
        let (store, _) = mount(&device).unwrap();
        let (first, second, third) = (content(1, 20_000), content(2, 30_000), content(3, 5_000));
        let writer = async |bytes: &[u8]| {
            store.writer(&Digest::sha256(bytes), bytes.len() as u64, None).await.unwrap()
        };
        smol::block_on(async {
            let mut begun = writer(&first).await;
            begun.write(&first[..10_000]).await.unwrap();
            begun.suspend().await.unwrap();
            let mut behind = writer(&second).await;
            behind.write(&second[..9_000]).await.unwrap();
            let mut resumed = writer(&first).await;
            let from = resumed.frontier() as usize;
            assert!(from > 8_000);
            resumed.write(&first[from..]).await.unwrap();
            resumed.commit().await.unwrap();
            store.put(&Digest::sha256(&third), &third, None).await.unwrap();
            behind.write(&second[9_000..]).await.unwrap();
            behind.commit().await.unwrap();
        });
        for bytes in [first, second, third] {
            assert_eq!(store.read_all(&Digest::sha256(&bytes), u64::MAX).unwrap(), bytes);
        }
    }
}

#[test]
fn a_store_that_is_full_to_the_last_byte_still_deletes() {
    // Four to a segment, and not even two.
    for (geometry, size) in [EMMC, NAND, NOR].into_iter().flat_map(|g| [(g, 16_000), (g, 36_000)]) {
        let geometry = Geometry { segment_bytes: 64 << 10, segment_count: 16, ..geometry };
        let device = Arc::new(Device::new(geometry));
        let (store, _) = mount(&device).unwrap();
        let held = fill(&store, size);
        let stat = store.stat();
        let left = stat.size_max_bytes - stat.used_bytes;
        assert!(left < size as u64 + 4096, "{left} bytes left of {}", stat.size_max_bytes);
        for digest in &held {
            smol::block_on(store.delete(&[*digest])).unwrap();
        }
        assert_eq!(store.stat().used_bytes, 0);
        assert_eq!(fill(&store, size).len(), held.len(), "and takes as much again");
        drop(store);
        let (store, _) = mount(&device).unwrap();
        assert_eq!(store.digests().len(), held.len());
    }
}

/// What no desired image needs is evicted, least recently used first; the order of use outlives a
/// restart; what is pinned or read by somebody stays. A tag goes with what it names.
#[test]
fn what_nobody_needs_gives_way_oldest_use_first() {
    let geometry = Geometry { segment_bytes: 64 << 10, segment_count: 16, ..EMMC };
    let device = Arc::new(Device::new(geometry));
    let (store, _) = mount(&device).unwrap();
    let put = |store: &Store, seed: u32| {
        let bytes = content(seed, 60_000);
        let digest = Digest::sha256(&bytes);
        smol::block_on(store.put(&digest, &bytes, None)).map(|()| digest)
    };
    let held: Vec<Digest> = (0..11).map(|seed| put(&store, seed).unwrap()).collect();
    smol::block_on(store.pin(&[held[0]], true)).unwrap();
    // Used again: 1 and 2 are the newest now.
    store.reader(&held[1]).unwrap();
    store.reader(&held[2]).unwrap();
    drop(store);
    // The second mount reads what the first one's checkpoint, not its memory, knows of use.
    let (store, _) = mount(&device).unwrap();
    for digest in &held[1..3] {
        store.reader(digest).unwrap();
    }
    let busy = store.reader(&held[3]).unwrap();
    let key = |tag: &str| TagKey {
        registry: "r".to_owned(),
        repository: "app".to_owned(),
        tag: tag.to_owned(),
    };
    smol::block_on(store.set_tag(&key("old"), &held[4])).unwrap();
    smol::block_on(store.set_tag(&key("pinned"), &held[0])).unwrap();
    put(&store, 20).unwrap();
    put(&store, 21).unwrap();
    drop(store);
    let (store, _) = mount(&device).unwrap();
    let is_held = |index: usize| store.entry(&held[index]).is_some();
    assert!(is_held(0) && is_held(1) && is_held(2) && is_held(3));
    assert!(!is_held(4) && !is_held(5) && is_held(6), "the oldest two were evicted");
    assert_eq!((store.tag(&key("old")), store.tag(&key("pinned"))), (None, Some(held[0])));
    drop(busy);
    let pinned: Vec<Digest> = store.digests();
    smol::block_on(store.pin(&pinned, true)).unwrap();
    assert_eq!(put(&store, 22).unwrap_err().kind(), Kind::Full, "nothing may be evicted");
}

/// The index has an end as well as the room for bytes, and what is not needed is evicted there too.
#[test]
fn a_full_index_makes_room_as_well() {
    let geometry = Geometry { segment_bytes: 16 << 10, segment_count: 300, ..EMMC };
    let device = Arc::new(Device::new(geometry));
    let (store, _) = mount(&device).unwrap();
    let put = |seed: u32, pinned: bool| {
        let bytes = content(seed, 300);
        let digest = Digest::sha256(&bytes);
        smol::block_on(store.put(&digest, &bytes, None))?;
        smol::block_on(store.pin(&[digest], pinned)).map(|()| digest)
    };
    let first: Vec<Digest> = (0..400).map(|seed| put(seed, false).unwrap()).collect();
    let held = store.digests();
    assert!((80..300).contains(&held.len()), "{} held", held.len());
    assert!(store.entry(&first[0]).is_none() && store.entry(&first[399]).is_some());
    let full = (1000..1400).find_map(|seed| put(seed, true).err()).unwrap();
    assert!(full.to_string().contains("in the log's index"), "{full}");
    drop(store);
    assert_eq!(mount(&device).unwrap().1.damaged, 0);
}

/// A sync fails, and the next would succeed although bytes are lost: nothing may be acknowledged
/// any more until the log is mounted again, and what was acknowledged before is there.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let blobs = Blobs::new();
    let steps = workload();
    for syncs in (3..).step_by(4) {
        let device = Arc::new(Device::new(EMMC));
        device.fail_sync_after(syncs);
        let (store, _) = mount(&device).unwrap();
        drop(store);
        let done = run(&device, &blobs, &steps);
        if done == steps.len() {
            assert!(syncs > 40, "only {syncs} syncs");
            break;
        }
        let (before, after) = models(&steps, done);
        let (store, report) = mount(&Arc::new(device.survivor(1))).unwrap();
        check(&store, &blobs, &before, &after)
            .unwrap_or_else(|why| panic!("sync {syncs}, step {done}: {why}; {report}"));
    }
    let device = Arc::new(Device::new(EMMC));
    let (store, _) = mount(&device).unwrap();
    device.fail_sync_after(0);
    let bytes = content(1, 5000);
    let put = || smol::block_on(store.put(&Digest::sha256(&bytes), &bytes, None));
    assert_eq!(put().unwrap_err().kind(), Kind::Retry);
    assert_eq!(put().unwrap_err().kind(), Kind::ReadOnly, "and not as if nothing had been");
    // The sync of the bytes succeeds and that of the Commit does not: it is seen, and not durable.
    let device = Arc::new(Device::new(EMMC));
    let (store, _) = mount(&device).unwrap();
    device.fail_sync_after(1);
    let put = || smol::block_on(store.put(&Digest::sha256(&bytes), &bytes, None));
    assert_eq!(put().unwrap_err().kind(), Kind::Retry);
    assert!(store.entry(&Digest::sha256(&bytes)).is_some());
    assert_eq!(put().unwrap_err().kind(), Kind::ReadOnly, "what is seen is not acknowledged");
}

/// A card that keeps nothing of the last programs, whatever it says, may cost those, but nothing
/// wrong is served.
#[test]
fn a_card_that_lies_may_lose_the_last_but_serves_nothing_wrong() {
    let blobs = Blobs::new();
    let steps = workload();
    let (mut lost, mut tried) = (0, 0);
    for cut in (8..700).step_by(3) {
        let device = Arc::new(Device::new(EMMC));
        device.lie_about_sync(LIES);
        device.cut_after(cut);
        let done = run(&device, &blobs, &steps);
        let (before, after) = models(&steps, done);
        for seed in 0..4 {
            let what = format!("cut at {cut} in step {done}, seed {seed}");
            let (store, _) = mount(&Arc::new(device.survivor(seed))).unwrap();
            // What goes on from such a mount is checked as well.
            let held = store.digests().len();
            resume_partials(&store, &blobs).unwrap_or_else(|why| panic!("{what}: {why}"));
            // What was written last is checked before it is served.
            let suspects: BTreeSet<Digest> = store.suspects().into_iter().collect();
            for digest in &suspects {
                smol::block_on(store.verify_before_serve(digest, async |_| ())).unwrap();
            }
            for digest in store.digests() {
                let is_whole = store.read_all(&digest, u64::MAX).is_ok();
                let is_known = store.is_corrupt(&digest, 0..u64::MAX);
                assert!(is_whole || is_known, "{what}: {digest} is wrong and not known to be");
            }
            lost += before.held_both(&after).len().saturating_sub(held);
            tried += 1;
        }
    }
    assert!(tried > 500 && lost > 0, "{tried} tries, {lost} blobs lost");
}

/// Holds pinned blobs of `size` until no more fit.
fn fill(store: &Store, size: usize) -> Vec<Digest> {
    let mut held = Vec::new();
    for seed in 0.. {
        let bytes = content(seed, size);
        let digest = Digest::sha256(&bytes);
        match smol::block_on(store.put(&digest, &bytes, None)) {
            Ok(()) => held.push(digest),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Full, "{error}");
                break;
            }
        }
        smol::block_on(store.pin(&[digest], true)).unwrap();
    }
    held
}

fn content(seed: u32, size: usize) -> Vec<u8> {
    (0..size as u32).map(|index| (index.wrapping_mul(seed * 2 + 1) >> 5) as u8).collect()
}

/// Programs that such a card has not written yet.
const LIES: usize = 6;
