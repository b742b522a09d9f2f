//! Desired state against reported state, and who holds which image.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Person, Query};
use super::listing::{PAGE_ROWS_MAX, find, limit};
use crate::fleet::shown;
use crate::fleet::state::{GroupState, config_repository, satellite_repository};
use crate::ground::app::App;
use crate::ground::assess::{Standing, standings};
use crate::ground::fault::Fault;
use crate::ground::model::{Connection, Health, Updated};
use crate::ground::store::{Rows, Satellite, Status};
use crate::ground::{clock, resolve};
use crate::oci::{DIGEST_FORM, Digest};
use crate::units::format_duration;

/// All that is known of a satellite.
pub struct Known {
    pub satellite: Satellite,
    pub groups: Vec<String>,
    pub config: String,
    pub status: Option<Status>,
    /// What its groups want, and what its last report says of it.
    pub images: Vec<Standing>,
    /// Since when it holds an image, without registry, under a digest.
    pub since: BTreeMap<(String, String), i64>,
}

impl Known {
    /// Reads what is known of a satellite.
    pub async fn read(rows: &mut Rows<'_>, url: &str, name: &str) -> Result<Self, Fault> {
        let satellite = find(rows, name).await?;
        let mut groups: Vec<GroupState> = Vec::new();
        for group in rows.satellite_versions(satellite.id).await? {
            groups.push(resolve::resolved(rows, &group).await?);
        }
        let status = rows.status(satellite.id).await?;
        let report = status.as_ref().map(|status| &status.report);
        Ok(Self {
            images: standings(satellite.base(url), &groups, report),
            groups: groups.into_iter().map(|group| group.group).collect(),
            config: rows.satellite_config(satellite.id).await?,
            since: rows.held(satellite.id).await?,
            status,
            satellite,
        })
    }

    /// The word of `assess::Updated`, as in lists.
    pub fn updated(&self) -> &str {
        self.status.as_ref().map_or(Updated::Unknown.word(), |status| &status.updated)
    }

    /// The word of `assess::Health`, as in lists.
    pub fn health(&self) -> &str {
        self.status.as_ref().map_or(Health::Unknown.word(), |status| &status.health)
    }

    /// Since when an image is held as desired; None when it is not.
    pub fn in_sync_since(&self, image: &Standing) -> Option<i64> {
        let key = (image.name.clone(), image.digest.clone());
        self.since.get(&key).copied().filter(|_| image.in_sync)
    }

    /// What is most worth knowing of it, in a line; empty when all is well.
    pub fn reason(&self, now: i64) -> String {
        if let Some(revoked_at) = self.satellite.revoked_at {
            return format!(
                "its credentials were revoked at {}",
                clock::rfc3339(revoked_at - revoked_at.rem_euclid(clock::SECOND))
            );
        }
        let connection = self.satellite.connection(now);
        match (connection, self.satellite.last_seen) {
            (Connection::Stale | Connection::Offline, Some(seen)) => {
                let away = u64::try_from((now - seen) / clock::SECOND).unwrap_or(0);
                format!("no report for {}", format_duration(Duration::from_secs(away)))
            }
            (Connection::Unknown, _) | (_, None) => "it never reported".to_owned(),
            (Connection::Online, Some(_)) => {
                self.status.as_ref().map(|status| status.reason.clone()).unwrap_or_default()
            }
        }
    }
}

pub async fn show(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let known = Known::read(&mut rows, &app.url, &name).await?;
    let state_digest = rows.published_digest(&satellite_repository(&name)).await?;
    let config_digest = rows.published_digest(&config_repository(&known.config)).await?;
    let now = clock::now();
    let Known { satellite, images, status, .. } = &known;
    let images = images.iter().map(|image| {
        json!({
            "reference": image.reference,
            "group": image.group,
            "desired_digest": image.desired_digest,
            "digest": image.digest,
            "state": image.state,
            "reason": image.reason,
            "held_bytes": image.held_bytes,
            "total_bytes": image.total_bytes,
            "in_sync": image.in_sync,
            "in_sync_since": known.in_sync_since(image).map(clock::rfc3339),
        })
    });
    let report = status.as_ref().map(|status| &status.report);
    let details = report.and_then(|report| report.moonlet.as_ref());
    Ok(Json(json!({
        "name": satellite.name,
        "connection": satellite.connection(now).word(),
        "updated": known.updated(),
        "health": known.health(),
        "lifecycle": satellite.lifecycle().word(),
        "reason": known.reason(now),
        "last_seen": satellite.last_seen.map(clock::rfc3339),
        "state_digest": {
            "desired": state_digest,
            "reported": report.map(|report| &report.latest_state_digest),
        },
        "config_digest": {
            "desired": config_digest,
            "reported": report.map(|report| &report.latest_config_digest),
        },
        "version": details.map(|details| &details.version),
        "platform": details.map(|details| &details.platform),
        "problems": details.map_or(&[][..], |details| &details.problems),
        "storage_used_bytes": report.map(|report| report.storage_used_bytes),
        "storage_cached_bytes": details.map(|details| details.storage_cached_bytes),
        "storage_size_bytes": details.map(|details| details.storage_size_bytes),
        "flash_written_bytes": details.map(|details| details.flash_written_bytes),
        "flash_used_percent": details.and_then(|details| details.flash_used_percent),
        "received_bytes": details.map(|details| details.received_bytes),
        "plan_day": details.and_then(|details| details.plan_day),
        "plan_month": details.and_then(|details| details.plan_month),
        "images": images.collect::<Value>(),
    })))
}

/// Which images are asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Who holds this; without it, what is held at all.
    digest: String,
    after: String,
    limit: String,
}

/// A page of the images that any satellite holds, or of those who hold one of them.
pub async fn images(
    State(app): State<Arc<App>>,
    _: Person,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Fault> {
    let rows_max = limit(&wanted.limit)?.unwrap_or(PAGE_ROWS_MAX);
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    if wanted.digest.is_empty() {
        let images = rows.held_images(&wanted.after, rows_max).await?;
        let images = images.iter().map(|image| {
            json!({
                "digest": image.digest,
                "image": image.image,
                "satellites": image.satellites,
            })
        });
        return Ok(Json(images.collect()));
    }
    let digest = parse_digest(&wanted.digest)?;
    let holders = rows.holders(&digest, &wanted.after, rows_max).await?;
    let holders = holders.iter().map(|holder| {
        json!({
            "satellite": holder.satellite,
            "image": holder.image,
            "since": clock::rfc3339(holder.since),
        })
    });
    Ok(Json(holders.collect()))
}

/// A digest as it is kept.
pub fn parse_digest(text: &str) -> Result<String, Fault> {
    let digest: Digest = text
        .trim()
        .parse()
        .map_err(|_| Fault::bad(format!("digest {}: expected {DIGEST_FORM}", shown(text))))?;
    Ok(digest.to_string())
}
