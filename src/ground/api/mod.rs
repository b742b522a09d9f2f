//! The API for people and satellites: paths, fields and statuses of the Go implementation.
//!
//! Rows are answered in Go's spelling (`"ID"`, `{"Time","Valid"}`), because programs that read them
//! exist. What Go documents and does not do is done here: a satellite can be taken out of a group,
//! the removal of its last group has effect, and the images it holds can be listed.

mod batches;
mod configs;
mod enrol;
mod etag;
mod extract;
mod groups;
mod history;
mod journal;
mod listing;
mod openapi;
mod publishing;
mod rollouts;
mod satellites;
mod spire;
mod state;
mod tags;
mod tokens;
mod users;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use serde_json::{Value, json};

pub use batches::{WAITING_ROWS_MAX, approve_satellite};
pub use configs::{put_config, remove_config};
pub use etag::{Expected, Version};
pub use groups::put_group;
pub use history::samples;
pub use journal::{Wanted as LogWanted, event};
pub use listing::find as find_satellite;
pub use rollouts::{Action, NewRollout, Seen, act_on, start_rollout};
pub use satellites::{
    Change, NewSatellite, add_satellite, change_satellite, new_token, remove_satellite,
    revoke_satellite,
};
pub use state::{Known, parse_digest};
pub use tags::approve_tags;
pub use users::{
    NewUser, add_user, confirm_password, end_session, remove_user, set_password, start_session,
};

use super::app::App;
use super::clock;
use super::fault::Fault;
use crate::fleet::report::BODY_BYTES_MAX;

/// The routes of the API.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/ping", get(|| async { "pong" }))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/login", post(users::login))
        .route("/satellites/ztr/{token}", get(enrol::by_path))
        .route("/satellites/ztr", post(enrol::by_body))
        .route("/satellites/spiffe-ztr", get(enrol::by_certificate))
        .route("/satellites/sync", post(enrol::report).layer(REPORTS))
        .route("/sat/refresh", post(enrol::refresh))
        .nest("/api", people().layer(LISTS))
}

/// What people ask, with a session or with Basic.
fn people() -> Router<Arc<App>> {
    Router::new()
        .route("/openapi.json", get(openapi::document))
        .route("/logout", post(users::logout))
        .route("/users", get(users::list).post(users::create))
        .route("/users/password", patch(users::change_own_password))
        .route("/users/{username}", get(users::show).delete(users::remove))
        .route("/users/{username}/password", patch(users::change_password))
        .route("/groups", get(groups::list))
        .route("/groups/sync", post(groups::sync))
        .route("/groups/satellite", post(groups::add_satellite).delete(groups::remove_satellite))
        .route("/groups/{group}", get(groups::show).delete(groups::remove))
        .route("/groups/{group}/satellites", get(groups::satellites))
        .route("/groups/{group}/tags", get(tags::show))
        .route("/groups/{group}/tags/approve", post(tags::approve))
        .route("/configs", get(configs::list).post(configs::create))
        .route("/configs/satellite", post(configs::assign))
        .route(
            "/configs/{config}",
            get(configs::show).patch(configs::update).delete(configs::remove),
        )
        .route("/satellites", get(satellites::list).post(satellites::register))
        .route("/satellites/register", post(spire::register))
        .route("/spire/status", get(spire::status))
        .route("/spire/agents", get(spire::agents))
        .route("/satellites/active", get(satellites::active))
        .route("/satellites/stale", get(satellites::stale))
        .route(
            "/satellites/{satellite}",
            get(satellites::show).patch(satellites::update).delete(satellites::remove),
        )
        .route("/satellites/{satellite}/token", post(satellites::renew_token))
        .route("/satellites/{satellite}/revoke", post(satellites::revoke))
        .route("/satellites/{satellite}/approve", post(batches::approve))
        .route("/satellites/{satellite}/status", get(satellites::status))
        .route("/satellites/{satellite}/images", get(satellites::images))
        .route("/satellites/{satellite}/state", get(state::show))
        .route("/satellites/{satellite}/history", get(history::satellite))
        .route("/history", get(history::fleet))
        .route("/rollouts", get(rollouts::list).post(rollouts::start))
        .route("/rollouts/{rollout}", get(rollouts::show))
        .route("/rollouts/{rollout}/satellites", get(rollouts::satellites))
        .route("/rollouts/{rollout}/{action}", post(rollouts::act))
        .route("/publishing", get(publishing::show))
        .route("/images", get(state::images))
        .route("/batches", get(batches::list).post(batches::create))
        .route("/batches/{batch}", delete(batches::remove))
        .route("/waiting", get(batches::waiting))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{token}", delete(tokens::remove))
        .route("/audit", get(journal::audit))
        .route("/events", get(journal::events))
}

async fn health(State(app): State<Arc<App>>) -> Response {
    if app.store.is_healthy().await {
        return Json(json!({ "status": "healthy" })).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unhealthy" }))).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Result<String, Fault> {
    let mut read = app.store.read().await?;
    let counts = read.rows().count_satellites(clock::now()).await?;
    let rollouts = read.rows().count_rollouts().await?;
    let publishing = publishing::unpublished(&app, &mut read.rows()).await?;
    Ok(app.metrics.render(&counts, &rollouts, publishing.as_ref()))
}

/// Go's `sql.NullString`.
fn null_string(text: Option<&str>) -> Value {
    let text = text.filter(|text| !text.is_empty());
    json!({ "String": text.unwrap_or_default(), "Valid": text.is_some() })
}

/// Go's `sql.NullTime`.
fn null_time(micros: Option<i64>) -> Value {
    let time = micros.map_or_else(|| NO_TIME.to_owned(), clock::rfc3339);
    json!({ "Time": time, "Valid": micros.is_some() })
}

/// The length of a request that people make; a group with a thousand repositories takes a part of it.
pub const LISTS: DefaultBodyLimit = DefaultBodyLimit::max(1 << 20);
const REPORTS: DefaultBodyLimit = DefaultBodyLimit::max(BODY_BYTES_MAX);

/// Go's zero time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
