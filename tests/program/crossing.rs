//! Where clients' requests meet the rest: a link with windows or a data plan, images that came from
//! files, and what a registry says of one thing only.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moonlet::oci::Digest;
use serde_json::Value;

use crate::files::{layout, pack};
use crate::many_images::{Answer, ManyImages};
use crate::registry::{Fault, Image, Registry, Show};
use crate::satellite::{Satellite, get, prepare, start_with, text, wait_until};

/// A configuration of a registry that clients' misses are fetched from, over a link with `link`.
fn config(directory: &Path, registry: &ManyImages, link: &str, images: &[&str]) -> String {
    let lines = format!("url = \"{}\"\npull_through = true\n[link]\n{link}", registry.url());
    text(directory, "1s", &[("registry.test", &lines)], images)
}

/// A satellite with that configuration.
fn over(name: &str, registry: &ManyImages, link: &str, images: &[&str]) -> Satellite {
    let mut satellite = prepare(name, |directory| config(directory, registry, link, images));
    satellite.start_again();
    satellite
}

/// The local time of the programs here is noon.
const CLOSED: &str = "windows = \"18:00-06:00\"";
const OPEN: &str = "windows = \"06:00-18:00\"";
const TAG: &str = "/v2/app/manifests/1";

fn blob_path(bytes: &[u8]) -> String {
    format!("/v2/app/blobs/{}", Digest::sha256(bytes))
}

fn status_of(satellite: &Satellite) -> Value {
    let log = satellite.log();
    let mut lines = log.lines().filter(|line| line.contains("status, metrics and health on "));
    let admin = lines.next_back().unwrap().rsplit(' ').next().unwrap();
    serde_json::from_slice(&get(admin, "/status", "").1).unwrap()
}

#[test]
fn a_window_that_opens_lets_clients_through_at_once() {
    let registry = ManyImages::start();
    let image = Image::new(1, 300_000);
    registry.push("1", &image);
    let satellite = over("crossing-window", &registry, CLOSED, &[]);
    for path in [TAG.to_owned(), blob_path(&image.layer)] {
        let (status, body) = satellite.get(&path);
        let body = String::from_utf8_lossy(&body);
        assert!(status == 503 && body.contains("waits for the window until 18:00"), "{body}");
    }
    assert_eq!(registry.count("GET", ""), 0, "nothing of an image comes");
    satellite.reload(&config(&satellite.directory, &registry, OPEN, &[]));
    let deadline = Instant::now() + Duration::from_secs(10);
    while satellite.get(TAG) != (200, image.manifest.clone()) {
        assert!(Instant::now() < deadline, "refused yet: {}", satellite.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(satellite.get(&blob_path(&image.layer)) == (200, image.layer.clone()));
}

#[test]
fn what_is_urgent_comes_outside_the_windows_long_manifests_too() {
    let registry = ManyImages::start();
    let mut image = Image::new(1, 300_000);
    // Such a one is written to flash as it comes.
    image.manifest.resize(100_000, b' ');
    registry.push("1", &image);
    let link = format!("{CLOSED}\nurgent = true");
    let satellite = over("crossing-urgent", &registry, &link, &["registry.test/app:1"]);
    satellite.await_line("waits for the window until 18:00");
    assert!(satellite.get("/v2/app/manifests/1?ns=registry.test").0 == 200, "{}", satellite.log());
    assert!(satellite.get(&blob_path(&image.layer)) == (200, image.layer.clone()));
}

#[test]
fn no_client_moves_a_tag_that_came_from_a_file() {
    let registry = ManyImages::start();
    let (image, moved) = (Image::new(1, 300_000), Image::new(2, 300_000));
    registry.push("1", &moved);
    let lines = format!("url = \"{}\"\npull_through = true\ntag_ttl = \"1s\"", registry.url());
    let mut satellite = prepare("crossing-import", |directory| {
        text(directory, "1s", &[("registry.test", &lines)], &[])
    });
    let file = satellite.directory.join("app.tar");
    std::fs::write(&file, pack(&layout(&image, "registry.test/app:1"))).unwrap();
    let (code, out, err) = satellite.run(&["image", "import", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{err}");
    satellite.start_again();
    let is_as_imported = |satellite: &Satellite| {
        assert_eq!(satellite.get(TAG), (200, image.manifest.clone()));
        assert!(satellite.get(&blob_path(&image.layer)) == (200, image.layer.clone()));
    };
    is_as_imported(&satellite);
    // Nor after a reload, and passes.
    let more = text(&satellite.directory, "2s", &[("registry.test", &lines)], &[]);
    satellite.reload(&more);
    (0..3).for_each(|_| drop(satellite.await_line("sync: ")));
    is_as_imported(&satellite);
    assert_eq!(registry.count("HEAD", "/manifests/1"), 0, "{:?}", registry.asked());
}

#[test]
fn what_a_registry_says_of_one_thing_is_not_said_of_another() {
    let registry = ManyImages::start();
    let image = Image::new(1, 300_000);
    registry.push("1", &image);
    let lines = format!("url = \"{}\"\npull_through = true", registry.url());
    let satellite = start_with("crossing-kinds", "1s", &[("registry.test", &lines)], &[]);
    // A manifest's digest is no blob's here.
    assert_eq!(satellite.get(&blob_path(&image.manifest)).0, 404);
    let by_digest = format!("/v2/app/manifests/{}", Digest::sha256(&image.manifest));
    assert_eq!(satellite.get(&by_digest), (200, image.manifest.clone()));
    // One that wants a pause has said nothing of whatever else is asked for.
    registry.fault(|_, _| Some(Answer::status(404).with("Retry-After", 600)));
    assert_eq!(satellite.get("/v2/app/manifests/none").0, 404);
    registry.honest();
    assert_eq!(satellite.get(TAG).0, 503);
}

#[test]
fn a_short_blob_that_does_not_come_is_not_waited_for_for_ever() {
    let registry = ManyImages::start();
    let image = Image::new(1, 300_000);
    registry.push("1", &image);
    let config = Digest::sha256(&image.config).to_string();
    registry.fault(move |request, truth| {
        let stalls_at = request.is("GET", &config).then_some(10);
        Some(Answer { stalls_at, ..truth.clone() })
    });
    let lines = format!("url = \"{}\"\npull_through = true", registry.url());
    let satellite = start_with("crossing-stalls", "1s", &[("registry.test", &lines)], &[]);
    let begun = Instant::now();
    assert_eq!(satellite.get(&blob_path(&image.config)).0, 503);
    // Runtimes have as much patience as that.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// Of an image that is held, what accompanies it waits for the window, and goes on from where it
/// was.
#[test]
fn what_accompanies_an_image_waits_for_the_window() {
    let registry = ManyImages::start();
    let (image, signature) = (Image::new(1, 300_000), Image::new(2, 1099 * 4096));
    registry.push("1", &image);
    registry.push(&format!("{}.sig", Digest::sha256(&image.manifest).to_tag()), &signature);
    let late = Digest::sha256(&signature.layer).to_string();
    let gate = Arc::new(AtomicBool::new(false));
    let (shut, slow) = (Arc::clone(&gate), late.clone());
    registry.fault(move |request, _| {
        while request.is("GET", &slow)
            && request.range.as_ref().is_some_and(|range| range.start > 0)
            && !shut.load(Ordering::Relaxed)
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    });
    let images = ["registry.test/app:1"];
    let satellite = over("crossing-waits", &registry, OPEN, &images);
    registry.await_count("GET", &late, 2);
    satellite.reload(&config(&satellite.directory, &registry, CLOSED, &images));
    let is_closed = || status_of(&satellite)["link"]["window"]["open"] == false;
    wait_until(is_closed, || satellite.log());
    gate.store(true, Ordering::Relaxed);
    satellite.await_line("sync: 1 images held, 0 not; 1 wait");
    let image_status = &status_of(&satellite)["images"][0];
    assert_eq!(image_status["state"], "waiting", "{}", satellite.log());
    assert_eq!(image_status["error"], "waits for the window until 18:00");
    // Passes leave what has come.
    (0..2).for_each(|_| drop(satellite.await_line("sync: 1 images held, 0 not; 1 wait")));
    satellite.reload(&config(&satellite.directory, &registry, OPEN, &images));
    let digest = format!("/v2/app/manifests/{}", Digest::sha256(&signature.manifest));
    let is_there = || status_of(&satellite)["images"][0]["state"] == "held";
    wait_until(is_there, || satellite.log());
    assert_eq!(satellite.get(&digest), (200, signature.manifest.clone()));
    let from_start = registry.asked().into_iter().filter(|asked| {
        asked.is("GET", &late) && asked.range.as_ref().is_none_or(|range| range.start == 0)
    });
    assert_eq!(from_start.count(), 1, "it goes on where it was");
}

/// What is held stays held when the plan has no room to ask for news of it.
#[test]
fn an_image_that_is_held_is_held_when_the_plan_is_used_up() {
    let registry = ManyImages::start();
    // Of the plan less is left than a connection may take.
    let image = Image::new(1, 700_000);
    registry.push("1", &image);
    let images = ["registry.test/app:1"];
    let mut satellite = over("crossing-plan", &registry, "day_max = \"1MiB\"", &images);
    let waits = "sync: 1 images held, 0 not; 1 wait";
    satellite.await_line(waits);
    satellite.kill();
    satellite.start_again();
    satellite.await_line(waits);
    satellite.kill();
    let (code, err) = satellite.sync();
    assert_eq!(code, 0, "{err}");
}

/// The same through a proxy, which is not the cause.
#[test]
fn a_plan_that_is_used_up_is_no_fault_of_the_proxy() {
    let image = Image::new(1, 1_500_000);
    let proxy = Registry::start(Show { image, fault: Fault::None, tls: None });
    let link = format!("[link]\nday_max = \"1MiB\"\nproxy = \"http://{}\"", proxy.address);
    let upstream = format!("url = \"http://registry.test\"\n{link}");
    let upstreams = [("registry.test", upstream.as_str())];
    let satellite = start_with("crossing-proxy", "1s", &upstreams, &["registry.test/app:1"]);
    (0..3).for_each(|_| drop(satellite.await_line("sync: 0 images held, 1 not; 1 wait")));
    assert!(!satellite.log().contains("proxy for"), "{}", satellite.log());
}
