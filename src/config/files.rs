//! The files that a configuration names, looked at for a person who asks.
//!
//! They are read when they are used, and may be late or be replaced meanwhile: what is wrong with
//! them now is a warning.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::{Config, StatePlace, Token, Upstream};

/// What is wrong with a file that a configuration names.
pub struct FileProblem {
    /// The key, the file, and what is wrong, in one line.
    pub text: String,
    /// It cannot be read, or is empty.
    pub is_unusable: bool,
    /// There is no permission to read it.
    pub is_denied: bool,
}

/// What cannot be read, is empty, or is a secret that others may read.
pub fn file_problems(config: &Config) -> Vec<FileProblem> {
    let mut problems = Vec::new();
    let mut look = |name: &str, key: &str, path: Option<&Path>, is_secret: bool| {
        let Some(path) = path else { return };
        let read = fs::read(path);
        let is_denied =
            read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let mut add = |what: &str, is_unusable| {
            let text = format!("{name} {key} = {path:?}: {what}");
            problems.push(FileProblem { text, is_unusable, is_denied });
        };
        match read {
            Err(error) => return add(&format!("{error}; it is needed when it is used"), true),
            Ok(bytes) if bytes.trim_ascii().is_empty() => add("the file is empty", true),
            Ok(_) => {}
        }
        if is_secret && let Some(mode) = fs::metadata(path).ok().as_ref().and_then(exposed_mode) {
            add(&format!("others can read it (mode {mode:o}): expected 600"), false);
        }
    };
    if let Some(tls) = &config.serve.tls {
        look("[serve]", "tls_cert", Some(&tls.cert), false);
        look("[serve]", "tls_key", Some(&tls.key), true);
        look("[serve]", "client_ca", tls.client_ca.as_deref(), false);
    }
    look("[serve]", "htpasswd", config.serve.htpasswd.as_deref(), true);
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
    if let Some(state) = &config.state {
        if let StatePlace::File(path) = &state.place {
            look("[state]", "file", Some(path), false);
        }
        look("[state]", "password_file", state.password_file.as_deref(), true);
        look("[state]", "ca_file", state.ca_file.as_deref(), false);
        look("[state]", "client_cert", state.client_cert.as_deref(), false);
        look("[state]", "client_key", state.client_key.as_deref(), true);
    }
    for rule in &config.verify {
        look(&format!("[[verify]] {}", rule.registry), "key_file", Some(&rule.key_file), false);
    }
    for upstream in &config.upstreams {
        let name = format!("[[upstream]] {}", upstream.registry);
        for (key, path, is_secret) in upstream.files() {
            look(&name, key, Some(path), is_secret);
        }
    }
    problems
}

impl Upstream {
    /// Its files: the key that names each, where it is, and whether it is a secret.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path, bool)> {
        let files = [
            ("password_file", &self.password_file, true),
            ("ca_file", &self.ca_file, false),
            ("client_cert", &self.client_cert, false),
            ("client_key", &self.client_key, true),
        ];
        files
            .into_iter()
            .filter_map(|(key, path, is_secret)| Some((key, path.as_deref()?, is_secret)))
    }
}

/// Device, inode, size, and seconds and nanoseconds of the last change: what differs when a file
/// was replaced or rewritten.
pub type Stamp = (u64, u64, u64, i64, i64);

/// What distinguishes a file from a later one at the same path; none when there is none now.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}

/// The mode of a file that everybody can read, which a secret must not be.
pub fn exposed_mode(metadata: &fs::Metadata) -> Option<u32> {
    let mode = metadata.permissions().mode();
    (mode & OTHERS_READ != 0).then_some(mode & 0o777)
}

/// A group may be that of the service; everybody may not.
const OTHERS_READ: u32 = 0o004;
