//! What a satellite was over some time, and for how long that is kept.

use serde::{Deserialize, Serialize};

use super::satellite::Health;
use crate::ground::clock;

/// A satellite over some time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it begins, and how long it is.
    pub at: i64,
    pub micros: i64,
    /// For how much of it reports came as expected.
    pub online_micros: i64,
    /// From registries; None of a satellite that does not say.
    pub received_bytes: Option<i64>,
    /// Written to flash.
    pub written_bytes: Option<i64>,
    /// Of the flash's rated life, in millionths.
    pub worn_ppm: Option<i64>,
    pub storage_bytes: i64,
    /// Images desired, and those of them that it did not hold as desired.
    pub images: i64,
    pub behind: i64,
    /// Its place in [`HEALTHS`].
    pub health: i64,
}

impl Sample {
    pub fn new(at: i64) -> Self {
        Self { at, micros: HOUR, ..Self::default() }
    }

    /// Takes in another sample of the same time, or of a part of it.
    pub fn merge(&mut self, other: &Self) {
        let sum = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        self.micros = self.micros.max(other.micros);
        self.online_micros = self.online_micros.saturating_add(other.online_micros);
        self.received_bytes = sum(self.received_bytes, other.received_bytes);
        self.written_bytes = sum(self.written_bytes, other.written_bytes);
        self.worn_ppm = self.worn_ppm.max(other.worn_ppm);
        self.storage_bytes = self.storage_bytes.max(other.storage_bytes);
        self.images = self.images.max(other.images);
        self.behind = self.behind.max(other.behind);
        self.health = self.health.max(other.health);
    }

    /// Of the flash's rated life.
    pub fn worn_percent(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)]
        self.worn_ppm.map(|ppm| ppm as f64 / 1e4)
    }

    /// As lists and reports name it.
    pub fn health_word(&self) -> &'static str {
        let found = HEALTHS.iter().zip(0..).find(|(_, number)| *number == self.health);
        found.map_or(Health::Unknown, |(health, _)| *health).word()
    }

    /// The sample that a row of this age is kept in: itself, or the one of its six hours.
    pub fn placed(mut self, now: i64) -> Self {
        if self.at < merged_before(now) {
            self.at -= self.at.rem_euclid(MERGED);
            self.micros = MERGED;
        }
        self
    }

    pub fn add(&mut self, from: i64, until: i64) {
        let end = self.at + self.micros;
        self.online_micros += (until.min(end) - from.max(self.at)).max(0);
    }
}

/// The place of a health's word in [`HEALTHS`].
pub fn rank(word: &str) -> i64 {
    HEALTHS.iter().zip(0..).find(|(health, _)| health.word() == word).map_or(0, |(_, rank)| rank)
}

/// Samples of an hour that begin before this are merged to six hours.
pub fn merged_before(now: i64) -> i64 {
    let end = now - HOURLY_DAYS * DAY;
    end - end.rem_euclid(MERGED)
}

pub const HOUR: i64 = 3600 * clock::SECOND;
pub const DAY: i64 = 24 * HOUR;
pub const MERGED: i64 = 6 * HOUR;
/// For so many days there is a sample an hour.
pub const HOURLY_DAYS: i64 = 3;
pub const KEPT_DAYS: i64 = 30;
/// Rows of a satellite: 72 hours and the six that are about to be merged, and 27 days of four; the
/// rest is for a clock that jumps.
pub const SAMPLES_MAX: i64 = 240;
/// From good to bad.
const HEALTHS: [Health; 3] = [Health::Healthy, Health::Degraded, Health::Error];
