//! The contract between Ground Control and its satellites: enrolment, desired state, report.
//!
//! Both binaries import this module, so that what one writes the other reads. It is also the wire
//! format of the Go implementation of Harbor Satellite 0.0.4, in whose fleets either half may stand:
//! field names and the order of fields are Go's, and what is empty is left out as Go leaves it out.
//! `tests/data/fleet` holds a recorded exchange.
//!
//! Reading is tolerant where Go is (a field may be missing or null, an unknown one is ignored) and
//! strict about meaning: `check` holds every name to its grammar and every list to its limit, and
//! an error names the value. Nothing here does I/O.

pub mod config;
pub mod document;
pub mod enrol;
pub mod interval;
pub mod report;
pub mod state;

use std::fmt;

use serde::{Deserialize, Deserializer};

/// Something in a message that can never work; the text names the value and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl Invalid {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

/// Whether `name` can name a satellite, a group or a config: `^[a-z0-9][a-z0-9._-]*$`, at most
/// [`NAME_BYTES_MAX`] long.
///
/// The name becomes a part of a repository, so that what the OCI distribution specification
/// refuses there is refused here as well: two dots in a row, a separator at the end.
pub fn valid_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && !name.contains('/') && crate::oci::valid_repository(name)
}

/// Refuses what cannot name a `what`, such as a group: see [`valid_name`].
///
/// # Errors
/// Names the value and what was expected.
pub fn check_name(what: &str, name: &str) -> Result<(), Invalid> {
    if valid_name(name) {
        return Ok(());
    }
    Err(Invalid::new(format!(
        "{what} {}: expected 1 to {NAME_BYTES_MAX} lower-case letters, digits, and . _ - between",
        shown(name)
    )))
}

/// The longest name of a satellite, a group or a config. Go takes 255 bytes, but the name goes into
/// a repository of at most 255, of which `satellite/satellite-state/` and `/state` take 32.
pub const NAME_BYTES_MAX: usize = 200;

/// Reads `null` as the default, as Go does.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Go's `omitempty`.
fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The first characters of a value, for an error.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("{shown:?}")
}

const SHOWN_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_repositories() {
        for good in ["edge1", "a", "0.site-7_x", &"a".repeat(NAME_BYTES_MAX)] {
            assert!(valid_name(good), "{good}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "Edge", ".a", "a/b", "a b", "a..b", "a-", "a'--", "\u{e9}", &long] {
            assert!(!valid_name(bad), "{bad}");
            let error = check_name("group", bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("group {}", shown(bad))), "{error}");
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert!(shown(&"x".repeat(500)).len() < 100);
    }
}
