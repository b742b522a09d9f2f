//! Untrusted input over HTTP: a part of what `scripts/fuzz` does, without a fuzzer.
//!
//! Tries the seeds of each target as they are and changed at random. A failure prints what
//! replays it. `SEEDS` says how many are drawn, `SEED` the first; `INPUT` is a file to replay, of the
//! kind that `TARGET` names, and `SEEDS_TO` a directory into which the seeds of that kind go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

#[path = "fuzz/untrusted/mod.rs"]
mod untrusted;

use std::path::Path;

use untrusted::Target;

const KINDS: [(&str, Target); 3] =
    [("client", Target::Client), ("registry", Target::Registry), ("manifest", Target::Manifest)];

#[test]
fn what_others_send_never_panics() {
    if let Ok(name) = std::env::var("TARGET") {
        let kind = KINDS.into_iter().find(|(known, _)| *known == name).unwrap().1;
        if let Some(path) = std::env::var_os("INPUT") {
            return untrusted::check(kind, &std::fs::read(path).unwrap());
        }
        let directory = std::env::var_os("SEEDS_TO").unwrap();
        for (number, input) in untrusted::seeds(kind).iter().enumerate() {
            let path = Path::new(&directory).join(format!("seed-{number}"));
            std::fs::write(path, input).unwrap();
        }
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let (seeds, first): (u64, u64) =
        (number("SEEDS").unwrap_or(SEEDS), number("SEED").unwrap_or(1));
    for (name, kind) in KINDS {
        let known = untrusted::seeds(kind);
        known.iter().for_each(|input| check(name, kind, 0, input));
        for seed in first..first + seeds {
            check(name, kind, seed, &draw(seed, &known));
        }
    }
}

fn check(name: &str, kind: Target, seed: u64, input: &[u8]) {
    if std::panic::catch_unwind(|| untrusted::check(kind, input)).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}"));
        std::fs::write(&path, input).unwrap();
        panic!("replay: TARGET={name} INPUT={} cargo test --test untrusted", path.display());
    }
}

/// One of the known inputs, changed in a few places.
fn draw(seed: u64, known: &[Vec<u8>]) -> Vec<u8> {
    // Xorshift64* (Vigna 2014).
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut below = |limit: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        ((state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % limit as u64) as usize
    };
    let mut input = known[below(known.len())].clone();
    let other = &known[below(known.len())];
    for _ in 0..1 + below(5) {
        let at = below(input.len() + 1);
        match below(4) {
            0 => input.insert(at, below(256) as u8),
            1 => drop(input.drain(at..input.len().min(at + 3))),
            2 => {
                let from = below(other.len() + 1);
                let piece = other[from..other.len().min(from + 30)].to_vec();
                drop(input.splice(at..at, piece));
            }
            _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = below(256) as u8),
        }
    }
    input
}

const SEEDS: u64 = 400;
