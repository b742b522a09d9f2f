//! What a satellite reports of itself: `/healthz`, `/readyz`, `/metrics`, `/status`, and a page for
//! people, on `admin.listen`.
//!
//! Read-only and unauthenticated, which is why it listens nowhere unless it is configured. The same
//! [`Report`] feeds the page, `moonlet status` and `moonlet status --json`, so that they never
//! disagree. `/healthz` says that the process works; `/readyz` whether all that readiness depends on
//! works, and what does not.

mod cached;
mod health;
#[cfg(feature = "status")]
mod page;
mod report;
mod table;

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;

use serde::Serialize;

use crate::blob::Store;
use crate::catalog::Catalog;
use crate::clock::SharedClock;
use crate::fetch::Gate;
use crate::metrics::Metrics;
use crate::net::http::{Handler, Headers, Method, ResponseBody, ServerRequest, ServerResponse};
use crate::pull::progress::Progress;
pub use cached::{CachedReport, draw_cached};
pub use health::{Health, ProblemReport};
#[cfg(feature = "status")]
pub use page::render;
pub use report::{
    HealthReport, ImageReport, LinkReport, PlanReport, Report, ScrubReport, StoreReport,
    WindowReport,
};
pub use table::{bar, draw, draw_images, draw_scrub, draw_store};

/// Answers on the admin address.
pub struct Admin {
    /// The satellite's name.
    pub name: RefCell<String>,
    /// For the store's figures.
    pub store: Store,
    /// For what images have of it.
    pub catalog: Catalog,
    /// For images and transfers.
    pub progress: Progress,
    /// For rates and uptime.
    pub clock: SharedClock,
    /// For everything else.
    pub metrics: Rc<Metrics>,
    /// Erases that the medium is rated for.
    pub cycles_rated: Cell<u32>,
    /// For what the link may carry.
    pub gate: Gate,
    /// What does not work.
    pub health: Health,
}

impl Admin {
    /// The state of everything now.
    pub fn report(&self) -> Report {
        let now = self.clock.monotonic();
        let (progress, metrics) = (&self.progress, &self.metrics);
        let store = StoreReport::new(&self.store, self.cycles_rated.get(), metrics);
        let link = LinkReport::new(metrics, &self.gate);
        Report::new(&self.name.borrow(), self.problems(), store, progress, now, link)
    }

    /// What does not work, the store included.
    fn problems(&self) -> Vec<ProblemReport> {
        let mut problems = self.health.problems();
        if let Some(failure) = self.store.failure()
            && problems.iter().all(|problem| problem.part != STORE)
        {
            let reason = format!("it cannot be written: {failure}; what is held is served");
            problems.push(ProblemReport { part: STORE.to_owned(), reason, vital: true });
        }
        problems
    }

    fn answer(&self, request: &ServerRequest) -> ServerResponse {
        if !matches!(request.method, Method::Get | Method::Head) {
            let mut response = text(405, "only GET and HEAD are answered here\n".to_owned());
            response.headers.append("allow", "GET, HEAD");
            return response;
        }
        match request.path.as_str() {
            // The process answers, hence it lives.
            "/healthz" => text(200, "ok\n".to_owned()),
            "/readyz" => readiness(&self.problems()),
            "/metrics" => {
                self.store.export_gauges();
                self.gate.export_gauges();
                reply(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
            }
            "/status" => json(&self.report()),
            "/status/cached" => match self.cached() {
                Ok(cached) => json(&cached),
                Err(error) => text(500, format!("{error}\n")),
            },
            "/" => self.page(),
            path => {
                let page = if cfg!(feature = "status") { "/, " } else { "" };
                let expected = "/status, /status/cached, /metrics, /healthz or /readyz";
                text(404, format!("{path}: expected {page}{expected}\n"))
            }
        }
    }
}

#[cfg(feature = "status")]
impl Admin {
    fn page(&self) -> ServerResponse {
        let mut response = reply(200, "text/html; charset=utf-8", page::render(&self.report()));
        response.headers.append("content-security-policy", PAGE_POLICY);
        response
    }
}

#[cfg(not(feature = "status"))]
impl Admin {
    fn page(&self) -> ServerResponse {
        text(404, crate::config::lacking("the page for people", "status") + "\n")
    }
}

/// The part that holds the images.
pub const STORE: &str = "store";
/// The page needs nothing but itself.
#[cfg(feature = "status")]
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Answers on the admin address while there is no store.
pub struct Waiting(pub Health);

impl Handler for Waiting {
    async fn handle(&self, request: ServerRequest) -> ServerResponse {
        match request.path.as_str() {
            "/healthz" => text(200, "ok\n".to_owned()),
            _ => readiness(&self.0.problems()),
        }
    }
}

fn json(value: &impl Serialize) -> ServerResponse {
    match serde_json::to_string_pretty(value) {
        Ok(json) => reply(200, "application/json", json + "\n"),
        Err(error) => text(500, format!("{error}\n")),
    }
}

/// Whether all that is vital works: no upstream has to be in reach. What else does not is said as
/// well.
fn readiness(problems: &[ProblemReport]) -> ServerResponse {
    let is_ready = problems.iter().all(|problem| !problem.vital);
    let mut body = if is_ready { "ok\n" } else { "not ready\n" }.to_owned();
    for ProblemReport { part, reason, .. } in problems {
        // Writing to a String cannot fail.
        let _ = writeln!(body, "{part}: {reason}");
    }
    text(if is_ready { 200 } else { 503 }, body)
}

impl Handler for Admin {
    async fn handle(&self, request: ServerRequest) -> ServerResponse {
        self.answer(&request)
    }
}

fn text(status: u16, body: String) -> ServerResponse {
    reply(status, "text/plain; charset=utf-8", body)
}

fn reply(status: u16, content_type: &str, body: String) -> ServerResponse {
    let mut headers = Headers::new();
    headers.append("content-type", content_type);
    ServerResponse { status, headers, body: ResponseBody::Bytes(body.into_bytes().into()) }
}
