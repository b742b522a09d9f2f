//! The page for people: one self-contained HTML document that reloads itself.

use std::fmt::Write as _;

use super::Report;
use crate::units::{ByteCount, ByteRate, format_duration};
use std::time::Duration;

/// The report as a page; no script, no outside resource.
pub fn render(report: &Report) -> String {
    let mut rows = String::new();
    for image in &report.images {
        let rate = match image.rate_bytes_per_second {
            0 => String::new(),
            rate => ByteRate(rate).to_string(),
        };
        let eta = image.eta_seconds.map(|eta| format_duration(Duration::from_secs(eta)));
        let note = image.error.as_deref().or(image.digest.as_deref()).unwrap_or("");
        // Writing to a String cannot fail.
        let _ = writeln!(
            rows,
            "<tr class=\"{state}\"><td>{name}<small>{note}</small></td><td>{state}</td>\
             <td><progress max=\"{total}\" value=\"{held}\"></progress></td>\
             <td>{held_text} / {total_text}</td><td>{rate}</td><td>{eta}</td></tr>",
            state = image.state,
            name = escape(&image.reference),
            note = escape(note),
            total = image.total_bytes.max(1),
            held = image.held_bytes,
            held_text = ByteCount(image.held_bytes),
            total_text = ByteCount(image.total_bytes),
            eta = eta.unwrap_or_default(),
        );
    }
    let name = escape(&report.name);
    let store = &report.store;
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"2\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name} - Moonlet</title><style>{STYLE}</style>\n<h1>{name}</h1>\
         <p>moonlet {version}, up {uptime}</p>\n<table><tr><th>image<th>state<th>progress<th>size\
         <th>rate<th>ETA</tr>\n{rows}</table>\n<p>Store: <progress max=\"{size_max}\" \
         value=\"{used}\"></progress> {used_text} of {size_max_text}, {blobs} blobs{life}.</p>\
         <p>Looking for bit rot: <progress max=\"{pass}\" value=\"{checked}\"></progress> \
         {passes} passes done, {rotten} rotten chunks.</p>\
         <p>Link: {received} received, {repeated} fetched twice.</p></html>\n",
        version = report.version,
        uptime = format_duration(Duration::from_secs(report.uptime_seconds)),
        size_max = store.size_max_bytes.max(1),
        used = store.used_bytes,
        used_text = ByteCount(store.used_bytes),
        size_max_text = ByteCount(store.size_max_bytes),
        blobs = store.blobs,
        life = store.life_years.map_or_else(String::new, |years| {
            format!(", {years:.1} years of flash left at the recent rate")
        }),
        pass = store.scrub.pass_bytes.max(1),
        checked = store.scrub.checked_bytes,
        passes = store.scrub.passes,
        rotten = store.scrub.rotten_chunks,
        received = ByteCount(report.link.received_bytes),
        repeated = ByteCount(report.link.repeated_bytes),
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            letter => escaped.push(letter),
        }
    }
    escaped
}

const STYLE: &str = "body{font:16px system-ui,sans-serif;margin:2rem auto;max-width:60rem;\
padding:0 1rem;color:#123}table{border-collapse:collapse;width:100%}td,th{text-align:left;\
padding:.4rem .6rem;border-bottom:1px solid #cde}small{display:block;color:#678;\
word-break:break-all}.failed td{background:#fee}.held td:nth-child(2){color:#070}\
progress{width:10rem}";

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_inject_markup() {
        assert_eq!(super::escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
