//! Ground Control: the server that says to a fleet of satellites what to hold, and shows what each
//! of them holds.
//!
//! It shares with the satellite only row 0 of the table in `src/lib.rs`, above all the contract in
//! `fleet`. It runs on a server, so that well-kept libraries do the work (axum and tokio, sqlx,
//! argon2); the device's binary has none of them.
//!
//! | file | does |
//! |---|---|
//! | `settings` | reads arguments, environment and file |
//! | `server` | accepts connections, TLS, stops gracefully |
//! | `api` | answers people and satellites, in the forms of the Go implementation |
//! | `oci` | serves the state artifacts under `/v2/` |
//! | `pages` | the console |
//! | `assess` | compares what a satellite is to hold with what it said |
//! | `publish` | makes the artifacts, in the transaction that changed what they say |
//! | `journal` | writes down who changed what, and what happened to satellites |
//! | `webhook` | sends events to a URL |
//! | `watch` | finds satellites that fell silent |
//! | `mask` | hides secrets from people |
//! | `store` | SQLite or PostgreSQL |
//!
//! The invariant: whatever is changed and whatever follows from it (the artifacts that satellites
//! read) is one transaction. A crash leaves both or neither, and there is nothing to repair.

mod api;
mod app;
mod artifact;
mod assess;
mod clock;
mod journal;
mod labels;
mod limit;
mod mask;
mod metrics;
mod oci;
mod pages;
mod publish;
mod secret;
mod server;
mod settings;
mod store;
mod watch;
mod webhook;

use std::io::Write as _;
use std::process::ExitCode;

/// Runs the program `ground-control`.
pub fn main() -> ExitCode {
    let arguments: settings::Arguments = argh::from_env();
    if arguments.version {
        let version = env!("CARGO_PKG_VERSION");
        // A closed standard output is no reason to fail.
        let _ = writeln!(std::io::stdout(), "ground-control {version}");
        return ExitCode::SUCCESS;
    }
    let result = match arguments.verb {
        Some(settings::Verb::Serve(serve)) => {
            settings::Settings::resolve(&serve, &|name| std::env::var(name).ok())
                .and_then(server::run)
        }
        None => Err("expected a command: ground-control serve, or --help".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ground-control: {error}");
            ExitCode::from(2)
        }
    }
}
