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

use super::assess::Assessment;
use super::model::{DAY, HOUR, Sample, Updated, rank};
use super::store::{Satellite, Status};
use crate::fleet::report::{Details, Report};

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

fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// Between two reports that are as expected; hours in between get samples.
const GAP_MAX: i64 = DAY;
#[cfg(test)]
mod tests;
