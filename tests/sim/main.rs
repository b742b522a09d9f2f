//! The blob log against power cuts and rotten bits, on simulated flash of three shapes.
//!
//! A fixed workload is run once to its end; then again for every single program, erase and sync of
//! it, with the power going away there. What a remount finds is checked against a model that knows
//! what was acknowledged, and then the workload is finished on it. A cut during that remount is
//! tried at every place too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod cuts;
mod flips;
mod model;
mod rot;
mod wear;

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
