//! Which images satellites hold, by their last reports: who holds what, and since when.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Result, Row as _};

use super::Rows;

/// A satellite that holds an image.
pub struct Holder {
    pub satellite: String,
    /// The image without its registry; the first, where it has several names.
    pub image: String,
    pub since: i64,
}

/// An image that satellites hold.
pub struct HeldImage {
    pub digest: String,
    /// The image without its registry; the first, where it has several names.
    pub image: String,
    pub satellites: i64,
}

impl Rows<'_> {
    /// Keeps what a satellite holds now: images without their registries, and their digests. What
    /// it held before keeps its time.
    pub async fn set_held(
        &mut self,
        satellite_id: i64,
        held: &BTreeSet<(String, String)>,
        now: i64,
    ) -> Result<()> {
        let before: BTreeSet<_> = self.held(satellite_id).await?.into_keys().collect();
        for (image, digest) in before.difference(held) {
            let query = sqlx::query(
                "DELETE FROM held_images WHERE satellite_id = $1 AND image = $2 AND digest = $3",
            );
            let query = query.bind(satellite_id).bind(image).bind(digest);
            query.execute(&mut *self.0).await?;
        }
        for (image, digest) in held.difference(&before) {
            let query = sqlx::query(
                "INSERT INTO held_images (satellite_id, image, digest, since) \
                 VALUES ($1, $2, $3, $4)",
            );
            let query = query.bind(satellite_id).bind(image).bind(digest).bind(now);
            query.execute(&mut *self.0).await?;
        }
        Ok(())
    }

    /// What a satellite holds, and the time of the first report that said so.
    pub async fn held(&mut self, satellite_id: i64) -> Result<BTreeMap<(String, String), i64>> {
        let query =
            sqlx::query("SELECT image, digest, since FROM held_images WHERE satellite_id = $1");
        let rows = query.bind(satellite_id).fetch_all(&mut *self.0).await?;
        rows.iter()
            .map(|row| {
                let key = (row.try_get("image")?, row.try_get("digest")?);
                Ok((key, row.try_get("since")?))
            })
            .collect()
    }

    /// The satellites with names after `after` that hold a digest.
    pub async fn holders(
        &mut self,
        digest: &str,
        after: &str,
        rows_max: i64,
    ) -> Result<Vec<Holder>> {
        let query = sqlx::query(
            "SELECT name, MIN(image) AS image, MIN(since) AS since FROM held_images \
             JOIN satellites ON satellites.id = satellite_id \
             WHERE digest = $1 AND name > $2 GROUP BY name ORDER BY name LIMIT $3",
        );
        let rows = query.bind(digest).bind(after).bind(rows_max).fetch_all(&mut *self.0).await?;
        let holder = |row: &sqlx::any::AnyRow| {
            Ok(Holder {
                satellite: row.try_get("name")?,
                image: row.try_get("image")?,
                since: row.try_get("since")?,
            })
        };
        rows.iter().map(holder).collect()
    }

    /// The digests after `after` that any satellite holds.
    pub async fn held_images(&mut self, after: &str, rows_max: i64) -> Result<Vec<HeldImage>> {
        let query = sqlx::query(
            "SELECT digest, MIN(image) AS image, COUNT(DISTINCT satellite_id) AS n \
             FROM held_images WHERE digest > $1 GROUP BY digest ORDER BY digest LIMIT $2",
        );
        let rows = query.bind(after).bind(rows_max).fetch_all(&mut *self.0).await?;
        let image = |row: &sqlx::any::AnyRow| {
            Ok(HeldImage {
                digest: row.try_get("digest")?,
                image: row.try_get("image")?,
                satellites: row.try_get("n")?,
            })
        };
        rows.iter().map(image).collect()
    }
}
