//! A desired state that lies in a file or behind a URL, for satellites of no Ground Control: the
//! `artifacts.json` of the same artifacts, as it is.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Invalid;
use super::state::{GROUPS_MAX, GroupState, SatelliteState, within};

/// What a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A satellite-state: where the groups' documents are, and the config's.
    Satellite(SatelliteState),
    /// A group-state: the images themselves.
    Group(GroupState),
}

/// What distinguishes them.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    states: Option<IgnoredAny>,
    #[serde(default)]
    group: Option<IgnoredAny>,
}

impl Document {
    /// Reads a document and holds it to its forms. One that is neither is refused, and not taken
    /// for a state without images: a login page may well be JSON.
    ///
    /// # Errors
    /// Names the value and what was expected.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let Outline { states, group } = parsed(bytes)?;
        match (states, group) {
            (Some(_), None) => {
                // Where they are is not in an artifact's form.
                let check =
                    |state: &SatelliteState| within("states", state.states.len(), GROUPS_MAX);
                checked(bytes, check).map(Self::Satellite)
            }
            (None, Some(_)) => checked(bytes, GroupState::check).map(Self::Group),
            _ => Err(Invalid::new(
                "neither one state nor the other: expected \"states\", a list of documents, or \
                 \"group\", a name, with \"artifacts\"",
            )),
        }
    }
}

/// Reads one part of a state and holds it to its forms.
///
/// # Errors
/// Names the value and what was expected.
pub fn checked<T: DeserializeOwned>(
    bytes: &[u8],
    check: impl FnOnce(&T) -> Result<(), Invalid>,
) -> Result<T, Invalid> {
    let value = parsed(bytes)?;
    check(&value).map(|()| value)
}

fn parsed<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Invalid> {
    serde_json::from_slice(bytes).map_err(|error| Invalid::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_states_are_told_apart() {
        let group = br#"{"group":"g","artifacts":[{"repository":"a","tag":["1"]}]}"#;
        let Document::Group(group) = Document::parse(group).unwrap() else { panic!() };
        assert_eq!(group.artifacts.len(), 1);
        let state = br#"{"states":["web.json"],"config":"config.json"}"#;
        let Document::Satellite(state) = Document::parse(state).unwrap() else { panic!() };
        assert_eq!((state.states[0].as_str(), state.config.as_str()), ("web.json", "config.json"));
        // Nothing to hold is said, not guessed.
        assert!(Document::parse(br#"{"states":[]}"#).is_ok());
    }

    #[test]
    fn what_is_neither_is_no_state_without_images() {
        for (text, part) in [
            ("{}", "expected \"states\""),
            (r#"{"status":"please log in"}"#, "expected \"states\""),
            (r#"{"states":[],"group":"g"}"#, "expected \"states\""),
            ("<html>", "expected value"),
            ("[]", "expected \"states\""),
            (r#"{"states":"web.json"}"#, "expected a sequence"),
            (r#"{"group":"G"}"#, "group \"G\""),
            (r#"{"group":"g","artifacts":[{"repository":"a","tag":["a b"]}]}"#, "tag \"a b\""),
        ] {
            let error = Document::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = format!(r#"{{"states":[{}"x"]}}"#, r#""x","#.repeat(GROUPS_MAX));
        assert!(Document::parse(many.as_bytes()).unwrap_err().to_string().contains("at most 64"));
    }
}
