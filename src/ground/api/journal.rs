//! The audit log and the fleet's events.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Person, Query};
use super::listing::limit;
use crate::fleet::shown;
use crate::ground::app::App;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::store::{Event, Part};

/// Which part of a log is asked for: the newest first, those before an id, or those after one,
/// which come oldest first, so that a program can follow.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    after: String,
    before: String,
    /// Events of this satellite only.
    pub satellite: String,
    limit: String,
}

impl Wanted {
    pub fn part(&self) -> Result<Part<'_>, Fault> {
        Ok(Part {
            after: id("after", &self.after)?,
            before: id("before", &self.before)?,
            satellite: &self.satellite,
            rows_max: limit(&self.limit)?.unwrap_or(PAGE_ROWS),
        })
    }
}

fn id(name: &str, text: &str) -> Result<Option<i64>, Fault> {
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(id) => Ok(Some(id)),
        Err(_) => Err(Fault::bad(format!("{name} {}: expected an id", shown(text)))),
    }
}

pub async fn audit(
    State(app): State<Arc<App>>,
    _: Person,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Fault> {
    let entries = app.store.read().await?.rows().audit(&wanted.part()?).await?;
    // What is kept is JSON, or nothing.
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let entries = entries.iter().map(|entry| {
        json!({
            "id": entry.id,
            "at": clock::rfc3339(entry.at),
            "actor": entry.actor,
            "action": entry.action,
            "object": entry.object,
            "before": value(&entry.before),
            "after": value(&entry.after),
        })
    });
    Ok(Json(entries.collect()))
}

pub async fn events(
    State(app): State<Arc<App>>,
    _: Person,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Fault> {
    let events = app.store.read().await?.rows().events(&wanted.part()?).await?;
    Ok(Json(events.iter().map(event).collect()))
}

/// An event as the API answers it and as a webhook sends it.
pub fn event(event: &Event) -> Value {
    json!({
        "id": event.id,
        "at": clock::rfc3339(event.at),
        "kind": event.kind,
        "satellite": event.satellite,
        "object": event.object,
        "message": event.message,
    })
}

/// Without a limit.
const PAGE_ROWS: i64 = 100;
