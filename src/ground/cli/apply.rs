//! Makes a fleet what documents say, or shows what would change.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::document::{self, Document, Kind};
use super::fleet::Fleet;
use super::http::{Connection, Server};
use super::output::{complain, say};
use super::plan::{Action, Plan, Step};
use super::{EXIT_DIFFERENT, EXIT_ERROR, Failure};

#[derive(Args)]
pub struct Apply {
    #[command(flatten)]
    connection: Connection,
    /// A file of YAML documents, a directory of *.yaml, or - for standard input; may be repeated
    #[arg(short, long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove what no document names, of those kinds that the documents are of; after a failure
    /// nothing is removed
    #[arg(long)]
    prune: bool,
}

pub const HELP: &str = "Example: ground-control apply -f fleet.yaml --dry-run

  apiVersion: moonlet/v1
  kind: Config
  metadata: {name: default}
  spec:
    app_config: {heartbeat_interval: \"@every 30s\"}
    moonlet:
      registries:
        - {url: \"https://registry.example\", username: edge, passwordEnv: EDGE_PASSWORD}
  ---
  apiVersion: moonlet/v1
  kind: Group
  metadata: {name: web}
  spec:
    registry: https://registry.example
    artifacts:
      - {repository: library/nginx, tag: [\"1.27\"]}
    tags: follow
  ---
  apiVersion: moonlet/v1
  kind: Satellite
  metadata: {name: gateway-17}
  spec: {config: default, groups: [web], labels: {site: north}}
  ---
  apiVersion: moonlet/v1
  kind: Rollout
  metadata: {name: web-1.28}
  spec:
    group: web
    state:
      registry: https://registry.example
      artifacts:
        - {repository: library/nginx, tag: [\"1.28\"]}
    policy:
      sequence: [{selector: ring=canary, limit: 1}, {limit: 25%}]
      successThreshold: 90%
      activateAt: 2026-12-01T02:00:00Z    # or downloadOnly: true; without either at once

A rollout is started once, under its name; when it has ended, the group's document should say the
same. Nothing is changed unless all documents are valid. Labels that no document names stay, null takes
one away. Secrets cannot be compared and are sent each time.";

pub fn run(apply: &Apply) -> Result<ExitCode, Failure> {
    // Mistakes in documents are found without a server.
    let documents = document::read(&apply.file)?;
    let server = apply.connection.open()?;
    let plan = plan(&server, &documents, apply.prune)?;
    if apply.dry_run {
        plan.steps.iter().try_for_each(show)?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_removal = |step: &&Step| step.action == Action::Remove;
    let (removals, others): (Vec<&Step>, Vec<&Step>) = plan.steps.iter().partition(is_removal);
    let mut failed = carry_out_all(&server, &others)?;
    // What is there stays until all that may be in its place is there.
    if failed == 0 {
        failed = carry_out_all(&server, &removals)?;
    } else if !removals.is_empty() {
        let count = removals.len();
        complain(&format!("nothing was removed: without failures {count} would have been"));
    }
    let is_new = |step: &&Step| step.kind == Kind::Satellite && step.action == Action::Create;
    if let Some(new) = plan.steps.iter().find(is_new) {
        say(&format!("ground-control satellite token {} makes its enrolment token", new.name))?;
    }
    if failed > 0 {
        complain(&format!("{failed} of {} failed", plan.steps.len()));
        return Ok(ExitCode::from(EXIT_ERROR));
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows what documents would change; a difference is an exit code of its own, for scripts.
pub fn diff(server: &Server, documents: &[Document]) -> Result<ExitCode, Failure> {
    let plan = plan(server, documents, false)?;
    plan.steps.iter().filter(|step| step.action != Action::Keep).try_for_each(show)?;
    Ok(if plan.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DIFFERENT) })
}

/// What would have to be done.
fn plan(server: &Server, documents: &[Document], prune: bool) -> Result<Plan, Failure> {
    let rollouts = documents.iter().filter(|document| document.kind() == Kind::Rollout);
    let fleet = Fleet::read(server, rollouts.map(|document| document.name.as_str()))?;
    Plan::make(documents, &fleet, prune)
}

/// Says what became of each, and returns how many failed. What fails in one thing stops no other.
fn carry_out_all(server: &Server, steps: &[&Step]) -> Result<usize, Failure> {
    let mut failed = 0;
    for step in steps {
        match carry_out(server, step) {
            Ok(()) => say(&format!("{}/{} {}", step.kind, step.name, step.action.word()))?,
            Err(failure) => {
                failed += 1;
                complain(&format!("{}/{}: {}", step.kind, step.name, failure.message));
            }
        }
    }
    Ok(failed)
}

/// Sends what one step needs.
pub fn carry_out(server: &Server, step: &Step) -> Result<(), Failure> {
    step.requests.iter().try_for_each(|request| server.ask(request).map(drop))
}

fn show(step: &Step) -> Result<(), Failure> {
    let word = match step.action {
        Action::Create => "would be created",
        Action::Change => "would be changed",
        Action::Keep => "unchanged",
        Action::Remove => "would be removed",
    };
    say(&format!("{}/{} {word}", step.kind, step.name))?;
    step.lines.iter().try_for_each(|line| say(&format!("  {line}")))
}
