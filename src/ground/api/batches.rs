//! Enrolment tokens for a batch of devices, and the approval of the devices that use one.
//!
//! Each device that asks becomes a satellite with the batch's groups, labels and configuration;
//! what distinguishes devices is the fact `device`, which Moonlet makes from its serial number.
//! Where a person is to approve, the satellite waits: it is given no credentials, so that it can
//! read neither its state nor a secret, and asks again until it may. The token of a batch opens the
//! door for new devices only: one that has enrolled with it needs a token of its own to do so
//! again.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, Editor, Person, Query, check_name};
use super::listing::{find, labels_of};
use super::satellites::place;
use super::tokens::{Span, life};
use crate::fleet::enrol::DEVICE;
use crate::fleet::{shown, valid_name};
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::journal::Kind;
use crate::ground::labels::{self, Labels};
use crate::ground::store::{Batch, NewDevice, Rows, Satellite, is_duplicate};
use crate::ground::{clock, journal, publish, secret};

/// A batch that is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct New {
    name: String,
    config_name: String,
    devices: i64,
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    approval: bool,
    #[serde(default)]
    expires_in: Option<Span>,
}

/// Which devices are asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Those of this batch, or of all.
    batch: String,
}

pub async fn list(State(app): State<Arc<App>>, _: Person) -> Result<Json<Value>, Fault> {
    let batches = app.store.read().await?.rows().batches().await?;
    Ok(Json(batches.iter().map(answer).collect()))
}

/// Makes the token of a batch. It is answered here and never again.
pub async fn create(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), Fault> {
    let new: New = serde_path_to_error::deserialize(body)
        .map_err(|error| Fault::bad(format!("{}: {}", error.path(), error.inner())))?;
    check_name("batch", &new.name, &[])?;
    if new.name.len() > NAME_BYTES_MAX {
        let name = shown(&new.name);
        let message = format!("batch {name}: expected at most {NAME_BYTES_MAX} characters");
        return Err(Fault::bad(message));
    }
    if !(1..=DEVICES_MAX).contains(&new.devices) {
        let devices = new.devices;
        return Err(Fault::bad(format!("devices {devices}: expected 1 to {DEVICES_MAX}")));
    }
    labels::check(&new.labels)?;
    let created_at = clock::now();
    let batch = Batch {
        name: new.name,
        config: new.config_name,
        groups: new.groups.into_iter().collect(),
        labels: new.labels,
        devices_max: new.devices,
        devices: 0,
        approval: new.approval,
        created_at,
        expires_at: created_at + life(new.expires_in)?,
    };
    let token = secret::random(16)?;
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let count = rows.batches().await?.len();
    if count >= BATCHES_MAX {
        return Err(Fault::bad(format!("{count} batches: expected at most {BATCHES_MAX}")));
    }
    if rows.config(&batch.config).await?.is_none() {
        let name = shown(&batch.config);
        let message = format!("config_name {name}: expected the name of a configuration");
        return Err(Fault::bad(message));
    }
    for name in &batch.groups {
        if rows.group(name).await?.is_none() {
            let message = format!("group {}: expected the name of a group", shown(name));
            return Err(Fault::bad(message));
        }
    }
    let added = rows.add_batch(&batch, &secret::hash(&token)).await;
    if added.as_ref().is_err_and(is_duplicate) {
        let message = format!("batch {}: the name is taken", shown(&batch.name));
        return Err(Fault::new(StatusCode::CONFLICT, message));
    }
    added?;
    let mut value = answer(&batch);
    journal::audit(&mut rows, &person.actor, ("batch.create", &batch.name), &(), &value).await?;
    write.commit().await?;
    if let Value::Object(fields) = &mut value {
        fields.insert("token".to_owned(), json!(token));
    }
    Ok((StatusCode::CREATED, Json(value)))
}

/// Ends the token of a batch for new devices; those that asked stay what they are.
pub async fn remove(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Path(name): Path<String>,
) -> Result<StatusCode, Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let batch = rows.batch(&name).await?.ok_or_else(|| Fault::missing("batch not found"))?;
    rows.delete_batch(&name).await?;
    let change = ("batch.delete", name.as_str());
    journal::audit(&mut rows, &person.actor, change, &answer(&batch), &()).await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The devices that wait for approval, with what they say of themselves.
pub async fn waiting(
    State(app): State<Arc<App>>,
    _: Person,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let mut answers = Vec::new();
    for satellite in rows.waiting(&wanted.batch, WAITING_ROWS_MAX).await? {
        let labels = labels_of(&mut rows, &satellite).await?;
        answers.push(json!({
            "name": satellite.name,
            "batch": satellite.batch,
            "device": satellite.device,
            "labels": labels,
            "since": satellite.waits_since.map(clock::rfc3339),
        }));
    }
    Ok(Json(Value::Array(answers)))
}

pub async fn approve(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    approve_satellite(&app, &person.actor, &name, None).await?;
    Ok(Json(json!({})))
}

/// Lets a device in; it is given its credentials when it asks next. One that does not wait any more
/// stays what it is. `looked_at` is the device that a person saw to wait, where that is known.
pub async fn approve_satellite(
    app: &App,
    actor: &str,
    name: &str,
    looked_at: Option<&str>,
) -> Result<(), Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = find(&mut rows, name).await?;
    let device = satellite.device.as_deref().unwrap_or_default();
    if let Some(seen) = looked_at.filter(|seen| *seen != device) {
        let seen = shown(seen);
        let message = format!("satellite {name}: device {device} waits by now, not {seen}");
        return Err(Fault::new(StatusCode::CONFLICT, message));
    }
    if !rows.approve_device(satellite.id, clock::now() + APPROVED_MICROS).await? {
        let lifecycle = satellite.lifecycle().word();
        let message =
            format!("satellite {name} is {lifecycle}: expected one that waits for approval");
        return Err(Fault::new(StatusCode::CONFLICT, message));
    }
    rows.add_event(&journal::event(Kind::Approved, name, "", &format!("by {actor}"))).await?;
    let device = json!({ "device": satellite.device });
    journal::audit(&mut rows, actor, ("satellite.approve", name), &(), &device).await?;
    write.commit().await?;
    Ok(())
}

/// The hash by which a device of a batch is known.
pub fn device_hash(token: &str, device: &str) -> String {
    secret::hash(&format!("{token} {device}"))
}

/// The satellite of a device that asks with the token of a batch; a new device becomes one.
pub async fn satellite_of(app: &App, token: &str, facts: &Labels) -> Result<Satellite, Fault> {
    let invalid = || Fault::bad("Error: Invalid Token");
    let batch = app.store.read().await?.rows().batch_by_token(&secret::hash(token)).await?;
    let device = facts.get(DEVICE).map(String::as_str).unwrap_or_default();
    if !valid_name(device) || device.len() < DEVICE_BYTES_MIN {
        // Who has no such token learns nothing of the one there is.
        let Some(batch) = batch else { return Err(invalid()) };
        let name = &batch.name;
        return Err(Fault::bad(format!(
            "Error: the token of batch {name} needs the fact device, by which devices differ: \
             expected Moonlet on a device with a serial number, a machine id or a key_file"
        )));
    }
    let hash = device_hash(token, device);
    if let Some(known) = app.store.read().await?.rows().satellite_of_device(&hash).await? {
        return Ok(known);
    }
    let batch = batch.ok_or_else(invalid)?;
    add(app, &batch.name, (device, &hash), facts).await
}

/// Makes a satellite of a device, if the batch still has a place.
async fn add(
    app: &App,
    batch: &str,
    (device, hash): (&str, &str),
    facts: &Labels,
) -> Result<Satellite, Fault> {
    let now = clock::now();
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    // The same device may have asked twice at once.
    if let Some(known) = rows.satellite_of_device(hash).await? {
        return Ok(known);
    }
    let batch = rows.batch(batch).await?.ok_or_else(|| Fault::bad("Error: Invalid Token"))?;
    if batch.expires_at <= now {
        return Err(Fault::new(StatusCode::UNAUTHORIZED, "Error: Token Expired"));
    }
    if batch.devices >= batch.devices_max {
        let Batch { name, devices_max, .. } = &batch;
        let message = format!("Error: all {devices_max} places of batch {name} are taken");
        return Err(Fault::new(StatusCode::FORBIDDEN, message));
    }
    let name = free_name(&mut rows, &batch.name, device).await?;
    let mut groups = Vec::new();
    for group in &batch.groups {
        // One that was removed since is one less.
        groups.extend(rows.group(group).await?.map(|group| group.state.group));
    }
    let satellite = place(app, &mut rows, &name, &batch.config, &groups, &batch.labels).await?;
    let new = NewDevice {
        batch: &batch.name,
        device,
        hash,
        waits: batch.approval,
        expires_at: now + APPROVED_MICROS,
    };
    rows.set_device(satellite.id, &new, now).await?;
    rows.set_facts(satellite.id, &labels::from_facts(facts)).await?;
    publish::satellite(&mut rows, &app.url, &satellite).await?;
    let actor = format!("batch {}", batch.name);
    let after = json!({ "groups": groups, "config": batch.config, "device": device });
    journal::audit(&mut rows, &actor, ("satellite.create", &name), &(), &after).await?;
    if batch.approval {
        let facts: Vec<String> =
            facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let message = format!("a device waits for approval: {}", facts.join(", "));
        rows.add_event(&journal::event(Kind::Waiting, &name, "", &message)).await?;
    }
    let satellite = rows.satellite_by_id(satellite.id).await?;
    write.commit().await?;
    satellite.ok_or_else(|| Fault::missing("satellite not found"))
}

/// The batch's name and so much of the device's own that no other satellite has it.
async fn free_name(rows: &mut Rows<'_>, batch: &str, device: &str) -> Result<String, Fault> {
    for length in [8, 16, 32] {
        let device = device.get(..length).unwrap_or(device);
        let name = format!("{batch}-{}", device.trim_end_matches(['.', '_', '-']));
        if rows.satellite(&name).await?.is_none() {
            return Ok(name);
        }
    }
    let message = format!("Error: a satellite of batch {batch} has this device's name");
    Err(Fault::new(StatusCode::CONFLICT, message))
}

fn answer(batch: &Batch) -> Value {
    json!({
        "name": batch.name,
        "config_name": batch.config,
        "groups": batch.groups,
        "labels": batch.labels,
        "devices_max": batch.devices_max,
        "devices": batch.devices,
        "approval": batch.approval,
        "created_at": clock::rfc3339(batch.created_at),
        "expires_at": clock::rfc3339(batch.expires_at),
    })
}

/// A device that is let in may be switched off: so long it is waited for.
const APPROVED_MICROS: i64 = 30 * 24 * 3600 * clock::SECOND;
/// Room for a device's own part in the name of a satellite.
const NAME_BYTES_MAX: usize = 48;
/// Of one batch.
const DEVICES_MAX: i64 = 100_000;
const BATCHES_MAX: usize = 1000;
/// A device's own word, so that it is not another's by chance.
const DEVICE_BYTES_MIN: usize = 8;
/// That are shown at a time; the rest come when these have been decided on.
pub const WAITING_ROWS_MAX: i64 = 200;
