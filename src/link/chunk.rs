//! How much to ask for in one Range request.
//!
//! A chunk is a power of two between 256 KiB and 8 MiB that the link carries in about ten seconds:
//! small on a bad link, where every request may be the last, and large on a good one, where the
//! 3 KB that a request costs should not be felt. Durability does not hang on it: the log syncs at
//! its own pace.

use std::time::Duration;

/// The size of the next request, learnt from the last ones.
#[derive(Clone, Copy, Debug)]
pub struct ChunkSize {
    bytes: u64,
}

impl Default for ChunkSize {
    fn default() -> Self {
        Self { bytes: START_BYTES }
    }
}

impl ChunkSize {
    /// Bytes to ask for now.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// A request for `received` bytes went through in `span`.
    pub fn went_through(&mut self, received: u64, span: Duration) {
        if received < BYTES_MIN {
            // How long little takes depends on the round trip, not by the link.
            return;
        }
        let micros = span.as_micros().max(1);
        let goodput = u128::from(received) * 1_000_000 / micros;
        let wanted = goodput.saturating_mul(TARGET_SECONDS);
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).clamp(BYTES_MIN, BYTES_MAX);
        // One lucky request proves little: grow at most fourfold at a time.
        let bytes = wanted.min(self.bytes.saturating_mul(4));
        self.bytes = (1 << bytes.ilog2()).clamp(BYTES_MIN, BYTES_MAX);
    }

    /// A request was cut.
    pub fn was_cut(&mut self) {
        self.bytes = (self.bytes / 2).max(BYTES_MIN);
    }
}

/// Where an unknown link starts.
const START_BYTES: u64 = 1 << 20;
/// The smallest request: at 3 KB of overhead, 1.2 %.
const BYTES_MIN: u64 = 256 << 10;
/// The largest: more would only lengthen what a lying server can waste.
const BYTES_MAX: u64 = 8 << 20;
const TARGET_SECONDS: u128 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_link() {
        let mut chunk = ChunkSize::default();
        chunk.went_through(1 << 20, Duration::from_millis(2));
        assert_eq!(chunk.bytes(), 4 << 20, "at most fourfold");
        chunk.went_through(4 << 20, Duration::from_millis(8));
        assert_eq!(chunk.bytes(), BYTES_MAX);
        chunk.went_through(8 << 20, Duration::from_secs(79));
        assert_eq!(chunk.bytes(), 1 << 20, "104 KiB/s for ten seconds, rounded down");
        for _ in 0..9 {
            chunk.was_cut();
        }
        assert_eq!(chunk.bytes(), BYTES_MIN);
        chunk.went_through(BYTES_MIN, Duration::ZERO);
        assert_eq!(chunk.bytes(), 4 * BYTES_MIN);
        chunk.went_through(200, Duration::from_millis(80));
        assert_eq!(
            chunk.bytes(),
            4 * BYTES_MIN,
            "a config of 200 bytes says nothing about the link"
        );
    }
}
