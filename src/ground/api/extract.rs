//! Who asks, and what they say: the extractors that every handler starts with.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::fleet::{shown, valid_name};
use crate::ground::app::App;
use crate::ground::auth::{authenticate_robot, authorization, check_password};
use crate::ground::fault::Fault;
use crate::ground::limit::Peer;
use crate::ground::model::Lifecycle;
use crate::ground::store::{Role, Satellite, User};
use crate::ground::tls::Certified;
use crate::ground::{clock, secret};

/// A body of JSON, whatever its content type: Go does not look at that either. The routes limit its
/// length, as that of forms.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Fault> {
        let bytes = Bytes::from_request(request, app).await.map_err(|rejection| match rejection
            .status()
        {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "body: longer than this request may have")
            }
            _ => Fault::bad("Invalid request body"),
        })?;
        // What the parser says may quote the body, and a body may hold a password.
        serde_json::from_slice(&bytes).map(Self).map_err(|_| Fault::bad("Invalid request body"))
    }
}

/// The fields of a query; what is none of them is refused as any other input is.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Query<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Fault> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|fields| Self(fields.0))
            .map_err(|rejection| Fault::bad(format!("query: {}", rejection.body_text())))
    }
}

/// A person with any role, by a session, a password or a token of theirs.
pub struct Person {
    pub user: User,
    /// What may be done: the user's role, or less with a token.
    pub role: Role,
    pub is_token: bool,
    /// Who it is in the audit log.
    pub actor: String,
}

impl Person {
    /// Refuses tokens: what one that was stolen made would outlive it.
    pub fn in_person(&self, refused: &str) -> Result<(), Fault> {
        if self.is_token {
            return Err(Fault::new(StatusCode::FORBIDDEN, refused));
        }
        Ok(())
    }
}

/// A person who may change the fleet.
pub struct Editor(pub Person);

/// A person who may do all.
pub struct SystemAdmin(pub Person);

impl FromRequestParts<Arc<App>> for Person {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        let header = authorization(&parts.headers).ok_or_else(Fault::unauthorized)?;
        let of = |user: User| Self {
            role: user.role,
            actor: user.username.clone(),
            is_token: false,
            user,
        };
        match secret::bearer(header) {
            Some(token) if token.starts_with(TOKEN_PREFIX) => by_token(app, token).await,
            Some(token) => {
                let mut read = app.store.read().await?;
                let user = read.rows().session_user(&secret::hash(token), clock::now()).await?;
                user.map(of).ok_or_else(Fault::unauthorized)
            }
            None => {
                let basic = secret::basic(header).ok_or_else(Fault::unauthorized)?;
                let peer = parts.extensions.get::<Peer>().copied();
                check_password(app, peer, &basic.0, basic.1).await.map(of)
            }
        }
    }
}

async fn by_token(app: &App, text: &str) -> Result<Person, Fault> {
    let now = clock::now();
    let found = app.store.read().await?.rows().token_by_hash(&secret::hash(text), now).await?;
    let (token, user) = found.ok_or_else(Fault::unauthorized)?;
    if token.used_at.is_none_or(|used_at| now - used_at > TOKEN_USED_SECONDS * clock::SECOND) {
        let mut write = app.store.write().await?;
        write.rows().set_token_used(&token.name, now).await?;
        write.commit().await?;
    }
    Ok(Person {
        role: token.role.min(user.role),
        is_token: true,
        actor: format!("{} (token {})", user.username, token.name),
        user,
    })
}

impl FromRequestParts<Arc<App>> for Editor {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        at_least(Role::Admin, parts, app).await.map(Self)
    }
}

impl FromRequestParts<Arc<App>> for SystemAdmin {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        at_least(Role::SystemAdmin, parts, app).await.map(Self)
    }
}

async fn at_least(role: Role, parts: &mut Parts, app: &Arc<App>) -> Result<Person, Fault> {
    let person = Person::from_request_parts(parts, app).await?;
    if person.role >= role {
        return Ok(person);
    }
    Err(Fault::new(StatusCode::FORBIDDEN, "Forbidden"))
}

/// A satellite, by the credentials it was given at its enrolment, or by its certificate.
pub struct Robot(pub Satellite);

impl FromRequestParts<Arc<App>> for Robot {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        let refused = || Fault::new(StatusCode::UNAUTHORIZED, "Invalid credentials");
        let Some(header) = authorization(&parts.headers) else {
            let certified = parts.extensions.get::<Certified>().ok_or_else(refused)?;
            let found = app.store.read().await?.rows().satellite(&certified.name).await?;
            let is_in = |one: &Satellite| {
                !matches!(one.lifecycle(), Lifecycle::Revoked | Lifecycle::Waiting)
            };
            return found.filter(is_in).map(Self).ok_or_else(refused);
        };
        let (username, password) = secret::basic(header).ok_or_else(refused)?;
        authenticate_robot(app, &username, &password).await?.map(Self).ok_or_else(refused)
    }
}

/// Holds the name of something new to the grammar; `reserved` are the paths beside such names.
pub fn check_name(what: &str, name: &str, reserved: &[&str]) -> Result<(), Fault> {
    if !valid_name(name) {
        let name = shown(name);
        return Err(Fault::bad(format!(
            "{what} {name}: expected lower-case letters, digits and . _ - between"
        )));
    }
    if reserved.contains(&name) {
        return Err(Fault::bad(format!("{what} {name:?}: expected another name")));
    }
    Ok(())
}

/// What API tokens begin with, to differ from sessions, and to be found where they leaked.
pub const TOKEN_PREFIX: &str = "gct_";
/// The use of a token is noted at most so often.
const TOKEN_USED_SECONDS: i64 = 3600;
