//! The status report: `POST /satellites/sync`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state::within;
use super::{Invalid, interval, or_default, shown};

/// What a satellite says of itself, at its interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The satellite. The credentials of the request count, not this.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// A line for people.
    #[serde(deserialize_with = "or_default")]
    pub activity: String,
    /// How often it reports: `@every 00h00m30s`.
    #[serde(deserialize_with = "or_default")]
    pub state_report_interval: String,
    /// The manifest digest of the satellite-state that it last applied.
    #[serde(deserialize_with = "or_default")]
    pub latest_state_digest: String,
    /// The manifest digest of its config.
    #[serde(deserialize_with = "or_default")]
    pub latest_config_digest: String,
    /// Memory in use on the device.
    #[serde(deserialize_with = "or_default")]
    pub memory_used_bytes: u64,
    /// Storage in use on the device.
    #[serde(deserialize_with = "or_default")]
    pub storage_used_bytes: u64,
    /// Processor time, in percent.
    #[serde(deserialize_with = "or_default")]
    pub cpu_percent: f64,
    /// When the report was made, RFC 3339; by the satellite's clock.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub request_created_time: String,
    /// How long the last pass took.
    #[serde(deserialize_with = "or_default")]
    pub last_sync_duration_ms: i64,
    /// How many images it holds.
    #[serde(deserialize_with = "or_default")]
    pub image_count: i64,
    /// The images it holds.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cached_images: Vec<CachedImage>,
    /// What Go's Ground Control ignores.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub moonlet: Option<Details>,
}

/// What a Moonlet says beyond the contract with Go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// The program's version.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// The device's platform, such as `linux/arm/v7`.
    #[serde(deserialize_with = "or_default")]
    pub platform: String,
    /// Every image of the desired state: where it stands, and why.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageStatus>,
    /// What is wrong with the device, a line each.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The size of the store in bytes.
    #[serde(deserialize_with = "or_default")]
    pub storage_size_bytes: u64,
    /// Bytes of `storage_used_bytes` that are evicted when room is needed.
    #[serde(deserialize_with = "or_default")]
    pub storage_cached_bytes: u64,
    /// Bytes received from registries since the program started.
    #[serde(deserialize_with = "or_default")]
    pub received_bytes: u64,
    /// Bytes written to flash since the store was made.
    #[serde(deserialize_with = "or_default")]
    pub flash_written_bytes: u64,
    /// The part of the flash's rated life that is used, in percent, if known.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub flash_used_percent: Option<f64>,
    /// What is spent of the day's limit of the data plan, if it has one.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub plan_day: Option<PlanUse>,
    /// What is spent of the month's.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub plan_month: Option<PlanUse>,
}

/// What is spent of one limit of the data plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanUse {
    /// Bytes spent.
    pub used_bytes: u64,
    /// The limit in bytes.
    pub max_bytes: u64,
    /// When it begins anew, in seconds since 1970.
    pub until: u64,
}

/// One image of the desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageStatus {
    /// As desired: `registry/repository:tag`.
    #[serde(deserialize_with = "or_default")]
    pub reference: String,
    /// As `moonlet status` names it.
    #[serde(deserialize_with = "or_default")]
    pub state: String,
    /// Why, in a line; empty when there is nothing to say.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The digest held under the reference; empty when none is.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Bytes of it on flash.
    #[serde(deserialize_with = "or_default")]
    pub held_bytes: u64,
    /// Bytes of it in all, as far as its manifests are known.
    #[serde(deserialize_with = "or_default")]
    pub total_bytes: u64,
}

impl Details {
    fn check(&self) -> Result<(), Invalid> {
        within("images", self.images.len(), IMAGES_MAX)?;
        within("problems", self.problems.len(), PROBLEMS_MAX)?;
        let lines = self.problems.iter().map(|problem| ("problem", problem, REASON_CHARS_MAX));
        let images = self.images.iter().flat_map(|image| {
            [
                ("reference", &image.reference, REFERENCE_CHARS_MAX),
                ("state", &image.state, NAME_CHARS_MAX),
                ("reason", &image.reason, REASON_CHARS_MAX),
                ("digest", &image.digest, DIGEST_CHARS_MAX),
            ]
        });
        let own = [
            ("version", &self.version, NAME_CHARS_MAX),
            ("platform", &self.platform, NAME_CHARS_MAX),
        ];
        let mut texts = own.into_iter().chain(lines).chain(images);
        match texts.find(|(_, text, max)| text.chars().count() > *max) {
            Some((name, text, max)) => Err(too_long(name, text, max)),
            None => Ok(()),
        }
    }
}

/// An image that a satellite holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedImage {
    /// As pulled from the satellite: `127.0.0.1:8585/library/nginx:1.25@sha256:...`.
    #[serde(deserialize_with = "or_default")]
    pub reference: String,
    /// The bytes of its blobs.
    #[serde(deserialize_with = "or_default")]
    pub size_bytes: i64,
}

impl Report {
    /// Holds the report to the limits that Go's Ground Control has, and to some that it lacks.
    /// Returns how often the satellite reports, if it said so.
    pub fn check(&self) -> Result<Option<Duration>, Invalid> {
        let every = match self.state_report_interval.as_str() {
            "" => None,
            text => Some(interval::parse(text)?),
        };
        for (name, text, max) in [
            ("name", &self.name, NAME_CHARS_MAX),
            ("activity", &self.activity, ACTIVITY_CHARS_MAX),
            ("latest_state_digest", &self.latest_state_digest, DIGEST_CHARS_MAX),
            ("latest_config_digest", &self.latest_config_digest, DIGEST_CHARS_MAX),
            ("request_created_time", &self.request_created_time, TIME_CHARS_MAX),
        ] {
            if text.chars().count() > max {
                return Err(too_long(name, text, max));
            }
        }
        within("cached_images", self.cached_images.len(), IMAGES_MAX)?;
        for image in &self.cached_images {
            if image.reference.chars().count() > REFERENCE_CHARS_MAX {
                return Err(too_long("reference", &image.reference, REFERENCE_CHARS_MAX));
            }
        }
        self.moonlet.as_ref().map_or(Ok(()), Details::check)?;
        Ok(every)
    }
}

fn too_long(name: &str, text: &str, max: usize) -> Invalid {
    Invalid::new(format!("{name} {}: expected at most {max} characters", shown(text)))
}

/// The largest body of a report.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Images in one report.
pub const IMAGES_MAX: usize = 2000;
/// Of the activity; the width of Go's column.
pub const ACTIVITY_CHARS_MAX: usize = 255;
/// Of a reference; the width of Go's column.
pub const REFERENCE_CHARS_MAX: usize = 512;
/// Of a reason or a problem.
pub const REASON_CHARS_MAX: usize = 512;
/// Problems in one report.
pub const PROBLEMS_MAX: usize = 64;
const NAME_CHARS_MAX: usize = 255;
const DIGEST_CHARS_MAX: usize = 255;
const TIME_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_report_is_taken() {
        let report: Report =
            serde_json::from_str(r#"{"name":"edge1","cached_images":null,"x":1}"#).unwrap();
        report.check().unwrap();
        assert!(report.cached_images.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let long = "a".repeat(600);
        for (report, part) in [
            (Report { state_report_interval: "5m".into(), ..Report::default() }, "interval"),
            (Report { activity: long.clone(), ..Report::default() }, "activity"),
            (Report { name: long.clone(), ..Report::default() }, "name"),
            (
                Report {
                    cached_images: vec![CachedImage { reference: long, size_bytes: 1 }],
                    ..Report::default()
                },
                "reference",
            ),
            (
                Report {
                    moonlet: Some(Details {
                        problems: vec!["a".repeat(600)],
                        ..Details::default()
                    }),
                    ..Report::default()
                },
                "problem",
            ),
        ] {
            assert!(report.check().unwrap_err().to_string().contains(part));
        }
    }
}
