//! embedded-storage, both ways: any `NorFlash` is a device for the log, and any run of a device's
//! segments is a `NorFlash` for whatever else a board keeps in flash.
//!
//! A driver is blocking and wants `&mut self`, so it sits behind a lock; its writes are durable
//! when they return, so there is nothing to sync. Its addresses are 32 bits, ours are relative to
//! a segment: only the driver's own capacity binds.

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read,
    check_write,
};

use super::{Error, Geometry, SEGMENTS_MAX};
use crate::kind::Kind;
use crate::units::{to_u32, to_usize};

/// A driver's flash as a device.
pub struct Device<F> {
    flash: Mutex<F>,
    geometry: Geometry,
}

impl<F: NorFlash> Device<F> {
    /// Takes all of `flash`, in segments of at least `segment_bytes`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for sizes that do not fit one another or a flash of no segment.
    pub fn new(flash: F, segment_bytes: u32) -> Result<Self, Error> {
        let (write, erase) = (F::WRITE_SIZE, F::ERASE_SIZE);
        let sizes = || format!("nor flash of erase size {erase} and write size {write}");
        let program = PROGRAM_BYTES_MIN.next_multiple_of(write.max(1));
        let wanted = usize::try_from(segment_bytes).unwrap_or(usize::MAX).max(1);
        let segment = wanted.checked_next_multiple_of(erase.max(1)).unwrap_or(0);
        let count = flash.capacity().checked_div(segment).unwrap_or(0);
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(SEGMENTS_MAX);
        if write == 0 || erase == 0 || count == 0 || !segment.is_multiple_of(program) {
            let capacity = flash.capacity();
            let what = format!(
                "{}, {capacity} bytes: expected segments of {segment_bytes} bytes or a little \
                 more, in units of {program}",
                sizes()
            );
            return Err(Error::new(Kind::Invalid, what));
        }
        let narrow = |size: usize| {
            u32::try_from(size).map_err(|_| Error::new(Kind::Invalid, sizes() + ": too large"))
        };
        let geometry = Geometry {
            segment_count: count,
            segment_bytes: narrow(segment)?,
            program_bytes: narrow(program)?,
            reprogram: false,
        };
        Ok(Self { flash: Mutex::new(flash), geometry })
    }

    /// Returns the driver.
    pub fn into_inner(self) -> F {
        self.flash.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something at `offset` of a segment, of which `length` bytes must be there.
    fn at<T>(
        &self,
        doing: &str,
        (segment, offset, length): (u32, u32, usize),
        act: impl FnOnce(&mut F, u32) -> Result<T, F::Error>,
    ) -> Result<T, Error> {
        let Geometry { segment_count, segment_bytes, .. } = self.geometry;
        let end = u64::from(offset) + length as u64;
        let address = u64::from(segment) * u64::from(segment_bytes) + u64::from(offset);
        let is_within = segment < segment_count && end <= u64::from(segment_bytes);
        let failed = |kind, why: String| {
            let what = format!("{doing} {length} bytes at segment {segment}, byte {offset}: {why}");
            Error::new(kind, what)
        };
        let address = u32::try_from(address).ok().filter(|_| is_within);
        let address = address.ok_or_else(|| failed(Kind::Invalid, "is outside".to_owned()))?;
        let mut flash = self.flash.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut flash, address).map_err(|error| {
            let kind = match error.kind() {
                NorFlashErrorKind::NotAligned | NorFlashErrorKind::OutOfBounds => Kind::Invalid,
                _ => Kind::Retry,
            };
            failed(kind, format!("{error:?}"))
        })
    }
}

impl<F: NorFlash + Send> super::Device for Device<F> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), Error> {
        let length = buffer.len();
        self.at("reading", (segment, offset, length), |flash, address| {
            let unit = to_u32(F::READ_SIZE).max(1);
            if address.is_multiple_of(unit) && length.is_multiple_of(F::READ_SIZE.max(1)) {
                return flash.read(address, buffer);
            }
            let before = to_usize(address % unit);
            let mut aligned = vec![0; (before + length).next_multiple_of(F::READ_SIZE.max(1))];
            flash.read(address - address % unit, &mut aligned)?;
            buffer.copy_from_slice(aligned.get(before..before + length).unwrap_or_default());
            Ok(())
        })
    }

    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let place = (segment, offset, bytes.len());
        self.at("programming", place, |flash, address| flash.write(address, bytes))
    }

    fn erase(&self, segment: u32) -> Result<(), Error> {
        let length = self.geometry.segment_bytes;
        let place = (segment, 0, to_usize(length));
        self.at("erasing", place, |flash, address| {
            flash.erase(address, address.saturating_add(length))
        })
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    fn is_slow(&self) -> bool {
        false
    }

    fn give_up_from(&self, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn read_only(&self) -> Option<&str> {
        None
    }

    fn file_span(&self, _: u32, _: u32) -> Option<(Arc<File>, u64)> {
        None
    }
}

/// Segments of a device as a flash of their own: one segment is its erase unit, and what is
/// written is durable when `write` returns. The sizes are part of the type, as the trait has them,
/// and must be the device's.
pub struct Region<'a, const SEGMENT_BYTES: usize, const PROGRAM_BYTES: usize> {
    device: &'a dyn super::Device,
    segments: Range<u32>,
}

impl<'a, const SEGMENT_BYTES: usize, const PROGRAM_BYTES: usize>
    Region<'a, SEGMENT_BYTES, PROGRAM_BYTES>
{
    /// The segments in `segments`, which no one else may use.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the device has other sizes, or not these segments.
    pub fn new(device: &'a dyn super::Device, segments: Range<u32>) -> Result<Self, Error> {
        let Geometry { segment_count, segment_bytes, program_bytes, .. } = device.geometry();
        let is_same = |ours: usize, theirs: u32| u32::try_from(ours) == Ok(theirs);
        if !is_same(SEGMENT_BYTES, segment_bytes)
            || !is_same(PROGRAM_BYTES, program_bytes)
            || segments.end > segment_count
            || segments.is_empty()
        {
            let what = format!(
                "segments {segments:?} of {SEGMENT_BYTES} bytes in units of {PROGRAM_BYTES}: the \
                 device has {segment_count} of {segment_bytes} in units of {program_bytes}"
            );
            return Err(Error::new(Kind::Invalid, what));
        }
        Ok(Self { device, segments })
    }

    /// The segment, and the offset in it, of an address that was checked.
    fn place(&self, address: usize) -> Result<(u32, u32), Error> {
        let outside = || Error::new(Kind::Invalid, format!("address {address} is outside"));
        let index = u32::try_from(address / SEGMENT_BYTES).map_err(|_| outside())?;
        let offset = u32::try_from(address % SEGMENT_BYTES).map_err(|_| outside())?;
        Ok((self.segments.start + index, offset))
    }

    fn refuse(kind: NorFlashErrorKind) -> Error {
        Error::new(Kind::Invalid, kind.to_string())
    }
}

impl NorFlashError for Error {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const SEGMENT_BYTES: usize, const PROGRAM_BYTES: usize> ErrorType
    for Region<'_, SEGMENT_BYTES, PROGRAM_BYTES>
{
    type Error = Error;
}

impl<const SEGMENT_BYTES: usize, const PROGRAM_BYTES: usize> ReadNorFlash
    for Region<'_, SEGMENT_BYTES, PROGRAM_BYTES>
{
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        check_read(self, offset, bytes.len()).map_err(Self::refuse)?;
        let mut address = to_usize(offset);
        let mut rest = bytes;
        while !rest.is_empty() {
            let here = (SEGMENT_BYTES - address % SEGMENT_BYTES).min(rest.len());
            let (piece, later) = rest.split_at_mut_checked(here).unwrap_or_default();
            let (segment, offset) = self.place(address)?;
            self.device.read(segment, offset, piece)?;
            address += here;
            rest = later;
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        SEGMENT_BYTES.saturating_mul(self.segments.len())
    }
}

impl<const SEGMENT_BYTES: usize, const PROGRAM_BYTES: usize> NorFlash
    for Region<'_, SEGMENT_BYTES, PROGRAM_BYTES>
{
    const WRITE_SIZE: usize = PROGRAM_BYTES;
    const ERASE_SIZE: usize = SEGMENT_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Error> {
        check_erase(self, from, to).map_err(Self::refuse)?;
        let range = to_usize(from)..to_usize(to);
        for address in range.step_by(SEGMENT_BYTES) {
            let (segment, _) = self.place(address)?;
            self.device.erase(segment)?;
            if self.device.geometry().reprogram {
                // Such a device erases by being programmed over; the trait promises ones.
                self.device.program(segment, 0, &vec![ERASED; SEGMENT_BYTES])?;
            }
        }
        self.device.sync()
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        check_write(self, offset, bytes.len()).map_err(Self::refuse)?;
        let mut address = to_usize(offset);
        let mut rest = bytes;
        while !rest.is_empty() {
            let here = (SEGMENT_BYTES - address % SEGMENT_BYTES).min(rest.len());
            let (piece, later) = rest.split_at_checked(here).unwrap_or((rest, &[]));
            let (segment, offset) = self.place(address)?;
            self.device.program(segment, offset, piece)?;
            address += here;
            rest = later;
        }
        self.device.sync()
    }
}

/// A page of the usual serial NOR.
const PROGRAM_BYTES_MIN: usize = 256;
const ERASED: u8 = 0xFF;
