//! What is seen without asking anybody: the configuration, the files that it names, the clock.

use std::path::Path;

use super::Finding;
use crate::clock::date::rfc3339;
use crate::clock::{Clock, kernel_unix_seconds};
use crate::config::{Config, Errors, Loaded, file_problems};
use crate::satellite::check;

/// What is wrong with the configuration, and what hardly does what was meant.
pub fn configuration(path: &Path, loaded: &Result<Loaded, Errors>) -> Vec<Finding> {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => {
            let advice = "correct it: moonlet run does not start with it";
            let lines = errors.to_string();
            return lines.lines().map(|line| Finding::fail(CONFIG, line, advice)).collect();
        }
    };
    let mut findings = Vec::new();
    for warning in loaded.warnings.iter().chain(&check::tls_warnings(&loaded.config)) {
        findings.push(Finding::warn(CONFIG, warning, "correct the configuration or the file"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CONFIG, path.display().to_string()));
    }
    findings
}

/// Files that cannot be read, and secrets that others can.
pub fn files(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for problem in file_problems(config) {
        findings.push(if problem.is_unusable {
            let advice = "create it, and let the user that moonlet runs as read it";
            Finding::fail(FILES, problem.text, advice)
        } else {
            Finding::warn(FILES, problem.text, "chmod 640, with the group of moonlet, or 600")
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(FILES, "all that are named can be read"));
    }
    findings
}

/// Whether the clock can be believed. `clock` has the floor that the store recorded.
pub fn clock(clock: &dyn Clock, config: Option<&Config>) -> Finding {
    let now = rfc3339(kernel_unix_seconds());
    if clock.is_set() {
        return Finding::ok(CLOCK, now);
    }
    let advice = "set the clock, by NTP for instance";
    let used = rfc3339(clock.unix_seconds());
    let seen = format!("{now} is over already; certificates are checked against {used}");
    match config {
        // Whether a window is open is not known.
        Some(config) if !config.link.windows.is_empty() => {
            let seen = format!("{seen}, and nothing is fetched, for there are windows");
            Finding::fail(CLOCK, seen, advice)
        }
        _ => Finding::warn(CLOCK, seen, advice),
    }
}

const CONFIG: &str = "configuration";
const FILES: &str = "files";
const CLOCK: &str = "clock";

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::clock::sim::SimulatedClock;

    #[test]
    fn a_clock_that_was_never_set_is_a_warning_unless_windows_go_by_it() {
        let simulated = SimulatedClock::new(1_800_000_000);
        assert_eq!(clock(&simulated, None).result, Verdict::Ok);
        simulated.set_known(false);
        let unset = clock(&simulated, None);
        assert_eq!(unset.result, Verdict::Warn);
        assert!(unset.seen.contains("against 2027-01-15"), "{}", unset.seen);
    }
}
