//! Samples of satellites' past, as rows, and how many satellites were connected at which hour.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use sqlx::{Result, Row as _};

use super::Rows;
use crate::ground::model::{DAY, HOUR, KEPT_DAYS, MERGED, SAMPLES_MAX, Sample, merged_before};

/// The fleet at an hour: satellites in the order of `Connection::ALL`.
pub struct FleetSample {
    pub at: i64,
    pub connections: [i64; 4],
}

/// The greater of two, in the SQL that both databases know; nothing is less than anything.
macro_rules! greater {
    ($column:literal) => {
        concat!(
            $column,
            " = CASE WHEN history.",
            $column,
            " >= excluded.",
            $column,
            " OR excluded.",
            $column,
            " IS NULL THEN history.",
            $column,
            " ELSE excluded.",
            $column,
            " END"
        )
    };
}

macro_rules! sum {
    ($column:literal) => {
        concat!(
            $column,
            " = COALESCE(history.",
            $column,
            " + excluded.",
            $column,
            ", history.",
            $column,
            ", excluded.",
            $column,
            ")"
        )
    };
}

impl Rows<'_> {
    /// Keeps a sample, merged with what is kept of its time. The oldest are dropped for it.
    pub async fn put_sample(&mut self, satellite_id: i64, sample: &Sample) -> Result<()> {
        sqlx::query(concat!(
            "INSERT INTO history (satellite_id, at, micros, online, received, written, worn, \
             storage, images, behind, health) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (satellite_id, at) DO UPDATE SET ",
            greater!("micros"), ", ", sum!("online"), ", ", sum!("received"), ", ",
            sum!("written"), ", ", greater!("worn"), ", ", greater!("storage"), ", ",
            greater!("images"), ", ", greater!("behind"), ", ", greater!("health"),
        ))
        .bind(satellite_id)
        .bind(sample.at)
        .bind(sample.micros)
        .bind(sample.online_micros)
        .bind(sample.received_bytes)
        .bind(sample.written_bytes)
        .bind(sample.worn_ppm)
        .bind(sample.storage_bytes)
        .bind(sample.images)
        .bind(sample.behind)
        .bind(sample.health)
        .execute(&mut *self.0)
        .await?;
        let query = sqlx::query(
            "DELETE FROM history WHERE satellite_id = $1 AND at <= (SELECT at FROM history \
             WHERE satellite_id = $1 ORDER BY at DESC LIMIT 1 OFFSET $2)",
        );
        query.bind(satellite_id).bind(SAMPLES_MAX).execute(&mut *self.0).await.map(drop)
    }

    /// The samples of hours that are over which begin after a time, the oldest first.
    pub async fn samples(
        &mut self,
        satellite_id: i64,
        after: i64,
        rows_max: i64,
    ) -> Result<Vec<Sample>> {
        let query = sqlx::query(
            "SELECT * FROM history WHERE satellite_id = $1 AND at > $2 ORDER BY at LIMIT $3",
        );
        let query = query.bind(satellite_id).bind(after).bind(rows_max);
        query.fetch_all(&mut *self.0).await?.iter().map(sample).collect()
    }

    /// Merges and removes what is old of the satellites after `after`, some of them; returns the
    /// last of these, or None when there were none.
    pub async fn prune_samples(&mut self, after: i64, now: i64) -> Result<Option<i64>> {
        let query = sqlx::query(
            "SELECT MAX(id) AS last FROM \
             (SELECT id FROM satellites WHERE id > $1 ORDER BY id LIMIT $2) AS chosen",
        );
        let row = query.bind(after).bind(SATELLITES_MAX).fetch_one(&mut *self.0).await?;
        let Some(last) = row.try_get::<Option<i64>, _>("last")? else { return Ok(None) };
        // A clock that was wrong may have put some into the future.
        let query = sqlx::query(
            "DELETE FROM history WHERE satellite_id > $1 AND satellite_id <= $2 \
             AND (at < $3 OR at > $4)",
        );
        let query = query.bind(after).bind(last).bind(now - KEPT_DAYS * DAY).bind(now + DAY);
        query.execute(&mut *self.0).await?;
        // Who removes a row merges it: another replica may be at the same.
        let query = sqlx::query(
            "DELETE FROM history WHERE satellite_id > $1 AND satellite_id <= $2 \
             AND at < $3 AND micros < $4 RETURNING *",
        );
        let query = query.bind(after).bind(last).bind(merged_before(now)).bind(MERGED);
        let mut merged: BTreeMap<(i64, i64), Sample> = BTreeMap::new();
        for row in query.fetch_all(&mut *self.0).await? {
            let sample = sample(&row)?.placed(now);
            let key = (row.try_get("satellite_id")?, sample.at);
            match merged.get_mut(&key) {
                Some(known) => known.merge(&sample),
                None => drop(merged.insert(key, sample)),
            }
        }
        for ((satellite_id, _), sample) in &merged {
            self.put_sample(*satellite_id, sample).await?;
        }
        Ok(Some(last))
    }

    /// Keeps how many satellites are connected in each way, as the last of its hour, and removes
    /// what is old.
    pub async fn put_fleet_sample(&mut self, connections: &[i64; 4], now: i64) -> Result<()> {
        let [online, stale, offline, unknown] = *connections;
        let query = sqlx::query(
            "INSERT INTO fleet_history (at, online, stale, offline, unknown) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (at) DO UPDATE SET \
             online = excluded.online, stale = excluded.stale, offline = excluded.offline, \
             unknown = excluded.unknown",
        );
        let query = query.bind(now - now.rem_euclid(HOUR)).bind(online).bind(stale);
        query.bind(offline).bind(unknown).execute(&mut *self.0).await?;
        let query = sqlx::query("DELETE FROM fleet_history WHERE at < $1 OR at > $2");
        let query = query.bind(now - KEPT_DAYS * DAY).bind(now + DAY);
        query.execute(&mut *self.0).await.map(drop)
    }

    /// The fleet at the hours that begin after a time, the oldest first.
    pub async fn fleet_samples(&mut self, after: i64, rows_max: i64) -> Result<Vec<FleetSample>> {
        let query = sqlx::query("SELECT * FROM fleet_history WHERE at > $1 ORDER BY at LIMIT $2");
        let rows = query.bind(after).bind(rows_max).fetch_all(&mut *self.0).await?;
        rows.iter()
            .map(|row| {
                Ok(FleetSample {
                    at: row.try_get("at")?,
                    connections: [
                        row.try_get("online")?,
                        row.try_get("stale")?,
                        row.try_get("offline")?,
                        row.try_get("unknown")?,
                    ],
                })
            })
            .collect()
    }
}

fn sample(row: &AnyRow) -> Result<Sample> {
    Ok(Sample {
        at: row.try_get("at")?,
        micros: row.try_get("micros")?,
        online_micros: row.try_get("online")?,
        received_bytes: row.try_get("received")?,
        written_bytes: row.try_get("written")?,
        worn_ppm: row.try_get("worn")?,
        storage_bytes: row.try_get("storage")?,
        images: row.try_get("images")?,
        behind: row.try_get("behind")?,
        health: row.try_get("health")?,
    })
}

/// Of one step: reports wait for it.
const SATELLITES_MAX: i64 = 200;

#[cfg(test)]
mod tests {
    use super::super::{NewConfig, Store};
    use super::*;
    use crate::ground::settings::Database;

    async fn on_each_store(test: impl AsyncFn(&Store)) {
        let name = format!("ground_history_{}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        let store = Store::open(&Database::Directory(directory.clone())).await.unwrap();
        test(&store).await;
        store.close().await;
        std::fs::remove_dir_all(directory).unwrap();
        let Ok(server) = std::env::var("MOONLET_TEST_POSTGRES") else { return };
        let mut createdb = std::process::Command::new("createdb");
        let made = createdb.arg(format!("--maintenance-db={server}/postgres")).arg(&name).status();
        assert!(made.unwrap().success(), "createdb {name}");
        let store = Store::open(&Database::Postgres(format!("{server}/{name}"))).await.unwrap();
        test(&store).await;
        store.close().await;
    }

    fn of(at: i64) -> Sample {
        Sample {
            at,
            micros: HOUR,
            online_micros: HOUR,
            received_bytes: Some(10),
            worn_ppm: Some(at / HOUR),
            behind: i64::from(at % (6 * HOUR) == 0),
            ..Sample::default()
        }
    }

    /// 40 days of a satellite, with a look at the clock each hour.
    #[test]
    fn a_month_is_kept_in_bounded_space() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(on_each_store(async |store| {
            let mut write = store.write().await.unwrap();
            let mut rows = write.rows();
            let new = NewConfig { name: "c1", registry: "", config: "{}" };
            let config = rows.add_config(&new, 0).await.unwrap();
            let id = rows.add_satellite("a", config.id, 0).await.unwrap().id;
            let other = rows.add_satellite("b", config.id, 0).await.unwrap().id;
            let start = 20_000 * DAY;
            for hour in 0..40 * 24 {
                let now = start + (hour + 1) * HOUR;
                rows.put_sample(id, &of(start + hour * HOUR)).await.unwrap();
                let last = rows.prune_samples(0, now).await.unwrap();
                assert_eq!(last, Some(other));
                assert_eq!(rows.prune_samples(other, now).await.unwrap(), None);
                rows.put_fleet_sample(&[1, 2, 3, hour], now).await.unwrap();
            }
            let now = start + 40 * DAY;
            let kept = rows.samples(id, 0, i64::MAX).await.unwrap();
            assert_eq!(kept.len(), 3 * 24 + 27 * 4, "hours of three days, quarters of 27");
            assert!(i64::try_from(kept.len()).unwrap() < SAMPLES_MAX);
            assert_eq!(kept[0].at, now - KEPT_DAYS * DAY);
            let sum: i64 = kept.iter().filter_map(|sample| sample.received_bytes).sum();
            assert_eq!(sum, 30 * 24 * 10, "merging loses no byte");
            let quarter = kept.iter().find(|sample| sample.micros == MERGED).unwrap();
            assert_eq!((quarter.online_micros, quarter.behind), (MERGED, 1));
            assert_eq!(quarter.worn_ppm, Some(quarter.at / HOUR + 5), "the last of six");
            for pair in kept.windows(2) {
                assert_eq!(pair[0].at + pair[0].micros, pair[1].at, "no gap, nothing twice");
            }
            assert!(rows.samples(other, 0, 9).await.unwrap().is_empty());
            let fleet = rows.fleet_samples(0, i64::MAX).await.unwrap();
            assert_eq!(fleet.len(), 30 * 24 + 1);
            assert_eq!(fleet.last().unwrap().connections, [1, 2, 3, 40 * 24 - 1]);

            // An hour reported late joins its six; a value left out takes nothing away.
            let late = Sample { received_bytes: None, behind: 7, ..of(quarter.at + HOUR) };
            rows.put_sample(id, &late.placed(now)).await.unwrap();
            let after = rows.samples(id, quarter.at - 1, 1).await.unwrap();
            assert_eq!((after[0].received_bytes, after[0].behind), (Some(60), 7));
            assert_eq!((after[0].micros, after[0].online_micros), (MERGED, MERGED + HOUR));

            // A clock that jumps about makes no more rows than there may be.
            for jump in 0..SAMPLES_MAX + 50 {
                rows.put_sample(other, &of(start + jump * 7 * DAY)).await.unwrap();
            }
            let jumped = rows.samples(other, 0, i64::MAX).await.unwrap();
            assert_eq!(i64::try_from(jumped.len()).unwrap(), SAMPLES_MAX);
            assert_eq!(jumped[0].at, start + 50 * 7 * DAY, "the oldest are dropped");
            rows.prune_samples(0, now).await.unwrap();
            assert!(
                rows.samples(other, 0, i64::MAX).await.unwrap().is_empty(),
                "all in the future"
            );
            rows.delete_satellite(id).await.unwrap();
            assert!(rows.samples(id, 0, 9).await.unwrap().is_empty(), "it ends with its satellite");
            write.commit().await.unwrap();
        }));
    }
}
