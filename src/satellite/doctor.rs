//! `moonlet doctor`: what is wrong with a device, and what to do about it.
//!
//! Each check stands alone: what one finds stops no other, but for the steps of one way, of which a
//! name that is not found has no connection. Each has a deadline, each way to an upstream one for
//! all of its steps; the ways are gone side by side. Nothing is changed on the device. What is sent
//! is a handshake and a request or two for each upstream and for Ground Control, which no data plan
//! counts: where there is one, that is said. No credential is in what is printed.
//!
//! | file | checks |
//! |---|---|
//! | `local` | configuration, files, clock |
//! | `store` | the satellite that runs or its store, and the data plan |
//! | `serve` | what container runtimes pull from |
//! | `ways` | names, connections, TLS and answers of upstreams and of Ground Control |

mod local;
mod serve;
mod store;
mod ways;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use smol::LocalExecutor;

use super::{EXIT_NOT_CONVERGED, Failure, show};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, ProxyUrl};
use crate::net::{Network, Proxies};
use crate::units::ByteCount;
use ways::Ways;

/// Checks everything and prints what was found; exits with 1 if something fails.
pub async fn doctor(
    path: &Path,
    json: bool,
    executor: &Rc<LocalExecutor<'static>>,
) -> Result<ExitCode, Failure> {
    let mut checkup = Checkup::default();
    checkup.run(path, executor).await;
    let has_failed = checkup.checks.iter().any(|finding| finding.result == Verdict::Fail);
    let text = if json { serde_json::to_string_pretty(&checkup)? + "\n" } else { checkup.drawn() };
    show::print(&text)?;
    Ok(if has_failed { ExitCode::from(EXIT_NOT_CONVERGED) } else { ExitCode::SUCCESS })
}

/// What was found.
#[derive(Default, Serialize)]
struct Checkup {
    checks: Vec<Finding>,
    /// What the checks sent and received over the link, in bytes.
    link_bytes: u64,
}

impl Checkup {
    async fn run(&mut self, path: &Path, executor: &Rc<LocalExecutor<'static>>) {
        let clock: SharedClock = Rc::new(SystemClock::new());
        let loaded = config::load(path);
        self.checks.extend(local::configuration(path, &loaded));
        let Ok(loaded) = loaded else {
            // Everything else is about what it says.
            self.checks.push(local::clock(clock.as_ref(), None));
            return;
        };
        let config = loaded.config;
        self.checks.extend(local::files(&config));
        let looked = store::look(&config).await;
        let floor = looked.recorded_time.unwrap_or(0);
        clock.raise_floor(floor);
        self.checks.push(local::clock(clock.as_ref(), Some(&config)));
        self.checks.extend(looked.findings);
        self.checks.extend(serve::listens(&config, looked.is_running).await);

        let proxies = Proxies::from_environment(config.link.proxy.as_ref().map(ProxyUrl::url));
        let network = Network { proxies, ..Network::default() };
        let meter = Rc::clone(&network.meter);
        let ways = Ways { network, clock };
        if looked.upstreams.is_none() && (config.ground_control.is_some() || config.state.is_some())
        {
            let seen = "those that came with the desired state are in the store, which is in use";
            let advice = "see moonlet status, or stop the satellite and look again";
            self.checks.push(Finding::warn("upstreams", seen, advice));
        }
        let upstreams = looked.upstreams.unwrap_or_else(|| config.upstreams.clone());
        for group in upstreams.chunks(WAYS_MAX) {
            let tasks: Vec<_> = group
                .iter()
                .map(|upstream| executor.spawn(ways.clone().upstream(upstream.clone())))
                .collect();
            for task in tasks {
                self.checks.extend(task.await);
            }
        }
        if let Some(ground) = config.ground_control {
            self.checks.extend(ways.ground_control(ground).await);
        }
        if let Some(state) = config.state {
            self.checks.extend(ways.state(state).await);
        }
        self.link_bytes = meter.carried();
        if looked.is_metered {
            let seen = format!("{} went over the link", ByteCount(self.link_bytes));
            let advice = "the data plan does not count what these checks spend: keep a few \
                          kilobytes of it for them";
            self.checks.push(Finding::warn("data plan", seen, advice));
        }
    }

    /// A line a check, and below it what to do.
    fn drawn(&self) -> String {
        let width = self.checks.iter().map(|one| one.check.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for Finding { check, result, seen, advice } in &self.checks {
            let result = match result {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{result:<4}  {check:<width$}  {seen}");
            if !advice.is_empty() {
                let _ = writeln!(text, "{:<4}  {:<width$}  -> {advice}", "", "");
            }
        }
        let count = |verdict| self.checks.iter().filter(|one| one.result == verdict).count();
        let (fail, warn) = (count(Verdict::Fail), count(Verdict::Warn));
        let _ = writeln!(text, "\n{} checks: {fail} failed, {warn} warned", self.checks.len());
        text
    }
}

/// One check.
#[derive(Serialize)]
struct Finding {
    check: String,
    result: Verdict,
    seen: String,
    /// What to do; empty where all is well.
    #[serde(rename = "do")]
    advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    fn ok(check: impl Into<String>, seen: impl AsRef<str>) -> Self {
        Self::new(check.into(), Verdict::Ok, seen.as_ref(), "")
    }

    fn warn(check: impl Into<String>, seen: impl AsRef<str>, advice: &str) -> Self {
        Self::new(check.into(), Verdict::Warn, seen.as_ref(), advice)
    }

    fn fail(check: impl Into<String>, seen: impl AsRef<str>, advice: &str) -> Self {
        Self::new(check.into(), Verdict::Fail, seen.as_ref(), advice)
    }

    /// Servers are quoted: what they say may not draw on a terminal.
    fn new(check: String, result: Verdict, seen: &str, advice: &str) -> Self {
        let plain = seen.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self { check, result, seen: plain.collect(), advice: advice.to_owned() }
    }
}

/// What comes of `work` within `deadline`.
async fn within<T>(deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
    let clock: SharedClock = Rc::new(SystemClock::new());
    clock.timeout(deadline, work).await
}

/// Upstreams that are looked at side by side.
const WAYS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_line_and_what_to_do_another() {
        let checks = vec![
            Finding::ok("clock", "2026-01-01"),
            Finding::fail("up.test: name", "no\x1b[1msuch name", "ask"),
        ];
        let text = Checkup { checks, link_bytes: 7 }.drawn();
        assert_eq!(
            text,
            "ok    clock          2026-01-01\n\
             FAIL  up.test: name  no [1msuch name\n                     -> ask\n\n\
             2 checks: 1 failed, 0 warned\n"
        );
    }
}
