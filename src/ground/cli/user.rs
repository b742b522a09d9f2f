//! `user`: people.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::Failure;
use super::http::{Method, Request, Server};
use super::login::{NewPassword, ask};
use super::output::{Output, Table, elements, say, text};

#[derive(Subcommand)]
pub enum Verb {
    /// List people
    #[command(after_help = "Example: ground-control user ls")]
    Ls,
    /// Add somebody; the password is asked for
    #[command(after_help = "Example: ground-control user add eve")]
    Add {
        /// The user's name
        name: String,
        /// What they may do: admin, or viewer, who only reads
        #[arg(long, default_value = "admin")]
        role: String,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Remove somebody; their sessions end
    #[command(after_help = "Example: ground-control user rm eve")]
    Rm {
        /// The user's name
        name: String,
    },
    /// Change a password, your own unless a name is given; sessions end
    #[command(after_help = "Example: ground-control user password eve")]
    Password {
        /// The user's name
        name: Option<String>,
        #[command(flatten)]
        password: NewPassword,
    },
}

pub fn run(verb: Verb, server: &Server, output: Output) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => {
            let users = elements(server.get(&["api", "users"])?);
            let mut table = Table::new(&["NAME", "ROLE", "CREATED"]);
            for user in &users {
                table.row(["username", "role", "created_at"].map(|key| text(user, key)).into());
            }
            output.many(&users, &table)?;
        }
        Verb::Add { name, role, password } => {
            let password = password.read(&format!("password of {name}: "))?;
            let body = json!({ "username": name, "password": password, "role": role });
            server.ask(&Request::new(Method::Post, &["api", "users"], Some(body)))?;
            say(&format!("user/{name} added"))?;
        }
        Verb::Rm { name } => {
            of(server, &name, &Request::new(Method::Delete, &["api", "users", &name], None))?;
            say(&format!("user/{name} removed"))?;
        }
        Verb::Password { name: Some(name), password } => {
            let new = password.read(&format!("new password of {name}: "))?;
            let path = ["api", "users", &name, "password"];
            let body = json!({ "new_password": new });
            of(server, &name, &Request::new(Method::Patch, &path, Some(body)))?;
            say(&format!("user/{name} has a new password"))?;
        }
        Verb::Password { name: None, password } => {
            let current = ask("current password: ")?;
            let new = password.read("new password: ")?;
            let body = json!({ "current_password": current, "new_password": new });
            let path = ["api", "users", "password"];
            server.ask(&Request::new(Method::Patch, &path, Some(body)))?;
            say("you have a new password: log in again")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn of(server: &Server, name: &str, request: &Request) -> Result<Value, Failure> {
    server.ask_of("user", name, || server.names("users", "username"), request)
}
