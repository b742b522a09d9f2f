//! Ground Control: the server that says to a fleet of satellites what to hold, and shows what each
//! of them holds.
//!
//! It shares with the satellite only row 0 of the table in `src/lib.rs`, above all the contract in
//! `fleet`. It runs on a server, so that well-kept libraries do the work (axum and tokio, sqlx,
//! argon2); the device's binary has none of them.
//!
//! | file | does |
//! |---|---|
//! | `cli` | the command line: speaks HTTP to a server, and copies its database |
//! | `settings` | reads arguments, environment and file |
//! | `fault` | why a request is not answered as wished |
//! | `app` | what all handlers share, and the first start |
//! | `router` | all that is served, and what holds for every answer |
//! | `server` | accepts connections, TLS, stops gracefully |
//! | `api` | answers people and satellites, in the forms of the Go implementation |
//! | `oci` | serves the state artifacts under `/v2/` |
//! | `pages` | the console |
//! | `model` | the words of the fleet: values without I/O |
//! | `assess` | compares what a satellite is to hold with what it said |
//! | `publish` `artifact` | make the artifacts, in the transaction that changed what they say |
//! | `push` `publisher` | put the artifacts into another registry, and see that they stay there |
//! | `resolve` `tags` | what the tags of groups mean; looking it up |
//! | `registry` `harbor` `http` | ask other servers |
//! | `rollout` | brings a group's new state to its satellites batch by batch |
//! | `journal` | writes down who changed what, and what happened to satellites |
//! | `webhook` | sends events to a URL |
//! | `watch` | finds satellites that fell silent |
//! | `tls` | the server's certificate, and whom a client's names |
//! | `auth` | whose a name and a password are |
//! | `secret` `limit` | passwords, tokens and secrets; how often they may be tried |
//! | `mask` `labels` | secrets hidden from people; labels and selectors |
//! | `metrics` `clock` | counters; times as numbers and as text |
//! | `store` `lock` | SQLite or PostgreSQL; who uses the directory of SQLite |
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
