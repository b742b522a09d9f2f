//! Rollouts: a group's new state reaches its satellites batch by batch, and is taken back from them
//! where it fails.
//!
//! The state is published under a name of its own, and a satellite's own state names the version it
//! is on: that of the rollout once it was released to it, the group's before. When all have it, the
//! version is the group's.
//!
//! | file | does |
//! |---|---|
//! | `decide` | rows in, the next step out; pure |
//! | `run` | carries steps out, each in a transaction |
//!
//! All that is known is in rows: a server that starts goes on where another ended. The server that begins
//! a transaction that changes the fleet has the database's lock, reads, decides and writes; so of
//! several replicas any may run a rollout, and no step is done twice.

mod decide;
mod run;

pub use decide::{Counts, Step};
pub use run::{join, look, run};
