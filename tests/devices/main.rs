//! What every device promises, and the two ways across embedded-storage.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
#![allow(clippy::print_stderr)]

mod hardware;
mod suite;

use std::path::PathBuf;
use std::sync::Arc;

use embedded_storage::nor_flash::NorFlash;
use embedded_storage_inmemory::MemFlash;
use moonlet::flash::{self, Device as _, Geometry, file, nor, sim};
use moonlet::kind::Kind;
use sequential_storage::cache::Cache;
use sequential_storage::map::{MapConfig, MapStorage};

use suite::{belongs_to_one, carries_the_log, conforms};

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
    for geometry in [EMMC, NAND] {
        let device = sim::Device::new(geometry);
        assert!((0..20).all(|segment| !device.is_bad(segment).unwrap()), "fresh");
    }
}

#[test]
fn a_store_has_one_user() {
    let scratch = Scratch::new("user");
    let open = || flash::open(&scratch.0, Some(16 << 20));
    belongs_to_one(&open, &|| flash::inspect(&scratch.0));
    let no_size = flash::open(&scratch.0, None).err().unwrap().to_string();
    assert!(no_size.contains("is a directory, expected a block device"), "{no_size}");
    let a_file = flash::open(&scratch.0.join("log"), Some(16 << 20)).err().unwrap().to_string();
    assert!(a_file.contains("is a file, expected a block device"), "{a_file}");
    let nothing = flash::open(&scratch.0.join("none"), None).err().unwrap();
    assert_eq!((nothing.kind(), scratch.0.join("none").exists()), (Kind::Missing, false));
    let null = flash::open("/dev/null".as_ref(), Some(16 << 20)).err().unwrap().to_string();
    assert!(null.contains("the character device null, expected a block device"), "{null}");
}

#[test]
fn the_log_runs_on_somebody_elses_driver() {
    carries_the_log(&(Arc::new(chip()) as _));
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
