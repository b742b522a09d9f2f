//! What the commands print.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Failure;
use super::run::Satellite;
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::net::http::{Client, ClientLimits, ClientRequest, Headers, Method};
use crate::net::{Network, tls};
use crate::status::{
    CachedReport, ProblemReport, Report, STORE, bar, draw, draw_cached, draw_images, draw_scrub,
    draw_store,
};
use crate::units::ByteCount;

/// Prints everything there is to see.
pub async fn status(config: Config, json: bool) -> Result<ExitCode, Failure> {
    let report = report(config).await?;
    show(json, &report, || draw(&report))
}

/// Lists the images.
pub async fn images(config: Config, json: bool) -> Result<ExitCode, Failure> {
    let report = report(config).await?;
    show(json, &report.images, || draw_images(&report.images))
}

/// Lists what is held and not desired.
pub async fn cached(config: Config, json: bool) -> Result<ExitCode, Failure> {
    let running = match config.admin.listen {
        Some(address) => ask(&format!("http://{address}/status/cached")).await,
        None => None,
    };
    let cached: Vec<CachedReport> = match running {
        Some(cached) => cached,
        None => {
            let satellite = Satellite::inspect(config).await?;
            // What is desired or was imported is known after that.
            satellite.observe()?;
            satellite.admin().cached()?
        }
    };
    show(json, &cached, || draw_cached(&cached))
}

/// Prints the log in figures.
pub async fn store(config: Config, json: bool) -> Result<ExitCode, Failure> {
    let report = report(config).await?;
    show(json, &report.store, || draw_store(&report.store))
}

/// Prints how far the search for rot is, and follows it on a terminal.
pub async fn scrub(config: Config, json: bool) -> Result<ExitCode, Failure> {
    let Some(address) = config.admin.listen else {
        let what = "no admin.listen in the configuration: expected one to ask the satellite at";
        return Err(Failure(what.to_owned()));
    };
    let url = format!("http://{address}/status");
    let clock: SharedClock = Rc::new(SystemClock::new());
    let mut passes = None;
    loop {
        let Some(report) = ask::<Report>(&url).await else {
            let what = format!("{url}: no satellite answers; moonlet store verify checks all now");
            return Err(Failure(what));
        };
        let scrub = &report.store.scrub;
        let is_followed = !json && std::io::stdout().is_terminal();
        if !is_followed {
            return show(json, scrub, || draw_scrub(scrub));
        }
        let line = draw_scrub(scrub);
        print(&format!("\r{}\x1b[K", line.trim_end()))?;
        if scrub.passes > *passes.get_or_insert(scrub.passes) || scrub.pass_bytes == 0 {
            print("\n")?;
            return Ok(ExitCode::SUCCESS);
        }
        clock.sleep(REDRAW).await;
    }
}

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

fn show(
    json: bool,
    value: &impl Serialize,
    drawn: impl Fn() -> String,
) -> Result<ExitCode, Failure> {
    let text = if json { serde_json::to_string_pretty(value)? + "\n" } else { drawn() };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// From the satellite that runs, if one does; else from the log itself.
async fn report(config: Config) -> Result<Report, Failure> {
    if let Some(address) = config.admin.listen
        && let Some(report) = ask(&format!("http://{address}/status")).await
    {
        return Ok(report);
    }
    let asked = config.admin.listen.map_or_else(
        || "there is no admin.listen to ask a running satellite at".to_owned(),
        |address| format!("no satellite answers at http://{address}"),
    );
    let mut report = Satellite::inspect(config).await?.observe()?;
    // Only to be looked at, hence not to be written: no more is known of it.
    report.problems.retain(|problem| problem.part != STORE);
    let reason = format!("{asked}: this was read from the store");
    report.problems.push(ProblemReport { part: "moonlet run".to_owned(), reason, vital: true });
    Ok(report)
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

const REDRAW: Duration = Duration::from_millis(500);
const REPORT_BYTES_MAX: u64 = 1 << 20;
