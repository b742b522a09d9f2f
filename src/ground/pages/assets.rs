//! What pages load besides themselves: a style, and a script for pages that change while they are
//! looked at. Their URLs carry a hash of what they hold, so that a browser keeps them for as long as
//! they are what they are, and shows nothing old after an upgrade.

use std::sync::LazyLock;

use axum::extract::Query;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use serde::Deserialize;

/// One of them.
pub struct Asset {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
    version: LazyLock<String>,
}

impl Asset {
    pub fn url(&self) -> String {
        format!("{}?v={}", self.path, *self.version)
    }

    /// A replica of another version must not have its own kept under this URL.
    fn answer(&self, asked: &Version) -> impl IntoResponse + use<> {
        let kept =
            if asked.v == *self.version { "max-age=31536000, immutable" } else { "no-store" };
        let headers = [(header::CONTENT_TYPE, self.kind), (header::CACHE_CONTROL, kept)];
        (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), self.text)
    }
}

#[derive(Deserialize)]
pub struct Version {
    #[serde(default)]
    v: String,
}

pub async fn style(Query(asked): Query<Version>) -> impl IntoResponse {
    STYLE.answer(&asked)
}

pub async fn script(Query(asked): Query<Version>) -> impl IntoResponse {
    LIVE.answer(&asked)
}

fn version_of(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().chars().take(16).collect()
}

pub static STYLE: Asset = Asset {
    path: "/console/style.css",
    kind: "text/css; charset=utf-8",
    text: STYLE_TEXT,
    version: LazyLock::new(|| version_of(STYLE_TEXT)),
};

pub static LIVE: Asset = Asset {
    path: "/console/live.js",
    kind: "text/javascript; charset=utf-8",
    text: LIVE_TEXT,
    version: LazyLock::new(|| version_of(LIVE_TEXT)),
};

/// Puts in what `live` sends. A browser that lost its server asks again by itself; a refusal it takes
/// as final, and then the page is loaded again.
const LIVE_TEXT: &str = r#""use strict";
const place = document.querySelector("[data-live]");
const events = new EventSource(place.dataset.live);
events.addEventListener("content", (event) => { place.innerHTML = event.data; });
events.addEventListener("end", () => events.close());
events.addEventListener("reload", () => location.reload());
events.addEventListener("error", () => {
  if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
});
"#;

const STYLE_TEXT: &str = "
:root { --back: #fff; --text: #1b1f24; --muted: #59636e; --line: #d1d9e0; --link: #0550ae;
  --good: #116329; --bad: #b3261e; --wait: #7a5200; --box: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --muted: #9198a1;
  --line: #3d444d; --link: #79b8ff; --good: #56d364; --bad: #ff8a80; --wait: #e3b341;
  --box: #161b22; } }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; background: var(--back);
  color: var(--text); }
main { max-width: 68rem; margin: 0 auto; padding: 1rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; justify-content: space-between;
  align-items: center; padding: .5rem 1rem; border-bottom: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
a { color: var(--link); }
h1 { font-size: 1.4rem; margin: .5rem 0; }
h1, h2, h3, p, li { overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1rem 0 .5rem; }
h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
.muted { color: var(--muted); } .good { color: var(--good); } .bad { color: var(--bad); }
.wait { color: var(--wait); }
.problem { color: var(--bad); border-left: 4px solid; padding-left: .75rem; }
.notice { border: 1px solid var(--line); background: var(--box); padding: .75rem;
  border-radius: 6px; overflow-wrap: anywhere; }
.card { max-width: 22rem; margin: 3rem auto; }
label { display: block; margin: .5rem 0; }
input, select, textarea { display: block; width: 100%; font: inherit; color: inherit;
  background: var(--back); border: 1px solid var(--muted); border-radius: 6px;
  padding: .4rem .6rem; min-height: 2.5rem; }
textarea { min-height: 14rem; font-family: ui-monospace, monospace; font-size: .9rem; }
button { font: inherit; padding: .4rem 1rem; min-height: 2.5rem; border-radius: 6px;
  border: 1px solid var(--link); background: var(--link); color: var(--back); cursor: pointer; }
button.plain { background: none; color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.row { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end; }
.row > label { flex: 1 1 12rem; margin: 0; }
.bar { display: flex; height: .75rem; border-radius: 6px; overflow: hidden; gap: 2px;
  margin: .5rem 0; background: var(--line); }
.bar > span { background: currentColor; }
.states { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; list-style: none; }
.states a[aria-current] { font-weight: 700; }
.scroll { overflow-x: auto; }
.row > form { flex: none; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
td.stamp > span, td.word { white-space: nowrap; overflow-wrap: normal; }
td.stamp { min-width: 6rem; } td.who { min-width: 5rem; }
.charts { display: grid; gap: 1rem 2rem; align-items: end;
  grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
figure.chart { margin: .5rem 0; min-width: 0; }
figure.chart svg { display: block; width: 100%; height: 5rem; background: var(--box);
  border: solid var(--muted); border-width: 1px 0; }
path { fill: currentColor; } path.link { color: var(--link); }
.most, .axis { font-size: .8rem; color: var(--muted); }
.most { text-align: right; } .axis { display: flex; justify-content: space-between; }
summary { cursor: pointer; min-height: 2rem; color: var(--link); }
@media (max-width: 40rem) { .wide { display: none; } .scroll table { font-size: .85rem; }
  .scroll th, .scroll td { padding-right: .5rem; } }
";
