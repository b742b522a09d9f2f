//! All that is served, and what holds for every answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};

use super::app::App;
use super::fault::Fault;
use super::{api, oci, pages};

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(api::routes())
        .merge(oci::routes())
        .merge(pages::routes())
        .fallback(|| async { Fault::missing("not found") })
        .method_not_allowed_fallback(|| async {
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        })
        .layer(SMALL)
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Limits the time of a request, counts answers, and says what no browser may do with them.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // A client that sends no body, or makes the database wait, does not hold a connection for ever.
    let mut answer = match tokio::time::timeout(app.request_timeout, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => {
            let late = "the request was not complete in time";
            Fault::new(StatusCode::REQUEST_TIMEOUT, late).into_response()
        }
    };
    app.metrics.answered(answer.status().as_u16());
    let headers = answer.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(b"text/html")) {
        // The console runs no script but its own file and shows nothing from elsewhere, whatever a
        // name or a report says. Satellites' answers stay short: their links are paid by the byte.
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// The length of a request that anyone can make: a name and a password, or a token.
const SMALL: DefaultBodyLimit = DefaultBodyLimit::max(4096);

const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; \
    style-src 'self' 'unsafe-inline'; img-src data:; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
