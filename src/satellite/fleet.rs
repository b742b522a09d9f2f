//! Being part of a fleet: enrolling, looking at the desired state, reporting; each at its own pace,
//! for as long as the satellite runs.
//!
//! Ground Control may be away for days: what was desired stays desired, images are polled and
//! served as ever, and the attempts go on. They are spread, so that a fleet that was switched on
//! together, or whose Ground Control comes back, does not arrive at once.

use std::cell::Cell;
use std::fs;
use std::time::Duration;

use log::warn;
use smol::channel::Receiver;
use smol::future::or;

use super::random::{jittered, random};
use super::run::{DESIRED_STATE, ENROLMENT, GROUND_CONTROL, Satellite};
use super::service;
use crate::clock::date::rfc3339;
use crate::fleet::interval;
use crate::fleet::report::{
    ACTIVITY_CHARS_MAX, CachedImage, Details, IMAGES_MAX, ImageStatus, PROBLEMS_MAX, PlanUse,
    REASON_CHARS_MAX, REFERENCE_CHARS_MAX, Report,
};
use crate::oci::Platform;
use crate::status;

/// As status names it: what is staged takes its place.
const ACTIVATION: &str = "activation";

/// The pace of the fleet's work, and what was reported last.
pub struct Member {
    /// When the state is to be looked at, and when a report is due, by the monotonic clock.
    poll_at: Cell<Duration>,
    report_at: Cell<Duration>,
    /// Attempts to enrol that failed in a row.
    failures: Cell<u32>,
    /// How long the last pass over the images took.
    pass: Cell<Duration>,
    /// Busy and total time of the processor at the last report, in ticks.
    ticks: Cell<(u64, u64)>,
}

impl Member {
    /// All is due.
    pub fn new() -> Self {
        Self {
            poll_at: Cell::default(),
            report_at: Cell::default(),
            failures: Cell::default(),
            pass: Cell::default(),
            ticks: Cell::new(processor_ticks()),
        }
    }

    /// A pass over the images is over: what it brought is worth a report soon.
    pub fn passed(&self, satellite: &Satellite, took: Duration, changed: bool) {
        self.pass.set(took);
        if changed {
            let soon = satellite.clock.monotonic() + jittered(REPORT_PAUSE, random());
            self.report_at.set(self.report_at.get().min(soon));
        }
    }

    /// All is due at once: the configuration is another one.
    pub fn hurry(&self) {
        self.poll_at.set(Duration::ZERO);
        self.report_at.set(Duration::ZERO);
        self.failures.set(0);
    }

    /// Goes on without end. `apply` is called when the desired state has changed; `woken` receives
    /// something when what is due may have changed.
    pub async fn obey<T>(
        &self,
        satellite: &Satellite,
        woken: &Receiver<()>,
        apply: impl AsyncFn(),
    ) -> T {
        loop {
            if satellite.control.is_configured() {
                self.step(satellite, &apply).await;
            }
            let next = match satellite.control.is_configured() {
                true => self.poll_at.get().min(self.report_at.get()),
                false => Duration::MAX,
            };
            let pause = next.saturating_sub(satellite.clock.monotonic()).min(PAUSE_MAX);
            let pause = match satellite.control.activates_in() {
                // The clock may be set meanwhile.
                Some(due) => pause.min(due.clamp(ACTIVATION_PAUSE_MIN, ACTIVATION_PAUSE_MAX)),
                None => pause,
            };
            let woken = async {
                // It is not closed while this runs.
                let _ = woken.recv().await;
            };
            or(satellite.clock.sleep(pause), woken).await;
        }
    }

    async fn step(&self, satellite: &Satellite, apply: &impl AsyncFn()) {
        let now = || satellite.clock.monotonic();
        let before = (satellite.config(), satellite.desired());
        satellite.activate().await;
        // A start with a configuration on trial counts before anything is done by it.
        satellite.judge().await;
        if self.poll_at.get() <= now() {
            satellite.look_at_fleet().await;
            let pause = match satellite.control.is_settled() {
                // Sooner at first, and ever later while it does not help.
                false => self.enrol_pause(),
                true => {
                    self.failures.set(0);
                    jittered(satellite.state_interval(), random())
                }
            };
            self.poll_at.set(now() + pause);
        }
        // An interval that has become shorter counts at once.
        let latest = now() + satellite.control.report_interval();
        self.report_at.set(self.report_at.get().min(latest));
        if satellite.control.name().is_none() {
            // There is no name to report under.
            self.report_at.set(self.poll_at.get());
        } else if self.report_at.get() <= now() {
            let report = self.report(satellite);
            let health = &satellite.health;
            match satellite.control.report(&report).await {
                Ok(()) => health.works(GROUND_CONTROL),
                Err(error) => health.degraded(GROUND_CONTROL, &error.to_string()),
            }
            let interval = satellite.control.report_interval();
            self.report_at.set(now() + jittered(interval, random()));
            // The answer may have brought new credentials.
            if satellite.control.take_changed() {
                satellite.refresh();
            }
        }
        if let Some(pause) = satellite.judge().await {
            // Seen to work soon, or said at once that it does not.
            let soon = now() + pause;
            self.poll_at.set(self.poll_at.get().min(soon));
            self.report_at.set(self.report_at.get().min(soon));
        }
        if (satellite.config(), satellite.desired()) != before {
            apply().await;
        }
    }

    /// The next pause before another attempt to enrol: anywhere up to twice the one before.
    fn enrol_pause(&self) -> Duration {
        let failures = self.failures.get();
        self.failures.set(failures.saturating_add(1));
        let most = ENROL_PAUSE_MIN.saturating_mul(1 << failures.min(16)).min(ENROL_PAUSE_MAX);
        let spread = u64::try_from((most - ENROL_PAUSE_MIN / 2).as_millis()).unwrap_or(u64::MAX);
        ENROL_PAUSE_MIN / 2 + Duration::from_millis(random() % spread.max(1))
    }

    /// What the satellite says of itself now.
    fn report(&self, satellite: &Satellite) -> Report {
        let seen = satellite.admin().report();
        let (state_digest, config_digest) = satellite.control.digests();
        let listen = satellite.config().serve.listen.first().map(ToString::to_string);
        let listen = listen.unwrap_or_default();
        let held = seen.images.iter().filter_map(|image| cached(image, &listen));
        let mut cached_images: Vec<CachedImage> = held.collect();
        let image_count = i64::try_from(cached_images.len()).unwrap_or(i64::MAX);
        cached_images.truncate(IMAGES_MAX);
        Report {
            name: satellite.control.name().unwrap_or_default(),
            activity: activity(&seen),
            state_report_interval: interval::format(satellite.control.report_interval()),
            latest_state_digest: state_digest,
            latest_config_digest: config_digest,
            memory_used_bytes: memory_used_bytes(),
            storage_used_bytes: seen.store.used_bytes,
            cpu_percent: self.cpu_percent(),
            request_created_time: rfc3339(satellite.clock.unix_seconds()),
            last_sync_duration_ms: i64::try_from(self.pass.get().as_millis()).unwrap_or(i64::MAX),
            image_count,
            cached_images,
            moonlet: Some(details(&seen)),
        }
    }

    /// The part of the processor's time that was not idle since the last report.
    fn cpu_percent(&self) -> f64 {
        let (busy, total) = processor_ticks();
        let (busy_before, total_before) = self.ticks.replace((busy, total));
        let (busy, total) =
            (busy.saturating_sub(busy_before), total.saturating_sub(total_before).max(1));
        // In hundredths of a percent, which is as much as is worth reading.
        let hundredths = u32::try_from(busy.saturating_mul(10_000) / total).unwrap_or(u32::MAX);
        f64::from(hundredths.min(10_000)) / 100.0
    }
}

/// A held image as clients pull it from this satellite.
fn cached(image: &status::ImageReport, listen: &str) -> Option<CachedImage> {
    // No client can pull what is only staged.
    let digest = image.digest.as_ref().filter(|_| image.state != "staged")?;
    let name = image.reference.split('@').next().unwrap_or_default();
    // Without the registry, which is how a Go satellite names it too.
    let name = name.split_once('/').map_or(name, |(_, name)| name);
    let reference = format!("{listen}/{name}@{digest}");
    (reference.len() <= REFERENCE_CHARS_MAX).then(|| CachedImage {
        reference,
        size_bytes: i64::try_from(image.held_bytes).unwrap_or(i64::MAX),
    })
}

/// A line for people.
fn activity(report: &status::Report) -> String {
    let moving = report.images.iter().find(|image| image.state == "syncing");
    let failed = report.images.iter().filter(|image| image.state == "failed").count();
    let waiting = report.images.iter().find(|image| image.state == "waiting");
    let text = match (moving, failed) {
        (Some(image), _) => format!("fetching {}", image.reference),
        (None, 0) => match waiting.and_then(|image| image.error.as_deref()) {
            Some(reason) => reason.to_owned(),
            None => "all images held".to_owned(),
        },
        (None, failed) => format!("{failed} of {} images failed", report.images.len()),
    };
    cut(&text, ACTIVITY_CHARS_MAX)
}

fn details(report: &status::Report) -> Details {
    let images = report.images.iter().take(IMAGES_MAX).map(|image| {
        let reasons = image.error.iter().chain(&image.missing);
        let reasons: Vec<&str> = reasons.map(String::as_str).collect();
        ImageStatus {
            reference: cut(&image.reference, REFERENCE_CHARS_MAX),
            state: image.state.clone(),
            reason: cut(&reasons.join("; "), REASON_CHARS_MAX),
            digest: image.digest.clone().unwrap_or_default(),
            held_bytes: image.held_bytes,
            total_bytes: image.total_bytes,
        }
    });
    let problems = report.problems.iter().take(PROBLEMS_MAX);
    let problems =
        problems.map(|one| cut(&format!("{}: {}", one.part, one.reason), REASON_CHARS_MAX));
    let used = report.store.health.as_ref().and_then(|health| health.life_used_percent);
    let plan = |plan: &status::PlanReport| PlanUse {
        used_bytes: plan.used_bytes,
        max_bytes: plan.max_bytes,
        until: plan.until_unix_seconds,
    };
    Details {
        version: report.version.clone(),
        platform: Platform::device().to_string(),
        images: images.collect(),
        problems: problems.collect(),
        storage_size_bytes: report.store.size_max_bytes,
        storage_cached_bytes: report.store.cached_bytes,
        received_bytes: report.link.received_bytes,
        flash_written_bytes: report.store.programmed_bytes,
        flash_used_percent: used.map(f64::from),
        plan_day: report.link.day.as_ref().map(plan),
        plan_month: report.link.month.as_ref().map(plan),
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

/// Memory in use on the device, by `/proc/meminfo`; zero where it cannot be known.
fn memory_used_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let used = value("MemTotal:").zip(value("MemAvailable:"));
    used.map_or(0, |(total, available)| total.saturating_sub(available) * 1024)
}

/// Busy and total time of the processor since the device started, by `/proc/stat`.
fn processor_ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_ascii_whitespace().flat_map(str::parse).collect();
    let total: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (total.saturating_sub(idle), total)
}

/// Whatever failed, it is tried again: each attempt is one small request.
const ENROL_PAUSE_MIN: Duration = Duration::from_secs(5);
const ENROL_PAUSE_MAX: Duration = Duration::from_mins(10);
/// After images have changed: others may change too.
const REPORT_PAUSE: Duration = Duration::from_secs(5);
/// Where what is staged cannot take its place though it is time.
const ACTIVATION_PAUSE_MIN: Duration = Duration::from_millis(500);
const ACTIVATION_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A clock may jump, and a wake may be missed.
const PAUSE_MAX: Duration = Duration::from_hours(1);

impl Satellite {
    /// Enrols if that is needed and looks at the desired state: what has changed is in effect here
    /// then. False where something could not be read.
    pub(super) async fn look_at_fleet(&self) -> bool {
        let health = &self.health;
        let next = match self.control.is_known() {
            true => "what was desired before stays in effect",
            false => "nothing is removed until it is known what is desired",
        };
        let enrolled = self.control.enrol().await;
        match &enrolled {
            Ok(()) => health.works(ENROLMENT),
            Err(error) => health.degraded(ENROLMENT, &format!("{error}; {next}")),
        }
        self.activate().await;
        // The credentials there are may still be good where a new token is not.
        if self.control.needs_enrolment() {
            return false;
        }
        let polled = self.control.poll().await;
        if self.control.take_changed() {
            self.refresh();
        }
        match polled {
            Ok(mut problems) => {
                problems.extend(self.control.wanted().problems);
                match problems.is_empty() {
                    true => health.works(DESIRED_STATE),
                    false => health.degraded(DESIRED_STATE, &problems.join("; ")),
                }
                enrolled.is_ok()
            }
            Err(error) => {
                health.degraded(DESIRED_STATE, &format!("{error}; {next}"));
                false
            }
        }
    }

    /// Judges a configuration that is on trial; when to look and to report again because of that.
    async fn judge(&self) -> Option<Duration> {
        let listen = self.control.wanted().listen;
        let wanted = listen.first().map_or(&[][..], Vec::as_slice).iter();
        let config = self.config();
        let mut unserved = wanted.filter_map(|address| {
            if !config.serve.listen.contains(address) {
                let expected = "expected a loopback address, or [serve] tls_cert or insecure";
                return Some(format!("listen on {address}: {expected} in the satellite's file"));
            }
            let part = service::part(*address);
            let problems = self.health.problems().into_iter();
            let mut reasons = problems.filter(|one| one.part == part);
            let reason = reasons.next()?.reason;
            // Without what goes for those of the file only.
            Some(format!("{part}: {}", reason.split(';').next().unwrap_or_default()))
        });
        let judged = self.control.judge(unserved.next()).await;
        if self.control.take_changed() {
            self.refresh();
        }
        match judged {
            Ok(true) => {
                warn!("{}", self.control.refusal().unwrap_or_default());
                Some(Duration::ZERO)
            }
            Ok(false) => self.control.trial_pause(),
            Err(error) => {
                self.health.degraded(DESIRED_STATE, &error.to_string());
                self.control.trial_pause()
            }
        }
    }

    /// Puts into effect what is staged and whose time has come.
    async fn activate(&self) {
        let health = &self.health;
        match self.control.activate().await {
            Ok(()) => health.works(ACTIVATION),
            Err(error) => {
                health.degraded(ACTIVATION, &format!("{error}; what is active stays, tried again"));
            }
        }
        if self.control.take_changed() {
            self.refresh();
        }
    }

    /// The time between two looks at the desired state.
    pub(super) fn state_interval(&self) -> Duration {
        self.control.poll_interval().unwrap_or(self.config().sync.poll_interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_to_enrol_are_spread_and_bounded() {
        let member = Member::new();
        let pauses: Vec<Duration> = (0..40).map(|_| member.enrol_pause()).collect();
        assert!(pauses[0] < ENROL_PAUSE_MIN, "{:?}", pauses[0]);
        assert!(pauses.iter().all(|pause| *pause >= ENROL_PAUSE_MIN / 2));
        assert!(pauses.iter().all(|pause| *pause <= ENROL_PAUSE_MAX));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_mins(1)));
    }

    #[test]
    fn a_held_image_is_named_as_it_is_pulled() {
        let mut image = status::ImageReport {
            reference: "harbor.test/library/nginx:1.25".to_owned(),
            state: "held".to_owned(),
            digest: Some("sha256:0a".to_owned()),
            held_bytes: 7,
            total_bytes: 7,
            rate_bytes_per_second: 0,
            eta_seconds: None,
            error: None,
            missing: Vec::new(),
        };
        let cached_image = cached(&image, "127.0.0.1:8585").unwrap();
        assert_eq!(cached_image.reference, "127.0.0.1:8585/library/nginx:1.25@sha256:0a");
        image.digest = None;
        assert_eq!(cached(&image, "127.0.0.1:8585"), None);
    }

    #[test]
    fn this_machine_can_be_measured() {
        assert!(memory_used_bytes() > 1 << 20);
        let (busy, total) = processor_ticks();
        assert!(busy > 0 && busy < total, "{busy} of {total}");
    }
}
