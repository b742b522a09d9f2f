//! What every request handler has: the database, the limits, the keys; and the one error type.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use super::limit::Limit;
use super::metrics::Metrics;
use super::publisher::Publisher;
use super::secret::{self, Passwords};
use super::store::{Role, Store};
use super::{clock, publish};

/// What handlers share.
pub struct App {
    pub store: Store,
    /// The public URL, without a slash at the end.
    pub url: String,
    pub passwords: Passwords,
    pub limits: Limits,
    pub metrics: Metrics,
    /// Where artifacts are put beside here, if anywhere.
    pub publisher: Option<Arc<Publisher>>,
    /// Seals the tokens of `/v2/` and the console's forms; the same on every replica.
    pub seal_key: [u8; 32],
    /// The longest that a request may take, its body included.
    pub request_timeout: Duration,
    /// Places for pages that are watched.
    pub streams: Arc<Semaphore>,
    /// True when the server is asked to stop: streams end.
    pub stopping: watch::Sender<bool>,
}

/// Requests a principal may make.
pub struct Limits {
    /// Reports and refreshes of one satellite.
    pub reports: Limit,
    /// Reads of `/v2/` by one satellite.
    pub reads: Limit,
    /// Enrolments with one token.
    pub enrolments: Limit,
    /// Wrong passwords of one user from one address.
    pub logins: Limit,
    /// Wrong passwords of all users from one address.
    pub addresses: Limit,
}

impl App {
    /// Prepares a database for serving; `show` shows the first password of `admin` where it was
    /// made up.
    pub async fn prepare(
        store: Store,
        url: String,
        request_timeout: Duration,
        publisher: Option<Arc<Publisher>>,
        admin_password: Option<String>,
        show: impl FnOnce(&str) -> std::io::Result<()>,
    ) -> Result<Arc<Self>, String> {
        let passwords = Passwords::new();
        let fault = |fault: Fault| format!("preparing the database: {}", fault.message);
        first_user(&store, &passwords, admin_password, show).await?;
        let seal_key = seal_key(&store).await.map_err(fault)?;
        republish(&store, &url).await.map_err(fault)?;
        let limits = Limits {
            reports: Limit::new(30, 60),
            reads: Limit::new(600, 600),
            enrolments: Limit::new(20, 20),
            logins: Limit::new(20, 20),
            addresses: Limit::new(60, 60),
        };
        let metrics = Metrics::default();
        Ok(Arc::new(Self {
            store,
            url,
            passwords,
            limits,
            metrics,
            publisher,
            seal_key,
            request_timeout,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            stopping: watch::Sender::new(false),
        }))
    }

    /// Where satellites that enrol read their state, if not here; nothing otherwise.
    pub fn home(&self) -> &str {
        self.publisher.as_ref().map_or("", |publisher| &publisher.url)
    }
}

/// Makes the user `admin` in a database that has no users.
async fn first_user(
    store: &Store,
    passwords: &Passwords,
    given: Option<String>,
    show: impl FnOnce(&str) -> std::io::Result<()>,
) -> Result<(), String> {
    let failed = |error: sqlx::Error| format!("preparing the database: {error}");
    let mut read = store.read().await.map_err(failed)?;
    if !read.rows().users().await.map_err(failed)?.is_empty() {
        return Ok(());
    }
    drop(read);
    let (password, shown) = match given {
        Some(password) => {
            secret::check_password(&password)
                .map_err(|error| format!("GROUND_CONTROL_ADMIN_PASSWORD: {error}"))?;
            (password, None)
        }
        None => {
            let random = secret::random_hex(12).map_err(|error| format!("randomness: {error}"))?;
            let password = format!("Moon-{random}-1");
            (password.clone(), Some(password))
        }
    };
    let hash = passwords.hash(password).await.map_err(|_| "hashing a password failed")?;
    let mut write = store.change_at_start().await.map_err(failed)?;
    // Another replica may have been quicker.
    if !write.rows().users().await.map_err(failed)?.is_empty() {
        return Ok(());
    }
    let mut rows = write.rows();
    rows.add_user("admin", &hash, Role::SystemAdmin, clock::now()).await.map_err(failed)?;
    // A password that no one saw would lock all out: where it cannot be shown, it does not count.
    if let Some(password) = shown {
        show(&password).map_err(|error| format!("showing the first password: {error}"))?;
    }
    write.commit().await.map_err(failed)
}

async fn seal_key(store: &Store) -> Result<[u8; 32], Fault> {
    const NAME: &str = "pull_key";
    let mut write = store.change_at_start().await?;
    let text = match write.rows().setting(NAME).await? {
        Some(text) => text,
        None => {
            let text = random(32)?;
            write.rows().set_setting(NAME, &text).await?;
            text
        }
    };
    write.commit().await?;
    Ok(blake3::derive_key("moonlet ground control pull tokens v1", text.as_bytes()))
}

/// Publishes all again where what stands was written by another version or for another URL.
async fn republish(store: &Store, url: &str) -> Result<(), Fault> {
    const NAME: &str = "published_by";
    let wanted = format!("{} {url}", env!("CARGO_PKG_VERSION"));
    let mut write = store.change_at_start().await?;
    if write.rows().setting(NAME).await?.as_ref() != Some(&wanted) {
        publish::all(&mut write.rows(), url).await?;
        write.rows().set_setting(NAME, &wanted).await?;
    }
    write.commit().await?;
    Ok(())
}

/// Randomness in hexadecimal, for tokens and secrets.
pub fn random(bytes: usize) -> Result<String, Fault> {
    secret::random_hex(bytes).map_err(|error| Fault::internal("randomness", &error))
}

/// Why a request is not answered as wished: a status and a message for the client.
#[derive(Debug)]
pub struct Fault {
    pub status: StatusCode,
    pub message: String,
}

impl Fault {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized")
    }

    pub fn too_many() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests")
    }

    /// The server's own trouble: the log has it, the answer does not.
    pub fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!("{what}: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        // PostgreSQL has no text with a NUL in it. Names are checked when they are given, so that
        // one with a NUL is not found either.
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if code.as_deref() == Some("22021") {
            return Self::bad("a NUL character: expected text without");
        }
        if code.as_deref().is_some_and(is_contention) {
            tracing::warn!("database: {error}");
            return Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "another change takes long, try again",
            );
        }
        let fault = Self::internal("database", &error);
        match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::PoolClosed => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "database unavailable")
            }
            _ => fault,
        }
    }
}

/// Whether a code of PostgreSQL says that another transaction was in the way: a lock that was waited
/// for too long, a deadlock, a conflict of serialization.
fn is_contention(code: &str) -> bool {
    ["55P03", "40P01", "40001"].contains(&code)
}

impl From<secret::Busy> for Fault {
    fn from(_: secret::Busy) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many log-ins, try again")
    }
}

impl From<crate::fleet::Invalid> for Fault {
    fn from(error: crate::fleet::Invalid) -> Self {
        Self::bad(error.to_string())
    }
}

impl IntoResponse for Fault {
    /// As Go answers: `{"message","code"}`, and `{"error"}` for a limit.
    fn into_response(self) -> Response {
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            let retry = [(header::RETRY_AFTER, HeaderValue::from_static("10"))];
            return (self.status, retry, Json(json!({ "error": self.message }))).into_response();
        }
        let code = self.status.as_u16();
        (self.status, Json(json!({ "message": self.message, "code": code }))).into_response()
    }
}

/// Pages that are watched at a time, at one server.
const STREAMS_MAX: usize = 64;
