//! What is held, read: by clients, of whom none is sent a chunk that was not checked, and by ourselves.

pub(super) mod hashed;
pub(super) mod hashing;
pub(super) mod reader;
pub(super) mod view;
