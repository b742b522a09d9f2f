//! A preallocated file on ext4, f2fs, UBIFS or any other file system: the default device.
//!
//! One file holds all segments and does not change its length at work: it is allocated whole
//! before first use, so that the disk cannot fill up under an acknowledged blob and a recycled
//! segment costs no file-system metadata. The store's directory holds:
//!
//! ```text
//! layout   text: the version of this arrangement, segment_bytes, segment_count
//! log      segment_count * segment_bytes bytes, or more where a change of size was cut short
//! lock     held (flock) by the process that has the store open
//! ```

mod layout;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;
use rustix::fs::{Advice, fadvise};

use super::syncs::Syncs;
use super::{Error, Geometry, Health, health, sysfs};
use crate::kind::Kind;
use crate::units::{ByteCount, to_usize};
use layout::{Layout, allocate, is_whole};

/// The open store directory.
pub struct Device {
    log: Arc<File>,
    syncs: Syncs,
    geometry: Geometry,
    path: PathBuf,
    /// Why nothing can be programmed.
    read_only: Option<String>,
    _lock: Option<File>,
}

impl Device {
    /// Opens the store in `directory`, or makes one of `size_max` bytes (rounded down to whole
    /// segments) where there is none. A store that exists grows to `size_max`, in segments of the
    /// size it was made with, as far as there is room; to shrink it is [`Device::give_up_from`]'s.
    /// One that may only be read is opened for that: what it holds can still be served.
    ///
    /// Errors name the path: no permission, no room for `size_max`, a store in use by another
    /// process, a layout that this version does not know.
    pub fn open(directory: &Path, size_max: u64) -> Result<Self, Error> {
        match Self::open_or_make(directory, size_max) {
            Err(error) if error.kind() == Kind::ReadOnly && directory.join("layout").exists() => {
                Self::open_to_read(directory, error.to_string())
            }
            other => other,
        }
    }

    /// Opens the store in `directory` to look at it; nothing is changed.
    ///
    /// Errors as for [`Device::open`]; [`Kind::Missing`] where there is no store.
    pub fn inspect(directory: &Path) -> Result<Self, Error> {
        if !directory.join("layout").exists() {
            let what = format!("store {}: there is none yet", directory.display());
            return Err(Error::new(Kind::Missing, what + ": moonlet run or moonlet sync makes it"));
        }
        Self::open_to_read(directory, "it was opened to be looked at".to_owned())
    }

    fn open_or_make(directory: &Path, size_max: u64) -> Result<Self, Error> {
        let what = || format!("store {}: directory", directory.display());
        std::fs::create_dir_all(directory).map_err(|error| Error::io(what(), error))?;
        let options = OpenOptions::new().create(true).truncate(false).write(true).to_owned();
        let lock = lock(directory, &options, File::try_lock)?;
        match Layout::read(directory) {
            // Where the log says what its layout was, a layout that is damaged or gone costs
            // nothing.
            Err(error) if matches!(error.kind(), Kind::Missing | Kind::Corrupt) => {
                let recorded = Layout::of_log(directory);
                if recorded.is_some() || error.kind() == Kind::Corrupt {
                    warn!("{error}; it is written anew");
                }
                match recorded {
                    Some(layout) => layout.write(directory).map_err(|error| {
                        Error::io(format!("store {}: layout", directory.display()), error)
                    })?,
                    None => allocate(directory, Layout::for_size(size_max))?,
                }
            }
            Err(error) => return Err(error),
            Ok(layout) if !directory.join("log").exists() => {
                let path = directory.display();
                warn!(
                    "store {path}: log is gone; it is begun anew, and all images are fetched again"
                );
                allocate(directory, layout)?;
            }
            Ok(layout) => {
                let wanted = layout.with_size(size_max);
                if wanted.segment_count > layout.segment_count
                    && is_whole(directory, layout)
                    && let Err(error) = allocate(directory, wanted)
                {
                    // What it holds is worth more than its size.
                    warn!("{error}; it stays at {}", ByteCount(layout.bytes()));
                }
            }
        }
        let log = OpenOptions::new().read(true).write(true).to_owned();
        Self::open_log(directory, &log, Some(lock), None)
    }

    fn open_to_read(directory: &Path, why: String) -> Result<Self, Error> {
        let options = OpenOptions::new().read(true).to_owned();
        let lock = match lock(directory, &options, File::try_lock_shared) {
            Ok(lock) => Some(lock),
            // Then no one has ever written here, nor can.
            Err(error) if error.kind() == Kind::Missing => None,
            Err(error) => return Err(error),
        };
        Self::open_log(directory, &options, lock, Some(why))
    }

    fn open_log(
        directory: &Path,
        options: &OpenOptions,
        lock: Option<File>,
        mut read_only: Option<String>,
    ) -> Result<Self, Error> {
        let at = |what: &str| format!("store {}: {what}", directory.display());
        let layout = Layout::read(directory)?;
        let path = directory.join("log");
        let mut log = options.open(&path).map_err(|error| Error::io(at("log"), error))?;
        let length = log.metadata().map_err(|error| Error::io(at("log"), error))?.len();
        if length < layout.bytes() {
            let expected = layout.bytes();
            let what = format!(
                "log is {length} bytes long, its layout says {expected}: put the whole log there, or \
                 remove log and layout to fetch everything again"
            );
            read_only.get_or_insert_with(|| at(&what));
            log = File::open(&path).map_err(|error| Error::io(at("log"), error))?;
        }
        let geometry = Geometry {
            segment_count: layout.segment_count,
            segment_bytes: layout.segment_bytes,
            program_bytes: PROGRAM_BYTES,
            reprogram: true,
        };
        Ok(Self {
            log: Arc::new(log),
            syncs: Syncs::default(),
            geometry,
            path,
            read_only,
            _lock: lock,
        })
    }

    fn position(&self, segment: u32, offset: u32, length: usize) -> Result<u64, Error> {
        self.geometry
            .position(segment, offset, length)
            .map_err(|what| Error::new(Kind::Corrupt, format!("{}: {what}", self.path.display())))
    }

    fn error(&self, doing: &str, error: io::Error) -> Error {
        Error::io(format!("{} {}", doing, self.path.display()), error)
    }
}

impl super::Device for Device {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), Error> {
        let position = self.position(segment, offset, buffer.len())?;
        self.log.read_exact_at(buffer, position).map_err(|error| self.error("reading", error))
    }

    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let position = self.position(segment, offset, bytes.len())?;
        self.log.write_all_at(bytes, position).map_err(|error| self.error("writing", error))
    }

    /// Recycling is programming over: the file system's blocks stay where they are.
    fn erase(&self, segment: u32) -> Result<(), Error> {
        self.position(segment, 0, 0).map(|_| ())
    }

    fn sync(&self) -> Result<(), Error> {
        self.syncs.sync(&self.log, &format!("syncing {}", self.path.display()))
    }

    fn recover(&self) -> Result<(), Error> {
        self.syncs.recover(&self.log, &format!("syncing {}", self.path.display()))
    }

    fn sync_range(&self, segment: u32, range: Range<u32>) -> Result<(), Error> {
        let length = to_usize(range.end - range.start);
        let start = self.position(segment, range.start, length)?;
        let range = start..start + length as u64;
        self.syncs.sync_range(&self.log, range, &format!("syncing {}", self.path.display()))
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn give_up_from(&self, segment_count: u32) -> Result<(), Error> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let segment_bytes = self.geometry.segment_bytes;
        let layout = Layout { segment_bytes, segment_count };
        layout.write(directory).map_err(|error| self.error("shrinking", error))?;
        self.log.set_len(layout.bytes()).map_err(|error| self.error("shrinking", error))
    }

    fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    fn uncache(&self, segment: u32, offset: u32, bytes: u64) {
        if let Some((file, position)) = self.file_span(segment, offset) {
            // Advice that is not taken only makes the next read cheaper than it should be.
            let _ = fadvise(&file, position, NonZeroU64::new(bytes), Advice::DontNeed);
        }
    }

    fn file_span(&self, segment: u32, offset: u32) -> Option<(Arc<File>, u64)> {
        let position = self.position(segment, offset, 0).ok()?;
        Some((Arc::clone(&self.log), position))
    }

    /// Of the disk that the file system is on, where that is one.
    fn health(&self) -> Option<Health> {
        let number = self.log.metadata().ok()?.dev();
        health::of_block(Path::new(sysfs::ROOT), number)
    }
}

fn lock(
    directory: &Path,
    options: &OpenOptions,
    how: fn(&File) -> Result<(), TryLockError>,
) -> Result<File, Error> {
    let what = || format!("store {}: lock", directory.display());
    let file = options.open(directory.join("lock")).map_err(|error| Error::io(what(), error))?;
    super::lock::take(&file, directory, how)?;
    Ok(file)
}

/// Committed bytes never share a page with bytes that are still to come.
const PROGRAM_BYTES: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::super::Device as _;
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("moonlet-file-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_store_is_made_once_and_found_again() {
        let path = scratch("again");
        let device = Device::open(&path, 16 << 20).unwrap();
        let geometry = device.geometry();
        assert_eq!(geometry.segment_bytes, 256 << 10);
        device.program(3, 4096, &[7; 4096]).unwrap();
        device.sync().unwrap();
        let in_use = Device::open(&path, 16 << 20).err().unwrap();
        assert!(in_use.to_string().contains("in use by another moonlet"), "{in_use}");
        drop(device);
        let device = Device::open(&path, 8 << 20).unwrap();
        assert_eq!(device.geometry(), geometry, "does not shrink by itself");
        let mut bytes = [0; 8];
        device.read(3, 8188, &mut bytes).unwrap();
        assert_eq!(bytes, [7, 7, 7, 7, 0, 0, 0, 0]);
        assert!(device.read(64, 0, &mut bytes).is_err());
        assert!(device.program(0, (256 << 10) - 4, &bytes).is_err());
        drop(device);
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_store_grows_and_shrinks_in_whole_segments() {
        let path = scratch("size");
        let device = Device::open(&path, 16 << 20).unwrap();
        device.program(63, 0, &[7; 4096]).unwrap();
        drop(device);
        let device = Device::open(&path, (20 << 20) + 5).unwrap();
        assert_eq!(device.geometry().segment_count, 80);
        let mut byte = [0];
        device.read(63, 4095, &mut byte).unwrap();
        device.program(79, 0, &[8; 4096]).unwrap();
        assert_eq!(byte, [7]);
        drop(device);
        // What cannot grow stays as it is.
        std::fs::create_dir(path.join("layout.new")).unwrap();
        let device = Device::open(&path, 24 << 20).unwrap();
        std::fs::remove_dir(path.join("layout.new")).unwrap();
        assert_eq!(device.geometry().segment_count, 80);
        device.read(79, 4095, &mut byte).unwrap();
        assert_eq!(byte, [8]);
        device.give_up_from(64).unwrap();
        drop(device);
        assert_eq!(std::fs::metadata(path.join("log")).unwrap().len(), 16 << 20);
        // A change that was cut short leaves a longer log.
        std::fs::File::options()
            .write(true)
            .open(path.join("log"))
            .unwrap()
            .set_len(99 << 20)
            .unwrap();
        let device = Device::open(&path, 16 << 20).unwrap();
        assert_eq!(device.geometry().segment_count, 64);
        drop(device);
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_look_changes_nothing_and_keeps_writers_out() {
        let path = scratch("look");
        let none = Device::inspect(&path).err().unwrap();
        assert_eq!((none.kind(), path.exists()), (Kind::Missing, false), "{none}");
        drop(Device::open(&path, 16 << 20).unwrap());
        let look = Device::inspect(&path).unwrap();
        assert!(look.read_only().is_some() && Device::inspect(&path).is_ok());
        assert!(look.program(3, 0, &[7; 4096]).is_err());
        assert_eq!(Device::open(&path, 16 << 20).err().unwrap().kind(), Kind::Invalid);
        drop(look);
        assert!(Device::open(&path, 16 << 20).unwrap().read_only().is_none());
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn what_is_no_store_of_this_version_is_refused() {
        let path = scratch("version");
        drop(Device::open(&path, 16 << 20).unwrap());
        std::fs::write(path.join("layout"), "moonlet-store 2\n").unwrap();
        let newer = Device::open(&path, 16 << 20).err().unwrap();
        assert!(newer.to_string().contains("made by a newer moonlet"), "{newer}");
        std::fs::remove_dir_all(&path).unwrap();
    }

    /// A header as FORMAT.md section 3 has it.
    fn header(segment_bytes: u32) -> Vec<u8> {
        let mut header = b"MOONLET\0\x01\0".to_vec();
        header.extend([7; 12]);
        header.extend(segment_bytes.to_le_bytes());
        header.extend(PROGRAM_BYTES.to_le_bytes());
        header.extend(crc32c::crc32c(&header).to_le_bytes());
        header.resize(4096, 0);
        header
    }

    #[test]
    fn odd_files_keep_nothing_from_being_read() {
        let path = scratch("odd");
        let device = Device::open(&path, 16 << 20).unwrap();
        // The first one of the ring cannot be read.
        device.program(0, 0, &[9; 4096]).unwrap();
        device.program(1, 0, &header(256 << 10)).unwrap();
        device.program(40, 0, &[5; 4096]).unwrap();
        let geometry = device.geometry();
        drop(device);
        let mut byte = [0];
        let layout = std::fs::read(path.join("layout")).unwrap();
        for odd in [None, Some(""), Some("garbage\n"), Some("moonlet-store 1\nsegment_bytes 9\n")] {
            match odd {
                None => std::fs::remove_file(path.join("layout")).unwrap(),
                Some(text) => std::fs::write(path.join("layout"), text).unwrap(),
            }
            // Whatever size is wanted, the log says what it has.
            let device = Device::open(&path, 4 << 20).unwrap();
            assert_eq!((device.geometry(), device.read_only()), (geometry, None), "{odd:?}");
            device.read(40, 1, &mut byte).unwrap();
            assert_eq!(byte, [5]);
            assert_eq!(std::fs::read(path.join("layout")).unwrap(), layout, "written anew");
        }
        // A log that is cut short is read as far as it goes, and left as it is.
        let log = std::fs::File::options().write(true).open(path.join("log")).unwrap();
        for length in [41 << 18, 100, 0] {
            log.set_len(length).unwrap();
            let device = Device::open(&path, 32 << 20).unwrap();
            let why = device.read_only().unwrap();
            assert!(why.contains("bytes long, its layout says 16777216: put the whole"), "{why}");
            assert_eq!(device.read(40, 1, &mut byte).is_ok(), length > 100);
            assert!(device.read(41, 0, &mut byte).is_err());
            assert!(device.program(3, 0, &[7; 4096]).is_err());
            assert_eq!(log.metadata().unwrap().len(), length);
        }
        std::fs::remove_file(path.join("log")).unwrap();
        let device = Device::open(&path, 16 << 20).unwrap();
        assert_eq!((device.geometry(), device.read_only()), (geometry, None), "begun anew");
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_allocated_is_said_at_the_start() {
        let path = scratch("room");
        std::fs::create_dir_all(path.join("layout.new")).unwrap();
        let failed = Device::open(&path, 16 << 20).err().unwrap().to_string();
        assert!(failed.contains("allocating 16 MiB (size_max)"), "{failed}");
        assert_eq!(std::fs::metadata(path.join("log")).unwrap().len(), 0);
        std::fs::remove_dir_all(&path).unwrap();
    }
}
