//! Limits per principal: so many requests a minute for one satellite, one enrolment token, one
//! user at one address. Wrong passwords are counted per address as well, satellites' requests
//! never: a thousand of them may stand behind one.
//!
//! A table of fixed size holds one bucket of tokens for each slot, and a secret hash chooses the
//! slot of a principal. Two that share a slot share its rate, which is generous; what an attacker
//! sends can neither grow the table nor aim at a slot.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;

/// Who is at the other end of the connection.
#[derive(Clone, Copy)]
pub struct Peer(pub IpAddr);

/// A table of buckets.
pub struct Limit {
    slots: Mutex<Vec<Slot>>,
    hasher: RandomState,
    start: Instant,
    burst: f32,
    per_second: f32,
}

#[derive(Clone, Copy)]
struct Slot {
    tokens: f32,
    seconds: f32,
}

impl Limit {
    /// At most `burst` requests at once, and `per_minute` in the long run.
    pub fn new(burst: u16, per_minute: u16) -> Self {
        let burst = f32::from(burst);
        Self {
            slots: Mutex::new(vec![Slot { tokens: burst, seconds: 0.0 }; SLOTS_MAX]),
            hasher: RandomState::new(),
            start: Instant::now(),
            burst,
            per_second: f32::from(per_minute) / 60.0,
        }
    }

    /// Takes a token; false when there is none.
    pub fn take(&self, principal: impl Hash) -> bool {
        self.take_at(principal, self.start.elapsed().as_secs_f32())
    }

    /// Returns a token that turned out not to be needed.
    pub fn give_back(&self, principal: impl Hash) {
        self.with_slot(principal, |slot| slot.tokens = (slot.tokens + 1.0).min(self.burst));
    }

    fn take_at(&self, principal: impl Hash, now: f32) -> bool {
        self.with_slot(principal, |slot| {
            let grown = slot.tokens + (now - slot.seconds).max(0.0) * self.per_second;
            slot.tokens = grown.min(self.burst);
            slot.seconds = now;
            let has_one = slot.tokens >= 1.0;
            if has_one {
                slot.tokens -= 1.0;
            }
            has_one
        })
        .unwrap_or(false)
    }

    fn with_slot<T>(&self, principal: impl Hash, act: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let hash = self.hasher.hash_one(principal);
        let mut slots = self.slots.lock().ok()?;
        let count = u64::try_from(slots.len()).ok()?.max(1);
        let place = usize::try_from(hash % count).ok()?;
        slots.get_mut(place).map(act)
    }
}

const SLOTS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let limit = Limit::new(3, 60);
        let took = (0..10).filter(|_| limit.take_at("a", 0.0)).count();
        assert_eq!(took, 3);
        assert!(limit.take_at("a", 1.0));
        assert!(!limit.take_at("a", 1.5));
        limit.give_back("a");
        assert!(limit.take_at("a", 1.5));
        // It never grows beyond the burst.
        let took = (0..10).filter(|_| limit.take_at("a", 1000.0)).count();
        assert_eq!(took, 3);
    }

    #[test]
    fn principals_do_not_share() {
        let limit = Limit::new(1, 1);
        let took = (0..100).filter(|number| limit.take_at(number, 0.0)).count();
        assert!(took >= 95, "{took} of 100 principals got their turn");
    }
}
