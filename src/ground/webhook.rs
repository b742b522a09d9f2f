//! Sends the fleet's events to a URL, in their order, each signed.
//!
//! What was sent is a number in the database: a restart goes on where it was, and an event may arrive
//! twice. After 408, 429, 5xx or no answer it is tried again until it is too old to be kept (30 days);
//! any other answer but 2xx refuses it, and it does not stop those that follow.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustls::pki_types::ServerName;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::app::App;
use super::fault::Fault;
use super::settings::Webhook;
use super::store::{Event, Part};
use super::{api, publish};

impl Webhook {
    /// Decides from which event on all are sent; before anything is served, so that none is missed.
    pub async fn prepare(&self, app: &App) -> Result<(), Fault> {
        cursor(app).await.map(drop)
    }

    /// Runs until it is dropped.
    pub async fn run(self, app: Arc<App>) {
        let mut pause = PAUSE_MIN;
        loop {
            tokio::time::sleep(pause).await;
            match self.send_new(&app).await {
                Ok(()) => pause = PAUSE_MIN,
                Err(error) => {
                    pause = (pause * 2).min(PAUSE_MAX);
                    tracing::warn!("webhook: {error}; next attempt in {} s", pause.as_secs());
                }
            }
        }
    }

    /// Sends what came after the last that was sent.
    async fn send_new(&self, app: &App) -> Result<(), String> {
        let failed = |fault: Fault| fault.message;
        let after = cursor(app).await.map_err(failed)?;
        let part = Part { after: Some(after), before: None, satellite: "", rows_max: BATCH_MAX };
        let events = async { app.store.read().await?.rows().events(&part).await };
        for event in events.await.map_err(|error| error.to_string())? {
            self.send(&event).await?;
            set_cursor(app, event.id).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn send(&self, event: &Event) -> Result<(), String> {
        let body = publish::to_json(&api::event(event)).map_err(|fault| fault.message)?;
        let status = timeout(SEND_TIMEOUT, self.post(&event.kind, &body))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        match status {
            200..=299 => Ok(()),
            // Not now; and a wrong one would be wrong again.
            408 | 429 | 500.. => Err(format!("answered {status}")),
            _ => {
                tracing::warn!("webhook: event {} was refused with {status}", event.id);
                Ok(())
            }
        }
    }

    /// Sends a request and returns the status of its answer.
    async fn post(&self, kind: &str, body: &str) -> std::io::Result<u16> {
        let other = |error: &dyn std::fmt::Display| std::io::Error::other(error.to_string());
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or(80);
        let authority = match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let query = self.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let head = format!(
            "POST {}{query} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\
             X-Ground-Control-Event: {kind}\r\nX-Ground-Control-Signature: sha256={}\r\n\r\n",
            self.url.path(),
            body.len(),
            self.signature(body).ok_or_else(|| other(&"signing failed"))?,
        );
        let request = format!("{head}{body}");
        // The brackets of an IPv6 address are the URL's.
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = TcpStream::connect((name.as_str(), port)).await?;
        if self.url.scheme() == "http" {
            return exchange(stream, &request).await;
        }
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| other(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name).map_err(|error| other(&error))?;
        exchange(TlsConnector::from(Arc::new(config)).connect(name, stream).await?, &request).await
    }

    /// HMAC-SHA256 of a body, in hexadecimal.
    fn signature(&self, body: &str) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).ok()?;
        mac.update(body.as_bytes());
        Some(mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Writes a request, and reads the head of its answer: its status.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> std::io::Result<u16> {
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, "no answer of HTTP/1.1");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(invalid());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    status.and_then(|status| status.parse().ok()).ok_or_else(invalid)
}

/// The last event that was sent. What happened before there was a webhook is not sent.
async fn cursor(app: &App) -> Result<i64, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    if let Some(id) = rows.setting(CURSOR).await?.and_then(|text| text.parse().ok()) {
        return Ok(id);
    }
    let newest = Part { after: None, before: None, satellite: "", rows_max: 1 };
    let newest = rows.events(&newest).await?.first().map_or(0, |event| event.id);
    drop(read);
    set_cursor(app, newest).await?;
    Ok(newest)
}

async fn set_cursor(app: &App, id: i64) -> Result<(), Fault> {
    let mut write = app.store.write().await?;
    write.rows().set_setting(CURSOR, &id.to_string()).await?;
    write.commit().await?;
    Ok(())
}

const CURSOR: &str = "webhook_cursor";
const BATCH_MAX: i64 = 100;
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(300);
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_signed() {
        let hook = Webhook::new("https://h.example/x?y=1", "0123456789abcdef").unwrap();
        // By `openssl dgst -sha256 -hmac 0123456789abcdef`.
        let expected = "564c88996eca094e86962bc8c3ca28f6868b19f1646c542d29b5132b84f93dc3";
        assert_eq!(hook.signature("{\"id\":1}").unwrap(), expected);
        assert_ne!(hook.signature("{\"id\":2}").unwrap(), expected);
    }
}
