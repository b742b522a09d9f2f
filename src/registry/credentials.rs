//! A user's name and password, the latter read when it is used: a rotated secret works without a
//! restart, and one that is missing is an error of the request that needs it.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use log::warn;

use crate::config::exposed_mode;
use crate::kind::Kind;
use crate::net;

/// Where a password is.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// In a file, without the line's end.
    File(PathBuf),
    /// Here.
    Text(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{path:?}"),
            Self::Text(_) => f.write_str("a password"),
        }
    }
}

/// Who we are to a registry.
#[derive(Debug)]
pub struct Credentials {
    username: String,
    password: Password,
    /// That others can read the file is said once.
    was_warned: Cell<bool>,
}

impl Credentials {
    /// Reads nothing yet.
    pub fn new(username: String, password: Password) -> Self {
        Self { username, password, was_warned: Cell::new(false) }
    }

    /// The name.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The value of Authorization for Basic; the error names the file.
    pub fn basic(&self) -> Result<String, String> {
        let password = match &self.password {
            Password::Text(text) => text.clone().into_bytes(),
            Password::File(path) => self.read(path)?,
        };
        let pair = [self.username.as_bytes(), b":", &password].concat();
        Ok(format!("Basic {}", STANDARD.encode(pair)))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let failed = |error| {
            let what = format_args!("password_file {path:?}");
            net::Error::io(Kind::Invalid, what, error).to_string()
        };
        let file = File::open(path).map_err(failed)?;
        if let Some(mode) = exposed_mode(&file.metadata().map_err(failed)?)
            && !self.was_warned.replace(true)
        {
            warn!("password_file {path:?}: others can read it (mode {mode:o}), expected 600");
        }
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        match bytes.len() as u64 {
            1..=BYTES_MAX => Ok(bytes),
            other => Err(format!(
                "password_file {path:?}: {other} bytes, expected 1 to {BYTES_MAX} of a password"
            )),
        }
    }
}

/// Longer than any password, and than the tokens that are used in their place.
const BYTES_MAX: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_each_time() {
        let name = format!("moonlet-password-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let credentials = Credentials::new("u".to_owned(), Password::File(path.clone()));
        let missing = credentials.basic().unwrap_err();
        assert!(missing.contains("moonlet-password-") && missing.contains("no such file"));
        std::fs::write(&path, "p\r\n").unwrap();
        assert_eq!(credentials.basic().unwrap(), "Basic dTpw");
        std::fs::write(&path, "q").unwrap();
        assert_eq!(credentials.basic().unwrap(), "Basic dTpx");
        for contents in [Vec::new(), vec![b'x'; 20 << 10]] {
            std::fs::write(&path, contents).unwrap();
            assert!(credentials.basic().is_err());
        }
        std::fs::remove_file(path).unwrap();
    }
}
