//! The report: plain values with units in their names, the same for every reader.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::blob::Store;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::pull::board::{Board, State};

/// All that a satellite tells of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The satellite's name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Seconds since the process began.
    pub uptime_seconds: u64,
    /// The desired images, by name.
    pub images: Vec<ImageReport>,
    /// The blob log.
    pub store: StoreReport,
    /// The uplink, since the process began.
    pub link: LinkReport,
}

/// One desired image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageReport {
    /// As the configuration has it, normalised.
    pub reference: String,
    /// `pending`, `syncing`, `held` or `failed`.
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
}

/// The uplink.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkReport {
    /// Bytes received, headers and TLS included.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Blob bytes that were fetched more than once.
    pub repeated_bytes: u64,
}

impl Report {
    /// The state of things now.
    pub fn new(
        name: &str,
        store: &Store,
        board: &Board,
        clock: &dyn Clock,
        metrics: &Metrics,
    ) -> Self {
        let now = clock.monotonic();
        Self {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.as_secs(),
            images: images(board, now),
            store: StoreReport::new(store),
            link: LinkReport {
                received_bytes: metrics.link_received_bytes.value(),
                sent_bytes: metrics.link_sent_bytes.value(),
                repeated_bytes: metrics.fetch_repeated_bytes.value(),
            },
        }
    }
}

impl StoreReport {
    /// The figures of `store` now.
    pub fn new(store: &Store) -> Self {
        let stat = store.stat();
        Self {
            size_max_bytes: stat.size_max_bytes,
            used_bytes: stat.used_bytes,
            blobs: stat.blobs,
            partial_blobs: stat.partials,
            programmed_bytes: stat.programmed_bytes,
            image_bytes: stat.image_bytes,
            copied_bytes: stat.copied_bytes,
            erases_max: stat.erases_max,
            erases_mean: stat.erases_mean,
        }
    }
}

fn images(board: &Board, now: Duration) -> Vec<ImageReport> {
    let images = board.images(now).into_iter();
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
        }
    });
    images.collect()
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Syncing => "syncing",
        State::Held => "held",
        State::Failed => "failed",
    }
}
