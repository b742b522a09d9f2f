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

use std::path::Path;

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
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
    let read =
        |name: &str| std::fs::read_to_string(directory.join(format!("{name}.toml"))).unwrap();
    let base = read("base");
    let mut found: Vec<(String, Geometry)> = Vec::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".toml") else { continue };
        let board = read(name);
        let value =
            |key: &str| geometry_value(&board, key).or_else(|| geometry_value(&base, key)).unwrap();
        let number = |key: &str| value(key).parse().unwrap();
        let geometry = Geometry {
            segment_count: 0,
            segment_bytes: number("segment_bytes"),
            program_bytes: number("program_bytes"),
            reprogram: value("reprogram") == "true",
        };
        if found.iter().all(|(_, known)| *known != geometry) {
            found.push((name.to_owned(), geometry));
        }
    }
    assert!(found.len() >= 3, "{found:?}");
    found
}

fn geometry_value(text: &str, key: &str) -> Option<String> {
    let document = toml::de::DeTable::parse(text).unwrap();
    let value = document.get_ref().get("geometry")?.get_ref().get(key)?.get_ref();
    let number = value.as_integer().map(|number| number.as_str().to_owned());
    number.or_else(|| value.as_bool().map(|flag| flag.to_string()))
}
