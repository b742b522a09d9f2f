//! The state artifacts as a registry serves them: the reading half of the OCI distribution
//! specification, under `/v2/`.
//!
//! A satellite proves who it is with the credentials of its enrolment, by Basic or by a token from
//! `/service/token`, and reads what is its own: its state, its groups' and its config's. Whether it
//! still may is asked of the database at each request, so that a deleted satellite's token ends with
//! it. Nothing can be pushed.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::json;

use super::app::App;
use super::auth::{authenticate_robot, authorization};
use super::fault::Fault;
use super::limit::Peer;
use super::secret::{self, PullToken};
use super::store::Satellite;
use super::{artifact, clock, grant, publish, signer};
use crate::fleet::state::{WHOLE_STATE, satellite_repository};
use crate::oci::media_type;

/// The routes of the read API and of its tokens.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/", get(ping))
        .route("/v2", get(ping))
        .route("/v2/{*path}", get(read))
        .route("/service/token", get(token))
}

/// Why a read is refused, in the form of the specification.
enum Refusal {
    /// Credentials are missing or wrong: says where tokens are given.
    Unauthorized(Arc<App>),
    /// The repository is not this satellite's.
    Denied,
    Unknown(&'static str),
    Other(Fault),
}

impl<E: Into<Fault>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, app) = match self {
            Self::Unauthorized(app) => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", Some(app)),
            Self::Denied => (StatusCode::FORBIDDEN, "DENIED", None),
            Self::Unknown(code) => (StatusCode::NOT_FOUND, code, None),
            Self::Other(fault) if fault.status == StatusCode::TOO_MANY_REQUESTS => {
                (fault.status, "TOOMANYREQUESTS", None)
            }
            Self::Other(fault) => return fault.into_response(),
        };
        let message = code.to_lowercase().replace('_', " ");
        let body = Json(json!({ "errors": [{ "code": code, "message": message }] }));
        let mut answer = (status, body).into_response();
        if let Some(app) = app {
            let challenge =
                format!("Bearer realm=\"{}/service/token\",service=\"{SERVICE}\"", app.url);
            if let Ok(value) = HeaderValue::from_str(&challenge) {
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, value);
            }
        }
        versioned(answer)
    }
}

async fn ping(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Refusal> {
    authenticate(&app, &headers).await?;
    Ok(versioned(Json(json!({})).into_response()))
}

/// A token that opens `/v2/` for a few minutes, where what it may read is decided when it reads; or
/// one for the registry that artifacts are put into, which says what it is for.
async fn token(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Some((username, password)) = authorization(&headers).and_then(secret::basic) else {
        return Err(Refusal::Unauthorized(app));
    };
    let query = query.unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let is_elsewhere = pairs.any(|(name, value)| name == "service" && value == signer::SERVICE);
    let publisher = app.publisher.clone().filter(|_| is_elsewhere);
    if let Some((publisher, signer)) =
        publisher.as_ref().and_then(|one| Some((one, one.signer.as_ref()?)))
    {
        let peer = peer.map(|Extension(peer)| peer);
        let asked = grant::scopes(&query);
        let who = (username.as_str(), password);
        let Some(access) = grant::decide(&app, publisher, peer, who, asked).await? else {
            return Err(Refusal::Unauthorized(app));
        };
        let (token, life) = signer.token(&username, &access)?;
        return Ok(issued(&token, life, clock::now()));
    }
    let Some(satellite) = authenticate_robot(&app, &username, &password).await? else {
        return Err(Refusal::Unauthorized(app));
    };
    if !app.limits.reads.take(satellite.id) {
        return Err(Refusal::Other(Fault::too_many()));
    }
    let now = clock::now();
    let token = PullToken {
        satellite_id: satellite.id,
        expires: now + TOKEN_SECONDS * clock::SECOND,
        secret: mark(&secret::hash(&password)),
    };
    Ok(issued(&token.seal(&app.seal_key), TOKEN_SECONDS, now))
}

fn issued(token: &str, life: i64, now: i64) -> Response {
    let answer = json!({
        "token": token,
        "access_token": token,
        "expires_in": life,
        "issued_at": clock::rfc3339(now),
    });
    Json(answer).into_response()
}

async fn read(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Path(path): Path<String>,
) -> Result<Response, Refusal> {
    let satellite = authenticate(&app, &headers).await?;
    let (repository, kind, reference) = split(&path).ok_or(Refusal::Unknown("NAME_UNKNOWN"))?;
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    if !grant::is_own(&mut rows, &satellite, repository).await? {
        return Err(Refusal::Denied);
    }
    let answer = match kind {
        Kind::Manifest => {
            let found = rows.manifest(repository, reference).await?;
            let (digest, bytes) = found.ok_or(Refusal::Unknown("MANIFEST_UNKNOWN"))?;
            let mut answer = content(media_type::DOCKER_MANIFEST, &digest, bytes);
            if repository == satellite_repository(&satellite.name) && reference == "latest" {
                let whole = publish::whole(&mut rows, &satellite, &digest).await?;
                if let Ok(value) = HeaderValue::from_str(&whole) {
                    answer.headers_mut().insert(WHOLE_STATE, value);
                }
            }
            answer
        }
        Kind::Blob => match rows.layer(repository, reference).await? {
            Some(bytes) => content(artifact::LAYER, reference, bytes),
            None => {
                let found = rows.layer_config(repository, reference).await?;
                let bytes = found.ok_or(Refusal::Unknown("BLOB_UNKNOWN"))?;
                content(artifact::CONFIG, reference, bytes)
            }
        },
        Kind::Tags => {
            let mut tags = rows.tags(repository).await?;
            if tags.is_empty() {
                return Err(Refusal::Unknown("NAME_UNKNOWN"));
            }
            tags.push("latest".to_owned());
            tags.sort_unstable();
            Json(json!({ "name": repository, "tags": tags })).into_response()
        }
    };
    Ok(versioned(answer))
}

/// Bytes under the name of their digest; a HEAD request gets the same head.
fn content(kind: &'static str, digest: &str, bytes: Vec<u8>) -> Response {
    let mut answer = bytes.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(value) = HeaderValue::from_str(digest) {
        headers.insert("docker-content-digest", value);
    }
    if let Ok(value) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        headers.insert(header::ETAG, value);
    }
    answer
}

fn versioned(mut answer: Response) -> Response {
    let version = HeaderValue::from_static("registry/2.0");
    answer.headers_mut().insert("docker-distribution-api-version", version);
    answer
}

async fn authenticate(app: &Arc<App>, headers: &HeaderMap) -> Result<Satellite, Refusal> {
    let satellite = identify(app, headers).await?;
    let satellite = satellite.ok_or_else(|| Refusal::Unauthorized(Arc::clone(app)))?;
    if !app.limits.reads.take(satellite.id) {
        return Err(Refusal::Other(Fault::too_many()));
    }
    Ok(satellite)
}

async fn identify(app: &App, headers: &HeaderMap) -> Result<Option<Satellite>, Fault> {
    let Some(header) = authorization(headers) else { return Ok(None) };
    if let Some((username, password)) = secret::basic(header) {
        return authenticate_robot(app, &username, &password).await;
    }
    let token = secret::bearer(header)
        .and_then(|token| PullToken::open(token, &app.seal_key, clock::now()));
    let Some(token) = token else { return Ok(None) };
    let satellite = app.store.read().await?.rows().satellite_by_id(token.satellite_id).await?;
    Ok(satellite.filter(|satellite| {
        [&satellite.secret_hash, &satellite.next_secret_hash]
            .into_iter()
            .flatten()
            .any(|hash| mark(hash) == token.secret)
    }))
}

/// The part of a secret's hash that a token carries.
fn mark(hash: &str) -> String {
    hash.chars().take(MARK_CHARS).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Manifest,
    Blob,
    Tags,
}

/// Takes the path after `/v2/` apart; the repository may hold slashes.
fn split(path: &str) -> Option<(&str, Kind, &str)> {
    if let Some(repository) = path.strip_suffix("/tags/list") {
        return Some((repository, Kind::Tags, ""));
    }
    let (front, reference) = path.rsplit_once('/')?;
    let (repository, word) = front.rsplit_once('/')?;
    match word {
        "manifests" => Some((repository, Kind::Manifest, reference)),
        "blobs" => Some((repository, Kind::Blob, reference)),
        _ => None,
    }
}

const SERVICE: &str = "ground-control";
const TOKEN_SECONDS: i64 = 300;
const MARK_CHARS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(
            split("a/b/state/manifests/latest"),
            Some(("a/b/state", Kind::Manifest, "latest"))
        );
        assert_eq!(split("a/blobs/sha256:1"), Some(("a", Kind::Blob, "sha256:1")));
        assert_eq!(split("a/b/tags/list"), Some(("a/b", Kind::Tags, "")));
        for bad in ["", "manifests/x", "a/uploads/x", "a/b/manifests"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
