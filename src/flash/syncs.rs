//! Syncs of a file, of which one that failed is the last.
//!
//! The kernel tells of bytes that it could not write once, to whoever syncs next; then they count
//! as written, and a further sync succeeds (A. Rebello and others, "Can Applications Recover from
//! fsync Failures?", 2020). So syncs go one after the other, and after an error all of them fail,
//! those that were waiting too, until the device is opened anew and what it holds is read.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::Error;
use crate::kind::Kind;

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
}
