//! How publishing to another registry goes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::extract::Person;
use crate::ground::app::App;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::metrics::Unpublished;
use crate::ground::store::Rows;

pub async fn show(State(app): State<Arc<App>>, _: Person) -> Result<Json<Value>, Fault> {
    let Some(publisher) = &app.publisher else { return Ok(Json(json!({ "to": "here" }))) };
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let how = rows.publishing(&publisher.url).await?;
    let since = (!how.problem.is_empty()).then(|| clock::rfc3339(how.problem_since));
    Ok(Json(json!({
        "to": publisher.kind(),
        "url": publisher.url,
        "waiting": rows.count_unpushed(&publisher.url).await?,
        "problem": how.problem,
        "problem_since": since,
        "good_at": how.good_at.map(clock::rfc3339),
    })))
}

/// The same for metrics; None where nothing is published elsewhere.
pub async fn unpublished(app: &App, rows: &mut Rows<'_>) -> Result<Option<Unpublished>, Fault> {
    let Some(publisher) = &app.publisher else { return Ok(None) };
    let how = rows.publishing(&publisher.url).await?;
    let waiting = rows.count_unpushed(&publisher.url).await?;
    Ok(Some(Unpublished { waiting, is_failing: !how.problem.is_empty() }))
}
