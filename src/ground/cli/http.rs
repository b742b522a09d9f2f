//! Asks a server.
//!
//! The session that is remembered goes to the server it is of and to no other, and no redirect is
//! followed: it could lead elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

use super::output::{elements, text};
use super::session::Remembered;
use super::{Failure, session, variable};
use crate::config::nearest;
use crate::ground::http::agent;

/// Which server is asked, and how it is trusted.
#[derive(Args, Clone)]
pub struct Connection {
    /// The server: the one of the last login unless given; or GROUND_CONTROL_SERVER, with a session
    /// in GROUND_CONTROL_TOKEN
    #[arg(long, global = true, value_name = "URL", help_heading = "Server")]
    pub server: Option<String>,
    /// An authority in PEM that the server's certificate is by, in place of the system's
    #[arg(long, global = true, value_name = "FILE", help_heading = "Server")]
    pub ca_file: Option<PathBuf>,
}

impl Connection {
    /// A server, and the session there.
    pub fn open(&self) -> Result<Server, Failure> {
        let remembered = session::remembered()?;
        let given = self.server.clone().or_else(|| variable("GROUND_CONTROL_SERVER"));
        let url = match (&given, &remembered) {
            (Some(url), _) => base(url)?,
            (None, Some(login)) => login.url.clone(),
            (None, None) => {
                return Err(
                    "which server? ground-control login URL remembers one, --server names \
                            one"
                    .into(),
                );
            }
        };
        let remembered = remembered.filter(|login| login.url == url);
        let mut token = variable("GROUND_CONTROL_TOKEN");
        let mut ca_file = self.ca_file.clone();
        if let Some(login) = remembered {
            token = token.or(Some(login.token));
            ca_file = ca_file.or(login.ca_file);
        }
        let Some(token) = token else {
            return Err(format!("no session at {url}: expected ground-control login {url}").into());
        };
        let mut server = Server::new(url, ca_file.as_deref())?;
        server.token = Some(token);
        Ok(server)
    }
}

/// A server that can be asked.
pub struct Server {
    /// Without a slash at the end.
    pub url: String,
    token: Option<String>,
    agent: Agent,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Patch,
    Delete,
}

/// A question: a path below the server's URL, and a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
    /// What it is a change of.
    pub expected: Expected,
}

/// The version of a thing that a change is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    #[default]
    Any,
    /// This one, by the tag that the server sent.
    Tag(String),
    /// There is none yet.
    Absent,
}

impl Expected {
    /// What an answer is a version of; older servers say nothing of it.
    pub fn of(answer: &Value) -> Self {
        match text(answer, "ETag") {
            tag if tag.is_empty() => Self::Any,
            tag => Self::Tag(tag),
        }
    }
}

impl Request {
    pub fn new(method: Method, path: &[&str], body: Option<Value>) -> Self {
        let parts = path.iter().map(|part| utf8_percent_encode(part, PART).to_string());
        let path = parts.map(|part| format!("/{part}")).collect();
        Self { method, path, body, expected: Expected::Any }
    }

    /// The same with a query.
    pub fn with_query(mut self, fields: &[(&str, &str)]) -> Self {
        let query =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.path = format!("{}?{query}", self.path);
        self
    }
}

impl Server {
    /// A server without a session.
    pub fn new(url: String, ca_file: Option<&Path>) -> Result<Self, Failure> {
        let agent = agent(ca_file, CONNECT_TIMEOUT, ANSWER_TIMEOUT)?;
        Ok(Self { url, token: None, agent })
    }

    /// Whether it is asked with this session.
    pub fn is_with(&self, login: &Remembered) -> bool {
        self.url == login.url && self.token.as_ref() == Some(&login.token)
    }

    /// Reads what is at a path.
    pub fn get(&self, path: &[&str]) -> Result<Value, Failure> {
        self.ask(&Request::new(Method::Get, path, None))
    }

    /// Reads what is at a path, or nothing if there is nothing.
    pub fn find(&self, path: &[&str]) -> Result<Option<Value>, Failure> {
        match self.get(path) {
            Err(failure) if failure.status == Some(404) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Asks; an answer that is an error is a failure with the server's own words.
    pub fn ask(&self, request: &Request) -> Result<Value, Failure> {
        let answer = self.send(request).map_err(|error| self.unreached(&error))?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let read = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let bytes = read.map_err(|error| self.unreached(&error))?;
        if (200..300).contains(&status) {
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&bytes).map_err(|_| {
                let path = &request.path;
                format!("{}{path}: no JSON was answered: is this Ground Control?", self.url).into()
            });
        }
        Err(Failure { message: self.refused(request, status, &bytes), status: Some(status) })
    }

    /// Asks about one thing of many; if it is not there, the nearest name that is.
    pub fn ask_of(
        &self,
        noun: &str,
        name: &str,
        names: impl FnOnce() -> Result<Vec<String>, Failure>,
        request: &Request,
    ) -> Result<Value, Failure> {
        self.ask(request).map_err(|failure| {
            let is_missing = failure.status == Some(404)
                || failure.message.to_ascii_lowercase().contains(&format!("{noun} not found"));
            let known = if is_missing { names().unwrap_or_default() } else { Vec::new() };
            if !is_missing || known.iter().any(|known| known == name) {
                return failure;
            }
            missing(noun, name, &known)
        })
    }

    /// The names in a list.
    pub fn names(&self, list: &str, field: &str) -> Result<Vec<String>, Failure> {
        let list = elements(self.get(&["api", list])?);
        Ok(list.iter().map(|value| text(value, field)).collect())
    }

    /// The URL that satellites reach the server by. This machine may use another, such as a
    /// loopback address.
    pub fn public_url(&self) -> Result<String, Failure> {
        // Where the OCI distribution protocol says to get a token from.
        let answer = self.send(&Request::new(Method::Get, &["v2", ""], None));
        let answer = answer.map_err(|error| self.unreached(&error))?;
        let header = answer.headers().get("www-authenticate").and_then(|text| text.to_str().ok());
        let realm = header.and_then(|header| header.split('"').nth(1));
        let url = realm.and_then(|realm| realm.strip_suffix("/service/token"));
        Ok(url.unwrap_or(&self.url).to_owned())
    }

    fn send(&self, request: &Request) -> Result<Response<Body>, ureq::Error> {
        let url = format!("{}{}", self.url, request.path);
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let body = request.body.as_ref().map(ToString::to_string);
        macro_rules! with_head {
            ($builder:expr) => {{
                let mut builder = $builder.header("accept", "application/json");
                if let Some(bearer) = &bearer {
                    builder = builder.header("authorization", bearer);
                }
                builder = match &request.expected {
                    Expected::Any => builder,
                    Expected::Tag(tag) => builder.header("if-match", tag),
                    Expected::Absent => builder.header("if-none-match", "*"),
                };
                if body.is_some() {
                    builder = builder.header("content-type", "application/json");
                }
                builder
            }};
        }
        let text = || body.clone().unwrap_or_default();
        match request.method {
            Method::Get => with_head!(self.agent.get(url)).call(),
            Method::Post => with_head!(self.agent.post(url)).send(text()),
            Method::Patch => with_head!(self.agent.patch(url)).send(text()),
            Method::Delete if body.is_none() => with_head!(self.agent.delete(url)).call(),
            Method::Delete => with_head!(self.agent.delete(url)).force_send_body().send(text()),
        }
    }

    fn unreached(&self, error: &ureq::Error) -> Failure {
        let text = error.to_string();
        let hint = if text.contains("CaUsedAsEndEntity") {
            "; this certificate signed itself and calls itself an authority: expected one that an \
             authority signed"
        } else if text.contains("UnknownIssuer") {
            "; --ca-file names the authority that the server's certificate is by"
        } else {
            ""
        };
        format!("{}: {text}{hint}", self.url).into()
    }

    fn refused(&self, request: &Request, status: u16, body: &[u8]) -> String {
        let url = &self.url;
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let said = [text(&body, "message"), text(&body, "error")].concat();
        let said: String =
            said.trim_start_matches("Error: ").chars().take(SAID_CHARS_MAX).collect();
        match status {
            401 if self.token.is_some() && said == "Unauthorized" => {
                format!("the session at {url} has ended: expected ground-control login {url}")
            }
            412 => format!("{said}: expected the same command, given what is there now"),
            403 if said == "Forbidden" => format!("{url}: your role does not allow this"),
            300..=399 => format!("{url}: answers with a redirect: expected the server's own URL"),
            _ if said.is_empty() => format!("{url}{}: answered {status}", request.path),
            _ => said.trim_start_matches("error: ").to_owned(),
        }
    }
}

/// That there is no such thing, and which one may be meant.
pub fn missing(noun: &str, name: &str, known: &[String]) -> Failure {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = match nearest(name, &known) {
        "" => String::new(),
        nearest => format!("; did you mean {nearest:?}?"),
    };
    Failure { message: format!("{noun} {name:?}: not found{hint}"), status: Some(404) }
}

/// A server's URL as it is remembered and compared: scheme and host.
pub fn base(given: &str) -> Result<String, Failure> {
    let wrong =
        || Failure::from(format!("server {given:?}: expected https://host or http://host:port"));
    let url = url::Url::parse(given).map_err(|_| wrong())?;
    let plain = ["http", "https"].contains(&url.scheme())
        && url.host_str().is_some_and(|host| !host.is_empty())
        && (url.username(), url.password(), url.query(), url.fragment()) == ("", None, None, None)
        && url.path() == "/";
    if !plain {
        return Err(wrong());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// What cannot stand in a part of a path.
const PART: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a server allows a request unless it is configured otherwise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// A list of a hundred thousand satellites takes a part of it.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Of an error that a server answers.
const SAID_CHARS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_scheme_and_a_host() {
        assert_eq!(base("http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(base("HTTPS://Ground.example:443").unwrap(), "https://ground.example");
        for bad in ["", "ground", "ftp://h", "http://u:p@h", "http://h/x", "http://h?x"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        let request = Request::new(Method::Get, &["api", "groups", "../a?b%\u{e9}"], None);
        assert_eq!(request.path, "/api/groups/..%2Fa%3Fb%25%C3%A9");
    }
}
