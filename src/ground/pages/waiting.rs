//! The devices that ask to be let in.

use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::response::Redirect;
use maud::{Markup, html};

use super::view::{ago, page, token};
use super::{Visitor, forms};
use crate::ground::api::{WAITING_ROWS_MAX, approve_satellite};
use crate::ground::app::{App, Fault};
use crate::ground::clock;
use crate::ground::store::{Label, Role, Satellite};

pub async fn list(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Markup, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let count = rows.count_waiting().await?;
    let mut waiting = Vec::new();
    for satellite in rows.waiting("", WAITING_ROWS_MAX).await? {
        let labels = rows.labels(satellite.id).await?;
        waiting.push((satellite, labels));
    }
    let now = clock::now();
    let content = html! {
        h1 { "Waiting for approval: " (count) }
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
        h2 { a href={ "/console/satellites/" (name) } { (name) } }
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
                (button(visitor, name, "approve", "Let it in", None))
                (button(visitor, name, "revoke", "Refuse it", Some("plain")))
            }
        }
    }
}

fn button(visitor: &Visitor, name: &str, action: &str, label: &str, class: Option<&str>) -> Markup {
    html! {
        form method="post" action={ "/console/satellites/" (name) "/" (action) } {
            (token(visitor))
            button class=[class] { (label) }
        }
    }
}

pub async fn approve(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Bare>,
) -> Result<Redirect, Fault> {
    visitor.check_editor(&form.form_token)?;
    approve_satellite(&app, visitor.actor(), &name).await?;
    Ok(Redirect::to("/console/waiting"))
}
