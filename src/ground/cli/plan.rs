//! What would have to change for a fleet to become what documents say.
//!
//! A plan is made of what the documents say and what the server has, before anything is changed. It
//! holds the requests and, for people, the differences: `apply` sends the ones, `--dry-run` and
//! `diff` show the others.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Failure;
use super::document::{Document, Kind, Satellite, Spec, all_of};
use super::fleet::{Fleet, held};
use super::http::{Expected, Method, Request};
use super::output::text;
use super::patch;
use crate::fleet::state::{Artifact, GroupState};
use crate::ground::mask;
use crate::ground::model::Mode;

/// What becomes of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Create,
    Change,
    Keep,
    Remove,
}

impl Action {
    /// As it is reported.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Change => "changed",
            Self::Keep => "unchanged",
            Self::Remove => "removed",
        }
    }
}

/// What is to be done to one thing.
#[derive(Debug)]
pub struct Step {
    pub kind: Kind,
    pub name: String,
    pub action: Action,
    /// The differences, for people; no secrets.
    pub lines: Vec<String>,
    /// What has to be asked for, in order.
    pub requests: Vec<Request>,
}

impl Step {
    /// With the group's images, its tags are taken in another way.
    pub fn take_tags(&mut self, group: &GroupState, before: Mode, mode: Mode) {
        if before == mode {
            return;
        }
        if self.action == Action::Keep {
            self.action = Action::Change;
        }
        self.lines.push(format!("tags: {} -> {}", before.word(), mode.word()));
        let mut body = json!(group);
        if let Value::Object(fields) = &mut body {
            fields.insert("tags".to_owned(), json!(mode.word()));
        }
        self.requests = vec![put_group(body)];
    }

    /// It was made from this version, and is not carried out on another.
    pub fn expect(&mut self, version: &Expected) {
        for request in &mut self.requests {
            request.expected = version.clone();
        }
    }
}

/// All that is to be done, in an order in which it can be done.
#[derive(Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
}

impl Plan {
    /// Compares. What satellites name must be in the documents or on the server; with `prune`
    /// things are removed that no document has, of the kinds that documents are of.
    pub fn make(documents: &[Document], fleet: &Fleet, prune: bool) -> Result<Self, Failure> {
        let removed = if prune { removals(documents, fleet) } else { Vec::new() };
        let mut wanted = fleet.groups.clone();
        let mut configs: BTreeSet<&str> = fleet.configs.keys().map(String::as_str).collect();
        let gone: BTreeSet<(Kind, &str)> =
            removed.iter().map(|step| (step.kind, step.name.as_str())).collect();
        wanted.retain(|name, _| !gone.contains(&(Kind::Group, name)));
        configs.retain(|name| !gone.contains(&(Kind::Config, *name)));
        for document in documents {
            match &document.spec {
                Spec::Config(_) => drop(configs.insert(&document.name)),
                Spec::Group(group, _) => drop(wanted.insert(group.group.clone(), group.clone())),
                Spec::Satellite(_) | Spec::Rollout(_) => {}
            }
        }
        let mut problems = dangling(documents, &configs, &wanted, &gone);
        problems.extend(started(documents, fleet, &wanted));
        all_of(problems)?;
        let mut documents: Vec<&Document> = documents.iter().collect();
        documents.sort_by(|one, other| (one.kind(), &one.name).cmp(&(other.kind(), &other.name)));
        let steps = documents.iter().map(|document| {
            let name = &document.name;
            match &document.spec {
                Spec::Config(config) => config_step(name, fleet.configs.get(name), config),
                Spec::Group(group, mode) => {
                    let mut step = group_step(name, fleet.groups.get(name), group);
                    let before = fleet.modes.get(name).copied().unwrap_or(Mode::Off);
                    if let Some(mode) = mode {
                        step.take_tags(group, before, *mode);
                    }
                    step
                }
                Spec::Satellite(given) => {
                    let before = fleet.satellites.get(name);
                    let mut step = satellite_step(name, before, given);
                    let held = before.map(|before| held(before, &fleet.groups)).unwrap_or_default();
                    if step.action != Action::Keep {
                        let images = self::held(given, &wanted);
                        step.lines
                            .extend(difference(&held, &images).map(|line| format!("holds {line}")));
                    }
                    step
                }
                Spec::Rollout(spec) => {
                    let group = fleet.groups.get(&text(spec, "group"));
                    rollout_step(name, group, spec, fleet.rollouts.contains_key(name))
                }
            }
        });
        let mut steps: Vec<Step> = steps.collect();
        steps.extend(removed);
        for step in &mut steps {
            let known = fleet.versions.get(&(step.kind, step.name.clone())).cloned();
            step.expect(&known.unwrap_or(Expected::Absent));
        }
        Ok(Self { steps })
    }

    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::Keep)
    }
}

/// A line for each image that comes, `+ image`, or goes.
pub fn difference<'a>(
    before: &'a BTreeSet<String>,
    after: &'a BTreeSet<String>,
) -> impl Iterator<Item = String> + 'a {
    let gone = before.difference(after).map(|image| format!("- {image}"));
    gone.chain(after.difference(before).map(|image| format!("+ {image}")))
}

fn dangling(
    documents: &[Document],
    configs: &BTreeSet<&str>,
    groups: &BTreeMap<String, GroupState>,
    gone: &BTreeSet<(Kind, &str)>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for document in documents {
        let Spec::Satellite(satellite) = &document.spec else { continue };
        let mut report = |field: &str, name: &str, kind: Kind| {
            let why = if gone.contains(&(kind, name)) {
                format!("--prune removes that {kind}, for no document has it")
            } else {
                format!("no such {kind}, neither in the documents nor on the server")
            };
            let Document { place, name: satellite, .. } = document;
            problems.push(format!("{place}, Satellite {satellite:?}: {field} {name:?}: {why}"));
        };
        if !configs.contains(satellite.config.as_str()) {
            report("spec.config", &satellite.config, Kind::Config);
        }
        for group in satellite.groups.iter().filter(|name| !groups.contains_key(*name)) {
            report("spec.groups", group, Kind::Group);
        }
    }
    problems
}

/// What cannot be started.
fn started(
    documents: &[Document],
    fleet: &Fleet,
    groups: &BTreeMap<String, GroupState>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for document in documents {
        let Spec::Rollout(spec) = &document.spec else { continue };
        let Document { place, name, .. } = document;
        let group = text(spec, "group");
        if !groups.contains_key(&group) {
            problems
                .push(format!("{place}, Rollout {name:?}: spec.group {group:?}: no such group"));
        }
        if fleet.rollouts.get(name).is_some_and(|started| started != spec) {
            let why = "it has begun and cannot change: expected another name";
            problems.push(format!("{place}, Rollout {name:?}: {why}"));
        }
    }
    problems
}

fn rollout_step(name: &str, group: Option<&GroupState>, spec: &Value, is_started: bool) -> Step {
    let mut step = Step {
        kind: Kind::Rollout,
        name: name.to_owned(),
        action: Action::Keep,
        lines: Vec::new(),
        requests: Vec::new(),
    };
    if is_started {
        return step;
    }
    let state = spec.get("state").cloned().unwrap_or_default();
    if let Ok(state) = serde_json::from_value::<GroupState>(state) {
        step.lines = group_step(name, group, &state).lines;
    }
    let mut body = spec.clone();
    if let Value::Object(fields) = &mut body {
        fields.insert("name".to_owned(), json!(name));
    }
    step.action = Action::Create;
    step.requests = vec![Request::new(Method::Post, &["api", "rollouts"], Some(body))];
    step
}

/// Secrets are not shown by the server and cannot be compared: they are sent each time, which
/// changes nothing where they are the same.
pub fn config_step(name: &str, before: Option<&Value>, config: &Value) -> Step {
    let mut shown = config.clone();
    mask::hide(&mut shown);
    let step = |action, lines, request| {
        let requests = Option::into_iter(request).collect();
        Step { kind: Kind::Config, name: name.to_owned(), action, lines, requests }
    };
    let Some(before) = before else {
        let body = json!({ "config_name": name, "config": config });
        let request = Request::new(Method::Post, &["api", "configs"], Some(body));
        return step(Action::Create, patch::lines(&Value::Null, &shown), Some(request));
    };
    let mut before_shown = before.clone();
    mask::hide(&mut before_shown);
    let lines = patch::lines(&before_shown, &shown);
    let is_same = patch::between(&before_shown, &shown).is_none();
    let request = patch::between(before, config)
        .map(|patch| Request::new(Method::Patch, &["api", "configs", name], Some(patch)));
    step(if is_same { Action::Keep } else { Action::Change }, lines, request)
}

/// A group that is to be as said.
pub fn group_step(name: &str, before: Option<&GroupState>, group: &GroupState) -> Step {
    let step = |action, lines, requests| Step {
        kind: Kind::Group,
        name: name.to_owned(),
        action,
        lines,
        requests,
    };
    if before == Some(group) {
        return step(Action::Keep, Vec::new(), Vec::new());
    }
    let nothing = GroupState::default();
    let from = before.unwrap_or(&nothing);
    let mut lines = Vec::new();
    if from.registry != group.registry {
        lines.push(format!("registry: {:?} -> {:?}", from.registry, group.registry));
    }
    if from.platforms != group.platforms {
        lines.push(format!("platforms: {:?} -> {:?}", from.platforms, group.platforms));
    }
    let listed = |group: &GroupState| -> BTreeSet<String> {
        group.artifacts.iter().flat_map(Artifact::references).collect()
    };
    let (had, has) = (listed(from), listed(group));
    lines.extend(difference(&had, &has));
    if lines.is_empty() {
        lines.push("order, labels or types of images".to_owned());
    }
    let action = if before.is_some() { Action::Change } else { Action::Create };
    step(action, lines, vec![put_group(json!(group))])
}

fn put_group(body: Value) -> Request {
    Request::new(Method::Post, &["api", "groups", "sync"], Some(body))
}

fn satellite_step(name: &str, before: Option<&Satellite>, given: &Satellite) -> Step {
    let step = |action, lines, requests| Step {
        kind: Kind::Satellite,
        name: name.to_owned(),
        action,
        lines,
        requests,
    };
    let nothing = Satellite::default();
    let from = before.unwrap_or(&nothing);
    let labels = given.labels.iter().filter(|(label, value)| {
        from.labels.get(*label).and_then(Option::as_ref) != value.as_ref()
    });
    let labels: BTreeMap<&String, &Option<String>> = labels.collect();
    let mut lines = Vec::new();
    if from.config != given.config {
        lines.push(format!("config: {:?} -> {:?}", from.config, given.config));
    }
    lines.extend(difference(&from.groups, &given.groups).map(|line| format!("group {line}")));
    for (label, value) in &labels {
        let from = from.labels.get(*label).and_then(Option::as_ref);
        lines.push(format!("label {label}: {} -> {}", quoted(from), quoted(value.as_ref())));
    }
    if before.is_none() {
        let labels: BTreeMap<&String, &String> = given
            .labels
            .iter()
            .filter_map(|(label, value)| Some((label, value.as_ref()?)))
            .collect();
        let body = json!({
            "name": name, "config_name": given.config, "groups": given.groups, "labels": labels,
        });
        let request = Request::new(Method::Post, &["api", "satellites"], Some(body));
        return step(Action::Create, lines, vec![request]);
    }
    // One request: between several there would be a state that neither side asked for.
    let mut change = Map::new();
    if from.config != given.config {
        change.insert("config_name".to_owned(), json!(given.config));
    }
    if from.groups != given.groups {
        change.insert("groups".to_owned(), json!(given.groups));
    }
    if !labels.is_empty() {
        change.insert("labels".to_owned(), json!(labels));
    }
    if change.is_empty() {
        return step(Action::Keep, lines, Vec::new());
    }
    let body = Some(Value::Object(change));
    let request = Request::new(Method::Patch, &["api", "satellites", name], body);
    step(Action::Change, lines, vec![request])
}

/// Puts a satellite into a group, or takes it out.
pub fn membership(satellite: &str, group: &str, join: bool) -> Request {
    let method = if join { Method::Post } else { Method::Delete };
    let body = json!({ "satellite": satellite, "group": group });
    Request::new(method, &["api", "groups", "satellite"], Some(body))
}

fn quoted(value: Option<&String>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:?}"))
}

/// In the opposite order: a configuration in use cannot be removed.
fn removals(documents: &[Document], fleet: &Fleet) -> Vec<Step> {
    let has = |kind: Kind| documents.iter().any(|document| document.kind() == kind);
    let named: BTreeSet<(Kind, &str)> =
        documents.iter().map(|document| (document.kind(), document.name.as_str())).collect();
    // Where there are documents of satellites, one that has none is removed itself.
    let bereft = |kind: Kind, name: &String| -> Vec<String> {
        let has_it = |satellite: &Satellite| match kind {
            Kind::Config => satellite.config == *name,
            Kind::Group => satellite.groups.contains(name),
            Kind::Satellite | Kind::Rollout => false,
        };
        let satellites = fleet.satellites.iter().filter(|_| !has(Kind::Satellite));
        let affected = satellites.filter(|(_, satellite)| has_it(satellite));
        affected.map(|(satellite, _)| format!("from satellite {satellite}")).collect()
    };
    let satellites = fleet.satellites.keys().map(|name| (Kind::Satellite, "satellites", name));
    let groups = fleet.groups.keys().map(|name| (Kind::Group, "groups", name));
    let configs = fleet.configs.keys().map(|name| (Kind::Config, "configs", name));
    let surplus = satellites.chain(groups).chain(configs);
    let surplus =
        surplus.filter(|(kind, _, name)| has(*kind) && !named.contains(&(*kind, name.as_str())));
    let steps = surplus.map(|(kind, list, name)| Step {
        kind,
        name: name.clone(),
        action: Action::Remove,
        lines: bereft(kind, name),
        requests: vec![Request::new(Method::Delete, &["api", list, name], None)],
    });
    steps.collect()
}

#[cfg(test)]
mod tests;
