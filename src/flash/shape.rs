//! How large a segment is, by the size of the whole device: normative in FORMAT.md section 2.
//!
//! A segment is what is recycled at once and what bounds the index (three quarters of one), so it
//! is as large as leaves enough of them. The size of a device is all that decides: a device keeps
//! no note of it outside the log, and the log cannot be found without it.

use super::SEGMENTS_MAX;

/// The segments of a device whose units may be programmed over: 4 MiB; a smaller power of two
/// where fewer than 64 would fit.
pub fn segment_bytes(device_bytes: u64) -> u32 {
    let wanted = (device_bytes / SEGMENTS_WANTED).max(1);
    // No shift is wider than the largest segment's.
    let shift = wanted.ilog2().min(SEGMENT_BYTES_MAX.ilog2());
    (1 << shift).max(SEGMENT_BYTES_MIN)
}

/// How many of a device's `count` erase blocks, of which `used_bytes` each are used, make a
/// segment: doubled while it is smaller than 64 KiB, and as long as it stays within 4 MiB and at
/// least 512 segments are left.
pub fn erase_blocks(used_bytes: u32, count: u64) -> u32 {
    let mut blocks = 1_u32;
    loop {
        let doubled = u64::from(blocks) * 2;
        let is_small = u64::from(blocks) * u64::from(used_bytes) < u64::from(SEGMENT_BYTES_MIN);
        let fits = doubled * u64::from(used_bytes) <= u64::from(SEGMENT_BYTES_MAX)
            && count / doubled >= ERASE_SEGMENTS_WANTED;
        if !fits && !is_small || blocks >= SEGMENT_BYTES_MIN {
            return blocks;
        }
        blocks *= 2;
    }
}

/// How many whole segments fit, or as many of them as a device may have.
pub fn segment_count(device_bytes: u64, segment_bytes: u32) -> u32 {
    let count = device_bytes.checked_div(u64::from(segment_bytes)).unwrap_or(0);
    u32::try_from(count).unwrap_or(u32::MAX).min(SEGMENTS_MAX)
}

/// The largest segment.
pub const SEGMENT_BYTES_MAX: u32 = 4 << 20;
/// The smallest.
pub const SEGMENT_BYTES_MIN: u32 = 64 << 10;
const SEGMENTS_WANTED: u64 = 64;
/// More than in a file: what is programmed once only is recycled often, and evenly if there are
/// many.
const ERASE_SEGMENTS_WANTED: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_as_large_as_leaves_enough_of_them() {
        assert_eq!(segment_bytes(4 << 30), 4 << 20);
        assert_eq!(segment_bytes(256 << 20), 4 << 20);
        assert_eq!(segment_bytes((256 << 20) - 1), 2 << 20);
        assert_eq!(segment_bytes(16 << 20), 256 << 10);
        assert_eq!((segment_bytes(0), segment_bytes(u64::MAX)), (64 << 10, 4 << 20));
        assert_eq!(segment_count((16 << 20) + 7, 256 << 10), 64);
        assert_eq!((segment_count(7, 8), segment_count(u64::MAX, 1)), (0, SEGMENTS_MAX));
    }
}
