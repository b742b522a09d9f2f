//! The few requests to flash drivers that have no system call of their own, as safe functions.
//!
//! All unsafe code of this program is in this file. Numbers and structures are those of Linux's
//! `include/uapi/linux/fs.h`; they are the same on every
//! processor, because each structure has the same bytes everywhere.

use std::ffi::c_void;
use std::fs::File;
use std::io;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};

/// Tells a block device that `length` bytes from `start` hold nothing (BLKDISCARD).
pub fn discard(file: &File, start: u64, length: u64) -> io::Result<()> {
    call::<{ opcode::none(0x12, 119) }, _>(file, [start, length]).map(|_| ())
}

/// Hands `argument` to the driver; gives what the call returned and what became of the argument.
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
        // SAFETY: rustix hands back the pointer that `as_ptr` gave, to a `T` that is still there.
        Ok((answer, unsafe { argument.cast::<T>().read() }))
    }
}

/// Integers and arrays of them.
trait Plain: Copy {}

impl Plain for u64 {}
impl<T: Plain, const LENGTH: usize> Plain for [T; LENGTH] {}
