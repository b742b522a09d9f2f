//! The fleet's events, and the audit log.

use std::sync::Arc;

use axum::extract::{Query, State};
use maud::{Markup, html};

use super::Visitor;
use super::view::{encoded, page, stamp};
use crate::ground::api::LogWanted;
use crate::ground::app::App;
use crate::ground::fault::Fault;

pub async fn events(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Query(wanted): Query<LogWanted>,
) -> Result<Markup, Fault> {
    let part = wanted.part()?;
    let events = app.store.read().await?.rows().events(&part).await?;
    let path = format!("/console/events?satellite={}", encoded(&wanted.satellite));
    let content = html! {
        h1 { "Events" }
        form.row method="get" action="/console/events" {
            label { "Satellite" input name="satellite" type="search" value=(wanted.satellite); }
            button.plain { "Filter" }
        }
        @if events.is_empty() { p.muted { "Nothing happened in the last 30 days." } }
        @else {
            div.scroll { table {
                thead { tr { th { "Time" } th { "Satellite" } th { "Event" } } }
                tbody { @for event in &events { tr {
                    (stamp(event.at))
                    td {
                        @if event.satellite.is_empty() { "-" }
                        @else { a href={ "/console/satellites/" (event.satellite) } { (event.satellite) } }
                    }
                    td {
                        strong { (event.kind) }
                        @if !event.object.is_empty() { div { code { (event.object) } } }
                        div.muted { (event.message) }
                    }
                } } }
            } }
        }
        (older(&path, part.rows_max, events.len(), events.last().map(|event| event.id)))
    };
    Ok(page(Some(&visitor), "Events", &content))
}

pub async fn audit(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Query(wanted): Query<LogWanted>,
) -> Result<Markup, Fault> {
    let part = wanted.part()?;
    let entries = app.store.read().await?.rows().audit(&part).await?;
    let last = entries.last().map(|entry| entry.id);
    let content = html! {
        h1 { "Audit log" }
        @if entries.is_empty() { p.muted { "Nothing was changed in the last 30 days." } }
        @else {
            div.scroll { table {
                thead { tr { th { "Time" } th { "Who" } th { "Change" } } }
                tbody { @for entry in &entries { tr {
                    (stamp(entry.at))
                    td.who { (entry.actor) }
                    td {
                        strong { (entry.action) } " " (entry.object)
                        @if !entry.before.is_empty() { div.muted { "- " code { (entry.before) } } }
                        @if !entry.after.is_empty() { div.muted { "+ " code { (entry.after) } } }
                    }
                } } }
            } }
        }
        (older("/console/audit?satellite=", part.rows_max, entries.len(), last))
    };
    Ok(page(Some(&visitor), "Audit log", &content))
}

/// The link to what came before, where the page is full.
fn older(path: &str, rows_max: i64, shown: usize, last: Option<i64>) -> Markup {
    let is_full = i64::try_from(shown).is_ok_and(|shown| shown == rows_max);
    html! {
        @if let Some(last) = last.filter(|_| is_full) {
            p { a rel="next" href={ (path) "&before=" (last) } { "Older" } }
        }
    }
}
