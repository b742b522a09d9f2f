//! A desired state of no Ground Control, in a file and behind a URL: what is unchanged costs no
//! body and no write, and what makes no sense leaves what was known.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use moonlet::oci::Digest;
use serde_json::{Value, json};

use crate::fn_registry::{FnRegistry, reply};
use crate::registry::{Fault, Image, Registry, Show};
use crate::satellite::{self, Satellite, prepare, wait_until};

fn config(directory: &Path, state: &str) -> String {
    format!("{}[state]\n{state}\n", satellite::text(directory, "1s", &[], &[]))
}

/// A registry with `app:1`, and the group that names it.
fn registry(number: u8) -> (Registry, Image, Value) {
    let image = Image::new(number, 300_000);
    let registry = Registry::start(Show { image: image.clone(), fault: Fault::None, tls: None });
    let group = json!({ "group": "g1", "registry": format!("http://{}", registry.address),
        "artifacts": [{ "repository": "app", "tag": ["1"] }] });
    (registry, image, group)
}

fn await_status(satellite: &Satellite, path: &str, status: u16) {
    wait_until(|| satellite.get(path).0 == status, || format!("{path}: {}", satellite.log()));
}

fn problems(satellite: &Satellite) -> Value {
    satellite.admin().expect(200, "GET", "/status", "").json()["problems"].clone()
}

fn await_problem(satellite: &Satellite, part: &str) {
    let is_said = || problems(satellite).to_string().contains(part);
    wait_until(is_said, || format!("{part}: {}", problems(satellite)));
}

fn await_no_problem(satellite: &Satellite) {
    wait_until(|| problems(satellite) == json!([]), || problems(satellite).to_string());
}

const APP: &str = "/v2/app/manifests/1";

/// Documents behind URLs: path, entity tag, text.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<BTreeMap<String, (u16, String)>>>);

impl Pages {
    fn start() -> (Self, FnRegistry) {
        let pages = Self::default();
        let answering = pages.clone();
        let server = FnRegistry::start(move |asked| {
            let pages = answering.0.lock().unwrap();
            let Some((status, text)) = pages.get(&asked.path) else { return reply(404, "") };
            let tag = format!("\"{}\"", Digest::sha256(text.as_bytes()).short());
            match asked.line("if-none-match") {
                Some(known) if known == tag && *status == 200 => reply(304, ""),
                _ => reply(*status, text).with(format!("ETag: {tag}")).with("Location: /moved"),
            }
        });
        (pages, server)
    }

    fn put(&self, path: &str, status: u16, text: &str) {
        self.0.lock().unwrap().insert(path.to_owned(), (status, text.to_owned()));
    }
}

#[test]
fn a_file_says_what_to_hold() {
    let (_registry, image, group) = registry(1);
    let mut satellite = prepare("state-file", |directory| {
        std::fs::write(directory.join("state.json"), group.to_string()).unwrap();
        config(directory, &format!("file = {:?}", directory.join("state.json")))
    });
    satellite.start_again();
    await_status(&satellite, APP, 200);
    assert_eq!(satellite.get(APP).1, image.manifest);
    let file = satellite.directory.join("state.json");
    // Half a file, as while it is copied, and what is no state at all.
    let long = format!("{group}{}", " ".repeat(1 << 20));
    let text = group.to_string();
    let bad_tag = text.replace(r#"["1"]"#, r#"["a b"]"#);
    for (text, part) in [
        (&text[..40], "state.json: EOF"),
        ("{}", "expected \\\"states\\\""),
        (&bad_tag, "tag \\\"a b\\\" of app: expected"),
        (&long, "expected at most 1048576 bytes"),
    ] {
        std::fs::write(&file, text).unwrap();
        await_problem(&satellite, part);
        assert_eq!(satellite.get(APP).0, 200, "{part}");
    }
    // It is gone, and the power too.
    std::fs::remove_file(&file).unwrap();
    await_problem(&satellite, "no such file");
    satellite.kill();
    satellite.start_again();
    await_problem(&satellite, "what was desired before stays in effect");
    assert_eq!(satellite.get(APP).0, 200);
    std::fs::write(&file, r#"{"states":[]}"#).unwrap();
    await_no_problem(&satellite);
    await_status(&satellite, APP, 404);
}

#[test]
fn documents_beside_a_file_are_its_groups_and_its_config() {
    let (_first, _, mut group) = registry(1);
    let mut satellite = prepare("state-files", |directory| {
        let state = json!({ "states": ["g1.json", "late.json"], "config": "config.json" });
        std::fs::write(directory.join("state.json"), state.to_string()).unwrap();
        std::fs::write(directory.join("g1.json"), group.to_string()).unwrap();
        std::fs::write(directory.join("config.json"), "{\"app_config\":7}").unwrap();
        config(directory, &format!("file = {:?}", directory.join("state.json")))
    });
    satellite.start_again();
    // What cannot be read holds up nothing else, and each is named.
    await_status(&satellite, APP, 200);
    await_problem(&satellite, "late.json: no such file");
    await_problem(&satellite, "config.json: invalid type");
    group["group"] = json!("late");
    group["artifacts"][0]["tag"] = json!(["1", "2"]);
    std::fs::write(satellite.directory.join("late.json"), group.to_string()).unwrap();
    let config = r#"{"app_config":{"state_replication_interval":"@every 00h00m01s"}}"#;
    std::fs::write(satellite.directory.join("config.json"), config).unwrap();
    let images = || satellite.admin().expect(200, "GET", "/status", "").json()["images"].clone();
    wait_until(|| images().as_array().unwrap().len() == 2, || images().to_string());
}

#[test]
fn a_document_behind_a_url_comes_once_and_stays_in_effect() {
    let (_registry, _, group) = registry(1);
    let (pages, server) = Pages::start();
    pages.put("/fleet/state.json", 200, r#"{"states":["g1.json"]}"#);
    pages.put("/fleet/g1.json", 200, &group.to_string());
    let mut satellite = prepare("state-url", |directory| {
        config(directory, &format!("url = \"{}/fleet/state.json\"", server.url()))
    });
    satellite.start_again();
    await_status(&satellite, APP, 200);
    let known = || {
        let asked = server.asked();
        asked.iter().filter(|asked| asked.line("if-none-match").is_some()).count()
    };
    let written = || satellite.metric("moonlet_flash_programmed_bytes_total");
    let start = known();
    wait_until(|| known() > start + 2, || satellite.log());
    let (before, count, bodies) = (written(), known(), server.asked().len() - known());
    wait_until(|| known() > count + 6, || satellite.log());
    assert_eq!(written(), before, "nothing has changed");
    assert_eq!(server.asked().len() - known(), bodies, "each was asked for what it was");

    // What makes no sense is fetched once, reported by its name, and changes nothing.
    pages.put("/fleet/g1.json", 200, "<html>please log in</html>");
    await_problem(&satellite, "/fleet/g1.json: expected value");
    let (count, bodies) = (known(), server.asked().len() - known());
    wait_until(|| known() > count + 4, || satellite.log());
    assert_eq!(server.asked().len() - known(), bodies);
    await_problem(&satellite, "/fleet/g1.json: expected value");
    pages.put("/fleet/g1.json", 404, "");
    await_problem(&satellite, "/fleet/g1.json: status 404");
    assert_eq!(satellite.get(APP).0, 200);
    pages.put("/fleet/g1.json", 302, "");
    pages.put("/moved", 200, &group.to_string());
    await_no_problem(&satellite);

    // All away, and the power too: what was desired and held is served.
    for path in ["/fleet/state.json", "/fleet/g1.json", "/moved"] {
        pages.put(path, 503, "");
    }
    satellite.kill();
    satellite.start_again();
    await_problem(&satellite, "/fleet/state.json: status 503");
    assert_eq!(satellite.get(APP).0, 200);
}

#[test]
fn a_password_is_for_the_url_that_it_was_given_for() {
    let (elsewhere, other) = Pages::start();
    elsewhere.put("/g2.json", 404, "");
    let (pages, server) = Pages::start();
    let state = json!({ "states": ["g1.json", format!("{}/g2.json", other.url())] });
    pages.put("/state.json", 200, &state.to_string());
    let mut satellite = prepare("state-password", |directory| {
        std::fs::write(directory.join("password"), "hunter2").unwrap();
        let file = directory.join("password");
        let url = format!("{}/state.json", server.url());
        config(directory, &format!("url = \"{url}\"\nusername = \"u\"\npassword_file = {file:?}"))
    });
    satellite.start_again();
    await_problem(&satellite, "/g1.json: status 404");
    await_problem(&satellite, "/g2.json: status 404");
    assert!(server.asked().iter().all(|asked| asked.authorization() == "Basic dTpodW50ZXIy"));
    assert!(other.asked().iter().all(|asked| asked.authorization().is_empty()));
    assert!(!satellite.log().contains("hunter2"));
}
