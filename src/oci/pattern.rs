//! Patterns over repository names: `library/*`, `team/**`, `**/base-*`.
//!
//! `*` stands for any letters within one part of a name, `**` for any number of whole parts, none
//! included, as Harbor's rules have it. Nothing else is special, so that there is nothing to quote.

use std::str::FromStr;

/// A pattern over repository names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether a repository's name fits.
    pub fn fits(&self, repository: &str) -> bool {
        let wanted: Vec<&str> = self.0.split('/').collect();
        let found: Vec<&str> = repository.split('/').collect();
        matches(
            &wanted,
            &found,
            |wanted| *wanted == ANY_PARTS,
            |wanted, found| {
                matches(wanted.as_bytes(), found.as_bytes(), |byte| *byte == b'*', u8::eq)
            },
        )
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let is_part = |part: &str| {
            let known = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"*._-".contains(&byte)
            };
            part == ANY_PARTS
                || !part.is_empty() && !part.contains(ANY_PARTS) && part.bytes().all(known)
        };
        match text.len() <= BYTES_MAX && text.split('/').all(is_part) {
            true => Ok(Self(text.to_owned())),
            false => Err(PatternError),
        }
    }
}

/// What is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternError;

/// Whether `found` is `wanted`, where each item of `wanted` that `is_any` stands for any number of
/// items. It goes back to the last such item only, so that the time is bounded by the product of
/// both lengths.
fn matches<T>(
    wanted: &[T],
    found: &[T],
    is_any: impl Fn(&T) -> bool,
    is_same: impl Fn(&T, &T) -> bool,
) -> bool {
    let (mut at, mut place) = (0, 0);
    // The last `any`, and where what it stands for ends.
    let mut back = None;
    while let Some(item) = found.get(place) {
        match wanted.get(at) {
            Some(any) if is_any(any) => {
                back = Some((at, place));
                at += 1;
            }
            Some(same) if is_same(same, item) => (at, place) = (at + 1, place + 1),
            _ => {
                let Some((any, end)) = back else { return false };
                back = Some((any, end + 1));
                (at, place) = (any + 1, end + 1);
            }
        }
    }
    wanted.get(at..).is_some_and(|rest| rest.iter().all(is_any))
}

/// Stands for any number of parts.
const ANY_PARTS: &str = "**";
/// As long as a repository's name may be.
const BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, fitting, others) in [
            ("**", &["a", "a/b/c"][..], &[][..]),
            ("*", &["a", "a-b"], &["a/b"]),
            ("library/*", &["library/busybox"], &["library", "library/a/b", "my/library/a"]),
            ("team/**", &["team", "team/a", "team/a/b"], &["teams/a", "a/team"]),
            ("**/base-*", &["base-", "base-os", "a/b/base-os"], &["base", "base-os/a"]),
            ("a/**/z", &["a/z", "a/b/z", "a/z/z"], &["a", "a/b", "z/a"]),
            ("*a*b", &["ab", "xaxb", "aabb"], &["ba", "abc"]),
            ("library/busybox", &["library/busybox"], &["library/busybox2"]),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            for name in fitting {
                assert!(pattern.fits(name), "{pattern:?} {name}");
            }
            for name in others {
                assert!(!pattern.fits(name), "{pattern:?} {name}");
            }
        }
    }

    #[test]
    fn what_fits_no_name_is_refused() {
        for text in ["", "/", "a//b", "a/", "A", "a**", "**a", "a?", "{a,b}", "a b", "a:1"] {
            assert_eq!(text.parse::<Pattern>(), Err(PatternError), "{text:?}");
        }
        assert!("a".repeat(256).parse::<Pattern>().is_err());
        let long: Pattern = "*a".repeat(127).parse().unwrap();
        assert!(!long.fits(&("a".repeat(254) + "b")), "and that takes no time");
    }
}
