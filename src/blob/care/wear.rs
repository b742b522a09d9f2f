//! What a log does to its device, counted over the device's life.
//!
//! The counts are kept in every checkpoint, and once more beside every record that is programmed,
//! so that a power cut costs next to nothing of them; erases are records of their own. Where the
//! log itself is all that stands between the data and the cells (NAND, NOR), free segments are
//! taken least worn first, and what never changes is moved now and then to the segments that are
//! worn most, so that the ones it rested on wear too. Behind a file system or a card's controller
//! that is theirs.

use log::warn;

use crate::blob::format::Record;
use crate::blob::format::counts::DAY_SECONDS;
use crate::blob::meta::mark_bad;
use crate::blob::{Error, Store};
use crate::flash;
use crate::kind::Kind;

// What the log says was counted so far may be anything.
impl Store {
    pub(in crate::blob) fn count_programmed(&self, bytes: u64) {
        self.metrics().flash_programmed_bytes.add(bytes);
        let counts = &mut self.0.state.borrow_mut().index.wear.counts;
        counts.programmed_bytes = counts.programmed_bytes.saturating_add(bytes);
        counts.recent_bytes = counts.recent_bytes.saturating_add(bytes);
    }

    /// Time went by. Once a day what was counted is recorded, so that a power cut costs no more of
    /// it, however seldom there is anything else to record.
    pub async fn tick(&self, seconds: u64) -> Result<(), Error> {
        let is_due = {
            let counts = &mut self.0.state.borrow_mut().index.wear.counts;
            let days = counts.recent_seconds / DAY_SECONDS;
            counts.recent_seconds = counts.recent_seconds.saturating_add(seconds);
            let is_due = counts.recent_seconds / DAY_SECONDS > days;
            if counts.recent_seconds > RECENT_SECONDS {
                counts.recent_seconds /= 2;
                counts.recent_bytes /= 2;
            }
            is_due
        };
        if is_due { self.record_wear().await } else { Ok(()) }
    }

    /// Records what was counted, durably.
    pub async fn record_wear(&self) -> Result<(), Error> {
        let wear = self.0.state.borrow().index.wear.clone();
        self.append(Record::Wear(wear))?;
        self.flush().await
    }

    pub(in crate::blob) fn count_committed(&self, bytes: u64) {
        self.metrics().flash_image_bytes.add(bytes);
        let count = &mut self.0.state.borrow_mut().index.wear.counts.image_bytes;
        *count = count.saturating_add(bytes);
    }

    pub(in crate::blob) fn count_copied(&self, bytes: u64) {
        self.metrics().flash_copied_bytes.add(bytes);
        let count = &mut self.0.state.borrow_mut().index.wear.counts.copied_bytes;
        *count = count.saturating_add(bytes);
    }

    /// What an error of programming or erasing a segment means. Where cells are the log's own, the
    /// segment is out of use from here on, and other room does as well.
    pub(in crate::blob) fn classify_failure(&self, segment: u32, error: flash::Error) -> Error {
        let is_worn = matches!(error.kind(), Kind::Retry | Kind::Corrupt);
        if self.device().geometry().reprogram || !is_worn {
            return error.into();
        }
        let what = format!("{error}; segment {segment} is bad and out of use");
        warn!("{what}");
        let mut state = self.0.state.borrow_mut();
        state.space.retire(segment);
        state.worn.insert(segment);
        Error::new(Kind::Retry, what)
    }

    /// Moves what lives in segments that went bad elsewhere, and marks them on the device, except
    /// those in which a download is under way.
    pub(in crate::blob) async fn retire_worn(&self) -> Result<(), Error> {
        let worn = self.0.state.borrow().worn.clone();
        if worn.is_empty() {
            return Ok(());
        }
        let _turn = self.0.collecting.lock().await;
        let held = self.held_by_uncommitted();
        for segment in worn.difference(&held) {
            let is_empty = self.empty_segment(*segment, false).await?;
            let mut state = self.0.state.borrow_mut();
            // A reader may still be at the old place of something.
            if is_empty && state.space.is_empty(*segment) {
                state.worn.remove(segment);
                mark_bad(self.device(), *segment);
            }
        }
        Ok(())
    }

    /// Moves what rests on the least worn segment to the most worn free one, when they are far
    /// apart and the log is what levels.
    pub(in crate::blob) async fn level(&self) -> Result<(), Error> {
        if self.device().geometry().reprogram {
            return Ok(());
        }
        let _turn = self.0.collecting.lock().await;
        let held = self.held_by_uncommitted();
        let cold = {
            let state = &mut *self.0.state.borrow_mut();
            let wear = &state.index.wear;
            state.space.coldest(wear, LEVEL_ERASES, |segment| !held.contains(&segment))
        };
        if let Some(segment) = cold {
            self.empty_segment(segment, true).await?;
        }
        Ok(())
    }
}

/// How far apart erase counts may come before data that never changes is moved: small beside the
/// thousands of cycles that cells last, large beside what a move costs.
const LEVEL_ERASES: u32 = 8;
/// What counts as recent: long enough for a device that takes a new image once a month.
const RECENT_SECONDS: u64 = 60 * DAY_SECONDS;
