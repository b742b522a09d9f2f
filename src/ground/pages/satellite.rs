//! One satellite.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::response::Redirect;
use maud::{Markup, html};

use super::fleet::words;
use super::view::{ago, at, page, token};
use super::{Visitor, forms};
use crate::fleet::shown;
use crate::ground::api::{change_groups, change_labels, find_satellite};
use crate::ground::app::{App, Fault};
use crate::ground::clock;
use crate::units::ByteCount;

pub async fn show(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Markup, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let satellite = find_satellite(&mut rows, &name).await?;
    let groups = rows.satellite_groups(satellite.id).await?;
    let config = rows.satellite_config(satellite.id).await?;
    let labels = rows.labels(satellite.id).await?;
    let joined = |is_fact| {
        let labels = labels.iter().filter(|label| label.is_fact == is_fact);
        let words = labels.map(|label| format!("{}={}", label.label, label.value));
        words.collect::<Vec<_>>().join(" ")
    };
    let (given, facts) = (joined(false), joined(true));
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
        h2 { "Labels" }
        form.row method="post" action={ "/console/satellites/" (name) "/labels" } {
            (token(&visitor))
            label {
                "key=value, with spaces between"
                input name="labels" value=(given);
            }
            button { "Save" }
        }
        @if !facts.is_empty() { p.muted { "From the device: " (facts) } }
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

/// Gives a satellite these labels and no others, but for those of its facts.
pub async fn set_labels(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Labels>,
) -> Result<Redirect, Fault> {
    visitor.check(&form.form_token)?;
    let mut changes = BTreeMap::new();
    for word in forms::words(&form.labels) {
        let (label, value) = word
            .split_once('=')
            .ok_or_else(|| Fault::bad(format!("label {}: expected key=value", shown(&word))))?;
        changes.insert(label.to_owned(), Some(value.to_owned()));
    }
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let satellite = find_satellite(&mut rows, &name).await?;
    for label in rows.labels(satellite.id).await?.into_iter().filter(|label| !label.is_fact) {
        changes.entry(label.label).or_insert(None);
    }
    drop(read);
    change_labels(&app, &name, &changes).await?;
    Ok(Redirect::to(&format!("/console/satellites/{name}")))
}
