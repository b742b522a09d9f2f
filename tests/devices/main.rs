//! What every device promises, and the two ways across embedded-storage.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use embedded_storage::nor_flash::NorFlash;
use embedded_storage_inmemory::MemFlash;
use moonlet::blob::Store;
use moonlet::flash::{Device, Geometry, file, nor, sim};
use moonlet::kind::Kind;
use moonlet::metrics::Metrics;
use moonlet::oci::Digest;
use sequential_storage::cache::Cache;
use sequential_storage::map::{MapConfig, MapStorage};

/// A serial NOR of 640 KiB that refuses to be written where it is not erased.
type Chip = MemFlash<{ 640 << 10 }, 4096, 4>;

const SEGMENT_BYTES: u32 = 32 << 10;
const NAND: Geometry = Geometry {
    segment_count: 20,
    segment_bytes: SEGMENT_BYTES,
    program_bytes: 2048,
    reprogram: false,
};
const EMMC: Geometry = Geometry { reprogram: true, ..NAND };

/// A store's directory, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = format!("moonlet-devices-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(path);
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn chip() -> nor::Device<&'static mut Chip> {
    nor::Device::new(driver(), SEGMENT_BYTES).unwrap()
}

/// Lives as long as the process: embedded drivers are lent by `&mut`.
fn driver() -> &'static mut Chip {
    Box::leak(Box::new(Chip::new(0xFF)))
}

#[test]
fn every_device_keeps_its_promises() {
    let scratch = Scratch::new("promises");
    conforms(&file::Device::open(&scratch.0, 16 << 20).unwrap());
    conforms(&sim::Device::new(EMMC));
    conforms(&sim::Device::new(NAND));
    conforms(&chip());
}

fn conforms(device: &dyn Device) {
    let Geometry { segment_count, segment_bytes, program_bytes, reprogram } = device.geometry();
    assert!(segment_count > 4 && segment_bytes.is_multiple_of(program_bytes));
    let unit = program_bytes as usize;
    let last = segment_count - 1;
    let pattern: Vec<u8> = (0..2 * unit).map(|index| (index * 7 + 1) as u8).collect();
    for segment in [0, last] {
        device.erase(segment).unwrap();
        device.program(segment, 0, &pattern).unwrap();
        device.program(segment, segment_bytes - program_bytes, &pattern[..unit]).unwrap();
    }
    device.sync().unwrap();
    // Reads of any alignment.
    for (offset, length) in [(0, 1), (1, 3), (unit - 1, 2), (3, unit), (0, 2 * unit)] {
        let mut found = vec![0; length];
        device.read(last, offset as u32, &mut found).unwrap();
        assert_eq!(found, pattern[offset..offset + length], "{length} bytes at {offset}");
    }
    let mut found = vec![0; unit];
    device.read(0, segment_bytes - program_bytes, &mut found).unwrap();
    assert_eq!(found, pattern[..unit]);
    // Erased, a segment can be programmed from its beginning again.
    device.erase(0).unwrap();
    let other: Vec<u8> = pattern.iter().map(|byte| !byte).collect();
    device.program(0, 0, &other).unwrap();
    if reprogram {
        device.program(0, 0, &other).unwrap();
    }
    device.read(0, 0, &mut found).unwrap();
    assert_eq!(found, other[..unit]);
    device.read(last, 0, &mut found).unwrap();
    assert_eq!(found, pattern[..unit], "another segment is left alone");
    // What is not there.
    for (segment, offset) in [(segment_count, 0), (0, segment_bytes - program_bytes + 1)] {
        assert!(device.read(segment, offset, &mut found).is_err());
        assert!(device.program(segment, offset, &other[..unit]).is_err());
    }
    assert!(device.erase(segment_count).is_err());
    if let Some((file, position)) = device.file_span(last, 0) {
        use std::os::unix::fs::FileExt as _;
        file.read_exact_at(&mut found, position).unwrap();
        assert_eq!(found, pattern[..unit], "the span is where the segment is");
    }
}

#[test]
fn the_log_runs_on_somebody_elses_driver() {
    let device = Arc::new(chip());
    let contents: Vec<Vec<u8>> = (0..40).map(|seed| vec![seed; 30_000]).collect();
    let digests: Vec<Digest> = contents.iter().map(|content| Digest::sha256(content)).collect();
    let open = || Store::open(Arc::clone(&device) as _, Rc::new(Metrics::default())).unwrap().0;
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

#[test]
fn sizes_that_do_not_fit_are_refused() {
    for (segment_bytes, expected) in [(1 << 20, Kind::Invalid), (u32::MAX, Kind::Invalid)] {
        let refused = nor::Device::new(driver(), segment_bytes).err().unwrap();
        assert_eq!(refused.kind(), expected, "{refused}");
    }
    let device = sim::Device::new(NAND);
    assert!(nor::Region::<'_, 32768, 2048>::new(&device, 18..20).is_ok());
    assert!(nor::Region::<'_, 32768, 2048>::new(&device, 18..21).is_err());
    assert!(nor::Region::<'_, 32768, 1024>::new(&device, 18..20).is_err());
    assert!(nor::Region::<'_, 4096, 2048>::new(&device, 18..20).is_err());
}

/// sequential-storage wants the asynchronous traits.
struct Asynchronous<T>(T);

impl<T: NorFlash> embedded_storage_async::nor_flash::ErrorType for Asynchronous<T> {
    type Error = T::Error;
}

impl<T: NorFlash> embedded_storage_async::nor_flash::ReadNorFlash for Asynchronous<T> {
    const READ_SIZE: usize = T::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), T::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<T: NorFlash> embedded_storage_async::nor_flash::NorFlash for Asynchronous<T> {
    const WRITE_SIZE: usize = T::WRITE_SIZE;
    const ERASE_SIZE: usize = T::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), T::Error> {
        self.0.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), T::Error> {
        self.0.write(offset, bytes)
    }
}

#[test]
fn somebody_elses_store_runs_on_our_segments() {
    let nor = Geometry { program_bytes: 32, ..NAND };
    for geometry in [nor, Geometry { reprogram: true, ..nor }] {
        let device = sim::Device::new(geometry);
        let region = || nor::Region::<'_, 32768, 32>::new(&device, 16..20).unwrap();
        region().erase(0, 4 * SEGMENT_BYTES).unwrap();
        for round in 0..200_u32 {
            let flash = Asynchronous(region());
            let config = MapConfig::new(0..4 * SEGMENT_BYTES);
            let mut map = MapStorage::<u8, _, _>::new(flash, config, Cache::new_uncached());
            let mut buffer = [0; 1024];
            smol::block_on(async {
                if let Some(before) = round.checked_sub(1) {
                    let found = map.fetch_item::<u32>(&mut buffer, &7).await.unwrap();
                    assert_eq!(found, Some(before));
                }
                let filler = [round as u8; 700];
                map.store_item(&mut buffer, &8, &filler.as_slice()).await.unwrap();
                map.store_item(&mut buffer, &7, &round).await.unwrap();
            });
        }
    }
}
