//! The past of satellites and of the fleet: figures, the oldest first.
//!
//! The cursor is the time of the last row that was seen: a row has one for itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Person, Query};
use super::listing::{PAGE_ROWS_MAX, find, limit};
use crate::fleet::shown;
use crate::ground::app::App;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::model::{DAY, HOUR, KEPT_DAYS, Sample};
use crate::ground::store::{Rows, Satellite};

/// Which part is asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    after: String,
    limit: String,
}

impl Wanted {
    fn part(&self, now: i64) -> Result<(i64, i64), Fault> {
        let oldest = now - KEPT_DAYS * DAY;
        let after = match self.after.as_str() {
            "" => oldest,
            text => clock::parse(text).map(|at| at.max(oldest)).ok_or_else(|| {
                Fault::bad(format!("after {}: expected a time of RFC 3339", shown(text)))
            })?,
        };
        Ok((after, limit(&self.limit)?.unwrap_or(PAGE_ROWS_MAX)))
    }
}

/// A satellite's samples that begin after a time, with the one that is not over.
pub async fn samples(
    rows: &mut Rows<'_>,
    satellite: &Satellite,
    (after, rows_max): (i64, i64),
) -> Result<Vec<Sample>, Fault> {
    let mut samples = rows.samples(satellite.id, after, rows_max).await?;
    let hour = rows.status(satellite.id).await?.and_then(|status| status.hour);
    let is_full = usize::try_from(rows_max).is_ok_and(|max| samples.len() >= max);
    if let Some(hour) = hour.filter(|hour| hour.at > after && !is_full) {
        match samples.iter_mut().find(|sample| sample.at == hour.at) {
            Some(sample) => sample.merge(&hour),
            None => samples.push(hour),
        }
        // A clock that was set back has put some behind it.
        samples.sort_by_key(|sample| sample.at);
    }
    Ok(samples)
}

pub async fn satellite(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Fault> {
    let part = wanted.part(clock::now())?;
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let satellite = find(&mut rows, &name).await?;
    let samples = samples(&mut rows, &satellite, part).await?;
    let samples = samples.iter().map(|sample| {
        json!({
            "at": clock::rfc3339(sample.at),
            "seconds": sample.micros / clock::SECOND,
            "online_seconds": sample.online_micros / clock::SECOND,
            "received_bytes": sample.received_bytes,
            "flash_written_bytes": sample.written_bytes,
            "flash_used_percent": sample.worn_percent(),
            "storage_used_bytes": sample.storage_bytes,
            "images": sample.images,
            "images_behind": sample.behind,
            "health": sample.health_word(),
        })
    });
    Ok(Json(samples.collect()))
}

pub async fn fleet(
    State(app): State<Arc<App>>,
    _: Person,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Fault> {
    let (after, rows_max) = wanted.part(clock::now())?;
    let samples = app.store.read().await?.rows().fleet_samples(after, rows_max).await?;
    let samples = samples.iter().map(|sample| {
        let [online, stale, offline, unknown] = sample.connections;
        json!({
            "at": clock::rfc3339(sample.at),
            "seconds": HOUR / clock::SECOND,
            "online": online,
            "stale": stale,
            "offline": offline,
            "unknown": unknown,
        })
    });
    Ok(Json(samples.collect()))
}
