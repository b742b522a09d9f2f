//! What all pages share: the frame, the style, and how times are shown.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Visitor;
use crate::ground::clock;
use crate::oci::Digest;
use crate::units::format_duration;

/// A page with the console's frame.
pub fn page(visitor: Option<&Visitor>, title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " - Ground Control" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/console/style.css";
            }
            body {
                @if let Some(visitor) = visitor {
                    header {
                        nav {
                            a href="/console" { "Fleet" }
                            a href="/console/groups" { "Groups" }
                            a href="/console/rollouts" { "Rollouts" }
                            a href="/console/images" { "Images" }
                            a href="/console/events" { "Events" }
                            a href="/console/audit" { "Audit" }
                            a href="/console/configs" { "Configurations" }
                            a href="/console/users" { "Users" }
                        }
                        form method="post" action="/console/logout" {
                            (token(visitor))
                            span.muted { (visitor.user.username) } " "
                            button.plain { "Log out" }
                        }
                    }
                }
                main { (content) }
            }
        }
    }
}

/// The hidden field that makes a form this session's.
pub fn token(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="form_token" value=(visitor.form_token); }
}

/// The hidden field that says what of a thing the form was made from.
pub fn version(tag: &str) -> Markup {
    html! { input type="hidden" name="version" value=(tag); }
}

/// A time to the second.
pub fn at(micros: i64) -> String {
    clock::rfc3339(micros - micros.rem_euclid(clock::SECOND))
}

/// A text as a part of a URL.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A digest in short, and who holds it. What a satellite says need not be one.
pub fn digest_link(text: &str) -> Markup {
    match text.parse::<Digest>() {
        Ok(digest) => html! {
            a href={ "/console/images?digest=" (digest.to_string()) } { code { (digest.short()) } }
        },
        Err(_) => html! { code { (text) } },
    }
}

/// A span of time.
pub fn span(micros: i64) -> String {
    let seconds = u64::try_from(micros / clock::SECOND).unwrap_or(0);
    format_duration(Duration::from_secs(seconds))
}

/// A time in a table: the day, and below it the time of day where there is little room.
pub fn stamp(micros: i64) -> Markup {
    let text = at(micros);
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    html! { td.stamp { span { (day) } " " span { (time) } } }
}

/// How long ago something was.
pub fn ago(micros: i64) -> String {
    format!("{} ago", span(micros))
}

pub const STYLE: &str = "
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
