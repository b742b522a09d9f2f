//! The satellite that runs, by its own report; where none does, its store, opened to be looked at.

use std::time::Duration;

use super::{Finding, within};
use crate::config::{Config, Location, Upstream};
use crate::flash;
use crate::kind::Kind;
use crate::satellite::run::{ENROLMENT, Satellite};
use crate::satellite::{check, show};
use crate::status::{LinkReport, Report, StoreReport};
use crate::units::{ByteCount, format_duration};

/// What there is to be seen of the satellite.
#[derive(Default)]
pub struct Looked {
    /// A line a check.
    pub findings: Vec<Finding>,
    /// A satellite runs.
    pub is_running: bool,
    /// There is a data plan.
    pub is_metered: bool,
    /// The last time that the log recorded, where it could be opened.
    pub recorded_time: Option<u64>,
    /// With those of Ground Control, where the log could be opened.
    pub upstreams: Option<Vec<Upstream>>,
}

/// Looks at the satellite that runs, or at its store.
pub async fn look(config: &Config) -> Looked {
    let mut looked = Looked {
        is_metered: config.link.day_max.is_some() || config.link.month_max.is_some(),
        ..Looked::default()
    };
    let asked = async {
        let url = format!("http://{}/status", config.admin.listen?);
        within(DEADLINE, show::ask(&url)).await?
    };
    match asked.await {
        Some(report) => {
            looked.is_running = true;
            looked.findings.extend(running(&report));
            looked.findings.extend(figures(&report.store));
            looked.findings.extend(plan(&report.link));
        }
        None => {
            looked.findings.push(silent(config));
            looked.open(config).await;
        }
    }
    looked
}

impl Looked {
    /// Opens the store to look at it.
    async fn open(&mut self, config: &Config) {
        let path = config.store.location.path();
        let geometry = match flash::inspect(path) {
            Ok(device) => device.geometry(),
            Err(error) if error.is_in_use() => {
                self.is_running = true;
                let advice = "set [admin] listen for the satellite that has it, to be asked there";
                self.findings.push(Finding::warn(STORE, error.to_string(), advice));
                return;
            }
            Err(error) => {
                self.findings.push(unopened(config, &error));
                return;
            }
        };
        let opened = async {
            let satellite = Satellite::inspect(config.clone()).await?;
            let report = satellite.observe()?;
            Ok::<_, crate::satellite::Failure>((satellite, report))
        };
        let (satellite, report) = match opened.await {
            Ok(opened) => opened,
            Err(failure) => {
                let advice = "back up what can be read, then let moonlet begin the store anew";
                self.findings.push(Finding::fail(STORE, failure.to_string(), advice));
                return;
            }
        };
        let seen = format!(
            "{}: {} segments of {}, in units of {}",
            path.display(),
            geometry.segment_count,
            ByteCount(u64::from(geometry.segment_bytes)),
            ByteCount(u64::from(geometry.program_bytes)),
        );
        self.findings.push(Finding::ok(STORE, seen));
        self.findings.extend(figures(&report.store));
        self.findings.extend(plan(&report.link));
        self.recorded_time = satellite.store.recorded_time();
        self.upstreams = Some(satellite.config().upstreams.clone());
        if config.ground_control.is_some() {
            self.findings.push(match satellite.control.name() {
                Some(name) => Finding::ok(ENROLMENT, format!("enrolled as {name}")),
                None => {
                    let advice = "start moonlet run with a token of Ground Control's";
                    Finding::warn(ENROLMENT, "not enrolled yet", advice)
                }
            });
        }
    }
}

/// Why the store is not open.
fn unopened(config: &Config, error: &flash::Error) -> Finding {
    let is_directory = matches!(config.store.location, Location::Directory(_));
    if error.kind() == Kind::Missing && is_directory {
        let mut warnings = Vec::new();
        let advice = "choose a smaller size_max, or another path";
        return match check::store_problem(config, &mut warnings) {
            Some(refused) => Finding::fail(STORE, refused, advice),
            None => match warnings.first() {
                Some(warning) => Finding::warn(STORE, warning, advice),
                None => {
                    let seen = "there is none yet, and there is room for it";
                    Finding::ok(STORE, seen)
                }
            },
        };
    }
    let advice = match error.kind() {
        Kind::ReadOnly => "run doctor as root, or as the user that moonlet runs as",
        Kind::Missing => "attach the device, or name the one that is there in [store] device",
        _ => "look at the kernel's log (dmesg), and at [store] in the configuration",
    };
    Finding::fail(STORE, error.to_string(), advice)
}

fn silent(config: &Config) -> Finding {
    match config.admin.listen {
        None => {
            let advice = "set one, such as 127.0.0.1:8586, so that a satellite can be asked";
            Finding::warn(SATELLITE, "the configuration has no [admin] listen", advice)
        }
        Some(address) => {
            let seen = format!("none answers at http://{address}");
            Finding::warn(SATELLITE, seen, "start it: systemctl start moonlet, or moonlet run")
        }
    }
}

/// What a satellite that runs says of itself.
fn running(report: &Report) -> Vec<Finding> {
    let Report { name, version, uptime_seconds, problems, images, .. } = report;
    let up = format_duration(Duration::from_secs(*uptime_seconds));
    let mut findings = vec![Finding::ok(SATELLITE, format!("{name}, moonlet {version}, up {up}"))];
    let advice = "it is tried again; the log of moonlet run says more";
    for problem in problems.iter().take(ROWS_MAX) {
        let make = if problem.vital { Finding::fail } else { Finding::warn };
        findings.push(make(format!("running: {}", problem.part), problem.reason.clone(), advice));
    }
    let failed = images.iter().filter_map(|image| Some((image, image.error.as_ref()?)));
    for (image, error) in failed.take(ROWS_MAX) {
        let check = format!("image {}", image.reference);
        findings.push(Finding::warn(check, format!("{}: {error}", image.state), advice));
    }
    findings
}

/// Room and wear.
fn figures(store: &StoreReport) -> Vec<Finding> {
    let StoreReport { used_bytes, size_max_bytes, cached_bytes, blobs, .. } = store;
    let needed = used_bytes.saturating_sub(*cached_bytes);
    let (used, max) = (ByteCount(needed), ByteCount(*size_max_bytes));
    let seen = format!("{used} of {max} needed, {blobs} blobs");
    let is_full = needed > size_max_bytes / 100 * FULL_PERCENT;
    let mut findings = vec![if is_full {
        let advice = "raise [store] size_max, or name fewer images: there is hardly room for a \
                      new version beside the old one";
        Finding::warn("store: room", seen, advice)
    } else {
        Finding::ok("store: room", seen)
    }];
    findings.push(wear(store));
    if store.scrub.corrupt_chunks > 0 {
        let seen = format!("{} chunks are corrupt", store.scrub.corrupt_chunks);
        let advice = "they are fetched again when their registry is in reach; if they come back, \
                      the flash is at its end";
        findings.push(Finding::warn("store: bits", seen, advice));
    }
    findings
}

fn wear(store: &StoreReport) -> Finding {
    let check = "store: wear";
    let health = store.health.as_ref();
    let life = health.and_then(|health| health.life_used_percent);
    let reserve = health.and_then(|health| health.reserve.as_deref());
    let mut parts = vec![format!("{} of {} erases", store.erases_max, store.cycles_rated)];
    parts.extend(life.map(|percent| format!("{percent} % of the life used by its own account")));
    parts.extend(reserve.map(|reserve| format!("reserve {reserve}")));
    parts.extend(store.life_years.map(|years| format!("{years:.1} years left at this rate")));
    if store.bad_segments > 0 {
        parts.push(format!("{} segments are bad", store.bad_segments));
    }
    let seen = parts.join(", ");
    let is_over = store.erases_max > store.cycles_rated
        || life.is_some_and(|percent| percent >= 100)
        || reserve == Some("urgent");
    let is_near = life.is_some_and(|percent| percent >= LIFE_PERCENT_WARNED)
        || reserve == Some("warning")
        || store.life_years.is_some_and(|years| years < YEARS_WARNED);
    if is_over {
        Finding::fail(check, seen, "replace the flash: it may fail at any time")
    } else if is_near {
        let advice = "plan its replacement; what writes most is a tag that moves often";
        Finding::warn(check, seen, advice)
    } else {
        Finding::ok(check, seen)
    }
}

/// What is left of the data plan, and whether a window is open.
fn plan(link: &LinkReport) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for (name, seen) in link.limits() {
        let plan = match name {
            "day" => link.day.as_ref(),
            "month" => link.month.as_ref(),
            _ => None,
        };
        let is_spent = plan.is_some_and(|plan| plan.used_bytes >= plan.max_bytes);
        let is_closed = name == "window" && link.window.as_ref().is_some_and(|one| !one.open);
        findings.push(if is_spent {
            let advice = "nothing is fetched before it begins anew, unless [link] allows more";
            Finding::warn(format!("link: {name}"), seen, advice)
        } else if is_closed {
            let advice = "images wait for it; see [link] windows and urgent";
            Finding::warn(format!("link: {name}"), seen, advice)
        } else {
            Finding::ok(format!("link: {name}"), seen)
        });
    }
    findings
}

const SATELLITE: &str = "satellite";
const STORE: &str = "store";
/// For a satellite on this device to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Problems, and images, that are shown.
const ROWS_MAX: usize = 16;
const FULL_PERCENT: u64 = 90;
const LIFE_PERCENT_WARNED: u8 = 80;
const YEARS_WARNED: f64 = 1.0;
