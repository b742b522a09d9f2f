//! The fleet's messages against those of the Go implementation: what was recorded
//! (`tests/data/fleet`) is read, means something, and is written again byte for byte.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Debug;

use moonlet::fleet::config::Config;
use moonlet::fleet::report::Report;
use moonlet::fleet::state::{GroupState, SatelliteState, Url};
use moonlet::fleet::{enrol, interval};
use serde::{Serialize, de::DeserializeOwned};

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("data/fleet/", $name))
    };
}

fn read_and_written<T: Serialize + DeserializeOwned + Debug>(text: &str) -> T {
    let value: T = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&value).unwrap(), text);
    value
}

#[test]
fn state_artifacts_are_written_as_go_writes_them() {
    let satellite: SatelliteState = read_and_written(recorded!("satellite-state.json"));
    satellite.check().unwrap();
    assert_eq!(
        Url::parse(&satellite.states[0]).unwrap().repository,
        "satellite/group-state/g1/state"
    );

    let group: GroupState = read_and_written(recorded!("group-state.json"));
    group.check().unwrap();
    assert_eq!((group.group.as_str(), group.artifacts.len()), ("g1", 3));
    assert!(group.artifacts.iter().all(|artifact| artifact.digest().unwrap().is_some()));
}

#[test]
fn a_config_artifact_is_written_as_go_writes_it() {
    let text = recorded!("config-state.json");
    let config: Config = serde_json::from_str(text).unwrap();
    config.check().unwrap();
    assert_eq!(interval::parse(&config.app_config.heartbeat_interval).unwrap().as_secs(), 10);
    // The part that is handed on comes back with its keys in order of the alphabet.
    let (own, _) = text.split_once(r#","zot_config""#).unwrap();
    let written = serde_json::to_string(&config).unwrap();
    assert!(written.starts_with(own), "{written}");
    let as_value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(as_value(&written), as_value(text));
}

#[test]
fn an_enrolment_is_written_as_go_writes_it() {
    let answer: enrol::Answer = read_and_written(recorded!("enrolment.json"));
    answer.check().unwrap();
    assert_eq!(answer.auth.username, "robot$edge1");
}

#[test]
fn reports_are_judged_as_go_judges_them() {
    let (mut good, mut refused) = (0, Vec::new());
    for line in recorded!("reports.jsonl").lines() {
        let report: Report = serde_json::from_str(line).unwrap();
        match report.check() {
            Ok(_) => good += 1,
            Err(error) => refused.push(error.to_string()),
        }
        // A satellite's own report has every field. The last digit of a fraction may differ.
        if line.contains("last_sync_duration_ms") && line.contains(r#""activity":"","#) {
            let written = serde_json::to_string(&report).unwrap();
            let around = |text: &str| {
                let (head, rest) = text.split_once(r#""cpu_percent":"#).unwrap();
                let (_, tail) = rest.split_once(',').unwrap();
                format!("{head}{tail}")
            };
            assert_eq!(around(&written), around(line));
        }
    }
    // Two bad intervals, and a reference that Go answers with 500.
    assert_eq!((good, refused.len()), (13, 3), "{refused:?}");
}
