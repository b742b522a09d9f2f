//! Charts of the last days, as SVG within the page: no script, no outside asset.
//!
//! A chart is bars over time, one path for each colour. All text is beside it, in the page's own type,
//! so that it can be read on a phone, where the picture is squeezed and not scaled; the colours are
//! the page's, in the dark too. What it shows is said in words for those who do not see it, and a
//! table has the figures by day.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use super::view::at;
use crate::ground::model::{DAY, HOUR, HOURLY_DAYS, KEPT_DAYS, MERGED, Sample};
use crate::ground::store::{FleetSample, Satellite};
use crate::units::ByteCount;

/// A span of time that ends now.
#[derive(Clone, Copy)]
pub struct Span {
    pub from: i64,
    pub until: i64,
}

impl Span {
    /// Of so many days, whole hours.
    pub fn of_days(days: i64, now: i64) -> Self {
        let until = now - now.rem_euclid(HOUR) + HOUR;
        Self { from: until - days * DAY, until }
    }

    fn days(self) -> i64 {
        (self.until - self.from) / DAY
    }
}

/// Bars of one colour: where each begins, how wide it is, and from where to where it goes up.
struct Bars {
    class: &'static str,
    path: String,
}

impl Bars {
    fn new(class: &'static str) -> Self {
        Self { class, path: String::new() }
    }

    /// `bottom` and `top` are parts of the chart's height.
    fn add(&mut self, span: Span, (at, micros): (i64, i64), (bottom, top): (f64, f64)) {
        let start = at.max(span.from);
        let end = at.saturating_add(micros).min(span.until);
        if end <= start || top <= bottom {
            return;
        }
        let hours = |micros: i64| ratio(micros, HOUR);
        let (x, width) = (hours(start - span.from), hours(end - start));
        let (low, high) = (HEIGHT * (1.0 - bottom.min(1.0)), HEIGHT * (top.min(1.0) - bottom));
        // What is not nothing is seen.
        let high = high.max(HEIGHT_LEAST);
        let _ = write!(self.path, "M{x:.1} {low:.1}h{width:.1}v-{high:.1}h-{width:.1}z");
    }
}

/// A chart with what stands around it. `most` is what its top means.
fn chart(span: Span, title: &str, most: &str, words: &str, bars: &[Bars]) -> Markup {
    let hours = (span.until - span.from) / HOUR;
    let label = format!("{title}, last {} days: {words}", span.days());
    html! {
        figure.chart {
            figcaption { strong { (title) } " " span.muted { (words) } }
            div.most aria-hidden="true" { (most) }
            svg role="img" aria-label=(label) preserveAspectRatio="none" shape-rendering="crispEdges"
                viewBox={ "0 0 " (hours) " " (HEIGHT) } {
                @for bars in bars {
                    @if !bars.path.is_empty() {
                        // Of numbers alone.
                        path class=(bars.class) d=(PreEscaped(&bars.path)) {}
                    }
                }
            }
            div.axis aria-hidden="true" { span { (day(span.from)) } span { "now" } }
        }
    }
}

/// All charts of a satellite.
pub fn satellite(
    satellite: &Satellite,
    samples: &[Sample],
    days: i64,
    size: Option<u64>,
    now: i64,
) -> Markup {
    let (name, span) = (&satellite.name, Span::of_days(days, now));
    // In a month an hour is narrower than a pixel.
    let merged = if days == HOURLY_DAYS { samples.to_vec() } else { merged(samples) };
    let samples = merged.as_slice();
    let link = |other: i64| {
        html! {
            a href={ "/console/satellites/" (name) "?days=" (other) "#history" }
                aria-current=[(other == days).then_some("true")] { (other) " days" }
        }
    };
    html! {
        h2 id="history" { "History" }
        @if samples.is_empty() {
            p.muted { "Nothing yet: the first figures come with its first report." }
        } @else {
            ul.states { li { (link(HOURLY_DAYS)) } li { (link(KEPT_DAYS)) } }
            div.charts {
                (connection(span, samples, (satellite.created_at, now)))
                (images(span, samples))
                (bytes(span, "Received", samples, |sample| sample.received_bytes))
                (storage(span, samples, size))
                (bytes(span, "Written to flash", samples, |sample| sample.written_bytes))
            }
            @if let Some(forecast) = forecast(samples) { p { (forecast) } }
            (by_day(samples))
        }
    }
}

/// Hours as the six that they are of.
fn merged(samples: &[Sample]) -> Vec<Sample> {
    let mut merged: Vec<Sample> = Vec::new();
    for sample in samples {
        let at = sample.at - sample.at.rem_euclid(MERGED);
        match merged.last_mut().filter(|last| last.at == at) {
            Some(last) => last.merge(sample),
            None => merged.push(Sample { at, micros: MERGED, ..sample.clone() }),
        }
    }
    merged
}

/// `known` is since when and until when it could be connected.
fn connection(span: Span, samples: &[Sample], known: (i64, i64)) -> Markup {
    let (_, now) = known;
    let mut bars = [Bars::new("good"), Bars::new("wait"), Bars::new("bad")];
    for sample in samples {
        // The last one is not over.
        let top = ratio(sample.online_micros, sample.micros.min(now - sample.at));
        let rank = usize::try_from(sample.health).unwrap_or(0);
        if let Some(bars) = bars.get_mut(rank) {
            bars.add(span, (sample.at, sample.micros), (0.0, top));
        }
    }
    let unwell = samples.iter().filter(|sample| sample.health > 0).count();
    let words = match unwell {
        0 => format!("connected {} of the time, healthy", online(samples, span, known)),
        _ => format!(
            "connected {} of the time, unwell in {unwell} of {} spans",
            online(samples, span, known),
            samples.len()
        ),
    };
    chart(span, "Connection and health", "100 %", &words, &bars)
}

fn images(span: Span, samples: &[Sample]) -> Markup {
    let most = samples.iter().map(|sample| sample.images).max().unwrap_or(0);
    let mut bars = [Bars::new("good"), Bars::new("bad")];
    for sample in samples {
        let place = (sample.at, sample.micros);
        let held = ratio(sample.images - sample.behind, most);
        let [good, bad] = &mut bars;
        good.add(span, place, (0.0, held));
        bad.add(span, place, (held, ratio(sample.images, most)));
    }
    let behind = samples.iter().map(|sample| sample.behind).max().unwrap_or(0);
    let words = match behind {
        0 => format!("all of up to {most} in sync"),
        _ => format!("up to {behind} of {most} behind"),
    };
    chart(span, "Images in sync", &most.to_string(), &words, &bars)
}

/// Nothing of a satellite that does not say.
fn bytes(span: Span, title: &str, samples: &[Sample], of: fn(&Sample) -> Option<i64>) -> Markup {
    let known: Vec<(&Sample, i64)> =
        samples.iter().filter_map(|sample| Some((sample, of(sample)?))).collect();
    // A row of six hours is not six times as high as one of an hour.
    let hourly = |sample: &Sample, bytes: i64| bytes / (sample.micros / HOUR).max(1);
    let most = known.iter().map(|(sample, bytes)| hourly(sample, *bytes)).max();
    let Some(most) = most else { return html! {} };
    let mut bars = Bars::new("link");
    for (sample, bytes) in &known {
        let top = ratio(hourly(sample, *bytes), most);
        bars.add(span, (sample.at, sample.micros), (0.0, top));
    }
    let sum = known.iter().fold(0_i64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let words = format!("{} in all, at most {} an hour", count(sum), count(most));
    chart(span, title, &format!("{}/h", count(most)), &words, &[bars])
}

fn storage(span: Span, samples: &[Sample], size: Option<u64>) -> Markup {
    let largest = samples.iter().map(|sample| sample.storage_bytes).max().unwrap_or(0);
    let size = size.and_then(|size| i64::try_from(size).ok()).filter(|size| *size >= largest);
    let most = size.filter(|size| *size > 0).unwrap_or(largest);
    let mut bars = Bars::new("link");
    for sample in samples {
        let top = ratio(sample.storage_bytes, most);
        bars.add(span, (sample.at, sample.micros), (0.0, top));
    }
    let words = format!("at most {} of {}", count(largest), count(most));
    chart(span, "Storage in use", &count(most), &words, &[bars])
}

/// How long the flash lasts at the pace of these samples.
fn forecast(samples: &[Sample]) -> Option<String> {
    let mut worn = samples.iter().filter_map(|sample| Some((sample.at, sample.worn_percent()?)));
    let (since, first) = worn.next()?;
    let (until, last) = worn.next_back()?;
    if until - since < DAY || last < first {
        return None;
    }
    let days = (until - since) / DAY;
    let a_day = (last - first) / ratio(until - since, DAY);
    if a_day <= 0.0 {
        return Some(format!(
            "Flash: {last:.1} % of its rated life is used; no wear in {days} days."
        ));
    }
    let years = (100.0 - last).max(0.0) / a_day / 365.0;
    Some(format!(
        "Flash: {last:.1} % of its rated life is used; at the pace of these {days} days the rest \
         lasts {years:.1} years."
    ))
}

/// The figures, a row a day.
fn by_day(samples: &[Sample]) -> Markup {
    let mut days: Vec<Sample> = Vec::new();
    for sample in samples {
        let at = sample.at - sample.at.rem_euclid(DAY);
        match days.last_mut().filter(|day| day.at == at) {
            Some(day) => day.merge(sample),
            None => days.push(Sample { at, ..sample.clone() }),
        }
    }
    let or_none = |bytes: Option<i64>| bytes.map_or_else(|| "-".to_owned(), count);
    html! {
        details {
            summary { "Figures by day (UTC)" }
            div.scroll { table {
                thead { tr {
                    th { "Day" } th.number { "Received" } th.number.wide { "Written" }
                    th.number { "Storage" } th.number.wide { "Connected" }
                    th.number.wide { "Behind" } th { "Health" }
                } }
                tbody { @for sample in days.iter().rev() { tr {
                    td.word { (day(sample.at)) }
                    td.number { (or_none(sample.received_bytes)) }
                    td.number.wide { (or_none(sample.written_bytes)) }
                    td.number { (count(sample.storage_bytes)) }
                    td.number.wide { (sample.online_micros / HOUR) " h" }
                    td.number.wide { (sample.behind) " of " (sample.images) }
                    td.word { (sample.health_word()) }
                } } }
            } }
        }
    }
}

/// The fleet by connection; nothing before there are two hours.
pub fn fleet(samples: &[FleetSample], classes: [&'static str; 4], now: i64) -> Markup {
    let span = Span::of_days(HOURLY_DAYS, now);
    let [_, .., last] = samples else { return html! {} };
    let sum = |sample: &FleetSample| sample.connections.iter().sum::<i64>();
    let most = samples.iter().map(sum).max().unwrap_or(0);
    let mut bars = classes.map(Bars::new);
    for sample in samples {
        let mut low = 0;
        for (bars, satellites) in bars.iter_mut().zip(sample.connections) {
            let high = low + satellites;
            bars.add(span, (sample.at, HOUR), (ratio(low, most), ratio(high, most)));
            low = high;
        }
    }
    let online = |sample: &FleetSample| sample.connections.first().copied().unwrap_or(0);
    let least = samples.iter().map(online).min().unwrap_or(0);
    let words = format!("{} online now, {least} at least", online(last));
    chart(span, "Satellites", &most.to_string(), &words, &bars)
}

fn online(samples: &[Sample], span: Span, (since, now): (i64, i64)) -> String {
    let micros: i64 = samples.iter().map(|sample| sample.online_micros).sum();
    let first = samples.first().map_or(now, |first| first.at.max(span.from).max(since));
    let part = ratio(micros, (now - first).max(micros));
    format!("{:.0} %", part * 100.0)
}

fn day(micros: i64) -> String {
    at(micros).split('T').next().unwrap_or_default().to_owned()
}

fn count(bytes: i64) -> String {
    ByteCount(u64::try_from(bytes).unwrap_or(0)).to_string()
}

/// Good enough for a picture.
#[allow(clippy::cast_precision_loss)]
fn ratio(part: i64, whole: i64) -> f64 {
    if whole <= 0 { 0.0 } else { part as f64 / whole as f64 }
}

const HEIGHT: f64 = 100.0;
const HEIGHT_LEAST: f64 = 1.5;
