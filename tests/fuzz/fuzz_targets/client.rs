//! Arbitrary bytes are what a client sends to the read API.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../strangers/mod.rs"]
#[allow(dead_code)]
mod strangers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| strangers::check(strangers::Stranger::Client, input));
