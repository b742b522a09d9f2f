//! Ground Control: the server that says to a fleet of satellites what to hold, and shows what each
//! of them holds.
//!
//! It shares with the satellite only row 0 of the table in `src/lib.rs`, above all the contract in
//! `fleet`. It runs on a server, so that well-kept libraries do the work (axum and tokio, sqlx,
//! argon2); the device's binary has none of them.
//!
//! A part imports only from lower rows, as modules do by the table in `src/lib.rs` (`tests/layers`
//! holds this):
//!
//! | row | parts | hold |
//! |---|---|---|
//! | 0 | `clock` `fault` `http` `limit` `lock` `settings` | what needs nothing else |
//! | 1 | `labels` `mask` `secret` `tls` | texts and certificates, checked and hidden |
//! | 2 | `model` `signer` | the words of the fleet, without I/O; tokens for a registry |
//! | 3 | `assess` `metrics` | what a satellite is to hold against what it said; counters |
//! | 4 | `store` | SQLite or PostgreSQL |
//! | 5 | `artifact` `history` `journal` `registry` `resolve` | made of rows, or asked of others |
//! | 6 | `harbor` `publish` | the artifacts, in the transaction that changed what they say |
//! | 7 | `publisher` | another registry that artifacts are put into, and its robots |
//! | 8 | `app` | what all handlers share, and the first start |
//! | 9 | `auth` `push` `rollout` `tags` `watch` | who it is; and the jobs, each by rounds |
//! | 10 | `api` `grant` | answers in the forms of the Go implementation; who may read what |
//! | 11 | `oci` `pages` `webhook` | the artifacts under `/v2/`; the console; events to a URL |
//! | 12 | `router` | all that is served, and what holds for every answer |
//! | 13 | `server` | accepts connections, TLS, runs the jobs, stops gracefully |
//! | 14 | `cli` | the command line: speaks HTTP to a server, and copies its database |
//!
//! The invariant: whatever is changed and whatever follows from it (the artifacts that satellites
//! read) is one transaction. A crash leaves both or neither. Another registry is no part of it: what
//! it lacks is found by comparison, and put there again.

mod api;
mod app;
mod artifact;
mod assess;
mod auth;
mod cli;
mod clock;
mod fault;
mod grant;
mod harbor;
mod history;
mod http;
mod journal;
mod labels;
mod limit;
mod lock;
mod mask;
mod metrics;
mod model;
mod oci;
mod pages;
mod publish;
mod publisher;
mod push;
mod registry;
mod resolve;
mod rollout;
mod router;
mod secret;
mod server;
mod settings;
mod signer;
mod store;
mod tags;
mod tls;
mod watch;
mod webhook;

pub use cli::main;
