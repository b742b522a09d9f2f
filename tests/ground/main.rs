//! Ground Control as its users meet it: the real program over HTTP, on SQLite, and on PostgreSQL
//! where `MOONLET_TEST_POSTGRES` names a server (`scripts/ground` starts one).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod apply;
mod batches;
mod bundle;
mod certificates;
mod chromium;
mod cli;
#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod common;
mod console;
mod device;
mod fleet;
mod go;
mod harbor;
mod harness;
mod history;
mod hostile;
mod journal;
mod labels;
mod members;
mod openapi;
mod people;
mod publishing;
mod registry;
mod rollouts;
mod spire;
mod state;
mod story;
mod tags;
mod versions;

use common::satellite;
