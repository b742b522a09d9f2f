//! A fleet as YAML documents.
//!
//! ```yaml
//! apiVersion: moonlet/v1
//! kind: Group
//! metadata: {name: web}
//! spec: {registry: "https://registry.example", artifacts: [{repository: nginx, tag: ["1.27"]}]}
//! ```
//!
//! `spec` has the fields of the contract in `fleet`. The API ignores a field that it does not know,
//! as Go does; here it is an error, for it is a typing mistake. All documents are looked at before
//! any error is returned, and each error names the document and the field.
//!
//! A secret need not stand in a file that is shared: beside `username`, `passwordFile` or
//! `passwordEnv` stand for `password`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Failure, login};
use crate::fleet::config::Config;
use crate::fleet::state::GroupState;
use crate::fleet::valid_name;
use crate::ground::labels;
use crate::ground::model::{Mode, Policy};

/// One thing that a fleet has.
#[derive(Debug)]
pub struct Document {
    /// File and number, for errors.
    pub place: String,
    pub name: String,
    pub spec: Spec,
}

/// What a document says of its thing.
#[derive(Debug)]
pub enum Spec {
    /// A configuration, in the form that the API keeps.
    Config(Value),
    /// With how its tags are taken, if it says.
    Group(GroupState, Option<Mode>),
    Satellite(Satellite),
    /// In the form that the API answers.
    Rollout(Value),
}

/// A rollout's group, what it is to hold, and by which rules.
#[derive(Deserialize, Serialize)]
struct Rollout {
    group: String,
    state: GroupState,
    #[serde(default)]
    policy: Policy,
}

/// What a satellite is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Satellite {
    pub config: String,
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// Those named are set, null takes one away, others stay: devices have labels of their own.
    #[serde(default)]
    pub labels: BTreeMap<String, Option<String>>,
}

/// The kinds of things, in the order in which they can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Config,
    Group,
    Satellite,
    Rollout,
}

impl Kind {
    /// As documents name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "Config",
            Self::Group => "Group",
            Self::Satellite => "Satellite",
            Self::Rollout => "Rollout",
        }
    }
}

impl fmt::Display for Kind {
    /// As commands name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::Group => "group",
            Self::Satellite => "satellite",
            Self::Rollout => "rollout",
        })
    }
}

impl Document {
    pub fn kind(&self) -> Kind {
        match self.spec {
            Spec::Config(_) => Kind::Config,
            Spec::Group(..) => Kind::Group,
            Spec::Satellite(_) => Kind::Satellite,
            Spec::Rollout(_) => Kind::Rollout,
        }
    }
}

/// A document as text, of what a server answered.
pub fn written(kind: Kind, name: &str, spec: Value, status: Option<Value>) -> Value {
    let mut value = json!({
        "apiVersion": VERSION,
        "kind": kind.name(),
        "metadata": { "name": name },
        "spec": spec,
    });
    if let (Value::Object(fields), Some(status)) = (&mut value, status) {
        fields.insert("status".to_owned(), status);
    }
    value
}

/// Reads files, directories of `*.yaml` and `*.yml`, and `-` for standard input.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut problems = Vec::new();
    let mut documents = Vec::new();
    let mut bytes_left = BYTES_MAX;
    for path in files(paths)? {
        let text = read_text(&path, &mut bytes_left)?;
        let shown = match path.to_str() {
            Some("-") => "standard input".to_owned(),
            _ => path.display().to_string(),
        };
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        documents.extend(parse(&shown, &text, &base, &mut problems));
    }
    let mut seen = BTreeMap::new();
    for document in &documents {
        let key = (document.kind(), document.name.clone());
        if let Some(first) = seen.insert(key, &document.place) {
            let (kind, name) = (document.kind().name(), &document.name);
            problems.push(format!("{}, {kind} {name:?}: also in {first}", document.place));
        }
    }
    if documents.is_empty() && problems.is_empty() {
        problems
            .push("no documents: expected kind: Config, Group, Satellite or Rollout".to_owned());
    }
    all_of(problems)?;
    Ok(documents)
}

/// All problems as one failure, a line each.
pub fn all_of(mut problems: Vec<String>) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    let more = problems.len().saturating_sub(PROBLEMS_MAX);
    problems.truncate(PROBLEMS_MAX);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    problems.push("nothing was changed".to_owned());
    Err(problems.join("\n").into())
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let entries = std::fs::read_dir(path).map_err(failed)?;
        let entries = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut found = entries.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        found.retain(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml"));
        found.sort();
        if found.is_empty() {
            return Err(format!("{}: expected files *.yaml or *.yml", path.display()).into());
        }
        files.append(&mut found);
    }
    Ok(files)
}

fn read_text(path: &Path, bytes_left: &mut u64) -> Result<String, Failure> {
    let failed = |what: String| Failure::from(format!("{}: {what}", path.display()));
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(*bytes_left + 1).read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
        file.take(*bytes_left + 1).read_to_end(&mut bytes)
    };
    let read = read.map_err(|error| failed(error.to_string()))? as u64;
    *bytes_left = bytes_left
        .checked_sub(read)
        .ok_or_else(|| failed(format!("all documents: expected at most {BYTES_MAX} bytes")))?;
    String::from_utf8(bytes).map_err(|_| failed("expected text in UTF-8".to_owned()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    /// What a server said when the document was written: not for it to be sent back.
    #[serde(default, rename = "status")]
    _status: Option<Value>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

/// The documents of one text; what is wrong with the others goes to the problems.
fn parse(shown: &str, text: &str, base: &Path, problems: &mut Vec<String>) -> Vec<Document> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: DOCUMENTS_MAX,
            max_depth: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_nodes: NODES_MAX,
        },
        with_snippet: false,
    };
    let values: Vec<Value> = match serde_saphyr::from_multiple_with_options(text, options) {
        Ok(values) => values,
        Err(error) => {
            problems.push(format!("{shown}: {}", one_line(&error.to_string())));
            return Vec::new();
        }
    };
    let mut documents = Vec::new();
    for (number, value) in (1..).zip(values) {
        let place = format!("{shown}: document {number}");
        match document(place, value, base) {
            Ok(document) => documents.push(document),
            Err(mut found) => problems.append(&mut found),
        }
    }
    documents
}

fn document(place: String, value: Value, base: &Path) -> Result<Document, Vec<String>> {
    let at = |place: &str, texts: Vec<String>| -> Vec<String> {
        texts.into_iter().map(|text| format!("{place}: {text}")).collect()
    };
    let envelope: Envelope = typed(value, "").map_err(|texts| at(&place, texts))?;
    let Envelope { api_version, kind, metadata: Metadata { name }, spec, .. } = envelope;
    let named = format!("{place}, {kind} {name:?}");
    let wrong = |text: String| vec![format!("{named}: {text}")];
    if api_version != VERSION {
        return Err(wrong(format!("apiVersion {api_version:?}: expected {VERSION}")));
    }
    if !valid_name(&name) {
        let expected = "expected lower-case letters, digits and . _ - between";
        return Err(wrong(format!("metadata.name {name:?}: {expected}")));
    }
    let spec = match kind.as_str() {
        "Config" => config(spec, base),
        "Group" => group(spec, &name),
        "Satellite" => satellite(spec),
        "Rollout" => rollout(spec),
        _ => Err(vec![format!("kind {kind:?}: expected Config, Group, Satellite or Rollout")]),
    };
    Ok(Document { spec: spec.map_err(|texts| at(&named, texts))?, place, name })
}

/// A configuration by itself, as `config set -f` takes it.
pub fn config(mut spec: Value, base: &Path) -> Result<Spec, Vec<String>> {
    resolve_secrets(&mut spec, base)?;
    let config: Config = typed(spec, "spec")?;
    config.check().map_err(|error| vec![format!("spec: {error}")])?;
    let mut value = serde_json::to_value(&config).map_err(|error| vec![error.to_string()])?;
    remove_nulls(&mut value);
    Ok(Spec::Config(value))
}

fn group(mut spec: Value, name: &str) -> Result<Spec, Vec<String>> {
    if spec.get("group").is_some() {
        return Err(vec!["spec.group: expected the name in metadata.name alone".to_owned()]);
    }
    let mode = match spec.as_object_mut().and_then(|fields| fields.remove("tags")) {
        Some(word) => Some(
            word.as_str()
                .and_then(Mode::parse)
                .ok_or_else(|| vec![format!("spec.tags {word}: expected off, follow or pin")])?,
        ),
        None => None,
    };
    let mut group: GroupState = typed(spec, "spec")?;
    name.clone_into(&mut group.group);
    group.check().map_err(|error| vec![format!("spec: {error}")])?;
    group.registry.truncate(group.registry.trim_end_matches('/').len());
    Ok(Spec::Group(group, mode))
}

fn satellite(spec: Value) -> Result<Spec, Vec<String>> {
    let satellite: Satellite = typed(spec, "spec")?;
    let labels = satellite.labels.iter();
    let labels = labels.map(|(label, value)| (label.clone(), value.clone().unwrap_or_default()));
    labels::check(&labels.collect())
        .map_err(|fault| vec![format!("spec.labels: {}", fault.message)])?;
    Ok(Spec::Satellite(satellite))
}

fn rollout(spec: Value) -> Result<Spec, Vec<String>> {
    if spec.pointer("/state/group").is_some() {
        return Err(vec!["spec.state.group: expected the name in spec.group alone".to_owned()]);
    }
    let mut rollout: Rollout = typed(spec, "spec")?;
    rollout.state.group.clone_from(&rollout.group);
    rollout.state.check().map_err(|error| vec![format!("spec.state: {error}")])?;
    rollout.policy.check().map_err(|fault| vec![format!("spec.policy: {}", fault.message)])?;
    rollout.state.group.clear();
    rollout.state.registry.truncate(rollout.state.registry.trim_end_matches('/').len());
    serde_json::to_value(&rollout).map(Spec::Rollout).map_err(|error| vec![error.to_string()])
}

/// Reads a type out of a value. An error names the field, and so does a field that the type lacks.
fn typed<T: DeserializeOwned>(value: Value, root: &str) -> Result<T, Vec<String>> {
    let under = |path: &str, text: &str| match (root, path) {
        ("", "" | ".") => text.to_owned(),
        ("", path) => format!("{path}: {text}"),
        (root, "" | ".") => format!("{root}: {text}"),
        (root, path) => format!("{root}.{path}: {text}"),
    };
    if !value.is_object() {
        return Err(vec![under("", "expected fields")]);
    }
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        // An optional part is a step of its own there.
        unknown.push(path.to_string().replace("?.", "").replace(".?", ""));
    };
    let fields = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = T::deserialize(serde_ignored::Deserializer::new(fields, &mut note));
    let mut problems: Vec<String> =
        unknown.iter().map(|path| under(path, "an unknown field")).collect();
    match result {
        Ok(value) if problems.is_empty() => return Ok(value),
        Ok(_) => {}
        Err(error) => {
            let text = error.to_string();
            let is_number = ["floating point", "integer", "boolean"]
                .iter()
                .any(|kind| text.starts_with(&format!("invalid type: {kind}")));
            let hint =
                if is_number && text.contains("expected a string") { " in quotes" } else { "" };
            problems.push(under(&track.path().to_string(), &format!("{text}{hint}")));
        }
    }
    Err(problems)
}

/// Puts secrets in the place of the words that say where they are.
fn resolve_secrets(value: &mut Value, base: &Path) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for place in ["/app_config/local_registry", "/state_config/auth"] {
        if let Some(credentials) = value.pointer_mut(place) {
            let at = format!("spec{}", place.replace('/', "."));
            problems.extend(resolve_secret(credentials, base, &at).err());
        }
    }
    let registries = value.pointer_mut("/moonlet/registries").and_then(Value::as_array_mut);
    for (number, credentials) in registries.into_iter().flatten().enumerate() {
        let at = format!("spec.moonlet.registries[{number}]");
        problems.extend(resolve_secret(credentials, base, &at).err());
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn resolve_secret(credentials: &mut Value, base: &Path, at: &str) -> Result<(), String> {
    let Value::Object(fields) = credentials else { return Ok(()) };
    let given = [
        ("passwordFile", fields.remove("passwordFile")),
        ("passwordEnv", fields.remove("passwordEnv")),
    ];
    for (field, value) in given {
        let Some(value) = value else { continue };
        let Value::String(text) = value else {
            return Err(format!("{at}.{field}: expected a string"));
        };
        if fields.contains_key("password") {
            return Err(format!(
                "{at}.{field}: expected one of password, passwordFile, passwordEnv"
            ));
        }
        let secret = if field == "passwordFile" {
            let path = base.join(text);
            login::read_secret(&path)
                .map_err(|failure| format!("{at}.{field}: {}", failure.message))?
        } else {
            super::variable(&text)
                .ok_or_else(|| format!("{at}.{field}: {text:?} is not set in the environment"))?
        };
        fields.insert("password".to_owned(), Value::String(secret));
    }
    Ok(())
}

/// The API takes null for "take this away", and keeps none.
fn remove_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(remove_nulls);
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const VERSION: &str = "moonlet/v1";
/// Of all documents together.
const BYTES_MAX: u64 = 16 << 20;
const DOCUMENTS_MAX: usize = 10_000;
const DEPTH_MAX: usize = 64;
const ALIASES_MAX: usize = 1000;
const NODES_MAX: usize = 1_000_000;
/// Problems that are printed.
const PROBLEMS_MAX: usize = 50;

#[cfg(test)]
mod tests;
