//! Remembers a server and a session there, in `ground-control/login.toml` of the user's
//! configuration, which only that user can read.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Failure, variable};

/// What is remembered.
#[derive(Deserialize, Serialize)]
pub struct Remembered {
    pub url: String,
    pub user: String,
    pub token: String,
    /// When the session ends, RFC 3339.
    pub expires_at: String,
    pub ca_file: Option<PathBuf>,
}

/// What the last login left.
pub fn remembered() -> Result<Option<Remembered>, Failure> {
    let Ok(file) = path() else { return Ok(None) };
    let failed = |what: String| format!("{}: {what}", file.display());
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string()).into()),
    };
    // The error's own text would quote the session.
    let login = toml::from_str(&text).map_err(|_| {
        failed("expected what ground-control login writes: log in again".to_owned())
    })?;
    Ok(Some(login))
}

/// Written beside and renamed: it is whole or as before.
pub fn remember(file: &Path, login: &Remembered) -> Result<(), Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let text = toml::to_string(login).map_err(|error| format!("writing TOML: {error}"))?;
    if let Some(directory) = file.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(failed)?;
    }
    let beside = file.with_extension(format!("{}.new", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let options = options.create_new(true).write(true).mode(0o600);
    let written = options.open(&beside).and_then(|mut new| new.write_all(text.as_bytes()));
    let written = written.and_then(|()| fs::rename(&beside, file));
    written.map_err(|error| {
        // What is left of it is of no use.
        let _ = fs::remove_file(&beside);
        failed(error).into()
    })
}

/// Where it is remembered.
pub fn path() -> Result<PathBuf, Failure> {
    let home = || variable("HOME").map(|home| Path::new(&home).join(".config"));
    let directory = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let directory = directory.ok_or("no HOME and no XDG_CONFIG_HOME: expected one of them")?;
    Ok(directory.join("ground-control/login.toml"))
}
