//! The files that a configuration names, looked at for a person who asks.
//!
//! They are read when they are used, and may be late or be replaced meanwhile: what is wrong with
//! them now is a warning.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Config, Token};

/// What cannot be read, is empty, or is a secret that others may read; a line each.
pub fn file_warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut look = |name: &str, key: &str, path: Option<&Path>, is_secret: bool| {
        let Some(path) = path else { return };
        let mut warn = |what: &str| {
            warnings.push(format!("{name} {key} = {path:?}: {what}"));
        };
        match fs::read(path) {
            Err(error) => return warn(&format!("{error}; it is needed when it is used")),
            Ok(bytes) if bytes.trim_ascii().is_empty() => warn("the file is empty"),
            Ok(_) => {}
        }
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        if is_secret && mode & OTHERS_READ != 0 {
            warn(&format!("others can read it (mode {:o}): expected 600", mode & 0o777));
        }
    };
    if let Some(tls) = &config.serve.tls {
        look("[serve]", "tls_cert", Some(&tls.cert), false);
        look("[serve]", "tls_key", Some(&tls.key), true);
        look("[serve]", "client_ca", tls.client_ca.as_deref(), false);
    }
    look("[import]", "key_file", config.import.key_file.as_deref(), false);
    if let Some(ground) = &config.ground_control {
        if let Token::File(path) = &ground.token {
            look("[ground_control]", "token_file", Some(path), true);
        }
        look("[ground_control]", "ca_file", ground.ca_file.as_deref(), false);
        look("[ground_control]", "client_cert", ground.client_cert.as_deref(), false);
        look("[ground_control]", "client_key", ground.client_key.as_deref(), true);
        look("[ground_control]", "key_file", ground.key_file.as_deref(), true);
    }
    for upstream in &config.upstreams {
        let name = format!("[[upstream]] {}", upstream.registry);
        look(&name, "password_file", upstream.password_file.as_deref(), true);
        look(&name, "ca_file", upstream.ca_file.as_deref(), false);
        look(&name, "client_cert", upstream.client_cert.as_deref(), false);
        look(&name, "client_key", upstream.client_key.as_deref(), true);
    }
    warnings
}

/// A group may be that of the service; everybody may not.
const OTHERS_READ: u32 = 0o004;
