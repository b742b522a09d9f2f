//! Enrolment, and what a report is answered with.
//!
//! Two dialects: Go 0.0.4 asks `GET /satellites/ztr/{token}`, later versions
//! `POST /satellites/ztr` with the token in the body. The answer is the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Invalid, or_default, shown};

/// The body of the later dialect's request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// The enrolment token.
    #[serde(deserialize_with = "or_default")]
    pub token: String,
    /// What the device knows of itself, such as `arch` and `version`; Go does not send it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

impl Request {
    /// Holds the facts to their limits.
    pub fn check(&self) -> Result<(), Invalid> {
        super::state::within("facts", self.facts.len(), FACTS_MAX)?;
        for (name, value) in &self.facts {
            if !super::valid_name(name) || value.chars().count() > FACT_CHARS_MAX {
                return Err(Invalid::new(format!(
                    "fact {}={}: expected a name of lower-case letters and digits, and at most \
                     {FACT_CHARS_MAX} characters",
                    shown(name),
                    shown(value)
                )));
            }
        }
        Ok(())
    }
}

/// The fact by which the devices of a batch differ: made of a device's own number, and no secret.
pub const DEVICE: &str = "device";
/// Facts of one device.
pub const FACTS_MAX: usize = 16;
/// Of one fact's value.
pub const FACT_CHARS_MAX: usize = 128;

/// The answer: where the desired state is, and what opens it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Credentials for the registry that holds the state.
    #[serde(deserialize_with = "or_default")]
    pub auth: Credentials,
    /// The satellite-state artifact: `https://host/repository:tag`.
    #[serde(deserialize_with = "or_default")]
    pub state: String,
}

/// Who the satellite is to a registry.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// The registry: `https://host`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Such as `robot$edge1`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The secret.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("url", &self.url)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// Holds the answer to what a satellite can act on.
    pub fn check(&self) -> Result<(), Invalid> {
        super::state::Url::parse(&self.state)?;
        if self.auth.username.is_empty() || self.auth.password.is_empty() {
            return Err(Invalid::new(format!(
                "enrolment for state {}: expected a username and a password",
                shown(&self.state)
            )));
        }
        Ok(())
    }
}

/// What the later dialect answers a report with; Go 0.0.4 answers with an empty body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actions {
    /// What the satellite is asked to do. A draft of the dialect calls it `events`.
    #[serde(alias = "events", deserialize_with = "or_default")]
    pub actions: Vec<String>,
}

impl Actions {
    /// Reads the body of an answer; an empty one asks for nothing.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        serde_json::from_slice(body)
    }
}

/// Asks the satellite to fetch a new secret by `POST /sat/refresh`.
pub const REFRESH_CREDENTIALS: &str = "refresh_credentials";

/// The answer to `POST /sat/refresh`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refreshed {
    /// The new secret; the old one is good until this one was used.
    #[serde(deserialize_with = "or_default")]
    pub secret: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_not_shown() {
        let auth = Credentials { password: "hunter2".into(), ..Credentials::default() };
        assert!(!format!("{auth:?}").contains("hunter2"));
    }

    #[test]
    fn an_answer_needs_state_and_credentials() {
        let text = r#"{"auth":{"url":"http://h","username":"robot$a","password":"s"},
            "state":"http://h/satellite/satellite-state/a/state:latest","later":1}"#;
        let good: Answer = serde_json::from_str(text).unwrap();
        good.check().unwrap();
        assert!(Answer { state: "x".into(), ..good.clone() }.check().is_err());
        assert!(Answer { auth: Credentials::default(), ..good }.check().is_err());
        let empty: Answer = serde_json::from_str(r#"{"auth":null,"state":null}"#).unwrap();
        assert!(empty.check().is_err());
    }

    #[test]
    fn actions_of_both_drafts_and_of_go() {
        assert!(Actions::parse(b"").unwrap().actions.is_empty());
        for body in
            [r#"{"actions":["refresh_credentials"]}"#, r#"{"events":["refresh_credentials"]}"#]
        {
            assert_eq!(Actions::parse(body.as_bytes()).unwrap().actions, [REFRESH_CREDENTIALS]);
        }
        assert!(Actions::parse(b"<html>").is_err());
    }
}
