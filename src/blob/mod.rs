//! The blob log: what is held, on flash, across power cuts.
//!
//! A flash-wear-aware append-only log of content-addressed blobs. Bytes are written once, to their
//! final place; what they are is said by records in the META ring; a blob is visible only after
//! its digest was verified and its bytes are durable, and acknowledged when its Commit record is.
//! The bytes on the device are given by FORMAT.md.
//!
//! A room imports only from lower rows of this table, as modules do from that of `src/lib.rs`:
//!
//! | row | rooms | holds |
//! |---|---|---|
//! | 0 | `error` | why the log did not do what it was asked to |
//! | 1 | `format` | what lies on flash: records, headers, and where the bytes of a blob are |
//! | 2 | `io` | the queue of what changes the device, and the threads beside it |
//! | 3 | `index` | what is held, and what room is free: plain memory, no I/O |
//! | 4 | `meta` | the ring of records: appending, reading, mounting |
//! | 5 | `store` | a mounted log: its state, and who may change it when |
//! | 6 | `write` | how a blob gets in |
//! | 7 | `read` | how it gets out |
//! | 8 | `care` | room, wear, bit rot, errors of the device |
//!
//! One [`Store`] per device, shared by clones. What changes the device goes through one queue, on
//! another thread where its calls take long; syncs go beside it, and all who wait at the same time
//! share one. State is plain memory behind a `RefCell` that is never held across an await.

mod care;
mod error;
pub mod format;
mod index;
mod io;
mod meta;
mod read;
mod store;
mod write;

pub use care::admit::{Admission, Room, Want};
pub use care::scrub::Check;
pub use error::Error;
pub use format::{Spent, TagKey};
pub use meta::recover::MountReport;
pub use read::hashed::HashedReader;
pub use read::reader::{Reader, Span};
pub use read::view::Stat;
pub use store::Store;
pub use store::state::{Entry, Partial};
pub use write::follow::Follower;
pub use write::writer::{PROGRESS_BYTES, Writer};
