//! What waits for a person: devices that ask to be let in, and tags that mean another image.
//!
//! A form names what was looked at, so that nothing else is approved by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::view::{ago, page, token};
use super::{Visitor, forms};
use crate::fleet::shown;
use crate::ground::api::{self, Expected, WAITING_ROWS_MAX, approve_satellite};
use crate::ground::app::App;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::store::{GroupTag, Label, Role, Satellite};

pub async fn list(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Markup, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let count = rows.count_waiting().await?;
    let mut waiting = Vec::new();
    for satellite in rows.waiting("", WAITING_ROWS_MAX).await? {
        let labels = rows.labels(satellite.id).await?;
        waiting.push((satellite, labels));
    }
    let mut groups: BTreeMap<String, Vec<GroupTag>> = BTreeMap::new();
    for (group, tag) in rows.waiting_tags(TAG_ROWS_MAX).await? {
        groups.entry(group).or_default().push(tag);
    }
    let now = clock::now();
    let content = html! {
        h1 { "Waiting for approval" }
        @for (group, tags) in &groups {
            h2 { "Tags of " a href={ "/console/groups/" (group) } { (group) } }
            (waiting_tags(&visitor, group, &tags.iter().collect::<Vec<_>>(), "waiting"))
        }
        h2 { "Devices: " (count) }
        @if waiting.is_empty() {
            p.notice {
                "No device waits. Devices that enrol with the token of a batch made with "
                code { "ground-control batch add NAME --approval" } " are shown here first."
            }
        } @else {
            p.muted {
                "A device's log has the same number in the line that says that it waits. It is given neither credentials nor state before it is let in."
            }
        }
        @for (satellite, labels) in &waiting { (device(&visitor, satellite, labels, now)) }
        @if usize::try_from(count).is_ok_and(|count| count > waiting.len()) {
            p.muted { "The others are shown when these have been decided on." }
        }
    };
    Ok(page(Some(&visitor), "Waiting", &content))
}

fn device(visitor: &Visitor, satellite: &Satellite, labels: &[Label], now: i64) -> Markup {
    let name = &satellite.name;
    html! {
        h3 { a href={ "/console/satellites/" (name) } { (name) } }
        table { tbody {
            tr { th { "Device" } td { code { (satellite.device.as_deref().unwrap_or("-")) } } }
            @for label in labels.iter().filter(|label| label.label != "device") {
                tr { th { (label.label) } td { (label.value) } }
            }
            tr { th { "Batch" } td { (satellite.batch.as_deref().unwrap_or("-")) } }
            @if let Some(since) = satellite.waits_since {
                tr { th { "Asked" } td { (ago(now - since)) } }
            }
        } }
        @if visitor.user.role >= Role::Admin {
            div.row {
                form method="post" action={ "/console/satellites/" (name) "/approve" } {
                    (token(visitor))
                    input type="hidden" name="device" value=(satellite.device.as_deref().unwrap_or(""));
                    button { "Let it in" }
                }
                form method="post" action={ "/console/satellites/" (name) "/revoke" } {
                    (token(visitor))
                    button.plain { "Refuse it" }
                }
            }
        }
    }
}

/// The tags of a group whose registry says another image, each with its approval. `from` is the page.
pub fn waiting_tags(visitor: &Visitor, group: &str, tags: &[&GroupTag], from: &str) -> Markup {
    let line = |tag: &&GroupTag| format!("{}@{}", tag.name(), tag.seen);
    let form = |images: &str, label: &str, class: Option<&str>| {
        html! {
            form method="post" action={ "/console/groups/" (group) "/approve" } {
                (token(visitor))
                input type="hidden" name="from" value=(from);
                input type="hidden" name="images" value=(images);
                button class=[class] { (label) }
            }
        }
    };
    let may = visitor.user.role >= Role::Admin;
    html! {
        @for tag in tags.iter().take(SHOWN_MAX) {
            div.notice {
                strong { (tag.name()) } " means another image now"
                div { "satellites get " @if tag.digest.is_empty() { "-" } @else { code { (tag.digest) } } }
                div { "the registry says " code { (tag.seen) } }
                @if may { (form(&line(tag), "Approve", None)) }
            }
        }
        @if may && tags.len() > 1 {
            @let all: Vec<String> = tags.iter().map(line).collect();
            p { (form(&all.join(" "), &format!("Approve all {}", tags.len()), Some("plain"))) }
        }
    }
}

/// Approves the tags of the form, for the digests that it showed.
pub async fn approve_tags(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Approval>,
) -> Result<Response, Fault> {
    visitor.check_editor(&form.form_token)?;
    let mut looked_at = BTreeMap::new();
    for image in forms::words(&form.images) {
        let (tag, digest) = image.split_once('@').ok_or_else(|| {
            Fault::bad(format!("image {}: expected repository:tag@digest", shown(&image)))
        })?;
        looked_at.insert(tag.to_owned(), digest.to_owned());
    }
    let approved =
        api::approve_tags(&app, visitor.actor(), &Expected::Any, &name, &looked_at).await;
    let back = match form.from.as_str() {
        "waiting" => "/console/waiting".to_owned(),
        _ => format!("/console/groups/{name}"),
    };
    match approved {
        Ok(_) => Ok(Redirect::to(&back).into_response()),
        Err(fault) if fault.status == StatusCode::CONFLICT => {
            let content = html! {
                h1 { "Not approved" }
                p.problem role="alert" { (fault.message) }
                p { a href=(back) { "Look at what waits now" } }
            };
            Ok((fault.status, page(Some(&visitor), "Not approved", &content)).into_response())
        }
        Err(fault) => Err(fault),
    }
}

pub async fn let_in(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Device>,
) -> Result<Redirect, Fault> {
    visitor.check_editor(&form.form_token)?;
    approve_satellite(&app, visitor.actor(), &name, Some(&form.device)).await?;
    Ok(Redirect::to("/console/waiting"))
}

/// Of all groups together, and of one.
const TAG_ROWS_MAX: i64 = 500;
const SHOWN_MAX: usize = 100;
