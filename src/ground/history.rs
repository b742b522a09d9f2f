//! What is kept of a satellite's past: a sample an hour for the last days, one for six hours before.
//!
//! The hour that is not over lies in the row of the last report, which each report writes anyway, so
//! that history costs one row an hour and not one a report. When an hour is over, its sample gets a
//! row; samples of the same six hours are merged later, and end after 30 days. A sample has sums
//! (bytes, time online) and the worst that was seen (storage, images behind, health): a short trouble
//! is not lost in a mean.
//!
//! Satellites count since their start. What is kept is by how much a count grew between two reports,
//! and a count that is smaller than before began again from zero.

use serde::{Deserialize, Serialize};

use super::assess::{Assessment, Health, Updated};
use super::clock;
use super::store::{Satellite, Status};
use crate::fleet::report::{Details, Report};

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
    fn new(at: i64) -> Self {
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

    fn add(&mut self, from: i64, until: i64) {
        let end = self.at + self.micros;
        self.online_micros += (until.min(end) - from.max(self.at)).max(0);
    }
}

/// What a report adds: the sample of this hour, and those of hours that are over.
pub fn observe(
    satellite: &Satellite,
    before: Option<&Status>,
    (report, assessment): (&Report, &Assessment),
    now: i64,
) -> (Sample, Vec<Sample>) {
    let this = now - now.rem_euclid(HOUR);
    let is_expected = satellite.stale_at.is_some_and(|stale_at| now <= stale_at);
    let seen = satellite.last_seen.filter(|seen| is_expected && now - seen <= GAP_MAX);
    let from = seen.unwrap_or(now);
    let mut over = Vec::new();
    let mut sample = Sample::new(this);
    if let Some((before, mut known)) = before.and_then(|one| Some((one, one.hour.clone()?))) {
        // None but the first hour in between, where the last report is too long ago.
        let is_filled = from < this && (HOUR..=GAP_MAX + HOUR).contains(&(this - known.at));
        while is_filled && known.at < this {
            known.add(from, now);
            let next = between(&known, before);
            over.push(std::mem::replace(&mut known, next));
        }
        match (is_filled, known.at == this) {
            (false, true) => sample = known,
            (false, false) => over.push(known),
            (true, _) => {}
        }
    }
    sample.add(from, now);
    sample.merge(&said(sample.at, before.map(|before| &before.report), report, assessment));
    (sample, over)
}

/// The hour after one, as the last report had it.
fn between(known: &Sample, before: &Status) -> Sample {
    let is_behind = before.updated != Updated::UpToDate.word();
    Sample {
        at: known.at + HOUR,
        received_bytes: known.received_bytes.map(|_| 0),
        written_bytes: known.written_bytes.map(|_| 0),
        worn_ppm: known.worn_ppm,
        storage_bytes: number(before.report.storage_used_bytes),
        images: known.images,
        behind: if is_behind { known.behind } else { 0 },
        health: rank(&before.health),
        ..Sample::new(0)
    }
}

/// What a report says, as a sample.
fn said(at: i64, before: Option<&Report>, report: &Report, assessment: &Assessment) -> Sample {
    let details = report.moonlet.as_ref();
    let earlier = before.and_then(|before| before.moonlet.as_ref());
    let grown = |count: fn(&Details) -> u64| {
        let now = count(details?);
        Some(number(match earlier.map(count) {
            Some(before) if now >= before => now - before,
            Some(_) => now,
            None => 0,
        }))
    };
    let behind = assessment.images.iter().filter(|image| !image.in_sync).count();
    let worn = details.and_then(|details| details.flash_used_percent);
    Sample {
        at,
        received_bytes: grown(|details| details.received_bytes),
        written_bytes: grown(|details| details.flash_written_bytes),
        // A satellite says what it likes; the cast holds it to what fits.
        #[allow(clippy::cast_possible_truncation)]
        worn_ppm: worn.map(|percent| (percent.max(0.0) * 1e4) as i64),
        storage_bytes: number(report.storage_used_bytes),
        images: number(assessment.images.len()),
        behind: number(behind),
        health: rank(assessment.health.word()),
        ..Sample::default()
    }
}

/// The place of a health's word in [`HEALTHS`].
fn rank(word: &str) -> i64 {
    HEALTHS.iter().zip(0..).find(|(health, _)| health.word() == word).map_or(0, |(_, rank)| rank)
}

fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
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
pub const ROWS_MAX: i64 = 240;
/// Between two reports that are as expected; hours in between get samples.
const GAP_MAX: i64 = DAY;
/// From good to bad.
const HEALTHS: [Health; 3] = [Health::Healthy, Health::Degraded, Health::Error];

#[cfg(test)]
mod tests;
