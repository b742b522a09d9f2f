//! Remote configurations.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use sqlx::{Result, Row as _};

use super::Rows;

/// A configuration that satellites share.
pub struct Config {
    pub id: i64,
    pub name: String,
    pub registry: String,
    /// JSON as it is published.
    pub config: String,
    pub created_at: i64,
    pub updated_at: i64,
}

/// What is known of a configuration before it has a row.
pub struct NewConfig<'a> {
    pub name: &'a str,
    pub registry: &'a str,
    pub config: &'a str,
}

impl Rows<'_> {
    pub async fn configs(&mut self) -> Result<Vec<Config>> {
        let rows = sqlx::query("SELECT * FROM configs ORDER BY name").fetch_all(&mut *self.0);
        rows.await?.iter().map(config).collect()
    }

    pub async fn config(&mut self, name: &str) -> Result<Option<Config>> {
        let query = sqlx::query("SELECT * FROM configs WHERE name = $1").bind(name);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(config).transpose()
    }

    pub async fn add_config(&mut self, new: &NewConfig<'_>, now: i64) -> Result<Config> {
        let query = sqlx::query(
            "INSERT INTO configs (name, registry, config, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $4) RETURNING *",
        );
        let query = query.bind(new.name).bind(new.registry).bind(new.config).bind(now);
        config(&query.fetch_one(&mut *self.0).await?)
    }

    pub async fn update_config(&mut self, id: i64, text: &str, now: i64) -> Result<Config> {
        let query = sqlx::query(
            "UPDATE configs SET config = $2, updated_at = $3 WHERE id = $1 RETURNING *",
        );
        config(&query.bind(id).bind(text).bind(now).fetch_one(&mut *self.0).await?)
    }

    pub async fn delete_config(&mut self, id: i64) -> Result<()> {
        let query = sqlx::query("DELETE FROM configs WHERE id = $1").bind(id);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// The names of the configurations of the satellites with names from `first` to `last`, by the
    /// satellites' ids.
    pub async fn configs_between(
        &mut self,
        first: &str,
        last: &str,
    ) -> Result<BTreeMap<i64, String>> {
        let query = sqlx::query(
            "SELECT satellites.id, configs.name FROM satellites \
             JOIN configs ON configs.id = satellites.config_id \
             WHERE satellites.name >= $1 AND satellites.name <= $2",
        );
        let rows = query.bind(first).bind(last).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("name")?))).collect()
    }

    /// How many satellites have the configuration, and batches whose devices are to have it.
    pub async fn config_users(&mut self, id: i64) -> Result<i64> {
        let query = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM satellites WHERE config_id = $1) \
             + (SELECT COUNT(*) FROM batches JOIN configs ON configs.name = batches.config \
             WHERE configs.id = $1) AS n",
        );
        query.bind(id).fetch_one(&mut *self.0).await?.try_get("n")
    }
}

fn config(row: &AnyRow) -> Result<Config> {
    Ok(Config {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        registry: row.try_get("registry")?,
        config: row.try_get("config")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
