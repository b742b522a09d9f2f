//! What the log tells of itself.

use crate::oci::Digest;

/// A blob that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Of a manifest, as it was pushed.
    pub media_type: Option<String>,
    /// Whether the desired state needs it.
    pub pinned: bool,
}

/// A download that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The blob's name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The first byte that is missing.
    pub frontier: u64,
}

/// The log in figures; what was counted is since the log was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes that blobs can have in all.
    pub size_max_bytes: u64,
    /// Bytes in use or reserved.
    pub used_bytes: u64,
    /// Blobs held.
    pub blobs: u64,
    /// Bytes of them.
    pub held_bytes: u64,
    /// Bytes of those that the desired state does not need, and that may give way.
    pub cached_bytes: u64,
    /// Downloads under way or suspended.
    pub partials: u64,
    /// Segments with nothing in them.
    pub free_segments: usize,
    /// Bytes programmed on the device.
    pub programmed_bytes: u64,
    /// Blob bytes acknowledged.
    pub image_bytes: u64,
    /// Bytes copied to make room, or to level.
    pub copied_bytes: u64,
    /// Erases of the data segment that has had most.
    pub erases_max: u32,
    /// Erases of a data segment in the mean.
    pub erases_mean: u64,
}
