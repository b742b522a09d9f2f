//! What is wrong with one image or one registry is not the others' trouble.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use moonlet::oci::Digest;
use serde_json::Value;

use crate::many_images::{Answer, ManyImages};
use crate::registry::Image;
use crate::satellite::{get, start_with, text, wait_until};

#[test]
fn a_registry_that_does_not_answer_holds_up_no_other() {
    let registry = ManyImages::start();
    registry.push("1", &Image::new(1, 300_000));
    // Connections wait in its backlog.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead_url = format!("url = \"http://{}\"", dead.local_addr().unwrap());
    let upstreams = [("dead.test", dead_url.as_str()), ("registry.test", &url(&registry))];
    let images = ["dead.test/a:1", "dead.test/b:1", "registry.test/app:1"];
    let satellite = start_with("dead", "1s", &upstreams, &images);
    satellite.await_line("registry.test/app:1: held at");
    let log = satellite.log();
    assert!(!log.contains("dead.test"), "it was waited for:\n{log}");
}

#[test]
fn a_registry_that_does_not_answer_is_asked_by_one_image() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("url = \"http://127.0.0.1:{port}\"");
    let images = ["dead.test/a:1", "dead.test/b:1", "dead.test/c:1"];
    let satellite = start_with("refused", "1h", &[("dead.test", &url)], &images);
    satellite.await_line("dead.test: does not answer, 2 other images wait for it");
    satellite.await_error("dead.test/c:1: waits for dead.test, which does not answer: ");
    let log = satellite.log();
    assert!(!log.contains("dead.test/b/manifests"), "it was asked for another image:\n{log}");
}

#[test]
fn what_is_held_is_not_failed_without_its_registry() {
    let registry = ManyImages::start();
    registry.push("1", &Image::new(1, 300_000));
    let images = ["registry.test/app:1", "registry.test/app:2"];
    let url = url(&registry);
    let mut satellite = start_with("away", "1s", &[("registry.test", &url)], &images);
    satellite.await_line("registry.test/app:1: held at");
    satellite.kill();
    registry.fault(|_, _| Some(Answer::status(503)));
    satellite.start_again();
    let admin = satellite.address_of("status, metrics and health");
    let status = || serde_json::from_slice::<Value>(&get(&admin, "/status", "").1).unwrap();
    let is_state = |index: usize, state| status()["images"][index]["state"] == state;
    let are_told = || is_state(0, "held (registry unavailable)") && is_state(1, "failed");
    wait_until(are_told, || status().to_string());
}

#[test]
fn a_long_pause_is_one_images_own() {
    let registry = ManyImages::start();
    registry.push("1", &Image::new(1, 300_000));
    registry.push("2", &Image::new(2, 300_000));
    registry.fault(|request, _| {
        let date = "Sun, 06 Nov 2094 08:49:37 GMT";
        let busy = Answer::status(429).with("Retry-After", date);
        request.path.contains("manifests/1").then_some(busy)
    });
    let images = ["registry.test/app:1", "registry.test/app:2"];
    let satellite = start_with("pause", "1s", &[("registry.test", &url(&registry))], &images);
    satellite.await_error("status 429 too many requests; not held yet; tried again in 1h00m");
    satellite.await_line("registry.test/app:2: held at");
    let heads = registry.count("HEAD", "manifests/2");
    registry.await_count("HEAD", "manifests/2", heads + 3);
    assert_eq!(registry.count("", "manifests/1") + registry.count("HEAD", "manifests/1"), 1);
}

/// A registry whose layers do not come to their end.
fn endless() -> ManyImages {
    let registry = ManyImages::start();
    registry.push("1", &Image::new(1, 300_000));
    registry.fault(|request, truth| {
        let is_layer = request.path.contains("/blobs/") && truth.body.len() > 100_000;
        is_layer.then(|| Answer { stalls_at: Some(100_000), ..truth.clone() })
    });
    registry
}

#[test]
fn a_download_that_takes_long_holds_up_no_poll() {
    let (slow, fast) = (endless(), ManyImages::start());
    fast.push("1", &Image::new(2, 300_000));
    let urls = [url(&slow), url(&fast)];
    let upstreams = [("slow.test", urls[0].as_str()), ("fast.test", urls[1].as_str())];
    let images = ["slow.test/app:1", "fast.test/app:1"];
    let satellite = start_with("slow", "1s", &upstreams, &images);
    satellite.await_line("fast.test/app:1: held at");
    fast.push("1", &Image::new(3, 300_000));
    satellite.await_line("fast.test/app:1: moved from");
    let log = satellite.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "it was waited for:\n{log}");
    assert_eq!((slow.count("GET", "blobs/"), slow.hung_up()), (2, 0), "it goes on:\n{log}");
    slow.honest();
    satellite.await_line("slow.test/app:1: held at");
}

#[test]
fn a_download_that_fails_is_reported_by_the_image_that_joined_it_again() {
    let registry = ManyImages::start();
    registry.push("1", &Image::new(1, 300_000));
    registry.fault(|request, truth| {
        let is_layer = request.path.contains("/blobs/") && truth.body.len() > 100_000;
        is_layer.then(|| {
            // Its attempts together take longer than a pass waits.
            std::thread::sleep(Duration::from_secs(3));
            Answer { status: 503, ..truth.clone() }
        })
    });
    let images = ["registry.test/app:1"];
    let satellite = start_with("again", "1s", &[("registry.test", &url(&registry))], &images);
    satellite.await_error("status 503");
    let asked = registry.count("GET", "blobs/");
    assert!(asked <= 1 + ATTEMPTS_MAX, "{asked} requests:\n{}", satellite.log());
}

#[test]
fn what_is_desired_now_does_not_wait_for_what_was() {
    let (slow, fast) = (endless(), ManyImages::start());
    fast.push("1", &Image::new(2, 300_000));
    let urls = [url(&slow), url(&fast)];
    let upstreams = [("slow.test", urls[0].as_str()), ("fast.test", urls[1].as_str())];
    let satellite = start_with("other", "1h", &upstreams, &["slow.test/app:1"]);
    slow.await_count("GET", "blobs/", 2);
    let begun = Instant::now();
    satellite.reload(&text(&satellite.directory, "1h", &upstreams, &["fast.test/app:1"]));
    satellite.await_line("fast.test/app:1: held at");
    // A pass that is only due waits ten seconds for its downloads.
    assert!(begun.elapsed() < Duration::from_secs(9), "{}", satellite.log());
    wait_until(|| slow.hung_up() == 1, || format!("it goes on:\n{}", satellite.log()));
    let log = satellite.log();
    assert!(!log.contains("ERROR") && !log.contains("trying again"), "{log}");
}

#[test]
fn an_image_that_is_gone_upstream_is_held_and_said_once() {
    let registry = ManyImages::start();
    let image = Image::new(1, 300_000);
    registry.push("1", &image);
    let images = ["registry.test/app:1"];
    let satellite = start_with("gone", "1s", &[("registry.test", &url(&registry))], &images);
    satellite.await_line("held at");
    registry.untag("1");
    satellite.await_line("gone upstream, what is held stays served: ");
    let asked = registry.count("HEAD", "manifests/1");
    registry.await_count("HEAD", "manifests/1", asked + 3);
    satellite.await_line("sync: 1 images held, 0 not");
    let log = satellite.log();
    assert!(log.matches("gone upstream").count() == 1 && !log.contains("ERROR"), "{log}");
    assert_eq!(satellite.get("/v2/app/manifests/1"), (200, image.manifest));
}

#[test]
fn without_a_digest_header_an_unchanged_image_costs_its_manifest() {
    let registry = ManyImages::start();
    let image = Image::new(1, 300_000);
    registry.push("1", &image);
    registry.fault(|request, truth| {
        let mut answer = truth.clone();
        answer.headers.retain(|(name, _)| *name != "Docker-Content-Digest");
        request.path.contains("manifests/").then_some(answer)
    });
    let images = ["registry.test/app:1"];
    let satellite = start_with("digest", "1s", &[("registry.test", &url(&registry))], &images);
    satellite.await_line("held at");
    satellite.await_line("sync: 1 images held");
    registry.forget();
    registry.await_count("GET", "manifests/1", 3);
    let others = registry.asked();
    let others: Vec<_> = others.iter().filter(|r| !r.is("GET", "app/manifests/1")).collect();
    assert!(others.is_empty(), "{others:?}");
    let moved = Image::new(2, 300_000);
    registry.push("1", &moved);
    let line = satellite.await_line("moved from");
    assert!(line.contains(&Digest::sha256(&moved.manifest).short()), "{line}");
}

/// Attempts at one download.
const ATTEMPTS_MAX: usize = 5;

fn url(registry: &ManyImages) -> String {
    format!("url = \"{}\"", registry.url())
}
