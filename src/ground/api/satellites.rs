//! Satellites, as people see them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::configs::assign_config;
use super::etag::{Expected, Version};
use super::extract::{Body, Editor, Person, Query, check_name};
use super::groups::change_groups;
use super::listing::{Listing, find, labels_of, row, with};
use super::null_string;
use crate::fleet::shown;
use crate::fleet::state::satellite_repository;
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::journal::Kind;
use crate::ground::labels::Labels;
use crate::ground::model::{Connection, Updated};
use crate::ground::store::{Rows, Satellite, Status, is_duplicate};
use crate::ground::{clock, journal, labels, publish, rollout, secret};

#[derive(Deserialize)]
pub struct NewSatellite {
    pub name: String,
    #[serde(default)]
    pub groups: Option<Vec<String>>,
    #[serde(default)]
    pub config_name: String,
    #[serde(default)]
    pub labels: Option<Labels>,
}

/// What is to change of a satellite; what is not named stays.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// Null takes a label away.
    pub labels: BTreeMap<String, Option<String>>,
    /// The name of its configuration.
    pub config_name: Option<String>,
    /// The names of its groups, of all of them.
    pub groups: Option<BTreeSet<String>>,
}

pub async fn list(
    State(app): State<Arc<App>>,
    _: Person,
    Query(listing): Query<Listing>,
) -> Result<Json<Value>, Fault> {
    let now = clock::now();
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let satellites = listing.read(&mut rows, "", "", now).await?;
    let (Some((first, ..)), Some((last, ..))) = (satellites.first(), satellites.last()) else {
        return Ok(Json(json!([])));
    };
    let mut groups = rows.groups_between(&first.name, &last.name).await?;
    let mut configs = rows.configs_between(&first.name, &last.name).await?;
    let answers = satellites.iter().map(|(satellite, last, labels)| {
        let unknown = Updated::Unknown.word();
        let groups = groups.remove(&satellite.id).unwrap_or_default();
        let config = configs.remove(&satellite.id).unwrap_or_default();
        let version = Version::of_satellite(&app, satellite, &groups, &config, labels);
        let more = [
            ("Labels", json!(labels)),
            ("Groups", json!(groups)),
            ("ConfigName", json!(config)),
            ("ETag", json!(version.tag())),
            ("Connection", json!(satellite.connection(now).word())),
            ("Updated", json!(last.as_ref().map_or(unknown, |last| &last.updated))),
            ("Health", json!(last.as_ref().map_or(unknown, |last| &last.health))),
            ("Lifecycle", json!(satellite.lifecycle().word())),
            ("Reason", json!(last.as_ref().map_or("", |last| &last.reason))),
        ];
        with(row(satellite), more)
    });
    Ok(Json(answers.collect()))
}

pub async fn register(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Body(body): Body<NewSatellite>,
) -> Result<Json<Value>, Fault> {
    let token = add_satellite(&app, &person.actor, body).await?;
    Ok(Json(json!({ "token": token })))
}

/// Adds a satellite; the token that enrols it is returned here and never again.
pub async fn add_satellite(app: &App, actor: &str, body: NewSatellite) -> Result<String, Fault> {
    check_name("satellite", &body.name, &["active", "stale", "register"])?;
    let mut groups = body.groups.unwrap_or_default();
    groups.sort();
    groups.dedup();
    let labels = body.labels.unwrap_or_default();
    labels::check(&labels)?;
    let token = secret::random(16)?;
    let now = clock::now();
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = place(app, &mut rows, &body.name, &body.config_name, &groups, &labels).await?;
    rows.set_enrolment(satellite.id, &secret::hash(&token), now + TOKEN_MICROS).await?;
    publish::satellite(&mut rows, &app.url, &satellite).await?;
    let new = json!({ "groups": groups, "config": body.config_name, "labels": labels });
    journal::audit(&mut rows, actor, ("satellite.create", &body.name), &(), &new).await?;
    write.commit().await?;
    Ok(token)
}

/// Adds a satellite with its configuration, groups and labels; its state is yet to be published.
pub async fn place(
    app: &App,
    rows: &mut Rows<'_>,
    name: &str,
    config: &str,
    groups: &[String],
    labels: &Labels,
) -> Result<Satellite, Fault> {
    let found = rows.config(config).await?;
    let config = found.ok_or_else(|| {
        let name = shown(config);
        Fault::bad(format!("config_name {name}: expected the name of a configuration"))
    })?;
    let added = rows.add_satellite(name, config.id, clock::now()).await;
    if added.as_ref().is_err_and(is_duplicate) {
        return Err(Fault::bad("Error: failed to create satellite: the name is taken"));
    }
    let mut satellite = added?;
    app.home().clone_into(&mut satellite.home);
    rows.set_home(satellite.id, app.home()).await?;
    for name in groups {
        let group = rows.group(name).await?;
        let group =
            group.ok_or_else(|| Fault::bad(format!("Error: Invalid Group Name: {name:?}")))?;
        rollout::join(rows, satellite.id, &group).await?;
    }
    for (label, value) in labels {
        rows.set_label(satellite.id, label, value).await?;
    }
    Ok(satellite)
}

pub async fn update(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Path(name): Path<String>,
    Body(change): Body<Change>,
) -> Result<Response, Fault> {
    change_satellite(&app, &person.actor, &expected, &name, &change).await?;
    let mut read = app.store.read().await?;
    details(&app, &mut read.rows(), &name).await
}

/// Changes a satellite in one transaction: there is no state in which it has left one group and not
/// yet joined the other.
pub async fn change_satellite(
    app: &App,
    actor: &str,
    expected: &Expected,
    name: &str,
    change: &Change,
) -> Result<(), Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = find(&mut rows, name).await?;
    let version = Version::read_satellite(app, &mut rows, &satellite).await?;
    expected.check(&mut rows, &version).await?;
    if !change.labels.is_empty() {
        change_labels(&mut rows, actor, &satellite, &change.labels).await?;
    }
    if let Some(config) = &change.config_name {
        assign_config(&mut rows, actor, &satellite, config).await?;
    }
    if let Some(groups) = &change.groups {
        change_groups(&mut rows, actor, &satellite, groups).await?;
    }
    publish::satellite(&mut rows, &app.url, &satellite).await?;
    write.commit().await?;
    Ok(())
}

/// Sets a satellite's labels, and removes those that have no value.
async fn change_labels(
    rows: &mut Rows<'_>,
    actor: &str,
    satellite: &Satellite,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<(), Fault> {
    let before = labels_of(rows, satellite).await?;
    for (label, value) in changes {
        match value {
            Some(value) => {
                labels::check_label(label, value)?;
                rows.set_label(satellite.id, label, value).await?;
            }
            None => rows.remove_label(satellite.id, label).await?,
        }
    }
    let after = labels_of(rows, satellite).await?;
    labels::check_count(after.len())?;
    journal::audit(rows, actor, ("satellite.labels", &satellite.name), &before, &after).await
}

/// A new enrolment token for a satellite whose device was replaced or flashed anew. The credentials
/// in use stay good until the device that enrols with it has used its own.
pub async fn renew_token(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    Ok(Json(json!({ "token": new_token(&app, &person.actor, &name).await? })))
}

/// Makes an enrolment token for a satellite that exists; it is returned here and never again.
pub async fn new_token(app: &App, actor: &str, name: &str) -> Result<String, Fault> {
    let token = secret::random(16)?;
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = find(&mut rows, name).await?;
    let expires_at = clock::now() + TOKEN_MICROS;
    rows.set_enrolment(satellite.id, &secret::hash(&token), expires_at).await?;
    journal::audit(&mut rows, actor, ("satellite.token", name), &(), &()).await?;
    write.commit().await?;
    Ok(token)
}

/// Ends the credentials of a satellite at once: those of a device that was lost, say. What is known
/// of it stays, and a new token lets a device enrol as it again.
pub async fn revoke(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    revoke_satellite(&app, &person.actor, &name).await?;
    Ok(Json(json!({})))
}

/// The same, for the console too.
pub async fn revoke_satellite(app: &App, actor: &str, name: &str) -> Result<(), Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = find(&mut rows, name).await?;
    rows.revoke_satellite(satellite.id, clock::now()).await?;
    let event = journal::event(Kind::Revoked, name, "", "its credentials were ended");
    rows.add_event(&event).await?;
    journal::audit(&mut rows, actor, ("satellite.revoke", name), &(), &()).await?;
    write.commit().await?;
    Ok(())
}

pub async fn active(
    State(app): State<Arc<App>>,
    _: Person,
    Query(listing): Query<Listing>,
) -> Result<Json<Value>, Fault> {
    let mut read = app.store.read().await?;
    let online = Connection::Online.word();
    let satellites = listing.read(&mut read.rows(), online, "", clock::now()).await?;
    let active = satellites.into_iter().map(|(satellite, last, _)| {
        let reported_at = last.as_ref().and_then(|last| last.reported_at);
        let status_time = reported_at.or(satellite.last_seen).unwrap_or_default();
        let activity = last.map(|last| last.activity).unwrap_or_default();
        let more = [
            ("LastActivity", json!(activity)),
            ("LastStatusTime", json!(clock::rfc3339(status_time))),
        ];
        with(row(&satellite), more)
    });
    Ok(Json(active.collect()))
}

/// Satellites that missed three reports.
pub async fn stale(
    State(app): State<Arc<App>>,
    _: Person,
    Query(listing): Query<Listing>,
) -> Result<Json<Value>, Fault> {
    let now = clock::now();
    let mut read = app.store.read().await?;
    let away = format!("{} {}", Connection::Stale.word(), Connection::Offline.word());
    let satellites = listing.read(&mut read.rows(), &away, "", now).await?;
    let stale = satellites.iter().map(|(satellite, ..)| {
        let seconds = satellite.last_seen.map_or(0, |seen| (now - seen) / clock::SECOND);
        with(row(satellite), [("SecondsSinceSeen", json!(seconds))])
    });
    Ok(Json(stale.collect()))
}

pub async fn show(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    let mut read = app.store.read().await?;
    details(&app, &mut read.rows(), &name).await
}

async fn details(app: &App, rows: &mut Rows<'_>, name: &str) -> Result<Response, Fault> {
    let satellite = find(rows, name).await?;
    let groups = rows.satellite_groups(satellite.id).await?;
    let config = rows.satellite_config(satellite.id).await?;
    let labels = labels_of(rows, &satellite).await?;
    let version = Version::of_satellite(app, &satellite, &groups, &config, &labels);
    let more = [
        ("Groups", json!(groups)),
        ("ConfigName", json!(config)),
        ("Labels", json!(labels)),
        ("Lifecycle", json!(satellite.lifecycle().word())),
        ("Batch", json!(satellite.batch)),
        ("Device", json!(satellite.device)),
        ("ETag", json!(version.tag())),
    ];
    Ok(version.with(Json(with(row(&satellite), more))))
}

pub async fn remove(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    remove_satellite(&app, &person.actor, &expected, &name).await?;
    Ok(Json(json!({})))
}

/// Deletes a satellite. Its credentials and its tokens end at once.
pub async fn remove_satellite(
    app: &App,
    actor: &str,
    expected: &Expected,
    name: &str,
) -> Result<(), Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = rows.satellite(name).await?;
    let satellite = satellite.ok_or_else(|| Fault::bad("Error: Satellite Not Found"))?;
    let version = Version::read_satellite(app, &mut rows, &satellite).await?;
    expected.check(&mut rows, &version).await?;
    let labels = labels_of(&mut rows, &satellite).await?;
    let before = json!({
        "groups": rows.satellite_groups(satellite.id).await?,
        "config": rows.satellite_config(satellite.id).await?,
        "labels": labels,
    });
    rows.delete_satellite(satellite.id).await?;
    let event = journal::event(Kind::Decommissioned, name, "", "it was deleted");
    rows.add_event(&event).await?;
    journal::audit(&mut rows, actor, ("satellite.delete", name), &before, &()).await?;
    rows.unpublish(&satellite_repository(name)).await?;
    write.commit().await?;
    Ok(())
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
    let satellite = find(&mut rows, &name).await?;
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
    let satellite = find(&mut rows, name).await?;
    let status = rows.status(satellite.id).await?;
    status.ok_or_else(|| Fault::missing("no status available"))
}

/// An enrolment token's life: a day.
const TOKEN_MICROS: i64 = 24 * 3600 * clock::SECOND;
