//! `batch`: tokens that enrol many devices.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::Failure;
use super::http::{Method, Request, Server};
use super::output::{Output, Table, elements, say, text, texts};

#[derive(Subcommand)]
pub enum Verb {
    /// List batches, without their tokens
    #[command(after_help = "Example: ground-control batch ls")]
    Ls,
    /// Make the token of a batch, and print it this once
    #[command(
        after_help = "Example: ground-control batch add gateway --devices 500 --config default \
        --group web --expires-in 30d --approval

All devices are given the same token. Each becomes a satellite named NAME-NUMBER by its own number.
With --approval each waits until ground-control satellite approve lets it in."
    )]
    Add {
        /// What the names of its satellites begin with
        name: String,
        /// How many devices may use it
        #[arg(short = 'n', long, value_name = "NUMBER")]
        devices: u32,
        /// Their configuration
        #[arg(short, long)]
        config: String,
        /// A group that they are in; may be repeated
        #[arg(short, long, value_name = "GROUP")]
        group: Vec<String>,
        /// A label of theirs; may be repeated
        #[arg(short = 'l', long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// A person lets each device in
        #[arg(long)]
        approval: bool,
        /// Until when new devices may use it, such as 30d: 90 days unless given
        #[arg(long, value_name = "SPAN")]
        expires_in: Option<String>,
    },
    /// End a batch's token for new devices
    #[command(after_help = "Example: ground-control batch rm gateway

Devices that have used it stay what they are, those that wait among them.")]
    Rm {
        /// The batch
        name: String,
    },
}

pub fn run(verb: Verb, server: &Server, output: Output) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => {
            let batches = elements(server.get(&["api", "batches"])?);
            let head = ["NAME", "DEVICES", "OF", "APPROVAL", "CONFIG", "GROUPS", "EXPIRES"];
            let mut table = Table::new(&head);
            for batch in &batches {
                let number = |field| batch.get(field).map(ToString::to_string).unwrap_or_default();
                table.row(vec![
                    text(batch, "name"),
                    number("devices"),
                    number("devices_max"),
                    number("approval"),
                    text(batch, "config_name"),
                    texts(batch, "groups").join(","),
                    text(batch, "expires_at"),
                ]);
            }
            output.many(&batches, &table)?;
        }
        Verb::Add { name, devices, config, group, label, approval, expires_in } => {
            let mut labels = serde_json::Map::new();
            for one in &label {
                let wrong = || format!("label {one:?}: expected KEY=VALUE");
                let (key, value) = one.split_once('=').ok_or_else(wrong)?;
                labels.insert(key.to_owned(), json!(value));
            }
            let mut body = json!({
                "name": name, "devices": devices, "config_name": config, "groups": group,
                "labels": labels, "approval": approval,
            });
            if let (Some(fields), Some(span)) = (body.as_object_mut(), expires_in) {
                fields.insert("expires_in".to_owned(), json!(span));
            }
            let answer =
                server.ask(&Request::new(Method::Post, &["api", "batches"], Some(body)))?;
            let (url, token) = (server.public_url()?, text(&answer, "token"));
            output.one(&answer, || {
                let until = text(&answer, "expires_at");
                format!(
                    "batch/{name}: its token is good for {devices} devices until {until}, and shown \
                     this once. Into their moonlet.toml:\n\n\
                     [ground_control]\nurl = {url:?}\ntoken = {token:?}\n"
                )
            })?;
        }
        Verb::Rm { name } => {
            let request = Request::new(Method::Delete, &["api", "batches", &name], None);
            server.ask_of("batch", &name, || server.names("batches", "name"), &request)?;
            say(&format!("batch/{name} removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
