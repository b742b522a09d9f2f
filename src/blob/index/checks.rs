//! Which chunks of which blobs were checked since the start, and are due again when.
//!
//! One bit a chunk, and for each blob the time of the first check that its bits record: when that
//! is older than the interval, all of them are forgotten, so that none is ever trusted for longer.
//! Of the [`BLOBS_MAX`] blobs that were sent last this is known; any other is checked again when
//! it is sent. What is known belongs to one place of a blob: with every Commit and Delete of it
//! the store begins anew, while a reader of the old place keeps what is known of that.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use smol::lock::Mutex;

use crate::blob::format::CHUNK_BYTES;
use crate::clock::SharedClock;
use crate::oci::Digest;
use crate::units::to_usize;

/// What is known of the blobs that are sent.
#[derive(Default)]
pub struct Checks {
    /// For how long a check is trusted, by which clock; without one, for as long as it is known.
    trust: Option<(Duration, SharedClock)>,
    blobs: BTreeMap<Digest, Rc<Checked>>,
    uses: u64,
}

/// What is known of one blob at one place.
#[derive(Default)]
pub struct Checked {
    /// Held while a chunk is checked: others who need it wait, and find it done.
    pub turn: Mutex<()>,
    marks: RefCell<Marks>,
    used: Cell<u64>,
}

#[derive(Default)]
struct Marks {
    /// When the first of these was checked, by the monotonic clock.
    since: Option<Duration>,
    /// Whether the trailer is what was written.
    has_trailer: bool,
    /// A bit for each chunk.
    chunks: Vec<u64>,
}

impl Checks {
    /// Checks are trusted for `interval` from here on.
    pub fn trust_for(&mut self, interval: Duration, clock: SharedClock) {
        self.trust = Some((interval, clock));
    }

    /// What is known of a blob that is sent now.
    pub fn of(&mut self, digest: &Digest) -> Rc<Checked> {
        self.uses += 1;
        let used = self.uses;
        let known = self.blobs.entry(*digest).or_default();
        known.used.set(used);
        let known = Rc::clone(known);
        // What somebody reads by must stay where others can take it back.
        let unread = self.blobs.iter().filter(|(_, known)| Rc::strong_count(known) == 1);
        if self.blobs.len() > BLOBS_MAX
            && let Some(oldest) = unread.min_by_key(|(_, known)| known.used.get())
        {
            let oldest = *oldest.0;
            self.blobs.remove(&oldest);
        }
        known
    }

    /// A blob is gone, or lies elsewhere.
    pub fn forget(&mut self, digest: &Digest) {
        self.blobs.remove(digest);
    }

    /// What was read may not be what is on the medium.
    pub fn forget_all(&mut self) {
        // A reader in the middle of a body goes by these.
        for known in self.blobs.values() {
            *known.marks.borrow_mut() = Marks::default();
        }
        self.blobs.clear();
    }

    /// A chunk was found to be wrong by somebody else.
    pub fn forget_chunk(&self, digest: &Digest, chunk: u32) {
        if let Some(known) = self.blobs.get(digest) {
            known.marks.borrow_mut().set(chunk, false);
        }
    }

    /// The time by which checks are dated, and before which they are too old.
    pub fn now(&self) -> Now {
        let trust = self.trust.as_ref().map(|(interval, clock)| (clock.monotonic(), *interval));
        let (time, interval) = trust.unwrap_or((Duration::ZERO, Duration::MAX));
        Now { time, interval }
    }
}

/// A moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    time: Duration,
    interval: Duration,
}

impl Checked {
    /// How many of `length` bytes from `offset` on were checked not too long ago.
    pub fn good_bytes(&self, offset: u64, length: u64, now: Now) -> u64 {
        let mut marks = self.marks.borrow_mut();
        marks.expire(now);
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end && marks.has(at / CHUNK_BYTES) {
            at = (at / CHUNK_BYTES + 1) * CHUNK_BYTES;
        }
        at.min(end) - offset
    }

    /// Whether the trailer was found to be sound not too long ago.
    pub fn has_trailer(&self, now: Now) -> bool {
        let mut marks = self.marks.borrow_mut();
        marks.expire(now);
        marks.has_trailer
    }

    /// The trailer is sound.
    pub fn set_trailer(&self, now: Now) {
        let mut marks = self.marks.borrow_mut();
        marks.begin(now);
        marks.has_trailer = true;
    }

    /// A chunk is what it must be.
    pub fn set_chunk(&self, chunk: u32, now: Now) {
        let mut marks = self.marks.borrow_mut();
        marks.begin(now);
        marks.set(chunk, true);
    }
}

impl Marks {
    fn begin(&mut self, now: Now) {
        self.expire(now);
        self.since.get_or_insert(now.time);
    }

    fn expire(&mut self, now: Now) {
        if self.since.is_some_and(|since| now.time.saturating_sub(since) >= now.interval) {
            *self = Self::default();
        }
    }

    fn has(&self, chunk: u64) -> bool {
        let word = usize::try_from(chunk / 64).ok().and_then(|word| self.chunks.get(word));
        word.is_some_and(|word| word >> (chunk % 64) & 1 == 1)
    }

    fn set(&mut self, chunk: u32, is_good: bool) {
        let index = to_usize(chunk / 64);
        if is_good && index >= self.chunks.len() {
            // Chunks are asked for by number only where a blob has so many.
            self.chunks.resize(index + 1, 0);
        }
        let Some(word) = self.chunks.get_mut(index) else { return };
        let bit = 1 << (chunk % 64);
        *word = if is_good { *word | bit } else { *word & !bit };
    }
}

/// Blobs of which is known what was checked; 150 bytes each, and a bit for 256 KiB of them.
const BLOBS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: u32) -> Now {
        Now { time: HOUR * hours, interval: 24 * HOUR }
    }

    #[test]
    fn what_was_checked_is_good_up_to_the_first_chunk_that_was_not() {
        let known = Checked::default();
        assert_eq!(known.good_bytes(0, 9, at(0)), 0);
        for chunk in [0, 1, 3, 64] {
            known.set_chunk(chunk, at(0));
        }
        let whole = 100 * CHUNK_BYTES;
        assert_eq!(known.good_bytes(0, whole, at(0)), 2 * CHUNK_BYTES);
        assert_eq!(known.good_bytes(5, whole, at(0)), 2 * CHUNK_BYTES - 5);
        assert_eq!(known.good_bytes(5, 10, at(0)), 10);
        assert_eq!(known.good_bytes(2 * CHUNK_BYTES, 10, at(0)), 0);
        assert_eq!(known.good_bytes(65 * CHUNK_BYTES - 1, whole, at(0)), 1);
        assert_eq!(known.good_bytes(u64::MAX, 10, at(0)), 0);
    }

    #[test]
    fn no_check_is_trusted_for_longer_than_the_interval() {
        let known = Checked::default();
        known.set_chunk(0, at(1));
        known.set_trailer(at(20));
        known.set_chunk(1, at(24));
        assert_eq!(known.good_bytes(0, 2 * CHUNK_BYTES, at(24)), 2 * CHUNK_BYTES);
        assert!(known.has_trailer(at(24)));
        assert_eq!(known.good_bytes(CHUNK_BYTES, 1, at(25)), 0, "with the oldest go all");
        assert!(!known.has_trailer(at(25)));
        known.set_chunk(1, at(26));
        assert_eq!(known.good_bytes(CHUNK_BYTES, 1, at(49)), 1);
        assert_eq!(known.good_bytes(CHUNK_BYTES, 1, at(50)), 0);
    }

    #[test]
    fn the_blobs_that_were_sent_last_are_known() {
        let mut checks = Checks::default();
        let digest = |number: usize| Digest::sha256(&number.to_le_bytes());
        let now = checks.now();
        for number in 0..BLOBS_MAX {
            checks.of(&digest(number)).set_chunk(0, now);
        }
        checks.of(&digest(0));
        checks.of(&digest(BLOBS_MAX));
        assert_eq!(checks.blobs.len(), BLOBS_MAX);
        let is_known =
            |checks: &mut Checks, number| checks.of(&digest(number)).good_bytes(0, 1, now) == 1;
        assert!(is_known(&mut checks, 0));
        assert!(is_known(&mut checks, 2));
        assert!(!is_known(&mut checks, 1), "was sent longest ago");
        checks.forget_chunk(&digest(2), 0);
        assert!(!is_known(&mut checks, 2));
        checks.forget(&digest(0));
        assert!(!is_known(&mut checks, 0));
    }
}
