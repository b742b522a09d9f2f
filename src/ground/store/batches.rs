//! Tokens that enrol a batch of devices, and which of its devices wait for approval.

use sqlx::any::AnyRow;
use sqlx::{Result, Row as _};

use super::satellites::satellite;
use super::{Rows, Satellite, from_json, to_json};
use crate::ground::labels::Labels;

/// A token for many devices, and what each of them is given; what opens the door is not in it.
#[derive(Clone)]
pub struct Batch {
    /// The names of its satellites begin with it.
    pub name: String,
    /// The name of a configuration.
    pub config: String,
    pub groups: Vec<String>,
    pub labels: Labels,
    pub devices_max: i64,
    /// So many have asked.
    pub devices: i64,
    /// A person lets each device in.
    pub approval: bool,
    pub created_at: i64,
    pub expires_at: i64,
}

/// A device that asked with the token of a batch.
pub struct NewDevice<'a> {
    pub batch: &'a str,
    /// What it says of itself that no other device does.
    pub device: &'a str,
    /// Of both, so that no other batch has the same.
    pub hash: &'a str,
    /// A person is to let it in.
    pub waits: bool,
    pub expires_at: i64,
}

impl Rows<'_> {
    /// Adds the token of a batch.
    pub async fn add_batch(&mut self, batch: &Batch, hash: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO batches (name, token_hash, config, group_names, labels, devices_max, \
             devices, approval, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9)",
        )
        .bind(&batch.name)
        .bind(hash)
        .bind(&batch.config)
        .bind(to_json(&batch.groups)?)
        .bind(to_json(&batch.labels)?)
        .bind(batch.devices_max)
        .bind(i64::from(batch.approval))
        .bind(batch.created_at)
        .bind(batch.expires_at)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    pub async fn batches(&mut self) -> Result<Vec<Batch>> {
        let rows = sqlx::query("SELECT * FROM batches ORDER BY name").fetch_all(&mut *self.0);
        rows.await?.iter().map(batch).collect()
    }

    pub async fn batch(&mut self, name: &str) -> Result<Option<Batch>> {
        let query = sqlx::query("SELECT * FROM batches WHERE name = $1").bind(name);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(batch).transpose()
    }

    pub async fn batch_by_token(&mut self, hash: &str) -> Result<Option<Batch>> {
        let query = sqlx::query("SELECT * FROM batches WHERE token_hash = $1").bind(hash);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(batch).transpose()
    }

    pub async fn delete_batch(&mut self, name: &str) -> Result<()> {
        let query = sqlx::query("DELETE FROM batches WHERE name = $1").bind(name);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// The satellite that a device became by the token of a batch.
    pub async fn satellite_of_device(&mut self, hash: &str) -> Result<Option<Satellite>> {
        let query = sqlx::query("SELECT * FROM satellites WHERE device_hash = $1").bind(hash);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(satellite).transpose()
    }

    /// A satellite is a device of a batch from now on: one more of it.
    pub async fn set_device(&mut self, id: i64, new: &NewDevice<'_>, now: i64) -> Result<()> {
        let query = sqlx::query(
            "UPDATE satellites SET enrolled_by = $2, device = $3, device_hash = $4, \
             enrolment_hash = $4, enrolment_expires_at = $5, waits_since = $6 WHERE id = $1",
        );
        let query = query.bind(id).bind(new.batch).bind(new.device).bind(new.hash);
        let query = query.bind(new.expires_at).bind(new.waits.then_some(now));
        query.execute(&mut *self.0).await?;
        let query = sqlx::query("UPDATE batches SET devices = devices + 1 WHERE name = $1");
        query.bind(new.batch).execute(&mut *self.0).await.map(drop)
    }

    /// A person lets a device in; false when it does not wait.
    pub async fn approve_device(&mut self, id: i64, expires_at: i64) -> Result<bool> {
        let query = sqlx::query(
            "UPDATE satellites SET waits_since = NULL, enrolment_expires_at = $2 \
             WHERE id = $1 AND waits_since IS NOT NULL",
        );
        let done = query.bind(id).bind(expires_at).execute(&mut *self.0).await?;
        Ok(done.rows_affected() > 0)
    }

    /// The devices of a batch, or of all, that wait; those that asked first before the others.
    pub async fn waiting(&mut self, batch: &str, rows_max: i64) -> Result<Vec<Satellite>> {
        let query = sqlx::query(
            "SELECT * FROM satellites WHERE waits_since IS NOT NULL AND ($1 = '' OR enrolled_by = $1) \
             ORDER BY waits_since, id LIMIT $2",
        );
        let rows = query.bind(batch).bind(rows_max).fetch_all(&mut *self.0).await?;
        rows.iter().map(satellite).collect()
    }

    pub async fn count_waiting(&mut self) -> Result<i64> {
        let query =
            sqlx::query("SELECT COUNT(*) AS n FROM satellites WHERE waits_since IS NOT NULL");
        query.fetch_one(&mut *self.0).await?.try_get("n")
    }
}

fn batch(row: &AnyRow) -> Result<Batch> {
    Ok(Batch {
        name: row.try_get("name")?,
        config: row.try_get("config")?,
        groups: from_json(row, "group_names")?,
        labels: from_json(row, "labels")?,
        devices_max: row.try_get("devices_max")?,
        devices: row.try_get("devices")?,
        approval: row.try_get::<i64, _>("approval")? != 0,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}
