//! The artifacts that satellites read: the current one of each repository, and a few before it for
//! whoever read the manifest just before the change.

use sqlx::any::AnyRow;
use sqlx::{Result, Row as _};

use super::Rows;

/// A published artifact.
pub struct Published {
    pub digest: String,
    /// The seconds of its publication, as Go tags it beside `latest`.
    pub tag: String,
    pub manifest: Vec<u8>,
    pub config_digest: String,
    pub config: Vec<u8>,
    pub layer_digest: String,
    pub layer: Vec<u8>,
}

impl Rows<'_> {
    /// What the repository says now: the text of its only file.
    pub async fn published_content(&mut self, repository: &str) -> Result<Option<String>> {
        let query = sqlx::query(
            "SELECT content FROM published WHERE repository = $1 ORDER BY id DESC LIMIT 1",
        );
        let row = query.bind(repository).fetch_optional(&mut *self.0).await?;
        row.map(|row| row.try_get("content")).transpose()
    }

    /// Makes an artifact the repository's current one: the last that was inserted.
    pub async fn publish(
        &mut self,
        repository: &str,
        content: &str,
        artifact: &Published,
    ) -> Result<()> {
        let query = sqlx::query("DELETE FROM published WHERE repository = $1 AND digest = $2");
        query.bind(repository).bind(&artifact.digest).execute(&mut *self.0).await?;
        sqlx::query(
            "INSERT INTO published (repository, digest, tag, content, manifest, config_digest, \
             config, layer_digest, layer) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(repository)
        .bind(&artifact.digest)
        .bind(&artifact.tag)
        .bind(content)
        .bind(artifact.manifest.as_slice())
        .bind(&artifact.config_digest)
        .bind(artifact.config.as_slice())
        .bind(&artifact.layer_digest)
        .bind(artifact.layer.as_slice())
        .execute(&mut *self.0)
        .await?;
        let query = sqlx::query(
            "DELETE FROM published WHERE repository = $1 AND id NOT IN \
             (SELECT id FROM published WHERE repository = $1 ORDER BY id DESC LIMIT $2)",
        );
        query.bind(repository).bind(KEPT_MAX).execute(&mut *self.0).await.map(drop)
    }

    pub async fn unpublish(&mut self, repository: &str) -> Result<()> {
        let query = sqlx::query("DELETE FROM published WHERE repository = $1").bind(repository);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// All that a repository still has, the current one first.
    pub async fn published(&mut self, repository: &str) -> Result<Vec<Published>> {
        let query = sqlx::query("SELECT * FROM published WHERE repository = $1 ORDER BY id DESC");
        let rows = query.bind(repository).fetch_all(&mut *self.0).await?;
        rows.iter().map(published).collect()
    }
}

fn published(row: &AnyRow) -> Result<Published> {
    Ok(Published {
        digest: row.try_get("digest")?,
        tag: row.try_get("tag")?,
        manifest: row.try_get("manifest")?,
        config_digest: row.try_get("config_digest")?,
        config: row.try_get("config")?,
        layer_digest: row.try_get("layer_digest")?,
        layer: row.try_get("layer")?,
    })
}

/// Artifacts of a repository, the current one among them.
const KEPT_MAX: i64 = 4;
