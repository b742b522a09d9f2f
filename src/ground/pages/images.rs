//! The images that satellites hold, and who holds one of them.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::view::{ago, digest_link, page};
use super::{Visitor, forms};
use crate::ground::api::parse_digest;
use crate::ground::app::App;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::store::{Holder, Rows};

pub async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Query(filter): Query<forms::Images>,
) -> Result<Response, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let found = match filter.digest.trim() {
        "" => Ok(all(&mut rows, &filter.after).await?),
        text => match parse_digest(text) {
            Ok(digest) => Ok(one(&mut rows, &digest, &filter.after).await?),
            Err(fault) => Err(fault),
        },
    };
    let status = found.as_ref().map_or_else(|fault| fault.status, |_| StatusCode::OK);
    let content = html! {
        h1 { "Images that satellites hold" }
        form.row method="get" action="/console/images" {
            label {
                "Digest"
                input name="digest" type="search" value=(filter.digest) placeholder="sha256:...";
            }
            button.plain { "Who holds it" }
        }
        @match &found {
            Ok(table) => (table),
            Err(fault) => p.problem role="alert" { (fault.message) },
        }
    };
    Ok((status, page(Some(&visitor), "Images", &content)).into_response())
}

async fn all(rows: &mut Rows<'_>, after: &str) -> Result<Markup, Fault> {
    let images = rows.held_images(after, PAGE_ROWS_MAX).await?;
    Ok(html! {
        @if images.is_empty() { p.muted { "None were reported." } }
        @else {
            div.scroll { table {
                thead { tr { th { "Digest" } th { "Image" } th.number { "Satellites" } } }
                tbody { @for image in &images { tr {
                    td.word { (digest_link(&image.digest)) }
                    td { code { (image.image) } }
                    td.number { (image.satellites) }
                } } }
            } }
        }
        (next("", images.len(), images.last().map(|image| image.digest.as_str())))
    })
}

async fn one(rows: &mut Rows<'_>, digest: &str, after: &str) -> Result<Markup, Fault> {
    let holders = rows.holders(digest, after, PAGE_ROWS_MAX).await?;
    let now = clock::now();
    let row = |holder: &Holder| {
        html! { tr {
            td { a href={ "/console/satellites/" (holder.satellite) } { (holder.satellite) } }
            td { code { (holder.image) } }
            td.word { (ago(now - holder.since)) }
        } }
    };
    Ok(html! {
        @if holders.is_empty() { p.muted { "No satellite holds it." } }
        @else {
            div.scroll { table {
                thead { tr { th { "Satellite" } th { "Image" } th { "Since" } } }
                tbody { @for holder in &holders { (row(holder)) } }
            } }
        }
        (next(digest, holders.len(), holders.last().map(|holder| holder.satellite.as_str())))
    })
}

fn next(digest: &str, shown: usize, last: Option<&str>) -> Markup {
    let is_full = i64::try_from(shown).is_ok_and(|shown| shown == PAGE_ROWS_MAX);
    html! {
        @if let Some(last) = last.filter(|_| is_full) {
            p { a rel="next" href={ "/console/images?digest=" (digest) "&after=" (last) } { "Next page" } }
        }
    }
}

const PAGE_ROWS_MAX: i64 = 200;
