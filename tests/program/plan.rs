//! The data plan and the time windows, kept by the program that is built, counted where the bytes
//! are paid for: by what stands between it and the registry.

use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::relay::Relay;
use crate::registry::{Fault, Image, Registry, Show};
use crate::satellite::{Satellite, get, prepare, wait_until};

fn text(directory: &Path, registry: SocketAddr, link: &str) -> String {
    let store = directory.join("store");
    format!(
        "[serve]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = {store:?}\nsize_max = \"32MiB\"\n[sync]\npoll_interval = \"1s\"\n\
         [link]\n{link}\n[[upstream]]\nregistry = \"registry.test\"\nurl = \"http://{registry}\"\n\
         [[image]]\nreference = \"registry.test/app:1\"\n"
    )
}

/// Starts it once more; returns the address that it answers at.
fn run(satellite: &mut Satellite) -> String {
    satellite.spawn("run");
    satellite.address_of("status, metrics and health")
}

/// The status, once the image waits.
fn await_waiting(admin: &str) -> Value {
    let mut status = Value::Null;
    wait_until(
        || {
            status = serde_json::from_slice(&get(admin, "/status", "").1).unwrap();
            status["images"][0]["state"] == "waiting"
        },
        || "the image does not wait".to_owned(),
    );
    status
}

/// It is killed over and over, and never is more spent than the plan has; with a registry that
/// keeps to a Range, and with one that sends all of the layer whatever is asked for.
fn spend(fault: Fault) {
    let image = Image::new(1, LAYER_BYTES);
    let registry = Registry::start(Show { image: image.clone(), fault, tls: None });
    let meter = Relay::start(registry.address);
    let link = |max: &str| format!("rate_max = \"1MiB/s\"\nday_max = {max:?}");
    let mut satellite = prepare(&format!("plan-{fault:?}"), |directory| {
        text(directory, meter.address, &link("3MiB"))
    });
    let refusal = "day budget of 3MiB used, until 00:00";
    let mut kills = 0;
    loop {
        let before = meter.bytes();
        satellite.spawn("run");
        let is_over = || satellite.log().contains(refusal);
        wait_until(|| meter.bytes() > before + 300_000 || is_over(), || satellite.log());
        satellite.kill();
        assert!(meter.bytes() <= DAY_MAX, "{} bytes after {kills} kills", meter.bytes());
        if satellite.log().contains(refusal) {
            break;
        }
        kills += 1;
    }
    assert!(kills > 2, "{kills} kills");
    // However often it is started: the day is over.
    let admin = run(&mut satellite);
    let status = await_waiting(&admin);
    assert_eq!(status["images"][0]["error"], refusal);
    let day = &status["link"]["day"];
    assert_eq!(day["max_bytes"], DAY_MAX);
    let used = day["used_bytes"].as_u64().unwrap();
    assert!(used >= meter.bytes() && used <= DAY_MAX, "{used} of {}", meter.bytes());
    let metrics = String::from_utf8(get(&admin, "/metrics", "").1).unwrap();
    assert!(metrics.contains(&format!("moonlet_link_day_max_bytes {DAY_MAX}\n")), "{metrics}");
    let spent = meter.bytes();
    assert!(spent > DAY_MAX / 4 && spent <= DAY_MAX, "{spent}");
    // A larger plan takes effect at once, and what came before does not come again but for what
    // each kill may cost.
    satellite.reload(&text(&satellite.directory, meter.address, &link("64MiB")));
    satellite.await_line("held at");
    let whole = meter.bytes();
    if fault == Fault::None {
        let most = LAYER_BYTES as u64 + (kills + 2) * KILL_BYTES_MAX;
        assert!(whole < most, "{whole} bytes in all, expected {most} at most");
    }
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
}

#[test]
fn a_data_plan_is_never_exceeded() {
    spend(Fault::None);
}

#[test]
fn nor_by_a_registry_that_sends_more_than_is_asked_for() {
    spend(Fault::RangeIgnored);
}

#[test]
fn nothing_of_an_image_is_fetched_outside_the_windows() {
    let image = Image::new(1, 300_000);
    let registry = Registry::start(Show { image, fault: Fault::None, tls: None });
    let link = |window: &str| format!("windows = {window:?}\nurgent = true");
    // The local time of the programs here is noon.
    let mut satellite =
        prepare("window", |directory| text(directory, registry.address, &link("18:00-06:00")));
    let admin = run(&mut satellite);
    let status = await_waiting(&admin);
    assert_eq!(status["images"][0]["error"], "waits for the window until 18:00");
    assert_eq!(status["link"]["window"]["open"], false);
    assert_eq!(status["link"]["window"]["until"], "18:00");
    // The registry is polled all the same, so that what there is to do is known.
    let polls = || registry.heads().iter().filter(|head| head.starts_with("head ")).count();
    let before = polls();
    wait_until(|| polls() > before + 1, || "no polls".to_owned());
    let gets = registry.heads().into_iter().filter(|head| head.starts_with("get "));
    assert_eq!(gets.collect::<Vec<_>>(), <[String; 0]>::default());
    let page = String::from_utf8(get(&admin, "/", "").1).unwrap();
    assert!(page.contains("window: closed until 18:00"), "{page}");
    satellite.reload(&text(&satellite.directory, registry.address, &link("06:00-18:00")));
    satellite.await_line("held at");
    satellite.reload(&text(&satellite.directory, registry.address, &link("noon")));
    satellite.await_line("expected a window such as");
    assert!(satellite.lives());
}

#[test]
fn a_window_that_closes_suspends_what_is_under_way() {
    let image = Image::new(1, LAYER_BYTES);
    let registry = Registry::start(Show { image, fault: Fault::None, tls: None });
    let meter = Relay::start(registry.address);
    let link =
        |window: &str| format!("rate_max = \"1MiB/s\"\nday_max = \"64MiB\"\nwindows = {window:?}");
    let mut satellite =
        prepare("closing", |directory| text(directory, meter.address, &link("06:00-18:00")));
    let admin = run(&mut satellite);
    wait_until(|| meter.bytes() > 2_000_000, || satellite.log());
    satellite.reload(&text(&satellite.directory, meter.address, &link("18:00-06:00")));
    let status = await_waiting(&admin);
    assert!(status["images"][0]["held_bytes"].as_u64().unwrap() > 1_000_000, "{status}");
    let gets = || registry.heads().iter().filter(|head| head.starts_with("get ")).count();
    // The request that was under way was for 4 MiB.
    assert!(meter.bytes() < 4_000_000, "{}", meter.bytes());
    let before = gets();
    satellite.await_line("sync: 0 images held, 1 not");
    satellite.await_line("sync: 0 images held, 1 not");
    assert_eq!(gets(), before, "nothing but polls");
    satellite.reload(&text(&satellite.directory, meter.address, &link("06:00-18:00")));
    satellite.await_line("held at");
    // What was on its way when it closed came twice, and nothing else.
    let most = LAYER_BYTES as u64 + CUT_BYTES_MAX;
    assert!(meter.bytes() < most, "{} bytes, expected {most} at most", meter.bytes());
}

/// As the configuration has it.
const DAY_MAX: u64 = 3 << 20;
const LAYER_BYTES: usize = 8 << 20;
/// A receive window, and polls.
const CUT_BYTES_MAX: u64 = (256 << 10) + (64 << 10);
/// A kill costs no more of a download than this: README.md.
const KILL_BYTES_MAX: u64 = (2 << 20) + (256 << 10);
