//! The artifacts that satellites read: the current one of each repository, and a few before it for
//! a client that read the manifest just before the change.

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

    /// The same, and what it said before, as far as that is kept.
    pub async fn published_contents(&mut self, repository: &str) -> Result<Vec<String>> {
        let query = sqlx::query("SELECT content FROM published WHERE repository = $1");
        let rows = query.bind(repository).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| row.try_get("content")).collect()
    }

    /// The digest of the repository's current artifact.
    pub async fn published_digest(&mut self, repository: &str) -> Result<Option<String>> {
        let query = sqlx::query(
            "SELECT digest FROM published WHERE repository = $1 ORDER BY id DESC LIMIT 1",
        );
        let row = query.bind(repository).fetch_optional(&mut *self.0).await?;
        row.map(|row| row.try_get("digest")).transpose()
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

    /// The manifest under a tag or a digest, and its digest. `latest` is the current one.
    pub async fn manifest(
        &mut self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<(String, Vec<u8>)>> {
        let query = sqlx::query(
            "SELECT digest, manifest FROM published WHERE repository = $1 \
             AND ($2 = 'latest' OR digest = $2 OR tag = $2) ORDER BY id DESC LIMIT 1",
        );
        let row = query.bind(repository).bind(reference).fetch_optional(&mut *self.0).await?;
        row.map(|row| Ok((row.try_get("digest")?, row.try_get("manifest")?))).transpose()
    }

    /// The artifact of a repository under a digest and what it says, if it is kept.
    pub async fn artifact(
        &mut self,
        repository: &str,
        digest: &str,
    ) -> Result<Option<(Published, String)>> {
        let query = sqlx::query("SELECT * FROM published WHERE repository = $1 AND digest = $2");
        let row = query.bind(repository).bind(digest).fetch_optional(&mut *self.0).await?;
        let published = |row: sqlx::any::AnyRow| {
            let artifact = Published {
                digest: row.try_get("digest")?,
                tag: row.try_get("tag")?,
                manifest: row.try_get("manifest")?,
                config_digest: row.try_get("config_digest")?,
                config: row.try_get("config")?,
                layer_digest: row.try_get("layer_digest")?,
                layer: row.try_get("layer")?,
            };
            Ok((artifact, row.try_get("content")?))
        };
        row.map(published).transpose()
    }

    /// A layer by its digest.
    pub async fn layer(&mut self, repository: &str, digest: &str) -> Result<Option<Vec<u8>>> {
        let query = sqlx::query(
            "SELECT layer FROM published WHERE repository = $1 AND layer_digest = $2 LIMIT 1",
        );
        let row = query.bind(repository).bind(digest).fetch_optional(&mut *self.0).await?;
        row.map(|row| row.try_get("layer")).transpose()
    }

    /// A layer's config by its digest.
    pub async fn layer_config(
        &mut self,
        repository: &str,
        digest: &str,
    ) -> Result<Option<Vec<u8>>> {
        let query = sqlx::query(
            "SELECT config FROM published WHERE repository = $1 AND config_digest = $2 LIMIT 1",
        );
        let row = query.bind(repository).bind(digest).fetch_optional(&mut *self.0).await?;
        row.map(|row| row.try_get("config")).transpose()
    }

    /// The tags of a repository beside `latest`.
    pub async fn tags(&mut self, repository: &str) -> Result<Vec<String>> {
        let query = sqlx::query("SELECT DISTINCT tag FROM published WHERE repository = $1");
        let rows = query.bind(repository).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| row.try_get("tag")).collect()
    }
}

/// Artifacts of a repository, the current one among them.
const KEPT_MAX: i64 = 4;
