//! Groups of images.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::etag::{Expected, Version};
use super::extract::{Body, Editor, Person, Query, SystemAdmin, check_name};
use super::listing::{Listing, brief};
use crate::fleet::shown;
use crate::fleet::state::{Artifact, GroupState};
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::model::Mode;
use crate::ground::store::{Group, Rollout, Rows, Satellite};
use crate::ground::{clock, journal, publish, resolve, rollout};

/// A group as its author sends it.
#[derive(Deserialize)]
pub struct Sent {
    #[serde(flatten)]
    state: GroupState,
    /// How its tags are taken; as before where it is not said.
    tags: Option<String>,
}

#[derive(Deserialize)]
pub struct Membership {
    satellite: String,
    group: String,
}

pub async fn list(State(app): State<Arc<App>>, _: Person) -> Result<Json<Value>, Fault> {
    let groups = app.store.read().await?.rows().groups().await?;
    Ok(Json(groups.iter().map(|group| answer(&app, group)).collect()))
}

pub async fn sync(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Body(sent): Body<Sent>,
) -> Result<Response, Fault> {
    let mode = match sent.tags {
        Some(word) => Some(Mode::parse(&word).ok_or_else(|| {
            Fault::bad(format!("tags {}: expected off, follow or pin", shown(&word)))
        })?),
        None => None,
    };
    let wanted = (sent.state, mode);
    let group = put_group(&app, &person.actor, &expected, wanted, |_, _| {}).await?;
    Ok(versioned(&app, &group))
}

/// Adds a group, or replaces the images of the one of that name. `complete` gets the images that
/// the group had, and adds to the new ones what their author could not say. Without a mode its tags
/// are taken as before.
pub async fn put_group(
    app: &App,
    actor: &str,
    expected: &Expected,
    (mut state, mode): (GroupState, Option<Mode>),
    complete: impl FnOnce(&[Artifact], &mut Vec<Artifact>),
) -> Result<Group, Fault> {
    check_name("group", &state.group, &["sync", "satellite"])?;
    state.check()?;
    if state.staged.is_some() {
        return Err(Fault::bad("staged: expected a rollout of the group, which stages its images"));
    }
    state.registry.truncate(state.registry.trim_end_matches('/').len());
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let before = rows.group(&state.group).await?;
    match &before {
        Some(before) => expected.check(&mut rows, &Version::of_group(app, before)).await?,
        None => expected.check_absent("group", &state.group)?,
    }
    if let Some(before) = &before {
        complete(&before.state.artifacts, &mut state.artifacts);
        state.check()?;
    }
    let held = before.as_ref().map_or(Mode::Off, |before| before.tags);
    let mode = mode.unwrap_or(held);
    resolve::check(&state, mode)?;
    let is_same = |before: &&Group| before.state == state && before.tags == mode;
    if let Some(same) = before.as_ref().filter(is_same) {
        return Ok(same.clone());
    }
    if let Some(before) = &before {
        no_rollout(&mut rows, before).await?;
    }
    let mut group = rows.put_group(&state, clock::now()).await?;
    group.tags = mode;
    rows.set_tag_mode(group.id, mode.word()).await?;
    let is_moved = before.as_ref().is_some_and(|before| before.state.registry != state.registry);
    if mode == Mode::Off || is_moved {
        // What another registry said of a tag, or said long ago, counts no more.
        rows.forget_group_tags(group.id).await?;
    }
    publish::group(&mut rows, &group).await?;
    let change = ("group.put", group.state.group.as_str());
    let audited = |group: &Group| Audited { state: group.state.clone(), tags: group.tags.word() };
    let (before, after) = (before.as_ref().map(audited), audited(&group));
    journal::audit(&mut rows, actor, change, &before, &after).await?;
    write.commit().await?;
    Ok(group)
}

/// A group in the audit log.
#[derive(Serialize)]
struct Audited {
    #[serde(flatten)]
    state: GroupState,
    tags: &'static str,
}

/// Refuses to change a group from under a rollout.
pub async fn no_rollout(rows: &mut Rows<'_>, group: &Group) -> Result<(), Fault> {
    match rows.active_rollout(group.id).await? {
        None => Ok(()),
        Some(Rollout { name, phase, .. }) => {
            let (group, phase) = (&group.state.group, phase.word());
            let message = format!(
                "group {group}: its rollout {name} is {phase}: expected it to end, or be aborted"
            );
            Err(Fault::new(StatusCode::CONFLICT, message))
        }
    }
}

pub async fn show(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    let group = app.store.read().await?.rows().group(&name).await?;
    let group = group.ok_or_else(|| Fault::missing("Group not found"))?;
    Ok(versioned(&app, &group))
}

/// Deletes a group; the satellites that were in it get a new state.
pub async fn remove(
    State(app): State<Arc<App>>,
    SystemAdmin(person): SystemAdmin,
    expected: Expected,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let group = rows.group(&name).await?;
    let group = group.ok_or_else(|| Fault::missing("Error: Group Not Found"))?;
    expected.check(&mut rows, &Version::of_group(&app, &group)).await?;
    no_rollout(&mut rows, &group).await?;
    let satellites = rows.group_satellites(group.id).await?;
    publish::forget_versions(&mut rows, &group).await?;
    rows.unpublish(&publish::repository(&group)).await?;
    rows.delete_group(group.id).await?;
    for satellite in &satellites {
        publish::satellite(&mut rows, &app.url, satellite).await?;
    }
    let change = ("group.delete", name.as_str());
    journal::audit(&mut rows, &person.actor, change, &group.state, &()).await?;
    write.commit().await?;
    Ok(Json(json!({})))
}

pub async fn satellites(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
    Query(listing): Query<Listing>,
) -> Result<Json<Value>, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    if rows.group(&name).await?.is_none() {
        return Err(Fault::missing("error: group not found"));
    }
    let satellites = listing.read(&mut rows, "", &name, clock::now()).await?;
    Ok(Json(satellites.iter().map(|(satellite, ..)| brief(satellite)).collect()))
}

pub async fn add_satellite(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Body(body): Body<Membership>,
) -> Result<Json<Value>, Fault> {
    change_membership(&app, &person.actor, &expected, &body, true).await
}

pub async fn remove_satellite(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Body(body): Body<Membership>,
) -> Result<Json<Value>, Fault> {
    change_membership(&app, &person.actor, &expected, &body, false).await
}

async fn change_membership(
    app: &App,
    actor: &str,
    expected: &Expected,
    body: &Membership,
    join: bool,
) -> Result<Json<Value>, Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = rows.satellite(&body.satellite).await?;
    let satellite = satellite.ok_or_else(|| Fault::bad("Error: Satellite Not Found"))?;
    let version = Version::read_satellite(app, &mut rows, &satellite).await?;
    expected.check(&mut rows, &version).await?;
    let group = rows.group(&body.group).await?;
    let group = group.ok_or_else(|| Fault::bad("Error: Group Not Found"))?;
    let before = rows.satellite_groups(satellite.id).await?;
    if join {
        rollout::join(&mut rows, satellite.id, &group).await?;
    } else if !rows.leave_group(satellite.id, group.id).await? {
        return Err(Fault::bad("Error: Satellite Not In Group"));
    }
    groups_changed(&mut rows, actor, &satellite, &before).await?;
    publish::satellite(&mut rows, &app.url, &satellite).await?;
    write.commit().await?;
    Ok(Json(json!({})))
}

/// Puts a satellite into these groups and no others; its state is yet to be published.
pub async fn change_groups(
    rows: &mut Rows<'_>,
    actor: &str,
    satellite: &Satellite,
    wanted: &BTreeSet<String>,
) -> Result<(), Fault> {
    let before = rows.satellite_groups(satellite.id).await?;
    let held: BTreeSet<String> = before.iter().cloned().collect();
    for name in held.symmetric_difference(wanted) {
        let group = rows.group(name).await?;
        let group = group.ok_or_else(|| {
            Fault::bad(format!("group {}: expected the name of a group", shown(name)))
        })?;
        if wanted.contains(name) {
            rollout::join(rows, satellite.id, &group).await?;
        } else {
            rows.leave_group(satellite.id, group.id).await?;
        }
    }
    groups_changed(rows, actor, satellite, &before).await
}

async fn groups_changed(
    rows: &mut Rows<'_>,
    actor: &str,
    satellite: &Satellite,
    before: &[String],
) -> Result<(), Fault> {
    let after = rows.satellite_groups(satellite.id).await?;
    let change = ("satellite.groups", satellite.name.as_str());
    journal::audit(rows, actor, change, &before, &after).await
}

fn versioned(app: &App, group: &Group) -> Response {
    Version::of_group(app, group).with(Json(answer(app, group)))
}

/// A row as Go answers it, and beside it the images, which Go keeps in Harbor only.
fn answer(app: &App, group: &Group) -> Value {
    let state = &group.state;
    // The first part of a repository is a project in Harbor.
    let projects: BTreeSet<&str> = state
        .artifacts
        .iter()
        .filter_map(|artifact| artifact.repository.split('/').next())
        .collect();
    let own = if app.home().is_empty() { &app.url } else { app.home() };
    let registry = if state.registry.is_empty() { own } else { &state.registry };
    json!({
        "ID": group.id,
        "GroupName": state.group,
        "RegistryUrl": registry,
        "Registry": state.registry,
        "Projects": projects,
        "CreatedAt": clock::rfc3339(group.created_at),
        "UpdatedAt": clock::rfc3339(group.updated_at),
        "Artifacts": state.artifacts,
        "Platforms": state.platforms,
        "Tags": group.tags.word(),
        "ETag": Version::of_group(app, group).tag(),
    })
}
