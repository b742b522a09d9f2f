//! A raw partition, or a whole disk: an eMMC, a card or a stick without a file system.
//!
//! Segments follow one another from byte 0 and nothing else is there, so the device's size alone
//! says where each is. The device is opened exclusively (`O_EXCL`): the kernel refuses one that is
//! mounted or part of something else, and refuses to mount it while it is open here.
//!
//! **Programs go past the page cache** (`O_DIRECT`): what a download writes is read again much
//! later or never, and a gateway's little memory is better spent on what is served. Nothing dirty
//! piles up either, so that a sync only has to flush the device's own cache. **Reads go through
//! it**, by a second descriptor, because `sendfile` needs it and images are pulled more than once.
//!
//! Both go to one page cache, the kernel's for this block device. Why a read never sees what was
//! there before a program that has returned:
//!
//! - The kernel drops the pages of a range before it writes it directly, and drops them once more
//!   afterwards, for a reader may have brought them back meanwhile; for one that is at it, it
//!   waits. Pages that a socket still holds are dropped from the cache all the same.
//! - Nothing makes a page dirty: the second descriptor cannot write. So there is nothing that
//!   could be written back over new bytes, and nothing that keeps a page from being dropped.
//! - A read brings in whole pages and, with readahead, more than was asked for: units that are
//!   still to be programmed. They would be dropped in time; `POSIX_FADV_RANDOM` spares the flash
//!   the reading and makes it rare that a page is dropped at all.
//! - Should the first dropping fail, the kernel writes through the page cache instead, which is
//!   merely slower. Should the second, which takes a page that somebody else is changing, it marks
//!   the device as failed, and the next sync here returns that error: writing ends, and nothing
//!   that was programmed since is acknowledged.
//!
//! The last holds as long as both descriptors are of the same block device. A partition and its
//! disk have a cache each: what writes to the disk beside us is not kept out by anything.
//!
//! Refused: what is in use, what is not a block device, `mtdblock` and `ubiblock` (they rewrite an
//! erase block for each write, or cannot write), blocks larger than 64 KiB.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use log::warn;
use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::Errno;

use super::shape::{self, SEGMENT_BYTES_MIN};
use super::syncs::Syncs;
use super::sysfs::{self, Node};
use super::{Error, Geometry, Health, health, ioctl, lock};
use crate::kind::Kind;
use crate::units::{ByteCount, to_usize};

/// An open block device.
pub struct Device {
    /// Programs and syncs, past the page cache; nothing where it may only be read.
    direct: Option<Direct>,
    /// Reads.
    cached: Arc<File>,
    geometry: Geometry,
    path: PathBuf,
    /// The device's number.
    number: u64,
    /// Why nothing can be programmed.
    read_only: Option<String>,
}

struct Direct {
    file: File,
    syncs: Syncs,
    /// Programs pass through it where their bytes lie at an address that the device cannot take.
    bounce: Mutex<Vec<u8>>,
    can_discard: bool,
}

impl Device {
    /// Opens all of the device at `path`. One that may only be read is opened for that: what it
    /// holds can still be served.
    ///
    /// # Errors
    /// They name the path: no permission, in use by somebody else, too small.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Not all kernels refuse to open it for writing.
        if is_read_only(path) {
            let why = format!("store {}: the device is read-only", path.display());
            return Self::with(path, None, Some(why));
        }
        let exclusive = |flags: OFlags| {
            let flags = (OFlags::EXCL | flags).bits().cast_signed();
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
        };
        let opened = exclusive(OFlags::DIRECT).or_else(|error| {
            if Errno::from_io_error(&error) != Some(Errno::INVAL) {
                return Err(error);
            }
            let path = path.display();
            warn!("store {path}: it cannot be written past the page cache; it is written through");
            exclusive(OFlags::empty())
        });
        match opened {
            Ok(file) => Self::with(path, Some(file), None),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {
                let path = path.display();
                let what = format!(
                    "store {path} is in use: mounted, part of another device, or open in another \
                     moonlet; expected a device that no one else has"
                );
                Err(Error::new(Kind::Invalid, what))
            }
            Err(error) => {
                let error = Error::io(format!("store {}", path.display()), error);
                if error.kind() != Kind::ReadOnly {
                    return Err(error);
                }
                Self::with(path, None, Some(error.to_string()))
            }
        }
    }

    /// Opens the device at `path` to look at it; nothing is changed.
    ///
    /// # Errors
    /// As for [`Device::open`].
    pub fn inspect(path: &Path) -> Result<Self, Error> {
        Self::with(path, None, Some("it was opened to be looked at".to_owned()))
    }

    fn with(path: &Path, file: Option<File>, read_only: Option<String>) -> Result<Self, Error> {
        let at = |what: &str| format!("store {}{what}", path.display());
        let failed = |error: io::Error| Error::io(at(""), error);
        let mut cached = File::open(path).map_err(failed)?;
        // Only advice: where it is not taken, more is read than is needed.
        let _ = rustix::fs::fadvise(&cached, 0, None, Advice::Random);
        // What looks is kept from what writes, as in a directory; `O_EXCL` only knows writers.
        match &file {
            Some(file) => lock::take(file, path, File::try_lock)?,
            None => lock::take(&cached, path, File::try_lock_shared)?,
        }
        let number = cached.metadata().map_err(failed)?.rdev();
        let bytes = cached.seek(SeekFrom::End(0)).map_err(failed)?;
        let block = rustix::fs::ioctl_blksszget(&cached).map_err(|error| failed(error.into()))?;
        let geometry = Geometry {
            segment_count: shape::segment_count(bytes, shape::segment_bytes(bytes)),
            segment_bytes: shape::segment_bytes(bytes),
            program_bytes: PROGRAM_BYTES.max(block),
            reprogram: true,
        };
        if geometry.segment_count == 0 || !SEGMENT_BYTES_MIN.is_multiple_of(geometry.program_bytes)
        {
            let what = format!(
                ": {} in blocks of {block} bytes, expected at least a segment of {}, and whole \
                 blocks in it",
                ByteCount(bytes),
                ByteCount(u64::from(geometry.segment_bytes))
            );
            return Err(Error::new(Kind::Invalid, at(&what)));
        }
        let direct = file.map(|file| Direct {
            file,
            syncs: Syncs::default(),
            bounce: Mutex::new(vec![0; bounce_bytes(geometry) + unit_bytes(geometry)]),
            can_discard: can_discard(number),
        });
        let (cached, path) = (Arc::new(cached), path.to_owned());
        Ok(Self { direct, cached, geometry, path, number, read_only })
    }

    fn position(&self, segment: u32, offset: u32, length: usize) -> Result<u64, Error> {
        self.geometry
            .position(segment, offset, length)
            .map_err(|what| Error::new(Kind::Corrupt, format!("{}: {what}", self.path.display())))
    }

    fn direct(&self) -> Result<&Direct, Error> {
        self.direct.as_ref().ok_or_else(|| {
            let why = self.read_only.as_deref().unwrap_or("");
            Error::new(Kind::ReadOnly, format!("writing {}: {why}", self.path.display()))
        })
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
        self.cached.read_exact_at(buffer, position).map_err(|error| self.error("reading", error))
    }

    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let position = self.position(segment, offset, bytes.len())?;
        self.geometry.check_units(offset, bytes.len())?;
        let direct = self.direct()?;
        direct.write(bytes, position, self.geometry).map_err(|error| self.error("writing", error))
    }

    /// Recycling is programming over: what is behind the device erases as it sees fit.
    fn erase(&self, segment: u32) -> Result<(), Error> {
        self.position(segment, 0, 0).map(|_| ())
    }

    fn sync(&self) -> Result<(), Error> {
        let direct = self.direct()?;
        direct.syncs.sync(&direct.file, &format!("syncing {}", self.path.display()))
    }

    fn recover(&self) -> Result<(), Error> {
        let direct = self.direct()?;
        direct.syncs.recover(&direct.file, &format!("syncing {}", self.path.display()))
    }

    fn is_slow(&self) -> bool {
        true
    }

    /// Nothing else can use a part of the device: there is nothing to release.
    fn give_up_from(&self, _: u32) -> Result<(), Error> {
        Ok(())
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
        Some((Arc::clone(&self.cached), position))
    }

    fn trim(&self, segment: u32) -> Result<(), Error> {
        let position = self.position(segment, 0, 0)?;
        let direct = self.direct()?;
        if !direct.can_discard {
            return Ok(());
        }
        let length = u64::from(self.geometry.segment_bytes);
        let trimmed = ioctl::discard(&direct.file, position, length);
        trimmed.map_err(|error| self.error("trimming", error))
    }

    fn may_be_anothers(&self) -> bool {
        true
    }

    fn health(&self) -> Option<Health> {
        health::of_block(Path::new(sysfs::ROOT), self.number)
    }
}

impl Direct {
    fn write(&self, bytes: &[u8], position: u64, geometry: Geometry) -> io::Result<()> {
        let unit = unit_bytes(geometry);
        if bytes.as_ptr().align_offset(unit) == 0 {
            return self.file.write_all_at(bytes, position);
        }
        let mut bounce = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        // The buffer has one unit more than is used of it, so an aligned part is always there.
        let skipped = bounce.as_ptr().align_offset(unit);
        let aligned = bounce.get_mut(skipped..).unwrap_or_default();
        let mut position = position;
        for piece in bytes.chunks(bounce_bytes(geometry)) {
            let aligned = aligned.get_mut(..piece.len()).ok_or(io::ErrorKind::OutOfMemory)?;
            aligned.copy_from_slice(piece);
            self.file.write_all_at(aligned, position)?;
            position += piece.len() as u64;
        }
        Ok(())
    }
}

fn unit_bytes(geometry: Geometry) -> usize {
    to_usize(geometry.program_bytes)
}

fn bounce_bytes(geometry: Geometry) -> usize {
    BOUNCE_BYTES.next_multiple_of(unit_bytes(geometry))
}

fn is_read_only(path: &Path) -> bool {
    let number = std::fs::metadata(path).map(|metadata| metadata.rdev());
    let node = number.ok().and_then(|number| Node::of_block(Path::new(sysfs::ROOT), number));
    node.and_then(|node| node.text("ro")).as_deref() == Some("1")
}

/// Where the queue has no limit to discards, it has no discards.
fn can_discard(number: u64) -> bool {
    let disk = Node::of_block(Path::new(sysfs::ROOT), number).map(|node| node.disk());
    let limit = disk.and_then(|disk| disk.number::<u64>("queue/discard_max_bytes"));
    limit.is_some_and(|bytes| bytes > 0)
}

/// As in a file: committed bytes never share a page with bytes that are still to come.
const PROGRAM_BYTES: u32 = 4096;
/// What the log programs at once, mostly.
const BOUNCE_BYTES: usize = 64 << 10;
