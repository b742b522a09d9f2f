//! `satellite`: the devices of a fleet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::document::{self, Kind, Spec};
use super::fleet::{self, Fleet};
use super::http::{Method, Request, Server};
use super::output::{Output, Table, elements, plain, say, text, texts};
use super::plan;
use super::watch::{View, watch};
use super::{EXIT_DIFFERENT, Failure};
use crate::ground::clock;
use crate::ground::model::DAY;
use crate::units::ByteCount;

#[derive(Subcommand)]
pub enum Verb {
    /// List satellites
    #[command(after_help = "Examples:
  ground-control satellite ls -l site=north,hardware!=pi2
  ground-control satellite ls -o yaml > satellites.yaml")]
    Ls {
        /// Only those with these labels: key=value, key!=value, key, !key
        #[arg(short = 'l', long, default_value = "", value_name = "SELECTOR")]
        selector: String,
    },
    /// Show a satellite: its connection, and each image it is to hold
    #[command(after_help = "Example: ground-control satellite show gateway-17 --watch

With --watch the exit code is 1 if it did not hold all within --timeout. A server that cannot be
reached for a while is asked again.")]
    Show {
        /// The satellite
        name: String,
        /// Show it again and again until it holds all that it is to hold
        #[arg(short, long)]
        watch: bool,
        /// Watch no longer than this
        #[arg(long, value_name = "SECONDS", requires = "watch")]
        timeout: Option<u64>,
    },
    /// Add a satellite, and print the token that enrols its device
    #[command(after_help = "Example: ground-control satellite add gateway-17 --config default \
        --group web --label site=north")]
    Add {
        /// The satellite's name
        name: String,
        /// A group that it is in; may be repeated
        #[arg(short, long, value_name = "GROUP")]
        group: Vec<String>,
        /// Its configuration
        #[arg(short, long)]
        config: String,
        /// A label; may be repeated
        #[arg(short = 'l', long, value_name = "KEY=VALUE")]
        label: Vec<String>,
    },
    /// Show the last days of a satellite, the newest last: a row an hour for three days, and six
    /// hours before that
    #[command(
        after_help = "Example: ground-control satellite history gateway-17 --days 30 -o json"
    )]
    History {
        /// The satellite
        name: String,
        /// How far back, up to 30
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=30))]
        days: u8,
    },
    /// Print a new enrolment token, for a device that was replaced or flashed anew
    #[command(after_help = "Example: ground-control satellite token gateway-17

What the old device has stays good until the new one has enrolled.")]
    Token {
        /// The satellite
        name: String,
    },
    /// Change labels of a satellite
    #[command(after_help = "Example: ground-control satellite label gateway-17 site=south ring-

KEY- takes a label away.")]
    Label {
        /// The satellite
        name: String,
        /// What is set and what is taken away
        #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
        labels: Vec<String>,
    },
    /// Show which images documents would add to a satellite or remove from it, its groups merged;
    /// exits with 1 where something would change
    #[command(after_help = "Example: ground-control satellite diff gateway-17 -f fleet.yaml")]
    Diff {
        /// The satellite
        name: String,
        /// YAML documents, as for apply
        #[arg(short, long, required = true, value_name = "FILE")]
        file: Vec<PathBuf>,
    },
    /// List devices that wait to be let in, with what they say of themselves
    #[command(after_help = "Example: ground-control satellite waiting")]
    Waiting,
    /// Let devices in that wait for it: each goes on by itself when it asks next
    #[command(after_help = "Examples:
  ground-control satellite approve gateway-1f0c77aa
  ground-control satellite approve --batch gateway

ground-control satellite revoke refuses one.")]
    Approve {
        /// The satellites
        #[arg(required_unless_present = "batch", conflicts_with = "batch")]
        names: Vec<String>,
        /// All of a batch that wait now
        #[arg(long, value_name = "BATCH")]
        batch: Option<String>,
    },
    /// End a satellite's credentials at once, and keep all that is known of it: its device was lost
    #[command(after_help = "Example: ground-control satellite revoke gateway-17

A new token lets a device enrol as it again.")]
    Revoke {
        /// The satellite
        name: String,
    },
    /// Remove a satellite: its credentials end at once; what its device holds stays there
    #[command(after_help = "Example: ground-control satellite decommission gateway-17")]
    Decommission {
        /// The satellite
        name: String,
    },
}

pub fn run(verb: Verb, server: &Server, output: Output) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls { selector } => list(server, &selector, output)?,
        Verb::Show { name, watch: false, .. } => {
            let known = Known::read(server, &name)?;
            output.one(&known.written(), || known.draw())?;
        }
        Verb::Show { name, timeout, .. } => return watch(timeout, || Known::read(server, &name)),
        Verb::Add { name, group, config, label } => {
            let labels = changes(&label)?;
            if let Some(label) =
                labels.iter().find_map(|(label, value)| value.is_none().then_some(label))
            {
                return Err(format!("label {label:?}: expected KEY=VALUE").into());
            }
            let body = json!({
                "name": name, "groups": group, "config_name": config, "labels": labels,
            });
            let added = server.ask(&Request::new(Method::Post, &["api", "satellites"], Some(body)));
            let added = added.map_err(|failure| not_there(server, failure, &config, &group))?;
            show_token(server, &name, &added, output)?;
        }
        Verb::Token { name } => {
            let path = ["api", "satellites", &name, "token"];
            let answer = ask(server, &name, &Request::new(Method::Post, &path, None))?;
            show_token(server, &name, &answer, output)?;
        }
        Verb::History { name, days } => history(server, &name, days, output)?,
        Verb::Label { name, labels } => {
            let body = Some(json!({ "labels": changes(&labels)? }));
            ask(server, &name, &Request::new(Method::Patch, &["api", "satellites", &name], body))?;
            say(&format!("satellite/{name} changed"))?;
        }
        Verb::Diff { name, file } => return diff(server, &name, &file),
        Verb::Waiting => waiting(server, output)?,
        Verb::Approve { mut names, batch } => {
            // A list has so many at a time.
            while let Some(batch) = &batch {
                let request = Request::new(Method::Get, &["api", "waiting"], None);
                let request = request.with_query(&[("batch", batch)]);
                let waiting = elements(server.ask(&request)?);
                names = waiting.iter().map(|one| text(one, "name")).collect();
                if names.is_empty() {
                    break;
                }
                names.iter().try_for_each(|name| approve(server, name))?;
            }
            names.iter().try_for_each(|name| approve(server, name))?;
        }
        Verb::Revoke { name } => {
            let path = ["api", "satellites", &name, "revoke"];
            ask(server, &name, &Request::new(Method::Post, &path, None))?;
            say(&format!("satellite/{name} revoked"))?;
        }
        Verb::Decommission { name } => {
            ask(server, &name, &Request::new(Method::Delete, &["api", "satellites", &name], None))?;
            say(&format!("satellite/{name} decommissioned"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(server: &Server, name: &str, request: &Request) -> Result<Value, Failure> {
    server.ask_of("satellite", name, || server.names("satellites", "Name"), request)
}

fn list(server: &Server, selector: &str, output: Output) -> Result<(), Failure> {
    let mut head = vec!["NAME", "CONNECTION", "UPDATED", "HEALTH", "LAST SEEN"];
    let is_wide = output.is_full();
    if is_wide {
        head.extend(["CONFIG", "GROUPS", "LABELS", "REASON"]);
    }
    let mut table = Table::new(&head);
    let mut documents = Vec::new();
    for row in &fleet::satellites(server, selector)? {
        let name = text(row, "Name");
        // Of one whose credentials were ended nothing can come, whatever its last report was.
        let connection = match text(row, "Lifecycle") {
            lifecycle if lifecycle == "Revoked" => lifecycle,
            _ => text(row, "Connection"),
        };
        let [updated, health] = ["Updated", "Health"].map(|field| text(row, field));
        let mut cells = vec![name.clone(), connection, updated, health, seen(row)];
        if is_wide {
            let given = fleet::satellite(row);
            let groups: Vec<&str> = given.groups.iter().map(String::as_str).collect();
            let labels = labels(&given.labels);
            cells.extend([given.config.clone(), groups.join(","), labels, text(row, "Reason")]);
            documents.push(document::written(Kind::Satellite, &name, json!(given), None));
        }
        table.row(cells);
    }
    output.many(&documents, &table)
}

fn seen(row: &Value) -> String {
    let time = row.get("LastSeen").filter(|time| time.get("Valid") == Some(&Value::Bool(true)));
    time.map(|time| text(time, "Time")).unwrap_or_default()
}

fn labels(labels: &BTreeMap<String, Option<String>>) -> String {
    let labels = labels.iter();
    let labels =
        labels.map(|(key, value)| format!("{key}={}", value.as_deref().unwrap_or_default()));
    labels.collect::<Vec<_>>().join(",")
}

/// What a server knows of one satellite.
struct Known {
    name: String,
    given: document::Satellite,
    state: Value,
}

impl Known {
    fn read(server: &Server, name: &str) -> Result<Self, Failure> {
        let answer =
            ask(server, name, &Request::new(Method::Get, &["api", "satellites", name], None))?;
        let state = server.get(&["api", "satellites", name, "state"])?;
        Ok(Self { name: name.to_owned(), given: fleet::satellite(&answer), state })
    }

    fn written(&self) -> Value {
        document::written(Kind::Satellite, &self.name, json!(self.given), Some(self.state.clone()))
    }

    fn images(&self) -> Vec<Value> {
        elements(self.state.get("images").cloned().unwrap_or_default())
    }

    /// How many images it holds as desired, and how many it is to hold.
    fn held(&self) -> (usize, usize) {
        let images = self.images();
        let held = images.iter().filter(|image| image.get("in_sync") == Some(&Value::Bool(true)));
        (held.count(), images.len())
    }
}

impl View for Known {
    fn line(&self) -> String {
        let (held, all) = self.held();
        let [connection, updated, reason] =
            ["connection", "updated", "reason"].map(|field| text(&self.state, field));
        format!("{connection}, {updated}, {held} of {all} held {reason}")
    }

    fn end(&self) -> Option<ExitCode> {
        let is_there = |field, word| text(&self.state, field) == word;
        let is_done = is_there("connection", "Online") && is_there("updated", "UpToDate");
        is_done.then_some(ExitCode::SUCCESS)
    }

    fn draw(&self) -> String {
        let field = |name| text(&self.state, name);
        let (held, all) = self.held();
        let groups: Vec<&str> = self.given.groups.iter().map(String::as_str).collect();
        let rows = [
            ("satellite", self.name.clone()),
            ("connection", field("connection")),
            ("updated", field("updated")),
            ("health", field("health")),
            ("lifecycle", field("lifecycle")),
            ("reason", field("reason")),
            ("last seen", field("last_seen")),
            ("version", format!("{} {}", field("version"), field("platform"))),
            ("config", self.given.config.clone()),
            ("groups", groups.join(", ")),
            ("labels", labels(&self.given.labels)),
            ("images", format!("{held} of {all} held")),
        ];
        let rows = rows.iter().filter(|(_, value)| !value.trim().is_empty());
        let rows = rows.map(|(name, value)| format!("{name:<12}{}\n", plain(value.trim())));
        let problems = texts(&self.state, "problems");
        let problems = problems.iter().map(|problem| format!("! {}\n", plain(problem)));
        let mut table = Table::new(&["IMAGE", "GROUP", "STATE", "SIZE", "REASON"]);
        for image in self.images() {
            let bytes = |field| image.get(field).and_then(Value::as_u64).unwrap_or_default();
            let (held, total) = (ByteCount(bytes("held_bytes")), ByteCount(bytes("total_bytes")));
            let size = if held == total { total.to_string() } else { format!("{held} / {total}") };
            let [reference, group, state, reason] =
                ["reference", "group", "state", "reason"].map(|field| text(&image, field));
            table.row(vec![reference, group, state, size, reason]);
        }
        let head: String = rows.chain(problems).collect();
        if all == 0 { head } else { format!("{head}\n{}", table.draw()) }
    }
}

fn history(server: &Server, name: &str, days: u8, output: Output) -> Result<(), Failure> {
    let after = clock::rfc3339(clock::now() - i64::from(days) * DAY);
    let path = ["api", "satellites", name, "history"];
    let request = Request::new(Method::Get, &path, None).with_query(&[("after", &after)]);
    let hours = elements(ask(server, name, &request)?);
    let head = ["AT", "HOURS", "ONLINE", "RECEIVED", "WRITTEN", "STORAGE", "BEHIND", "HEALTH"];
    let mut table = Table::new(&head);
    for hour in &hours {
        let number = |field: &str| hour.get(field).and_then(Value::as_u64);
        let bytes = |field: &str| {
            number(field).map_or_else(|| "-".to_owned(), |bytes| ByteCount(bytes).to_string())
        };
        let count = |field: &str| number(field).unwrap_or_default();
        let seconds = count("seconds").max(1);
        table.row(vec![
            text(hour, "at"),
            (seconds / 3600).to_string(),
            format!("{} %", count("online_seconds") * 100 / seconds),
            bytes("received_bytes"),
            bytes("flash_written_bytes"),
            bytes("storage_used_bytes"),
            format!("{} of {}", count("images_behind"), count("images")),
            text(hour, "health"),
        ]);
    }
    output.many(&hours, &table)
}

fn approve(server: &Server, name: &str) -> Result<(), Failure> {
    let path = ["api", "satellites", name, "approve"];
    ask(server, name, &Request::new(Method::Post, &path, None))?;
    say(&format!("satellite/{name} approved"))
}

fn waiting(server: &Server, output: Output) -> Result<(), Failure> {
    let waiting = elements(server.get(&["api", "waiting"])?);
    let mut table = Table::new(&["NAME", "DEVICE", "ARCH", "BOARD", "BATCH", "SINCE"]);
    for one in &waiting {
        let labels = one.get("labels").unwrap_or(&Value::Null);
        let [name, device, batch, since] =
            ["name", "device", "batch", "since"].map(|field| text(one, field));
        table.row(vec![name, device, text(labels, "arch"), text(labels, "board"), batch, since]);
    }
    output.many(&waiting, &table)
}

/// `KEY=VALUE` and `KEY-`.
fn changes(given: &[String]) -> Result<BTreeMap<String, Option<String>>, Failure> {
    let changes = given.iter().map(|text| match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) => Ok((key.to_owned(), None)),
        (None, None) => {
            Err(format!("label {text:?}: expected KEY=VALUE, or KEY- to take it away").into())
        }
    });
    changes.collect()
}

fn show_token(server: &Server, name: &str, answer: &Value, output: Output) -> Result<(), Failure> {
    let (url, token) = (server.public_url()?, text(answer, "token"));
    output.one(&json!({ "name": name, "url": url, "token": token }), || {
        format!(
            "satellite/{name}: its enrolment token is good for a day, and shown this once. \
             Into its moonlet.toml:\n\n[ground_control]\nurl = {url:?}\ntoken = {token:?}\n"
        )
    })
}

/// Of a satellite that could not be added: which name leads nowhere, and which may be meant.
fn not_there(server: &Server, failure: Failure, config: &str, groups: &[String]) -> Failure {
    let check = |noun: &str, list: &str, field: &str, names: &[String]| {
        let known = server.names(list, field).ok()?;
        let unknown = names.iter().find(|name| !known.contains(name))?;
        Some(super::http::missing(noun, unknown, &known))
    };
    let config = [config.to_owned()];
    check("config", "configs", "ConfigName", &config)
        .or_else(|| check("group", "groups", "GroupName", groups))
        .unwrap_or(failure)
}

/// What a satellite would hold, all of its groups together.
fn diff(server: &Server, name: &str, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let documents = document::read(files)?;
    let fleet = Fleet::read(server, std::iter::empty())?;
    let before = fleet.satellites.get(name).cloned();
    let mut groups = fleet.groups.clone();
    let mut given = before.clone();
    for document in documents {
        match document.spec {
            Spec::Group(group, _) => drop(groups.insert(group.group.clone(), group)),
            Spec::Satellite(satellite) if document.name == name => given = Some(satellite),
            Spec::Satellite(_) | Spec::Config(_) | Spec::Rollout(_) => {}
        }
    }
    let Some(given) = given else {
        let known: Vec<String> = fleet.satellites.into_keys().collect();
        return Err(super::http::missing("satellite", name, &known));
    };
    if let Some(group) = given.groups.iter().find(|group| !groups.contains_key(*group)) {
        let known: Vec<String> = groups.into_keys().collect();
        return Err(super::http::missing("group", group, &known));
    }
    let before = before.map(|before| fleet::held(&before, &fleet.groups)).unwrap_or_default();
    let after = fleet::held(&given, &groups);
    let lines: Vec<String> = plan::difference(&before, &after).collect();
    lines.iter().try_for_each(|line| say(line))?;
    Ok(if lines.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DIFFERENT) })
}
