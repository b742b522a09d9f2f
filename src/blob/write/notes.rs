//! What the log remembers besides blobs and tags: the time, what was spent of the link, documents.
//!
//! Each is small, and its newest version stands in every checkpoint. A time costs no page of its
//! own, for it is worth none; what was spent and what a document says is durable before anybody
//! goes by it.

use std::sync::Arc;

use crate::blob::format::{
    ACCOUNTS_MAX, DOCUMENT_BYTES_MAX, DOCUMENTS_MAX, NAME_BYTES_MAX, Record, Spent,
};
use crate::blob::index::{document_bytes, is_ledger, ledger_bytes};
use crate::blob::{Error, Store};
use crate::kind::Kind;

impl Store {
    /// The time that was recorded last, in seconds since 1970-01-01 UTC.
    pub fn recorded_time(&self) -> Option<u64> {
        self.0.state.borrow().index.time
    }

    /// Records what time it is. It is on the device with the next record that is, or after
    /// [`Store::flush`].
    ///
    /// # Errors
    /// [`Kind::ReadOnly`] when the store takes no writes.
    pub fn record_time(&self, unix_seconds: u64) -> Result<(), Error> {
        self.append(Record::Time { unix_seconds })
    }

    /// What each account has spent.
    pub fn ledger(&self) -> Vec<Spent> {
        self.0.state.borrow().index.ledger.clone()
    }

    /// Records what each account has spent, in place of what was recorded before; durable when it
    /// returns.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for too many accounts or too long a name, [`Kind::Full`] when the index
    /// has no room; the device's own.
    pub async fn set_ledger(&self, ledger: Vec<Spent>) -> Result<(), Error> {
        if !is_ledger(&ledger) {
            let what = format!(
                "a ledger of {} accounts: expected at most {ACCOUNTS_MAX}, and names of at most \
                 {NAME_BYTES_MAX} bytes",
                ledger.len()
            );
            return Err(Error::new(Kind::Invalid, what));
        }
        let known = ledger_bytes(&self.0.state.borrow().index.ledger);
        let more = ledger_bytes(&ledger).saturating_sub(known);
        self.make_index_room(more, "the ledger").await?;
        self.append(Record::Ledger(ledger))?;
        self.flush_records().await
    }

    /// What a document says.
    pub fn document(&self, name: &str) -> Option<Arc<[u8]>> {
        self.0.state.borrow().index.documents.get(name).cloned()
    }

    /// Records what a document says, in place of what it said before; durable when it returns. One
    /// of no bytes is gone.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a name or a document that is too long, and for one too many;
    /// [`Kind::Full`] when the index has no room; the device's own.
    pub async fn set_document(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (known, is_allowed) = {
            let index = &self.0.state.borrow().index;
            let known = index.documents.get(name).cloned();
            (known, bytes.is_empty() || index.may_document(name, bytes.len()))
        };
        if !is_allowed {
            let what = format!(
                "document {name:?} of {} bytes: expected at most {DOCUMENT_BYTES_MAX}, a name of \
                 at most {NAME_BYTES_MAX}, and at most {DOCUMENTS_MAX} documents",
                bytes.len()
            );
            return Err(Error::new(Kind::Invalid, what));
        }
        if known.as_deref().unwrap_or_default() != bytes {
            let before = known.map_or(0, |known| document_bytes(name, &known));
            let more = document_bytes(name, bytes).saturating_sub(before);
            self.make_index_room(more, name).await?;
            self.append(Record::Document { name: name.to_owned(), bytes: bytes.to_vec() })?;
        }
        // What is there already may have been recorded by somebody who waits for the sync still.
        self.flush_records().await
    }
}
