//! Tags of groups that are resolved: what each means to the fleet, and what it was last seen to
//! mean.

use sqlx::{Result, Row as _};

use super::Rows;

/// A tag of a group.
#[derive(Clone, Default)]
pub struct GroupTag {
    pub repository: String,
    pub tag: String,
    /// What satellites are told; empty while it is not known.
    pub digest: String,
    /// What the registry said last; another one waits for approval.
    pub seen: String,
    pub checked_at: i64,
    /// Why the registry did not say; empty when it did.
    pub problem: String,
}

impl Rows<'_> {
    pub async fn group_tags(&mut self, group_id: i64) -> Result<Vec<GroupTag>> {
        let query =
            sqlx::query("SELECT * FROM group_tags WHERE group_id = $1 ORDER BY repository, tag");
        let rows = query.bind(group_id).fetch_all(&mut *self.0).await?;
        let tag = |row: &sqlx::any::AnyRow| {
            Ok(GroupTag {
                repository: row.try_get("repository")?,
                tag: row.try_get("tag")?,
                digest: row.try_get("digest")?,
                seen: row.try_get("seen")?,
                checked_at: row.try_get("checked_at")?,
                problem: row.try_get("problem")?,
            })
        };
        rows.iter().map(tag).collect()
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

    /// How a group's tags are taken: a word of `tags::Mode`.
    pub async fn set_tag_mode(&mut self, group_id: i64, mode: &str) -> Result<()> {
        let query = sqlx::query("UPDATE image_groups SET tags = $2 WHERE id = $1");
        query.bind(group_id).bind(mode).execute(&mut *self.0).await.map(drop)
    }
}
