//! Rollouts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::etag::{Expected, Version};
use super::extract::{Body, Editor, Person, Query, check_name};
use super::groups::no_rollout;
use super::listing::limit;
use crate::fleet::shown;
use crate::fleet::state::GroupState;
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::journal::Kind;
use crate::ground::model::{Phase, Policy};
use crate::ground::rollout::{Counts, Step, look};
use crate::ground::store::{self, Rollout, Rows, is_duplicate};
use crate::ground::{clock, journal, publish};

/// A rollout that is to begin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRollout {
    pub name: String,
    pub group: String,
    /// What the group is to hold.
    pub state: GroupState,
    #[serde(default)]
    pub policy: Policy,
}

/// What people do to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pause,
    Resume,
    Approve,
    Abort,
}

impl Action {
    pub const ALL: [Self; 4] = [Self::Pause, Self::Resume, Self::Approve, Self::Abort];

    /// Its name in paths.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Abort => "abort",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.word() == word)
    }

    /// The phases in which it can be done, and the one it leads to.
    fn leads(self) -> (&'static [Phase], Phase) {
        use Phase::{Aborting, AwaitingApproval, Paused, Running};
        match self {
            Self::Pause => (&[Running], Paused),
            Self::Resume => (&[Paused], Running),
            Self::Approve => (&[AwaitingApproval], Running),
            Self::Abort => (&[Running, AwaitingApproval, Paused], Aborting),
        }
    }

    /// Whether it can be done in a phase.
    pub fn is_possible(self, phase: Phase) -> bool {
        self.leads().0.contains(&phase)
    }
}

/// Which part of a list is asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Listing {
    before: String,
    after: String,
    limit: String,
}

/// A rollout with where its satellites are.
pub struct Seen {
    pub rollout: Rollout,
    /// One for each batch that began.
    pub counts: Vec<Counts>,
    /// What it waits for.
    pub waits: String,
}

impl Seen {
    pub async fn read(rows: &mut Rows<'_>, name: &str, now: i64) -> Result<Self, Fault> {
        let rollout = find(rows, name).await?;
        let mut counts = vec![Counts::default(); rollout.batch];
        for (batch, member) in rows.all_members(rollout.id, now).await? {
            let place = batch.checked_sub(1);
            if let Some(counts) = place.and_then(|place| counts.get_mut(place)) {
                counts.add(member.standing(&rollout.policy, now));
            }
        }
        let waits = match look(rows, &rollout, now).await? {
            Step::Wait(why) => why,
            _ => String::new(),
        };
        Ok(Self { rollout, counts, waits })
    }
}

pub async fn list(
    State(app): State<Arc<App>>,
    _: Person,
    Query(listing): Query<Listing>,
) -> Result<Json<Value>, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let before = match listing.before.as_str() {
        "" => i64::MAX,
        name => find(&mut rows, name).await?.id,
    };
    let rows_max = limit(&listing.limit)?.unwrap_or(PAGE_ROWS);
    let rollouts = rows.rollouts(before, rows_max).await?;
    Ok(Json(rollouts.iter().map(|rollout| answer(&app, rollout)).collect()))
}

pub async fn start(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Body(new): Body<Value>,
) -> Result<Response, Fault> {
    let new = serde_path_to_error::deserialize(new);
    let new = new.map_err(|error| Fault::bad(format!("{}: {}", error.path(), error.inner())))?;
    let rollout = start_rollout(&app, &person.actor, new).await?;
    Ok((StatusCode::CREATED, versioned(&app, &rollout)).into_response())
}

/// Begins a rollout: its state is published, and no satellite's state names it yet.
pub async fn start_rollout(app: &App, actor: &str, new: NewRollout) -> Result<Rollout, Fault> {
    let NewRollout { name, group, mut state, policy } = new;
    check_name("rollout", &name, &["new"])?;
    if !state.group.is_empty() && state.group != group {
        return Err(Fault::bad(format!("state.group {}: expected {group}", shown(&state.group))));
    }
    state.group.clone_from(&group);
    state.registry.truncate(state.registry.trim_end_matches('/').len());
    state.check()?;
    policy.check()?;
    if state.staged.is_some() {
        let expected = "expected downloadOnly or activateAt in the policy";
        return Err(Fault::bad(format!("state.staged: {expected}")));
    }
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let found = rows.group(&group).await?;
    let found = found.ok_or_else(|| {
        Fault::bad(format!("group {}: expected the name of a group", shown(&group)))
    })?;
    no_rollout(&mut rows, &found).await?;
    if found.state == state {
        return Err(Fault::bad(format!("group {group}: it is that already: expected a change")));
    }
    let new = store::NewRollout {
        name: &name,
        group_id: found.id,
        state: &state,
        policy: &policy,
        actor,
    };
    let added = rows.add_rollout(&new, clock::now()).await;
    if added.as_ref().is_err_and(is_duplicate) {
        let message = format!("rollout {}: the name is taken", shown(&name));
        return Err(Fault::new(StatusCode::CONFLICT, message));
    }
    let rollout = added?;
    publish::forget_versions(&mut rows, &found).await?;
    publish::release(&mut rows, &rollout).await?;
    let message = format!("group {group}, {} batches", policy.batches());
    rows.add_event(&journal::event(Kind::RolloutStarted, "", &name, &message)).await?;
    let new = json!({ "state": state, "policy": policy });
    journal::audit(&mut rows, actor, ("rollout.start", &name), &(), &new).await?;
    write.commit().await?;
    Ok(rollout)
}

pub async fn show(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    let mut read = app.store.read().await?;
    let seen = Seen::read(&mut read.rows(), &name, clock::now()).await?;
    let mut value = answer(&app, &seen.rollout);
    let counts = (1..).zip(&seen.counts).map(|(batch, counts): (usize, _)| {
        json!({
            "batch": batch,
            "rule": seen.rollout.policy.batch(batch).to_string(),
            "waiting": counts.waiting,
            "offline": counts.offline,
            "updating": counts.updating,
            "updated": counts.updated,
            "failed": counts.failed,
        })
    });
    if let Value::Object(fields) = &mut value {
        fields.insert("counts".to_owned(), counts.collect());
        fields.insert("waits".to_owned(), json!(seen.waits));
    }
    Ok(Version::of_rollout(&app, &seen.rollout).with(Json(value)))
}

/// The satellites that a rollout has chosen so far.
pub async fn satellites(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
    Query(listing): Query<Listing>,
) -> Result<Json<Value>, Fault> {
    let now = clock::now();
    let rows_max = limit(&listing.limit)?.unwrap_or(PAGE_ROWS);
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let rollout = find(&mut rows, &name).await?;
    let released = rows.released(rollout.id, &listing.after, rows_max, now).await?;
    let released = released.iter().map(|released| {
        json!({
            "satellite": released.satellite,
            "batch": released.batch,
            "state": released.member.standing(&rollout.policy, now).word(),
            "connection": released.member.connection.word(),
            "released_at": released.member.released_at.map(clock::rfc3339),
            "reason": released.reason,
        })
    });
    Ok(Json(released.collect()))
}

pub async fn act(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Path((name, action)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let action = Action::parse(&action).ok_or_else(|| Fault::missing("not found"))?;
    let rollout = act_on(&app, &person.actor, &expected, &name, action).await?;
    Ok(versioned(&app, &rollout))
}

/// Does what a person wants of a rollout.
pub async fn act_on(
    app: &App,
    actor: &str,
    expected: &Expected,
    name: &str,
    action: Action,
) -> Result<Rollout, Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let rollout = find(&mut rows, name).await?;
    expected.check(&mut rows, &Version::of_rollout(app, &rollout)).await?;
    let (from, to) = action.leads();
    if !from.contains(&rollout.phase) {
        let from: Vec<&str> = from.iter().map(|phase| phase.word()).collect();
        let (phase, from) = (rollout.phase.word(), from.join(" or "));
        let message = format!("rollout {name} is {phase}: expected {from}");
        return Err(Fault::new(StatusCode::CONFLICT, message));
    }
    if action == Action::Approve {
        rows.approve(rollout.id, rollout.batch + 1).await?;
    }
    let reason = match action {
        Action::Pause | Action::Abort => format!("by {actor}"),
        Action::Resume | Action::Approve => String::new(),
    };
    rows.set_phase(rollout.id, to, &reason, clock::now()).await?;
    let what = format!("rollout.{}", action.word());
    let change = (what.as_str(), name);
    journal::audit(&mut rows, actor, change, &rollout.phase.word(), &to.word()).await?;
    let rollout = find(&mut rows, name).await?;
    write.commit().await?;
    Ok(rollout)
}

async fn find(rows: &mut Rows<'_>, name: &str) -> Result<Rollout, Fault> {
    rows.rollout(name).await?.ok_or_else(|| Fault::missing("rollout not found"))
}

fn versioned(app: &App, rollout: &Rollout) -> Response {
    Version::of_rollout(app, rollout).with(Json(answer(app, rollout)))
}

fn answer(app: &App, rollout: &Rollout) -> Value {
    let mut state = json!(rollout.state);
    if let Value::Object(fields) = &mut state {
        fields.remove("group");
    }
    json!({
        "name": rollout.name,
        "group": rollout.state.group,
        "state": state,
        "policy": rollout.policy,
        "phase": rollout.phase.word(),
        "reason": rollout.reason,
        "batch": rollout.batch,
        "batches": rollout.policy.batches(),
        "actor": rollout.actor,
        "created_at": clock::rfc3339(rollout.created_at),
        "updated_at": clock::rfc3339(rollout.updated_at),
        "etag": Version::of_rollout(app, rollout).tag(),
    })
}

/// Without a limit.
const PAGE_ROWS: i64 = 100;
