//! The blob log against power cuts and corrupt bits, on simulated flash of three shapes.
//!
//! A fixed workload is run once to its end; then again for every single program, erase and sync of
//! it, with the power going away there. What a remount finds is checked against a model that knows
//! what was acknowledged, and then the workload is finished on it. A cut during that remount is
//! tried at every place too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod admit;
mod check;
mod cuts;
mod faults;
mod finish;
mod flips;
mod golden;
mod model;
mod pack;
mod remount;
mod rot;
mod run;
mod soak;
mod wear;

use std::process::Command;

use moonlet::flash::Geometry;

/// An eMMC or SD card behind a file system: small units, rewritten at will, in any order.
pub const EMMC: Geometry =
    Geometry { segment_count: 24, segment_bytes: 256 << 10, program_bytes: 4096, reprogram: true };
/// Raw NAND: pages programmed once, in order, in large erase blocks.
pub const NAND: Geometry =
    Geometry { segment_count: 44, segment_bytes: 128 << 10, program_bytes: 2048, reprogram: false };
/// Serial NOR: small pages and sectors.
pub const NOR: Geometry =
    Geometry { segment_count: 76, segment_bytes: 64 << 10, program_bytes: 256, reprogram: false };

/// The geometries of the boards that Moonlet is built for, each once.
pub fn boards() -> Vec<(String, Geometry)> {
    let ask = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_moonlet")).arg("board").args(words).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let mut found: Vec<(String, Geometry)> = Vec::new();
    for line in ask(&["ls"]).lines().skip(1) {
        let name = line.split(' ').next().unwrap();
        let shown = ask(&["show", name, "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let shape = &shown["geometry"];
        let geometry = Geometry {
            segment_count: 0,
            segment_bytes: shape["segment_bytes"].as_u64().unwrap() as u32,
            program_bytes: shape["program_bytes"].as_u64().unwrap() as u32,
            reprogram: shape["reprogram"].as_bool().unwrap(),
        };
        if found.iter().all(|(_, known)| *known != geometry) {
            found.push((name.to_owned(), geometry));
        }
    }
    assert!(found.len() >= 3, "{found:?}");
    found
}
