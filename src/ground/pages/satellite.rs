//! One satellite.

use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::response::Redirect;
use maud::{Markup, html};

use super::fleet::{class_of, may_enrol, words};
use super::view::{ago, at, digest_link, page, span, token, version};
use super::{Visitor, charts, forms};
use crate::fleet::report::PlanUse;
use crate::fleet::shown;
use crate::ground::api::{
    Change, Expected, Known, Version, change_satellite, find_satellite, new_token,
    remove_satellite, revoke_satellite, samples,
};
use crate::ground::app::App;
use crate::ground::assess::Standing;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::model::{DAY, HOURLY_DAYS, KEPT_DAYS, Lifecycle, SAMPLES_MAX};
use crate::ground::store::{Label, Satellite, Status};
use crate::units::ByteCount;

pub async fn show(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(past): Query<forms::Past>,
) -> Result<Markup, Fault> {
    let days = days_of(&past)?;
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let known = Known::read(&mut rows, &app.url, &name).await?;
    let labels = rows.labels(known.satellite.id).await?;
    let shown = Version::read_satellite(&app, &mut rows, &known.satellite).await?;
    let now = clock::now();
    let part = (now - days * DAY, SAMPLES_MAX);
    let samples = samples(&mut rows, &known.satellite, part).await?;
    let details = known.status.as_ref().and_then(|status| status.report.moonlet.as_ref());
    let size = details.map(|details| details.storage_size_bytes);
    let content = html! {
        h1 { (name) }
        (summary(&known, now))
        (desired(&known, now))
        (charts::satellite(&known.satellite, &samples, days, size, now))
        h2 { "Groups" }
        form.row method="post" action={ "/console/satellites/" (name) "/groups" } {
            (token(&visitor)) (version(&shown.part("groups")))
            label {
                "Names, with spaces between"
                input name="groups" value=(known.groups.join(" "));
            }
            button { "Save" }
        }
        @for group in &known.groups { a href={ "/console/groups/" (group) } { (group) } " " }
        (labels_form(&visitor, &name, &labels, &shown))
        (access_forms(&visitor, &known.satellite, &shown))
        (held(known.status.as_ref()))
    };
    Ok(page(Some(&visitor), &name, &content))
}

/// For how many days charts go back.
fn days_of(past: &forms::Past) -> Result<i64, Fault> {
    match past.days.as_str() {
        "" => Ok(HOURLY_DAYS),
        text => [HOURLY_DAYS, KEPT_DAYS]
            .into_iter()
            .find(|days| days.to_string() == text)
            .ok_or_else(|| {
                let text = shown(text);
                Fault::bad(format!("days {text}: expected {HOURLY_DAYS} or {KEPT_DAYS}"))
            }),
    }
}

/// The axes, the reason, and what the device says of itself.
fn summary(known: &Known, now: i64) -> Markup {
    let satellite = &known.satellite;
    let (connection, class) = words(satellite.connection(now));
    let (updated, health) = (known.updated(), known.health());
    let reason = known.reason(now);
    html! {
        table { tbody {
            tr { th { "Connection" } td {
                span class=(class) { (connection) }
                @if let Some(seen) = satellite.last_seen { ", seen " (ago(now - seen)) }
            } }
            tr { th { "Updated" } td { span class=(class_of(updated)) { (updated) } } }
            tr { th { "Health" } td { span class=(class_of(health)) { (health) } } }
            @if !reason.is_empty() { tr { th { "Reason" } td { (reason) } } }
            tr { th { "Lifecycle" } td { (lifecycle(satellite, now)) } }
            tr { th { "Configuration" } td {
                a href={ "/console/configs/" (known.config) } { (known.config) }
            } }
            @if let Some(status) = &known.status { (reported(status)) }
        } }
    }
}

fn lifecycle(satellite: &Satellite, now: i64) -> Markup {
    html! {
        (satellite.lifecycle().word())
        @if satellite.lifecycle() == Lifecycle::Waiting {
            ": " a href="/console/waiting" { "its device is to be let in, or refused" }
        } @else if satellite.enrolment_expires_at > now {
            ", waits for its token until " (at(satellite.enrolment_expires_at))
        } @else if satellite.lifecycle() != Lifecycle::Enrolled {
            ": " span.bad { "it needs a new token" }
        }
    }
}

/// What ends a device's access, or lets another in.
fn access_forms(visitor: &Visitor, satellite: &Satellite, shown: &Version) -> Markup {
    let name = &satellite.name;
    html! {
        h2 { "Access" }
        div.row {
            form method="post" action={ "/console/satellites/" (name) "/token" } {
                (token(visitor))
                button.plain { "New token for a device" }
            }
            @if satellite.lifecycle() != Lifecycle::Revoked {
                form method="post" action={ "/console/satellites/" (name) "/revoke" } {
                    (token(visitor))
                    button.plain { "Revoke its credentials" }
                }
            }
        }
        p.muted {
            "A revoked satellite cannot read or report any more. What it holds stays on it, and a \
             device that enrols with a new token takes its place."
        }
        form.row method="post" action={ "/console/satellites/" (name) "/decommission" } {
            (token(visitor)) (version(&shown.tag()))
            label {
                "Its name, to decommission it: it leaves the fleet for good, with its history"
                input name="name" required autocomplete="off";
            }
            button.plain { "Decommission" }
        }
    }
}

/// What is spent of a limit of the data plan, until when.
fn spent(plan: PlanUse) -> Markup {
    // Of any size, by the page's own colours, and never wider than its cell.
    let percent = u128::from(plan.used_bytes) * 100 / u128::from(plan.max_bytes.max(1));
    let class = if percent >= PLAN_PERCENT_WARNED { "bad" } else { "link" };
    html! {
        (ByteCount(plan.used_bytes)) " of " (ByteCount(plan.max_bytes)) ", until "
        (at(i64::try_from(plan.until).unwrap_or(i64::MAX).saturating_mul(clock::SECOND)))
        div.bar aria-hidden="true" {
            span class=(class) style=(format!("flex:{}", percent.min(100))) {}
            span style=(format!("flex:{}", 100 - percent.min(100))) {}
        }
    }
}

fn reported(status: &Status) -> Markup {
    let report = &status.report;
    let used = ByteCount(report.storage_used_bytes);
    html! {
        tr { th { "Last report" } td { (at(status.created_at)) } }
        @if !report.activity.is_empty() { tr { th { "Activity" } td { (report.activity) } } }
        @match &report.moonlet {
            Some(details) => {
                tr { th { "Version" } td { "Moonlet " (details.version) ", " (details.platform) } }
                @if !details.problems.is_empty() {
                    tr { th { "Problems" } td {
                        @for problem in &details.problems { div.bad { (problem) } }
                    } }
                }
                tr { th { "Storage" } td { (used) " of " (ByteCount(details.storage_size_bytes)) } }
                tr { th { "Flash" } td {
                    (ByteCount(details.flash_written_bytes)) " written"
                    @if let Some(percent) = details.flash_used_percent {
                        ", " (format!("{percent:.0} %")) " of its rated life used"
                    }
                } }
                tr { th { "Received" } td { (ByteCount(details.received_bytes)) } }
                @for (name, plan) in [("Plan, day", details.plan_day), ("Plan, month", details.plan_month)] {
                    @if let Some(plan) = plan { tr { th { (name) } td { (spent(plan)) } } }
                }
            }
            None => tr { th { "Storage in use" } td { (used) } },
        }
        tr { th { "Memory in use" } td { (ByteCount(report.memory_used_bytes)) } }
        tr { th { "Processor" } td { (format!("{:.1} %", report.cpu_percent)) } }
        tr { th { "State applied" } td { code { (report.latest_state_digest) } } }
    }
}

/// The desired images, each with where it stands.
fn desired(known: &Known, now: i64) -> Markup {
    let images = &known.images;
    let count = images.iter().filter(|image| image.in_sync).count();
    html! {
        h2 { "Desired images: " (images.len()) ", in sync: " (count) }
        @if images.is_empty() {
            p.muted { "Its groups want none." }
        } @else {
            div.scroll { table {
                thead { tr {
                    th { "Image" } th { "State" } th { "In sync" }
                    th.number.wide { "Held" } th.wide { "Digest" }
                } }
                tbody { @for image in images { tr {
                    td {
                        code { (image.reference) }
                        @if !image.reason.is_empty() { div.muted { (image.reason) } }
                    }
                    td class={ "word " (if image.in_sync { "good" } else { "bad" }) } { (image.state) }
                    td.word { (in_sync(known, image, now)) }
                    td.number.wide { (progress(image)) }
                    td.wide.word { (digests(image)) }
                } } }
            } }
        }
    }
}

fn in_sync(known: &Known, image: &Standing, now: i64) -> String {
    match known.in_sync_since(image) {
        Some(since) => format!("for {}", span(now - since)),
        None => "no".to_owned(),
    }
}

fn progress(image: &Standing) -> String {
    let held = ByteCount(image.held_bytes);
    match image.total_bytes {
        0 => "-".to_owned(),
        total if total == image.held_bytes => held.to_string(),
        total => format!("{held} of {}", ByteCount(total)),
    }
}

fn digests(image: &Standing) -> Markup {
    html! {
        @if image.digest.is_empty() { "-" }
        @else { (digest_link(&image.digest)) }
        @if !image.desired_digest.is_empty() && image.desired_digest != image.digest {
            div.muted { "desired " (digest_link(&image.desired_digest)) }
        }
    }
}

fn labels_form(visitor: &Visitor, name: &str, labels: &[Label], shown: &Version) -> Markup {
    let joined = |is_fact| {
        let labels = labels.iter().filter(|label| label.is_fact == is_fact);
        let words = labels.map(|label| format!("{}={}", label.label, label.value));
        words.collect::<Vec<_>>().join(" ")
    };
    let facts = joined(true);
    html! {
        h2 { "Labels" }
        form.row method="post" action={ "/console/satellites/" (name) "/labels" } {
            (token(visitor)) (version(&shown.part("labels")))
            label {
                "key=value, with spaces between"
                input name="labels" value=(joined(false));
            }
            button { "Save" }
        }
        @if !facts.is_empty() { p.muted { "From the device: " (facts) } }
    }
}

/// What the satellite lists as held, desired or not.
fn held(status: Option<&Status>) -> Markup {
    let images = status.map_or(&[][..], |status| &status.report.cached_images);
    html! {
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
    }
}

pub async fn set_groups(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Groups>,
) -> Result<Redirect, Fault> {
    visitor.check_editor(&form.form_token)?;
    let groups = Some(forms::words(&form.groups).collect());
    let change = Change { groups, ..Change::default() };
    let expected = Expected::shown(&form.version);
    change_satellite(&app, visitor.actor(), &expected, &name, &change).await?;
    Ok(Redirect::to(&format!("/console/satellites/{name}")))
}

pub async fn renew_token(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Bare>,
) -> Result<Markup, Fault> {
    visitor.check_editor(&form.form_token)?;
    let token = new_token(&app, visitor.actor(), &name).await?;
    Ok(may_enrol(&visitor, &name, &token))
}

pub async fn revoke(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Bare>,
) -> Result<Redirect, Fault> {
    visitor.check_editor(&form.form_token)?;
    revoke_satellite(&app, visitor.actor(), &name).await?;
    Ok(Redirect::to(&format!("/console/satellites/{name}")))
}

/// Takes a satellite out of the fleet.
pub async fn decommission(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Decommission>,
) -> Result<Redirect, Fault> {
    visitor.check_editor(&form.form_token)?;
    if form.name.trim() != name {
        let given = shown(&form.name);
        return Err(Fault::bad(format!("name {given}: expected {name}, to decommission it")));
    }
    let expected = Expected::shown(&form.version);
    remove_satellite(&app, visitor.actor(), &expected, &name).await?;
    Ok(Redirect::to("/console"))
}

/// Sets a satellite's labels to these and no others, but for those of its facts.
pub async fn set_labels(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Labels>,
) -> Result<Redirect, Fault> {
    visitor.check_editor(&form.form_token)?;
    let mut change = Change::default();
    for word in forms::words(&form.labels) {
        let (label, value) = word
            .split_once('=')
            .ok_or_else(|| Fault::bad(format!("label {}: expected key=value", shown(&word))))?;
        change.labels.insert(label.to_owned(), Some(value.to_owned()));
    }
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let satellite = find_satellite(&mut rows, &name).await?;
    for label in rows.labels(satellite.id).await?.into_iter().filter(|label| !label.is_fact) {
        change.labels.entry(label.label).or_insert(None);
    }
    drop(read);
    let expected = Expected::shown(&form.version);
    change_satellite(&app, visitor.actor(), &expected, &name, &change).await?;
    Ok(Redirect::to(&format!("/console/satellites/{name}")))
}

/// Of a limit of the data plan: from here on it is shown as nearly spent.
const PLAN_PERCENT_WARNED: u128 = 90;
