//! `moonlet check`: what `run` would refuse or silently pass over, before it does.

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use super::run::tls_options;
use super::{EXIT_ERROR, Failure, show, zone};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, Config, Loaded, Location};
use crate::flash::{self, SEGMENTS_MAX};
use crate::net::tls;
use crate::units::ByteCount;

/// Prints the effective configuration, and to standard error what is doubtful about it.
pub fn check(loaded: &Loaded) -> Result<ExitCode, Failure> {
    let Loaded { config, warnings } = loaded;
    show::print(&config.to_string())?;
    let mut warnings = warnings.clone();
    let files = config::file_problems(config).into_iter().map(|problem| problem.text);
    warnings.extend(files);
    warnings.extend(tls_warnings(config));
    warnings.extend(zone::read().err().map(|problem| format!("{problem}; UTC is used")));
    let refused = store_problem(config, &mut warnings);
    for warning in &warnings {
        show::complain(&format!("warning: {warning}"));
    }
    let Some(refused) = refused else { return Ok(ExitCode::SUCCESS) };
    show::complain(&refused);
    Ok(ExitCode::from(EXIT_ERROR))
}

/// Certificates and keys that cannot be used. `run` starts without them, and tries again.
pub(super) fn tls_warnings(config: &Config) -> Vec<String> {
    // What is wrong with a file is said once: what it holds matters only if it can be read.
    let readable = |path: &Path| std::fs::read(path).is_ok_and(|bytes| !bytes.is_empty());
    let mut warnings = Vec::new();
    if let Some(tls) = &config.serve.tls
        && [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .all(|path| readable(path))
        && let Err(error) = tls::server_config(&tls.cert, &tls.key, tls.client_ca.as_deref())
    {
        warnings.push(format!("[serve] {error}"));
    }
    let clock: SharedClock = Rc::new(SystemClock::new());
    for upstream in &config.upstreams {
        let options = tls_options(upstream);
        let mut files = options.files().peekable();
        if files.peek().is_some()
            && files.all(readable)
            && let Err(error) = tls::client_config(&options, Rc::clone(&clock))
        {
            warnings.push(format!("[[upstream]] {}: {error}", upstream.registry));
        }
    }
    warnings
}

/// Why the store cannot be made where it is to be.
pub(super) fn store_problem(config: &Config, warnings: &mut Vec<String>) -> Option<String> {
    let path = config.store.location.path();
    let shown = path.display();
    let Location::Directory(_) = config.store.location else {
        return match flash::inspect(path) {
            Ok(_) => None,
            Err(error) => {
                warnings.push(format!("[store] {error}"));
                None
            }
        };
    };
    let size = config.store.size_max?;
    if size.0 > LARGEST {
        let most = ByteCount(LARGEST).exact();
        warnings.push(format!("[store] size_max = {}: {most} of it are used", size.exact()));
    }
    let wanted = size.0.min(LARGEST);
    let there = path.ancestors().find(|path| path.exists())?;
    let room = rustix::fs::statvfs(there).ok()?;
    let (all, free) = (room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize);
    if path.join("log").exists() {
        return None;
    }
    let size = size.exact();
    if wanted > all {
        let all = ByteCount(all);
        return Some(format!("[store] size_max = {size}: the file system of {shown} has {all}"));
    }
    if wanted > free {
        let free = ByteCount(free);
        warnings.push(format!("[store] size_max = {size}: only {free} are free for {shown}"));
    }
    None
}

/// A log of more segments cannot be: FORMAT.md section 2.
const LARGEST: u64 = SEGMENTS_MAX as u64 * (4 << 20);
