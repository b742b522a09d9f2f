//! Rollouts: where each is, and the form that starts one.

use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::groups::{complete, from_lines, to_lines};
use super::view::{at, live_page, page, stamp, token, version};
use super::{Visitor, forms, live};
use crate::ground::api::{Action, Expected, NewRollout, Seen, Version, act_on, start_rollout};
use crate::ground::app::App;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::model::{Approval, Batch, Budget, Phase, Policy};
use crate::ground::rollout::Counts;
use crate::ground::store::{Released, Role, Rollout};

/// The class in the style of a phase.
fn class_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Completed => "good",
        Phase::Running | Phase::AwaitingApproval | Phase::Paused => "wait",
        Phase::RollingBack | Phase::Aborting | Phase::RolledBack | Phase::Aborted => "bad",
    }
}

pub async fn list(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Markup, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let rollouts = rows.rollouts(i64::MAX, ROWS_MAX).await?;
    let groups = rows.groups().await?;
    let content = html! {
        h1 { "Rollouts" }
        @if rollouts.is_empty() {
            p.notice { "No rollout yet. A rollout brings new images to a group's satellites batch by batch." }
        } @else {
            div.scroll { table {
                thead { tr {
                    th { "Started" } th { "Rollout" } th { "Phase" } th.wide { "Batch" }
                    th.wide { "Reason" }
                } }
                tbody { @for rollout in &rollouts { tr {
                    (stamp(rollout.created_at))
                    td {
                        a href={ "/console/rollouts/" (rollout.name) } { (rollout.name) }
                        div.muted { (rollout.state.group) }
                    }
                    td class={ "word " (class_of(rollout.phase)) } { (rollout.phase.word()) }
                    td.wide { (rollout.batch) " of " (rollout.policy.batches()) }
                    td.wide { (rollout.reason) }
                } } }
            } }
        }
        @if !groups.is_empty() && visitor.user.role >= Role::Admin {
            h2 { "New rollout" }
            form.row method="get" action="/console/rollouts/new" {
                label {
                    "Group"
                    select name="group" { @for group in &groups { option { (group.state.group) } } }
                }
                button.plain { "Choose its images" }
            }
        }
    };
    Ok(page(Some(&visitor), "Rollouts", &content))
}

pub async fn show(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Markup, Fault> {
    let (content, is_ended) = content(&app, &visitor, &name).await?;
    if is_ended {
        return Ok(page(Some(&visitor), &name, &content));
    }
    Ok(live_page(&visitor, &name, &format!("/console/rollouts/{name}/live"), &content))
}

pub async fn live(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    let content = move |app: Arc<App>, visitor| {
        let name = name.clone();
        async move { content(&app, &visitor, &name).await }
    };
    live::events(app, visitor, content).await
}

/// What the page of a rollout shows now, and whether it stays so.
async fn content(app: &App, visitor: &Visitor, name: &str) -> Result<(Markup, bool), Fault> {
    let now = clock::now();
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let seen = Seen::read(&mut rows, name, now).await?;
    let rollout = &seen.rollout;
    let released = rows.released(rollout.id, "", ROWS_MAX, now).await?;
    let policy = &rollout.policy;
    let content = html! {
        h1 { "Rollout " (rollout.name) }
        table { tbody {
            tr { th { "Group" } td {
                a href={ "/console/groups/" (rollout.state.group) } { (rollout.state.group) }
            } }
            tr { th { "Phase" } td {
                strong class=(class_of(rollout.phase)) { (rollout.phase.word()) }
                @for text in [&rollout.reason, &seen.waits] {
                    @if !text.is_empty() { div.muted { (text) } }
                }
            } }
            tr { th { "Batch" } td { (rollout.batch) " of " (policy.batches()) } }
            tr { th { "Rules" } td { (rules(policy)) } }
            tr { th { "Started" } td {
                (at(rollout.created_at)) " by " (rollout.actor)
            } }
        } }
        @if visitor.user.role >= Role::Admin { (actions(app, visitor, rollout)) }
        h2 { "Batches" }
        (batches(policy, &seen.counts))
        h2 { "Images" }
        pre.scroll { code { (to_lines(&rollout.state)) } }
        h2 { "Satellites" }
        (satellites(policy, &released, now))
    };
    Ok((content, rollout.phase.is_ended()))
}

fn rules(policy: &Policy) -> Markup {
    html! {
        "next batch at " (policy.success_threshold) " updated, taken back at "
        (policy.error_threshold) " failed, " (policy.update_timeout) " for each satellite"
        @if policy.approval == Approval::Manual { ", each batch approved" }
        @if !policy.activate_at.is_empty() { ", activates at " (policy.activate_at) }
        @else if policy.download_only { ", fetched only until that is approved" }
        @if let Some(budget) = &policy.disruption_budget {
            @if let Some(max) = budget.max_unavailable { ", at most " (max) " unavailable" }
            @if let Some(min) = budget.min_available { ", at least " (min) " available" }
            @for label in &budget.group_by { " by " (label) }
        }
    }
}

fn actions(app: &App, visitor: &Visitor, rollout: &Rollout) -> Markup {
    let (name, phase) = (&rollout.name, rollout.phase);
    let shown = Version::of_rollout(app, rollout).tag();
    html! {
        div.row {
            @for action in Action::ALL.into_iter().filter(|action| action.is_possible(phase)) {
                form method="post" action={ "/console/rollouts/" (name) "/" (action.word()) } {
                    (token(visitor))
                    @if matches!(action, Action::Resume | Action::Approve) { (version(&shown)) }
                    @let label = match action {
                        Action::Pause => "Pause",
                        Action::Resume => "Resume",
                        Action::Approve => "Approve",
                        Action::Abort => "Abort and take back",
                    };
                    button class=[(action != Action::Approve).then_some("plain")] { (label) }
                }
            }
        }
    }
}

fn batches(policy: &Policy, counts: &[Counts]) -> Markup {
    html! {
        @for (number, counts) in (1..).zip(counts) {
            p { "Batch " (number) ": " code { (policy.batch(number).to_string()) } }
            @let parts = [
                (counts.updated, "good", "updated"), (counts.updating, "wait", "updating"),
                (counts.failed, "bad", "failed"), (counts.waiting, "muted", "waiting"),
                (counts.offline, "muted", "offline"),
            ];
            div.bar role="img" aria-label={ "batch " (number) " by state" } {
                @for (count, class, _) in parts {
                    span class=(class) style=(format!("flex:{count}")) {}
                }
            }
            ul.states { @for (count, class, word) in parts {
                li class=(class) { (count) " " (word) }
            } }
        }
        @for number in counts.len() + 1..=policy.batches() {
            p.muted { "Batch " (number) ": " code { (policy.batch(number).to_string()) } ", not begun" }
        }
    }
}

fn satellites(policy: &Policy, released: &[Released], now: i64) -> Markup {
    html! {
        @if released.is_empty() { p.muted { "None is chosen yet." } }
        @else {
            div.scroll { table {
                thead { tr { th { "Satellite" } th { "Batch" } th { "State" } th.wide { "Reason" } } }
                tbody { @for one in released { tr {
                    td { a href={ "/console/satellites/" (one.satellite) } { (one.satellite) } }
                    td { (one.batch) }
                    td.word { (one.member.standing(policy, now).word()) }
                    td.wide { (one.reason) }
                } } }
            } }
        }
    }
}

pub async fn new(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Query(chosen): Query<forms::NewRollout>,
) -> Result<Markup, Fault> {
    let found = app.store.read().await?.rows().group(&chosen.group).await?;
    let found = found.ok_or_else(|| Fault::missing("Group not found"))?;
    let form = forms::Rollout {
        group: chosen.group,
        images: to_lines(&found.state),
        batches: "1\n25%".to_owned(),
        success: Policy::default().success_threshold.to_string(),
        error: Policy::default().error_threshold.to_string(),
        timeout: Policy::default().update_timeout.to_string(),
        ..forms::Rollout::default()
    };
    Ok(page(Some(&visitor), "New rollout", &editor(&visitor, &form, None)))
}

fn editor(visitor: &Visitor, form: &forms::Rollout, problem: Option<&str>) -> Markup {
    html! {
        h1 { "New rollout of group " (form.group) }
        @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
        form method="post" action="/console/rollouts" {
            (token(visitor))
            input type="hidden" name="group" value=(form.group);
            label {
                "Name of the rollout"
                input name="name" value=(form.name) required pattern="[a-z0-9][a-z0-9._\\-]*";
            }
            label {
                "The group's new images, one a line"
                textarea name="images" spellcheck="false" { (form.images) }
            }
            label {
                "Batches, one a line: a number, a share or all, and a selector such as ring=canary; \
                 what is left is the last"
                textarea name="batches" spellcheck="false" { (form.batches) }
            }
            div.row {
                label { "Next batch at" input name="success" value=(form.success); }
                label { "Take back at" input name="error" value=(form.error); }
                label { "Time of a satellite" input name="timeout" value=(form.timeout); }
            }
            div.row {
                label {
                    "At most so many unavailable"
                    input name="max_unavailable" value=(form.max_unavailable) inputmode="numeric";
                }
                label { "by label" input name="budget_by" value=(form.budget_by) placeholder="site"; }
                label {
                    "Batches begin"
                    select name="approval" {
                        option { "automatic" }
                        option selected[form.approval == "manual"] { "manual" }
                    }
                }
            }
            div.row {
                label {
                    "The new images are"
                    select name="activation" {
                        option value="" { "used at once" }
                        option value=(STAGED) selected[form.activation == STAGED] {
                            "staged until they are activated"
                        }
                    }
                }
                label {
                    "Staged ones are activated at; by approval where that is empty"
                    input name="activate_at" value=(form.activate_at)
                        placeholder="2026-12-01T02:00:00Z";
                }
            }
            button { "Start" }
        }
    }
}

pub async fn start(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(form): Form<forms::Rollout>,
) -> Result<Response, Fault> {
    visitor.check_editor(&form.form_token)?;
    match begin(&app, visitor.actor(), &form).await {
        Ok(name) => Ok(Redirect::to(&format!("/console/rollouts/{name}")).into_response()),
        // What was typed is not lost.
        Err(fault) if [StatusCode::BAD_REQUEST, StatusCode::CONFLICT].contains(&fault.status) => {
            let editor = editor(&visitor, &form, Some(&fault.message));
            Ok((fault.status, page(Some(&visitor), "New rollout", &editor)).into_response())
        }
        Err(fault) => Err(fault),
    }
}

async fn begin(app: &App, actor: &str, form: &forms::Rollout) -> Result<String, Fault> {
    let found = app.store.read().await?.rows().group(&form.group).await?;
    let mut state = found.ok_or_else(|| Fault::missing("Group not found"))?.state;
    let mut artifacts = from_lines(&form.images)?;
    complete(&state.artifacts, &mut artifacts);
    state.artifacts = artifacts;
    let lines = form.batches.lines().map(str::trim).filter(|line| !line.is_empty());
    let sequence = lines.map(|line| {
        line.parse::<Batch>().map_err(|error| Fault::bad(format!("batch {line:?}: {error}")))
    });
    let max = form.max_unavailable.trim();
    let max_unavailable = match (max, max.parse()) {
        ("", _) => None,
        (_, Ok(count)) => Some(count),
        _ => return Err(Fault::bad(format!("at most {max:?} unavailable: expected a number"))),
    };
    let group_by: Vec<String> = forms::words(&form.budget_by).collect();
    let has_budget = max_unavailable.is_some() || !group_by.is_empty();
    let policy = Policy {
        sequence: sequence.collect::<Result<_, _>>()?,
        success_threshold: form.success.parse().map_err(Fault::bad)?,
        error_threshold: form.error.parse().map_err(Fault::bad)?,
        update_timeout: form.timeout.parse().map_err(Fault::bad)?,
        disruption_budget: has_budget.then_some(Budget {
            group_by,
            max_unavailable,
            min_available: None,
        }),
        approval: if form.approval == "manual" { Approval::Manual } else { Approval::Automatic },
        download_only: form.activation == STAGED,
        activate_at: form.activate_at.trim().to_owned(),
    };
    if !policy.download_only && !policy.activate_at.is_empty() {
        return Err(Fault::bad("images that are used at once: expected no time of activation"));
    }
    let (name, group) = (form.name.clone(), form.group.clone());
    let rollout = start_rollout(app, actor, NewRollout { name, group, state, policy }).await?;
    Ok(rollout.name)
}

pub async fn act(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path((name, action)): Path<(String, String)>,
    Form(form): Form<forms::Act>,
) -> Result<Redirect, Fault> {
    visitor.check_editor(&form.form_token)?;
    let action = Action::parse(&action).ok_or_else(|| Fault::missing("not found"))?;
    let expected = match form.version.as_str() {
        "" => Expected::Any,
        tag => Expected::shown(tag),
    };
    let rollout = act_on(&app, visitor.actor(), &expected, &name, action).await?;
    Ok(Redirect::to(&format!("/console/rollouts/{}", rollout.name)))
}

const ROWS_MAX: i64 = 200;
/// What the form says of images that wait for their activation.
const STAGED: &str = "staged";
