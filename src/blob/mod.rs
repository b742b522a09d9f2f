//! The blob log: what is held, on flash, across power cuts.
//!
//! A flash-wear-aware append-only log of content-addressed blobs. Bytes are written once, to their
//! final place; what they are is said by records in the META ring; a blob is visible only after
//! its digest was verified and its bytes are durable, and acknowledged when its Commit record is.
//! The bytes on the device are given by FORMAT.md.
//!
//! One [`Store`] per device, shared by clones. What changes the device goes through one queue, on
//! another thread where its calls take long; syncs go beside it, and all who wait at the same time
//! share one. State is plain memory behind a `RefCell` that is never held across an await.

mod admit;
mod blobs;
mod change;
mod checks;
pub mod counts;
mod error;
mod evict;
mod finish;
mod flush;
mod follow;
pub mod format;
mod gc;
mod hashed;
mod hashing;
mod index;
mod lane;
mod layout;
mod meta;
mod notes;
mod pack;
mod program;
mod queue;
mod reader;
mod recover;
mod remount;
mod reserve;
mod scrub;
mod space;
mod state;
mod store;
mod syncing;
mod trim;
mod view;
mod wear;
mod writer;

pub use admit::{Admission, Room, Want};
pub use error::Error;
pub use follow::Follower;
pub use format::{Spent, TagKey};
pub use hashed::HashedReader;
pub use reader::{Reader, Span};
pub use recover::MountReport;
pub use scrub::Check;
pub use store::Store;
pub use view::{Entry, Partial, Stat};
pub use writer::{PROGRESS_BYTES, Writer};
