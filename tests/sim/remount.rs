//! A sync that fails ends writing; then the log is mounted again by itself, while what is held is
//! served.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moonlet::blob::Store;
use moonlet::flash::sim::Device;
use moonlet::flash::{Error, Geometry};
use moonlet::kind::Kind;
use moonlet::oci::Digest;

use crate::check::check;
use crate::model::{Blobs, models, workload};
use crate::run::{mount, run_remounting};
use crate::{EMMC, NAND, NOR};

/// Any one sync of a workload fails: the step that it was for is done again after the remount, and
/// in the end nothing is missing, in the store that goes on and after the power is pulled.
#[test]
fn a_failed_sync_costs_no_more_than_a_remount() {
    let blobs = Blobs::new();
    let steps = workload();
    let end = models(&steps, steps.len()).0;
    for geometry in [EMMC, NAND, NOR] {
        let mut failures = 0;
        for syncs in (3..).step_by(3) {
            let device = Arc::new(Device::new(geometry));
            device.fail_sync_after(syncs);
            let what = format!("{geometry:?}: sync {syncs}");
            let remounts = run_remounting(&device, &blobs, &steps, &what);
            failures += remounts;
            for seed in 0..2 {
                let (store, report) = mount(&Arc::new(device.survivor(seed))).unwrap();
                check(&store, &blobs, &end, &end)
                    .unwrap_or_else(|why| panic!("{what}: {why}; {report}"));
            }
            if remounts == 0 {
                break;
            }
        }
        assert!(failures > 20, "{geometry:?}: only {failures} syncs failed");
    }
}

/// What was in doubt is not believed: the bytes that reads still saw are gone from the medium.
#[test]
fn what_a_failed_sync_has_lost_is_gone_and_its_readers_room_is_not_used() {
    let geometry = Geometry { segment_count: 10, segment_bytes: 64 << 10, ..EMMC };
    let device = Arc::new(Device::new(geometry));
    let (store, _) = mount(&device).unwrap();
    let (held, lost) = (content(1, 90_000), content(2, 90_000));
    let (held_digest, lost_digest) = (Digest::sha256(&held), Digest::sha256(&lost));
    smol::block_on(async {
        store.put(&held_digest, &held, None).await.unwrap();
        // The bytes are synced, and the Commit is not.
        device.fail_sync_after(1);
        let mut left = store.writer(&Digest::sha256(b"other"), 100_000, None).await.unwrap();
        let failed = store.put(&lost_digest, &lost, None).await.unwrap_err();
        assert_eq!(failed.kind(), Kind::Retry, "{failed}");
        assert!(store.failure().is_some_and(|why| why.contains("could not be written")));
        let reader = store.reader(&lost_digest).unwrap();
        store.failed().await;
        store.remount().await.unwrap();
        assert_eq!(store.failure(), None);
        assert!(store.entry(&lost_digest).is_none(), "its Commit did not reach the medium");
        assert_eq!(store.read_all(&held_digest, u64::MAX).unwrap(), held);
        let refused = left.write(&[7; 9000]).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Retry, "a writer of before: {refused}");
        drop(left);
        // Room is used up to the last, but not where somebody reads.
        for seed in 10.. {
            let filling = content(seed, 30_000);
            match store.put(&Digest::sha256(&filling), &filling, None).await {
                Ok(()) => store.pin(&[Digest::sha256(&filling)], true).await.unwrap(),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Full, "{error}");
                    break;
                }
            }
        }
        let mut bytes = vec![0; lost.len()];
        reader.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, lost, "what is read was programmed over");
        let used = store.stat().used_bytes;
        drop(reader);
        store.flush().await.unwrap();
        assert!(store.stat().used_bytes < used, "the room is free when no reader is there");
    });
}

/// A disk that does not read for a while: nothing is given up, and it is tried again.
#[test]
fn a_disk_that_does_not_read_yet_is_not_taken_for_a_damaged_log() {
    let geometry = Geometry { segment_count: 10, segment_bytes: 64 << 10, ..EMMC };
    let inner = Arc::new(Device::new(geometry));
    let device = Arc::new(Deaf { inner: Arc::clone(&inner), is_deaf: AtomicBool::new(false) });
    let device_of_store: Arc<dyn moonlet::flash::Device> = device.clone();
    let (store, _) = Store::open(device_of_store, Rc::default()).unwrap();
    let held = content(1, 90_000);
    let digest = Digest::sha256(&held);
    smol::block_on(async {
        store.put(&digest, &held, None).await.unwrap();
        inner.fail_sync_after(1);
        store.put(&Digest::sha256(b"x"), b"x", None).await.unwrap_err();
        device.is_deaf.store(true, Ordering::Relaxed);
        let refused = store.remount().await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Retry, "{refused}");
        device.is_deaf.store(false, Ordering::Relaxed);
        assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), held, "served as before");
        store.remount().await.unwrap();
        assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), held, "held as before");
    });
}

/// A simulated device that can be made not to read.
struct Deaf {
    inner: Arc<Device>,
    is_deaf: AtomicBool,
}

impl moonlet::flash::Device for Deaf {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }
    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), Error> {
        if self.is_deaf.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Retry, "the disk does not answer"));
        }
        self.inner.read(segment, offset, buffer)
    }
    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        self.inner.program(segment, offset, bytes)
    }
    fn erase(&self, segment: u32) -> Result<(), Error> {
        self.inner.erase(segment)
    }
    fn sync(&self) -> Result<(), Error> {
        self.inner.sync()
    }
    fn recover(&self) -> Result<(), Error> {
        self.inner.recover()
    }
    fn is_slow(&self) -> bool {
        self.inner.is_slow()
    }
    fn read_only(&self) -> Option<&str> {
        self.inner.read_only()
    }
    fn give_up_from(&self, segment_count: u32) -> Result<(), Error> {
        self.inner.give_up_from(segment_count)
    }
    fn file_span(&self, segment: u32, offset: u32) -> Option<(Arc<std::fs::File>, u64)> {
        self.inner.file_span(segment, offset)
    }
}

fn content(kind: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| ((index / 64) ^ (index >> 14) ^ (kind * 37)) as u8).collect()
}
