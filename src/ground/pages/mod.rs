//! The console: pages for people, rendered here, with nothing from outside. They need no script: one
//! brings what changes on a page that is watched (`live`).
//!
//! A session in a cookie that no script and no other site sees opens them; the API never looks at
//! the cookie. Each form carries a token made from the session, so that another site's form is
//! refused even by a browser that would send the cookie along. Every filter is a URL.

mod assets;
mod charts;
mod configs;
mod fleet;
mod forms;
mod groups;
mod images;
mod journal;
mod live;
mod rollouts;
mod satellite;
mod users;
mod view;
mod waiting;

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::extract::{Form, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use serde::Deserialize;

use super::api::{LISTS, end_session, start_session};
use super::app::App;
use super::auth::check_password;
use super::fault::Fault;
use super::limit::Peer;
use super::store::{Role, User};
use super::{clock, secret};
use view::page;

/// The routes of the console.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/console") }))
        .route("/console", get(fleet::overview))
        .route("/console/login", get(login_page).post(login))
        .route("/console/logout", post(logout))
        .route("/console/style.css", get(assets::style))
        .route("/console/live.js", get(assets::script))
        .route("/console/satellites", post(fleet::add))
        .route("/console/satellites/{name}", get(satellite::show))
        .route("/console/satellites/{name}/groups", post(satellite::set_groups).layer(LISTS))
        .route("/console/satellites/{name}/labels", post(satellite::set_labels).layer(LISTS))
        .route("/console/satellites/{name}/token", post(satellite::renew_token))
        .route("/console/satellites/{name}/revoke", post(satellite::revoke))
        .route("/console/satellites/{name}/decommission", post(satellite::decommission))
        .route("/console/satellites/{name}/approve", post(waiting::let_in))
        .route("/console/waiting", get(waiting::list))
        .route("/console/rollouts", get(rollouts::list).post(rollouts::start).layer(LISTS))
        .route("/console/rollouts/new", get(rollouts::new))
        .route("/console/rollouts/{name}", get(rollouts::show))
        .route("/console/rollouts/{name}/live", get(rollouts::live))
        .route("/console/rollouts/{name}/{action}", post(rollouts::act))
        .route("/console/images", get(images::list))
        .route("/console/events", get(journal::events))
        .route("/console/audit", get(journal::audit))
        .route("/console/users", get(users::list).post(users::add))
        .route("/console/users/{name}/password", post(users::set))
        .route("/console/users/{name}/remove", post(users::remove))
        .route("/console/password", post(users::set_own))
        .route("/console/configs", get(configs::list).post(configs::create).layer(LISTS))
        .route("/console/configs/{name}", get(configs::show).post(configs::save).layer(LISTS))
        .route("/console/configs/{name}/remove", post(configs::remove))
        .route("/console/groups", get(groups::list))
        .route("/console/groups/{name}/approve", post(waiting::approve_tags).layer(LISTS))
        .route("/console/groups/{name}", get(groups::edit).post(groups::save).layer(LISTS))
}

/// A person with a session in a cookie.
#[derive(Clone)]
pub struct Visitor {
    pub user: User,
    /// The session's own secret, for the forms.
    pub form_token: String,
    session: String,
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let to_login = || Redirect::to("/console/login").into_response();
        let session = cookie(&parts.headers).ok_or_else(to_login)?.to_owned();
        let user = user_of(app, &session).await.map_err(IntoResponse::into_response)?;
        let user = user.ok_or_else(to_login)?;
        let form_token = form_token(app, &session);
        Ok(Self { user, form_token, session })
    }
}

/// The user of a session that has not ended.
async fn user_of(app: &App, session: &str) -> Result<Option<User>, Fault> {
    let mut read = app.store.read().await?;
    Ok(read.rows().session_user(&secret::hash(session), clock::now()).await?)
}

impl Visitor {
    /// Who it is in the audit log.
    pub fn actor(&self) -> &str {
        &self.user.username
    }

    /// The same one at a later time; none when the session has ended.
    async fn again(&self, app: &App) -> Result<Option<Self>, Fault> {
        let user = user_of(app, &self.session).await?;
        let (form_token, session) = (self.form_token.clone(), self.session.clone());
        Ok(user.map(|user| Self { user, form_token, session }))
    }

    /// Refuses a form that is not of this session.
    pub fn check(&self, given: &str) -> Result<(), Fault> {
        // Hashes are compared, which shows nothing of where two tokens differ.
        if secret::hash(given) == secret::hash(&self.form_token) {
            return Ok(());
        }
        Err(Fault::new(StatusCode::FORBIDDEN, "the form is too old: load the page again"))
    }

    /// The same for a form that changes the fleet, which not everyone may.
    pub fn check_editor(&self, given: &str) -> Result<(), Fault> {
        if self.user.role < Role::Admin {
            let role = self.user.role.word();
            return Err(Fault::new(StatusCode::FORBIDDEN, format!("the role {role} only reads")));
        }
        self.check(given)
    }

    /// The same for a form about users, who are the system administrator's.
    pub fn check_system_admin(&self, given: &str) -> Result<(), Fault> {
        if self.user.role < Role::SystemAdmin {
            let role = self.user.role.word();
            let message = format!("the role {role} does not manage users");
            return Err(Fault::new(StatusCode::FORBIDDEN, message));
        }
        self.check(given)
    }
}

fn form_token(app: &App, session: &str) -> String {
    blake3::keyed_hash(&app.seal_key, format!("form {session}").as_bytes()).to_hex().to_string()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

async fn login_page() -> Markup {
    login_form(None)
}

fn login_form(problem: Option<&str>) -> Markup {
    page(
        None,
        "Log in",
        &html! {
            form.card method="post" action="/console/login" {
                h1 { "Ground Control" }
                @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
                label { "User" input name="username" autocomplete="username" required autofocus; }
                label {
                    "Password"
                    input name="password" type="password" autocomplete="current-password" required;
                }
                button { "Log in" }
            }
        },
    )
}

async fn login(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Form(body): Form<Login>,
) -> Result<Response, Fault> {
    let user = match check_password(&app, Some(peer), &body.username, body.password).await {
        Ok(user) => user,
        Err(fault) => return Ok((fault.status, login_form(Some(&fault.message))).into_response()),
    };
    let (token, _) = start_session(&app, &user).await?;
    // Over plain HTTP a browser would drop a cookie that is marked for TLS.
    let secure = if app.url.starts_with("https://") { "; Secure" } else { "" };
    let text = format!("{COOKIE}={token}; Path=/console; HttpOnly; SameSite=Strict{secure}");
    with_cookie(&text, "/console")
}

async fn logout(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(form): Form<forms::Bare>,
) -> Result<Response, Fault> {
    visitor.check(&form.form_token)?;
    end_session(&app, &visitor.session).await?;
    with_cookie(&format!("{COOKIE}=; Path=/console; Max-Age=0"), "/console/login")
}

fn with_cookie(text: &str, to: &str) -> Result<Response, Fault> {
    let value =
        HeaderValue::from_str(text).map_err(|error| Fault::internal("making a cookie", &error))?;
    Ok(([(header::SET_COOKIE, value)], Redirect::to(to)).into_response())
}

const COOKIE: &str = "ground_control";
