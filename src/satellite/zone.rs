//! The time zone of this device.
//!
//! `TZ` in the environment, else `/etc/localtime` (Yocto, Debian), else `/etc/TZ` (OpenWrt,
//! uClibc), else UTC. `TZ` may be a string of POSIX, or the name of a file in `/usr/share/zoneinfo`.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use crate::link::zone::Zone;

/// As status names it.
pub const PART: &str = "time zone";

/// Reads it.
///
/// # Errors
/// What cannot be understood, in one line.
pub fn read() -> Result<Zone, String> {
    match std::env::var("TZ") {
        Ok(text) if !text.is_empty() => of_text(&text),
        _ => of_root(Path::new("/etc")),
    }
}

fn of_text(text: &str) -> Result<Zone, String> {
    if let Some(zone) = Zone::from_posix(text) {
        return Ok(zone);
    }
    let name = text.strip_prefix(':').unwrap_or(text);
    // An absolute name takes the place of the directory.
    let path = Path::new("/usr/share/zoneinfo").join(name);
    match of_file(&path) {
        Some(zone) => zone,
        None => Err(format!("TZ = {text:?}: expected one such as \"CET-1CEST,M3.5.0,M10.5.0/3\"")),
    }
}

fn of_root(etc: &Path) -> Result<Zone, String> {
    if let Some(zone) = of_file(&etc.join("localtime")) {
        return zone;
    }
    let path = etc.join("TZ");
    match fs::read_to_string(&path) {
        Ok(text) => Zone::from_posix(&text)
            .ok_or_else(|| format!("{}: {text:?}: expected \"UTC0\"", path.display())),
        Err(_) => Ok(Zone::utc()),
    }
}

/// None where there is no such file.
fn of_file(path: &Path) -> Option<Result<Zone, String>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    let zone = match file.take(FILE_BYTES_MAX).read_to_end(&mut bytes) {
        Ok(_) => Zone::from_file(&bytes).ok_or_else(|| "expected a TZif file".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    Some(zone.map_err(|problem| format!("{}: {problem}", path.display())))
}

/// The largest of the tz database has 4 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_its_zone_in_one_of_two_files() {
        let name = format!("moonlet-zone-{}", std::process::id());
        let etc = std::env::temp_dir().join(name);
        fs::create_dir_all(&etc).unwrap();
        assert_eq!(of_root(&etc), Ok(Zone::utc()));
        fs::write(etc.join("TZ"), "CET-1CEST,M3.5.0,M10.5.0/3\n").unwrap();
        assert_eq!(of_root(&etc).unwrap().offset(0), 3_600);
        fs::write(etc.join("localtime"), "Europe/Berlin").unwrap();
        let problem = of_root(&etc).unwrap_err();
        assert!(problem.contains("localtime: expected a TZif file"), "{problem}");
        fs::remove_dir_all(etc).unwrap();
        assert_eq!(of_text("<-03>3").unwrap().offset(0), -10_800);
        assert!(of_text("Nowhere/Land").unwrap_err().contains("TZ = \"Nowhere/Land\""));
    }
}
