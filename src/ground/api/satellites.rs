//! Satellites, as people see them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, Person, check_name};
use super::{null_string, null_time};
use crate::fleet::shown;
use crate::fleet::state::satellite_repository;
use crate::ground::app::{App, Fault, random};
use crate::ground::store::{Connection, Satellite, Status, is_duplicate};
use crate::ground::{clock, publish, secret};

#[derive(Deserialize)]
pub struct NewSatellite {
    pub name: String,
    #[serde(default)]
    pub groups: Option<Vec<String>>,
    #[serde(default)]
    pub config_name: String,
}

pub async fn list(State(app): State<Arc<App>>, _: Person) -> Result<Json<Value>, Fault> {
    let satellites = app.store.read().await?.rows().satellites().await?;
    Ok(Json(satellites.iter().map(row).collect()))
}

pub async fn register(
    State(app): State<Arc<App>>,
    _: Person,
    Body(body): Body<NewSatellite>,
) -> Result<Json<Value>, Fault> {
    let token = add_satellite(&app, body).await?;
    Ok(Json(json!({ "token": token })))
}

/// Adds a satellite; the token that enrols it is returned here and never again.
pub async fn add_satellite(app: &App, body: NewSatellite) -> Result<String, Fault> {
    check_name("satellite", &body.name, &["active", "stale", "register"])?;
    let mut groups = body.groups.unwrap_or_default();
    groups.sort();
    groups.dedup();
    let token = random(16)?;
    let now = clock::now();
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let config = rows.config(&body.config_name).await?;
    let config = config.ok_or_else(|| {
        let name = shown(&body.config_name);
        Fault::bad(format!("config_name {name}: expected the name of a configuration"))
    })?;
    let added = rows.add_satellite(&body.name, config.id, now).await;
    if added.as_ref().is_err_and(is_duplicate) {
        return Err(Fault::bad("Error: failed to create satellite: the name is taken"));
    }
    let satellite = added?;
    for name in &groups {
        let group = rows.group(name).await?;
        let group =
            group.ok_or_else(|| Fault::bad(format!("Error: Invalid Group Name: {name:?}")))?;
        rows.join_group(satellite.id, group.id).await?;
    }
    rows.set_enrolment(satellite.id, &secret::hash(&token), now + TOKEN_MICROS).await?;
    publish::satellite(&mut rows, &app.url, &satellite).await?;
    write.commit().await?;
    Ok(token)
}

/// A new enrolment token for a satellite whose device was replaced or flashed anew. The credentials
/// in use stay good until the device that enrols with it has used its own.
pub async fn renew_token(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let token = random(16)?;
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = rows.satellite(&name).await?.ok_or_else(not_found)?;
    let expires_at = clock::now() + TOKEN_MICROS;
    rows.set_enrolment(satellite.id, &secret::hash(&token), expires_at).await?;
    write.commit().await?;
    Ok(Json(json!({ "token": token })))
}

pub async fn active(State(app): State<Arc<App>>, _: Person) -> Result<Json<Value>, Fault> {
    let now = clock::now();
    let satellites = app.store.read().await?.rows().summaries().await?;
    let active = satellites.into_iter().filter_map(|(satellite, last)| {
        let seen = satellite.last_seen?;
        if satellite.connection(now) != Connection::Online {
            return None;
        }
        let status_time = last.as_ref().and_then(|last| last.reported_at).unwrap_or(seen);
        let activity = last.map(|last| last.activity).unwrap_or_default();
        let mut value = row(&satellite);
        if let Value::Object(fields) = &mut value {
            fields.insert("LastActivity".into(), json!(activity));
            fields.insert("LastStatusTime".into(), json!(clock::rfc3339(status_time)));
        }
        Some(value)
    });
    Ok(Json(active.collect()))
}

/// Satellites that missed three reports.
pub async fn stale(State(app): State<Arc<App>>, _: Person) -> Result<Json<Value>, Fault> {
    let now = clock::now();
    let satellites = app.store.read().await?.rows().satellites().await?;
    let stale = satellites.iter().filter_map(|satellite| {
        let seen = satellite.last_seen?;
        if satellite.connection(now) == Connection::Online {
            return None;
        }
        let mut value = row(satellite);
        if let Value::Object(fields) = &mut value {
            fields.insert("SecondsSinceSeen".into(), json!((now - seen) / clock::SECOND));
        }
        Some(value)
    });
    Ok(Json(stale.collect()))
}

pub async fn show(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let satellite = rows.satellite(&name).await?.ok_or_else(not_found)?;
    let mut value = row(&satellite);
    if let Value::Object(fields) = &mut value {
        fields.insert("Groups".into(), json!(rows.satellite_groups(satellite.id).await?));
        fields.insert("ConfigName".into(), json!(rows.satellite_config(satellite.id).await?));
    }
    Ok(Json(value))
}

/// Deletes a satellite. Its credentials and its tokens end at once.
pub async fn remove(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = rows.satellite(&name).await?;
    let satellite = satellite.ok_or_else(|| Fault::bad("Error: Satellite Not Found"))?;
    rows.delete_satellite(satellite.id).await?;
    rows.unpublish(&satellite_repository(&name)).await?;
    write.commit().await?;
    Ok(Json(json!({})))
}

pub async fn status(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let status = last_status(&app, &name).await?;
    let report = status.report;
    // Go numbers the images of all satellites in a table of its own.
    let ids: Vec<usize> = (1..=report.cached_images.len()).collect();
    Ok(Json(json!({
        "ID": status.number,
        "SatelliteID": status.satellite_id,
        "Activity": report.activity,
        "LatestStateDigest": null_string(Some(&report.latest_state_digest)),
        "LatestConfigDigest": null_string(Some(&report.latest_config_digest)),
        "CpuPercent": { "String": format!("{:.2}", report.cpu_percent), "Valid": true },
        "MemoryUsedBytes": { "Int64": report.memory_used_bytes, "Valid": true },
        "StorageUsedBytes": { "Int64": report.storage_used_bytes, "Valid": true },
        "LastSyncDurationMs": { "Int64": report.last_sync_duration_ms, "Valid": true },
        "ImageCount": { "Int32": report.image_count, "Valid": true },
        "ReportedAt": status.reported_at.map_or_else(|| super::NO_TIME.to_owned(), clock::rfc3339),
        "CreatedAt": clock::rfc3339(status.created_at),
        "ArtifactIds": if ids.is_empty() { Value::Null } else { json!(ids) },
    })))
}

/// The images that a satellite said it holds.
pub async fn images(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let satellite = rows.satellite(&name).await?.ok_or_else(not_found)?;
    let Some(status) = rows.status(satellite.id).await? else { return Ok(Json(json!([]))) };
    let created_at = clock::rfc3339(status.created_at);
    let mut images = status.report.cached_images;
    images.sort_by(|one, other| one.reference.cmp(&other.reference));
    let images = (1..).zip(&images).map(|(id, image)| {
        json!({
            "ID": id,
            "Reference": image.reference,
            "SizeBytes": image.size_bytes,
            "CreatedAt": created_at,
        })
    });
    Ok(Json(images.collect()))
}

async fn last_status(app: &App, name: &str) -> Result<Status, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let satellite = rows.satellite(name).await?.ok_or_else(not_found)?;
    let status = rows.status(satellite.id).await?;
    status.ok_or_else(|| Fault::missing("no status available"))
}

fn not_found() -> Fault {
    Fault::missing("satellite not found")
}

/// A row as Go answers it.
fn row(satellite: &Satellite) -> Value {
    json!({
        "ID": satellite.id,
        "Name": satellite.name,
        "CreatedAt": clock::rfc3339(satellite.created_at),
        "UpdatedAt": clock::rfc3339(satellite.updated_at),
        "LastSeen": null_time(satellite.last_seen),
        "HeartbeatInterval": null_string(satellite.heartbeat_interval.as_deref()),
    })
}

/// A row as Go answers it in the list of a group's satellites.
pub fn brief(satellite: &Satellite) -> Value {
    json!({
        "ID": satellite.id,
        "Name": satellite.name,
        "CreatedAt": clock::rfc3339(satellite.created_at),
        "UpdatedAt": clock::rfc3339(satellite.updated_at),
    })
}

/// An enrolment token's life: a day.
const TOKEN_MICROS: i64 = 24 * 3600 * clock::SECOND;
