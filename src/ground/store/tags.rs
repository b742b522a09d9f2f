//! Tags of groups that are resolved: what each means to the fleet, and what it was last seen to
//! mean.

use sqlx::any::AnyRow;
use sqlx::{Result, Row as _};

use super::Rows;

/// A tag of a group.
#[derive(Clone, Default)]
pub struct GroupTag {
    pub repository: String,
    pub tag: String,
    /// What is published to satellites; empty while it is not known.
    pub digest: String,
    /// What the registry said last; another one waits for approval.
    pub seen: String,
    pub checked_at: i64,
    /// Why the registry did not say; empty when it did.
    pub problem: String,
}

impl GroupTag {
    /// As people name it.
    pub fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// Whether the registry says another image than satellites get.
    pub fn is_waiting(&self) -> bool {
        !self.seen.is_empty() && self.seen != self.digest
    }
}

impl Rows<'_> {
    /// The tags that wait for approval, each with its group's name.
    pub async fn waiting_tags(&mut self, rows_max: i64) -> Result<Vec<(String, GroupTag)>> {
        let query = sqlx::query(
            "SELECT image_groups.name, group_tags.* FROM group_tags \
             JOIN image_groups ON image_groups.id = group_tags.group_id \
             WHERE image_groups.tags = 'pin' AND seen <> '' AND seen <> digest \
             ORDER BY image_groups.name, repository, tag LIMIT $1",
        );
        let rows = query.bind(rows_max).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((row.try_get("name")?, group_tag(row)?))).collect()
    }

    pub async fn count_waiting_tags(&mut self) -> Result<i64> {
        let query = sqlx::query(
            "SELECT COUNT(*) AS n FROM group_tags \
             JOIN image_groups ON image_groups.id = group_tags.group_id \
             WHERE image_groups.tags = 'pin' AND seen <> '' AND seen <> digest",
        );
        query.fetch_one(&mut *self.0).await?.try_get("n")
    }

    pub async fn group_tags(&mut self, group_id: i64) -> Result<Vec<GroupTag>> {
        let query =
            sqlx::query("SELECT * FROM group_tags WHERE group_id = $1 ORDER BY repository, tag");
        let rows = query.bind(group_id).fetch_all(&mut *self.0).await?;
        rows.iter().map(group_tag).collect()
    }

    pub async fn put_group_tag(&mut self, group_id: i64, tag: &GroupTag) -> Result<()> {
        sqlx::query(
            "INSERT INTO group_tags (group_id, repository, tag, digest, seen, checked_at, problem) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (group_id, repository, tag) \
             DO UPDATE SET digest = excluded.digest, seen = excluded.seen, \
             checked_at = excluded.checked_at, problem = excluded.problem",
        )
        .bind(group_id)
        .bind(&tag.repository)
        .bind(&tag.tag)
        .bind(&tag.digest)
        .bind(&tag.seen)
        .bind(tag.checked_at)
        .bind(&tag.problem)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    pub async fn forget_group_tag(&mut self, group_id: i64, tag: &GroupTag) -> Result<()> {
        let query = sqlx::query(
            "DELETE FROM group_tags WHERE group_id = $1 AND repository = $2 AND tag = $3",
        );
        let query = query.bind(group_id).bind(&tag.repository).bind(&tag.tag);
        query.execute(&mut *self.0).await.map(drop)
    }

    pub async fn forget_group_tags(&mut self, group_id: i64) -> Result<()> {
        let query = sqlx::query("DELETE FROM group_tags WHERE group_id = $1").bind(group_id);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// How a group's tags are taken: a word of `model::Mode`.
    pub async fn set_tag_mode(&mut self, group_id: i64, mode: &str) -> Result<()> {
        let query = sqlx::query("UPDATE image_groups SET tags = $2 WHERE id = $1");
        query.bind(group_id).bind(mode).execute(&mut *self.0).await.map(drop)
    }
}

fn group_tag(row: &AnyRow) -> Result<GroupTag> {
    Ok(GroupTag {
        repository: row.try_get("repository")?,
        tag: row.try_get("tag")?,
        digest: row.try_get("digest")?,
        seen: row.try_get("seen")?,
        checked_at: row.try_get("checked_at")?,
        problem: row.try_get("problem")?,
    })
}
