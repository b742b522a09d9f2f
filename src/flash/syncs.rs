//! Syncs of a file, of which one that failed is the last.
//!
//! The kernel reports bytes that it could not write once, to the next sync; then they count
//! as written, and a further sync succeeds (A. Rebello and others, "Can Applications Recover from
//! fsync Failures?", 2020). So syncs go one after the other, and after an error all of them fail,
//! those that were waiting too, until the device is opened anew and what it holds is read.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use rustix::io::{Errno, ReadWriteFlags, pwritev2};

use super::Error;
use crate::kind::Kind;
use crate::units::to_usize;

/// Of one file.
#[derive(Default)]
pub struct Syncs(Mutex<Option<String>>);

impl Syncs {
    /// Makes durable what was written to `file`; `doing` goes before an error.
    ///
    /// # Errors
    /// [`Kind::Retry`] whatever the reason, no room included: bytes that were taken are lost.
    pub fn sync(&self, file: &File, doing: &str) -> Result<(), Error> {
        self.run(doing, || file.sync_data())
    }

    /// Makes durable what was written to a range of `file`, and nothing else that was. No one
    /// writes there meanwhile.
    ///
    /// The only call that syncs a part of a file is one that writes it, so what is in the page
    /// cache is written there once more; it goes to the disk once.
    ///
    /// # Errors
    /// As for [`Syncs::sync`].
    pub fn sync_range(&self, file: &File, range: Range<u64>, doing: &str) -> Result<(), Error> {
        self.run(doing, || {
            let mut bytes = vec![0; to_usize(range.end - range.start)];
            file.read_exact_at(&mut bytes, range.start)?;
            match write_through(file, &bytes, range.start) {
                // A kernel before 4.7, or a file system that does not know how.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.sync_data(),
                outcome => Ok(outcome?),
            }
        })
    }

    /// Syncs `file` once more after a sync that failed. If that succeeds, what the kernel keeps of it
    /// in memory is dropped, for it may differ from what is on the medium, and syncs succeed again.
    ///
    /// # Errors
    /// As for [`Syncs::sync`].
    pub fn recover(&self, file: &File, doing: &str) -> Result<(), Error> {
        let mut failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed =
            |error: io::Error| Error { source: Some(error), ..Error::new(Kind::Retry, doing) };
        file.sync_data().map_err(failed)?;
        // Pages that somebody sends from at this moment stay, and are checked before the next does.
        let dropped = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
        dropped.map_err(|error| failed(error.into()))?;
        *failure = None;
        Ok(())
    }

    fn run(&self, doing: &str, sync: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
        let mut failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            *failure = sync().err().map(|error| format!("{doing}: {error}"));
        }
        match &*failure {
            None => Ok(()),
            Some(what) => Err(Error::new(Kind::Retry, what.clone())),
        }
    }
}

fn write_through(file: &File, bytes: &[u8], start: u64) -> Result<(), Errno> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        let position = start + written as u64;
        match pwritev2(file, &[IoSlice::new(rest)], position, ReadWriteFlags::DSYNC) {
            Ok(0) => return Err(Errno::IO),
            Ok(length) => written += length,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_error_no_sync_succeeds() {
        let syncs = Syncs::default();
        syncs.run("syncing x", || Ok(())).unwrap();
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let failed = syncs.run("syncing x", || Err(full)).unwrap_err();
        assert_eq!(failed.kind(), Kind::Retry, "{failed}");
        let later = syncs.run("syncing x", || Ok(())).unwrap_err();
        assert_eq!(later.to_string(), failed.to_string());
    }

    #[test]
    fn a_range_stays_what_it_was() {
        let path = std::env::temp_dir().join(format!("moonlet-syncs-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let written: Vec<u8> = (0..=u8::MAX).cycle().step_by(7).take(12288).collect();
        file.write_all_at(&written, 0).unwrap();
        let syncs = Syncs::default();
        syncs.sync_range(&file, 4096..12288, "syncing x").unwrap();
        let beyond = syncs.sync_range(&file, 8192..16384, "syncing x").unwrap_err();
        assert_eq!(beyond.kind(), Kind::Retry, "{beyond}");
        syncs.sync(&file, "syncing x").unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), written);
        std::fs::remove_file(&path).unwrap();
    }
}
