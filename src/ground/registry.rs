//! A registry as Ground Control uses it: what a tag means, and an artifact put under one.
//!
//! Credentials go to the registry's own origin and to the token server that it names; a redirect is
//! followed without them, never from https to http, and only where something is read. What a
//! registry answers is quoted in errors, cut and cleaned; credentials never are.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use ureq::http::StatusCode;
use url::{Origin, Url};

use super::http::{Answer, Ask, Client, Method};
use super::store::Published;
use crate::oci::{Digest, challenge, media_type};

/// A registry, and who we are to it.
pub struct Registry {
    /// Scheme and host, without a slash at the end.
    base: String,
    origin: Origin,
    /// Name and secret.
    credentials: Option<(String, String)>,
    client: Client,
    /// What is sent for a scope, and until when.
    known: Mutex<HashMap<String, (String, Instant)>>,
}

/// Why a registry did not do what it was asked for.
#[derive(Debug)]
pub struct Error {
    pub message: String,
    /// Nothing was answered, or that it cannot now: the same may work later, and what else is asked
    /// of it will not either.
    pub is_passing: bool,
}

impl Error {
    pub fn passing(message: String) -> Self {
        Self { message, is_passing: true }
    }

    pub fn refused(message: String) -> Self {
        Self { message, is_passing: false }
    }

    /// What an answer amounts to that is none of those expected.
    pub fn of(what: &str, answer: &Answer) -> Self {
        let status = answer.status;
        let is_passing = status.is_server_error()
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
            // Wrong credentials are wrong for all that is asked.
            || status == StatusCode::UNAUTHORIZED;
        Self { message: format!("{what}: {}", answer.said()), is_passing }
    }
}

/// One request below `/v2/`.
struct Request<'a> {
    method: Method,
    url: String,
    /// What the token is to be good for.
    scope: &'a str,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

impl Registry {
    /// `base` is a scheme and a host.
    pub fn new(base: &str, credentials: Option<(String, String)>, client: Client) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        let origin = Url::parse(&base).map_or_else(|_| Origin::new_opaque(), |url| url.origin());
        Self { base, origin, credentials, client, known: Mutex::default() }
    }

    /// The digest that a tag means; None where it means nothing.
    pub async fn resolve(&self, repository: &str, tag: &str) -> Result<Option<Digest>, Error> {
        let scope = format!("repository:{repository}:pull");
        let mut found = None;
        // A few registries say no digest to HEAD; the content has one all the same.
        for method in [Method::HEAD, Method::GET] {
            let request = Request {
                method: method.clone(),
                url: format!("{}/v2/{repository}/manifests/{tag}", self.base),
                scope: &scope,
                headers: vec![("accept", media_type::ACCEPT_MANIFESTS.join(", "))],
                body: None,
            };
            let answer = self.ask(&request).await?;
            match answer.status.as_u16() {
                200 => {}
                404 => return Ok(None),
                405 if method == Method::HEAD => continue,
                _ => return Err(Error::of(&format!("{repository}:{tag}"), &answer)),
            }
            found = answer.header("docker-content-digest").and_then(|text| text.parse().ok());
            if found.is_none() && method == Method::GET {
                found = Some(Digest::sha256(&answer.body));
            }
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// Puts an artifact under `latest`, unless it is there. True when it was not.
    pub async fn publish(&self, repository: &str, artifact: &Published) -> Result<bool, Error> {
        let there = self.resolve(repository, "latest").await?;
        if there.is_some_and(|digest| digest.to_string() == artifact.digest) {
            return Ok(false);
        }
        self.upload(repository, &artifact.config_digest, &artifact.config).await?;
        self.upload(repository, &artifact.layer_digest, &artifact.layer).await?;
        let scope = push_scope(repository);
        let request = Request {
            method: Method::PUT,
            url: format!("{}/v2/{repository}/manifests/latest", self.base),
            scope: &scope,
            headers: vec![("content-type", media_type::DOCKER_MANIFEST.to_owned())],
            body: Some(artifact.manifest.clone()),
        };
        let answer = self.ask(&request).await?;
        if !answer.status.is_success() {
            return Err(Error::of(&format!("PUT of {repository}:latest"), &answer));
        }
        Ok(true)
    }

    /// Puts a blob there, unless it is.
    async fn upload(&self, repository: &str, digest: &str, bytes: &[u8]) -> Result<(), Error> {
        let scope = push_scope(repository);
        let blobs = format!("{}/v2/{repository}/blobs", self.base);
        let request = |method, url, body| Request {
            method,
            url,
            scope: &scope,
            headers: match body {
                Some(_) => vec![("content-type", "application/octet-stream".to_owned())],
                None => Vec::new(),
            },
            body,
        };
        let head = request(Method::HEAD, format!("{blobs}/{digest}"), None);
        if self.ask(&head).await?.status == StatusCode::OK {
            return Ok(());
        }
        let what = format!("upload to {repository}");
        let begin = request(Method::POST, format!("{blobs}/uploads/"), Some(Vec::new()));
        let begun = self.ask(&begin).await?;
        if begun.status != StatusCode::ACCEPTED {
            return Err(Error::of(&what, &begun));
        }
        let location = begun.header("location").unwrap_or_default();
        let place = Url::parse(&self.base).and_then(|base| base.join(location));
        let place = place.ok().filter(|url| url.origin() == self.origin);
        let mut place = place.ok_or_else(|| {
            let location: String = location.chars().take(URL_CHARS_SHOWN).collect();
            Error::refused(format!("{what}: at {location:?}, expected a place at {}", self.base))
        })?;
        place.query_pairs_mut().append_pair("digest", digest);
        let put = request(Method::PUT, place.to_string(), Some(bytes.to_vec()));
        let answer = self.ask(&put).await?;
        if answer.status != StatusCode::CREATED {
            return Err(Error::of(&what, &answer));
        }
        Ok(())
    }

    /// Removes what is under `latest`. False where the registry deletes nothing.
    pub async fn remove(&self, repository: &str) -> Result<bool, Error> {
        let Some(digest) = self.resolve(repository, "latest").await? else { return Ok(true) };
        let scope = format!("repository:{repository}:delete,pull,push");
        let request = Request {
            method: Method::DELETE,
            url: format!("{}/v2/{repository}/manifests/{digest}", self.base),
            scope: &scope,
            headers: Vec::new(),
            body: None,
        };
        let answer = self.ask(&request).await?;
        match answer.status.as_u16() {
            200..=299 | 404 => Ok(true),
            405 => Ok(false),
            _ => Err(Error::of(&format!("DELETE of {repository}:latest"), &answer)),
        }
    }

    /// Sends a request, with what the registry asks for.
    async fn ask(&self, request: &Request<'_>) -> Result<Answer, Error> {
        let known = self.known(request.scope);
        let was_known = known.is_some();
        let answer = self.follow(request, known).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // What a registry says of a token that it refuses does not say how to get another.
        self.forget(request.scope);
        let bare = if was_known { self.follow(request, None).await? } else { answer };
        if bare.status != StatusCode::UNAUTHORIZED {
            return Ok(bare);
        }
        let Some(header) = self.authenticate(request.scope, &bare).await? else { return Ok(bare) };
        self.follow(request, Some(header)).await
    }

    /// What answers a challenge, if there is something.
    async fn authenticate(&self, scope: &str, refusal: &Answer) -> Result<Option<String>, Error> {
        let lines = refusal.headers.get_all("www-authenticate").iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        let challenges: Vec<_> = lines.flat_map(challenge::parse).collect();
        let basic = self
            .credentials
            .as_ref()
            .map(|(name, secret)| format!("Basic {}", STANDARD.encode(format!("{name}:{secret}"))));
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.is("bearer")) {
            let base = Url::parse(&self.base).map_err(|error| Error::refused(error.to_string()))?;
            let url = bearer.token_url(&base, scope).map(|url| with_scope(url, scope));
            // In the clear nothing is sent that came over TLS.
            let url = url.filter(|url| url.scheme() == "https" || base.scheme() == "http");
            let url = url.ok_or_else(|| {
                Error::refused(format!("{}: no usable address of a token server", self.base))
            })?;
            return self.token(scope, &url, basic).await.map(Some);
        }
        let asks_basic = challenges.iter().any(|challenge| challenge.is("basic"));
        let header = basic.filter(|_| asks_basic || challenges.is_empty());
        if let Some(header) = &header {
            self.keep(scope, header, BASIC_LIFE);
        }
        Ok(header)
    }

    async fn token(&self, scope: &str, url: &Url, basic: Option<String>) -> Result<String, Error> {
        let headers = basic.map(|basic| ("authorization", basic)).into_iter().collect();
        let ask = Ask { method: Method::GET, url: url.as_str(), headers, body: None };
        let answer = self.send(ask).await?;
        let at = url.host_str().unwrap_or_default();
        if answer.status != StatusCode::OK {
            return Err(Error::of(&format!("token server {at}"), &answer));
        }
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text =
            |key: &str| json.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let token = text("token").or_else(|| text("access_token"));
        let token =
            token.ok_or_else(|| Error::passing(format!("token server {at}: answered no token")))?;
        let header = format!("Bearer {token}");
        let life = json.get("expires_in").and_then(Value::as_u64).unwrap_or(TOKEN_SECONDS);
        // A part of its life is for the request that it is sent with.
        self.keep(scope, &header, Duration::from_secs(life.min(TOKEN_SECONDS_MAX)) * 3 / 4);
        Ok(header)
    }

    /// Sends a request, and follows where a read is led. Only the registry itself gets the
    /// authorization.
    async fn follow(
        &self,
        request: &Request<'_>,
        authorization: Option<String>,
    ) -> Result<Answer, Error> {
        let mut url = request.url.clone();
        for _ in 0..REDIRECTS_MAX {
            let at = Url::parse(&url).map_err(|error| Error::refused(error.to_string()))?;
            let mut headers = request.headers.clone();
            if let Some(header) = authorization.as_ref().filter(|_| at.origin() == self.origin) {
                headers.push(("authorization", header.clone()));
            }
            let (method, body) = (request.method.clone(), request.body.clone());
            let answer = self.send(Ask { method, url: &url, headers, body }).await?;
            if !answer.status.is_redirection() {
                return Ok(answer);
            }
            let location = answer.header("location").unwrap_or_default();
            let next = at.join(location).ok().filter(|next| {
                let is_read = [Method::GET, Method::HEAD].contains(&request.method);
                let is_safe = next.scheme() == "https" || at.scheme() == "http";
                is_read && is_safe && ["http", "https"].contains(&next.scheme())
            });
            let Some(next) = next else {
                let location: String = location.chars().take(URL_CHARS_SHOWN).collect();
                let base = &self.base;
                return Err(Error::refused(format!(
                    "{base}: a redirect to {location:?} is refused"
                )));
            };
            url = next.to_string();
        }
        Err(Error::refused(format!("{}: more than {REDIRECTS_MAX} redirects", self.base)))
    }

    async fn send(&self, ask: Ask<'_>) -> Result<Answer, Error> {
        let failed = |error| Error::passing(format!("{}: {error}", self.base));
        self.client.send(ask).await.map_err(failed)
    }

    fn known(&self, scope: &str) -> Option<String> {
        let known = self.known.lock().ok()?;
        let (header, until) = known.get(scope)?;
        (*until > Instant::now()).then(|| header.clone())
    }

    fn keep(&self, scope: &str, header: &str, life: Duration) {
        if let Ok(mut known) = self.known.lock() {
            if known.len() >= SCOPES_MAX {
                known.clear();
            }
            known.insert(scope.to_owned(), (header.to_owned(), Instant::now() + life));
        }
    }

    fn forget(&self, scope: &str) {
        if let Ok(mut known) = self.known.lock() {
            known.remove(scope);
        }
    }
}

/// A challenge names what the request was in need of; a token for all that follows saves others.
fn with_scope(mut url: Url, scope: &str) -> Url {
    let pairs = url.query_pairs().into_owned().filter(|(name, _)| name != "scope");
    let pairs: Vec<(String, String)> = pairs.collect();
    url.query_pairs_mut().clear().extend_pairs(pairs).append_pair("scope", scope);
    url
}

fn push_scope(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

const REDIRECTS_MAX: usize = 5;
/// Of a token whose server does not say.
const TOKEN_SECONDS: u64 = 60;
const TOKEN_SECONDS_MAX: u64 = 3600;
const BASIC_LIFE: Duration = Duration::from_secs(3600);
const SCOPES_MAX: usize = 1000;
const URL_CHARS_SHOWN: usize = 200;
