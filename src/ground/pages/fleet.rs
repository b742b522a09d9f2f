//! The list of the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::view::{ago, at, encoded, page, token};
use super::{Visitor, charts, forms};
use crate::ground::api::{NewSatellite, add_satellite};
use crate::ground::app::App;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::labels::{Labels, Selector};
use crate::ground::model::{Connection, DAY, HOUR, HOURLY_DAYS, Lifecycle, SAMPLES_MAX};
use crate::ground::store::{Config, FleetSample, Rows, Satellite, Summary, Wanted};

/// A connection's name for people, and its class in the style.
pub fn words(connection: Connection) -> (&'static str, &'static str) {
    match connection {
        Connection::Unknown => ("Never seen", "wait"),
        Connection::Online => (connection.word(), "good"),
        Connection::Stale | Connection::Offline => (connection.word(), "bad"),
    }
}

/// The class in the style of a word of `assess::Updated` or `assess::Health`.
pub fn class_of(word: &str) -> &'static str {
    match word {
        "UpToDate" | "Healthy" => "good",
        "Updating" | "Degraded" => "wait",
        "OutOfDate" | "Error" => "bad",
        _ => "muted",
    }
}

pub async fn overview(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Query(filter): Query<forms::Filter>,
) -> Result<Response, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let configs = rows.configs().await?;
    let now = clock::now();
    let counts = rows.count_satellites(now).await?;
    let known: i64 = counts.iter().sum();
    let publishing = publishing(&app, &mut rows).await?;
    let waiting = rows.count_waiting().await?;
    let tags = rows.count_waiting_tags().await?;
    let found = match Selector::parse(&filter.selector) {
        Ok(selector) => Ok(list(&mut rows, &filter, &selector, now).await?),
        Err(fault) => Err(fault),
    };
    let past = now - HOURLY_DAYS * DAY;
    let mut past = rows.fleet_samples(past, SAMPLES_MAX).await?;
    past.retain(|sample| sample.at < now - now.rem_euclid(HOUR));
    past.push(FleetSample { at: now - now.rem_euclid(HOUR), connections: counts });
    let classes = Connection::ALL.map(|connection| words(connection).1);
    let status = found.as_ref().map_or_else(|fault| fault.status, |_| StatusCode::OK);
    let content = html! {
        h1 { "Fleet: " (known) " satellites" }
        @if let Some(problem) = publishing { p.problem role="alert" { (problem) } }
        @if waiting + tags > 0 {
            p.notice {
                a href="/console/waiting" {
                    @if waiting > 0 { (waiting) " devices waiting for approval" }
                    @if waiting > 0 && tags > 0 { ", " }
                    @if tags > 0 { (tags) " tags waiting for approval" }
                }
            }
        }
        @if known == 0 {
            p.notice {
                "No satellite yet. "
                @if configs.is_empty() {
                    "First make a " a href="/console/configs" { "configuration" } ", then add one here."
                } @else { "Add one below: its enrolment token is shown once." }
            }
        } @else {
            (filters(&filter, &counts))
            @match &found {
                Ok(table) => (table),
                Err(fault) => p.problem role="alert" { (fault.message) },
            }
        }
        @if known > 0 { (charts::fleet(&past, classes, now)) }
        @if !configs.is_empty() { (add_form(&visitor, &configs)) }
    };
    Ok((status, page(Some(&visitor), "Fleet", &content)).into_response())
}

/// Why what is desired does not get to where satellites read it; None where it does.
async fn publishing(app: &App, rows: &mut Rows<'_>) -> Result<Option<String>, Fault> {
    let Some(publisher) = &app.publisher else { return Ok(None) };
    let how = rows.publishing(&publisher.url).await?;
    if how.problem.is_empty() {
        return Ok(None);
    }
    let waiting = rows.count_unpushed(&publisher.url).await?;
    let (url, problem, since) = (&publisher.url, &how.problem, at(how.problem_since));
    Ok(Some(format!(
        "Publishing to {url} fails since {since}, {waiting} artifacts wait: {problem}"
    )))
}

async fn list(
    rows: &mut Rows<'_>,
    filter: &forms::Filter,
    selector: &Selector,
    now: i64,
) -> Result<Markup, Fault> {
    let wanted = Wanted {
        after: &filter.after,
        part: filter.q.trim(),
        connections: &filter.state,
        group: "",
        selector,
        rows_max: PAGE_ROWS_MAX + 1,
    };
    let mut shown = rows.page(&wanted, now).await?;
    let rows_max = usize::try_from(PAGE_ROWS_MAX).unwrap_or(usize::MAX);
    let more = shown.len() > rows_max;
    shown.truncate(rows_max);
    let (Some((first, _)), Some((last, _))) = (shown.first(), shown.last()) else {
        return Ok(html! { p.muted { "No satellite matches." } });
    };
    let labels = rows.labels_between(&first.name, &last.name).await?;
    let next = more.then(|| link(&forms::Filter { after: last.name.clone(), ..filter.clone() }));
    Ok(html! {
        (table(&shown, &labels, now))
        @if let Some(next) = next { p { a rel="next" href=(next) { "Next page" } } }
    })
}

fn filters(filter: &forms::Filter, counts: &[i64; 4]) -> Markup {
    let with_state = |state: &str| {
        link(&forms::Filter { state: state.to_owned(), after: String::new(), ..filter.clone() })
    };
    html! {
        div.bar role="img" aria-label="satellites by connection" {
            @for (connection, count) in Connection::ALL.into_iter().zip(counts) {
                span class=(words(connection).1) style=(format!("flex:{count}")) {}
            }
        }
        ul.states {
            li {
                a href=(with_state("")) aria-current=[filter.state.is_empty().then_some("true")] { "All" }
            }
            @for (connection, count) in Connection::ALL.into_iter().zip(counts) {
                @let (word, class) = words(connection);
                li {
                    a class=(class) href=(with_state(connection.word()))
                        aria-current=[(filter.state == connection.word()).then_some("true")] {
                        (word) " " (count)
                    }
                }
            }
        }
        form.row method="get" action="/console" {
            @if !filter.state.is_empty() { input type="hidden" name="state" value=(filter.state); }
            label { "Name contains" input name="q" type="search" value=(filter.q); }
            label {
                "Labels"
                input name="selector" type="search" value=(filter.selector)
                    placeholder="site=north,arch!=arm64";
            }
            button.plain { "Filter" }
        }
    }
}

fn add_form(visitor: &Visitor, configs: &[Config]) -> Markup {
    html! {
        h2 { "Add a satellite" }
        form.row method="post" action="/console/satellites" {
            (token(visitor))
            label { "Name" input name="name" required pattern="[a-z0-9][a-z0-9._\\-]*"; }
            label {
                "Configuration"
                select name="config_name" {
                    @for config in configs { option { (config.name) } }
                }
            }
            button { "Add" }
        }
    }
}

fn table(
    shown: &[(Satellite, Option<Summary>)],
    labels: &BTreeMap<i64, Labels>,
    now: i64,
) -> Markup {
    html! {
        div.scroll { table {
            thead { tr {
                th { "Satellite" } th { "Connection" } th { "Updated" } th { "Health" }
                th.wide { "Last seen" }
                th.number.wide { "Images" } th.wide { "Labels" } th.wide { "Reason or activity" }
            } }
            tbody {
                @for (satellite, last) in shown {
                    @let updated = last.as_ref().map_or("Unknown", |last| &last.updated);
                    @let health = last.as_ref().map_or("Unknown", |last| &last.health);
                    @let (word, class) = match satellite.lifecycle() {
                        Lifecycle::Revoked => (Lifecycle::Revoked.word(), "bad"),
                        Lifecycle::Waiting => (Lifecycle::Waiting.word(), "wait"),
                        _ => words(satellite.connection(now)),
                    };
                    tr {
                        td { a href={ "/console/satellites/" (satellite.name) } { (satellite.name) } }
                        td class={ "word " (class) } { (word) }
                        td class={ "word " (class_of(updated)) } { (updated) }
                        td class={ "word " (class_of(health)) } { (health) }
                        td.wide { (satellite.last_seen.map_or_else(|| "-".to_owned(), |seen| ago(now - seen))) }
                        td.number.wide { (last.as_ref().map_or(0, |last| last.image_count)) }
                        td.wide {
                            @for (label, value) in labels.get(&satellite.id).into_iter().flatten() {
                                span.muted { (label) "=" (value) " " }
                            }
                        }
                        td.wide { (last.as_ref().map_or("", |last| match last.reason.as_str() {
                            "" => &last.activity,
                            reason => reason,
                        })) }
                    }
                }
            }
        } }
    }
}

fn link(filter: &forms::Filter) -> String {
    let forms::Filter { state, q, selector, after } = filter;
    let mut link = String::from("/console?");
    for (name, value) in [("state", state), ("q", q), ("selector", selector), ("after", after)] {
        if !value.is_empty() {
            link.push_str(&format!("{name}={}&", encoded(value)));
        }
    }
    link.truncate(link.trim_end_matches(['&', '?']).len());
    link
}

/// Adds a satellite and shows its token, this once.
pub async fn add(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(form): Form<forms::NewSatellite>,
) -> Result<Markup, Fault> {
    visitor.check_editor(&form.form_token)?;
    let name = form.name.clone();
    let new =
        NewSatellite { name: form.name, groups: None, config_name: form.config_name, labels: None };
    let token = add_satellite(&app, visitor.actor(), new).await?;
    Ok(may_enrol(&visitor, &name, &token))
}

/// Shows an enrolment token.
pub fn may_enrol(visitor: &Visitor, name: &str, token: &str) -> Markup {
    let content = html! {
        h1 { (name) " may enrol" }
        p { "Its token is good for a day and for one device. It is shown this once:" }
        p.notice { code { (token) } }
        p { a href={ "/console/satellites/" (name) } { "Its groups and its state" } }
    };
    page(Some(visitor), name, &content)
}

const PAGE_ROWS_MAX: i64 = 100;
