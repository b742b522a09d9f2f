//! One upstream registry, by the pull part of the OCI distribution-spec.
//!
//! Tokens are fetched when the registry asks for them and kept for as long as it says; redirects
//! are followed here, because `Authorization` must not go to another host. Whatever the registry
//! says is wrong is quoted in our errors, cut and cleaned; credentials never are. Retries and
//! pauses are the caller's: an error only says which reaction it calls for.

mod auth;
mod error;
mod manifest;
mod referrers;

use std::rc::Rc;
use std::sync::Arc;

use log::debug;
use serde::Deserialize;
use url::Url;

use crate::clock::SharedClock;
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::net::http::{
    Body, Client, ClientLimits, ClientRequest, ClientResponse, Headers, Method,
};
use crate::net::tls;
use crate::oci::{Digest, media_type};
use auth::Auth;
pub use error::Error;
pub use manifest::OpenedManifest;
pub use referrers::Referrers;

/// Where a registry is and who we are to it.
pub struct Options {
    /// Its name in references, such as `docker.io`.
    pub registry: String,
    /// Where it answers; a path becomes a prefix of `/v2/`.
    pub url: Url,
    /// For Basic authentication and for fetching tokens.
    pub username: Option<String>,
    /// With `username`.
    pub password: Option<String>,
    /// How its TLS is to be trusted.
    pub tls: tls::ClientOptions,
}

/// A client of one registry. Clones share connections and tokens.
#[derive(Clone)]
pub struct Registry(Rc<Inner>);

struct Inner {
    name: String,
    base: Url,
    client: Client,
    auth: Auth,
    clock: SharedClock,
}

/// What HEAD tells of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest, where the registry says it.
    pub digest: Option<Digest>,
}

/// The body of a blob, about to be read.
pub struct Opened {
    /// The bytes.
    pub body: Body,
    /// The blob's byte that comes first.
    pub start: u64,
    /// Whether the range that was asked for is what comes; if not, the whole blob does.
    pub honoured: bool,
}

impl Registry {
    /// A client without connections.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when a certificate or key file cannot be used.
    pub fn new(options: Options, clock: SharedClock, metrics: Rc<Metrics>) -> Result<Self, Error> {
        let Options { registry, url, username, password, tls } = options;
        let tls = tls::client_config(&tls, Rc::clone(&clock))
            .map_err(|error| Error::new(error.kind(), format!("{registry}: {error}")))?;
        let client = Client::new(Arc::clone(&tls), ClientLimits::default(), metrics);
        let auth = Auth::new(username, password);
        Ok(Self(Rc::new(Inner { name: registry, base: url, client, auth, clock })))
    }

    /// Its name in references.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Asks what a tag or digest is, without fetching it.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not there.
    pub async fn head_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<ManifestHead, Error> {
        let path = format!("{repository}/manifests/{reference}");
        let mut response = self.request(Method::Head, &path, repository, accept()).await?;
        if response.status == 405 {
            // Allowed by no specification, and done by some proxies.
            return Ok(ManifestHead { digest: None });
        }
        response = self.expect(response, &path, &[200]).await?;
        let digest = response.headers.get(CONTENT_DIGEST).and_then(|text| text.parse().ok());
        Ok(ManifestHead { digest })
    }

    /// Opens the bytes from `start` to `last` (inclusive) of a blob of `size` bytes.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not there, [`Kind::Retry`] when another range comes.
    pub async fn blob(
        &self,
        repository: &str,
        digest: &Digest,
        start: u64,
        last: u64,
        size: u64,
    ) -> Result<Opened, Error> {
        let path = format!("{repository}/blobs/{digest}");
        let mut headers = Headers::new();
        if start > 0 || last + 1 < size {
            headers.append("range", format!("bytes={start}-{last}"));
        }
        let response = self.request(Method::Get, &path, repository, headers).await?;
        let response = self.expect(response, &path, &[200, 206]).await?;
        let other_size = |length: u64| {
            let what = format!("a blob of {length} bytes, expected {size}");
            Err(self.problem(Kind::Invalid, &path, what))
        };
        if response.status == 200 {
            let honoured = start == 0 && last + 1 == size;
            if let Some(length) = response.body.len().filter(|length| *length != size) {
                return other_size(length);
            }
            return Ok(Opened { body: response.body, start: 0, honoured });
        }
        let range = response.headers.get("content-range").unwrap_or_default();
        match content_range(range) {
            Some((_, _, Some(all))) if all != size => other_size(all),
            Some((first, end, _)) if first == start && end <= last => {
                Ok(Opened { body: response.body, start, honoured: true })
            }
            _ => {
                let what = format!("range {range:?}, expected bytes {start}-{last}/{size}");
                Err(self.problem(Kind::Retry, &path, what))
            }
        }
    }

    /// Sends a request below `/v2/`, authenticating and following redirects as needed.
    async fn request(
        &self,
        method: Method,
        path: &str,
        repository: &str,
        headers: Headers,
    ) -> Result<ClientResponse, Error> {
        let inner = &self.0;
        let scope = format!("repository:{repository}:pull");
        let base = inner.base.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}/v2/{path}"))
            .map_err(|error| self.problem(Kind::Invalid, path, error.to_string()))?;
        let mut refreshed = false;
        loop {
            let authorization = inner.auth.header(&scope, inner.clock.monotonic());
            let response = self.follow(method, &url, path, &headers, authorization).await?;
            if response.status != 401 || refreshed {
                return Ok(response);
            }
            refreshed = true;
            inner.auth.forget(&scope);
            let challenges: Vec<String> =
                response.headers.all("www-authenticate").map(str::to_owned).collect();
            drop(response);
            self.authenticate(&challenges, &scope, path).await?;
        }
    }

    async fn follow(
        &self,
        method: Method,
        first: &Url,
        path: &str,
        headers: &Headers,
        authorization: Option<String>,
    ) -> Result<ClientResponse, Error> {
        let mut url = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = headers.clone();
            headers.append("user-agent", USER_AGENT);
            // Compressed transfer would be decoded by no one: digests are over stored bytes.
            headers.append("accept-encoding", "identity");
            if let Some(authorization) = &authorization
                && url.origin() == first.origin()
            {
                headers.append("authorization", authorization);
            }
            debug!("{method} {url}", url = plain(&url));
            let request = ClientRequest { method, url: url.clone(), headers, body: Vec::new() };
            let response = self.0.client.send(request).await;
            let response = response.map_err(|error| self.link(path, error))?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers.get("location").unwrap_or_default();
            let next = url.join(location).map_err(|_| {
                self.problem(Kind::Invalid, path, "a redirect to nowhere, expected a URL")
            })?;
            if url.scheme() == "https" && next.scheme() != "https" {
                let what = format!("a redirect from https to {}, refused", plain(&next));
                return Err(self.problem(Kind::Invalid, path, what));
            }
            url = next;
        }
        let what = format!("more than {REDIRECTS_MAX} redirects, the last to {}", plain(&url));
        Err(self.problem(Kind::Invalid, path, what))
    }

    /// Gets whatever credentials the challenges ask for.
    async fn authenticate(
        &self,
        challenges: &[String],
        scope: &str,
        path: &str,
    ) -> Result<(), Error> {
        let inner = &self.0;
        let challenges: Vec<auth::Challenge> =
            challenges.iter().flat_map(|text| auth::parse(text)).collect();
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.is("bearer")) {
            let url = bearer.token_url(scope).ok_or_else(|| {
                self.problem(Kind::Invalid, path, "a Bearer challenge without a realm URL")
            })?;
            if inner.base.scheme() == "https" && url.scheme() != "https" {
                let what = format!("the token realm {} is not https, refused", plain(&url));
                return Err(self.problem(Kind::Invalid, path, what));
            }
            let response =
                self.follow(Method::Get, &url, path, &Headers::new(), inner.auth.basic()).await?;
            let response = self.expect(response, path, &[200]).await?;
            let bytes = response.body.bytes(TOKEN_BYTES_MAX).await;
            let bytes = bytes.map_err(|error| self.link(path, error))?;
            return inner.auth.keep(scope, &bytes, inner.clock.monotonic()).ok_or_else(|| {
                let what = format!("{} did not answer with a token in JSON", plain(&url));
                self.problem(Kind::Invalid, path, what)
            });
        }
        if challenges.iter().any(|challenge| challenge.is("basic")) && inner.auth.use_basic() {
            return Ok(());
        }
        let what = "credentials are wanted, and none that fit are configured";
        Err(self.problem(Kind::Denied, path, what))
    }

    /// Gives back a response of one of `statuses`; makes an error of any other.
    async fn expect(
        &self,
        response: ClientResponse,
        path: &str,
        statuses: &[u16],
    ) -> Result<ClientResponse, Error> {
        if statuses.contains(&response.status) {
            return Ok(response);
        }
        let status = response.status;
        let kind = match status {
            404 | 410 => Kind::Missing,
            401 | 403 => Kind::Denied,
            408 | 425 | 429 | 500.. => Kind::Retry,
            _ => Kind::Invalid,
        };
        let after = response.headers.get("retry-after").and_then(|text| text.trim().parse().ok());
        let said = match response.body.bytes(ERROR_BYTES_MAX).await {
            Ok(bytes) => quoted(&bytes),
            Err(_) => String::new(),
        };
        let meaning = match status {
            401 => ", the credentials are refused",
            403 => ", these credentials may not read it",
            429 => ", asked too often",
            _ => "",
        };
        let error = self.problem(kind, path, format!("status {status}{meaning}{said}"));
        Err(error.after(after))
    }

    fn problem(&self, kind: Kind, path: &str, what: impl AsRef<str>) -> Error {
        Error::new(kind, format!("{}/{path}: {}", self.0.name, what.as_ref()))
    }

    fn link(&self, path: &str, error: crate::net::Error) -> Error {
        self.problem(error.kind(), path, error.to_string())
    }
}

/// `bytes first-last/size`, of which the size may be `*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, size))
}

/// What a registry says is wrong, made fit for one line of a log.
fn quoted(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        errors: Vec<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        code: Option<String>,
        message: Option<String>,
    }
    let text = match serde_json::from_slice::<Said>(bytes) {
        Ok(said) => {
            let problems = said.errors.into_iter().take(1);
            let text = problems.map(|p| [p.code, p.message].into_iter().flatten());
            text.flatten().collect::<Vec<_>>().join(": ")
        }
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text: String = text.trim().chars().take(QUOTED_CHARS_MAX).collect();
    if text.is_empty() { text } else { format!(" ({text})") }
}

/// A URL without what may be a secret in it.
fn plain(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or(""), url.path())
}

fn accept() -> Headers {
    let mut headers = Headers::new();
    headers.append("accept", media_type::ACCEPT_MANIFESTS.join(", "));
    headers
}

const CONTENT_DIGEST: &str = "docker-content-digest";
const USER_AGENT: &str = concat!("moonlet/", env!("CARGO_PKG_VERSION"));
const REDIRECTS_MAX: usize = 5;
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const ERROR_BYTES_MAX: u64 = 16 << 10;
const QUOTED_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_quotes() {
        assert_eq!(content_range("bytes 5-9/20"), Some((5, 9, Some(20))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        for wrong in ["", "bytes */20", "bytes 5/9", "items 1-2/3", "bytes 5-x/9"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
        let json = br#"{"errors":[{"code":"DENIED","message":"no\nentry"}]}"#;
        assert_eq!(quoted(json), " (DENIED: no entry)");
        assert_eq!(quoted(b""), "");
        assert!(quoted(&[b'x'; 5000]).len() < 300);
        let url = Url::parse("https://u:p@host:5000/path?token=x").unwrap();
        assert_eq!(plain(&url), "https://host:5000/path");
    }
}
