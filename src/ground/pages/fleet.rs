//! The fleet, and one satellite of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::response::Redirect;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::view::{ago, at, page, token};
use super::{Visitor, forms};
use crate::ground::api::{NewSatellite, add_satellite, change_groups};
use crate::ground::app::{App, Fault};
use crate::ground::clock;
use crate::ground::store::{Config, Connection, Satellite, Summary, Wanted};
use crate::units::ByteCount;

/// A connection's name for people, and its class in the style.
fn words(connection: Connection) -> (&'static str, &'static str) {
    match connection {
        Connection::Unknown => ("Never seen", "wait"),
        Connection::Online => (connection.word(), "good"),
        Connection::Stale | Connection::Offline => (connection.word(), "bad"),
    }
}

pub async fn overview(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Query(filter): Query<forms::Filter>,
) -> Result<Markup, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let configs = rows.configs().await?;
    let now = clock::now();
    let counts = rows.count_satellites(now).await?;
    let known: i64 = counts.iter().sum();
    let wanted = Wanted { after: &filter.after, part: filter.q.trim(), connection: &filter.state };
    let mut shown = rows.page(&wanted, now, PAGE_ROWS_MAX + 1).await?;
    let rows_max = usize::try_from(PAGE_ROWS_MAX).unwrap_or(usize::MAX);
    let more = shown.len() > rows_max;
    shown.truncate(rows_max);
    let content = html! {
        h1 { "Fleet: " (known) " satellites" }
        @if known == 0 {
            p.notice {
                "No satellite yet. "
                @if configs.is_empty() {
                    "First make a configuration with the API (POST /api/configs), then add one here."
                } @else { "Add one below: its enrolment token is shown once." }
            }
        } @else {
            (filters(&filter, &counts))
            (table(&shown, now))
            @if shown.is_empty() { p.muted { "No satellite matches." } }
            @if more {
                @if let Some((last, _)) = shown.last() {
                    p { a rel="next" href=(link(&filter.state, &filter.q, &last.name)) { "Next page" } }
                }
            }
        }
        @if !configs.is_empty() { (add_form(&visitor, &configs)) }
    };
    Ok(page(Some(&visitor), "Fleet", &content))
}

fn filters(filter: &forms::Filter, counts: &[i64; 4]) -> Markup {
    html! {
        div.bar role="img" aria-label="satellites by connection" {
            @for (connection, count) in Connection::ALL.into_iter().zip(counts) {
                span class=(words(connection).1) style=(format!("flex:{count}")) {}
            }
        }
        ul.states {
            li {
                a href=(link("", &filter.q, "")) aria-current=[filter.state.is_empty().then_some("true")] { "All" }
            }
            @for (connection, count) in Connection::ALL.into_iter().zip(counts) {
                @let (word, class) = words(connection);
                li {
                    a class=(class) href=(link(connection.word(), &filter.q, ""))
                        aria-current=[(filter.state == connection.word()).then_some("true")] {
                        (word) " " (count)
                    }
                }
            }
        }
        form.row method="get" action="/console" {
            @if !filter.state.is_empty() { input type="hidden" name="state" value=(filter.state); }
            label { "Name contains" input name="q" type="search" value=(filter.q); }
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

fn table(shown: &[(Satellite, Option<Summary>)], now: i64) -> Markup {
    html! {
        div.scroll { table {
            thead { tr {
                th { "Satellite" } th { "Connection" } th { "Last seen" }
                th.number { "Images" } th.wide { "Activity" }
            } }
            tbody {
                @for (satellite, last) in shown {
                    @let (word, class) = words(satellite.connection(now));
                    tr {
                        td { a href={ "/console/satellites/" (satellite.name) } { (satellite.name) } }
                        td class=(class) { (word) }
                        td { (satellite.last_seen.map_or_else(|| "-".to_owned(), |seen| ago(now - seen))) }
                        td.number { (last.as_ref().map_or(0, |last| last.image_count)) }
                        td.wide { (last.as_ref().map_or("", |last| &last.activity)) }
                    }
                }
            }
        } }
    }
}

fn link(state: &str, q: &str, after: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!("/console?state={}&q={}&after={}", encoded(state), encoded(q), encoded(after))
}

pub async fn satellite(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Markup, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let satellite = rows.satellite(&name).await?;
    let satellite = satellite.ok_or_else(|| Fault::missing("satellite not found"))?;
    let groups = rows.satellite_groups(satellite.id).await?;
    let config = rows.satellite_config(satellite.id).await?;
    let status = rows.status(satellite.id).await?;
    let now = clock::now();
    let (word, class) = words(satellite.connection(now));
    let images = status.as_ref().map_or(&[][..], |status| &status.report.cached_images);
    let enrolled = satellite.secret_hash.is_some();
    let content = html! {
        h1 { (satellite.name) }
        table { tbody {
            tr { th { "Connection" } td {
                span class=(class) { (word) }
                @if let Some(seen) = satellite.last_seen { ", seen " (ago(now - seen)) }
            } }
            tr { th { "Enrolment" } td {
                @if enrolled { "Enrolled" }
                @else if satellite.enrolment_expires_at > now {
                    "Waits for its token, until " (at(satellite.enrolment_expires_at))
                } @else { span.bad { "Its token expired: ask for a new one (POST /api/satellites/" (name) "/token)" } }
            } }
            tr { th { "Configuration" } td { (config) } }
            @if let Some(status) = &status {
                @let report = &status.report;
                tr { th { "Last report" } td { (at(status.created_at)) } }
                tr { th { "Activity" } td { (report.activity) } }
                tr { th { "Memory in use" } td { (ByteCount(report.memory_used_bytes)) } }
                tr { th { "Storage in use" } td { (ByteCount(report.storage_used_bytes)) } }
                tr { th { "Processor" } td { (format!("{:.1} %", report.cpu_percent)) } }
                tr { th { "State applied" } td { code { (report.latest_state_digest) } } }
            }
        } }
        h2 { "Groups" }
        form.row method="post" action={ "/console/satellites/" (name) "/groups" } {
            (token(&visitor))
            label { "Names, with spaces between" input name="groups" value=(groups.join(" ")); }
            button { "Save" }
        }
        @for group in &groups { a href={ "/console/groups/" (group) } { (group) } " " }
        h2 { "Images it holds: " (images.len()) }
        @if images.is_empty() {
            p.muted { "None reported." }
        } @else {
            div.scroll { table {
                thead { tr { th { "Image" } th.number { "Size" } } }
                tbody { @for image in images { tr {
                    td { code { (image.reference) } }
                    td.number { (ByteCount(u64::try_from(image.size_bytes).unwrap_or(0))) }
                } } }
            } }
        }
    };
    Ok(page(Some(&visitor), &name, &content))
}

/// Adds a satellite and shows its token, this once.
pub async fn add(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(form): Form<forms::NewSatellite>,
) -> Result<Markup, Fault> {
    visitor.check(&form.form_token)?;
    let name = form.name.clone();
    let new = NewSatellite { name: form.name, groups: None, config_name: form.config_name };
    let token = add_satellite(&app, new).await?;
    let content = html! {
        h1 { (name) " may enrol" }
        p { "Its token is good for a day and for one device. It is shown this once:" }
        p.notice { code { (token) } }
        p { a href={ "/console/satellites/" (name) } { "Give it groups" } }
    };
    Ok(page(Some(&visitor), &name, &content))
}

pub async fn set_groups(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Groups>,
) -> Result<Redirect, Fault> {
    visitor.check(&form.form_token)?;
    let wanted: BTreeSet<String> = forms::words(&form.groups).collect();
    change_groups(&app, &name, &wanted).await?;
    Ok(Redirect::to(&format!("/console/satellites/{name}")))
}

const PAGE_ROWS_MAX: i64 = 200;
