//! Groups of images, and which satellites are in them.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use sqlx::{Result, Row as _};

use super::{Rows, Satellite, from_json, satellites, to_json};
use crate::fleet::state::GroupState;
use crate::ground::clock;
use crate::ground::model::{Mode, Policy};

/// A group.
#[derive(Clone)]
pub struct Group {
    pub id: i64,
    pub state: GroupState,
    /// The rollout that its state came by, which names the version; None by none.
    pub version: Option<i64>,
    /// How its tags are taken.
    pub tags: Mode,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Rows<'_> {
    pub async fn groups(&mut self) -> Result<Vec<Group>> {
        let rows = sqlx::query("SELECT * FROM image_groups ORDER BY name").fetch_all(&mut *self.0);
        rows.await?.iter().map(group).collect()
    }

    pub async fn group(&mut self, name: &str) -> Result<Option<Group>> {
        let query = sqlx::query("SELECT * FROM image_groups WHERE name = $1").bind(name);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(group).transpose()
    }

    /// Adds a group, or replaces the images of the one of that name.
    pub async fn put_group(&mut self, state: &GroupState, now: i64) -> Result<Group> {
        let artifacts = to_json(&state.artifacts)?;
        let platforms = to_json(&state.platforms)?;
        let query = sqlx::query(
            "INSERT INTO image_groups (name, registry, artifacts, platforms, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (name) DO UPDATE SET \
             registry = excluded.registry, artifacts = excluded.artifacts, \
             platforms = excluded.platforms, updated_at = excluded.updated_at RETURNING *",
        );
        let query = query.bind(&state.group).bind(&state.registry).bind(artifacts);
        let query = query.bind(platforms).bind(now);
        group(&query.fetch_one(&mut *self.0).await?)
    }

    pub async fn delete_group(&mut self, id: i64) -> Result<()> {
        let query = sqlx::query("DELETE FROM image_groups WHERE id = $1").bind(id);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// The satellites of a group.
    pub async fn group_satellites(&mut self, group_id: i64) -> Result<Vec<Satellite>> {
        let query = sqlx::query(
            "SELECT satellites.* FROM satellites JOIN satellite_groups \
             ON satellite_groups.satellite_id = satellites.id \
             WHERE satellite_groups.group_id = $1 ORDER BY satellites.name",
        );
        let rows = query.bind(group_id).fetch_all(&mut *self.0).await?;
        rows.iter().map(satellites::satellite).collect()
    }

    /// The names of a satellite's groups.
    pub async fn satellite_groups(&mut self, satellite_id: i64) -> Result<Vec<String>> {
        let query = sqlx::query(
            "SELECT image_groups.name FROM image_groups JOIN satellite_groups \
             ON satellite_groups.group_id = image_groups.id \
             WHERE satellite_groups.satellite_id = $1 ORDER BY image_groups.name",
        );
        let rows = query.bind(satellite_id).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| row.try_get("name")).collect()
    }

    /// The names of the groups of the satellites with names from `first` to `last`, by the
    /// satellites' ids.
    pub async fn groups_between(
        &mut self,
        first: &str,
        last: &str,
    ) -> Result<BTreeMap<i64, Vec<String>>> {
        let query = sqlx::query(
            "SELECT satellites.id, image_groups.name FROM satellites \
             JOIN satellite_groups ON satellite_groups.satellite_id = satellites.id \
             JOIN image_groups ON image_groups.id = satellite_groups.group_id \
             WHERE satellites.name >= $1 AND satellites.name <= $2 ORDER BY image_groups.name",
        );
        let mut groups: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for row in query.bind(first).bind(last).fetch_all(&mut *self.0).await? {
            groups.entry(row.try_get("id")?).or_default().push(row.try_get("name")?);
        }
        Ok(groups)
    }

    /// What a satellite's groups are for it, in order of their names: where a rollout that is under
    /// way has got to it, what that says.
    pub async fn satellite_versions(&mut self, satellite_id: i64) -> Result<Vec<Group>> {
        let query = sqlx::query(
            "SELECT image_groups.*, released.id AS released_id, released.state AS released_state, \
             released.policy AS released_policy \
             FROM image_groups JOIN satellite_groups \
             ON satellite_groups.group_id = image_groups.id \
             LEFT JOIN (SELECT rollouts.id, rollouts.group_id, rollouts.state, \
             rollouts.policy FROM rollouts \
             JOIN rollout_satellites ON rollout_satellites.rollout_id = rollouts.id \
             WHERE rollouts.is_active = 1 AND rollout_satellites.satellite_id = $1 \
             AND rollout_satellites.released_at IS NOT NULL) AS released \
             ON released.group_id = image_groups.id \
             WHERE satellite_groups.satellite_id = $1 ORDER BY image_groups.name",
        );
        let rows = query.bind(satellite_id).fetch_all(&mut *self.0).await?;
        let version = |row| {
            let mut group = group(row)?;
            if let Some(id) = row.try_get("released_id")? {
                group.version = Some(id);
                let (new, policy): (_, Policy) =
                    (from_json(row, "released_state")?, from_json(row, "released_policy")?);
                let now = clock::now();
                if policy.is_staged(now).is_none() {
                    // A rollout's state goes out as it is.
                    group.tags = Mode::Off;
                }
                group.state = policy.bring(&group.state, &new, now);
            }
            Ok(group)
        };
        rows.iter().map(version).collect()
    }

    /// What satellites of a group hold by a rollout is the group's from now on.
    pub async fn set_version(&mut self, id: i64, version: i64) -> Result<()> {
        let query = sqlx::query("UPDATE image_groups SET version = $2 WHERE id = $1");
        query.bind(id).bind(version).execute(&mut *self.0).await.map(drop)
    }

    pub async fn join_group(&mut self, satellite_id: i64, group_id: i64) -> Result<()> {
        let query = sqlx::query(
            "INSERT INTO satellite_groups (satellite_id, group_id) VALUES ($1, $2) \
             ON CONFLICT (satellite_id, group_id) DO NOTHING",
        );
        query.bind(satellite_id).bind(group_id).execute(&mut *self.0).await.map(drop)
    }

    /// Takes a satellite out of a group; false when it was not in it.
    pub async fn leave_group(&mut self, satellite_id: i64, group_id: i64) -> Result<bool> {
        let query =
            sqlx::query("DELETE FROM satellite_groups WHERE satellite_id = $1 AND group_id = $2");
        let done = query.bind(satellite_id).bind(group_id).execute(&mut *self.0).await?;
        self.leave_rollouts(satellite_id, group_id).await?;
        Ok(done.rows_affected() > 0)
    }
}

fn group(row: &AnyRow) -> Result<Group> {
    Ok(Group {
        id: row.try_get("id")?,
        state: GroupState {
            group: row.try_get("name")?,
            registry: row.try_get("registry")?,
            artifacts: from_json(row, "artifacts")?,
            platforms: from_json(row, "platforms")?,
            staged: None,
        },
        version: row.try_get("version")?,
        tags: Mode::parse(&row.try_get::<String, _>("tags")?).unwrap_or(Mode::Off),
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
