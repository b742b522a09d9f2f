//! The main job with real peers: images of docker-registry, which are pulled by skopeo, podman,
//! containerd and curl, also when the registry is gone. Every digest is the registry's.
//!
//! What is not installed is left out by name; see `tests/harness`. With another binary and an
//! emulator before it, the same is run for ARM.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod airgap;
mod auth;
mod clients;
mod commands;
#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod harness;
mod hold;
mod proxy;
mod readers;
mod scene;
mod state;
mod through;
