//! HTTP to other servers: registries and Harbor.
//!
//! Nothing is followed, kept or repeated here: who asks decides what a redirect or a challenge is
//! worth. Every answer has a limit in bytes and in time. The library blocks, so that each exchange
//! is a turn on one of the runtime's threads for that.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
pub use ureq::http::Method;
use ureq::http::{HeaderMap, Request, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// A client; clones share its connections.
#[derive(Clone)]
pub struct Client(Agent);

/// What is sent.
pub struct Ask<'a> {
    pub method: Method,
    pub url: &'a str,
    pub headers: Vec<(&'static str, String)>,
    /// None for GET, HEAD and DELETE.
    pub body: Option<Vec<u8>>,
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The status and what the server says of it, for a message.
    pub fn said(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = body.pointer("/errors/0/message").or_else(|| body.get("message"));
        let message = message.and_then(serde_json::Value::as_str).unwrap_or_default();
        let signs = message.chars().filter(|sign| !sign.is_control());
        let message: String = signs.take(SAID_CHARS_MAX).collect();
        match message.as_str() {
            "" => format!("answered {}", self.status.as_u16()),
            _ => format!("answered {}: {message}", self.status.as_u16()),
        }
    }
}

impl Client {
    /// A client that trusts the authorities in a file of PEM, or those of the system.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        Ok(Self(agent(ca_file, CONNECT_TIMEOUT, ANSWER_TIMEOUT)?))
    }

    /// Sends a request. An error is that nothing, or too much, was answered.
    pub async fn send(&self, ask: Ask<'_>) -> Result<Answer, String> {
        let mut request = Request::builder().method(ask.method).uri(ask.url);
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let request = request.body(ask.body).map_err(|error| error.to_string())?;
        let agent = self.0.clone();
        let exchange = tokio::task::spawn_blocking(move || {
            let (head, body) = request.into_parts();
            let answer = match body {
                Some(body) => agent.run(Request::from_parts(head, body)),
                None => agent.run(Request::from_parts(head, ())),
            };
            let (head, mut body) = answer.map_err(|error| error.to_string())?.into_parts();
            let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
            let body = body.map_err(|error| error.to_string())?;
            Ok(Answer { status: head.status, headers: head.headers, body })
        });
        exchange.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// What sends requests and follows nothing. It trusts the authorities in a file of PEM, or those of
/// the system.
pub fn agent(
    ca_file: Option<&Path>,
    connect_timeout: Duration,
    answer_timeout: Duration,
) -> Result<Agent, String> {
    let tls = TlsConfig::builder().root_certs(roots(ca_file)?).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(connect_timeout))
        .timeout_global(Some(answer_timeout))
        .max_idle_connections_per_host(IDLE_MAX)
        .user_agent(concat!("ground-control/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.new_agent())
}

/// The authorities of a file, or the system's.
fn roots(ca_file: Option<&Path>) -> Result<RootCerts, String> {
    let Some(path) = ca_file else {
        let found = rustls_native_certs::load_native_certs().certs;
        let found = found.iter().map(|der| Certificate::from_der(der).to_owned());
        let found: Vec<_> = found.collect();
        // A machine without any is a container made from scratch, mostly.
        return Ok(match found.is_empty() {
            true => RootCerts::WebPki,
            false => RootCerts::Specific(Arc::new(found)),
        });
    };
    let failed = |what: String| format!("ca_file {}: {what}", path.display());
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let items = parse_pem(&pem).collect::<Result<Vec<_>, _>>();
    let items = items.map_err(|error| failed(error.to_string()))?;
    let certs = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let certs: Vec<_> = certs.collect();
    if certs.is_empty() {
        return Err(failed("expected a certificate in PEM".to_owned()));
    }
    Ok(RootCerts::Specific(Arc::new(certs)))
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of one exchange, the longest that a satellite's enrolment waits for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_BYTES_MAX: u64 = 4 << 20;
const IDLE_MAX: usize = 4;
const SAID_CHARS_MAX: usize = 300;
