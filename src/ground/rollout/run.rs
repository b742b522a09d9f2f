//! Carries the steps of rollouts out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Step;
use super::decide::{Budgeted, RELEASES_MAX, Usage, decide};
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::journal::Kind;
use crate::ground::labels::Selector;
use crate::ground::model::{Connection, Member, Phase, Policy};
use crate::ground::store::{Group, Rollout, Rows};
use crate::ground::{clock, journal, publish};

/// Runs until it is dropped. What fails is logged and tried again, and holds up no other rollout.
pub async fn run(app: Arc<App>) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let active = async {
            let mut read = app.store.read().await?;
            read.rows().active_rollouts().await
        };
        match active.await {
            Ok(active) => {
                for rollout in active {
                    if let Err(fault) = advance(&app, &rollout.name).await {
                        tracing::warn!("rollout {}: {}", rollout.name, fault.message);
                    }
                }
            }
            Err(error) => tracing::warn!("looking for rollouts: {error}"),
        }
    }
}

/// Does all that can be done now. Others get their turn between two steps.
async fn advance(app: &App, name: &str) -> Result<(), Fault> {
    loop {
        let mut read = app.store.read().await?;
        let mut rows = read.rows();
        let Some(rollout) = rows.rollout(name).await? else { return Ok(()) };
        if let Step::Wait(_) = look(&mut rows, &rollout, clock::now()).await? {
            return Ok(());
        }
        drop(read);
        step(app, name).await?;
    }
}

/// What is to be done next.
pub async fn look(rows: &mut Rows<'_>, rollout: &Rollout, now: i64) -> Result<Step, Fault> {
    // Of those that do not run no satellite has to be looked at.
    let (members, budgeted) = match rollout.phase {
        Phase::Running => {
            let members = rows.members(rollout, now).await?;
            let budgeted = budgeted(rows, rollout, &members, now).await?;
            (members, budgeted)
        }
        _ => (Vec::new(), Budgeted::default()),
    };
    let at = (rollout.batch, rollout.approved);
    Ok(decide(&rollout.policy, rollout.phase, at, &members, &budgeted, now))
}

/// What a rollout's disruption budget counts.
async fn budgeted(
    rows: &mut Rows<'_>,
    rollout: &Rollout,
    members: &[Member],
    now: i64,
) -> Result<Budgeted, Fault> {
    let Policy { disruption_budget: Some(budget), .. } = &rollout.policy else {
        return Ok(Budgeted::default());
    };
    let waiting: BTreeSet<i64> = members
        .iter()
        .filter(|member| member.released_at.is_none())
        .map(|member| member.satellite_id)
        .collect();
    if waiting.is_empty() {
        return Ok(Budgeted::default());
    }
    let mut keys: BTreeMap<i64, String> = BTreeMap::new();
    for label in &budget.group_by {
        for (satellite, value) in rows.group_label(rollout.group_id, label).await? {
            let key = keys.entry(satellite).or_default();
            // No value has such a sign.
            key.push_str(&format!("{label}={value},"));
        }
    }
    let mut budgeted = Budgeted::default();
    for (satellite, (is_busy, connection)) in rows.group_availability(rollout, now).await? {
        let key = keys.remove(&satellite).unwrap_or_default();
        let usage: &mut Usage = budgeted.usage.entry(key.clone()).or_default();
        usage.all += 1;
        if is_busy || matches!(connection, Connection::Offline | Connection::Unknown) {
            usage.unavailable += 1;
        }
        if waiting.contains(&satellite) {
            budgeted.key_of.insert(satellite, key);
        }
    }
    Ok(budgeted)
}

/// Decides anew under the lock, and does it.
async fn step(app: &App, name: &str) -> Result<(), Fault> {
    let now = clock::now();
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let Some(rollout) = rows.rollout(name).await? else { return Ok(()) };
    match look(&mut rows, &rollout, now).await? {
        // Another replica was quicker.
        Step::Wait(_) => return Ok(()),
        Step::Begin(batch) => begin(&mut rows, &rollout, batch).await?,
        Step::Release(satellites) => {
            for satellite in &satellites {
                rows.release(rollout.id, *satellite, now).await?;
            }
            publish_all(&mut rows, app, &satellites).await?;
        }
        Step::Ask(reason) => {
            let phase = Phase::AwaitingApproval;
            enter(&mut rows, &rollout, phase, Kind::RolloutWaiting, &reason).await?;
        }
        Step::RollBack(reason) => {
            let phase = Phase::RollingBack;
            enter(&mut rows, &rollout, phase, Kind::RolloutFailed, &reason).await?;
        }
        Step::Withdraw => {
            let limit = i64::try_from(RELEASES_MAX).unwrap_or(i64::MAX);
            let holders = rows.released_to(rollout.id, limit).await?;
            for satellite in &holders {
                rows.withdraw(rollout.id, *satellite).await?;
            }
            publish_all(&mut rows, app, &holders).await?;
            if holders.len() < RELEASES_MAX {
                let phase = match rollout.phase {
                    Phase::Aborting => Phase::Aborted,
                    _ => Phase::RolledBack,
                };
                let reason = rollout.reason.clone();
                enter(&mut rows, &rollout, phase, Kind::RolloutWithdrawn, &reason).await?;
            }
        }
        Step::Complete => complete(&mut rows, &rollout).await?,
    }
    write.commit().await?;
    Ok(())
}

/// Chooses a batch's satellites. The last one is begun again while there are new ones.
async fn begin(rows: &mut Rows<'_>, rollout: &Rollout, batch: usize) -> Result<(), Fault> {
    let rules = rollout.policy.batch(batch);
    let selector = Selector::parse(&rules.selector)?;
    let limit = |all| rules.limit.map_or(all, |limit| limit.of(all));
    let count = rows.begin_batch(rollout, batch, &selector, limit).await?;
    let message = format!("batch {batch} of {}: {count} satellites", rollout.policy.batches());
    let event = journal::event(Kind::RolloutBatch, "", &rollout.name, &message);
    rows.add_event(&event).await?;
    Ok(())
}

/// A satellite came to a group; its state is yet to be published. What is staged for the group it
/// gets at once: it is to switch when the others do, and nothing it serves changes by that. What a
/// rollout brings without staging comes in a batch, as to any other.
pub async fn join(rows: &mut Rows<'_>, satellite_id: i64, group: &Group) -> Result<(), Fault> {
    rows.join_group(satellite_id, group.id).await?;
    let now = clock::now();
    let Some(rollout) = rows.active_rollout(group.id).await? else { return Ok(()) };
    if rollout.batch == 0 || rollout.policy.is_staged(now).is_none() {
        return Ok(());
    }
    let released_at = match rollout.phase {
        Phase::Running | Phase::AwaitingApproval => Some(now),
        // It waits with the others.
        Phase::Paused => None,
        _ => return Ok(()),
    };
    Ok(rows.join_rollout(&rollout, satellite_id, released_at).await?)
}

/// What a satellite's own state says follows from where its rollouts are.
async fn publish_all(rows: &mut Rows<'_>, app: &App, satellites: &[i64]) -> Result<(), Fault> {
    for id in satellites {
        if let Some(satellite) = rows.satellite_by_id(*id).await? {
            publish::satellite(rows, &app.url, &satellite).await?;
        }
    }
    Ok(())
}

async fn enter(
    rows: &mut Rows<'_>,
    rollout: &Rollout,
    phase: Phase,
    kind: Kind,
    reason: &str,
) -> Result<(), Fault> {
    rows.set_phase(rollout.id, phase, reason, clock::now()).await?;
    rows.add_event(&journal::event(kind, "", &rollout.name, reason)).await?;
    Ok(())
}

/// The new state is the group's. Satellites that came to the group meanwhile are one batch more.
async fn complete(rows: &mut Rows<'_>, rollout: &Rollout) -> Result<(), Fault> {
    let last = rollout.policy.batches();
    let added = rows.begin_batch(rollout, last, &Selector::default(), |all| all).await?;
    if added > 0 {
        return Ok(());
    }
    let name = &rollout.state.group;
    let Some(before) = rows.group(name).await? else { return Ok(()) };
    rows.set_version(before.id, rollout.id).await?;
    let group = rows.put_group(&rollout.state, clock::now()).await?;
    if group.state.registry != before.state.registry {
        // What another registry said of a tag counts no more.
        rows.forget_group_tags(group.id).await?;
    }
    publish::group(rows, &group).await?;
    let actor = format!("rollout/{}", rollout.name);
    let change = ("group.put", name.as_str());
    journal::audit(rows, &actor, change, &before.state, &group.state).await?;
    enter(rows, rollout, Phase::Completed, Kind::RolloutCompleted, "all batches have it").await
}

const ROUND: Duration = Duration::from_secs(2);
