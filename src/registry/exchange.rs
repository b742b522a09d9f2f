//! One request below `/v2/`: authentication, redirects, and what a refusal says.
//!
//! A challenge is an order to hand over credentials, so it counts only when it comes from the
//! registry's own origin in answer to a request without any: what a redirect led to, and what a
//! registry says of a token that it refuses, say nothing about how to authenticate. A redirect's
//! target gets no `Authorization`.

use std::time::Duration;

use log::debug;
use serde_json::Value;
use url::Url;

use super::{Error, Registry};
use crate::clock::date::parse_http_date;
use crate::kind::Kind;
use crate::net::http::{ClientRequest, ClientResponse, Headers, Method, reason};
use crate::oci::challenge::{self, Challenge};
use crate::oci::{Algorithm, SHA512_LEFT_OUT};

/// What came in the end.
struct Answer {
    response: ClientResponse,
    /// Where from.
    url: Url,
    /// Whether that is where the request was sent first.
    is_own: bool,
}

impl Answer {
    fn challenges(&self) -> Vec<Challenge> {
        if !self.is_own {
            return Vec::new();
        }
        self.response.headers.all("www-authenticate").flat_map(challenge::parse).collect()
    }
}

/// A request, and where what it may read is kept in [`super::auth::Auth`].
struct Wanted<'a> {
    method: Method,
    url: Url,
    path: &'a str,
    repository: &'a str,
    scope: String,
    headers: Headers,
}

impl Registry {
    /// Sends a request below `/v2/`, authenticating and following redirects as needed.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        repository: &str,
        headers: Headers,
    ) -> Result<ClientResponse, Error> {
        if is_unverifiable(path) {
            return Err(self.problem(Kind::Invalid, path, SHA512_LEFT_OUT));
        }
        let auth = &self.0.auth;
        let scope = match repository {
            // `/v2/` itself: a token for that is good for nothing else.
            "" => String::new(),
            repository => format!("repository:{repository}:pull"),
        };
        if let Some(why) = auth.refusal(&scope, self.now()) {
            let what = format!("{why}; refused less than a minute ago and not asked again");
            return Err(self.problem(Kind::Denied, path, what));
        }
        let wanted = Wanted { method, url: self.url(path)?, path, repository, scope, headers };
        let scope = wanted.scope.as_str();
        if let Some(authorization) = auth.header(scope, self.now()) {
            let answer = self.send(&wanted, Some(&authorization)).await?;
            // A token may have been given before what is asked for was granted.
            let is_refused = answer.is_own && matches!(answer.response.status, 401 | 403);
            if !is_refused || auth.is_fresh(scope, self.now()) {
                return self.taken_or_refused(&wanted, answer).await;
            }
            auth.forget(scope);
        }
        let answer = self.send(&wanted, None).await?;
        let Some(challenges) = self.challenges(&wanted, &answer).await? else {
            return self.taken(&wanted, answer);
        };
        drop(answer);
        let authorization = self.authenticate(&wanted, &challenges).await?;
        let answer = self.send(&wanted, Some(&authorization)).await?;
        self.taken_or_refused(&wanted, answer).await
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        let base = self.0.base.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/v2/{path}"))
            .map_err(|error| self.problem(Kind::Invalid, path, error.to_string()))
    }

    fn now(&self) -> Duration {
        self.0.clock.monotonic()
    }

    async fn send(
        &self,
        wanted: &Wanted<'_>,
        authorization: Option<&str>,
    ) -> Result<Answer, Error> {
        let Wanted { method, url, path, headers, .. } = wanted;
        self.follow(*method, url, path, headers, authorization).await
    }

    /// The response, unless another host than the registry wants credentials.
    fn taken(&self, wanted: &Wanted<'_>, answer: Answer) -> Result<ClientResponse, Error> {
        let Answer { response, url, is_own } = answer;
        let status = response.status;
        if status < 400 {
            self.0.auth.worked(&wanted.scope);
        }
        if is_own || status != 401 {
            return Ok(response);
        }
        let hint = if is_upgrade(&wanted.url, &url) { "; write https:// in url" } else { "" };
        let why = "which answers status 401: credentials are for the registry only";
        let what = format!("redirected to {}, {why}{hint}", plain(&url));
        Err(self.problem(Kind::Denied, wanted.path, what))
    }

    /// What is left to try after an answer without credentials; `None` if it is to be believed.
    ///
    /// Some registries hide what needs credentials behind 404 or 403 without a challenge.
    async fn challenges(
        &self,
        wanted: &Wanted<'_>,
        answer: &Answer,
    ) -> Result<Option<Vec<Challenge>>, Error> {
        let auth = &self.0.auth;
        let is_hidden = || auth.may_be_hidden(&wanted.scope);
        let is_challenge = match answer.response.status {
            401 => true,
            403 | 404 => is_hidden(),
            _ => false,
        };
        if !answer.is_own || !is_challenge {
            return Ok(None);
        }
        let mut challenges = answer.challenges();
        if challenges.is_empty() {
            challenges = self.offered(wanted.path).await?;
        }
        if challenges.is_empty() && auth.has_credentials() {
            challenges.push(Challenge::basic());
        }
        Ok(Some(challenges))
    }

    /// What `/v2/` asks for: where a registry says how it authenticates, if nowhere else.
    async fn offered(&self, path: &str) -> Result<Vec<Challenge>, Error> {
        if let Some(challenges) = self.0.auth.offered(self.now()) {
            return Ok(challenges);
        }
        let answer = self.follow(Method::Get, &self.url("")?, path, &Headers::new(), None).await?;
        let challenges = answer.challenges();
        self.0.auth.offer(&challenges, self.now());
        Ok(challenges)
    }

    async fn follow(
        &self,
        method: Method,
        first: &Url,
        path: &str,
        headers: &Headers,
        authorization: Option<&str>,
    ) -> Result<Answer, Error> {
        let mut url = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let is_own = url.origin() == first.origin();
            let mut headers = headers.clone();
            // Compressed transfer would be decoded by no one: digests are over stored bytes.
            headers.append("accept-encoding", "identity");
            if let Some(authorization) = authorization.filter(|_| is_own) {
                headers.append("authorization", authorization);
            }
            debug!("{method} {url}", url = plain(&url));
            let request = ClientRequest { method, url: url.clone(), headers, body: Vec::new() };
            let response = self.0.client.send(request).await;
            let response = response.map_err(|error| {
                let does_not_answer = url.origin() == self.0.base.origin()
                    && error.kind() == Kind::Retry
                    && error.retry_after().is_none();
                let error = self.link(path, error);
                // Storage elsewhere that does not answer says nothing of the registry.
                if does_not_answer { error.unanswered() } else { error }
            })?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer { response, url, is_own });
            }
            let location = response.headers.get("location").unwrap_or_default();
            let next = url.join(location).map_err(|_| {
                self.problem(Kind::Invalid, path, "a redirect to nowhere, expected a URL")
            })?;
            if url.scheme() == "https" && next.scheme() != "https" {
                let what = format!("a redirect from https to {}, refused", plain(&next));
                return Err(self.problem(Kind::Invalid, path, what));
            }
            if is_upgrade(first, &next) && self.0.auth.has_credentials() {
                // Found out before any credentials went out in clear.
                let what = format!("a redirect to {}; write https:// in url", plain(&next));
                return Err(self.problem(Kind::Invalid, path, what));
            }
            url = next;
        }
        let what = format!("more than {REDIRECTS_MAX} redirects, the last to {}", plain(&url));
        Err(self.problem(Kind::Invalid, path, what))
    }

    /// Gets what the challenges ask for; returns the value of Authorization.
    async fn authenticate(
        &self,
        wanted: &Wanted<'_>,
        challenges: &[Challenge],
    ) -> Result<String, Error> {
        let auth = &self.0.auth;
        let path = wanted.path;
        let secret = || {
            let basic = auth.basic();
            basic.map_err(|why| self.problem(Kind::Invalid, path, why))
        };
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.is("bearer")) {
            let url = bearer.token_url(&self.0.base, &wanted.scope).ok_or_else(|| {
                self.problem(Kind::Invalid, path, "a Bearer challenge without a realm URL")
            })?;
            if self.0.base.scheme() == "https" && url.scheme() != "https" {
                let what = format!("the token realm {} is not https, refused", plain(&url));
                return Err(self.problem(Kind::Invalid, path, what));
            }
            return self.token(wanted, &url, secret()?.as_deref()).await;
        }
        if challenges.iter().any(|challenge| challenge.is("basic"))
            && let Some(basic) = secret()?
        {
            auth.use_basic(&wanted.scope, &basic, self.now());
            return Ok(basic);
        }
        let schemes: Vec<&str> = challenges.iter().map(Challenge::scheme).collect();
        let what = match schemes.join(", ") {
            asked if asked.is_empty() => "status 401 unauthorized, without a challenge".to_owned(),
            asked if auth.has_credentials() => {
                format!("the registry asks for {asked}, expected bearer or basic")
            }
            asked => format!(
                "the registry asks for credentials ({asked}), expected username and password_file"
            ),
        };
        Err(self.problem(Kind::Denied, path, what))
    }

    async fn token(
        &self,
        wanted: &Wanted<'_>,
        url: &Url,
        basic: Option<&str>,
    ) -> Result<String, Error> {
        let auth = &self.0.auth;
        let path = wanted.path;
        let Answer { response, .. } =
            self.follow(Method::Get, url, path, &Headers::new(), basic).await?;
        if response.status == 200 {
            let bytes = response.body.bytes(TOKEN_BYTES_MAX).await;
            let bytes = bytes.map_err(|error| self.link(path, error))?;
            return auth.keep(&wanted.scope, &bytes, self.now()).ok_or_else(|| {
                let what = format!("{} did not answer with a token in JSON", plain(url));
                self.problem(Kind::Invalid, path, what)
            });
        }
        let prefix = format!("token service {}: ", plain(url));
        let (error, what) = self.failure(path, wanted.repository, &prefix, response).await;
        if error.kind() == Kind::Denied && !auth.works(&wanted.scope) {
            auth.refuse(&wanted.scope, &what, self.now());
        }
        Err(error)
    }

    /// An answer to credentials. Of a repository of which nothing could be read a refusal is
    /// remembered, once the registry had the chance to say why, which it has not in HEAD.
    async fn taken_or_refused(
        &self,
        wanted: &Wanted<'_>,
        answer: Answer,
    ) -> Result<ClientResponse, Error> {
        let Wanted { method, path, repository, scope, .. } = wanted;
        let auth = &self.0.auth;
        let is_manifest = *method == Method::Get && path.contains("/manifests/");
        let is_refused = answer.is_own && answer.response.status == 401;
        if !is_refused || !is_manifest || auth.works(scope) {
            return self.taken(wanted, answer);
        }
        let (error, what) = self.failure(path, repository, "", answer.response).await;
        auth.refuse(scope, &what, self.now());
        Err(error)
    }

    /// Passes a response of status 200; makes an error of any other.
    pub(super) async fn expect(
        &self,
        response: ClientResponse,
        path: &str,
        repository: &str,
    ) -> Result<ClientResponse, Error> {
        if response.status == 200 {
            return Ok(response);
        }
        Err(self.error_of(response, path, repository).await)
    }

    /// The error that a response is.
    pub(super) async fn error_of(
        &self,
        response: ClientResponse,
        path: &str,
        repository: &str,
    ) -> Error {
        self.failure(path, repository, "", response).await.0
    }

    /// An error of a response, and what it says without the path.
    async fn failure(
        &self,
        path: &str,
        repository: &str,
        prefix: &str,
        response: ClientResponse,
    ) -> (Error, String) {
        let status = response.status;
        let kind = match status {
            404 | 410 => Kind::Missing,
            401 | 403 => Kind::Denied,
            408 | 425 | 429 | 500.. => Kind::Retry,
            _ => Kind::Invalid,
        };
        let after = response.headers.get("retry-after");
        let after = after.and_then(|text| retry_after(text, self.0.clock.unix_seconds()));
        let said = match response.body.bytes(ERROR_BYTES_MAX).await {
            Ok(bytes) => quoted(&bytes),
            Err(_) => String::new(),
        };
        let refused = match status {
            401 | 403 => {
                let what = if repository.is_empty() { "" } else { "repository " };
                format!(", {what}{repository} is refused {}", self.0.auth.who())
            }
            _ => String::new(),
        };
        // For those who do not know the numbers by heart.
        let reason = reason(status).to_ascii_lowercase();
        let status_text = format!("status {status} {reason}");
        let what = format!("{prefix}{}{refused}{said}", status_text.trim_end());
        let error = self.problem(kind, path, &what).after(after);
        (if status == 429 { error.throttled() } else { error }, what)
    }

    pub(super) fn problem(&self, kind: Kind, path: &str, what: impl AsRef<str>) -> Error {
        Error::new(kind, format!("{}/{path}: {}", self.0.name, what.as_ref()))
    }

    pub(super) fn link(&self, path: &str, error: crate::net::Error) -> Error {
        let said = match error.retry_after() {
            // Nothing of it is about this registry.
            Some(after) => Error::new(error.kind(), error.to_string()).held_back(after),
            None => self.problem(error.kind(), path, error.to_string()),
        };
        said.caused_by(error)
    }
}

/// Whether a redirect leads to the same host by https.
fn is_upgrade(from: &Url, to: &Url) -> bool {
    from.scheme() == "http" && to.scheme() == "https" && from.host_str() == to.host_str()
}

/// How long to wait by a Retry-After, which is a number of seconds or a date.
fn retry_after(text: &str, now_unix_seconds: u64) -> Option<Duration> {
    let text = text.trim();
    let seconds = match text.parse() {
        Ok(seconds) => seconds,
        Err(_) => parse_http_date(text)?.saturating_sub(now_unix_seconds),
    };
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// What a registry says is wrong, made fit for one line of a log.
fn quoted(bytes: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(bytes) {
        Ok(said) => {
            // The specification's form, else those of token services.
            let first = said.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&said);
            let names = ["code", "message", "error", "error_description", "details"];
            let texts = names.iter().filter_map(|name| first.get(name)?.as_str());
            texts.take(2).collect::<Vec<_>>().join(": ")
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

/// Whether a path names content that this build could not verify.
fn is_unverifiable(path: &str) -> bool {
    !Algorithm::Sha512.is_verified() && path.contains("/sha512:")
}

const REDIRECTS_MAX: usize = 5;
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const ERROR_BYTES_MAX: u64 = 16 << 10;
const QUOTED_CHARS_MAX: usize = 200;
/// What a registry may ask for. Longer would leave a device to a wrong clock, here or there.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_seconds_or_dates_and_bounded() {
        let now = 784_111_777;
        let cases = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("Sun, 06 Nov 2094 08:40:00 GMT", Some(3_600)),
            ("18446744073709551615", Some(3_600)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn no_content_by_sha512_is_asked_for_where_that_is_left_out() {
        for kind in ["blobs", "manifests", "referrers"] {
            let path = |digest: &str| format!("a/b/{kind}/{digest}:00");
            assert_eq!(is_unverifiable(&path("sha512")), cfg!(not(feature = "sha512")), "{kind}");
            assert!(!is_unverifiable(&path("sha256")), "{kind}");
        }
        assert!(!is_unverifiable("a/sha512/manifests/sha512-00"));
    }

    #[test]
    fn quotes_are_short_and_plain() {
        let json = br#"{"errors":[{"code":"DENIED","message":"no\nentry"}]}"#;
        assert_eq!(quoted(json), " (DENIED: no entry)");
        assert_eq!(quoted(br#"{"errors":[{"code":"DENIED","detail":5}]}"#), " (DENIED)");
        assert_eq!(quoted(br#"{"details":"incorrect password"}"#), " (incorrect password)");
        for nothing in [b"".as_slice(), br#"{"errors":null}"#, br#"{"errors":[]}"#, b"[]"] {
            assert_eq!(quoted(nothing), "");
        }
        assert!(quoted(&[b'x'; 5000]).len() < 300);
        let url = Url::parse("https://u:p@host:5000/path?token=x").unwrap();
        assert_eq!(plain(&url), "https://host:5000/path");
    }
}
