//! Policy for the uplink: how fast, how much at a time and in all, and when.
//!
//! Pure functions of time and counters. Nothing here sleeps, reads a clock or records anything, so
//! every rule can be tested with made-up time; what moves bytes asks and obeys.

pub mod budget;
pub mod chunk;
pub mod rate;
pub mod window;
pub mod zone;

/// For whose sake something goes over the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// What is desired: it waits for a window.
    Sync,
    /// What a client waits for: it may break a window where the configuration says so.
    Client,
}
