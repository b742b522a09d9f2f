//! What the console's forms send.

use serde::Deserialize;

/// A form with a button only.
#[derive(Deserialize)]
pub struct Bare {
    pub form_token: String,
}

/// The end of a satellite, which its name confirms.
#[derive(Deserialize)]
pub struct Decommission {
    pub form_token: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub name: String,
}

/// What is done to a rollout.
#[derive(Deserialize)]
pub struct Act {
    pub form_token: String,
    /// Empty for what stops it: that is not refused because it went on meanwhile.
    #[serde(default)]
    pub version: String,
}

/// A new satellite.
#[derive(Deserialize)]
pub struct NewSatellite {
    pub form_token: String,
    pub name: String,
    pub config_name: String,
}

/// The words of a field that takes several, with spaces or commas between.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned)
}

/// A satellite's groups, names with spaces or commas between.
#[derive(Deserialize)]
pub struct Groups {
    pub form_token: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub groups: String,
}

/// A satellite's labels, `key=value` with spaces or commas between.
#[derive(Deserialize)]
pub struct Labels {
    pub form_token: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub labels: String,
}

/// The name of a group that is to be.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct NewGroup {
    pub name: String,
}

/// The tags of a group that a person looked at, one a line: `repository:tag@digest`.
#[derive(Deserialize)]
pub struct Approval {
    pub form_token: String,
    pub images: String,
    /// Where to go then: the list of all that waits, or the group.
    #[serde(default)]
    pub from: String,
}

/// A device that a person looked at.
#[derive(Deserialize)]
pub struct Device {
    pub form_token: String,
    #[serde(default)]
    pub device: String,
}

/// A group's registry and images.
#[derive(Deserialize)]
pub struct Group {
    pub form_token: String,
    /// Empty of a group that was not there.
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub registry: String,
    /// Names with spaces or commas between.
    #[serde(default)]
    pub platforms: String,
    #[serde(default)]
    pub images: String,
    /// A word of `model::Mode`; as before when empty.
    #[serde(default)]
    pub tags: String,
    /// `look` to be shown what would change; otherwise it is saved.
    #[serde(default)]
    pub step: String,
}

/// A new user.
#[derive(Deserialize)]
pub struct User {
    pub form_token: String,
    pub username: String,
    pub password: String,
    pub role: String,
}

/// A user's new password; one's own needs the one before.
#[derive(Deserialize)]
pub struct Password {
    pub form_token: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub current: String,
    pub password: String,
}

/// A configuration, as JSON.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Config {
    pub form_token: String,
    /// Empty of one that was not there.
    pub version: String,
    pub name: String,
    pub config: String,
}

/// The group of a rollout that is to be.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct NewRollout {
    pub group: String,
}

/// A rollout that is to be.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Rollout {
    pub form_token: String,
    pub name: String,
    pub group: String,
    /// One a line.
    pub images: String,
    /// One a line, a limit and a selector.
    pub batches: String,
    pub success: String,
    pub error: String,
    pub timeout: String,
    pub max_unavailable: String,
    pub budget_by: String,
    pub approval: String,
    /// `staged`, or empty.
    pub activation: String,
    pub activate_at: String,
}

/// Which images are asked for.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Images {
    /// Who holds this; without it, all that is held.
    pub digest: String,
    /// What the page before ended with.
    pub after: String,
}

/// For how many days charts go back.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Past {
    pub days: String,
}

/// The filter of the overview.
#[derive(Clone, Deserialize, Default)]
#[serde(default)]
pub struct Filter {
    /// The word of a connection, or nothing for all.
    pub state: String,
    /// A part of the name.
    pub q: String,
    /// Conditions on labels.
    pub selector: String,
    /// The name that the page before ended with.
    pub after: String,
}
