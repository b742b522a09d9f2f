//! `token`: what programs log in with.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Map, json};

use super::Failure;
use super::http::{Method, Request, Server};
use super::output::{Output, Table, elements, say, text};

#[derive(Subcommand)]
pub enum Verb {
    /// List tokens, without what they are
    #[command(after_help = "Example: ground-control token ls")]
    Ls,
    /// Make a token, and print it this once
    #[command(after_help = "Example: ground-control token add ci --role admin --expires-in 30d

A program passes it as GROUND_CONTROL_TOKEN, with GROUND_CONTROL_SERVER.")]
    Add {
        /// The token's name
        name: String,
        /// What it may do: viewer, admin, or system_admin; a viewer's unless given
        #[arg(long)]
        role: Option<String>,
        /// When it ends, such as 30d: in 90 days unless given
        #[arg(long, value_name = "SPAN")]
        expires_in: Option<String>,
    },
    /// End a token
    #[command(after_help = "Example: ground-control token rm ci")]
    Rm {
        /// The token's name
        name: String,
    },
}

pub fn run(verb: Verb, server: &Server, output: Output) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => {
            let tokens = elements(server.get(&["api", "tokens"])?);
            let mut table = Table::new(&["NAME", "ROLE", "USER", "EXPIRES", "USED"]);
            for token in &tokens {
                let fields = ["name", "role", "username", "expires_at", "used_at"];
                table.row(fields.map(|field| text(token, field)).into());
            }
            output.many(&tokens, &table)?;
        }
        Verb::Add { name, role, expires_in } => {
            let mut body = Map::from_iter([("name".to_owned(), json!(name))]);
            body.extend(role.map(|role| ("role".to_owned(), json!(role))));
            body.extend(expires_in.map(|span| ("expires_in".to_owned(), json!(span))));
            let request = Request::new(Method::Post, &["api", "tokens"], Some(body.into()));
            let answer = server.ask(&request)?;
            output.one(&answer, || format!("{}\n", text(&answer, "token")))?;
        }
        Verb::Rm { name } => {
            let request = Request::new(Method::Delete, &["api", "tokens", &name], None);
            server.ask_of("token", &name, || server.names("tokens", "name"), &request)?;
            say(&format!("token/{name} removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
