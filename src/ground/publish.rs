//! What the fleet is to be, made into the artifacts that satellites read.
//!
//! Each function runs in the transaction that changed the rows it reads: the artifacts change with
//! them or not at all, and satellites see the change when it is committed. What says the same as
//! before is left alone, so that its digest and its tag stay.

use serde::Serialize;

use super::fault::Fault;
use super::store::{Group, Rollout, Rows, Satellite};
use super::{artifact, clock, resolve};
use crate::fleet::state::{
    FILE_BYTES_MAX, GroupState, SatelliteState, config_repository, group_repository,
    satellite_repository, version_repository,
};
use crate::oci::Digest;

/// Publishes what a satellite is to be, for where it reads it. Without groups the list is empty, not
/// absent: the last group's removal is a change like any other.
pub async fn satellite(rows: &mut Rows<'_>, url: &str, satellite: &Satellite) -> Result<(), Fault> {
    let url = satellite.base(url);
    let groups = rows.satellite_versions(satellite.id).await?;
    let config = rows.satellite_config(satellite.id).await?;
    let state = SatelliteState {
        states: groups.iter().map(|group| artifact_url(url, &repository(group))).collect(),
        config: artifact_url(url, &config_repository(&config)),
    };
    state.check()?;
    let repository = satellite_repository(&satellite.name);
    if text(rows, &repository, &to_json(&state)?).await? {
        rows.outdate_satellite(satellite.id).await?;
    }
    Ok(())
}

/// Publishes the images of a group.
pub async fn group(rows: &mut Rows<'_>, group: &Group) -> Result<(), Fault> {
    let state = resolve::resolved(rows, group).await?;
    if text(rows, &repository(group), &to_json(&state)?).await? {
        rows.outdate_group(group.id).await?;
    }
    Ok(())
}

/// Publishes what a rollout brings, under a name of its own.
pub async fn release(rows: &mut Rows<'_>, rollout: &Rollout) -> Result<(), Fault> {
    let Rollout { id, state, policy, .. } = rollout;
    let group = match rows.group(&state.group).await? {
        Some(group) => resolve::resolved(rows, &group).await?,
        None => GroupState::default(),
    };
    let state = policy.bring(&group, state, clock::now());
    text(rows, &version_repository(&state.group, *id), &to_json(&state)?).await.map(drop)
}

/// Ends what was published of a group, but for its current state.
pub async fn forget_versions(rows: &mut Rows<'_>, group: &Group) -> Result<(), Fault> {
    let name = &group.state.group;
    let versions = rows.rollout_ids(group.id).await?;
    let versions = versions.iter().map(|version| version_repository(name, *version));
    for repository in versions.chain([group_repository(name)]) {
        if repository != self::repository(group) {
            rows.unpublish(&repository).await?;
        }
    }
    Ok(())
}

/// What stands for a satellite's state and all that it names, as they are published now.
pub async fn whole(
    rows: &mut Rows<'_>,
    satellite: &Satellite,
    digest: &str,
) -> Result<String, Fault> {
    let mut parts = vec![digest.to_owned()];
    let groups = rows.satellite_versions(satellite.id).await?;
    let config = rows.satellite_config(satellite.id).await?;
    let places = groups.iter().map(repository).chain([config_repository(&config)]);
    for place in places.collect::<Vec<_>>() {
        parts.push(rows.published_digest(&place).await?.unwrap_or_default());
    }
    Ok(Digest::sha256(parts.join("\n").as_bytes()).short())
}

/// Where the current state of a group is.
pub fn repository(group: &Group) -> String {
    match group.version {
        Some(version) => version_repository(&group.state.group, version),
        None => group_repository(&group.state.group),
    }
}

/// Publishes a configuration.
pub async fn config(rows: &mut Rows<'_>, name: &str, config: &str) -> Result<(), Fault> {
    if text(rows, &config_repository(name), config).await? {
        rows.outdate_config(name).await?;
    }
    Ok(())
}

/// Publishes everything: what has changed is the URL in it, or how this version writes it.
pub async fn all(rows: &mut Rows<'_>, url: &str) -> Result<(), Fault> {
    for one in rows.configs().await? {
        config(rows, &one.name, &one.config).await?;
    }
    for one in rows.groups().await? {
        group(rows, &one).await?;
    }
    for one in rows.active_rollouts().await? {
        release(rows, &one).await?;
    }
    for one in rows.satellites().await? {
        satellite(rows, url, &one).await?;
    }
    Ok(())
}

/// Where an artifact is, for satellites.
pub fn artifact_url(url: &str, repository: &str) -> String {
    format!("{url}/{repository}:latest")
}

/// A value as it is published.
pub fn to_json(value: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::internal("writing JSON", &error))
}

/// Publishes a text; false when it said the same before.
async fn text(rows: &mut Rows<'_>, repository: &str, content: &str) -> Result<bool, Fault> {
    if content.len() > FILE_BYTES_MAX {
        let length = content.len();
        return Err(Fault::bad(format!(
            "{length} bytes of state: expected at most {FILE_BYTES_MAX}"
        )));
    }
    if rows.published_content(repository).await?.as_deref() == Some(content) {
        return Ok(false);
    }
    let artifact = artifact::build(content, clock::now() / clock::SECOND)
        .map_err(|error| Fault::internal("making an artifact", &error))?;
    rows.publish(repository, content, &artifact).await?;
    Ok(true)
}
