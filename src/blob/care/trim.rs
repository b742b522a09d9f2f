//! Telling the device which segments hold nothing.
//!
//! A card's controller moves data it believes to be live; what it knows to be dead costs it no
//! copy. A trimmed segment costs a little more when it is used again, and some cards answer nothing
//! else while they trim, so the caller does this when nothing else goes on, a few segments at a
//! time, and a tenth of the segments stay as they are: those that are taken next.

use crate::blob::{Error, Store};

impl Store {
    /// Trims at most `count` free segments that were not trimmed since they became free; returns
    /// the number.
    pub async fn trim_some(&self, count: usize) -> Result<usize, Error> {
        let segments = {
            let mut state = self.0.state.borrow_mut();
            state.check()?;
            state.space.take_untrimmed(count)
        };
        let count = segments.len();
        // A writer that is given one of them meanwhile comes later in the queue.
        let trimmed = self
            .0
            .queue
            .begin(move |device| segments.into_iter().try_for_each(|segment| device.trim(segment)));
        trimmed.await?;
        Ok(count)
    }
}
