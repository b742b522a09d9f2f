//! Why a request is not answered as wished: the one error of what changes and reads the fleet.
//!
//! It holds what the client may know. The server's own trouble goes to the log, and the client
//! learns only that there was some.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::fleet::Invalid;

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

impl From<Invalid> for Fault {
    fn from(error: Invalid) -> Self {
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
