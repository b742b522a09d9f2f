//! Rollouts, and the satellites that each has got to.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Result, Row as _};

use super::{Rows, from_json, labels, to_json};
use crate::fleet::state::GroupState;
use crate::ground::labels::Selector;
use crate::ground::model::{Connection, Member, Outcome, Phase, Policy};

/// A rollout.
#[derive(Clone)]
pub struct Rollout {
    /// It names the version of the group's state as well.
    pub id: i64,
    pub name: String,
    pub group_id: i64,
    /// What the group is to hold.
    pub state: GroupState,
    pub policy: Policy,
    pub phase: Phase,
    /// The number of the current batch; 0 before the first.
    pub batch: usize,
    /// The number of the last batch that a person let begin.
    pub approved: usize,
    /// Why it is in this phase.
    pub reason: String,
    /// Who started it.
    pub actor: String,
    pub created_at: i64,
    pub updated_at: i64,
}

/// What is known of a rollout before it has a row.
pub struct NewRollout<'a> {
    pub name: &'a str,
    pub group_id: i64,
    pub state: &'a GroupState,
    pub policy: &'a Policy,
    pub actor: &'a str,
}

/// A satellite of a rollout, with what people see of it.
pub struct Released {
    pub satellite: String,
    pub batch: usize,
    pub member: Member,
    /// Why it is not updated.
    pub reason: String,
}

impl Rows<'_> {
    /// The newest first, those before an id.
    pub async fn rollouts(&mut self, before: i64, rows_max: i64) -> Result<Vec<Rollout>> {
        let query = sqlx::query("SELECT * FROM rollouts WHERE id < $1 ORDER BY id DESC LIMIT $2");
        let rows = query.bind(before).bind(rows_max).fetch_all(&mut *self.0).await?;
        rows.iter().map(rollout).collect()
    }

    pub async fn rollout(&mut self, name: &str) -> Result<Option<Rollout>> {
        let query = sqlx::query("SELECT * FROM rollouts WHERE name = $1").bind(name);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(rollout).transpose()
    }

    /// Those that have not ended.
    pub async fn active_rollouts(&mut self) -> Result<Vec<Rollout>> {
        let query = sqlx::query("SELECT * FROM rollouts WHERE is_active = 1 ORDER BY id");
        query.fetch_all(&mut *self.0).await?.iter().map(rollout).collect()
    }

    /// The one of a group that has not ended.
    pub async fn active_rollout(&mut self, group_id: i64) -> Result<Option<Rollout>> {
        let query = sqlx::query("SELECT * FROM rollouts WHERE is_active = 1 AND group_id = $1");
        let row = query.bind(group_id).fetch_optional(&mut *self.0).await?;
        row.as_ref().map(rollout).transpose()
    }

    /// What a group was to hold by its last rollouts, whether it came to that or not.
    pub async fn rollout_states(&mut self, group: &str) -> Result<Vec<GroupState>> {
        let query = sqlx::query(
            "SELECT state FROM rollouts JOIN image_groups ON image_groups.id = group_id \
             WHERE image_groups.name = $1 ORDER BY rollouts.id DESC LIMIT $2",
        );
        let rows = query.bind(group).bind(STATES_MAX).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| from_json(row, "state")).collect()
    }

    /// Adds a rollout, and forgets the oldest of the group that ended.
    pub async fn add_rollout(&mut self, new: &NewRollout<'_>, now: i64) -> Result<Rollout> {
        let query = sqlx::query(
            "DELETE FROM rollouts WHERE group_id = $1 AND is_active = 0 AND id NOT IN \
             (SELECT id FROM rollouts WHERE group_id = $1 ORDER BY id DESC LIMIT $2)",
        );
        query.bind(new.group_id).bind(KEPT_MAX).execute(&mut *self.0).await?;
        let query = sqlx::query(
            "INSERT INTO rollouts (name, group_id, state, policy, phase, is_active, batch, \
             approved, reason, actor, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, 1, 0, 0, '', $6, $7, $7) RETURNING *",
        );
        let query = query.bind(new.name).bind(new.group_id).bind(to_json(new.state)?);
        let query = query.bind(to_json(new.policy)?).bind(Phase::Running.word());
        rollout(&query.bind(new.actor).bind(now).fetch_one(&mut *self.0).await?)
    }

    /// The rollouts of a group, which name versions of its state.
    pub async fn rollout_ids(&mut self, group_id: i64) -> Result<Vec<i64>> {
        let query = sqlx::query("SELECT id FROM rollouts WHERE group_id = $1").bind(group_id);
        query.fetch_all(&mut *self.0).await?.iter().map(|row| row.try_get("id")).collect()
    }

    /// Moves a rollout on.
    pub async fn set_phase(&mut self, id: i64, phase: Phase, reason: &str, now: i64) -> Result<()> {
        let query = sqlx::query(
            "UPDATE rollouts SET phase = $2, is_active = $3, reason = $4, updated_at = $5 \
             WHERE id = $1",
        );
        let query = query.bind(id).bind(phase.word()).bind(i64::from(!phase.is_ended()));
        query.bind(reason).bind(now).execute(&mut *self.0).await.map(drop)
    }

    /// A person lets a batch begin.
    pub async fn approve(&mut self, id: i64, batch: usize) -> Result<()> {
        let query = sqlx::query("UPDATE rollouts SET approved = $2 WHERE id = $1");
        query.bind(id).bind(number(batch)).execute(&mut *self.0).await.map(drop)
    }

    /// Chooses the satellites of a batch: those of the group that are in none. `limit` gets the
    /// number of all that the selector chooses.
    pub async fn begin_batch(
        &mut self,
        rollout: &Rollout,
        batch: usize,
        selector: &Selector,
        limit: impl FnOnce(u64) -> u64,
    ) -> Result<u64> {
        const FROM: &str = "FROM satellites JOIN satellite_groups \
            ON satellite_groups.satellite_id = satellites.id WHERE satellite_groups.group_id = $1";
        let (conditions, values) = labels::conditions(selector, 2);
        // Of the selector only the number of its conditions and their kinds are in the text.
        let text = AssertSqlSafe(format!("SELECT COUNT(*) AS n {FROM}{conditions}"));
        let mut query = sqlx::query(text).bind(rollout.group_id);
        for value in values {
            query = query.bind(value);
        }
        let all: i64 = query.fetch_one(&mut *self.0).await?.try_get("n")?;
        let rows_max = limit(u64::try_from(all).unwrap_or(0));
        let (conditions, values) = labels::conditions(selector, 5);
        let text = AssertSqlSafe(format!(
            "INSERT INTO rollout_satellites (rollout_id, satellite_id, batch, outcome, reason) \
             SELECT CAST($2 AS BIGINT), satellites.id, CAST($3 AS BIGINT), 'Unseen', '' \
             {FROM}{conditions} AND NOT EXISTS (SELECT 1 FROM rollout_satellites AS known \
             WHERE known.rollout_id = $2 AND known.satellite_id = satellites.id) \
             ORDER BY satellites.name LIMIT $4"
        ));
        let query = sqlx::query(text).bind(rollout.group_id).bind(rollout.id).bind(number(batch));
        let mut query = query.bind(i64::try_from(rows_max).unwrap_or(i64::MAX));
        for value in values {
            query = query.bind(value);
        }
        let added = query.execute(&mut *self.0).await?.rows_affected();
        let query = sqlx::query("UPDATE rollouts SET batch = $2 WHERE id = $1");
        query.bind(rollout.id).bind(number(batch)).execute(&mut *self.0).await?;
        Ok(added)
    }

    /// The satellites of a batch.
    pub async fn members(&mut self, rollout: &Rollout, now: i64) -> Result<Vec<Member>> {
        let query = sqlx::query(
            "SELECT members.*, stale_at, offline_at FROM rollout_satellites AS members \
             JOIN satellites ON satellites.id = satellite_id \
             WHERE rollout_id = $1 AND batch = $2 ORDER BY satellite_id",
        );
        let query = query.bind(rollout.id).bind(number(rollout.batch));
        query.fetch_all(&mut *self.0).await?.iter().map(|row| member(row, now)).collect()
    }

    /// The satellites of all batches, each with the number of its batch.
    pub async fn all_members(&mut self, rollout_id: i64, now: i64) -> Result<Vec<(usize, Member)>> {
        let query = sqlx::query(
            "SELECT members.*, stale_at, offline_at FROM rollout_satellites AS members \
             JOIN satellites ON satellites.id = satellite_id WHERE rollout_id = $1",
        );
        let rows = query.bind(rollout_id).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((place(row, "batch")?, member(row, now)?))).collect()
    }

    /// The satellites of a rollout with names after this one, in their order.
    pub async fn released(
        &mut self,
        rollout_id: i64,
        after: &str,
        rows_max: i64,
        now: i64,
    ) -> Result<Vec<Released>> {
        let query = sqlx::query(
            "SELECT members.*, name, stale_at, offline_at FROM rollout_satellites AS members \
             JOIN satellites ON satellites.id = satellite_id \
             WHERE rollout_id = $1 AND name > $2 ORDER BY name LIMIT $3",
        );
        let rows =
            query.bind(rollout_id).bind(after).bind(rows_max).fetch_all(&mut *self.0).await?;
        let released = rows.iter().map(|row| {
            Ok(Released {
                satellite: row.try_get("name")?,
                batch: place(row, "batch")?,
                member: member(row, now)?,
                reason: row.try_get("reason")?,
            })
        });
        released.collect()
    }

    /// A satellite of a rollout gets the new state.
    pub async fn release(&mut self, rollout_id: i64, satellite_id: i64, now: i64) -> Result<()> {
        self.lock_satellite(satellite_id).await?;
        let query = sqlx::query(
            "UPDATE rollout_satellites SET released_at = $3 \
             WHERE rollout_id = $1 AND satellite_id = $2",
        );
        let query = query.bind(rollout_id).bind(satellite_id).bind(now);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// A satellite that came to the group of a rollout is one more of its current batch. With a time
    /// it has the new state from then on.
    pub async fn join_rollout(
        &mut self,
        rollout: &Rollout,
        satellite_id: i64,
        released_at: Option<i64>,
    ) -> Result<()> {
        self.lock_satellite(satellite_id).await?;
        let query = sqlx::query(
            "INSERT INTO rollout_satellites (rollout_id, satellite_id, batch, released_at, \
             outcome, reason) VALUES ($1, $2, $3, $4, 'Unseen', '') \
             ON CONFLICT (rollout_id, satellite_id) DO NOTHING",
        );
        let query = query.bind(rollout.id).bind(satellite_id).bind(number(rollout.batch));
        query.bind(released_at).execute(&mut *self.0).await.map(drop)
    }

    /// A satellite gets the old state again; what it said of the new one is kept for people.
    pub async fn withdraw(&mut self, rollout_id: i64, satellite_id: i64) -> Result<()> {
        self.lock_satellite(satellite_id).await?;
        let query = sqlx::query(
            "UPDATE rollout_satellites SET released_at = NULL \
             WHERE rollout_id = $1 AND satellite_id = $2",
        );
        query.bind(rollout_id).bind(satellite_id).execute(&mut *self.0).await.map(drop)
    }

    /// Some of the satellites that have the new state.
    pub async fn released_to(&mut self, rollout_id: i64, rows_max: i64) -> Result<Vec<i64>> {
        let query = sqlx::query(
            "SELECT satellite_id FROM rollout_satellites WHERE rollout_id = $1 \
             AND released_at IS NOT NULL ORDER BY satellite_id LIMIT $2",
        );
        let rows = query.bind(rollout_id).bind(rows_max).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| row.try_get("satellite_id")).collect()
    }

    /// The rollouts that have got to a satellite and are under way, or that it has not caught up
    /// with though they ended; each with its group's name.
    pub async fn releases_of(&mut self, satellite_id: i64) -> Result<Vec<(i64, String)>> {
        let query = sqlx::query(
            "SELECT rollouts.id, image_groups.name FROM rollout_satellites \
             JOIN rollouts ON rollouts.id = rollout_id \
             JOIN image_groups ON image_groups.id = rollouts.group_id \
             WHERE satellite_id = $1 AND released_at IS NOT NULL AND (is_active = 1 \
             OR image_groups.version = rollouts.id AND outcome <> 'Updated')",
        );
        let rows = query.bind(satellite_id).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("name")?))).collect()
    }

    /// Keeps what a report says of a release.
    pub async fn set_outcome(
        &mut self,
        rollout_id: i64,
        satellite_id: i64,
        (outcome, reason): (Outcome, &str),
        now: i64,
    ) -> Result<()> {
        let query = sqlx::query(
            "UPDATE rollout_satellites SET outcome = $3, reason = $4, failed_at = CASE $3 \
             WHEN 'Failed' THEN COALESCE(failed_at, $5) WHEN 'Updated' THEN NULL \
             ELSE failed_at END WHERE rollout_id = $1 AND satellite_id = $2",
        );
        let query = query.bind(rollout_id).bind(satellite_id).bind(outcome.word());
        // PostgreSQL keeps no NUL in a text.
        let query = query.bind(reason.replace('\0', "")).bind(now);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// A satellite that left a group is in none of its rollouts that are under way.
    pub async fn leave_rollouts(&mut self, satellite_id: i64, group_id: i64) -> Result<()> {
        self.lock_satellite(satellite_id).await?;
        let query = sqlx::query(
            "DELETE FROM rollout_satellites WHERE satellite_id = $1 AND rollout_id IN \
             (SELECT id FROM rollouts WHERE group_id = $2 AND is_active = 1)",
        );
        query.bind(satellite_id).bind(group_id).execute(&mut *self.0).await.map(drop)
    }

    /// Locks a satellite's row before others that are about it, as a report does: otherwise each
    /// could wait for the other.
    async fn lock_satellite(&mut self, id: i64) -> Result<()> {
        let query = sqlx::query("UPDATE satellites SET is_offline = is_offline WHERE id = $1");
        query.bind(id).execute(&mut *self.0).await.map(drop)
    }

    /// Each satellite of a rollout's group: whether it has the new state and does not hold it, and
    /// how it is connected.
    pub async fn group_availability(
        &mut self,
        rollout: &Rollout,
        now: i64,
    ) -> Result<BTreeMap<i64, (bool, Connection)>> {
        let query = sqlx::query(
            "SELECT satellites.id, stale_at, offline_at, \
             CASE WHEN released_at IS NOT NULL AND outcome <> 'Updated' THEN 1 ELSE 0 END AS busy \
             FROM satellites JOIN satellite_groups ON satellite_groups.satellite_id = satellites.id \
             LEFT JOIN rollout_satellites AS members \
             ON members.satellite_id = satellites.id AND members.rollout_id = $2 \
             WHERE satellite_groups.group_id = $1",
        );
        let rows = query.bind(rollout.group_id).bind(rollout.id).fetch_all(&mut *self.0).await?;
        let each = rows.iter().map(|row| {
            let is_busy = row.try_get::<i64, _>("busy")? != 0;
            Ok((row.try_get("id")?, (is_busy, connection(row, now)?)))
        });
        each.collect()
    }

    /// The values that a group's satellites have for a label.
    pub async fn group_label(
        &mut self,
        group_id: i64,
        label: &str,
    ) -> Result<BTreeMap<i64, String>> {
        let query = sqlx::query(
            "SELECT satellite_labels.satellite_id, value FROM satellite_labels \
             JOIN satellite_groups ON satellite_groups.satellite_id = satellite_labels.satellite_id \
             WHERE satellite_groups.group_id = $1 AND label = $2",
        );
        let rows = query.bind(group_id).bind(label).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((row.try_get("satellite_id")?, row.try_get("value")?))).collect()
    }

    /// How many rollouts are in each phase that has any.
    pub async fn count_rollouts(&mut self) -> Result<Vec<(String, i64)>> {
        let query = sqlx::query("SELECT phase, COUNT(*) AS n FROM rollouts GROUP BY phase");
        let rows = query.fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((row.try_get("phase")?, row.try_get("n")?))).collect()
    }
}

fn rollout(row: &AnyRow) -> Result<Rollout> {
    let phase: String = row.try_get("phase")?;
    let phase = Phase::parse(&phase);
    Ok(Rollout {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        group_id: row.try_get("group_id")?,
        state: from_json(row, "state")?,
        policy: from_json(row, "policy")?,
        phase: phase.ok_or_else(|| sqlx::Error::Decode("an unknown phase".into()))?,
        batch: place(row, "batch")?,
        approved: place(row, "approved")?,
        reason: row.try_get("reason")?,
        actor: row.try_get("actor")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn member(row: &AnyRow, now: i64) -> Result<Member> {
    let outcome: String = row.try_get("outcome")?;
    let outcome = Outcome::parse(&outcome);
    Ok(Member {
        satellite_id: row.try_get("satellite_id")?,
        released_at: row.try_get("released_at")?,
        outcome: outcome.ok_or_else(|| sqlx::Error::Decode("an unknown outcome".into()))?,
        failed_at: row.try_get("failed_at")?,
        connection: connection(row, now)?,
    })
}

fn connection(row: &AnyRow, now: i64) -> Result<Connection> {
    Ok(Connection::at(row.try_get("stale_at")?, row.try_get("offline_at")?, now))
}

fn place(row: &AnyRow, column: &str) -> Result<usize> {
    Ok(usize::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

fn number(place: usize) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

/// Rollouts of one group that are kept after they ended.
const KEPT_MAX: i64 = 20;
/// Versions of a group that a satellite may still hold images of.
const STATES_MAX: i64 = 4;
