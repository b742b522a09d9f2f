//! What has to change for the log to hold what is desired and no more: the difference between the
//! two, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::blob::{Partial, TagKey};
use crate::oci::Digest;
use crate::pull::{is_staged_tag, signed_digest};

/// Sorts tags by what becomes of them: the digests of those that stay because of an image that is
/// `desired` and held with `reachable`, and the tags that go. What is not desired and `is_cached`
/// stays without keeping anything.
pub fn sort_tags<'a>(
    tags: &'a [(TagKey, Digest)],
    desired: &BTreeSet<TagKey>,
    reachable: &BTreeSet<Digest>,
    is_cached: impl Fn(&TagKey) -> bool,
) -> (Vec<Digest>, Vec<&'a TagKey>) {
    let (mut signatures, mut gone) = (Vec::new(), Vec::new());
    for (key, root) in tags.iter().filter(|(key, _)| !desired.contains(key)) {
        match signed_digest(&key.tag) {
            Some(subject) if reachable.contains(&subject) => signatures.push(*root),
            _ if is_cached(key) && !is_staged_tag(&key.tag) => {}
            _ => gone.push(key),
        }
    }
    (signatures, gone)
}

/// Downloads that no image waits for, with how far each was when it was first seen so.
#[derive(Default)]
pub struct Idle(BTreeMap<Digest, (u64, Duration)>);

impl Idle {
    /// Those of `partials` to drop: all, unless they are kept `for_clients`, of which one may come
    /// back for a download until that has not moved for [`IDLE_MAX`].
    pub fn dead(&mut self, partials: &[Partial], now: Duration, for_clients: bool) -> Vec<Digest> {
        let before = std::mem::take(&mut self.0);
        let mut dead = Vec::new();
        for Partial { digest, frontier, .. } in partials {
            let known = before.get(digest).filter(|(at, _)| at == frontier);
            let since = known.map_or(now, |(_, since)| *since);
            if !for_clients || now.saturating_sub(since) >= IDLE_MAX {
                dead.push(*digest);
            } else {
                self.0.insert(*digest, (*frontier, since));
            }
        }
        dead
    }

    /// Nothing could move until `now`: what is idle is so from now on only.
    pub fn rest(&mut self, now: Duration) {
        self.0.values_mut().for_each(|(_, since)| *since = now);
    }
}

/// The downloads to drop so that `lacking` bytes come free, with the bytes that each has room
/// for: `planned` says which of them an image still waits for, and which place in the configuration
/// that has. Those that nothing waits for go first, then those of the last image; of two, the one
/// that has less.
pub fn give_way(
    partials: &[(Partial, u64)],
    planned: impl Fn(&Digest) -> Option<usize>,
    lacking: u64,
) -> Vec<Digest> {
    let mut order: Vec<_> = partials
        .iter()
        .map(|(partial, bytes)| {
            // None is least wanted of all.
            let wanted = planned(&partial.digest).map_or(0, |rank| usize::MAX - rank);
            (wanted, partial.frontier, partial.digest, *bytes)
        })
        .collect();
    order.sort_unstable();
    let mut found = 0_u64;
    let enough = order.into_iter().take_while(|(.., bytes)| {
        let is_lacking = found < lacking;
        found = found.saturating_add(*bytes);
        is_lacking
    });
    enough.map(|(_, _, digest, _)| digest).collect()
}

/// How long a client's download is kept after it was begun and left.
const IDLE_MAX: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    #[test]
    fn tags_stay_with_what_they_sign() {
        let key = |tag: &str| TagKey {
            registry: "registry.test".to_owned(),
            repository: "app".to_owned(),
            tag: tag.to_owned(),
        };
        let signature = |of: &str| format!("{}.sig", digest(of).to_tag());
        let tags = [
            (key("1"), digest("held")),
            (key("2"), digest("left")),
            (key(&signature("held")), digest("signature")),
            (key(&signature("left")), digest("other signature")),
            (key("v1.sig"), digest("no signature")),
        ];
        let desired = BTreeSet::from([key("1")]);
        let reachable = BTreeSet::from([digest("held")]);
        let (signatures, gone) = sort_tags(&tags, &desired, &reachable, |_| false);
        assert_eq!(signatures, [digest("signature")]);
        assert_eq!(gone, [&tags[1].0, &tags[3].0, &tags[4].0]);
        let cached = |key: &TagKey| key.tag == "2";
        let (signatures, gone) = sort_tags(&tags, &desired, &reachable, cached);
        assert_eq!(signatures, [digest("signature")], "a cached tag keeps nothing");
        assert_eq!(gone, [&tags[3].0, &tags[4].0]);
    }

    #[test]
    fn downloads_of_clients_are_kept_while_they_move_and_a_while_longer() {
        let partial = |frontier| [Partial { digest: digest("x"), size: 9, frontier }];
        let mut idle = Idle::default();
        assert_eq!(idle.dead(&partial(1), Duration::ZERO, false), [digest("x")]);
        assert_eq!(idle.dead(&partial(1), Duration::ZERO, true), []);
        assert_eq!(idle.dead(&partial(2), IDLE_MAX, true), [], "it moved");
        idle.rest(IDLE_MAX * 2);
        assert_eq!(idle.dead(&partial(2), IDLE_MAX * 2, true), [], "it could not move");
        assert_eq!(idle.dead(&partial(2), IDLE_MAX * 3, true), [digest("x")]);
        assert!(idle.0.is_empty());
    }

    #[test]
    fn downloads_give_way_in_order_and_only_as_many_as_needed() {
        let partial = |name: &str, frontier| Partial { digest: digest(name), size: 100, frontier };
        let partials = [("first", 90), ("last", 10), ("unplanned", 50), ("unplanned, less", 20)];
        let partials = partials.map(|(name, frontier)| (partial(name, frontier), 100));
        let planned = |of: &Digest| {
            let ranks = [("first", 0), ("last", 4)];
            ranks.iter().find(|(name, _)| digest(name) == *of).map(|(_, rank)| *rank)
        };
        for (lacking, expected) in [
            (0, &[][..]),
            (1, &["unplanned, less"][..]),
            (200, &["unplanned, less", "unplanned"]),
            (201, &["unplanned, less", "unplanned", "last"]),
            (u64::MAX, &["unplanned, less", "unplanned", "last", "first"]),
        ] {
            let expected: Vec<Digest> = expected.iter().map(|name| digest(name)).collect();
            assert_eq!(give_way(&partials, planned, lacking), expected, "{lacking}");
        }
    }
}
