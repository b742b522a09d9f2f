//! A satellite that is asked to stop fetches nothing again.

use rustix::process::Signal;

use crate::registry::Image;
use crate::satellite::{Satellite, prepare, start_with, text, wait_until};
use crate::several::{Answer, Request, Several};

/// Three images of one layer each, which all stop coming after [`SENT_BYTES`].
fn stalling(name: &str, command: &str) -> (Several, Vec<Image>, Satellite) {
    let registry = Several::start();
    let images: Vec<Image> = (1..=3).map(|seed| Image::new(seed, LAYER_BYTES)).collect();
    for (image, tag) in images.iter().zip(TAGS) {
        registry.push(tag, image);
    }
    registry.oddity(|request, truth| {
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

fn goes_on_where_it_was(registry: &Several, mut satellite: Satellite) {
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
    goes_on_where_it_was(&registry, satellite);
}

#[test]
fn so_does_an_interrupted_sync() {
    let (registry, _, mut satellite) = stalling("interrupt", "sync");
    assert_eq!(satellite.stop(Signal::INT), Some(1), "{}", satellite.log());
    goes_on_where_it_was(&registry, satellite);
}

#[test]
fn a_stop_ends_a_wait_for_a_registry() {
    let registry = Several::start();
    registry.push("1", &Image::new(1, 300_000));
    registry.oddity(|_, _| Some(Answer::status(503)));
    let mut satellite =
        start_with("backoff", "1s", &[("registry.test", &url(&registry))], &REFERENCES);
    satellite.await_line("trying again in");
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
    assert!(!satellite.log().contains("ERROR"), "{}", satellite.log());
}

fn url(registry: &Several) -> String {
    format!("url = \"{}\"", registry.url())
}

const TAGS: [&str; 3] = ["1", "2", "3"];
const REFERENCES: [&str; 3] = ["registry.test/app:1", "registry.test/app:2", "registry.test/app:3"];
const LAYER_BYTES: usize = 3_000_000;
/// Less than makes a satellite record how far it is.
const SENT_BYTES: usize = 700_000;
const UNIT_BYTES: usize = 4096;
