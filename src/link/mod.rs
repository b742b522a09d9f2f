//! Policy for the uplink: how fast, and how much at a time.
//!
//! Pure functions of time and counters. Nothing here sleeps or reads a clock, so every rule can be
//! tested with made-up time; what moves bytes asks and obeys.

pub mod chunk;
pub mod rate;
