//! The few requests to flash drivers that have no system call of their own, as safe functions.
//!
//! Nothing above this file calls a driver unsafely. Numbers and structures are those of Linux's
//! `include/uapi/linux/fs.h`, `mtd/mtd-abi.h` and `mtd/ubi-user.h`; they are the same on every
//! processor, because each structure has the same bytes everywhere.

use std::ffi::c_void;
use std::fs::File;
use std::io;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};

/// Informs a block device that `length` bytes from `start` hold nothing (BLKDISCARD).
pub fn discard(file: &File, start: u64, length: u64) -> io::Result<()> {
    call::<{ opcode::none(0x12, 119) }, _>(file, [start, length]).map(|_| ())
}

/// Erases `length` bytes from `start` of an MTD device (MEMERASE64).
pub fn mtd_erase(file: &File, start: u64, length: u64) -> io::Result<()> {
    call::<{ opcode::write::<[u64; 2]>(b'M', 20) }, _>(file, [start, length]).map(|_| ())
}

/// Whether the erase block at `position` is bad (MEMGETBADBLOCK).
pub fn mtd_is_bad(file: &File, position: u64) -> io::Result<bool> {
    let (answer, _) = call::<{ opcode::write::<u64>(b'M', 11) }, _>(file, position)?;
    Ok(answer != 0)
}

/// Marks the erase block at `position` as bad, for ever (MEMSETBADBLOCK).
pub fn mtd_mark_bad(file: &File, position: u64) -> io::Result<()> {
    call::<{ opcode::write::<u64>(b'M', 12) }, _>(file, position).map(|_| ())
}

/// What reading an MTD device came to since it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EccStats {
    /// Bits that were wrong and put right.
    pub corrected: u32,
    /// Reads of what could not be put right.
    pub failed: u32,
}

/// The counters of an MTD device (ECCGETSTATS).
pub fn mtd_ecc_stats(file: &File) -> io::Result<EccStats> {
    // Behind them: bad blocks, and blocks that hold the table of bad blocks.
    let counters = [0_u32; 4];
    let (_, [corrected, failed, ..]) =
        call::<{ opcode::read::<[u32; 4]>(b'M', 18) }, _>(file, counters)?;
    Ok(EccStats { corrected, failed })
}

/// Lets a UBI volume be written in place (UBI_IOCSETVOLPROP, UBI_VOL_PROP_DIRECT_WRITE).
pub fn ubi_write_in_place(file: &File) -> io::Result<()> {
    // struct ubi_set_vol_prop_req: the property, seven bytes of padding, the value as u64.
    let mut property = [0_u64.to_ne_bytes(), 1_u64.to_ne_bytes()];
    if let Some(byte) = property.as_flattened_mut().first_mut() {
        *byte = UBI_VOL_PROP_DIRECT_WRITE;
    }
    call::<{ opcode::write::<[[u8; 8]; 2]>(b'O', 6) }, _>(file, property).map(|_| ())
}

/// Unmaps a UBI volume's logical erase block (UBI_IOCEBUNMAP).
pub fn ubi_unmap(file: &File, block: u32) -> io::Result<()> {
    call::<{ opcode::write::<i32>(b'O', 4) }, _>(file, block).map(|_| ())
}

/// Hands `argument` to the driver; returns its result and what became of the argument.
fn call<const REQUEST: Opcode, T: Plain>(file: &File, argument: T) -> io::Result<(i32, T)> {
    // SAFETY: the request numbers above are all there are, each with an argument of the type that
    // the kernel reads, or writes whole, for that number; a driver of another kind does not know
    // the number and refuses it. `Request` holds the argument for as long as the call lasts.
    #[allow(unsafe_code)]
    let answer = unsafe { rustix::ioctl::ioctl(file, Request::<REQUEST, T>(argument)) };
    Ok(answer?)
}

/// One call with its argument.
struct Request<const REQUEST: Opcode, T>(T);

// SAFETY: `as_ptr` points to the argument, which outlives the call and may be written
// (`IS_MUTATING`), and `output_from_ptr` reads it back as the type that it was made of. `Plain`
// types have no bytes that could be invalid, whatever the driver writes.
#[allow(unsafe_code)]
unsafe impl<const REQUEST: Opcode, T: Plain> Ioctl for Request<REQUEST, T> {
    type Output = (i32, T);

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        REQUEST
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(
        answer: IoctlOutput,
        argument: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        // SAFETY: rustix hands back the pointer that `as_ptr` returned, to a `T` that is still
        // there.
        Ok((answer, unsafe { argument.cast::<T>().read() }))
    }
}

/// Integers and arrays of them.
trait Plain: Copy {}

impl Plain for u32 {}
impl Plain for u64 {}
impl<T: Plain, const LENGTH: usize> Plain for [T; LENGTH] {}
impl Plain for u8 {}

const UBI_VOL_PROP_DIRECT_WRITE: u8 = 1;
