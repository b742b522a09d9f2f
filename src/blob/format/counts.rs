//! What is counted of a log over its device's life, as records keep it.

use serde::{Deserialize, Serialize};

use crate::flash::SEGMENTS_MAX;

/// What has been counted since the log was begun: FORMAT.md section 4, `Wear`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wear {
    /// Bytes and time.
    pub counts: Counts,
    /// How often each segment was made ready to be programmed anew, by number; those that follow
    /// never were.
    pub erases: Vec<u32>,
}

/// The part of it that changes with every record: FORMAT.md section 4, `Counts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Bytes programmed on the device.
    pub programmed_bytes: u64,
    /// Blob bytes acknowledged.
    pub image_bytes: u64,
    /// Bytes copied to make room, or to level.
    pub copied_bytes: u64,
    /// Bytes programmed of late, and the seconds in which that was: both are halved when these are
    /// more than two months, so that what is long past counts less and less.
    pub recent_bytes: u64,
    /// See [`Counts::recent_bytes`]. Time without power is not counted.
    pub recent_seconds: u64,
}

impl Wear {
    /// Counts an erase.
    pub fn erased(&mut self, segment: u32) {
        let Ok(index) = usize::try_from(segment) else { return };
        if segment < SEGMENTS_MAX && index >= self.erases.len() {
            self.erases.resize(index + 1, 0);
        }
        if let Some(count) = self.erases.get_mut(index) {
            *count = count.saturating_add(1);
        }
    }

    /// How often a segment was erased.
    pub fn erases_of(&self, segment: usize) -> u32 {
        self.erases.get(segment).copied().unwrap_or(0)
    }
}

/// Of a day.
pub const DAY_SECONDS: u64 = 24 * 60 * 60;
