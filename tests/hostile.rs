//! The log on images that nobody wrote: a part of what `scripts/fuzz` does, without a fuzzer.
//!
//! Replays the inputs in `tests/data/hostile`, which are what the fuzzer found worth keeping and
//! every input that ever was a finding, then some drawn from a seed, half of them by changing
//! those. A failure prints what replays it. `SEEDS` says how many are drawn, `SEED` the first;
//! `INPUT` is a file to replay instead of the directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

#[path = "fuzz/hostile/mod.rs"]
mod hostile;

use std::path::{Path, PathBuf};

#[test]
fn what_was_found_once_stays_found() {
    if let Some(path) = std::env::var_os("INPUT") {
        return hostile::check(&std::fs::read(path).unwrap());
    }
    let files = corpus();
    assert!(files.len() > 10, "tests/data/hostile has {} files", files.len());
    for (path, input) in files {
        check(&path, &input);
    }
}

#[test]
fn drawn_images_are_survived() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seeds: u64 = number("SEEDS").unwrap_or(SEEDS);
    let first: u64 = number("SEED").unwrap_or(1);
    let corpus: Vec<Vec<u8>> = corpus().into_iter().map(|(_, input)| input).collect();
    for seed in first..first + seeds {
        let input = draw(seed, &corpus);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{seed}"));
        check(&path, &input);
    }
}

/// Checks `input`, which is kept at `path`, or put there when it turns out to be a finding.
fn check(path: &Path, input: &[u8]) {
    if std::panic::catch_unwind(|| hostile::check(input)).is_err() {
        std::fs::write(path, input).unwrap();
        panic!("replay: INPUT={} cargo test --test hostile found", path.display());
    }
}

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn draw(seed: u64, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    if seed.is_multiple_of(2) {
        let length = 2 + random.below(300);
        return (0..length).map(|_| random.below(256) as u8).collect();
    }
    let mut input = corpus[random.below(corpus.len() as u64) as usize].clone();
    let other = &corpus[random.below(corpus.len() as u64) as usize];
    for _ in 0..1 + random.below(6) {
        let at = random.below(input.len() as u64 + 1) as usize;
        match random.below(4) {
            0 => input.insert(at, random.below(256) as u8),
            1 => drop(input.drain(at..input.len().min(at + 3))),
            2 => {
                let from = random.below(other.len() as u64 + 1) as usize;
                let piece = &other[from..other.len().min(from + 40)];
                drop(input.splice(at..at, piece.iter().copied()));
            }
            _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.below(256) as u8),
        }
    }
    input
}

/// Xorshift64* (Vigna 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % limit
    }
}

const SEEDS: u64 = 3000;
