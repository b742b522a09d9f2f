//! Ground Control's API as a satellite asks it: enrolment, reports, new credentials.

use std::cell::RefCell;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::Error;
use crate::fleet::enrol::{Actions, Answer, Credentials, Refreshed, Request};
use crate::fleet::report::Report;
use crate::kind::Kind;
use crate::net::http::{Client, ClientRequest, ClientResponse, Headers, Method};

/// Asks one Ground Control.
pub struct GroundControl {
    client: Client,
    base: RefCell<Url>,
}

impl GroundControl {
    /// Without connections yet.
    pub fn new(client: Client, base: Url) -> Self {
        Self { client, base: RefCell::new(base) }
    }

    /// It answers elsewhere from here on.
    pub fn moves(&self, base: Url) {
        self.base.replace(base);
    }

    /// Where it answers.
    pub fn base(&self) -> Url {
        self.base.borrow().clone()
    }

    /// Enrols with a token: by the later dialect, which keeps it out of logs, and where that is not
    /// known by that of Go 0.0.4. Without a token it is the certificate of the connection that counts.
    ///
    /// # Errors
    /// [`Kind::Denied`] for a token that is unknown, spent or expired.
    pub async fn enrol(&self, request: &Request) -> Result<Answer, Error> {
        let asked = self.ask_to_enrol(request).await;
        match request.token.as_str() {
            "" => asked,
            // In Go's dialect the token is in the path, and an error would name that.
            token => asked.map_err(|error| error.without(token)),
        }
    }

    async fn ask_to_enrol(&self, request: &Request) -> Result<Answer, Error> {
        let body = json(request)?;
        let mut response = self.ask(Method::Post, "satellites/ztr", None, body).await?;
        if matches!(response.status, 404 | 405) {
            let path = match request.token.as_str() {
                "" => "satellites/spiffe-ztr".to_owned(),
                token => format!("satellites/ztr/{token}"),
            };
            response = self.ask(Method::Get, &path, None, Vec::new()).await?;
        }
        match response.status {
            400 | 401 | 403 => {
                let what = match request.token.as_str() {
                    "" => "the certificate is refused: expected one that names a known satellite",
                    _ => {
                        "the enrolment token is refused: expected one that is not spent or expired"
                    }
                };
                return Err(self.refused(Kind::Denied, response, what).await);
            }
            409 => {
                let what = "Ground Control lets this device in later";
                return Err(self.refused(Kind::Retry, response, what).await);
            }
            404 | 405 => {
                let what = "no Ground Control answers here";
                return Err(self.refused(Kind::Invalid, response, what).await);
            }
            _ => {}
        }
        let answer: Answer = self.parsed(response, "the answer to the enrolment").await?;
        answer.check().map_err(|error| Error::from(error).about(self.base()))?;
        Ok(answer)
    }

    /// Sends a report; returns what Ground Control wants done.
    ///
    /// # Errors
    /// [`Kind::Denied`] when the credentials are not good any more.
    pub async fn report(&self, auth: &Credentials, report: &Report) -> Result<Vec<String>, Error> {
        let body = json(report)?;
        let response = self.ask(Method::Post, "satellites/sync", Some(auth), body).await?;
        let response = self.accepted(response, "the report").await?;
        let bytes = response.body.bytes(ANSWER_BYTES_MAX).await?;
        // Go 0.0.4 says nothing, and what others say and is no list of actions asks for none.
        Ok(Actions::parse(&bytes).map(|actions| actions.actions).unwrap_or_default())
    }

    /// Fetches a new secret; the one in use stays good until that was used.
    pub async fn refresh(&self, auth: &Credentials) -> Result<String, Error> {
        let response = self.ask(Method::Post, "sat/refresh", Some(auth), Vec::new()).await?;
        let response = self.accepted(response, "the request for new credentials").await?;
        let refreshed: Refreshed = self.parsed(response, "the new credentials").await?;
        if refreshed.secret.is_empty() || refreshed.secret.len() > SECRET_BYTES_MAX {
            let length = refreshed.secret.len();
            let expected = format!("expected 1 to {SECRET_BYTES_MAX}");
            let what = format!("{}: a new secret of {length} bytes, {expected}", self.base());
            return Err(Error::new(Kind::Invalid, what));
        }
        Ok(refreshed.secret)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        auth: Option<&Credentials>,
        body: Vec<u8>,
    ) -> Result<ClientResponse, Error> {
        let base = self.base();
        let base = base.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}/{path}"))
            .map_err(|error| Error::new(Kind::Invalid, format!("{base}: {error}")))?;
        let mut headers = Headers::new();
        headers.append("user-agent", concat!("moonlet/", env!("CARGO_PKG_VERSION")));
        headers.append("accept", "application/json");
        if !body.is_empty() {
            headers.append("content-type", "application/json");
        }
        if let Some(Credentials { username, password, .. }) = auth {
            let pair = STANDARD.encode(format!("{username}:{password}"));
            headers.append("authorization", format!("Basic {pair}"));
        }
        Ok(self.client.send(ClientRequest { method, url, headers, body }).await?)
    }

    /// The response, if it is one of success.
    async fn accepted(
        &self,
        response: ClientResponse,
        what: &str,
    ) -> Result<ClientResponse, Error> {
        let kind = match response.status {
            200..=299 => return Ok(response),
            401 | 403 => Kind::Denied,
            408 | 409 | 429 | 500.. => Kind::Retry,
            _ => Kind::Invalid,
        };
        Err(self.refused(kind, response, &format!("{what} is refused")).await)
    }

    async fn refused(&self, kind: Kind, response: ClientResponse, what: &str) -> Error {
        let status = response.status;
        let mut text = format!("{}: {what} (status {status}", self.base());
        let bytes = response.body.bytes(ANSWER_BYTES_MAX).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&bytes);
        let said: String = said.trim().chars().filter(|sign| !sign.is_control()).collect();
        if !said.is_empty() {
            let short: String = said.chars().take(SAID_CHARS_MAX).collect();
            // Writing to a String cannot fail.
            let _ = write!(text, ": {short}");
        }
        text.push(')');
        Error::new(kind, text)
    }

    async fn parsed<T: DeserializeOwned>(
        &self,
        response: ClientResponse,
        what: &str,
    ) -> Result<T, Error> {
        let response = self.accepted(response, what).await?;
        let bytes = response.body.bytes(ANSWER_BYTES_MAX).await?;
        // What it says is a secret: an error shows nothing of it.
        serde_json::from_slice(&bytes).map_err(|error| {
            let at = error.column();
            let text = format!("{}: {what}: malformed JSON at byte {at}", self.base());
            Error::new(Kind::Invalid, text)
        })
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::new(Kind::Invalid, error.to_string()))
}

/// An answer is a few hundred bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
const SECRET_BYTES_MAX: usize = 4096;
/// Of what a server said, in an error.
const SAID_CHARS_MAX: usize = 200;
