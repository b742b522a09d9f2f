//! Where work on the device is done: changes in one queue, syncs beside it, checks on a thread of their
//! own.

pub(super) mod lane;
pub(super) mod queue;
pub(super) mod syncing;
