//! Log-in, and users.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::etag::{Expected, Version};
use super::extract::{Body, Person, SystemAdmin, check_name};
use crate::fleet::shown;
use crate::ground::app::App;
use crate::ground::auth::{authorization, check_password};
use crate::ground::fault::Fault;
use crate::ground::limit::Peer;
use crate::ground::store::{Role, Session, User, is_duplicate};
use crate::ground::{clock, journal, secret};

#[derive(Deserialize)]
pub struct Credentials {
    username: String,
    password: String,
}

#[derive(Deserialize)]
pub struct NewUser {
    pub username: String,
    pub password: String,
    /// Go knows no roles here: an admin, unless it says viewer.
    #[serde(default)]
    pub role: String,
}

#[derive(Deserialize)]
pub struct OwnPassword {
    current_password: String,
    new_password: String,
}

#[derive(Deserialize)]
pub struct NewPassword {
    new_password: String,
}

pub async fn login(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Body(body): Body<Credentials>,
) -> Result<Json<Value>, Fault> {
    let user = check_password(&app, Some(peer), &body.username, body.password).await?;
    let (token, expires_at) = start_session(&app, &user).await?;
    Ok(Json(json!({ "token": token, "expires_at": clock::rfc3339(expires_at) })))
}

/// Begins a session: its token, and when it ends.
pub async fn start_session(app: &App, user: &User) -> Result<(String, i64), Fault> {
    let token = secret::random(32)?;
    let now = clock::now();
    let session = Session {
        token_hash: secret::hash(&token),
        user_id: user.id,
        created_at: now,
        expires_at: now + SESSION_SECONDS * clock::SECOND,
    };
    let mut write = app.store.write().await?;
    write.rows().add_session(&session).await?;
    write.commit().await?;
    Ok((token, session.expires_at))
}

pub async fn logout(
    State(app): State<Arc<App>>,
    person: Person,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    if person.is_token {
        return Err(Fault::bad("a token is no session: it ends by DELETE /api/tokens/NAME"));
    }
    let token = authorization(&headers).and_then(secret::bearer).ok_or_else(Fault::unauthorized)?;
    end_session(&app, token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the session of a token.
pub async fn end_session(app: &App, token: &str) -> Result<(), Fault> {
    let mut write = app.store.write().await?;
    write.rows().end_session(&secret::hash(token)).await?;
    write.commit().await?;
    Ok(())
}

pub async fn list(State(app): State<Arc<App>>, _: Person) -> Result<Json<Value>, Fault> {
    let users = app.store.read().await?.rows().users().await?;
    Ok(Json(users.iter().map(answer).collect()))
}

pub async fn show(
    State(app): State<Arc<App>>,
    _: Person,
    Path(username): Path<String>,
) -> Result<Response, Fault> {
    let user = app.store.read().await?.rows().user(&username).await?;
    let user = user.ok_or_else(|| Fault::missing("User not found"))?;
    Ok(Version::of_user(&app, &user).with(Json(answer(&user))))
}

pub async fn create(
    State(app): State<Arc<App>>,
    SystemAdmin(person): SystemAdmin,
    Body(body): Body<NewUser>,
) -> Result<(StatusCode, Json<Value>), Fault> {
    person.in_person("a token cannot make users")?;
    let user = add_user(&app, &person.actor, body).await?;
    Ok((StatusCode::CREATED, Json(answer(&user))))
}

/// Adds a user.
pub async fn add_user(app: &App, actor: &str, body: NewUser) -> Result<User, Fault> {
    let role = match body.role.as_str() {
        "" => Role::Admin,
        text => Role::parse(text)
            .filter(|role| *role < Role::SystemAdmin)
            .ok_or_else(|| Fault::bad(format!("role {}: expected viewer or admin", shown(text))))?,
    };
    check_name("username", &body.username, &["password"])?;
    if body.username == "admin" {
        return Err(Fault::bad("Username 'admin' is reserved"));
    }
    secret::check_password(&body.password).map_err(Fault::bad)?;
    let hash = app.passwords.hash(body.password).await?;
    let mut write = app.store.change().await?;
    let added = write.rows().add_user(&body.username, &hash, role, clock::now()).await;
    if added.as_ref().is_err_and(is_duplicate) {
        return Err(Fault::new(StatusCode::CONFLICT, "User already exists"));
    }
    added?;
    let user = write.rows().user(&body.username).await?;
    let user = user.ok_or_else(|| Fault::missing("User not found"))?;
    let change = ("user.create", user.username.as_str());
    journal::audit(&mut write.rows(), actor, change, &(), &answer(&user)).await?;
    write.commit().await?;
    Ok(user)
}

pub async fn remove(
    State(app): State<Arc<App>>,
    SystemAdmin(person): SystemAdmin,
    expected: Expected,
    Path(username): Path<String>,
) -> Result<StatusCode, Fault> {
    if person.user.username == username {
        return Err(Fault::bad("Cannot delete yourself"));
    }
    remove_user(&app, &person.actor, &expected, &username).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a user, with the user's sessions and tokens.
pub async fn remove_user(
    app: &App,
    actor: &str,
    expected: &Expected,
    username: &str,
) -> Result<(), Fault> {
    let mut write = app.store.change().await?;
    let user = write.rows().user(username).await?;
    let user = user.ok_or_else(|| Fault::missing("User not found"))?;
    expected.check(&mut write.rows(), &Version::of_user(app, &user)).await?;
    if user.role == Role::SystemAdmin {
        return Err(Fault::bad("Cannot delete system admin"));
    }
    write.rows().delete_user(user.id).await?;
    let change = ("user.delete", username);
    journal::audit(&mut write.rows(), actor, change, &answer(&user), &()).await?;
    write.commit().await?;
    Ok(())
}

pub async fn change_own_password(
    State(app): State<Arc<App>>,
    person: Person,
    expected: Expected,
    Extension(peer): Extension<Peer>,
    Body(body): Body<OwnPassword>,
) -> Result<StatusCode, Fault> {
    person.in_person("a token has no password")?;
    confirm_password(&app, peer, &person.user.username, body.current_password).await?;
    let own = &person.user.username;
    set_password(&app, &person.actor, &expected, own, body.new_password).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who changes a password shows the one before. Wrong ones count here too, or a stolen session
/// could try them all.
pub async fn confirm_password(
    app: &App,
    peer: Peer,
    username: &str,
    password: String,
) -> Result<(), Fault> {
    let checked = check_password(app, Some(peer), username, password).await;
    checked.map(drop).map_err(|fault| match fault.status {
        StatusCode::UNAUTHORIZED => Fault::new(fault.status, "Current password is incorrect"),
        _ => fault,
    })
}

pub async fn change_password(
    State(app): State<Arc<App>>,
    SystemAdmin(person): SystemAdmin,
    expected: Expected,
    Path(username): Path<String>,
    Body(body): Body<NewPassword>,
) -> Result<StatusCode, Fault> {
    person.in_person("a token cannot set passwords")?;
    set_password(&app, &person.actor, &expected, &username, body.new_password).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes a user's password, which ends the user's sessions and tokens.
pub async fn set_password(
    app: &App,
    actor: &str,
    expected: &Expected,
    username: &str,
    password: String,
) -> Result<(), Fault> {
    secret::check_password(&password).map_err(Fault::bad)?;
    let hash = app.passwords.hash(password).await?;
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let user = rows.user(username).await?;
    let user = user.ok_or_else(|| Fault::missing("User not found"))?;
    expected.check(&mut rows, &Version::of_user(app, &user)).await?;
    rows.set_password(user.id, &hash, clock::now()).await?;
    journal::audit(&mut rows, actor, ("user.password", &user.username), &(), &()).await?;
    write.commit().await?;
    Ok(())
}

fn answer(user: &User) -> Value {
    json!({
        "id": user.id,
        "username": user.username,
        "role": user.role.word(),
        "created_at": clock::rfc3339(user.created_at),
    })
}

const SESSION_SECONDS: i64 = 24 * 3600;
