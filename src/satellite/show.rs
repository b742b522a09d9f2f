//! How the commands print, and whom they ask.

use std::io::{IsTerminal as _, Write as _};
use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Failure;
use super::run::Satellite;
use crate::clock::{SharedClock, SystemClock};
use crate::net::http::{Client, ClientLimits, ClientRequest, Headers, Method};
use crate::net::{Network, tls};
use crate::status::{bar, draw_images};
use crate::units::ByteCount;

/// Draws the progress of a sync until it is cancelled: bars on a terminal, nothing in a pipe,
/// where the log says it.
pub async fn progress(satellite: &Satellite) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let mut lines = 0;
    loop {
        let text = draw_images(&satellite.admin().report().images);
        let up = if lines > 0 { format!("\x1b[{lines}A") } else { String::new() };
        lines = text.matches('\n').count();
        let text = text.replace('\n', "\x1b[K\n");
        // Without wrapping: a narrow terminal cuts lines off, and their number stays known.
        let drawn = format!("\x1b[?7l{up}{text}\x1b[?7h");
        // A terminal that went away stops nothing.
        let _ = std::io::stderr().lock().write_all(drawn.as_bytes());
        satellite.clock.sleep(REDRAW).await;
    }
}

/// Draws how much of `all` bytes is done; nothing in a pipe.
pub fn share(bytes: u64, all: u64) {
    if std::io::stderr().is_terminal() {
        let line =
            format!("\r{} {} of {}\x1b[K", bar(bytes, all), ByteCount(bytes), ByteCount(all));
        // A terminal that went away stops nothing.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// Ends the line of [`share`].
pub fn share_end() {
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr().lock());
    }
}

/// Prints to standard output; a reader that has gone is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Says what went wrong.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "moonlet: {text}");
}

/// What the satellite answers at `url`, read from JSON, if one does.
pub async fn ask<T: DeserializeOwned>(url: &str) -> Option<T> {
    serde_json::from_slice(&answer(url).await?).ok()
}

/// What a satellite that runs answers at `url`.
pub async fn answer(url: &str) -> Option<Vec<u8>> {
    let clock: SharedClock = Rc::new(SystemClock::new());
    let trust = tls::Trust::new(tls::ClientOptions::default(), clock);
    // The satellite is on this device: no proxy stands between.
    let client = Client::new(trust, Network::default(), ClientLimits::default());
    let request = ClientRequest {
        method: Method::Get,
        url: url.parse().ok()?,
        headers: Headers::new(),
        body: Vec::new(),
    };
    let response = client.send(request).await.ok().filter(|response| response.status == 200)?;
    response.body.bytes(REPORT_BYTES_MAX).await.ok()
}

/// Between two drawings of what goes on.
pub const REDRAW: Duration = Duration::from_millis(500);
const REPORT_BYTES_MAX: u64 = 1 << 20;
