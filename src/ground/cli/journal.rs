//! `event` and `audit`: what happened to satellites, and who changed what.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Failure;
use super::http::{Method, Request, Server};
use super::output::{Output, Table, elements, text};

#[derive(Subcommand)]
pub enum Events {
    /// List what happened to satellites, the newest first
    #[command(after_help = "Example: ground-control event ls --satellite gateway-17")]
    Ls {
        /// Of this satellite only
        #[arg(long, default_value = "", value_name = "NAME")]
        satellite: String,
        #[command(flatten)]
        page: Page,
    },
}

#[derive(Subcommand)]
pub enum Audit {
    /// List who changed what, the newest first
    #[command(after_help = "Example: ground-control audit ls --limit 20 -o json")]
    Ls {
        #[command(flatten)]
        page: Page,
    },
}

/// Which part of a log.
#[derive(Args)]
pub struct Page {
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: u16,
    /// Those before the one with this id
    #[arg(long, default_value = "", value_name = "ID", hide_default_value = true)]
    before: String,
}

pub fn events(verb: Events, server: &Server, output: Output) -> Result<ExitCode, Failure> {
    let Events::Ls { satellite, page } = verb;
    let columns = ["id", "at", "kind", "satellite", "object", "message"];
    list(server, "events", &page, &satellite, columns, output)
}

pub fn audit(verb: Audit, server: &Server, output: Output) -> Result<ExitCode, Failure> {
    let Audit::Ls { page } = verb;
    let columns = ["id", "at", "actor", "action", "object"];
    list(server, "audit", &page, "", columns, output)
}

fn list<const N: usize>(
    server: &Server,
    log: &str,
    page: &Page,
    satellite: &str,
    columns: [&str; N],
    output: Output,
) -> Result<ExitCode, Failure> {
    let limit = page.limit.to_string();
    let query = [("limit", &*limit), ("before", &page.before), ("satellite", satellite)];
    let request = Request::new(Method::Get, &["api", log], None).with_query(&query);
    let entries = elements(server.ask(&request)?);
    let head = columns.map(str::to_ascii_uppercase);
    let mut table = Table::new(&head.each_ref().map(String::as_str));
    for entry in &entries {
        let cell = |column: &str| match entry.get(column) {
            Some(Value::Number(id)) => id.to_string(),
            _ => text(entry, column),
        };
        table.row(columns.map(cell).into());
    }
    output.many(&entries, &table)?;
    Ok(ExitCode::SUCCESS)
}
