//! What all pages share: the frame, the style, and how times are shown.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Visitor;
use super::assets::{LIVE, STYLE};
use crate::ground::clock;
use crate::oci::Digest;
use crate::units::format_duration;

/// A page with the console's frame.
pub fn page(visitor: Option<&Visitor>, title: &str, content: &Markup) -> Markup {
    frame(visitor, title, &html! {}, content)
}

/// A page whose content is sent anew by the events at `url` whenever it changes. Without scripts it is
/// loaded again every few seconds.
pub fn live_page(visitor: &Visitor, title: &str, url: &str, content: &Markup) -> Markup {
    let head = html! {
        script src=(LIVE.url()) defer {}
        noscript { meta http-equiv="refresh" content="5"; }
    };
    frame(Some(visitor), title, &head, &html! { div data-live=(url) { (content) } })
}

fn frame(visitor: Option<&Visitor>, title: &str, head: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " - Ground Control" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(STYLE.url());
                (head)
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
