//! `moonlet board`: what the files in `boards/` say, as the build packed it.

use std::process::ExitCode;

use miniz_oxide::inflate::decompress_to_vec_with_limit;

use super::{Failure, show};
use crate::config::nearest;

/// Lists the boards.
pub fn list() -> Result<ExitCode, Failure> {
    show::print(unpack()?.split(FIELD).next().unwrap_or_default())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints one board, with all that its file inherits.
pub fn show(name: &str, json: bool) -> Result<ExitCode, Failure> {
    print(name, if json { JSON } else { TOML })
}

/// Prints the configuration to begin with on one board.
pub fn config(name: &str) -> Result<ExitCode, Failure> {
    print(name, CONFIG)
}

fn print(name: &str, field: usize) -> Result<ExitCode, Failure> {
    let packed = unpack()?;
    let fields: Vec<&str> = packed.split(FIELD).skip(1).collect();
    let boards = || fields.chunks_exact(FIELDS);
    let Some(board) = boards().find(|board| board.first() == Some(&name)) else {
        let names: Vec<&str> = boards().filter_map(|board| board.first().copied()).collect();
        let meant = nearest(name, &names);
        let what = format!("no board {name:?}: did you mean {meant}? moonlet board ls lists them");
        return Err(Failure(what));
    };
    show::print(board.get(field).copied().unwrap_or_default())?;
    Ok(ExitCode::SUCCESS)
}

/// As src/build/boards.rs packs it: the list, then four fields of each board.
fn unpack() -> Result<String, Failure> {
    let bytes = decompress_to_vec_with_limit(PACKED, UNPACKED_BYTES_MAX)
        .map_err(|error| Failure(format!("what the build packed of boards/: {error}")))?;
    Ok(String::from_utf8(bytes)?)
}

const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/boards.deflate"));
const UNPACKED_BYTES_MAX: usize = 256 << 10;
const FIELD: char = '\0';
/// Of each board: its name, then these.
const FIELDS: usize = 4;
const TOML: usize = 1;
const JSON: usize = 2;
const CONFIG: usize = 3;
