//! What the console's forms send.

use serde::Deserialize;

/// A form with a button only.
#[derive(Deserialize)]
pub struct Bare {
    pub form_token: String,
}

/// A new satellite.
#[derive(Deserialize)]
pub struct NewSatellite {
    pub form_token: String,
    pub name: String,
    pub config_name: String,
}

/// A satellite's groups, names with spaces or commas between.
#[derive(Deserialize)]
pub struct Groups {
    pub form_token: String,
    #[serde(default)]
    pub groups: String,
}

/// The name of a group that is to be.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct NewGroup {
    pub name: String,
}

/// A group's registry and images.
#[derive(Deserialize)]
pub struct Group {
    pub form_token: String,
    #[serde(default)]
    pub registry: String,
    #[serde(default)]
    pub images: String,
}

/// The filter of the overview.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Filter {
    /// online, stale, never or nothing for all.
    pub state: String,
    /// A part of the name.
    pub q: String,
    /// The name that the page before ended with.
    pub after: String,
}
