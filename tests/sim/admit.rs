//! What is sent was checked first: each chunk once, by one of those who wait for it, again when
//! that is too long ago, and never by what is known of another place.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use moonlet::blob::{Reader, Store};
use moonlet::clock::Clock;
use moonlet::clock::sim::SimulatedClock;
use moonlet::flash::sim::Device;
use moonlet::kind::Kind;
use smol::future::{poll_once, zip};
use smol::{LocalExecutor, block_on};

use crate::rot::{CHUNK_BYTES, check, find, held};
use crate::run::mount;
use crate::{EMMC, NAND, NOR};

const CHUNK: u64 = CHUNK_BYTES as u64;
const NOTHING: [u8; 0] = [];

/// Sends a part of a blob as a server does; returns what was sent, all of it or not.
fn send(reader: &Reader, from: u64, to: u64) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut at = from;
    while at < to {
        let Ok(bytes) = block_on(reader.admit(at, to - at)) else { break };
        assert!((1..=to - at).contains(&bytes), "{bytes} of {}", to - at);
        let mut buffer = vec![0; bytes as usize];
        reader.read_at(at, &mut buffer).unwrap();
        sent.extend(buffer);
        at += bytes;
    }
    sent
}

/// How often the device is read while `run` does something.
fn reads(device: &Device, run: impl FnOnce()) -> u64 {
    let before = device.reads();
    run();
    device.reads() - before
}

#[test]
fn a_flip_anywhere_is_never_sent() {
    for shape in [EMMC, NAND, NOR] {
        let (device, content, digest) = held(shape);
        let end = content.len();
        for at in (0..end).step_by(9973).chain([end - 1]) {
            let hurt = Arc::new(device.survivor(0));
            let start = at / 64 * 64;
            let (segment, offset) = find(&hurt, &content[start..(start + 64).min(end)]);
            hurt.flip(segment, offset + (at - start) as u32, 1 << (at % 8));
            let (store, _) = mount(&hurt).unwrap();
            let reader = store.reader(&digest).unwrap();
            let chunk = at / CHUNK_BYTES;
            let sent = send(&reader, 0, end as u64);
            assert_eq!(sent, content[..chunk * CHUNK_BYTES], "byte {at}");
            assert_eq!(store.corrupt(), [(digest, BTreeSet::from([chunk as u32]))]);
            let woken = block_on(poll_once(store.corruption()));
            assert!(woken.is_some(), "byte {at}: what fetches it again is not woken");
            let after = (chunk + 1) * CHUNK_BYTES;
            let sent = send(&reader, after as u64, end as u64);
            assert_eq!(sent, content[after.min(end)..], "byte {at}: the rest is right");
        }
    }
}

#[test]
fn each_chunk_is_checked_once_and_only_when_it_is_sent() {
    let (device, content, digest) = held(EMMC);
    let (store, _) = mount(&device).unwrap();
    let end = content.len() as u64;
    let reader = store.reader(&digest).unwrap();
    assert_eq!(reader.admitted(0, end), 0);
    let first = reads(&device, || assert_eq!(block_on(reader.admit(5, 10)).unwrap(), 10));
    assert!(first > 0);
    assert_eq!(reader.admitted(0, end), CHUNK);
    assert_eq!(reader.admitted(CHUNK, end), 0, "which no reader asked for");
    let again = store.reader(&digest).unwrap();
    let second = reads(&device, || assert_eq!(block_on(again.admit(0, 10)).unwrap(), 10));
    assert_eq!(second, 0, "the next one");
    block_on(again.admit(CHUNK, end - CHUNK)).unwrap();
    block_on(again.admit(2 * CHUNK, end - 2 * CHUNK)).unwrap();
    let whole = reads(&device, || assert_eq!(block_on(reader.admit(0, end)).unwrap(), end));
    assert_eq!(whole, 0, "a blob that was checked passes as a whole");
}

#[test]
fn all_who_wait_share_one_check() {
    for flip in [false, true] {
        let (device, content, digest) = held(EMMC);
        if flip {
            let (segment, offset) = find(&device, &content[..64]);
            device.flip(segment, offset, 1);
        }
        let ask = async |store: &Store| {
            let reader = store.reader(&digest).unwrap();
            let answer = reader.admit(0, CHUNK).await.map_err(|error| error.kind());
            assert_eq!(answer, if flip { Err(Kind::Corrupt) } else { Ok(CHUNK) });
        };
        let twin = Arc::new(device.survivor(0));
        let (alone, _) = mount(&twin).unwrap();
        let once = reads(&twin, || block_on(ask(&alone)));
        let (store, _) = mount(&device).unwrap();
        let executor = LocalExecutor::new();
        let together = reads(&device, || {
            let tasks: Vec<_> = (0..50).map(|_| executor.spawn(ask(&store))).collect();
            block_on(executor.run(async {
                for task in tasks {
                    task.await;
                }
            }));
        });
        assert_eq!(together, once, "flip {flip}");
    }
}

#[test]
fn a_check_is_trusted_for_the_interval_and_no_longer() {
    let (device, content, digest) = held(EMMC);
    let (store, _) = mount(&device).unwrap();
    let clock = Rc::new(SimulatedClock::new(0));
    store.verify_every(Duration::from_hours(24), Rc::clone(&clock) as Rc<dyn Clock>);
    let end = content.len() as u64;
    let reader = store.reader(&digest).unwrap();
    assert_eq!(send(&reader, 0, end), content);
    let (segment, offset) = find(&device, &content[CHUNK_BYTES..CHUNK_BYTES + 64]);
    device.flip(segment, offset, 4);
    clock.advance(Duration::from_hours(23));
    assert_eq!(reader.admitted(0, end), end);
    clock.advance(Duration::from_hours(1));
    assert_eq!(reader.admitted(0, end), 0);
    assert_eq!(send(&reader, 0, end), content[..CHUNK_BYTES]);
    assert_eq!(store.corrupt(), [(digest, BTreeSet::from([1]))]);
    // However short the interval is, what was checked a moment ago is sent.
    store.verify_every(Duration::ZERO, clock as Rc<dyn Clock>);
    assert_eq!(send(&reader, 0, end), content[..CHUNK_BYTES]);
}

#[test]
fn what_is_found_elsewhere_is_not_sent_either() {
    let (device, content, digest) = held(EMMC);
    let (store, _) = mount(&device).unwrap();
    let end = content.len() as u64;
    let reader = store.reader(&digest).unwrap();
    assert_eq!(send(&reader, 0, end), content);
    let (segment, offset) = find(&device, &content[..64]);
    device.flip(segment, offset, 4);
    assert_eq!(block_on(store.check_all(&digest, async |_| {})).unwrap(), 1);
    assert_eq!(send(&reader, 0, end), NOTHING, "that was on its way already");
}

/// A body may be on its way for hours, from where the blob was before it was repaired.
#[test]
fn what_is_known_of_one_place_says_nothing_of_another() {
    let (device, content, digest) = held(EMMC);
    let (segment, offset) = find(&device, &content[..64]);
    device.flip(segment, offset, 4);
    let (store, _) = mount(&device).unwrap();
    let end = content.len() as u64;
    let old = store.reader(&digest).unwrap();
    assert_eq!(send(&old, 0, end), NOTHING);
    block_on(store.repair(&digest, 0, &content[..CHUNK_BYTES])).unwrap();
    let new = store.reader(&digest).unwrap();
    assert_eq!(new.admitted(0, end), 0);
    assert_eq!(send(&new, 0, end), content);
    assert_eq!(send(&old, 0, end), NOTHING, "the old place is as corrupt as before");
    assert!(store.corrupt().is_empty(), "and the new one is not marked for it");
    assert_eq!(send(&store.reader(&digest).unwrap(), 0, end), content);
    // The same digest once more, where other bytes were.
    drop(new);
    block_on(store.delete(&[digest])).unwrap();
    block_on(store.put(&digest, &content, None)).unwrap();
    assert_eq!(store.reader(&digest).unwrap().admitted(0, end), 0);
}

#[test]
fn a_corrupt_trailer_of_sound_bytes_holds_nothing_up() {
    for shape in [EMMC, NAND, NOR] {
        let (device, content, digest) = held(shape);
        let first = blake3::hash(&content[..CHUNK_BYTES]);
        let (segment, offset) = find(&device, first.as_bytes());
        device.flip(segment, offset, 1);
        let (store, _) = mount(&device).unwrap();
        let end = content.len() as u64;
        let reader = store.reader(&digest).unwrap();
        let (ended, turns) = (Cell::new(false), Cell::new(0));
        let admitting = async {
            assert_eq!(reader.admit(0, CHUNK).await.unwrap(), CHUNK);
            ended.set(true);
        };
        let others = async {
            while !ended.get() {
                turns.set(turns.get() + 1);
                smol::future::yield_now().await;
            }
        };
        block_on(zip(admitting, others));
        assert!(turns.get() >= content.len() / 32768, "{} turns for others", turns.get());
        assert_eq!(send(&reader, 0, end), content);
        assert!(store.corrupt().is_empty());
        // It was written anew: with a flip as well, one chunk is corrupt and not all.
        let (segment, offset) = find(&device, &content[..64]);
        device.flip(segment, offset, 1);
        let (store, _) = mount(&device).unwrap();
        assert_eq!(check(&store, &digest), BTreeSet::from([0]));
    }
}

#[test]
fn without_any_hash_left_nothing_is_sent_and_that_is_one_record() {
    let (device, content, digest) = held(EMMC);
    let first = blake3::hash(&content[..CHUNK_BYTES]);
    for pattern in [first.as_bytes().as_slice(), &content[..64]] {
        let (segment, offset) = find(&device, pattern);
        device.flip(segment, offset, 1);
    }
    for check_first in [false, true] {
        let device = Arc::new(device.survivor(0));
        let (store, _) = mount(&device).unwrap();
        let operations = device.operations();
        if check_first {
            assert_eq!(block_on(store.check_all(&digest, async |_| {})).unwrap(), 3);
        }
        let reader = store.reader(&digest).unwrap();
        for chunk in 0..3 {
            let refused = block_on(reader.admit(chunk * CHUNK, 1)).unwrap_err();
            assert_eq!(refused.kind(), Kind::Corrupt);
        }
        assert_eq!(store.corrupt(), [(digest, BTreeSet::from([0, 1, 2]))]);
        block_on(store.flush()).unwrap();
        assert_eq!(device.operations() - operations, 2, "a program and a sync");
    }
}

#[test]
fn blobs_of_one_chunk_have_their_digest() {
    for shape in [EMMC, NAND, NOR] {
        let (device, _, _) = held(shape);
        for length in [1, 300, 100_000, CHUNK_BYTES] {
            let bytes: Vec<u8> = (0..length).map(|index| (index * 7 / 3) as u8 ^ 0x5A).collect();
            let digest = moonlet::oci::Digest::sha256(&bytes);
            let (store, _) = mount(&device).unwrap();
            block_on(store.put(&digest, &bytes, None)).unwrap();
            let reader = store.reader(&digest).unwrap();
            assert_eq!(send(&reader, 0, length as u64), bytes);
            drop((reader, store));
            let hurt = Arc::new(device.survivor(0));
            let (segment, offset) = find(&hurt, &bytes[..length.min(1000)]);
            hurt.flip(segment, offset + (length as u32 - 1).min(999), 2);
            let (store, _) = mount(&hurt).unwrap();
            let reader = store.reader(&digest).unwrap();
            assert_eq!(send(&reader, 0, length as u64), NOTHING, "{length}");
            assert!(store.is_corrupt(&digest, 0..1));
        }
    }
}
