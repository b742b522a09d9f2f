//! What a registry was made to have: the artifacts there, the robot accounts of satellites, and how
//! it went the last time.
//!
//! What is to be done is what differs between these rows and those it follows from, so that a crash
//! at any point leaves no more than work to be done again.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Result, Row as _};

use super::Rows;

/// A repository whose current artifact is not at the target yet.
pub struct Unpushed {
    pub repository: String,
    pub digest: String,
}

/// A satellite's robot account.
pub struct Robot {
    pub satellite: String,
    pub robot_id: i64,
    /// The projects it may pull from, with a comma between.
    pub projects: String,
    /// The projects it was to be given: those that were not there then are missing in `projects`.
    pub wanted: String,
    /// Seconds since 1970; -1 for never.
    pub expires_at: i64,
    /// The hash of the secret that Harbor has.
    pub secret_hash: String,
    pub updated_at: i64,
}

/// How publishing goes.
#[derive(Clone, Default)]
pub struct Publishing {
    /// Why it does not; empty when it does.
    pub problem: String,
    /// Since when.
    pub problem_since: i64,
    /// When something was last done or found in order.
    pub good_at: Option<i64>,
}

/// From where, and for which rows, something is not at the target `$1`.
macro_rules! unpushed {
    () => {
        "FROM published JOIN (SELECT repository, MAX(id) AS id FROM published GROUP BY repository) \
         AS newest ON newest.id = published.id \
         LEFT JOIN pushed ON pushed.repository = published.repository AND pushed.target = $1 \
         WHERE (pushed.digest IS NULL OR pushed.digest <> published.digest) \
         AND (published.repository NOT LIKE 'satellite/satellite-state/%' \
         OR published.repository IN (SELECT 'satellite/satellite-state/' || name || '/state' \
         FROM satellites WHERE home = $1))"
    };
}

impl Rows<'_> {
    /// The newest artifact of any repository: what changes when something is published.
    pub async fn published_mark(&mut self) -> Result<i64> {
        let query = sqlx::query("SELECT COALESCE(MAX(id), 0) AS mark FROM published");
        query.fetch_one(&mut *self.0).await?.try_get("mark")
    }

    /// What the target lacks, in the order in which it was published: what is named comes before
    /// what names it. States of satellites that read theirs elsewhere are none of it.
    pub async fn unpushed(&mut self, target: &str, rows_max: i64) -> Result<Vec<Unpushed>> {
        let query = sqlx::query(concat!(
            "SELECT published.repository, published.digest ",
            unpushed!(),
            " ORDER BY published.id LIMIT $2",
        ));
        let rows = query.bind(target).bind(rows_max).fetch_all(&mut *self.0).await?;
        let unpushed = |row: &sqlx::any::AnyRow| {
            Ok(Unpushed { repository: row.try_get("repository")?, digest: row.try_get("digest")? })
        };
        rows.iter().map(unpushed).collect()
    }

    pub async fn count_unpushed(&mut self, target: &str) -> Result<i64> {
        let query = sqlx::query(concat!("SELECT COUNT(*) AS n ", unpushed!()));
        query.bind(target).fetch_one(&mut *self.0).await?.try_get("n")
    }

    /// The target has this artifact of a repository.
    pub async fn set_pushed(
        &mut self,
        target: &str,
        repository: &str,
        digest: &str,
        now: i64,
    ) -> Result<()> {
        let query = sqlx::query(
            "INSERT INTO pushed (target, repository, digest, checked_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (target, repository) DO UPDATE SET \
             digest = excluded.digest, checked_at = excluded.checked_at",
        );
        let query = query.bind(target).bind(repository).bind(digest).bind(now);
        query.execute(&mut *self.0).await.map(drop)
    }

    pub async fn forget_pushed(&mut self, target: &str, repository: &str) -> Result<()> {
        let query = sqlx::query("DELETE FROM pushed WHERE target = $1 AND repository = $2");
        query.bind(target).bind(repository).execute(&mut *self.0).await.map(drop)
    }

    /// What the target has and nothing wants any more.
    pub async fn surplus_pushed(&mut self, target: &str, rows_max: i64) -> Result<Vec<String>> {
        let query = sqlx::query(
            "SELECT repository FROM pushed WHERE target = $1 AND repository NOT IN \
             (SELECT repository FROM published) ORDER BY repository LIMIT $2",
        );
        let rows = query.bind(target).bind(rows_max).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| row.try_get("repository")).collect()
    }

    /// What was not looked at since a time, with the digest that is to be there: the longest ago
    /// first.
    pub async fn unchecked_pushed(
        &mut self,
        target: &str,
        before: i64,
        rows_max: i64,
    ) -> Result<Vec<(String, String)>> {
        let query = sqlx::query(
            "SELECT repository, digest FROM pushed WHERE target = $1 AND checked_at < $2 \
             ORDER BY checked_at LIMIT $3",
        );
        let rows = query.bind(target).bind(before).bind(rows_max).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((row.try_get("repository")?, row.try_get("digest")?))).collect()
    }

    pub async fn robots(&mut self, target: &str) -> Result<Vec<Robot>> {
        let query = sqlx::query("SELECT * FROM robots WHERE target = $1 ORDER BY satellite");
        query.bind(target).fetch_all(&mut *self.0).await?.iter().map(robot).collect()
    }

    pub async fn robot(&mut self, target: &str, satellite: &str) -> Result<Option<Robot>> {
        let query = sqlx::query("SELECT * FROM robots WHERE target = $1 AND satellite = $2");
        let row = query.bind(target).bind(satellite).fetch_optional(&mut *self.0).await?;
        row.as_ref().map(robot).transpose()
    }

    /// Keeps what is known of a robot account; the hash of its secret has a statement of its own.
    pub async fn put_robot(&mut self, target: &str, robot: &Robot) -> Result<()> {
        sqlx::query(
            "INSERT INTO robots (target, satellite, robot_id, projects, wanted, expires_at, \
             secret_hash, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (target, satellite) DO UPDATE SET \
             robot_id = excluded.robot_id, projects = excluded.projects, \
             wanted = excluded.wanted, expires_at = excluded.expires_at, \
             updated_at = excluded.updated_at",
        )
        .bind(target)
        .bind(&robot.satellite)
        .bind(robot.robot_id)
        .bind(&robot.projects)
        .bind(&robot.wanted)
        .bind(robot.expires_at)
        .bind(&robot.secret_hash)
        .bind(robot.updated_at)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    pub async fn set_robot_secret(
        &mut self,
        target: &str,
        satellite: &str,
        hash: &str,
    ) -> Result<()> {
        let query =
            sqlx::query("UPDATE robots SET secret_hash = $3 WHERE target = $1 AND satellite = $2");
        query.bind(target).bind(satellite).bind(hash).execute(&mut *self.0).await.map(drop)
    }

    pub async fn forget_robot(&mut self, target: &str, satellite: &str) -> Result<()> {
        let query = sqlx::query("DELETE FROM robots WHERE target = $1 AND satellite = $2");
        query.bind(target).bind(satellite).execute(&mut *self.0).await.map(drop)
    }

    /// The satellites that read their state at a place, and the groups each is in.
    pub async fn homed(&mut self, home: &str) -> Result<BTreeMap<String, BTreeSet<i64>>> {
        let query = sqlx::query(
            "SELECT satellites.name, satellite_groups.group_id FROM satellites \
             LEFT JOIN satellite_groups ON satellite_groups.satellite_id = satellites.id \
             WHERE satellites.home = $1 AND satellites.revoked_at IS NULL",
        );
        let mut homed: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        for row in query.bind(home).fetch_all(&mut *self.0).await? {
            let groups = homed.entry(row.try_get("name")?).or_default();
            groups.extend(row.try_get::<Option<i64>, _>("group_id")?);
        }
        Ok(homed)
    }

    /// How many enrolled satellites read their state neither here nor at `home`.
    pub async fn count_homed_elsewhere(&mut self, home: &str) -> Result<i64> {
        let query = sqlx::query(
            "SELECT COUNT(*) AS n FROM satellites WHERE home <> $1 AND home <> '' \
             AND secret_hash IS NOT NULL",
        );
        query.bind(home).fetch_one(&mut *self.0).await?.try_get("n")
    }

    /// Where a satellite reads its state from now on; nothing for here.
    pub async fn set_home(&mut self, satellite_id: i64, home: &str) -> Result<()> {
        let query = sqlx::query("UPDATE satellites SET home = $2 WHERE id = $1");
        query.bind(satellite_id).bind(home).execute(&mut *self.0).await.map(drop)
    }

    pub async fn publishing(&mut self, target: &str) -> Result<Publishing> {
        let query = sqlx::query("SELECT * FROM publishing WHERE target = $1").bind(target);
        let Some(row) = query.fetch_optional(&mut *self.0).await? else {
            return Ok(Publishing::default());
        };
        Ok(Publishing {
            problem: row.try_get("problem")?,
            problem_since: row.try_get("problem_since")?,
            good_at: row.try_get("good_at")?,
        })
    }

    pub async fn set_publishing(&mut self, target: &str, how: &Publishing) -> Result<()> {
        let query = sqlx::query(
            "INSERT INTO publishing (target, problem, problem_since, good_at) \
             VALUES ($1, $2, $3, $4) ON CONFLICT (target) DO UPDATE SET \
             problem = excluded.problem, problem_since = excluded.problem_since, \
             good_at = excluded.good_at",
        );
        let query = query.bind(target).bind(&how.problem).bind(how.problem_since);
        query.bind(how.good_at).execute(&mut *self.0).await.map(drop)
    }
}

fn robot(row: &sqlx::any::AnyRow) -> Result<Robot> {
    Ok(Robot {
        satellite: row.try_get("satellite")?,
        robot_id: row.try_get("robot_id")?,
        projects: row.try_get("projects")?,
        wanted: row.try_get("wanted")?,
        expires_at: row.try_get("expires_at")?,
        secret_hash: row.try_get("secret_hash")?,
        updated_at: row.try_get("updated_at")?,
    })
}
