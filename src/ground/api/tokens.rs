//! API tokens, for programs: each has a name, a role, and an end.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, Editor, Person, TOKEN_PREFIX, check_name};
use crate::fleet::shown;
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::store::{Role, Token, is_duplicate};
use crate::ground::{clock, journal, secret};
use crate::units::parse_duration;

#[derive(Deserialize)]
pub struct New {
    name: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    expires_in: Option<Span>,
}

/// A span of time: seconds, or a text such as `30d`.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Span {
    Seconds(u64),
    Text(String),
}

pub async fn list(State(app): State<Arc<App>>, _: Person) -> Result<Json<Value>, Fault> {
    let tokens = app.store.read().await?.rows().tokens(clock::now()).await?;
    Ok(Json(tokens.iter().map(answer).collect()))
}

/// Makes a token. It is answered here and never again.
pub async fn create(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Body(body): Body<New>,
) -> Result<(StatusCode, Json<Value>), Fault> {
    person.in_person("a token cannot make tokens")?;
    check_name("token", &body.name, &[])?;
    let role = parse_role(&body.role)?;
    if role > person.role {
        let message =
            format!("role {}: expected at most your own, {}", role.word(), person.role.word());
        return Err(Fault::new(StatusCode::FORBIDDEN, message));
    }
    let life = life(body.expires_in)?;
    let created_at = clock::now();
    let token = Token {
        name: body.name,
        role,
        username: person.user.username.clone(),
        created_at,
        expires_at: created_at + life,
        used_at: None,
    };
    let text = format!("{TOKEN_PREFIX}{}", secret::random(32)?);
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let count = rows.tokens(created_at).await?.len();
    if count >= TOKENS_MAX {
        return Err(Fault::bad(format!("{count} tokens: expected at most {TOKENS_MAX}")));
    }
    let added = rows.add_token(&token, &secret::hash(&text), person.user.id).await;
    if added.as_ref().is_err_and(is_duplicate) {
        let message = format!("token {}: the name is taken", shown(&token.name));
        return Err(Fault::new(StatusCode::CONFLICT, message));
    }
    added?;
    let mut value = answer(&token);
    journal::audit(&mut rows, &person.actor, ("token.create", &token.name), &(), &value).await?;
    write.commit().await?;
    if let Value::Object(fields) = &mut value {
        fields.insert("token".to_owned(), json!(text));
    }
    Ok((StatusCode::CREATED, Json(value)))
}

/// Ends a token: the user's own, or anyone's for a system admin.
pub async fn remove(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Path(name): Path<String>,
) -> Result<StatusCode, Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let token = rows.tokens(clock::now()).await?.into_iter().find(|token| token.name == name);
    let token = token.ok_or_else(|| Fault::missing("token not found"))?;
    if token.username != person.user.username && person.role != Role::SystemAdmin {
        return Err(Fault::new(StatusCode::FORBIDDEN, "Forbidden"));
    }
    rows.delete_token(&name).await?;
    let change = ("token.delete", name.as_str());
    journal::audit(&mut rows, &person.actor, change, &answer(&token), &()).await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The role of a name; of no name the least.
fn parse_role(text: &str) -> Result<Role, Fault> {
    match text {
        "" => Ok(Role::Viewer),
        text => Role::parse(text).ok_or_else(|| {
            Fault::bad(format!("role {}: expected viewer, admin or system_admin", shown(text)))
        }),
    }
}

/// The life of a token in microseconds.
pub fn life(span: Option<Span>) -> Result<i64, Fault> {
    let wrong = |text: &str| {
        Fault::bad(format!(
            "expires_in {}: expected 1m to 366d, such as 30d, or the same in seconds",
            shown(text)
        ))
    };
    let (span, text) = match span {
        None => (DEFAULT_LIFE, String::new()),
        Some(Span::Seconds(seconds)) => (Duration::from_secs(seconds), seconds.to_string()),
        Some(Span::Text(text)) => (parse_duration(&text).map_err(|_| wrong(&text))?, text),
    };
    if span < LIFE_MIN || span > LIFE_MAX {
        return Err(wrong(&text));
    }
    i64::try_from(span.as_micros()).map_err(|_| wrong(&text))
}

fn answer(token: &Token) -> Value {
    json!({
        "name": token.name,
        "role": token.role.word(),
        "username": token.username,
        "created_at": clock::rfc3339(token.created_at),
        "expires_at": clock::rfc3339(token.expires_at),
        "used_at": token.used_at.map(clock::rfc3339),
    })
}

const DEFAULT_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
const LIFE_MIN: Duration = Duration::from_secs(60);
const LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Of all users.
const TOKENS_MAX: usize = 1000;
