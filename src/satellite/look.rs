//! The commands that look at a satellite: `status`, `image ls`, `store stat` and `store scrub`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::rc::Rc;

use serde::Serialize;

use super::Failure;
use super::run::Satellite;
use super::show::{REDRAW, ask, print};
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::status::{
    CachedReport, ProblemReport, Report, STORE, draw, draw_cached, draw_images, draw_scrub,
    draw_store,
};

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
