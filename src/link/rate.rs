//! A token bucket charged by what the link really carried.
//!
//! The cursor walks along the counter of received bytes (headers, TLS and retries included), so
//! that overhead is paid for as well, and one bucket holds for any number of downloads at a time.

use std::time::Duration;

use crate::units::ByteRate;

/// Keeps the average under a rate while letting short bursts through.
#[derive(Debug)]
pub struct Bucket {
    rate: u64,
    /// Bytes that may be received at once; negative after an overdraft that must be waited out.
    level: i64,
    burst: i64,
    refilled: Duration,
    counted: u64,
}

impl Bucket {
    /// A full bucket at time `now` of a monotonic clock, with the link's counter at `counted`.
    pub fn new(rate: ByteRate, now: Duration, counted: u64) -> Self {
        let per_burst = rate.0 / BURSTS_PER_SECOND;
        let burst = i64::try_from(per_burst.max(BURST_BYTES_MIN)).unwrap_or(i64::MAX);
        Self { rate: rate.0, level: burst, burst, refilled: now, counted }
    }

    /// What it keeps to.
    pub fn rate(&self) -> ByteRate {
        ByteRate(self.rate)
    }

    /// Charges all bytes that the link's counter shows since the last call, and says how long to
    /// wait before receiving more.
    pub fn charge(&mut self, now: Duration, counter: u64) -> Duration {
        let elapsed = now.saturating_sub(self.refilled);
        let refill = u128::from(self.rate) * elapsed.as_micros() / MICROSECONDS;
        // Only whole bytes are credited, so time moves on by what those took: no fraction is lost.
        let credited = refill * MICROSECONDS / u128::from(self.rate.max(1));
        self.refilled += Duration::from_micros(u64::try_from(credited).unwrap_or(u64::MAX));
        let refill = i64::try_from(refill).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(refill).min(self.burst);
        let spent = counter.saturating_sub(self.counted);
        self.counted = counter;
        self.level = self.level.saturating_sub(i64::try_from(spent).unwrap_or(i64::MAX));
        match u64::try_from(-self.level) {
            Ok(debt) if debt > 0 => {
                let micros = u128::from(debt) * MICROSECONDS / u128::from(self.rate.max(1));
                Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
            }
            _ => Duration::ZERO,
        }
    }
}

/// An eighth of a second of the rate may arrive at once.
const BURSTS_PER_SECOND: u64 = 8;
/// Below this a burst would be smaller than one TLS record.
const BURST_BYTES_MIN: u64 = 16 << 10;
const MICROSECONDS: u128 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_transfer_keeps_to_the_rate() {
        let rate = 1 << 20;
        let mut bucket = Bucket::new(ByteRate(rate), Duration::ZERO, 0);
        let (mut now, mut counter) = (Duration::ZERO, 0);
        while now < Duration::from_secs(60) {
            counter += 64 << 10;
            now += bucket.charge(now, counter) + Duration::from_micros(50);
        }
        let allowed = rate * 60 + rate / BURSTS_PER_SECOND + (64 << 10);
        assert!(counter <= allowed, "{counter} bytes in 60 s, at most {allowed}");
        assert!(counter >= rate * 59, "{counter} bytes in 60 s: the link stands idle");
    }

    #[test]
    fn an_idle_link_saves_up_no_more_than_a_burst() {
        let mut bucket = Bucket::new(ByteRate(1 << 20), Duration::ZERO, 0);
        let hour = Duration::from_secs(3600);
        assert_eq!(bucket.charge(hour, 0), Duration::ZERO);
        let wait = bucket.charge(hour, 1 << 20);
        assert!(wait >= Duration::from_millis(870), "{wait:?}");
    }

    #[test]
    fn fractions_of_a_byte_are_not_lost() {
        let mut bucket = Bucket::new(ByteRate(1000), Duration::ZERO, 0);
        bucket.charge(Duration::ZERO, 20_000);
        let mut now = Duration::ZERO;
        for _ in 0..20_000 {
            now += Duration::from_micros(300);
            bucket.charge(now, 20_000);
        }
        assert_eq!(bucket.charge(now, 20_000), Duration::ZERO, "6 s at 1 kB/s repay 3,616 bytes");
    }
}
