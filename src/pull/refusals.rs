//! What was asked for in vain a moment ago, and is not asked for again yet.
//!
//! Clients ask again at once, and all of them; a registry that said no, or nothing, is left alone
//! for a while, and no bytes are spent on what came wrong. Only so much is remembered: what is
//! forgotten costs one more request.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kind::Kind;

/// What is refused, by name.
#[derive(Default)]
pub struct Refusals(BTreeMap<String, Refusal>);

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the error that was met.
    pub kind: Kind,
    /// That error, in its first letters.
    pub what: String,
    /// By the monotonic clock.
    until: Duration,
}

impl Refusals {
    /// `name` is refused for `pause` from `now` on.
    pub fn note(&mut self, name: String, kind: Kind, what: &str, now: Duration, pause: Duration) {
        if self.0.len() >= REFUSALS_MAX && !self.0.contains_key(&name) {
            self.0.retain(|_, refusal| now < refusal.until);
        }
        if self.0.len() >= REFUSALS_MAX && !self.0.contains_key(&name) {
            let first = self.0.iter().min_by_key(|(_, refusal)| refusal.until);
            if let Some(first) = first.map(|(name, _)| name.clone()) {
                self.0.remove(&first);
            }
        }
        let what = what.chars().take(WHAT_CHARS_MAX).collect();
        self.0.insert(name, Refusal { kind, what, until: now + pause });
    }

    /// Why `name` is refused, if it is.
    pub fn get(&self, name: &str, now: Duration) -> Option<Refusal> {
        self.0.get(name).filter(|refusal| now < refusal.until).cloned()
    }
}

/// Things that are refused at a time, of which each takes a few hundred bytes.
const REFUSALS_MAX: usize = 512;
const WHAT_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_end_and_are_bounded() {
        let at = Duration::from_secs;
        let mut refusals = Refusals::default();
        refusals.note("a".to_owned(), Kind::Missing, &"x".repeat(1000), at(1), at(10));
        let refusal = refusals.get("a", at(10)).unwrap();
        assert_eq!((refusal.kind, refusal.what.len()), (Kind::Missing, WHAT_CHARS_MAX));
        assert_eq!((refusals.get("a", at(11)), refusals.get("b", at(1))), (None, None));
        for number in 0..2 * REFUSALS_MAX as u64 {
            refusals.note(number.to_string(), Kind::Retry, "", at(number), at(5000));
        }
        assert_eq!(refusals.0.len(), REFUSALS_MAX);
        assert!(refusals.get("0", at(1)).is_none(), "the one that would end first was dropped");
        assert!(refusals.get("1023", at(1)).is_some());
        refusals.note("new".to_owned(), Kind::Retry, "", at(100_000), at(1));
        assert_eq!(refusals.0.len(), 1, "what has ended goes first");
    }
}
