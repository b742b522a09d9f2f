//! The command line of `ground-control`, beside `serve`.
//!
//! Each noun is a file that has its commands and what they do. They speak to a server by the API
//! that everybody has, so that whatever is done here can be done by a script as well; `backup` and
//! `restore` alone look at the files of the database.
//!
//! | file | does |
//! |---|---|
//! | `http` | asks a server, and makes errors of its answers |
//! | `login` | `login`, `logout` |
//! | `session` | remembers a server and a session |
//! | `output` | tables, JSON, YAML |
//! | `satellite` `batch` `group` `rollout` `config` `user` `token` | a noun each |
//! | `watch` | looks at a thing until it is as it is to be |
//! | `journal` | `event` and `audit` |
//! | `document` | reads the YAML documents of a fleet, and says all that is wrong with them |
//! | `fleet` | reads what a server has of all that |
//! | `plan` | what would have to change: by it `apply` works, and `diff` |
//! | `apply` | carries a plan out |
//! | `bundle` | writes what a satellite lacks to a file, by the program `moonlet` |
//! | `backup` | copies a database while it is in use |
//!
//! Exit codes are those of `moonlet`: 0 done, 1 not converged or a difference found, 2 error.

mod apply;
mod backup;
mod batch;
mod bundle;
mod config;
mod document;
mod fleet;
mod group;
mod http;
mod journal;
mod login;
mod output;
mod patch;
mod plan;
mod rollout;
mod satellite;
mod session;
mod token;
mod user;
mod watch;

use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::server;
use super::settings::{Serve, Settings};
use http::Connection;

/// Says to a fleet of satellites which images to hold, and shows what each holds.
#[derive(Parser)]
#[command(
    name = "ground-control",
    version,
    after_help = "Examples:
  ground-control serve --data /var/lib/ground-control
  ground-control login http://127.0.0.1:8080
  ground-control apply -f fleet.yaml --dry-run
  ground-control satellite ls

Exit codes: 0 done, 1 not converged or a difference found, 2 error."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve the API, the console and the state artifacts until stopped
    ///
    /// Each option may stand in the environment as well, as GROUND_CONTROL_LISTEN and so on.
    /// GROUND_CONTROL_ADMIN_PASSWORD is the first password of admin.
    #[command(after_help = "Example: ground-control serve --data /var/lib/ground-control")]
    Serve(Serve),
    /// Log in to a server, and remember the session
    #[command(after_help = "Example: ground-control login https://ground.example --user eve")]
    Login(login::Login),
    /// End the session, and forget it
    #[command(after_help = "Example: ground-control logout")]
    Logout(login::Logout),
    /// The devices: list, show, add, label, revoke, decommission
    Satellite(Noun<satellite::Verb>),
    /// Groups of images, and the satellites in them
    Group(Noun<group::Verb>),
    /// Bring a group's new images to its satellites batch by batch
    Rollout(Noun<rollout::Verb>),
    /// Configurations of satellites
    Config(Noun<config::Verb>),
    /// People
    User(Noun<user::Verb>),
    /// Tokens that enrol many devices
    Batch(Noun<batch::Verb>),
    /// What programs log in with
    Token(Noun<token::Verb>),
    /// What happened to satellites
    Event(Noun<journal::Events>),
    /// Who changed what
    Audit(Noun<journal::Audit>),
    /// Make the fleet what YAML documents say
    #[command(after_help = apply::HELP)]
    Apply(apply::Apply),
    /// Write what a satellite lacks into a signed file, for where there is no network
    #[command(after_help = bundle::HELP)]
    Bundle(bundle::Bundle),
    /// Copy the database of a server in a directory, while it serves
    #[command(
        after_help = "Example: ground-control backup --data /var/lib/ground-control fleet.db"
    )]
    Backup(backup::Backup),
    /// Put a copy in the place of a database; no server may run there
    #[command(
        after_help = "Example: ground-control restore --data /var/lib/ground-control fleet.db"
    )]
    Restore(backup::Restore),
    /// Print a script that completes commands and options
    #[command(after_help = "Example: ground-control completion bash \
        > /usr/share/bash-completion/completions/ground-control")]
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// A noun's commands, with what all of them take.
#[derive(Args)]
struct Noun<V: Subcommand> {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: output::Output,
    #[command(subcommand)]
    verb: V,
}

/// Why a command failed: a text that names the value and what was expected.
#[derive(Debug)]
pub struct Failure {
    message: String,
    /// The status of the server's answer, if it was one.
    status: Option<u16>,
}

impl Failure {
    /// Whether the same question may be answered later: nothing was answered, or that the server
    /// cannot now.
    fn is_passing(&self) -> bool {
        self.status.is_none_or(|status| status == 429 || status >= 500)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, status: None }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// Runs the program `ground-control`.
pub fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(code) => code,
        Err(failure) => {
            output::complain(&failure.message);
            ExitCode::from(EXIT_ERROR)
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Serve(serve) => {
            Settings::resolve(&serve, &variable).and_then(server::run)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Login(login) => login::login(&login),
        Verb::Logout(logout) => login::logout(&logout),
        Verb::Satellite(noun) => satellite::run(noun.verb, &noun.connection.open()?, noun.output),
        Verb::Group(noun) => group::run(noun.verb, &noun.connection.open()?, noun.output),
        Verb::Rollout(noun) => rollout::run(noun.verb, &noun.connection.open()?, noun.output),
        Verb::Config(noun) => config::run(noun.verb, &noun.connection.open()?, noun.output),
        Verb::User(noun) => user::run(noun.verb, &noun.connection.open()?, noun.output),
        Verb::Batch(noun) => batch::run(noun.verb, &noun.connection.open()?, noun.output),
        Verb::Token(noun) => token::run(noun.verb, &noun.connection.open()?, noun.output),
        Verb::Event(noun) => journal::events(noun.verb, &noun.connection.open()?, noun.output),
        Verb::Audit(noun) => journal::audit(noun.verb, &noun.connection.open()?, noun.output),
        Verb::Apply(apply) => apply::run(&apply),
        Verb::Bundle(order) => bundle::run(&order),
        Verb::Backup(backup) => backup::backup(&backup),
        Verb::Restore(restore) => backup::restore(&restore),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "ground-control", &mut script);
            // clap_complete 4.6.11 spells a program's name in two ways in one script for bash where
            // the name has a dash, and completes nothing.
            let script = String::from_utf8_lossy(&script);
            output::print(&script.replace("ground__subcmd__control", "ground__control"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A variable of the environment; what is not Unicode counts as not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Not converged, or a difference was found.
const EXIT_DIFFERENT: u8 = 1;
const EXIT_ERROR: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// clap's own check of the whole table: names used twice, defaults that are no values.
    #[test]
    fn the_command_table_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// Every command says what it is for, and every one that does something has an example.
    #[test]
    fn every_command_has_a_purpose_and_an_example() {
        fn look(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}: no purpose");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
            }
            let has_verbs = command.get_subcommands().next().is_some();
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(has_verbs || example.contains("ground-control"), "{path}: no example");
            command.get_subcommands().for_each(|verb| look(verb, &path));
        }
        let command = Arguments::command();
        command.get_subcommands().for_each(|verb| look(verb, ""));
    }
}
