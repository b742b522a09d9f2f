//! The report: plain values with units in their names, the same for every reader.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ProblemReport;
use crate::blob::Store;
use crate::fetch::Gate;
use crate::fetch::gate::{Standing, Used};
use crate::flash::{Health, Reserve};
use crate::metrics::Metrics;
use crate::pull::progress::{Progress, State};
use crate::units::ByteCount;

/// All that a satellite reports of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The satellite's name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Seconds since the process began.
    pub uptime_seconds: u64,
    /// What does not work, by part.
    #[serde(default)]
    pub problems: Vec<ProblemReport>,
    /// The desired images, by name.
    pub images: Vec<ImageReport>,
    /// The blob log.
    pub store: StoreReport,
    /// The uplink.
    pub link: LinkReport,
}

/// One desired image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageReport {
    /// As the configuration has it, normalised.
    pub reference: String,
    /// `pending`, `syncing`, `waiting`, `held`, `staged`, `held (gone upstream)`,
    /// `held (registry unavailable)` or `failed`.
    pub state: String,
    /// The digest held under its tag.
    pub digest: Option<String>,
    /// Bytes of it on flash.
    pub held_bytes: u64,
    /// Bytes of it in all; 0 while unknown.
    pub total_bytes: u64,
    /// What arrives now.
    pub rate_bytes_per_second: u64,
    /// Seconds until it is whole at that rate.
    pub eta_seconds: Option<u64>,
    /// The last error.
    pub error: Option<String>,
    /// What accompanies it and could not be had: signatures and the like.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// The blob log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreReport {
    /// The hard cap.
    pub size_max_bytes: u64,
    /// In use, reservations included.
    pub used_bytes: u64,
    /// Blobs held whole.
    pub blobs: u64,
    /// Bytes of those that no desired image needs and that may be evicted.
    pub cached_bytes: u64,
    /// Downloads begun and not finished.
    pub partial_blobs: u64,
    /// Bytes programmed since the log was begun.
    pub programmed_bytes: u64,
    /// Blob bytes acknowledged in the same time.
    pub image_bytes: u64,
    /// Of the bytes programmed, those copied to make room or to level.
    pub copied_bytes: u64,
    /// Erases of the data segment that has had most.
    pub erases_max: u32,
    /// Erases of a data segment in the mean.
    pub erases_mean: u64,
    /// Segments that are out of use.
    pub bad_segments: u64,
    /// Bytes programmed in a day at the recent rate; none before the first day is over.
    pub programmed_bytes_per_day: Option<u64>,
    /// Erases that the medium is rated for, as configured.
    pub cycles_rated: u32,
    /// Years with power until it is worn out at the recent rate; 100 stands for more.
    pub life_years: Option<f64>,
    /// What the hardware says of its wear, where it says anything.
    pub health: Option<HealthReport>,
    /// The search for bit rot.
    pub scrub: ScrubReport,
}

/// What the hardware says of its wear.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthReport {
    /// Percent of the rated life that is used at most, in steps of ten; 110 is beyond it.
    pub life_used_percent: Option<u8>,
    /// `normal`, `warning` or `urgent`: what is left of the blocks kept in reserve.
    pub reserve: Option<String>,
    /// Erase blocks that are out of use.
    pub bad_blocks: Option<u32>,
    /// Erases of the block that has had most.
    pub erases_max: Option<u32>,
}

/// The search for bit rot, since the process began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Bytes of this pass that were read.
    pub checked_bytes: u64,
    /// Bytes that it is to read.
    pub pass_bytes: u64,
    /// Passes that are over.
    pub passes: u64,
    /// Chunks that are corrupt and not repaired yet.
    pub corrupt_chunks: u64,
}

/// The uplink, since the process began; the data plan, since its day or month began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkReport {
    /// Bytes received, headers and TLS included.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Blob bytes that were fetched more than once.
    pub repeated_bytes: u64,
    /// What is spent of the day's limit, if there is one.
    #[serde(default)]
    pub day: Option<PlanReport>,
    /// What is spent of the month's, if there is one.
    #[serde(default)]
    pub month: Option<PlanReport>,
    /// Whether images may be fetched now, if there are time windows.
    #[serde(default)]
    pub window: Option<WindowReport>,
}

/// What is spent of one limit of the data plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanReport {
    /// Bytes spent, packets' headers included.
    pub used_bytes: u64,
    /// The limit.
    pub max_bytes: u64,
    /// When it begins anew, in seconds since 1970.
    pub until_unix_seconds: u64,
    /// The same by the local clock, for people.
    pub until: String,
}

/// The time windows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WindowReport {
    /// Whether one is open.
    pub open: bool,
    /// When that changes, in seconds since 1970.
    pub until_unix_seconds: Option<u64>,
    /// The same by the local clock, for people; empty where it never does.
    pub until: String,
}

impl LinkReport {
    /// What went over the link, and what `gate` admits.
    pub fn new(metrics: &Metrics, gate: &Gate) -> Self {
        let meter = gate.meter();
        let Standing { day, month, window } = gate.standing();
        let plan = |used: Used| PlanReport {
            used_bytes: used.used_bytes,
            max_bytes: used.max_bytes,
            until_unix_seconds: used.until,
            until: used.until_text,
        };
        Self {
            received_bytes: meter.received(),
            sent_bytes: meter.sent(),
            repeated_bytes: metrics.fetch_repeated_bytes.value(),
            day: day.map(plan),
            month: month.map(plan),
            window: window.map(|window| WindowReport {
                open: window.is_open,
                until_unix_seconds: window.until,
                until: window.until_text,
            }),
        }
    }

    /// The limits in a line each, for people: what is limited, and how it stands.
    pub fn limits(&self) -> Vec<(&'static str, String)> {
        let plan = |plan: &PlanReport| {
            let (used, max) = (ByteCount(plan.used_bytes), ByteCount(plan.max_bytes));
            format!("{used} of {max} used, until {}", plan.until)
        };
        let window = |window: &WindowReport| {
            let state = if window.open { "open" } else { "closed" };
            match window.until.as_str() {
                "" => state.to_owned(),
                until => format!("{state} until {until}"),
            }
        };
        let limits = [
            ("day", self.day.as_ref().map(plan)),
            ("month", self.month.as_ref().map(plan)),
            ("window", self.window.as_ref().map(window)),
        ];
        limits.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
    }
}

impl Report {
    /// The state of things now.
    pub fn new(
        name: &str,
        problems: Vec<ProblemReport>,
        store: StoreReport,
        progress: &Progress,
        now: Duration,
        link: LinkReport,
    ) -> Self {
        Self {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.as_secs(),
            problems,
            images: images(progress, now),
            store,
            link,
        }
    }
}

impl StoreReport {
    /// The figures of `store` now.
    pub fn new(store: &Store, cycles_rated: u32, metrics: &Metrics) -> Self {
        let stat = store.stat();
        let (health, corrupt) = (store.health(), store.corrupt());
        let life = stat.life_tenths_of_years(cycles_rated, health);
        Self {
            size_max_bytes: stat.size_max_bytes,
            used_bytes: stat.used_bytes,
            blobs: stat.blobs,
            cached_bytes: stat.cached_bytes,
            partial_blobs: stat.partials,
            programmed_bytes: stat.programmed_bytes,
            image_bytes: stat.image_bytes,
            copied_bytes: stat.copied_bytes,
            erases_max: stat.erases_max,
            erases_mean: stat.erases_mean,
            bad_segments: stat.bad_segments as u64,
            programmed_bytes_per_day: stat.programmed_bytes_per_day(),
            cycles_rated,
            life_years: life.map(|tenths| f64::from(tenths) / 10.0),
            health: health.map(HealthReport::new),
            scrub: ScrubReport {
                checked_bytes: metrics.scrub_checked_bytes.value(),
                pass_bytes: metrics.scrub_pass_bytes.value(),
                passes: metrics.scrub_passes.value(),
                corrupt_chunks: corrupt.iter().map(|(_, chunks)| chunks.len() as u64).sum(),
            },
        }
    }
}

impl HealthReport {
    fn new(health: Health) -> Self {
        let Health { life_used_percent, reserve, bad_blocks, erases_max } = health;
        let reserve = reserve.map(|reserve| match reserve {
            Reserve::Normal => "normal".to_owned(),
            Reserve::Warning => "warning".to_owned(),
            Reserve::Urgent => "urgent".to_owned(),
        });
        Self { life_used_percent, reserve, bad_blocks, erases_max }
    }
}

fn images(progress: &Progress, now: Duration) -> Vec<ImageReport> {
    let images = progress.images(now).into_iter();
    let images = images.map(|(reference, image)| {
        let missing = image.total_bytes.saturating_sub(image.held_bytes);
        let moving = image.state == State::Syncing && missing > 0;
        ImageReport {
            reference,
            state: state_name(image.state).to_owned(),
            digest: image.digest.map(|digest| digest.to_string()),
            held_bytes: image.held_bytes,
            total_bytes: image.total_bytes,
            rate_bytes_per_second: image.rate,
            eta_seconds: missing.checked_div(image.rate).filter(|_| moving),
            error: image.error,
            missing: image.missing,
        }
    });
    images.collect()
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Syncing => "syncing",
        State::Waiting => "waiting",
        State::Held => "held",
        State::Staged => "staged",
        State::Gone => "held (gone upstream)",
        State::Unchecked => "held (registry unavailable)",
        State::Failed => "failed",
    }
}
