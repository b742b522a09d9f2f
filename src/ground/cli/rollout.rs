//! `rollout`: a group's new images, brought to its satellites batch by batch.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::document::{self, Kind};
use super::group::Images;
use super::http::{Method, Request, Server};
use super::output::{Output, Table, elements, plain, say, text};
use super::watch::{View, watch};
use super::{EXIT_DIFFERENT, Failure, fleet};
use crate::ground::model::{Approval, Batch, Budget, Percent, Policy, Span};

#[derive(Subcommand)]
pub enum Verb {
    /// Start a rollout of a group's new images
    #[command(after_help = "Examples:
  ground-control rollout start web-1.28 --group web --add library/nginx:1.28 \\
    --remove library/nginx:1.27 --batch '1 ring=canary' --batch 25%
  ground-control rollout start web-1.28 --group web library/nginx:1.28 --manual
  ground-control rollout start web-1.28 --group web library/nginx:1.28 \\
    --activate-at 2026-12-01T02:00:00Z

A batch is LIMIT [SELECTOR]: at most so many (5, 10%, or all) of the group's satellites that the
selector chooses and no batch before has. What is left is a last batch.")]
    Start(Box<Start>),
    /// List rollouts, the newest first
    #[command(after_help = "Example: ground-control rollout ls")]
    Ls,
    /// Show a rollout: its batches, and the satellites it waits for
    #[command(after_help = "Example: ground-control rollout show web-1.28")]
    Show {
        /// The rollout
        name: String,
    },
    /// Show a rollout again and again until it ends; exits with 1 where it was taken back
    #[command(after_help = "Example: ground-control rollout watch web-1.28 --timeout 3600")]
    Watch {
        /// The rollout
        name: String,
        /// No longer than this
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Let no more satellites have the new images; those that have them keep them
    #[command(after_help = "Example: ground-control rollout pause web-1.28")]
    Pause {
        /// The rollout
        name: String,
    },
    /// Go on with a rollout that was paused
    #[command(after_help = "Example: ground-control rollout resume web-1.28")]
    Resume {
        /// The rollout
        name: String,
    },
    /// Let the next batch of a rollout begin that waits for approval
    #[command(after_help = "Example: ground-control rollout approve web-1.28")]
    Approve {
        /// The rollout
        name: String,
    },
    /// End a rollout, and roll all that have the new images back to the old ones
    #[command(after_help = "Example: ground-control rollout abort web-1.28")]
    Abort {
        /// The rollout
        name: String,
    },
}

#[derive(Args)]
pub struct Start {
    /// The rollout's name
    name: String,
    /// The group
    #[arg(long)]
    group: String,
    #[command(flatten)]
    images: Images,
    /// A batch; may be repeated
    #[arg(long, value_name = "LIMIT [SELECTOR]")]
    batch: Vec<Batch>,
    /// The share of a batch that must hold the new images before the next one begins
    #[arg(long, value_name = "SHARE", default_value = "90%")]
    success: Percent,
    /// The share of a batch that takes the rollout back when it fails
    #[arg(long, value_name = "SHARE", default_value = "50%")]
    error: Percent,
    /// How long a satellite that reports has
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    update_timeout: Span,
    /// Wait for approval before each batch but the first
    #[arg(long)]
    manual: bool,
    /// Fetch the new images and keep them beside the old ones, until they are activated
    #[arg(long)]
    download_only: bool,
    /// When all satellites switch to them, with or without a link: 2026-12-01T02:00:00Z
    #[arg(long, value_name = "TIME")]
    activate_at: Option<String>,
    /// Satellites with the same values of these labels share a disruption budget; may be repeated
    #[arg(long, value_name = "LABEL")]
    budget_by: Vec<String>,
    /// Of those that share a budget so many may be offline or without what they are to hold
    #[arg(long, value_name = "COUNT")]
    max_unavailable: Option<u32>,
    /// Of those that share a budget so many must be online with what they are to hold
    #[arg(long, value_name = "COUNT")]
    min_available: Option<u32>,
}

impl Start {
    fn policy(self) -> Policy {
        let has_budget = self.max_unavailable.is_some()
            || self.min_available.is_some()
            || !self.budget_by.is_empty();
        let budget = Budget {
            group_by: self.budget_by,
            max_unavailable: self.max_unavailable,
            min_available: self.min_available,
        };
        Policy {
            sequence: self.batch,
            success_threshold: self.success,
            error_threshold: self.error,
            update_timeout: self.update_timeout,
            disruption_budget: has_budget.then_some(budget),
            approval: if self.manual { Approval::Manual } else { Approval::Automatic },
            download_only: self.download_only,
            activate_at: self.activate_at.unwrap_or_default(),
        }
    }
}

pub fn run(verb: Verb, server: &Server, output: Output) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Start(start) => {
            let path = ["api", "groups", &start.group];
            let groups = || server.names("groups", "GroupName");
            let request = Request::new(Method::Get, &path, None);
            let answer = server.ask_of("group", &start.group, groups, &request)?;
            let mut state = fleet::group(&answer)?;
            start.images.change(&mut state)?;
            let (name, group) = (start.name.clone(), start.group.clone());
            let policy = start.policy();
            policy.check().map_err(|fault| fault.message)?;
            let body = json!({ "name": name, "group": group, "state": state, "policy": policy });
            server.ask(&Request::new(Method::Post, &["api", "rollouts"], Some(body)))?;
            say(&format!("rollout/{name} started"))?;
        }
        Verb::Ls => {
            let rollouts = elements(server.get(&["api", "rollouts"])?);
            let mut table = Table::new(&["NAME", "GROUP", "PHASE", "BATCH", "STARTED", "REASON"]);
            for rollout in &rollouts {
                let [name, group, phase, at, reason] =
                    ["name", "group", "phase", "created_at", "reason"]
                        .map(|key| text(rollout, key));
                table.row(vec![name, group, phase, batch(rollout), at, reason]);
            }
            output.many(&rollouts.iter().map(written).collect::<Vec<_>>(), &table)?;
        }
        Verb::Show { name } => {
            let seen = Seen::read(server, &name)?;
            output.one(&written(&seen.rollout), || seen.draw())?;
        }
        Verb::Watch { name, timeout } => return watch(timeout, || Seen::read(server, &name)),
        Verb::Pause { name } => act(server, &name, "pause", "paused")?,
        Verb::Resume { name } => act(server, &name, "resume", "resumed")?,
        Verb::Approve { name } => act(server, &name, "approve", "approved")?,
        Verb::Abort { name } => act(server, &name, "abort", "is being taken back")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn act(server: &Server, name: &str, action: &str, done: &str) -> Result<(), Failure> {
    ask(server, name, &Request::new(Method::Post, &["api", "rollouts", name, action], None))?;
    say(&format!("rollout/{name} {done}"))
}

fn ask(server: &Server, name: &str, request: &Request) -> Result<Value, Failure> {
    server.ask_of("rollout", name, || server.names("rollouts", "name"), request)
}

/// The document that starts it, and where it is.
fn written(rollout: &Value) -> Value {
    let mut status = rollout.clone();
    let spec = fleet::rollout(rollout);
    if let Value::Object(fields) = &mut status {
        fields.retain(|key, _| !["name", "group", "state", "policy"].contains(&key.as_str()));
    }
    document::written(Kind::Rollout, &text(rollout, "name"), spec, Some(status))
}

/// `1 of 3`.
fn batch(rollout: &Value) -> String {
    let number = |key| rollout.get(key).and_then(Value::as_u64).unwrap_or_default();
    format!("{} of {}", number("batch"), number("batches"))
}

/// A rollout, and the satellites that it waits for.
struct Seen {
    rollout: Value,
    satellites: Vec<Value>,
}

impl Seen {
    fn read(server: &Server, name: &str) -> Result<Self, Failure> {
        let rollout =
            ask(server, name, &Request::new(Method::Get, &["api", "rollouts", name], None))?;
        let satellites = server.get(&["api", "rollouts", name, "satellites"])?;
        Ok(Self { rollout, satellites: elements(satellites) })
    }

    fn counts(&self) -> Vec<Value> {
        elements(self.rollout.get("counts").cloned().unwrap_or_default())
    }
}

impl View for Seen {
    fn line(&self) -> String {
        let field = |name| text(&self.rollout, name);
        let counts = self.counts().last().map(|counts| {
            WORDS.map(|word| format!("{} {word}", counts.get(word).unwrap_or(&json!(0)))).join(", ")
        });
        let why = [field("reason"), field("waits")].join(" ");
        let (phase, batch) = (field("phase"), batch(&self.rollout));
        let line = format!("{phase}, batch {batch}: {} {}", counts.unwrap_or_default(), why.trim());
        plain(line.trim_end())
    }

    fn draw(&self) -> String {
        let field = |name| text(&self.rollout, name);
        let policy = self.rollout.get("policy").cloned().unwrap_or_default();
        let rules = ["successThreshold", "errorThreshold", "updateTimeout", "approval"];
        let mut rules = rules.map(|rule| format!("{rule} {}", text(&policy, rule))).join(", ");
        for rule in ["downloadOnly", "activateAt"] {
            if let Some(value) = policy.get(rule) {
                rules.push_str(&format!(", {rule} {}", value.to_string().trim_matches('"')));
            }
        }
        let rows = [
            ("rollout", field("name")),
            ("group", field("group")),
            ("phase", field("phase")),
            ("reason", field("reason")),
            ("waits", field("waits")),
            ("batch", batch(&self.rollout)),
            ("rules", rules),
            ("started", format!("{} by {}", field("created_at"), field("actor"))),
        ];
        let rows = rows.iter().filter(|(_, value)| !value.is_empty());
        let head: String =
            rows.map(|(name, value)| format!("{name:<12}{}\n", plain(value))).collect();
        let mut batches =
            Table::new(&["BATCH", "RULE", "WAITING", "OFFLINE", "UPDATING", "UPDATED", "FAILED"]);
        for counts in self.counts() {
            let number = |key: &str| counts.get(key).map(Value::to_string).unwrap_or_default();
            let mut cells = vec![number("batch"), text(&counts, "rule")];
            cells.extend(WORDS.map(number));
            batches.row(cells);
        }
        let mut rest = Table::new(&["SATELLITE", "BATCH", "STATE", "CONNECTION", "REASON"]);
        let open = self.satellites.iter().filter(|row| text(row, "state") != "Updated");
        for row in open.clone() {
            let [name, state, connection, reason] =
                ["satellite", "state", "connection", "reason"].map(|key| text(row, key));
            let batch = row.get("batch").map(Value::to_string).unwrap_or_default();
            rest.row(vec![name, batch, state, connection, reason]);
        }
        let rest = if open.count() == 0 { String::new() } else { format!("\n{}", rest.draw()) };
        format!("{head}\n{}{rest}", batches.draw())
    }

    fn end(&self) -> Option<ExitCode> {
        match text(&self.rollout, "phase").as_str() {
            "Completed" => Some(ExitCode::SUCCESS),
            "RolledBack" | "Aborted" => Some(ExitCode::from(EXIT_DIFFERENT)),
            _ => None,
        }
    }
}

/// What a batch's satellites are counted by.
const WORDS: [&str; 5] = ["waiting", "offline", "updating", "updated", "failed"];
