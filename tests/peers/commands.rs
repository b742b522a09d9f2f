//! What a person does with a satellite whose registry is gone.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::clients::{offline, skopeo};
use crate::harness::satellite::wait_until;
use crate::harness::{missing, run};
use crate::scene::{Scene, digest};

const PEERS: [&str; 2] = ["docker-registry", "skopeo"];

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_key() {
    // Without the scene's peers: everything else here runs with a configuration that is accepted.
    let bad = "name = \"x\"\n[serve]\nlistne = [\"127.0.0.1:1\"]\n";
    let satellite = crate::harness::satellite::prepare("peers-bad", |_| bad.to_owned());
    let (code, output, said) = satellite.run(&["check"]);
    let text = format!("{output}{said}");
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("moonlet.toml:3") && text.contains("listen"), "{text}");
}

#[test]
fn after_kill_9_without_a_registry_everything_answers() {
    if missing("after_kill_9_without_a_registry_everything_answers", &PEERS) {
        return;
    }
    let (scene, mut satellite) = offline("restart");
    satellite.expect(&["check"]);
    satellite.kill();
    satellite.start_again();
    let held = digest(&satellite.client(), "demo/app/manifests/1");
    assert_eq!(held.unwrap(), scene.app.digest());
    let json =
        |words: &[&str]| -> Value { serde_json::from_str(&satellite.expect(words)).unwrap() };
    assert!(satellite.expect(&["status"]).contains("demo/app"));
    assert_eq!(json(&["status", "--json"])["images"].as_array().unwrap().len(), 2);
    assert!(satellite.expect(&["store", "scrub"]).contains("passes done"));
    assert_eq!(json(&["store", "scrub", "--json"])["corrupt_chunks"], 0);
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
    let (code, _, said) = satellite.run(&["store", "scrub"]);
    assert!(code != 0 && said.contains("no satellite answers"), "{code} {said}");
    assert!(satellite.expect(&["image", "ls"]).contains("demo/app"));
    satellite.expect(&["store", "stat"]);
}

/// Another size_max is taken on at the next start, with what is held kept.
#[test]
fn another_size_is_taken_on_with_what_is_held() {
    if missing("another_size_is_taken_on_with_what_is_held", &PEERS) {
        return;
    }
    let (scene, mut satellite) = offline("resize");
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
    let config = satellite.directory.join("moonlet.toml");
    let log = satellite.directory.join("store/log");
    let text = std::fs::read_to_string(&config).unwrap();
    for mebibytes in [24, 64] {
        let size = format!("size_max = \"{mebibytes}MiB\"");
        let changed = text.replace("size_max = \"48MiB\"", &size);
        assert_ne!(changed, text);
        std::fs::write(&config, changed).unwrap();
        satellite.start_again();
        let is_resized = || std::fs::metadata(&log).unwrap().len() == mebibytes << 20;
        wait_until(is_resized, || satellite.log());
        let held = digest(&satellite.client(), "demo/app/manifests/1");
        assert_eq!(held.unwrap(), scene.app.digest(), "at {mebibytes} MiB");
        let copy = satellite.directory.join(format!("copy-{mebibytes}"));
        let copied = skopeo(&copy, &[], &format!("{}/demo/app:1", satellite.served));
        assert_eq!(copied, scene.app.digest(), "at {mebibytes} MiB");
        assert_eq!(satellite.stop(Signal::TERM), Some(0));
    }
}

/// By its modes, for a user whom modes stop.
#[test]
fn a_store_that_may_only_be_read_is_served() {
    let needed = [&PEERS[..], &["setpriv"]].concat();
    if missing("a_store_that_may_only_be_read_is_served", &needed) {
        return;
    }
    let (scene, mut satellite): (Scene, _) = offline("read-only");
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
    let directory = satellite.directory.clone();
    let chmod = |mode: &str, name: &str| {
        run(Command::new("chmod").args(["-R", mode]).arg(directory.join(name)));
    };
    chmod("a-w,a+rX", "store");
    chmod("a+r", "moonlet.toml");
    satellite.is_nobody = true;
    satellite.start_again();
    let log = satellite.log();
    let mut errors = log.lines().filter(|line| line.starts_with("ERROR store: "));
    let said = "what is held is served, nothing can be added";
    assert!(errors.any(|line| line.contains(said)), "{log}");
    let held = digest(&satellite.client(), "demo/app/manifests/1");
    assert_eq!(held.unwrap(), scene.app.digest());
    satellite.kill();
    chmod("u+w", "store");
}
