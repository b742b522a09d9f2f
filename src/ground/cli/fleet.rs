//! What a server has, as documents say it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Failure;
use super::document::{Kind, Satellite};
use super::http::{Expected, Method, Request, Server};
use super::output::{elements, text, texts};
use crate::fleet::state::GroupState;
use crate::ground::model::Mode;

/// What a server has.
#[derive(Default)]
pub struct Fleet {
    pub configs: BTreeMap<String, Value>,
    pub groups: BTreeMap<String, GroupState>,
    /// How the tags of each group are taken.
    pub modes: BTreeMap<String, Mode>,
    pub satellites: BTreeMap<String, Satellite>,
    /// Those that were asked for, each as a document's spec.
    pub rollouts: BTreeMap<String, Value>,
    /// The version of each thing that the others have.
    pub versions: BTreeMap<(Kind, String), Expected>,
}

impl Fleet {
    /// Asks for all of it, and for the rollouts of these names.
    pub fn read<'a>(
        server: &Server,
        rollouts: impl Iterator<Item = &'a str>,
    ) -> Result<Self, Failure> {
        let mut versions = BTreeMap::new();
        let mut note = |kind: Kind, field: &str, answers: &[Value]| {
            let named = answers.iter().map(|answer| ((kind, text(answer, field)), answer));
            versions.extend(named.map(|(key, answer)| (key, Expected::of(answer))));
        };
        let configs = elements(server.get(&["api", "configs"])?);
        note(Kind::Config, "ConfigName", &configs);
        let configs = configs.into_iter().map(|mut config| {
            (
                text(&config, "ConfigName"),
                config.get_mut("Config").map(Value::take).unwrap_or_default(),
            )
        });
        let groups = elements(server.get(&["api", "groups"])?);
        note(Kind::Group, "GroupName", &groups);
        let modes = groups.iter().map(|answer| (text(answer, "GroupName"), mode(answer)));
        let modes = modes.collect();
        let groups =
            groups.iter().map(|answer| group(answer).map(|group| (group.group.clone(), group)));
        let satellites = satellites(server, "")?;
        note(Kind::Satellite, "Name", &satellites);
        let satellites = satellites.iter().map(|row| (text(row, "Name"), satellite(row)));
        let mut known = BTreeMap::new();
        for name in rollouts {
            let answer = server.find(&["api", "rollouts", name])?;
            known.extend(answer.map(|answer| (name.to_owned(), rollout(&answer))));
        }
        Ok(Self {
            versions,
            rollouts: known,
            modes,
            configs: configs.collect(),
            groups: groups.collect::<Result<_, Failure>>()?,
            satellites: satellites.collect(),
        })
    }
}

/// The satellites that a selector chooses, page by page, so that no answer is long.
pub fn satellites(server: &Server, selector: &str) -> Result<Vec<Value>, Failure> {
    let mut rows = Vec::new();
    loop {
        let after = rows.last().map(|row| text(row, "Name")).unwrap_or_default();
        let limit = PAGE_ROWS.to_string();
        let query = [("selector", selector), ("after", &after), ("limit", &limit)];
        let request = Request::new(Method::Get, &["api", "satellites"], None).with_query(&query);
        let page = elements(server.ask(&request)?);
        let is_last = page.len() < PAGE_ROWS;
        rows.extend(page);
        if is_last {
            return Ok(rows);
        }
    }
}

/// A group, out of an answer.
pub fn group(answer: &Value) -> Result<GroupState, Failure> {
    let state = json!({
        "group": answer.get("GroupName"),
        "registry": answer.get("Registry"),
        "artifacts": answer.get("Artifacts"),
        "platforms": answer.get("Platforms"),
    });
    serde_json::from_value(state).map_err(|error| format!("a group of the server: {error}").into())
}

/// How a group's tags are taken, out of an answer; a server that does not say leaves them alone.
pub fn mode(answer: &Value) -> Mode {
    Mode::parse(&text(answer, "Tags")).unwrap_or(Mode::Off)
}

/// A rollout as the spec of a document, out of an answer.
pub fn rollout(answer: &Value) -> Value {
    let fields = ["group", "state", "policy"];
    let fields = fields.map(|key| (key.to_owned(), answer.get(key).cloned().unwrap_or_default()));
    Value::Object(fields.into_iter().collect())
}

/// What a satellite is given, out of an answer.
pub fn satellite(answer: &Value) -> Satellite {
    let labels = answer.get("Labels").and_then(Value::as_object).into_iter().flatten();
    Satellite {
        config: text(answer, "ConfigName"),
        groups: texts(answer, "Groups").into_iter().collect(),
        labels: labels
            .map(|(key, value)| (key.clone(), value.as_str().map(str::to_owned)))
            .collect(),
    }
}

/// The images that groups have together, as lines.
pub fn images<'a>(groups: impl Iterator<Item = &'a GroupState>) -> BTreeSet<String> {
    let mut images = BTreeSet::new();
    for group in groups {
        let registry = group.registry.split("://").last().unwrap_or_default();
        let prefix = if registry.is_empty() { String::new() } else { format!("{registry}/") };
        for artifact in group.artifacts.iter().filter(|artifact| !artifact.deleted) {
            images.extend(artifact.references().map(|image| format!("{prefix}{image}")));
        }
    }
    images
}

/// What a satellite holds of these groups.
pub fn held(satellite: &Satellite, groups: &BTreeMap<String, GroupState>) -> BTreeSet<String> {
    images(satellite.groups.iter().filter_map(|name| groups.get(name)))
}

/// Of one answer.
const PAGE_ROWS: usize = 500;
