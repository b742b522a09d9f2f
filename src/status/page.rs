//! The page for people: one self-contained HTML document that reloads itself, without script or
//! outside resource, for a phone as for a screen, in the light and in the dark.

use std::fmt::Write as _;
use std::time::Duration;

use super::{ImageReport, Report, StoreReport};
use crate::units::{ByteCount, ByteRate, format_duration};

/// The report as a page.
pub fn render(report: &Report) -> String {
    let name = escape(&report.name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"{RELOAD_SECONDS}\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{name} - Moonlet</title><style>{STYLE}</style></head>\n\
         <body><h1>{name}</h1><p class=\"dim\">moonlet {}, up {}</p>\n",
        escape(&report.version),
        format_duration(Duration::from_secs(report.uptime_seconds)),
    );
    problems(&mut page, report);
    page += "<h2>Images</h2>\n";
    if report.images.is_empty() {
        page += "<p>No images are desired: add an [[image]] to the configuration.</p>\n";
    }
    for one in &report.images {
        image(&mut page, one);
    }
    store(&mut page, &report.store);
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        page,
        "<h2>Link</h2>\n<p>{} received, {} sent, {} fetched twice.</p>\n",
        ByteCount(report.link.received_bytes),
        ByteCount(report.link.sent_bytes),
        ByteCount(report.link.repeated_bytes),
    );
    for plan in report.link.day.iter().chain(&report.link.month) {
        page += &progress(plan.used_bytes, plan.max_bytes, "data plan used");
    }
    for (name, limit) in report.link.limits() {
        let _ = writeln!(page, "<p>{name}: {}</p>", escape(&limit));
    }
    page += "</body></html>\n";
    page
}

/// What is wrong with the satellite itself, first of all.
fn problems(page: &mut String, report: &Report) {
    let failed = report.images.iter().filter(|image| image.state == "failed").count();
    let corrupt = report.store.scrub.corrupt_chunks;
    if report.problems.is_empty() && failed == 0 && corrupt == 0 {
        *page += "<p class=\"good\">Nothing is wrong.</p>\n";
        return;
    }
    *page += "<ul class=\"bad\">";
    for problem in &report.problems {
        let (part, reason) = (escape(&problem.part), escape(&problem.reason));
        let _ = write!(page, "<li><b>{part}</b>: {reason}</li>");
    }
    if failed > 0 {
        let _ = write!(page, "<li><b>images</b>: {failed} of {} failed</li>", report.images.len());
    }
    if corrupt > 0 {
        let what = "are not served until they are fetched again";
        let _ = write!(page, "<li><b>store</b>: {corrupt} corrupt chunks {what}</li>");
    }
    *page += "</ul>\n";
}

fn image(page: &mut String, image: &ImageReport) {
    // A state may say more in parentheses than its first word.
    let class = escape(image.state.split(' ').next().unwrap_or_default());
    let size = match (image.held_bytes, image.total_bytes) {
        (held, total) if held == total => ByteCount(total).to_string(),
        (held, total) => format!("{} of {}", ByteCount(held), ByteCount(total)),
    };
    let rate = match image.rate_bytes_per_second {
        0 => String::new(),
        rate => format!(", {}", ByteRate(rate)),
    };
    let eta = image.eta_seconds.map(|eta| format_duration(Duration::from_secs(eta)));
    let eta = eta.map_or_else(String::new, |eta| format!(", {eta} left"));
    let _ = write!(
        page,
        "<section class=\"{class}\"><b>{}</b><span class=\"state\">{}</span>{}<span>{size}{rate}{eta}\
         </span>",
        escape(&image.reference),
        escape(&image.state),
        progress(image.held_bytes, image.total_bytes, &image.reference),
    );
    let digest = image.digest.as_deref().map(|digest| ("dim", digest.to_owned()));
    // To wait for the link is no failure.
    let error_class = if image.state == "waiting" { "dim" } else { "error" };
    let error = image.error.as_deref().map(|error| (error_class, error.to_owned()));
    let missing = image.missing.iter().map(|what| ("dim", format!("held without: {what}")));
    for (class, line) in error.into_iter().chain(missing).chain(digest) {
        let _ = write!(page, "<p class=\"{class}\">{}</p>", escape(&line));
    }
    *page += "</section>\n";
}

fn store(page: &mut String, store: &StoreReport) {
    let life = store.life_years.map_or_else(String::new, |years| match years {
        100.0.. => ", flash for 100 years or more at the recent rate".to_owned(),
        years => format!(", flash for {years:.1} years at the recent rate"),
    });
    let _ = writeln!(
        page,
        "<h2>Store</h2>\n<p>{} {} of {} used, {} blobs, {} being downloaded{life}.</p>",
        progress(store.used_bytes, store.size_max_bytes, "store in use"),
        ByteCount(store.used_bytes),
        ByteCount(store.size_max_bytes),
        store.blobs,
        store.partial_blobs,
    );
    let scrub = &store.scrub;
    let _ = writeln!(
        page,
        "<p>{} Scrub: {} of {} read in this pass, {} passes done, {} corrupt chunks.</p>",
        progress(scrub.checked_bytes, scrub.pass_bytes, "scrub"),
        ByteCount(scrub.checked_bytes),
        ByteCount(scrub.pass_bytes),
        scrub.passes,
        scrub.corrupt_chunks,
    );
}

fn progress(value: u64, max: u64, label: &str) -> String {
    let (label, max) = (escape(label), max.max(1));
    format!("<progress aria-label=\"{label}\" max=\"{max}\" value=\"{value}\"></progress>")
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

const RELOAD_SECONDS: u32 = 2;
/// Long names and digests break anywhere; an image is a row where there is room, else a card.
const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1b2733;--dim:#57677a;--line:#d5dde6;--back:#fff;\
--good:#0a6b2d;--bad:#a8161c;--bad-back:#fdecec;--bar:#2166c4}\
@media(prefers-color-scheme:dark){:root{--text:#e3e9ef;--dim:#9aa9b8;--line:#33404d;\
--back:#12181f;--good:#5fd08a;--bad:#ff8f8f;--bad-back:#3a1a1d;--bar:#6ea8ff}}\
*{box-sizing:border-box}\
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:64rem;padding:1rem;\
color:var(--text);background:var(--back);overflow-wrap:anywhere}\
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}p{margin:.3rem 0}\
.dim{color:var(--dim)}.good,.held .state{color:var(--good)}\
.failed .state,.error{color:var(--bad)}\
.bad{background:var(--bad-back);color:var(--bad);border-radius:.4rem;margin:.8rem 0;\
padding:.6rem .6rem .6rem 1.6rem}\
section{border-top:1px solid var(--line);padding:.5rem 0;display:grid;gap:.1rem 1rem;\
grid-template-columns:minmax(0,1fr) auto 10rem 15rem;align-items:center}\
section p{grid-column:1/-1;font-size:.85rem;margin:0}\
progress{width:10rem;max-width:100%;height:.7rem;accent-color:var(--bar);vertical-align:middle}\
@media(max-width:48rem){section{grid-template-columns:auto minmax(0,1fr)}\
section b{grid-column:1/-1}section span:not(.state){text-align:right}\
section progress{order:1;grid-column:1/-1;width:100%}section p{order:2}}";

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_inject_markup() {
        assert_eq!(super::escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
