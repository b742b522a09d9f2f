//! Tables for a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use super::{HealthReport, ImageReport, Report, ScrubReport, StoreReport};
use crate::units::{ByteCount, ByteRate, format_duration};

/// The whole report: images with progress bars, then the store and the link in a line each.
pub fn draw(report: &Report) -> String {
    let mut text = format!(
        "{}: moonlet {}, up {}\n\n",
        report.name,
        report.version,
        format_duration(Duration::from_secs(report.uptime_seconds))
    );
    for problem in &report.problems {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "! {}: {}", problem.part, problem.reason);
    }
    if !report.problems.is_empty() {
        text.push('\n');
    }
    text += &draw_images(&report.images);
    let StoreReport { used_bytes, size_max_bytes, blobs, partial_blobs, life_years, .. } =
        report.store;
    let life = life_years.map_or_else(String::new, |left| format!(", life left {}", years(left)));
    let _ = writeln!(
        text,
        "\nstore  {} {} of {}, {blobs} blobs, {partial_blobs} under way{life}",
        bar(used_bytes, size_max_bytes),
        ByteCount(used_bytes),
        ByteCount(size_max_bytes),
    );
    text += &draw_scrub(&report.store.scrub);
    let _ = writeln!(
        text,
        "link   {} received, {} sent, {} fetched twice",
        ByteCount(report.link.received_bytes),
        ByteCount(report.link.sent_bytes),
        ByteCount(report.link.repeated_bytes),
    );
    for (name, limit) in report.link.limits() {
        let _ = writeln!(text, "{name:<6} {limit}");
    }
    text
}

/// A row an image, indented lines below for its error and for what is held without.
pub fn draw_images(images: &[ImageReport]) -> String {
    if images.is_empty() {
        return "no images are desired: add an [[image]] to the configuration\n".to_owned();
    }
    let longest = |text: fn(&ImageReport) -> &str| {
        images.iter().map(|image| text(image).chars().count()).max().unwrap_or(0)
    };
    let width = longest(|image| &image.reference);
    let states = longest(|image| &image.state).max(7);
    let mut text = format!(
        "{:width$}  {:states$}  {:12}  {:20}  {:>19}  {:>11}  {:>6}\n",
        "IMAGE", "STATE", "DIGEST", "PROGRESS", "SIZE", "RATE", "ETA"
    );
    for image in images {
        let digest = image.digest.as_deref().and_then(|digest| digest.split(':').nth(1));
        let size = if image.held_bytes == image.total_bytes {
            ByteCount(image.total_bytes).to_string()
        } else {
            format!("{} / {}", ByteCount(image.held_bytes), ByteCount(image.total_bytes))
        };
        let rate = match image.rate_bytes_per_second {
            0 => "-".to_owned(),
            rate => ByteRate(rate).to_string(),
        };
        let eta = image.eta_seconds.map(Duration::from_secs);
        let _ = writeln!(
            text,
            "{:width$}  {:states$}  {:12}  {}  {size:>19}  {rate:>11}  {:>6}",
            image.reference,
            image.state,
            digest.and_then(|hex| hex.get(..12)).unwrap_or("-"),
            bar(image.held_bytes, image.total_bytes),
            eta.map_or_else(|| "-".to_owned(), format_duration),
        );
        if let Some(error) = &image.error {
            let _ = writeln!(text, "  ! {error}");
        }
        for missing in &image.missing {
            let _ = writeln!(text, "  - held without: {missing}");
        }
    }
    text
}

/// The store's figures, a line each.
pub fn draw_store(store: &StoreReport) -> String {
    let amplification = match store.image_bytes {
        0 => "-".to_owned(),
        image => {
            let permille = u128::from(store.programmed_bytes) * 1000 / u128::from(image);
            format!("{}.{:03}", permille / 1000, permille % 1000)
        }
    };
    let mut rows = vec![
        ("capacity", ByteCount(store.size_max_bytes).to_string()),
        ("in use", ByteCount(store.used_bytes).to_string()),
        ("blobs held", store.blobs.to_string()),
        ("of them, not desired", ByteCount(store.cached_bytes).to_string()),
        ("blobs under way", store.partial_blobs.to_string()),
        ("image bytes written", ByteCount(store.image_bytes).to_string()),
        ("device bytes written", ByteCount(store.programmed_bytes).to_string()),
        ("device bytes / image byte", amplification),
        ("bytes copied", ByteCount(store.copied_bytes).to_string()),
        ("segment erases, mean / max", format!("{} / {}", store.erases_mean, store.erases_max)),
        ("segments out of use", store.bad_segments.to_string()),
    ];
    let after = |what: Option<String>| what.unwrap_or_else(|| "after a day".to_owned());
    let per_day = store.programmed_bytes_per_day.map(|bytes| ByteCount(bytes).to_string());
    rows.push(("written a day, of late", after(per_day)));
    rows.push(("life left at that rate", after(store.life_years.map(years))));
    rows.extend(health_rows(store.health.as_ref()));
    let rows = rows.iter().map(|(name, value)| format!("{name:<26} {value:>16}\n"));
    rows.collect::<String>() + &draw_scrub(&store.scrub)
}

fn years(years: f64) -> String {
    if years >= 100.0 { "100 years or more".to_owned() } else { format!("{years:.1} years") }
}

fn health_rows(health: Option<&HealthReport>) -> Vec<(&'static str, String)> {
    let Some(health) = health else { return Vec::new() };
    let used = health.life_used_percent.map(|percent| format!("up to {percent} %"));
    let rows = [
        ("device: life used", used),
        ("device: reserve blocks", health.reserve.clone()),
        ("device: bad blocks", health.bad_blocks.map(|count| count.to_string())),
        ("device: erases, max", health.erases_max.map(|count| count.to_string())),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// How far the search for bit rot is, in a line.
pub fn draw_scrub(scrub: &ScrubReport) -> String {
    let ScrubReport { checked_bytes, pass_bytes, passes, corrupt_chunks } = scrub;
    format!(
        "scrub  {} {} of {}, {passes} passes done, {corrupt_chunks} corrupt chunks\n",
        bar(*checked_bytes, *pass_bytes),
        ByteCount(*checked_bytes),
        ByteCount(*pass_bytes),
    )
}

/// Twenty cells, filled in eighths.
pub fn bar(part: u64, whole: u64) -> String {
    let filled = match whole {
        0 => 0,
        whole => u128::from(part.min(whole)) * 8 * CELLS / u128::from(whole),
    };
    let cells = (0..CELLS).map(|cell| {
        // U+2588 is the full block, and each code point after it an eighth less.
        match u32::try_from(filled.saturating_sub(cell * 8).min(8)) {
            Ok(eighths @ 1..) => char::from_u32(0x2590 - eighths).unwrap_or('#'),
            _ => ' ',
        }
    });
    cells.collect()
}

const CELLS: u128 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_up() {
        assert_eq!(bar(0, 100), " ".repeat(20));
        assert_eq!(bar(100, 100), "\u{2588}".repeat(20));
        assert_eq!(bar(5, 0), " ".repeat(20));
        assert_eq!(bar(53, 100).trim_end(), format!("{}\u{258c}", "\u{2588}".repeat(10)));
        assert_eq!(bar(200, 100).chars().count(), 20);
    }

    #[test]
    fn a_syncing_image_has_rate_and_eta() {
        let image = ImageReport {
            reference: "docker.io/library/busybox:1.36".to_owned(),
            state: "syncing".to_owned(),
            digest: None,
            held_bytes: 1 << 20,
            total_bytes: 3 << 20,
            rate_bytes_per_second: 1 << 18,
            eta_seconds: Some(8),
            error: Some("link down".to_owned()),
            missing: vec!["a signature".to_owned()],
        };
        let text = draw_images(&[image]);
        assert!(text.contains("1 MiB / 3 MiB"), "{text}");
        assert!(text.contains("256 KiB/s"), "{text}");
        let below = "      8s\n  ! link down\n  - held without: a signature\n";
        assert!(text.contains(below), "{text}");
    }
}
