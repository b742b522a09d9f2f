//! Randomness that spreads retries and polls. Nothing secret depends on it.

use std::cell::Cell;
use std::time::Duration;

/// A fleet that was switched on together must not poll in step: up to a tenth less.
pub fn jittered(interval: Duration, random: u64) -> Duration {
    let tenth = u64::try_from(interval.as_millis() / 10).unwrap_or(u64::MAX).max(1);
    interval.saturating_sub(Duration::from_millis(random % tenth))
}

thread_local! {
    static SEED: Cell<u64> = Cell::new(seed());
}

/// Xorshift64* (Marsaglia 2003, Vigna 2014): good enough to spread retries.
pub fn random() -> u64 {
    SEED.with(|seed| {
        let mut state = seed.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        seed.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    })
}

fn seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library's hash keys are seeded by the kernel, once a process.
    std::hash::RandomState::new().build_hasher().finish() | 1
}
