//! The audit log and the fleet's events, as rows.

use sqlx::any::AnyRow;
use sqlx::{Result, Row as _};

use super::Rows;
use crate::ground::clock;

/// A change that a person made.
pub struct Entry {
    pub id: i64,
    pub at: i64,
    pub actor: String,
    pub action: String,
    pub object: String,
    /// JSON of what differs; empty for nothing.
    pub before: String,
    pub after: String,
}

/// Something that happened to a satellite.
pub struct Event {
    pub id: i64,
    pub at: i64,
    /// The word of a `journal::Kind`.
    pub kind: String,
    pub satellite: String,
    /// What of the satellite it is about, such as an image; empty when it is the whole.
    pub object: String,
    pub message: String,
}

/// A part of a log: the newest first, or after `after` the oldest first.
pub struct Part<'a> {
    pub after: Option<i64>,
    pub before: Option<i64>,
    /// A satellite's name, or nothing for all.
    pub satellite: &'a str,
    pub rows_max: i64,
}

impl Rows<'_> {
    /// Adds a change; its id is the database's.
    pub async fn add_audit(&mut self, entry: &Entry) -> Result<()> {
        sqlx::query(
            "INSERT INTO audit (at, actor, action, object, was, became) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(entry.at)
        .bind(&entry.actor)
        .bind(&entry.action)
        .bind(&entry.object)
        .bind(&entry.before)
        .bind(&entry.after)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    /// A part of the audit log; it knows no satellites.
    pub async fn audit(&mut self, part: &Part<'_>) -> Result<Vec<Entry>> {
        let query = sqlx::query(match part.after {
            Some(_) => "SELECT * FROM audit WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3",
            None => "SELECT * FROM audit WHERE id > $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        });
        let query = query.bind(part.after.unwrap_or(0)).bind(part.before.unwrap_or(i64::MAX));
        let rows = query.bind(part.rows_max).fetch_all(&mut *self.0).await?;
        rows.iter().map(entry).collect()
    }

    /// The last change that was made to a thing of a kind, such as `group`.
    pub async fn last_change(&mut self, kind: &str, name: &str) -> Result<Option<Entry>> {
        let query = sqlx::query(
            "SELECT * FROM audit WHERE object = $1 AND action LIKE $2 ORDER BY id DESC LIMIT 1",
        );
        let query = query.bind(name).bind(format!("{kind}.%"));
        query.fetch_optional(&mut *self.0).await?.as_ref().map(entry).transpose()
    }

    /// Adds an event; its id is the database's.
    pub async fn add_event(&mut self, event: &Event) -> Result<()> {
        sqlx::query(
            "INSERT INTO events (at, kind, satellite, object, message) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(event.at)
        .bind(&event.kind)
        .bind(&event.satellite)
        .bind(&event.object)
        .bind(&event.message)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    /// Whether the same was said of a satellite after a time.
    pub async fn has_event(&mut self, event: &Event, after: i64) -> Result<bool> {
        let query = sqlx::query(
            "SELECT 1 FROM events WHERE satellite = $1 AND kind = $2 AND object = $3 \
             AND at > $4 LIMIT 1",
        );
        let query = query.bind(&event.satellite).bind(&event.kind).bind(&event.object);
        Ok(query.bind(after).fetch_optional(&mut *self.0).await?.is_some())
    }

    pub async fn events(&mut self, part: &Part<'_>) -> Result<Vec<Event>> {
        let query = sqlx::query(match part.after {
            Some(_) => {
                "SELECT * FROM events WHERE id > $1 AND id < $2 \
                 AND ($3 = '' OR satellite = $3) ORDER BY id LIMIT $4"
            }
            None => {
                "SELECT * FROM events WHERE id > $1 AND id < $2 \
                 AND ($3 = '' OR satellite = $3) ORDER BY id DESC LIMIT $4"
            }
        });
        let query = query.bind(part.after.unwrap_or(0)).bind(part.before.unwrap_or(i64::MAX));
        let query = query.bind(part.satellite).bind(part.rows_max);
        query.fetch_all(&mut *self.0).await?.iter().map(event).collect()
    }

    /// Removes what is too old, and the oldest of what is too much.
    pub async fn prune_journal(&mut self, now: i64) -> Result<()> {
        let oldest = now - KEPT_SECONDS * clock::SECOND;
        for text in [
            "DELETE FROM audit WHERE at < $1 OR id <= (SELECT MAX(id) FROM audit) - $2",
            "DELETE FROM events WHERE at < $1 OR id <= (SELECT MAX(id) FROM events) - $2",
        ] {
            let query = sqlx::query(text).bind(oldest).bind(ROWS_MAX);
            query.execute(&mut *self.0).await?;
        }
        Ok(())
    }
}

fn entry(row: &AnyRow) -> Result<Entry> {
    Ok(Entry {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        object: row.try_get("object")?,
        before: row.try_get("was")?,
        after: row.try_get("became")?,
    })
}

fn event(row: &AnyRow) -> Result<Event> {
    Ok(Event {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        kind: row.try_get("kind")?,
        satellite: row.try_get("satellite")?,
        object: row.try_get("object")?,
        message: row.try_get("message")?,
    })
}

/// 30 days.
const KEPT_SECONDS: i64 = 30 * 24 * 3600;
/// Of each log.
const ROWS_MAX: i64 = 100_000;

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;
    use crate::ground::settings::Database;

    #[test]
    fn what_is_old_goes() {
        let directory = std::env::temp_dir().join(format!("ground_journal_{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&Database::Directory(directory.clone())).await.unwrap();
            let mut write = store.write().await.unwrap();
            let mut rows = write.rows();
            let event = |at| Event {
                id: 0,
                at,
                kind: "back".into(),
                satellite: "a".into(),
                object: String::new(),
                message: String::new(),
            };
            let now = 100 * KEPT_SECONDS * clock::SECOND;
            let old = now - KEPT_SECONDS * clock::SECOND - 1;
            rows.add_event(&event(old)).await.unwrap();
            rows.add_event(&event(now)).await.unwrap();
            assert!(rows.has_event(&event(now), now - 1).await.unwrap());
            assert!(!rows.has_event(&event(now), now).await.unwrap());
            rows.prune_journal(now).await.unwrap();
            let all = Part { after: None, before: None, satellite: "", rows_max: 10 };
            let kept = rows.events(&all).await.unwrap();
            assert_eq!((kept.len(), kept.first().unwrap().at), (1, now));
            // A log that is too long loses its beginning.
            sqlx::query("UPDATE sqlite_sequence SET seq = $1 WHERE name = 'events'")
                .bind(ROWS_MAX + 5)
                .execute(&mut *rows.0)
                .await
                .unwrap();
            rows.add_event(&event(now)).await.unwrap();
            rows.prune_journal(now).await.unwrap();
            let kept = rows.events(&all).await.unwrap();
            assert_eq!((kept.len(), kept.first().unwrap().id), (1, ROWS_MAX + 6));
            write.commit().await.unwrap();
            store.close().await;
        });
        std::fs::remove_dir_all(directory).unwrap();
    }
}
