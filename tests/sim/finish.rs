//! Blobs that are finished wait for a sync with their Commit, and are never worth more than a kill
//! or a power cut may cost.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::{Deref, Range};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use moonlet::blob::{Error, Store, Writer};
use moonlet::flash::sim::Device;
use moonlet::flash::{self, Geometry};
use moonlet::kind::Kind;
use moonlet::metrics::Metrics;
use moonlet::oci::Digest;
use smol::future::poll_once;

use crate::run::mount;
use crate::{EMMC, NAND, NOR};

#[test]
fn a_finished_blob_is_seen_once_it_is_flushed() {
    for geometry in [EMMC, NAND, NOR] {
        let device = Arc::new(Device::new(geometry));
        let (store, _) = mount(&device).unwrap();
        let (first, second) = (content(1, 300_000), content(2, 200_000));
        let digest = Digest::sha256(&first);
        smol::block_on(async {
            finish(&store, &first).await.unwrap();
            assert!(store.entry(&digest).is_none() && store.is_whole(&digest));
            // No one else may write it, nor take it away.
            let again = store.writer(&digest, first.len() as u64, None).await.err().unwrap();
            assert_eq!(again.kind(), Kind::Invalid, "{again}");
            store.delete(&[digest]).await.unwrap();
        });
        // To flush what was deleted flushes it as well.
        assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), first);
        smol::block_on(async {
            finish(&store, &second).await.unwrap();
            store.put(&Digest::sha256(&second), &second, Some("application/x")).await.unwrap();
        });
        assert_eq!(store.manifests().len(), 1, "it has the media type that came with it");
        drop(store);
        let (store, _) = mount(&Arc::new(device.survivor(0))).unwrap();
        for bytes in [first, second] {
            assert_eq!(store.read_all(&Digest::sha256(&bytes), u64::MAX).unwrap(), bytes);
        }
    }
}

#[test]
fn what_was_finished_and_not_flushed_is_gone_and_can_be_had_again() {
    for geometry in [EMMC, NAND, NOR] {
        let device = Arc::new(Device::new(geometry));
        let (store, _) = mount(&device).unwrap();
        let bytes = content(3, 300_000);
        let used = store.stat().used_bytes;
        smol::block_on(finish(&store, &bytes)).unwrap();
        drop(store);
        for seed in 0..20 {
            let (store, report) = mount(&Arc::new(device.survivor(seed))).unwrap();
            assert_eq!((store.digests().len(), report.dropped), (0, 0), "{geometry:?}: {report}");
            smol::block_on(async {
                finish(&store, &bytes).await.unwrap();
                store.flush().await.unwrap();
            });
            let digest = Digest::sha256(&bytes);
            assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), bytes);
            smol::block_on(store.delete(&[digest])).unwrap();
            assert_eq!(store.stat().used_bytes, used, "{geometry:?}: room that nothing names");
        }
    }
}

#[test]
fn a_failed_sync_commits_nothing_that_was_finished() {
    let device = Arc::new(Device::new(EMMC));
    let (store, _) = mount(&device).unwrap();
    let bytes = content(4, 300_000);
    smol::block_on(finish(&store, &bytes)).unwrap();
    device.fail_sync_after(0);
    smol::block_on(store.flush()).unwrap_err();
    assert!(store.entry(&Digest::sha256(&bytes)).is_none());
    smol::block_on(store.flush()).unwrap_err();
    drop(store);
    let (store, _) = mount(&Arc::new(device.survivor(0))).unwrap();
    assert_eq!(store.digests(), []);
}

/// One blob after the other, as over a metered link, whatever their sizes: a cut at any operation
/// costs no more than is promised.
#[test]
fn a_cut_costs_no_more_than_is_promised() {
    let sizes = [
        vec![1_050_000; 8],
        vec![60_000; 120],
        vec![5_000_000, 30_000],
        vec![1_600_000, 1_540_000, 1_000, 1_600_000, 20_000, 1_560_000],
    ];
    for (geometry, sizes) in [EMMC, NAND, NOR].iter().zip(sizes.iter().cycle().skip(1)) {
        cost_of_cuts(*geometry, sizes);
    }
    sizes.iter().for_each(|sizes| cost_of_cuts(EMMC, sizes));
}

fn cost_of_cuts(geometry: Geometry, sizes: &[usize]) {
    let segment_count = (12 << 20) / geometry.segment_bytes + 8;
    let geometry = Geometry { segment_count, ..geometry };
    let blobs: Vec<Vec<u8>> =
        (0..).zip(sizes).map(|(index, size)| content(10 + index, *size)).collect();
    let device = Arc::new(Device::new(geometry));
    let (store, _) = mount(&device).unwrap();
    device.remember();
    let begun = device.operations();
    // What had arrived when so many operations were done.
    let mut arrived = vec![(0, 0)];
    let mut all = 0;
    smol::block_on(async {
        for bytes in &blobs {
            let mut writer = writer(&store, bytes).await.unwrap();
            for piece in bytes.chunks(PIECE_BYTES) {
                all += piece.len();
                // Counted before it is written: then it has crossed the link.
                arrived.push((device.operations() - begun, all));
                writer.write(piece).await.unwrap();
            }
            writer.finish().await.unwrap();
        }
        store.flush().await.unwrap();
    });
    let mut worst = 0;
    for cut in (0..).take_while(|cut| device.at(*cut).is_some()) {
        let arrived = arrived.iter().take_while(|(operations, _)| *operations <= cut as u64);
        let arrived = arrived.last().unwrap().1;
        let survivor = Arc::new(device.at(cut).unwrap().survivor(0));
        let (store, _) = mount(&survivor).unwrap();
        let held: u64 = store.digests().iter().map(|d| store.entry(d).unwrap().size).sum();
        let begun: u64 = store.partials().iter().map(|partial| partial.frontier).sum();
        worst = worst.max(arrived as u64 - (held + begun).min(arrived as u64));
    }
    assert!(worst <= PROMISED_BYTES, "{geometry:?}, {sizes:?}: a cut cost {worst} bytes");
    assert!(worst > 1 << 20, "{geometry:?}, {sizes:?}: {worst} bytes, was anything cut?");
}

/// However long a sync takes, a writer does not run away from what is durable.
#[test]
fn a_writer_waits_for_a_sync_that_takes_long() {
    let (slow, store) = slow();
    let blobs = [content(50, 1_050_000), content(51, 3_000_000)];
    let mut pieces: VecDeque<&[u8]> = blobs[1].chunks(PIECE_BYTES).collect();
    smol::block_on(async {
        finish(&store, &blobs[0]).await.unwrap();
        let mut writer = writer(&store, &blobs[1]).await.unwrap();
        slow.syncs.hold(true);
        let mut arrived = blobs[0].len();
        loop {
            let piece = pieces.pop_front().expect("it waits at last");
            arrived += piece.len();
            let before = slow.metrics.flash_programmed_bytes.value();
            let mut writing = Box::pin(writer.write(piece));
            let is_written = loop {
                if poll_once(&mut writing).await.is_some() {
                    break true;
                }
                // When it is programmed and goes on, it is for the sync.
                let programmed = slow.metrics.flash_programmed_bytes.value() - before;
                if programmed >= piece.len() as u64 {
                    break false;
                }
                smol::Timer::after(Duration::from_millis(1)).await;
            };
            if is_written {
                continue;
            }
            assert!(arrived as u64 <= PROMISED_BYTES, "{arrived} bytes are at stake");
            assert!(store.entry(&Digest::sha256(&blobs[0])).is_none(), "nothing is durable yet");
            slow.syncs.hold(false);
            writing.await.unwrap();
            break;
        }
        // With it the blob that came before was committed.
        assert!(store.entry(&Digest::sha256(&blobs[0])).is_some());
        for piece in pieces {
            writer.write(piece).await.unwrap();
        }
        writer.commit().await.unwrap();
    });
    let digest = Digest::sha256(&blobs[1]);
    assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), blobs[1]);
}

/// A sync that began before a blob was whole says nothing of its end.
#[test]
fn a_blob_that_is_finished_during_a_sync_waits_for_the_next() {
    let (slow, store) = slow();
    let (long, short) = (content(60, 3_000_000), content(61, 300_000));
    let digest = Digest::sha256(&short);
    smol::block_on(async {
        let mut writer = writer(&store, &long).await.unwrap();
        slow.syncs.hold(true);
        // A sync is begun.
        writer.write(&long[..1_600_000]).await.unwrap();
        finish(&store, &short).await.unwrap();
        slow.syncs.hold(false);
        // It is waited for, and another begun.
        writer.write(&long[1_600_000..2_500_000]).await.unwrap();
        assert!(store.partials().iter().any(|partial| partial.frontier > 1_500_000));
        assert!(store.entry(&digest).is_none() && store.is_whole(&digest));
        writer.write(&long[2_500_000..]).await.unwrap();
        writer.commit().await.unwrap();
        assert!(store.entry(&digest).is_some());
    });
}

/// What somebody has begun who went away reaches the device before anything that is begun later,
/// and so never what lies in the same room by then.
#[test]
fn a_program_that_is_left_behind_spoils_nothing() {
    let (slow, store) = slow();
    let (first, second) = (content(90, 500_000), content(91, 500_000));
    smol::block_on(async {
        for round in 0..4 {
            let mut early = writer(&store, &first).await.unwrap();
            slow.programs.hold(true);
            let mut writing = Box::pin(early.write(&first[..300_000]));
            assert!(poll_once(&mut writing).await.is_none(), "it is being programmed");
            drop(writing);
            assert!(early.frontier() >= 290_000, "what is under way counts as arrived");
            drop(early);
            // Deleted, its room is given to the next.
            let mut next = Box::pin(async {
                store.delete(&[Digest::sha256(&first)]).await.unwrap();
                finish(&store, &second).await.unwrap();
                store.flush().await.unwrap();
            });
            assert!(poll_once(&mut next).await.is_none(), "it comes behind");
            slow.programs.hold(false);
            next.await;
            let digest = Digest::sha256(&second);
            assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), second, "round {round}");
            store.delete(&[digest]).await.unwrap();
        }
        // A writer that no one waited for at the time goes on where it was.
        let mut early = writer(&store, &first).await.unwrap();
        slow.programs.hold(true);
        assert!(poll_once(&mut Box::pin(early.write(&first[..300_000]))).await.is_none());
        slow.programs.hold(false);
        let from = early.frontier() as usize;
        early.write(&first[from..]).await.unwrap();
        early.commit().await.unwrap();
    });
    assert_eq!(store.read_all(&Digest::sha256(&first), u64::MAX).unwrap(), first);
    let (store, _) = mount(&Arc::new(slow.device.device.survivor(0))).unwrap();
    assert_eq!(store.read_all(&Digest::sha256(&first), u64::MAX).unwrap(), first);
}

/// Records and small blobs that were under way when the task that waited went away are there
/// for the one that comes next.
#[test]
fn records_that_are_left_behind_are_waited_for_by_the_next() {
    let (slow, store) = slow();
    let (one, two) = (content(95, 700), content(96, 900));
    smol::block_on(async {
        for round in 0..200_u32 {
            let said = round.to_le_bytes();
            slow.programs.hold(true);
            let mut setting = Box::pin(store.set_document("x", &said));
            assert!(poll_once(&mut setting).await.is_none());
            drop(setting);
            slow.programs.hold(false);
            store.flush().await.unwrap();
            let (store, _) = mount(&Arc::new(slow.device.device.survivor(0))).unwrap();
            assert_eq!(store.document("x").as_deref(), Some(said.as_slice()), "round {round}");
        }
        slow.programs.hold(true);
        let (one_digest, two_digest) = (Digest::sha256(&one), Digest::sha256(&two));
        let mut first = Box::pin(store.put(&one_digest, &one, None));
        let mut second = Box::pin(store.put(&two_digest, &two, None));
        // Both are in the unit when it is programmed.
        for _ in 0..3 {
            assert!(poll_once(&mut first).await.is_none());
            assert!(poll_once(&mut second).await.is_none());
        }
        drop(first);
        slow.programs.hold(false);
        second.await.unwrap();
    });
    let (store, _) = mount(&Arc::new(slow.device.device.survivor(0))).unwrap();
    assert_eq!(store.read_all(&Digest::sha256(&two), u64::MAX).unwrap(), two);
}

/// No reader waits for a device that is being written.
#[test]
fn reading_goes_on_while_nothing_can_be_programmed() {
    let (slow, store) = slow();
    let (held, other) = (content(97, 400_000), content(98, 400_000));
    smol::block_on(async {
        finish(&store, &held).await.unwrap();
        store.flush().await.unwrap();
        [&slow.programs, &slow.syncs, &slow.ranges].iter().for_each(|gate| gate.hold(true));
        let mut writing = Box::pin(finish(&store, &other));
        assert!(poll_once(&mut writing).await.is_none());
        let reader = store.reader(&Digest::sha256(&held)).unwrap();
        let mut at = 0;
        while at < reader.size() {
            at += reader.admit(at, reader.size() - at).await.unwrap();
        }
        assert_eq!(store.read_all(&Digest::sha256(&held), u64::MAX).unwrap(), held);
        [&slow.programs, &slow.syncs, &slow.ranges].iter().for_each(|gate| gate.hold(false));
        writing.await.unwrap();
    });
}

/// A Commit that somebody else appended while one waited to flush is waited for, too.
#[test]
fn to_flush_is_to_wait_for_commits_that_others_appended() {
    let (slow, store) = slow();
    let blobs = [content(70, 300_000), content(71, 300_000)];
    let [first, second] = blobs.each_ref().map(|bytes| Digest::sha256(bytes));
    let long = content(72, 4_000_000);
    smol::block_on(async {
        finish(&store, &blobs[0]).await.unwrap();
        slow.syncs.hold(true);
        slow.ranges.hold(true);
        let mut earlier = Box::pin(store.flush());
        assert!(poll_once(&mut earlier).await.is_none(), "it syncs the first");
        finish(&store, &blobs[1]).await.unwrap();
        let mut flushing = Box::pin(store.flush());
        assert!(poll_once(&mut flushing).await.is_none(), "it waits for its turn");
        slow.syncs.hold(false);
        while store.entry(&first).is_none() {
            assert!(poll_once(&mut earlier).await.is_none(), "it syncs the first's Commit");
            smol::Timer::after(Duration::from_millis(1)).await;
        }
        let mut writer = writer(&store, &long).await.unwrap();
        let mut pieces = long.chunks(PIECE_BYTES);
        while store.entry(&second).is_none() {
            let mut writing = Box::pin(writer.write(pieces.next().unwrap()));
            // Its own sync of bytes goes on; that of its Progress is after the others.
            while store.entry(&second).is_none() && poll_once(&mut writing).await.is_none() {
                smol::Timer::after(Duration::from_millis(1)).await;
            }
        }
        slow.ranges.hold(false);
        earlier.await.unwrap();
        flushing.await.unwrap();
    });
    let (store, _) = mount(&Arc::new(slow.device.device.survivor(0))).unwrap();
    assert!(store.entry(&second).is_some(), "it was flushed");
}

/// A blob is deleted and written again before its first writer has heard that it is durable.
#[test]
fn an_early_writer_leaves_a_later_one_alone() {
    let (slow, store) = slow();
    for bytes in [content(80, 1000), content(81, 1_600_000)] {
        let digest = Digest::sha256(&bytes);
        slow.ranges.hold(true);
        let release = async |early: Pin<&mut dyn Future<Output = Result<(), Error>>>| {
            slow.ranges.hold(false);
            early.await.unwrap();
        };
        smol::block_on(async {
            let mut early = Box::pin(finish(&store, &bytes));
            while store.entry(&digest).is_none() {
                assert!(poll_once(&mut early).await.is_none(), "its Commit is not durable");
                smol::Timer::after(Duration::from_millis(1)).await;
            }
            let named = [digest];
            let mut deleting = Box::pin(store.delete(&named));
            assert!(poll_once(&mut deleting).await.is_none());
            if store.entry(&digest).is_some() {
                // It had a writer still.
                let mut again = Box::pin(store.put(&digest, &bytes, None));
                assert!(poll_once(&mut again).await.is_none());
                release(early.as_mut()).await;
                deleting.await.unwrap();
                again.await.unwrap();
                assert!(store.entry(&digest).is_some(), "what was said to be held");
                return;
            }
            let mut later = writer(&store, &bytes).await.unwrap();
            release(early.as_mut()).await;
            deleting.await.unwrap();
            let third = writer(&store, &bytes).await.err().unwrap();
            assert_eq!(third.kind(), Kind::Invalid, "{third}");
            later.write(&bytes).await.unwrap();
            later.commit().await.unwrap();
            assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), bytes);
        });
    }
}

/// What a store lies on, and counts.
struct SlowStore {
    device: Arc<Slow>,
    metrics: Rc<Metrics>,
}

impl Deref for SlowStore {
    type Target = Slow;

    fn deref(&self) -> &Slow {
        &self.device
    }
}

fn slow() -> (SlowStore, Store) {
    let [syncs, ranges, programs] = Default::default();
    let device = Arc::new(Slow { device: Device::new(EMMC), syncs, ranges, programs });
    let metrics = Rc::new(Metrics::default());
    let (store, _) = Store::open(Arc::clone(&device) as _, Rc::clone(&metrics)).unwrap();
    (SlowStore { device, metrics }, store)
}

async fn writer(store: &Store, bytes: &[u8]) -> Result<Writer, Error> {
    store.writer(&Digest::sha256(bytes), bytes.len() as u64, None).await
}

/// Writes what is missing of a blob, and finishes it.
async fn finish(store: &Store, bytes: &[u8]) -> Result<(), Error> {
    let mut writer = writer(store, bytes).await?;
    let from = writer.frontier() as usize;
    writer.write(&bytes[from..]).await?;
    writer.finish().await
}

/// Bytes that are like no others of the same kind.
fn content(kind: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 64) as u8 ^ (index >> 14) as u8 ^ kind).collect()
}

/// A device whose syncs and programs go on for as long as they are held.
struct Slow {
    device: Device,
    syncs: Gate,
    ranges: Gate,
    programs: Gate,
}

#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn hold(&self, held: bool) {
        *self.0.lock().unwrap() = held;
        self.1.notify_all();
    }

    fn pass(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |held| *held).unwrap());
    }
}

impl flash::Device for Slow {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), flash::Error> {
        self.device.read(segment, offset, buffer)
    }

    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), flash::Error> {
        self.programs.pass();
        self.device.program(segment, offset, bytes)
    }

    fn erase(&self, segment: u32) -> Result<(), flash::Error> {
        self.device.erase(segment)
    }

    fn sync(&self) -> Result<(), flash::Error> {
        self.syncs.pass();
        self.device.sync()
    }

    fn sync_range(&self, segment: u32, range: Range<u32>) -> Result<(), flash::Error> {
        self.ranges.pass();
        self.device.sync_range(segment, range)
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn read_only(&self) -> Option<&str> {
        None
    }

    fn give_up_from(&self, segment_count: u32) -> Result<(), flash::Error> {
        self.device.give_up_from(segment_count)
    }

    fn file_span(&self, _: u32, _: u32) -> Option<(Arc<File>, u64)> {
        None
    }
}

/// As much as comes from the network at a time.
const PIECE_BYTES: usize = 64 << 10;
/// README.md: what a kill or a pulled plug costs, but for what the kernel has received.
const PROMISED_BYTES: u64 = 2 << 20;
