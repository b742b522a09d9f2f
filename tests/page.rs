//! The page for people, as a browser lays it out.
//!
//! Its size is looked at always; the rest needs Chromium. Headless Chromium makes no window
//! narrower than 500 pixels, so that the page is put into frames of the widths that matter, and a
//! script of the test measures in there: does anything stick out, can every text be read against
//! what is behind it. `PAGE_SHOTS=DIRECTORY` keeps pictures for people to look at.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "harness/mod.rs"]
#[allow(dead_code)]
mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Directory, find_program, missing};
use moonlet::status::{
    ImageReport, LinkReport, PlanReport, ProblemReport, Report, ScrubReport, StoreReport,
    WindowReport, render,
};

/// All that can go wrong at once, with names as long as they may be.
fn bad_day() -> Report {
    let digest = format!("sha256:{}", "5e".repeat(32));
    let long = format!("registry.{}.example.com:5000", "very-long-name".repeat(4));
    let image = |reference: &str, state: &str, held_bytes: u64, error: Option<&str>| ImageReport {
        reference: reference.to_owned(),
        state: state.to_owned(),
        digest: (state != "pending").then(|| digest.clone()),
        held_bytes,
        total_bytes: 734_003_200,
        rate_bytes_per_second: if state == "syncing" { 1_234_567 } else { 0 },
        eta_seconds: (state == "syncing").then_some(86_399),
        error: error.map(str::to_owned),
        missing: Vec::new(),
    };
    let path = "a".repeat(60);
    let failure = format!(
        "GET https://{long}/v2/{path}/manifests/1: 401: {}",
        "unauthorized:authentication-required".repeat(4)
    );
    let mut images = vec![
        image("docker.io/library/busybox:1.36", "held", 734_003_200, None),
        image("docker.io/library/alpine:3", "held (gone upstream)", 734_003_200, None),
        image(&format!("{long}/{path}/{path}:latest@{digest}"), "syncing", 300_000_000, None),
        image(&format!("{long}/{path}:1"), "failed", 0, Some(&failure)),
        image("ghcr.io/a/b:1", "waiting", 1 << 20, Some("waits for the window until 22:00")),
        image("quay.io/prometheus/node-exporter:v1.8.2", "pending", 0, None),
    ];
    images[0].missing.push(format!("a signature of {digest}"));
    let plan = |max_bytes: u64, until: &str| PlanReport {
        used_bytes: max_bytes / 3,
        max_bytes,
        until_unix_seconds: 1_796_000_000,
        until: until.to_owned(),
    };
    let problem = |part: &str, reason: &str| ProblemReport {
        part: part.to_owned(),
        reason: reason.to_owned(),
        vital: true,
    };
    Report {
        name: "gateway-17.building-4.plant-north.example.com".to_owned(),
        version: "0.1.0".to_owned(),
        uptime_seconds: 12_345_678,
        problems: vec![
            problem("listen on [2001:db8:1234:5678:9abc:def0:1234:5678]:8585", "not there"),
            problem("store", &format!("/dev/disk/by-partlabel/{path}: input/output error")),
        ],
        images,
        store: StoreReport {
            size_max_bytes: 4 << 30,
            used_bytes: 3 << 30,
            blobs: 12_345,
            cached_bytes: 1 << 20,
            partial_blobs: 3,
            programmed_bytes: 1 << 40,
            image_bytes: 1 << 39,
            copied_bytes: 1 << 20,
            erases_max: 7,
            erases_mean: 3,
            bad_segments: 1,
            programmed_bytes_per_day: Some(1 << 30),
            cycles_rated: 3000,
            life_years: Some(12.3),
            health: None,
            scrub: ScrubReport {
                checked_bytes: 1 << 30,
                pass_bytes: 3 << 30,
                passes: 12,
                corrupt_chunks: 2,
            },
        },
        link: LinkReport {
            received_bytes: 1 << 35,
            sent_bytes: 1 << 25,
            repeated_bytes: 1 << 20,
            day: Some(plan(200 << 20, "00:00")),
            month: Some(plan(5 << 30, "2026-12-15")),
            window: Some(WindowReport {
                open: false,
                until_unix_seconds: Some(1_796_000_000),
                until: "sat 22:00".to_owned(),
            }),
        },
    }
}

fn good_day() -> Report {
    let mut report = bad_day();
    report.problems.clear();
    report.images.truncate(1);
    report.images[0].missing.clear();
    report.store.scrub.corrupt_chunks = 0;
    report
}

#[test]
fn it_is_small_and_needs_nothing_but_itself() {
    for report in [bad_day(), good_day()] {
        let page = render(&report);
        assert!(page.len() < 16 << 10, "{} bytes", page.len());
        for outside in ["http://", "<script", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside} in {page}");
        }
        assert!(page.contains("Scrub: "), "{page}");
    }
    let page = render(&bad_day());
    let wrong = ["input/output error", "1 of 6 failed", "2 corrupt chunks", "401: unauthorized"];
    for what in wrong {
        assert!(page.contains(what), "{what} is not in {page}");
    }
    assert!(render(&good_day()).contains("Nothing is wrong."));
}

/// In each frame: what sticks out to the right, and the text of least contrast.
const MEASURE: &str = r#"
<pre id="found"></pre><script>
function part(c) { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 }
function light(c) { return 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]) }
function rgb(text) { return text.match(/[\d.]+/g).map(Number) }
function behind(view, e) {
  for (; e; e = e.parentElement) {
    const c = rgb(view.getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c;
  }
  return [255, 255, 255];
}
onload = () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const view = frame.contentWindow, page = frame.contentDocument;
    let contrast = 21, wide = [], texts = 0;
    for (const e of page.body.querySelectorAll("*")) {
      const box = e.getBoundingClientRect();
      if (box.right > frame.clientWidth + 0.5 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
        wide.push(e.tagName + "." + e.className);
      if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
      texts++;
      const a = light(rgb(view.getComputedStyle(e).color)), b = light(behind(view, e));
      contrast = Math.min(contrast, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    }
    const root = page.documentElement;
    if (root.scrollWidth > root.clientWidth) wide.push("page " + root.scrollWidth);
    const dark = light(behind(view, page.body)) < 0.5 ? "dark" : "light";
    document.getElementById("found").textContent +=
      `${frame.clientWidth} ${dark} texts=${texts} contrast=${contrast.toFixed(2)} wide=[${wide}]\n`;
  }
};
</script>"#;

#[test]
fn it_is_readable_on_a_phone_and_in_the_dark() {
    if missing("it_is_readable_on_a_phone_and_in_the_dark", &["chromium"]) {
        return;
    }
    let chromium = find_program("chromium").unwrap();
    let files = Directory::new("page");
    let directory = files.path();
    let shots = std::env::var_os("PAGE_SHOTS").map(PathBuf::from);
    // Without the reload, which would come in the middle of a measurement.
    let page = |report: &Report| render(report).replacen("http-equiv", "data-was", 1);
    let (bad, good) = (page(&bad_day()), page(&good_day()));
    for (scheme, number) in [("dark", 0), ("light", 1)] {
        let mut harness = String::from("<!doctype html><body style=\"margin:0\">");
        for (page, width) in [(&bad, 360), (&good, 360), (&bad, 1280)] {
            let text = page.replace('&', "&amp;").replace('"', "&quot;");
            let style = format!("width:{width}px;height:1200px;border:0;display:block");
            harness += &format!("<iframe style=\"{style}\" srcdoc=\"{text}\"></iframe>");
        }
        harness += MEASURE;
        let file = directory.join(format!("{scheme}.html"));
        std::fs::write(&file, harness).unwrap();
        let found = browse(&chromium, directory, &file, number, &["--dump-dom"]);
        let lines = found.split("<pre id=\"found\">").nth(1).and_then(|f| f.split("</pre>").next());
        let lines: Vec<&str> = lines.unwrap_or_default().lines().collect();
        assert_eq!(lines.len(), 3, "{found}");
        for line in lines {
            assert!(line.contains(scheme), "{scheme} was asked for: {line}");
            assert!(line.contains("wide=[]"), "something is too wide: {line}");
            let contrast = line.split("contrast=").nth(1).unwrap().split(' ').next().unwrap();
            assert!(contrast.parse::<f64>().unwrap() >= CONTRAST_MIN, "hard to read: {line}");
            assert!(!line.contains("texts=0"), "{line}");
        }
        if let Some(shots) = &shots {
            let shot = shots.join(format!("page-{scheme}.png"));
            let shot = format!("--screenshot={}", shot.display());
            browse(&chromium, directory, &file, number, &[&shot, "--window-size=1300,3700"]);
        }
    }
}

/// Shows `file` in a browser that knows nothing; returns what it prints.
fn browse(chromium: &Path, directory: &Path, file: &Path, scheme: u32, options: &[&str]) -> String {
    let profile = directory.join("profile");
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(options)
        .arg(file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", chromium.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// WCAG 2.2, 1.4.3.
const CONTRAST_MIN: f64 = 4.5;
