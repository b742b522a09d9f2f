//! One process at a store: `flock` on a file that stands for it.
//!
//! A satellite holds the lock alone, those who only look share it. The kernel releases it when
//! the process is gone, however it went; nothing is left behind that would have to be believed.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::Error;

/// Takes `file`'s lock with [`File::try_lock`] or [`File::try_lock_shared`]. `store` names it in
/// errors.
///
/// # Errors
/// [`Error::is_in_use`] when another process has it.
pub fn take(
    file: &File,
    store: &Path,
    take: fn(&File) -> Result<(), TryLockError>,
) -> Result<(), Error> {
    for _ in 0..TRIES_MAX {
        match take(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => {
                return Err(Error::io(format!("store {}: lock", store.display()), error));
            }
        }
    }
    Err(Error::in_use(format!(
        "store {} is in use by another moonlet: stop it first, or set its admin.listen to ask \
         it at",
        store.display()
    )))
}

/// udev holds the lock of a disk for a moment while it looks what is on it, at boot of all times.
const TRIES_MAX: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);
