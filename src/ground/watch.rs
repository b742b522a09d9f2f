//! Looks at intervals for what no request says: satellites that fell silent, and records that are
//! too old. What fails is logged and tried again; nothing else waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::app::App;
use super::journal::Kind;
use super::store::Store;
use super::{clock, journal};

/// Runs until it is dropped.
pub async fn run(app: Arc<App>) {
    let started_at = clock::now();
    let mut rounds = tokio::time::interval(ROUND);
    let (mut sampled_at, mut pruned_at) = (None, None);
    loop {
        rounds.tick().await;
        if let Err(error) = announce_offline(&app, started_at).await {
            tracing::warn!("looking for satellites that are offline: {error}");
        }
        let now = clock::now();
        let is_due = |last: Option<i64>, seconds: i64| {
            last.is_none_or(|at| now - at >= seconds * clock::SECOND || now < at)
        };
        if is_due(sampled_at, SAMPLE_SECONDS) {
            sampled_at = Some(now);
            if let Err(error) = sample_fleet(&app, now).await {
                tracing::warn!("counting satellites for the history: {error}");
            }
        }
        if is_due(pruned_at, PRUNE_SECONDS) {
            pruned_at = Some(now);
            if let Err(error) = prune(&app, now).await {
                tracing::warn!("removing old records: {error}");
            }
        }
    }
}

/// Says of each satellite once that it is offline. None could report while this server was not
/// there: each has had its time since the start.
async fn announce_offline(app: &App, started_at: i64) -> sqlx::Result<()> {
    let now = clock::now();
    let silent = app.store.read().await?.rows().newly_offline(started_at, now, BATCH_MAX).await?;
    if silent.is_empty() {
        return Ok(());
    }
    let mut write = app.store.write().await?;
    let mut rows = write.rows();
    for satellite in &silent {
        // It may have reported meanwhile, and another replica may have been quicker.
        if rows.set_offline(satellite.id, now).await? {
            let message = "ten reports in a row are missing";
            let event = journal::event(Kind::Offline, &satellite.name, "", message);
            rows.add_event(&event).await?;
        }
    }
    write.commit().await
}

async fn prune(app: &App, now: i64) -> sqlx::Result<()> {
    let mut write = app.store.write().await?;
    write.rows().prune_journal(now).await?;
    write.commit().await?;
    prune_history(&app.store, now).await
}

/// Step by step, so that no report waits for all of it.
async fn prune_history(store: &Store, now: i64) -> sqlx::Result<()> {
    let mut after = Some(0);
    while let Some(id) = after {
        let mut write = store.report().await?;
        after = write.rows().prune_samples(id, now).await?;
        write.commit().await?;
    }
    Ok(())
}

/// Keeps how many satellites are connected. The last of an hour counts.
async fn sample_fleet(app: &App, now: i64) -> sqlx::Result<()> {
    let connections = app.store.read().await?.rows().count_satellites(now).await?;
    let mut write = app.store.report().await?;
    write.rows().put_fleet_sample(&connections, now).await?;
    write.commit().await
}

const ROUND: Duration = Duration::from_secs(5);
const SAMPLE_SECONDS: i64 = 300;
const PRUNE_SECONDS: i64 = 3600;
const BATCH_MAX: i64 = 500;

#[cfg(test)]
mod tests {
    use super::super::settings::Database;
    use super::super::store::NewConfig;
    use super::*;

    #[test]
    fn a_server_that_was_away_calls_none_offline() {
        let directory = std::env::temp_dir().join(format!("ground_watch_{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&Database::Directory(directory.clone())).await.unwrap();
            let mut write = store.write().await.unwrap();
            let mut rows = write.rows();
            let new = NewConfig { name: "c1", registry: "", config: "{}" };
            let config = rows.add_config(&new, 0).await.unwrap();
            let satellite = rows.add_satellite("a", config.id, 0).await.unwrap();
            let seconds = |count: i64| count * clock::SECOND;
            rows.set_seen(satellite.id, Some(Duration::from_secs(6)), 0).await.unwrap();
            for (started_at, now, count) in
                [(0, 60, 0), (0, 61, 1), (1000, 1060, 0), (1000, 1061, 1)]
            {
                let found = rows.newly_offline(seconds(started_at), seconds(now), 5).await.unwrap();
                assert_eq!(found.len(), count, "{started_at} {now}");
            }
            assert!(!rows.set_offline(satellite.id, seconds(60)).await.unwrap(), "not yet");
            assert!(rows.set_offline(satellite.id, seconds(61)).await.unwrap());
            assert!(!rows.set_offline(satellite.id, seconds(61)).await.unwrap(), "said already");
            assert!(rows.newly_offline(0, seconds(99), 5).await.unwrap().is_empty());
            rows.set_seen(satellite.id, None, seconds(100)).await.unwrap();
            assert!(!rows.satellite("a").await.unwrap().unwrap().is_offline);
            write.commit().await.unwrap();
            store.close().await;
        });
        std::fs::remove_dir_all(directory).unwrap();
    }
}
