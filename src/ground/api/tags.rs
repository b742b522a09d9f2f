//! The tags of a group that are resolved for the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::etag::{Expected, Version};
use super::extract::{Body, Editor, Person};
use super::groups::no_rollout;
use crate::fleet::shown;
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::store::GroupTag;
use crate::ground::{clock, journal, publish};

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
    let approved = approve_tags(&app, &person.actor, &expected, &name, &body.tags).await?;
    Ok(Json(json!({ "approved": approved })))
}

/// Takes for the fleet what tags of a group mean: for each, by `repository:tag`, the digest that a
/// person looked at. Where the registry says another one by now nothing is taken. Returns what
/// changed.
pub async fn approve_tags(
    app: &App,
    actor: &str,
    expected: &Expected,
    name: &str,
    looked_at: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let group = rows.group(name).await?.ok_or_else(|| Fault::missing("Group not found"))?;
    expected.check(&mut rows, &Version::of_group(app, &group)).await?;
    no_rollout(&mut rows, &group).await?;
    let known = rows.group_tags(group.id).await?;
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    for (what, digest) in looked_at {
        let tag = known.iter().find(|tag| tag.name() == *what).ok_or_else(|| {
            let what = shown(what);
            Fault::bad(format!("tag {what}: expected repository:tag of a tag that is resolved"))
        })?;
        if tag.seen != *digest {
            let now = if tag.seen.is_empty() { "not known" } else { &tag.seen };
            let message = format!(
                "{what} is {now} by now, not {}: nothing is approved, look at it again",
                shown(digest)
            );
            return Err(Fault::new(StatusCode::CONFLICT, message));
        }
        if tag.seen != tag.digest {
            before.insert(what.clone(), tag.digest.clone());
            after.insert(what.clone(), tag.seen.clone());
            let approved = GroupTag { digest: tag.seen.clone(), ..tag.clone() };
            rows.put_group_tag(group.id, &approved).await?;
        }
    }
    publish::group(&mut rows, &group).await?;
    journal::audit(&mut rows, actor, ("group.approve", name), &before, &after).await?;
    write.commit().await?;
    Ok(after)
}
