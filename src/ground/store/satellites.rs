//! Satellites, their credentials and their last reports.
//!
//! A satellite has up to two secrets: the one it uses, and the one it was given last. The first use
//! of the new one makes it the only one and spends the enrolment token, so that power loss on the
//! satellite's side between the answer and its writing down strands nothing.

use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Result, Row as _};

use super::{Rows, from_json, labels, to_json};
use crate::fleet::interval;
use crate::fleet::report::Report;
use crate::ground::assess::Assessment;
use crate::ground::clock;
use crate::ground::labels::Selector;
use crate::ground::model::{Connection, Lifecycle, Sample, Updated};

/// A satellite.
#[derive(Clone)]
pub struct Satellite {
    pub id: i64,
    pub name: String,
    pub secret_hash: Option<String>,
    pub next_secret_hash: Option<String>,
    /// When the secret in use was given.
    pub secret_at: i64,
    pub enrolment_expires_at: i64,
    pub last_seen: Option<i64>,
    pub heartbeat_interval: Option<String>,
    /// From when on it counts as stale and as offline, if nothing comes until then.
    pub stale_at: Option<i64>,
    pub offline_at: Option<i64>,
    /// An event said that it is offline.
    pub is_offline: bool,
    /// When its credentials were revoked, if no device has enrolled since.
    pub revoked_at: Option<i64>,
    /// The registry it reads its state from, as scheme and host; nothing for this server.
    pub home: String,
    /// The batch by whose token its device asked, and what the device says of itself.
    pub batch: Option<String>,
    pub device: Option<String>,
    /// Since when the device waits for a person to let it in.
    pub waits_since: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// A satellite's last report.
pub struct Status {
    pub satellite_id: i64,
    /// Counts the satellite's reports.
    pub number: i64,
    pub report: Report,
    /// By the satellite's clock.
    pub reported_at: Option<i64>,
    pub created_at: i64,
    /// The words of `assess::Updated` and `assess::Health`.
    pub updated: String,
    pub health: String,
    /// Why it is not up to date or not well.
    pub reason: String,
    /// The hour that is not over.
    pub hour: Option<Sample>,
}

/// What lists of satellites show of a last report: columns of their own, for a fleet's reports are
/// large.
pub struct Summary {
    /// The satellite's line for people.
    pub activity: String,
    pub image_count: i64,
    /// By the satellite's clock.
    pub reported_at: Option<i64>,
    /// The words of `assess::Updated` and `assess::Health`.
    pub updated: String,
    pub health: String,
    /// Why it is not up to date or not well.
    pub reason: String,
}

/// Which satellites are wanted.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Names after this one.
    pub after: &'a str,
    /// Names with this in them.
    pub part: &'a str,
    /// The words of connections with spaces between, or nothing for all.
    pub connections: &'a str,
    /// The name of a group they are in, or nothing for all.
    pub group: &'a str,
    pub selector: &'a Selector,
    /// At most so many.
    pub rows_max: i64,
}

/// The same at the time `$1`, in SQL.
macro_rules! connection {
    () => {
        "CASE WHEN stale_at IS NULL THEN 'Unknown' WHEN $1 > offline_at THEN 'Offline' \
         WHEN $1 > stale_at THEN 'Stale' ELSE 'Online' END"
    };
}

impl Satellite {
    /// How it is connected.
    pub fn connection(&self, now: i64) -> Connection {
        Connection::at(self.stale_at, self.offline_at, now)
    }

    /// Where it reads its state; `url` is this server's.
    pub fn base<'a>(&'a self, url: &'a str) -> &'a str {
        if self.home.is_empty() { url } else { &self.home }
    }

    /// Where it is in its life.
    pub fn lifecycle(&self) -> Lifecycle {
        match (self.revoked_at, &self.secret_hash) {
            (Some(_), _) => Lifecycle::Revoked,
            (None, Some(_)) => Lifecycle::Enrolled,
            (None, None) if self.waits_since.is_some() => Lifecycle::Waiting,
            (None, None) => Lifecycle::Registered,
        }
    }
}

/// The head of what lists of satellites are made from.
macro_rules! summaries {
    () => {
        "SELECT satellites.*, statuses.activity, statuses.image_count, statuses.reported_at, \
         statuses.updated, statuses.health, statuses.reason \
         FROM satellites LEFT JOIN statuses ON statuses.satellite_id = satellites.id "
    };
}

impl Rows<'_> {
    pub async fn satellites(&mut self) -> Result<Vec<Satellite>> {
        let rows = sqlx::query("SELECT * FROM satellites ORDER BY name").fetch_all(&mut *self.0);
        rows.await?.iter().map(satellite).collect()
    }

    pub async fn satellite(&mut self, name: &str) -> Result<Option<Satellite>> {
        let query = sqlx::query("SELECT * FROM satellites WHERE name = $1").bind(name);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(satellite).transpose()
    }

    pub async fn satellite_by_id(&mut self, id: i64) -> Result<Option<Satellite>> {
        let query = sqlx::query("SELECT * FROM satellites WHERE id = $1").bind(id);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(satellite).transpose()
    }

    pub async fn satellite_by_enrolment(&mut self, hash: &str) -> Result<Option<Satellite>> {
        let query = sqlx::query("SELECT * FROM satellites WHERE enrolment_hash = $1").bind(hash);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(satellite).transpose()
    }

    pub async fn add_satellite(
        &mut self,
        name: &str,
        config_id: i64,
        now: i64,
    ) -> Result<Satellite> {
        let query = sqlx::query(
            "INSERT INTO satellites (name, config_id, created_at, updated_at) \
             VALUES ($1, $2, $3, $3) RETURNING *",
        );
        satellite(&query.bind(name).bind(config_id).bind(now).fetch_one(&mut *self.0).await?)
    }

    pub async fn delete_satellite(&mut self, id: i64) -> Result<()> {
        let query = sqlx::query("DELETE FROM satellites WHERE id = $1").bind(id);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// Sets an enrolment token. A secret that was offered before and not used is void, or its use
    /// would spend the token.
    pub async fn set_enrolment(&mut self, id: i64, hash: &str, expires_at: i64) -> Result<()> {
        let query = sqlx::query(
            "UPDATE satellites SET enrolment_hash = $2, enrolment_expires_at = $3, \
             next_secret_hash = NULL, waits_since = NULL WHERE id = $1",
        );
        query.bind(id).bind(hash).bind(expires_at).execute(&mut *self.0).await.map(drop)
    }

    /// Sets another secret for the satellite that has the one of the hash `used`, which becomes the
    /// one when it is first used. False while an enrolment token is good: the secret would take the
    /// place of the new device's; and when its credentials were revoked or replaced meanwhile.
    pub async fn offer_secret(
        &mut self,
        id: i64,
        used: &str,
        hash: &str,
        now: i64,
    ) -> Result<bool> {
        let query = sqlx::query(
            "UPDATE satellites SET next_secret_hash = $2 WHERE id = $1 AND secret_hash = $4 \
             AND (enrolment_hash IS NULL OR enrolment_expires_at <= $3)",
        );
        let query = query.bind(id).bind(hash).bind(now).bind(used);
        let done = query.execute(&mut *self.0).await?;
        Ok(done.rows_affected() > 0)
    }

    /// The same for a satellite that showed a certificate; false when its access ended meanwhile.
    pub async fn offer_secret_certified(&mut self, id: i64, hash: &str) -> Result<bool> {
        let query = sqlx::query(
            "UPDATE satellites SET next_secret_hash = $2 WHERE id = $1 \
             AND revoked_at IS NULL AND waits_since IS NULL",
        );
        let done = query.bind(id).bind(hash).execute(&mut *self.0).await?;
        Ok(done.rows_affected() > 0)
    }

    /// The same for the satellite of an enrolment token; false when it was spent meanwhile.
    pub async fn offer_secret_for(&mut self, enrolment_hash: &str, hash: &str) -> Result<bool> {
        let query = sqlx::query(
            "UPDATE satellites SET next_secret_hash = $2 WHERE enrolment_hash = $1 \
             AND waits_since IS NULL",
        );
        let done = query.bind(enrolment_hash).bind(hash).execute(&mut *self.0).await?;
        Ok(done.rows_affected() > 0)
    }

    /// The offered secret was used: it is the one from now on, and the enrolment token is spent.
    /// False when another was offered meanwhile.
    pub async fn accept_secret(&mut self, id: i64, hash: &str, now: i64) -> Result<bool> {
        let query = sqlx::query(
            "UPDATE satellites SET secret_hash = $2, secret_at = $3, next_secret_hash = NULL, \
             enrolment_hash = NULL, enrolment_expires_at = 0, revoked_at = NULL \
             WHERE id = $1 AND next_secret_hash = $2",
        );
        let done = query.bind(id).bind(hash).bind(now).execute(&mut *self.0).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends a satellite's credentials and its enrolment token. The next device that enrols with a
    /// new token ends the revocation.
    pub async fn revoke_satellite(&mut self, id: i64, now: i64) -> Result<()> {
        let query = sqlx::query(
            "UPDATE satellites SET secret_hash = NULL, next_secret_hash = NULL, \
             enrolment_hash = NULL, enrolment_expires_at = 0, waits_since = NULL, \
             revoked_at = $2 WHERE id = $1",
        );
        query.bind(id).bind(now).execute(&mut *self.0).await.map(drop)
    }

    pub async fn set_satellite_config(&mut self, id: i64, config_id: i64, now: i64) -> Result<()> {
        let query =
            sqlx::query("UPDATE satellites SET config_id = $2, updated_at = $3 WHERE id = $1");
        query.bind(id).bind(config_id).bind(now).execute(&mut *self.0).await.map(drop)
    }

    /// The name of a satellite's configuration.
    pub async fn satellite_config(&mut self, id: i64) -> Result<String> {
        let query = sqlx::query(
            "SELECT configs.name FROM configs JOIN satellites \
             ON satellites.config_id = configs.id WHERE satellites.id = $1",
        );
        query.bind(id).fetch_one(&mut *self.0).await?.try_get("name")
    }

    /// Keeps what was understood of a report, in the place of the one before.
    pub async fn put_status(
        &mut self,
        satellite_id: i64,
        report: &Report,
        assessment: &Assessment,
        hour: &Sample,
        (reported_at, now): (Option<i64>, i64),
    ) -> Result<()> {
        let text = to_json(report)?;
        sqlx::query(
            "INSERT INTO statuses (satellite_id, number, report, activity, image_count, \
             reported_at, created_at, updated, health, reason, hour) \
             VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (satellite_id) DO UPDATE SET \
             number = statuses.number + 1, report = excluded.report, \
             activity = excluded.activity, image_count = excluded.image_count, \
             reported_at = excluded.reported_at, created_at = excluded.created_at, \
             updated = excluded.updated, health = excluded.health, reason = excluded.reason, \
             hour = excluded.hour",
        )
        .bind(satellite_id)
        .bind(text)
        // PostgreSQL keeps no NUL in a text.
        .bind(report.activity.replace('\0', ""))
        .bind(report.image_count)
        .bind(reported_at)
        .bind(now)
        .bind(assessment.updated.word())
        .bind(assessment.health.word())
        .bind(&assessment.reason)
        .bind(to_json(hour)?)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    /// What a satellite is to hold has changed: its last report says nothing of that.
    pub async fn outdate_satellite(&mut self, id: i64) -> Result<()> {
        let query =
            sqlx::query("UPDATE statuses SET updated = $2, reason = $3 WHERE satellite_id = $1");
        let query = query.bind(id).bind(Updated::OutOfDate.word()).bind(CHANGED);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// The same for the satellites of a group.
    pub async fn outdate_group(&mut self, id: i64) -> Result<()> {
        let query = sqlx::query(
            "UPDATE statuses SET updated = $2, reason = $3 WHERE satellite_id IN \
             (SELECT satellite_id FROM satellite_groups WHERE group_id = $1)",
        );
        let query = query.bind(id).bind(Updated::OutOfDate.word()).bind(CHANGED);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// The same for the satellites that have a configuration.
    pub async fn outdate_config(&mut self, name: &str) -> Result<()> {
        let query = sqlx::query(
            "UPDATE statuses SET updated = $2, reason = $3 WHERE satellite_id IN \
             (SELECT satellites.id FROM satellites JOIN configs ON configs.id = config_id \
             WHERE configs.name = $1)",
        );
        let query = query.bind(name).bind(Updated::OutOfDate.word()).bind(CHANGED);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// A report came. `every` is the satellite's interval, if it said one: Go takes 15 minutes for
    /// stale otherwise.
    pub async fn set_seen(&mut self, id: i64, every: Option<Duration>, now: i64) -> Result<()> {
        let seconds = every.map_or(DEFAULT_INTERVAL_SECONDS, |every| every.as_secs());
        let micros = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(clock::SECOND);
        let after = |reports: i64| now.saturating_add(micros.saturating_mul(reports));
        let query = sqlx::query(
            "UPDATE satellites SET last_seen = $2, heartbeat_interval = $3, stale_at = $4, \
             offline_at = $5, is_offline = 0 WHERE id = $1",
        );
        let query = query.bind(id).bind(now).bind(every.map(interval::format));
        let query = query.bind(after(STALE_REPORTS)).bind(after(OFFLINE_REPORTS));
        query.execute(&mut *self.0).await.map(drop)
    }

    /// Satellites that are offline and of which no event said so, though they had their time to
    /// report since `started_at`.
    pub async fn newly_offline(
        &mut self,
        started_at: i64,
        now: i64,
        rows_max: i64,
    ) -> Result<Vec<Satellite>> {
        let query = sqlx::query(
            "SELECT * FROM satellites WHERE is_offline = 0 AND offline_at < $2 \
             AND $1 + (offline_at - last_seen) < $2 AND revoked_at IS NULL ORDER BY id LIMIT $3",
        );
        let rows = query.bind(started_at).bind(now).bind(rows_max).fetch_all(&mut *self.0).await?;
        rows.iter().map(satellite).collect()
    }

    /// An event will say that it is offline; false when it is not any more, or another says so.
    pub async fn set_offline(&mut self, id: i64, now: i64) -> Result<bool> {
        let query = sqlx::query(
            "UPDATE satellites SET is_offline = 1 \
             WHERE id = $1 AND is_offline = 0 AND offline_at < $2",
        );
        let done = query.bind(id).bind(now).execute(&mut *self.0).await?;
        Ok(done.rows_affected() > 0)
    }

    /// The satellites that match, in order of their names, each with its last report in short.
    pub async fn page(
        &mut self,
        wanted: &Wanted<'_>,
        now: i64,
    ) -> Result<Vec<(Satellite, Option<Summary>)>> {
        const BEFORE: &str = concat!(
            summaries!(),
            "WHERE name > $2 AND name LIKE $3 ESCAPE '!' AND ($4 = '' OR $4 LIKE '%' || ",
            connection!(),
            " || '%') AND ($5 = '' OR EXISTS (SELECT 1 FROM satellite_groups JOIN image_groups \
             ON image_groups.id = satellite_groups.group_id \
             WHERE satellite_groups.satellite_id = satellites.id AND image_groups.name = $5))",
        );
        let (conditions, values) = labels::conditions(wanted.selector, 7);
        // Of the selector only the number of its conditions and their kinds are in the text.
        let text = AssertSqlSafe(format!("{BEFORE}{conditions} ORDER BY name LIMIT $6"));
        let query = sqlx::query(text);
        let mut part = String::from("%");
        for sign in wanted.part.chars() {
            if ['%', '_', '!'].contains(&sign) {
                part.push('!');
            }
            part.push(sign);
        }
        part.push('%');
        let query = query.bind(now).bind(wanted.after).bind(part).bind(wanted.connections);
        let mut query = query.bind(wanted.group).bind(wanted.rows_max);
        for value in values {
            query = query.bind(value);
        }
        let rows = query.fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((satellite(row)?, summary(row)?))).collect()
    }

    /// How many satellites are connected in each way, in the order of [`Connection::ALL`].
    pub async fn count_satellites(&mut self, now: i64) -> Result<[i64; 4]> {
        let query = sqlx::query(concat!(
            "SELECT connection, COUNT(*) AS n FROM (SELECT ",
            connection!(),
            " AS connection FROM satellites) AS connections GROUP BY connection",
        ));
        let mut counts = [0; 4];
        for row in query.bind(now).fetch_all(&mut *self.0).await? {
            let word: String = row.try_get("connection")?;
            for (count, connection) in counts.iter_mut().zip(Connection::ALL) {
                if connection.word() == word {
                    *count = row.try_get("n")?;
                }
            }
        }
        Ok(counts)
    }

    pub async fn status(&mut self, satellite_id: i64) -> Result<Option<Status>> {
        let query = sqlx::query("SELECT * FROM statuses WHERE satellite_id = $1");
        let row = query.bind(satellite_id).fetch_optional(&mut *self.0).await?;
        row.as_ref().map(status).transpose()
    }
}

pub fn satellite(row: &AnyRow) -> Result<Satellite> {
    Ok(Satellite {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        secret_hash: row.try_get("secret_hash")?,
        next_secret_hash: row.try_get("next_secret_hash")?,
        secret_at: row.try_get("secret_at")?,
        enrolment_expires_at: row.try_get("enrolment_expires_at")?,
        last_seen: row.try_get("last_seen")?,
        heartbeat_interval: row.try_get("heartbeat_interval")?,
        stale_at: row.try_get("stale_at")?,
        offline_at: row.try_get("offline_at")?,
        is_offline: row.try_get::<i64, _>("is_offline")? != 0,
        revoked_at: row.try_get("revoked_at")?,
        home: row.try_get("home")?,
        batch: row.try_get("enrolled_by")?,
        device: row.try_get("device")?,
        waits_since: row.try_get("waits_since")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn summary(row: &AnyRow) -> Result<Option<Summary>> {
    let Some(activity) = row.try_get("activity")? else { return Ok(None) };
    Ok(Some(Summary {
        activity,
        image_count: row.try_get("image_count")?,
        reported_at: row.try_get("reported_at")?,
        updated: row.try_get("updated")?,
        health: row.try_get("health")?,
        reason: row.try_get("reason")?,
    }))
}

fn status(row: &AnyRow) -> Result<Status> {
    Ok(Status {
        satellite_id: row.try_get("satellite_id")?,
        number: row.try_get("number")?,
        report: from_json(row, "report")?,
        reported_at: row.try_get("reported_at")?,
        created_at: row.try_get("created_at")?,
        updated: row.try_get("updated")?,
        health: row.try_get("health")?,
        reason: row.try_get("reason")?,
        // Empty of one that an earlier version wrote.
        hour: from_json(row, "hour").ok(),
    })
}

/// Reports in a row that are missing of a satellite that is stale, or offline.
const STALE_REPORTS: i64 = 3;
const OFFLINE_REPORTS: i64 = 10;
const DEFAULT_INTERVAL_SECONDS: u64 = 300;
const CHANGED: &str = "what is desired of it changed after its last report";
