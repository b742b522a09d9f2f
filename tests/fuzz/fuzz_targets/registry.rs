//! Arbitrary bytes are what a registry answers.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../untrusted/mod.rs"]
#[allow(dead_code)]
mod untrusted;

libfuzzer_sys::fuzz_target!(|input: &[u8]| untrusted::check(untrusted::Target::Registry, input));
