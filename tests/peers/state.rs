//! A fleet without Ground Control: nginx hands out the state over TLS to who knows a password, and
//! docker-registry has the images.

use std::process::Command;

use serde_json::json;

use crate::auth::{certificates, doctor_says};
use crate::harness::images::Layout;
use crate::harness::nginx::Nginx;
use crate::harness::registry::DockerRegistry;
use crate::harness::satellite::{prepare, text, wait_until};
use crate::harness::{Directory, missing, text_of};
use crate::scene::digest;

#[test]
fn a_state_behind_https_is_obeyed() {
    let needed = ["docker-registry", "skopeo", "openssl", "htpasswd", "nginx"];
    if missing("a_state_behind_https_is_obeyed", &needed) {
        return;
    }
    let files = Directory::new("peers-state");
    certificates(&files);
    let users = text_of(Command::new("htpasswd").args(["-sbn", "edge", "pass"]));
    std::fs::write(files.join("htpasswd"), users).unwrap();
    let place = files.path().display();
    let server = format!(
        "ssl_certificate {place}/tls.pem; ssl_certificate_key {place}/tls.key;\n\
         auth_basic test; auth_basic_user_file {place}/htpasswd;"
    );
    let mut nginx = Nginx::start(files.path(), " ssl", &server);
    let mut registry = DockerRegistry::start("state");
    let mut layout = Layout::new("state");
    let first = layout.image("first", "amd64", &[1000]);
    let second = layout.image("second", "amd64", &[2000]);
    layout.push("first", &format!("{}/demo/app:1", registry.address));
    layout.push("second", &format!("{}/demo/app:2", registry.address));
    let publish = |tag: &str| {
        let state = json!({ "group": "site-7", "registry": registry.url(),
            "artifacts": [{ "repository": "demo/app", "tag": [tag] }] });
        // As a careful person does it.
        std::fs::write(files.join("www/new"), state.to_string()).unwrap();
        std::fs::rename(files.join("www/new"), files.join("www/state.json")).unwrap();
    };
    publish("1");
    let mut satellite = prepare("peers-state", |directory| {
        std::fs::write(directory.join("password"), "pass\n").unwrap();
        format!(
            "{}[state]\nurl = \"https://127.0.0.1:{}/state.json\"\nca_file = {:?}\n\
             username = \"edge\"\npassword_file = {:?}\n",
            text(directory, "1s", &[], &[]),
            nginx.port,
            files.join("authority.pem"),
            directory.join("password"),
        )
    });
    satellite.start_again();
    let await_held = |tag: &str, expected: &str| {
        let held = || digest(&satellite.client(), &format!("demo/app/manifests/{tag}"));
        wait_until(|| held().as_deref() == Ok(expected), || satellite.log());
    };
    await_held("1", first.digest());
    let count = |status: &str| {
        let log = std::fs::read_to_string(files.join("access.log")).unwrap();
        log.lines().filter(|line| line.contains(&format!("HTTP/1.1\" {status} "))).count()
    };
    wait_until(|| count("304") > 2, || satellite.log());
    assert_eq!(count("200"), 1, "one body for all looks at what does not change");
    publish("2");
    await_held("2", second.digest());
    let gone = || digest(&satellite.client(), "demo/app/manifests/1") == Err(404);
    wait_until(gone, || satellite.log());

    doctor_says(&satellite, "ok", "desired state: answer", "/state.json answers");

    // No network and a restart.
    registry.stop();
    nginx.stop();
    satellite.kill();
    satellite.start_again();
    assert_eq!(digest(&satellite.client(), "demo/app/manifests/2").as_deref(), Ok(second.digest()));
}
