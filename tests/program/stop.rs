//! A satellite that is asked to stop fetches nothing again.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{as_root, missing};
use crate::many_images::{Answer, ManyImages, Request};
use crate::registry::Image;
use crate::satellite::{Satellite, prepare, start_with, text, wait_until};

/// Three images of one layer each, which all stop coming after [`SENT_BYTES`].
fn stalling(name: &str, command: &str) -> (ManyImages, Vec<Image>, Satellite) {
    let registry = ManyImages::start();
    let images: Vec<Image> = (1..=3).map(|seed| Image::new(seed, LAYER_BYTES)).collect();
    for (image, tag) in images.iter().zip(TAGS) {
        registry.push(tag, image);
    }
    registry.fault(|request, truth| {
        let range = request.range.clone().filter(|range| range.contains(&SENT_BYTES))?;
        Some(Answer { stalls_at: Some(SENT_BYTES - range.start), ..truth.clone() })
    });
    let url = url(&registry);
    let upstreams = [("registry.test", url.as_str())];
    let mut satellite = prepare(name, |directory| text(directory, "1s", &upstreams, &REFERENCES));
    satellite.spawn(command);
    let log = satellite.directory.join("store/log");
    for image in &images {
        // The last whole unit that was sent.
        let at = SENT_BYTES / UNIT_BYTES * UNIT_BYTES - 64;
        let bytes = &image.layer[at..at + 64];
        wait_until(
            || std::fs::read(&log).is_ok_and(|log| log.windows(64).any(|window| window == bytes)),
            || format!("what was sent of a layer is not on flash:\n{}", satellite.log()),
        );
    }
    (registry, images, satellite)
}

fn goes_on_where_it_was(registry: &ManyImages, mut satellite: Satellite) {
    registry.honest();
    registry.forget();
    satellite.start_again();
    (0..3).for_each(|_| drop(satellite.await_line("held at")));
    let asked = registry.asked();
    let first = |path: &str| {
        let of = |request: &&Request| request.path.contains(path) && request.range.is_some();
        asked.iter().find(of).and_then(|request| request.range.clone()).map(|range| range.start)
    };
    let layers: std::collections::BTreeSet<&str> =
        asked.iter().filter(|request| request.range.is_some()).map(|r| r.path.as_str()).collect();
    assert_eq!(layers.len(), 3, "{asked:?}");
    for path in layers {
        let start = first(path).unwrap();
        assert!(start <= SENT_BYTES && start + UNIT_BYTES > SENT_BYTES, "{path} from {start}");
    }
}

#[test]
fn a_stop_suspends_every_download() {
    let (registry, _, mut satellite) = stalling("stop", "run");
    assert_eq!(satellite.stop(Signal::TERM), Some(0), "{}", satellite.log());
    if was_late(&satellite) {
        return;
    }
    goes_on_where_it_was(&registry, satellite);
}

/// As a device is switched off: what is under way is written, recorded and synced, in this order,
/// and the process ends by itself before a service manager would kill it.
#[test]
fn a_stop_in_the_middle_of_a_download_leaves_nothing_that_is_not_synced() {
    // Who may look at a process that is not its child.
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let is_open = scope.map_or(true, |scope| scope.trim() == "0");
    let needed: &[&str] = if is_open { &["strace"] } else { &["strace", "root"] };
    if missing("a stop syncs", needed) {
        return;
    }
    let registry = ManyImages::start();
    let image = Image::new(1, LAYER_BYTES);
    registry.push("1", &image);
    let upstream = url(&registry);
    let slowly = "[link]\nrate_max = \"32KiB/s\"\n";
    let mut satellite = prepare("stop-synced", |directory| {
        text(directory, "1s", &[("registry.test", &upstream)], &REFERENCES[..1]) + slowly
    });
    satellite.start_again();
    let trace = satellite.directory.join("trace");
    let mut command = if is_open { Command::new("strace") } else { as_root("strace") };
    let mut strace = command
        .args([
            "-f",
            "-y",
            "-s",
            "0",
            "-e",
            "trace=pwrite64,pwritev,pwritev2,fdatasync,fsync",
            "-o",
        ])
        .arg(&trace)
        .args(["-p", &satellite.pid().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // From here on bytes come, are written, and are seen to be.
    let progress = || satellite.metric("moonlet_fetch_body_bytes_total");
    wait_until(
        || std::fs::read_to_string(&trace).is_ok_and(|trace| trace.contains("pwrite")),
        || format!("strace sees no write:\n{}", satellite.log()),
    );
    let there = progress();
    wait_until(|| progress() > there, || "the download does not go on".to_owned());
    assert!(progress() < LAYER_BYTES as u64, "the download is over");
    let fetched = usize::try_from(progress()).unwrap();
    let begun = Instant::now();
    assert_eq!(satellite.stop(Signal::TERM), Some(0), "{}", satellite.log());
    let took = begun.elapsed();
    strace.wait().unwrap();
    let trace = std::fs::read_to_string(&trace).unwrap();
    let calls: Vec<&str> = trace.lines().filter(|line| !line.contains("resumed>")).collect();
    let signal = calls.iter().position(|call| call.contains("--- SIGTERM")).unwrap();
    let calls: Vec<&str> =
        calls[signal..].iter().filter(|call| call.contains("store/log>")).copied().collect();
    // A record is written, and once more so that it is synced.
    let is_record = |call: &str| call.contains("DSYNC");
    let recorded = calls.iter().position(|call| is_record(call));
    let recorded = recorded.unwrap_or_else(|| panic!("nothing was recorded:\n{trace}"));
    let synced = calls.iter().position(|call| call.contains("fdatasync"));
    assert!(
        synced.is_some_and(|synced| synced < recorded),
        "recorded before it is there: {calls:?}"
    );
    for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.contains("pwrite")) {
        let offset = offset_of(call);
        let is_synced = |later: &&str| {
            later.contains("fdatasync") || is_record(later) && offset_of(later) == offset
        };
        assert!(calls[at..].iter().any(is_synced), "not synced: {call} of {calls:?}");
    }
    let what = "stopped in the middle of a download";
    let _ = writeln!(std::io::stderr(), "{what} in {} ms", took.as_millis());
    assert!(took < STOP_MAX, "{took:?}");
    if was_late(&satellite) {
        return;
    }
    registry.forget();
    let file = satellite.directory.join("moonlet.toml");
    let quickly = std::fs::read_to_string(&file).unwrap().replace("32KiB", "64MiB");
    std::fs::write(&file, quickly).unwrap();
    satellite.start_again();
    satellite.await_line("held at");
    let asked = registry.asked();
    let again = asked.iter().find_map(|request| request.range.clone()).unwrap();
    // Manifests count as fetched, and of the last unit what fills no page.
    assert!(again.start + SMALL_BYTES > fetched, "from {} of {fetched}: {asked:?}", again.start);
}

/// Whether the disk here took longer than a stop waits for.
fn was_late(satellite: &Satellite) -> bool {
    let is_late = satellite.log().contains("flash is slow: downloads go on");
    if is_late {
        // Not by println!, which is seen of failed tests only.
        let what = "a stop suspends downloads: needs a disk that syncs within 1.5 s";
        let _ = writeln!(std::io::stderr(), "SKIPPED {what}");
    }
    is_late
}

#[test]
fn so_does_an_interrupted_sync() {
    let (registry, _, mut satellite) = stalling("interrupt", "sync");
    assert_eq!(satellite.stop(Signal::INT), Some(1), "{}", satellite.log());
    goes_on_where_it_was(&registry, satellite);
}

#[test]
fn a_stop_ends_a_wait_for_a_registry() {
    let registry = ManyImages::start();
    registry.push("1", &Image::new(1, 300_000));
    registry.fault(|_, _| Some(Answer::status(503)));
    let mut satellite =
        start_with("backoff", "1s", &[("registry.test", &url(&registry))], &REFERENCES);
    satellite.await_line("trying again in");
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
    assert!(!satellite.log().contains("ERROR"), "{}", satellite.log());
}

/// Of `pwrite64(13</log>, ""..., 4096, 12288) = 4096` or of
/// `pwritev2(13</log>, [...], 1, 12288, RWF_DSYNC) = 4096`: 12288.
fn offset_of(call: &str) -> u64 {
    let words = call.rsplit(", ").map(|word| word.split(')').next().unwrap());
    words.filter_map(|word| word.parse().ok()).next().unwrap()
}

fn url(registry: &ManyImages) -> String {
    format!("url = \"{}\"", registry.url())
}

const TAGS: [&str; 3] = ["1", "2", "3"];
const REFERENCES: [&str; 3] = ["registry.test/app:1", "registry.test/app:2", "registry.test/app:3"];
const LAYER_BYTES: usize = 3_000_000;
/// Less than makes a satellite record how far it is.
const SENT_BYTES: usize = 700_000;
const UNIT_BYTES: usize = 4096;
const SMALL_BYTES: usize = 16_384;
/// The time the service managers allow, in `boards/service`.
const STOP_MAX: Duration = Duration::from_secs(20);
