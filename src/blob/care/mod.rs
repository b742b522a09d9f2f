//! What keeps a log in order for years: room for what comes, cells that wear evenly, bit rot found and
//! put right, errors of the device outlived.

pub(super) mod admit;
pub(super) mod evict;
pub(super) mod gc;
pub(super) mod remount;
pub(super) mod scrub;
pub(super) mod trim;
pub(super) mod wear;
