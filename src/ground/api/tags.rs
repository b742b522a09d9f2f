//! The tags of a group that are resolved for the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::etag::Expected;
use super::extract::{Body, Editor, Person};
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::{clock, tags};

pub async fn show(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let group = rows.group(&name).await?.ok_or_else(|| Fault::missing("Group not found"))?;
    let known = rows.group_tags(group.id).await?;
    let known = known.iter().map(|tag| {
        json!({
            "repository": tag.repository,
            "tag": tag.tag,
            "digest": tag.digest,
            "seen": tag.seen,
            "checked_at": clock::rfc3339(tag.checked_at),
            "problem": tag.problem,
        })
    });
    Ok(Json(json!({ "mode": group.tags.word(), "tags": known.collect::<Value>() })))
}

/// What a person looked at: digests by `repository:tag`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    tags: BTreeMap<String, String>,
}

pub async fn approve(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Path(name): Path<String>,
    Body(body): Body<Approval>,
) -> Result<Json<Value>, Fault> {
    let approved = tags::approve(&app, &person.actor, &expected, &name, &body.tags).await?;
    Ok(Json(json!({ "approved": approved })))
}
