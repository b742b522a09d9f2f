//! Records the time of the build, the earliest moment the device's clock may claim, and packs
//! `boards/` for `moonlet board`.

#[path = "build/boards.rs"]
mod boards;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-changed=boards");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let build = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(now);
    println!("cargo::rustc-env=MOONLET_BUILD_UNIX_SECONDS={build}");

    let template = "boards/service/moonlet.toml";
    let template = std::fs::read_to_string(template).map_err(|e| format!("{template}: {e}"))?;
    let packed = boards::pack(&boards::read(Path::new("boards"))?, &template)?;
    let deflated = miniz_oxide::deflate::compress_to_vec(packed.as_bytes(), DEFLATE_LEVEL);
    let out = std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?;
    let out = PathBuf::from(out).join("boards.deflate");
    std::fs::write(&out, deflated).map_err(|e| format!("{}: {e}", out.display()))
}

const DEFLATE_LEVEL: u8 = 10;
