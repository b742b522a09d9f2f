//! Moonlet: a Harbor Satellite for constrained ARM hardware.
//!
//! A module imports only from lower rows of this table, never from a sibling in its own row
//! (`tests/layers` holds this and names the two files when it breaks):
//!
//! | row | modules | may know |
//! |---|---|---|
//! | 0 words | `kind` `units` `clock` `metrics` `tar` `oci` `fleet` `config` | nothing outside; inner order as listed |
//! | 1 devices | `flash` `net` | the outside world; on the device no other module opens network sockets or storage |
//! | 2 policy | `link` and `trust` (keys and signatures) | pure functions of time, counters and bytes, no I/O |
//! | 3 engines | `blob` (flash) and `registry` (net) | one device each |
//! | 4 transfer | `catalog` (blob), `fetch` (an opened body and a `blob::Writer`, and the gate that keeps the link to its data plan and its windows) and `control` (the fleet's side: Ground Control, state artifacts, what is kept of them) | |
//! | 5 verb | `pull` | "make this digest present" |
//! | 6 services | `serve` `reconcile` `status` `proxy` (a forward proxy) and `archive` (images from files and to files, for devices without a network) | |
//! | 7 wiring | `satellite` | the only place on the device that spawns tasks and reads arguments |
//! | 8 server | `ground` | row 0 only; a program of its own, behind the feature `ground-control`, and nothing imports it |

// What only a capability uses that was left out is no mistake; the whole program has no dead code.
#![cfg_attr(not(feature = "default"), allow(dead_code))]

pub mod archive;
pub mod blob;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod control;
pub mod fetch;
pub mod flash;
pub mod fleet;
#[cfg(feature = "ground-control")]
pub mod ground;
pub mod kind;
pub mod link;
pub mod metrics;
pub mod net;
pub mod oci;
pub mod proxy;
pub mod pull;
pub mod reconcile;
pub mod registry;
pub mod satellite;
pub mod serve;
pub mod status;
pub mod tar;
pub mod trust;
pub mod units;
