//! Flash as the blob log sees it: segments that are erased, programmed and read.
//!
//! [`Device`] is the only seam between the log and storage. Offsets are relative to a segment, so
//! no 32-bit address ever binds the size of a device. What a device forbids (programming a page
//! twice, or out of order) is stated by its run-time [`Geometry`]; the log obeys the strictest rule
//! and the simulator enforces it.

pub mod block;
mod erase_blocks;
pub mod file;
mod health;
mod ioctl;
mod lock;
pub mod mtd;
#[cfg(feature = "sim")]
pub mod nor;
mod open;
#[cfg(not(feature = "raw-flash"))]
#[path = "no_raw.rs"]
mod raw;
#[cfg(feature = "raw-flash")]
mod raw;
mod shape;
#[cfg(feature = "sim")]
pub mod sim;
mod syncs;
mod sysfs;
pub mod ubi;

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use crate::kind::Kind;
use crate::units::to_usize;

pub use open::{inspect, open};

/// The shape of a device. All lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Segments on the device.
    pub segment_count: u32,
    /// Bytes of one segment: a whole number of erase units.
    pub segment_bytes: u32,
    /// The unit of programming; offsets and lengths of programs are multiples of it.
    pub program_bytes: u32,
    /// Whether a unit may be programmed again without an erase. Where not (NAND, NOR), units of
    /// a segment are programmed once each, in ascending order, after an erase.
    pub reprogram: bool,
}

impl Geometry {
    /// The byte behind `offset` of `segment` on a device whose segments follow one another, where
    /// `length` bytes are within the segment; what is wrong, otherwise.
    fn position(&self, segment: u32, offset: u32, length: usize) -> Result<u64, String> {
        let end = u64::from(offset) + length as u64;
        if segment >= self.segment_count || end > u64::from(self.segment_bytes) {
            return Err(format!("segment {segment}, byte {end} is outside"));
        }
        Ok(u64::from(segment) * u64::from(self.segment_bytes) + u64::from(offset))
    }

    /// Whether a program is of whole units.
    fn check_units(&self, offset: u32, length: usize) -> Result<(), Error> {
        let unit = self.program_bytes;
        if offset.is_multiple_of(unit) && (length as u64).is_multiple_of(u64::from(unit)) {
            return Ok(());
        }
        let what = format!("program of {length} bytes at {offset}: expected units of {unit}");
        Err(Error::new(Kind::Invalid, what))
    }
}

impl Geometry {
    /// Bytes of all segments.
    pub fn bytes(self) -> u64 {
        u64::from(self.segment_count) * u64::from(self.segment_bytes)
    }
}

/// The most segments that a device may have: what is counted of each must fit one record of the
/// log.
pub const SEGMENTS_MAX: u32 = 1 << 17;

/// A place for segments. Calls block; `&self`, because reads go on while others write.
pub trait Device: Send + Sync {
    /// The shape, fixed while the device is open.
    fn geometry(&self) -> Geometry;
    /// Fills `buffer` from `offset` of `segment`. Any alignment.
    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), Error>;
    /// Programs whole units. Durable only after the next [`Device::sync`].
    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), Error>;
    /// Makes a segment ready to be programmed anew. Its contents are undefined until then: old
    /// bytes may show again, so readers trust sequence numbers and never absence.
    fn erase(&self, segment: u32) -> Result<(), Error>;
    /// Makes everything programmed so far durable. After an error nothing is known of what was
    /// programmed since the last one that succeeded, and all further ones are errors.
    fn sync(&self) -> Result<(), Error>;
    /// Goes on after a sync that failed, if a sync succeeds now: from here on reads come from the
    /// medium, as far as nothing else keeps it from that, and syncs may succeed again.
    fn recover(&self) -> Result<(), Error> {
        self.sync()
    }
    /// Makes at least a range of `segment` durable, in whole units, of which every one was
    /// programmed. Errors as for [`Device::sync`].
    fn sync_range(&self, _segment: u32, _range: Range<u32>) -> Result<(), Error> {
        self.sync()
    }
    /// Whether a call may take long, and is worth another thread.
    fn is_slow(&self) -> bool;
    /// Why nothing can be programmed, where that is so.
    fn read_only(&self) -> Option<&str>;
    /// Releases all segments from number `segment_count` on, which hold nothing any more, where
    /// others can have the room. The geometry stays until the device is opened again.
    fn give_up_from(&self, segment_count: u32) -> Result<(), Error>;
    /// The file and the position in it behind `offset` of `segment`, where there is one: from
    /// there a socket is fed without a copy.
    fn file_span(&self, segment: u32, offset: u32) -> Option<(Arc<File>, u64)>;
    /// Drops what the kernel keeps in memory of a part of a segment: the next read comes from the
    /// medium. Advice, where the device has no such cache.
    fn uncache(&self, _segment: u32, _offset: u32, _bytes: u64) {}
    /// Whether a segment cannot be trusted to keep what is programmed: since it left the factory,
    /// or since [`Device::mark_bad`].
    fn is_bad(&self, _segment: u32) -> Result<bool, Error> {
        Ok(false)
    }
    /// Remembers, where the device can, that a segment is bad. Nothing on it is needed any more.
    fn mark_bad(&self, _segment: u32) -> Result<(), Error> {
        Ok(())
    }
    /// Informs the controller behind the device that a segment holds nothing. Its contents are
    /// undefined from here on. Worth doing only when idle: some cards answer nothing else until it
    /// is done.
    fn trim(&self, _segment: u32) -> Result<(), Error> {
        Ok(())
    }
    /// Whether somebody else's data may lie here, so that no log is begun over what is not blank.
    fn may_be_anothers(&self) -> bool {
        false
    }
    /// What the hardware says of its own wear, where it says anything.
    fn health(&self) -> Option<Health> {
        None
    }
}

/// What a device reports of its wear; each part only where it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Percent of the rated life that is used at most: eMMC `life_time` (JEDEC JESD84-B51,
    /// DEVICE_LIFE_TIME_EST), which counts in steps of ten; 110 is beyond it.
    pub life_used_percent: Option<u8>,
    /// What is left of the blocks kept in reserve: eMMC `pre_eol_info`.
    pub reserve: Option<Reserve>,
    /// Erase blocks that are out of use: MTD and UBI.
    pub bad_blocks: Option<u32>,
    /// Erases of the block that has had most: UBI.
    pub erases_max: Option<u32>,
}

/// PRE_EOL_INFO of JEDEC JESD84-B51.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Less than 80 % used.
    Normal,
    /// 80 % or more used.
    Warning,
    /// 90 % or more used.
    Urgent,
}

/// Programs whole units and, where nothing below corrects what cells got wrong, reads them back.
///
/// # Errors
/// [`Kind::Corrupt`] when something else is read back; the device's own.
pub fn program_checked(
    device: &dyn Device,
    segment: u32,
    offset: u32,
    bytes: &[u8],
) -> Result<(), Error> {
    device.program(segment, offset, bytes)?;
    let Geometry { program_bytes, reprogram, .. } = device.geometry();
    if reprogram {
        return Ok(());
    }
    let mut found = vec![0; to_usize(program_bytes)];
    let mut at = offset;
    for unit in bytes.chunks(found.len().max(1)) {
        let found = found.get_mut(..unit.len()).unwrap_or_default();
        device.read(segment, at, found)?;
        if found != unit {
            let what = format!("segment {segment}: byte {at} reads back as something else");
            return Err(Error::new(Kind::Corrupt, what));
        }
        at += program_bytes;
    }
    Ok(())
}

/// Why a device did not do what it was asked to.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    source: Option<std::io::Error>,
    is_in_use: bool,
}

impl Error {
    /// An error without a cause below it.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None, is_in_use: false }
    }

    /// Of a device that another process has.
    pub(super) fn in_use(what: impl Into<String>) -> Self {
        Self { is_in_use: true, ..Self::new(Kind::Invalid, what) }
    }

    /// Whether another process has the device.
    pub fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    /// The error of a system call. No room is [`Kind::Full`], no permission [`Kind::ReadOnly`].
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Kind::Full,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::ReadOnly,
            Io::NotFound => Kind::Missing,
            _ => Kind::Retry,
        };
        Self { source: Some(source), ..Self::new(kind, what) }
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
