//! What a satellite tells of itself: `/healthz`, `/readyz`, `/metrics`, `/status`, and a page for
//! people, on `admin.listen`.
//!
//! Read-only and unauthenticated, which is why it listens on the loopback by default. The same
//! [`Report`] feeds the page, `moonlet status` and `moonlet status --json`, so that they never
//! tell different stories.

mod page;
mod report;
mod table;

use std::rc::Rc;

use crate::blob::Store;
use crate::clock::SharedClock;
use crate::metrics::Metrics;
use crate::net::http::{Handler, Headers, Method, ResponseBody, ServerRequest, ServerResponse};
use crate::pull::board::Board;
pub use report::{HealthReport, ImageReport, LinkReport, Report, ScrubReport, StoreReport};
pub use table::{bar, draw, draw_images, draw_scrub, draw_store};

/// Answers on the admin address.
pub struct Admin {
    /// The satellite's name.
    pub name: String,
    /// For the store's figures.
    pub store: Store,
    /// For images and transfers.
    pub board: Board,
    /// For rates and uptime.
    pub clock: SharedClock,
    /// For everything else.
    pub metrics: Rc<Metrics>,
    /// Erases that the medium is rated for.
    pub cycles_rated: u32,
}

impl Admin {
    /// What is to be told now.
    pub fn report(&self) -> Report {
        let now = self.clock.monotonic();
        let (board, metrics) = (&self.board, &self.metrics);
        let store = StoreReport::new(&self.store, self.cycles_rated, metrics);
        Report::new(&self.name, store, board, now, metrics)
    }

    fn answer(&self, request: &ServerRequest) -> ServerResponse {
        if !matches!(request.method, Method::Get | Method::Head) {
            let mut response = text(405, "only GET and HEAD are answered here\n".to_owned());
            response.headers.append("allow", "GET, HEAD");
            return response;
        }
        match request.path.as_str() {
            // The process answers, hence it lives; it listens only once the store is mounted and
            // the read API is up, hence it is ready. No upstream is needed for either.
            "/healthz" | "/readyz" => text(200, "ok\n".to_owned()),
            "/metrics" => {
                self.store.count();
                reply(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
            }
            "/status" => match serde_json::to_string_pretty(&self.report()) {
                Ok(json) => reply(200, "application/json", json + "\n"),
                Err(error) => text(500, format!("{error}\n")),
            },
            "/" => reply(200, "text/html; charset=utf-8", page::render(&self.report())),
            path => {
                text(404, format!("{path}: expected /, /status, /metrics, /healthz or /readyz\n"))
            }
        }
    }
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
