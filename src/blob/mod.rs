//! The blob log: what is held, on flash, across power cuts.
//!
//! A flash-wear-aware append-only log of content-addressed blobs. Bytes are written once, to their
//! final place; what they are is told by records in the META ring; a blob is visible only after
//! its digest was verified and its bytes are durable, and acknowledged when its Commit record is.
//! The bytes on the device are given by FORMAT.md.
//!
//! One [`Store`] per device, shared by clones. Programs and reads go straight to the device, which
//! for a file is the page cache; syncs, which take long, wait on another thread, except the two with
//! which a segment of META begins, and all who wait at the same time share one. State is plain memory
//! behind a `RefCell` that is never held across an await.

mod blobs;
mod checked;
mod checks;
pub mod counts;
mod error;
mod evict;
mod finish;
pub mod format;
mod gc;
mod hashing;
mod index;
mod layout;
mod meta;
mod pack;
mod reader;
mod recover;
mod reserve;
mod scrub;
mod space;
mod store;
mod syncing;
mod trim;
mod view;
mod wear;
mod writer;

pub use checked::Checked;
pub use error::Error;
pub use format::TagKey;
pub use reader::{Reader, Span};
pub use recover::MountReport;
pub use scrub::Check;
pub use store::Store;
pub use view::{Entry, Partial, Stat};
pub use writer::{PROGRESS_BYTES, Writer};
