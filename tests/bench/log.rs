//! The blob log in figures that anyone can take again: what it costs flash, memory and time.
//!
//! One program of several commands, which `scripts/bench` and `scripts/media` run: `cargo bench
//! --bench log -- COMMAND ARGUMENT...`. A PATH is a store's directory or a block device. Each
//! figure is a line `NAME VALUE UNIT` on stdout; what the device was made to write is for the
//! caller to count below the file system, where it cannot be fooled.
//!
//! Content is drawn from a seed, so that a later run knows what an earlier one must have left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::print_stdout, clippy::print_stderr)]

mod churn;
mod content;
mod counting;
mod fill;
#[path = "../heap/mod.rs"]
mod heap;
mod ingest;
mod mount;

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use moonlet::blob::{MountReport, Store};
use moonlet::flash::{self, Device};
use moonlet::metrics::Metrics;

/// Whatever went wrong, in words.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match command(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[&str]) -> Outcome<()> {
    match *words {
        ["make", path, size_max] => fill::make(Path::new(path), number(size_max)?),
        ["fill", path, count, bytes, pulls, seed] => {
            let blobs = fill::Blobs::parse(count, bytes, seed)?;
            fill::fill(Path::new(path), blobs, fill::Pulls::parse(pulls)?)
        }
        ["refill", path, count, bytes, pulls, seed] => {
            let blobs = fill::Blobs::parse(count, bytes, seed)?;
            fill::refill(Path::new(path), blobs, fill::Pulls::parse(pulls)?)
        }
        ["verify", path, count, bytes, seed] => {
            fill::verify(Path::new(path), fill::Blobs::parse(count, bytes, seed)?)
        }
        ["files", path, count, bytes, seed] => {
            fill::files(Path::new(path), fill::Blobs::parse(count, bytes, seed)?)
        }
        ["ingest", path, bytes, rounds] => {
            ingest::ingest(Path::new(path), number(bytes)?, number(rounds)?)
        }
        ["lay-out", path, size_max, count] => {
            mount::lay_out(Path::new(path), number(size_max)?, number(count)?)
        }
        ["mount", path] => mount::mount(Path::new(path)),
        ["churn", "emmc" | "nand", mix] => churn::simulated(words[1], mix),
        ["churn", path, mix] => churn::on_files(Path::new(path), mix),
        _ => Err(USAGE.into()),
    }
}

/// Opens the device or the store that is at `path`.
pub fn device(path: &Path) -> Outcome<Arc<dyn Device>> {
    // What exists grows only: this leaves its size as it is.
    let size_max = path.is_dir().then_some(0);
    Ok(flash::open(path, size_max)?)
}

/// Mounts a device.
pub fn open(device: Arc<dyn Device>) -> Outcome<(Store, MountReport)> {
    Ok(Store::open(device, Rc::new(Metrics::default()))?)
}

/// Prints one figure.
pub fn figure(name: &str, value: impl std::fmt::Display, unit: &str) {
    println!("{name} {value} {unit}");
}

fn number<T: std::str::FromStr>(word: &str) -> Outcome<T> {
    word.parse().map_err(|_| format!("{word}: expected a number").into())
}

const USAGE: &str = "\
usage: log make PATH SIZE_MAX                     make a store
       log fill PATH COUNT BYTES PULLS SEED       put blobs; PULLS 8x3: 8 an image, 3 at a time
       log refill PATH COUNT BYTES PULLS SEED     delete all, then fill
       log verify PATH COUNT BYTES SEED           are these held, and is nothing corrupt?
       log files DIR COUNT BYTES SEED             the same blobs, one file each
       log ingest DIR BYTES ROUNDS                MB/s of the log and of plain writes
       log lay-out DIR SIZE_MAX COUNT             make a store that says it holds COUNT blobs
       log mount DIR                              what mounting costs
       log churn DIR|emmc|nand images|mixed       ten times the capacity at 80 % full";
