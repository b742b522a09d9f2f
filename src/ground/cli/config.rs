//! `config`: configurations of satellites.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::document::{self, Kind, Spec};
use super::http::{Expected, Method, Request, Server, missing};
use super::output::{Output, Table, elements, plain, say, text};
use super::{Failure, apply, patch, plan};

#[derive(Subcommand)]
pub enum Verb {
    /// List configurations
    #[command(after_help = "Example: ground-control config ls -o yaml > configs.yaml")]
    Ls,
    /// Show a configuration; secrets are masked
    #[command(after_help = "Example: ground-control config show default -o yaml")]
    Show {
        /// The configuration
        name: String,
    },
    /// Make a configuration, or change values of it
    #[command(after_help = "Examples:
  ground-control config set default app_config.heartbeat_interval='@every 00h01m00s'
  ground-control config set default app_config.log_level=

A value is JSON, or else a text; without a value it is taken away. -f FILE replaces the whole instead,
as the spec of a document.")]
    Set {
        /// The configuration
        name: String,
        /// A value, by its path
        #[arg(value_name = "PATH=VALUE", required_unless_present = "file")]
        values: Vec<String>,
        /// A document of this configuration, in place of what it is
        #[arg(short, long, value_name = "FILE", conflicts_with = "values")]
        file: Option<PathBuf>,
    },
    /// Assign a configuration to a satellite
    #[command(after_help = "Example: ground-control config assign slow gateway-17")]
    Assign {
        /// The configuration
        name: String,
        /// The satellite
        satellite: String,
    },
    /// Remove a configuration that no satellite has
    #[command(after_help = "Example: ground-control config rm slow")]
    Rm {
        /// The configuration
        name: String,
    },
}

pub fn run(verb: Verb, server: &Server, output: Output) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => list(server, output)?,
        Verb::Show { name } => {
            let answer = ask(server, &name, Method::Get)?;
            let document = written(&answer);
            output.one(&document, || {
                let spec = document.get("spec").unwrap_or(&Value::Null);
                let lines = patch::lines(&Value::Null, spec);
                let lines = lines.iter().map(|line| line.replacen(": nothing -> ", " = ", 1));
                lines.map(|line| plain(&line) + "\n").collect()
            })?;
        }
        Verb::Set { name, values, file } => set(server, &name, &values, file.as_deref())?,
        Verb::Assign { name, satellite } => {
            let body = json!({ "satellite": satellite, "config_name": name });
            let request = Request::new(Method::Post, &["api", "configs", "satellite"], Some(body));
            let satellites = || server.names("satellites", "Name");
            match server.ask_of("satellite", &satellite, satellites, &request) {
                Err(failure) if failure.message.contains("Config Not Found") => {
                    let known = server.names("configs", "ConfigName").unwrap_or_default();
                    return Err(missing("config", &name, &known));
                }
                asked => drop(asked?),
            }
            say(&format!("satellite/{satellite} has config/{name}"))?;
        }
        Verb::Rm { name } => {
            ask(server, &name, Method::Delete)?;
            say(&format!("config/{name} removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(server: &Server, name: &str, method: Method) -> Result<Value, Failure> {
    let request = Request::new(method, &["api", "configs", name], None);
    server.ask_of("config", name, || server.names("configs", "ConfigName"), &request)
}

fn list(server: &Server, output: Output) -> Result<(), Failure> {
    let mut table = Table::new(&["NAME", "UPDATED"]);
    let mut documents = Vec::new();
    for answer in elements(server.get(&["api", "configs"])?) {
        documents.push(written(&answer));
        table.row(vec![text(&answer, "ConfigName"), text(&answer, "UpdatedAt")]);
    }
    output.many(&documents, &table)
}

/// The document that makes this configuration, but for its secrets.
fn written(answer: &Value) -> Value {
    let spec = answer.get("Config").cloned().unwrap_or_default();
    document::written(Kind::Config, &text(answer, "ConfigName"), spec, None)
}

fn set(server: &Server, name: &str, values: &[String], file: Option<&Path>) -> Result<(), Failure> {
    let answer = server.find(&["api", "configs", name])?;
    let before = answer.as_ref().and_then(|answer| answer.get("Config"));
    let config = match file {
        Some(file) => {
            let documents = document::read(&[file.to_owned()])?;
            let mut found = documents.into_iter().filter(|document| document.name == name);
            let found = found.find_map(|document| match document.spec {
                Spec::Config(config) => Some(config),
                _ => None,
            });
            let shown = file.display();
            found.ok_or_else(|| format!("{shown}: expected a document of Config {name:?}"))?
        }
        None => {
            let mut config = before.cloned().unwrap_or_else(|| json!({}));
            for assignment in values {
                let wrong = || format!("{assignment:?}: expected PATH=VALUE");
                let (path, value) = assignment.split_once('=').ok_or_else(wrong)?;
                let text = || Value::String(value.to_owned());
                let parsed = serde_json::from_str(value).unwrap_or_else(|_| text());
                let set = patch::set(&mut config, path, (!value.is_empty()).then_some(parsed));
                set.map_err(|list| {
                    format!("{assignment:?}: {list} is a list: expected {list}=[...], all of it")
                })?;
            }
            match document::config(config, Path::new("")) {
                Ok(Spec::Config(config)) => config,
                Ok(_) => return Ok(()),
                Err(problems) => return document::all_of(problems),
            }
        }
    };
    let mut step = plan::config_step(name, before, &config);
    step.expect(&answer.as_ref().map_or(Expected::Absent, Expected::of));
    apply::carry_out(server, &step)?;
    say(&format!("config/{name} {}", step.action.word()))
}
