//! Who uses a directory of data: servers share it, a restore wants it for itself. The kernel holds
//! the lock and releases it with the process, however that ends.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The lock, until dropped.
pub struct Held(#[expect(dead_code, reason = "the lock is the open file")] File);

/// For a server.
pub fn shared(directory: &Path) -> Result<Held, String> {
    hold(directory, FlockOperation::NonBlockingLockShared, "a restore is under way")
}

/// For a restore.
pub fn exclusive(directory: &Path) -> Result<Held, String> {
    let expected = "a server uses it: expected it stopped";
    hold(directory, FlockOperation::NonBlockingLockExclusive, expected)
}

/// For what one server does alone; the file is made when missing. None while another does it.
pub fn sole(path: &Path) -> Result<Option<Held>, String> {
    let shown = path.display();
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(|error| format!("{shown}: {error}"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Held(file))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        // What is done twice is done for nothing, and not wrong.
        Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK) => Ok(Some(Held(file))),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn hold(directory: &Path, how: FlockOperation, taken: &str) -> Result<Held, String> {
    let shown = directory.display();
    let file = File::open(directory).map_err(|error| format!("{shown}: {error}"))?;
    match flock(&file, how) {
        Ok(()) => Ok(Held(file)),
        Err(Errno::WOULDBLOCK) => Err(format!("{shown}: {taken}")),
        // A file system without locks: what this guards against is a mistake, not an attack.
        Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK) => Ok(Held(file)),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}
