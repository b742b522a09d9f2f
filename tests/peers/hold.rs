//! What the registry has is held and followed, through kills and corruption.

use std::os::unix::fs::FileExt as _;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::images::MANIFEST;
use crate::harness::relay::Relay;
use crate::harness::satellite::{prepare, wait_until};
use crate::harness::{missing, registry::DockerRegistry};
use crate::scene::{Scene, digest, put_manifest, remote, text};

const PEERS: [&str; 2] = ["docker-registry", "skopeo"];

/// Blobs and manifests of both images, for one platform.
const IMAGES_BYTES: u64 = 8 << 20;
/// What is not durable yet may be fetched again, and what was on its way when the process ended.
const AGAIN_BYTES_MAX: u64 = (2 << 20) + (256 << 10) + (128 << 10);

#[test]
fn kill_9_in_the_middle_costs_little() {
    if missing("kill_9_in_the_middle_costs_little", &PEERS) {
        return;
    }
    let scene = Scene::new("kill");
    let mut satellite = prepare("peers-kill", |directory| {
        format!("{}[link]\nrate_max = \"2MiB/s\"\n", scene.config(directory))
    });
    satellite.start_again();
    let fetched = "moonlet_fetch_body_bytes_total";
    wait_until(|| satellite.metric(fetched) > IMAGES_BYTES / 2, || satellite.log());
    let before = satellite.metric(fetched);
    assert!(satellite.metric("moonlet_images_held") < 2, "it is not in the middle");
    satellite.kill();
    satellite.start_again();
    satellite.await_held();
    let all = before + satellite.metric(fetched);
    let again = all.saturating_sub(IMAGES_BYTES);
    assert!(again <= AGAIN_BYTES_MAX, "kill -9 cost {again} bytes");
    assert_eq!(digest(&satellite.client(), "demo/app/manifests/1").unwrap(), scene.app.digest());
}

#[test]
fn a_link_that_breaks_again_and_again_gets_there() {
    if missing("a_link_that_breaks_again_and_again_gets_there", &PEERS) {
        return;
    }
    let scene = Scene::new("relay");
    let relay = Relay::start(scene.registry.address);
    // Less than a layer.
    relay.cut_after(1 << 20);
    let mut satellite = prepare("peers-relay", |directory| {
        text(directory, &relay.url(), "", &["demo/app:1", "demo/multi:1"])
    });
    satellite.start_again();
    wait_until(|| relay.cut() >= 4, || satellite.log());
    satellite.await_held();
    assert_eq!(digest(&satellite.client(), "demo/app/manifests/1").unwrap(), scene.app.digest());
    // Each cut may cost what was on its way, and a head.
    let limit = IMAGES_BYTES + AGAIN_BYTES_MAX + relay.cut() * (64 << 10);
    assert!(relay.bytes() <= limit, "{} bytes, {} cuts", relay.bytes(), relay.cut());
}

#[test]
fn a_moved_tag_is_followed_and_back_at_no_cost() {
    if missing("a_moved_tag_is_followed_and_back_at_no_cost", &PEERS) {
        return;
    }
    let scene = Scene::new("moved");
    let satellite = scene.held("peers-moved");
    let held = || digest(&satellite.client(), "demo/app/manifests/1");
    let theirs = || remote(&scene.registry, "demo/app/manifests/1");
    assert_eq!(held(), Ok(theirs()));
    scene.push_app("next");
    assert_eq!(theirs(), scene.next.digest());
    wait_until(|| held() == Ok(theirs()), || satellite.log());
    let before = satellite.metric("moonlet_fetch_body_bytes_total");
    scene.push_app("app");
    assert_eq!(theirs(), scene.app.digest());
    wait_until(|| held() == Ok(theirs()), || satellite.log());
    // What was not desired for a while is there still: only manifests are asked for.
    let cost = satellite.metric("moonlet_fetch_body_bytes_total") - before;
    assert!(cost <= 64 << 10, "moving back fetched {cost} bytes");
}

/// A cosign signature's tag, and an attestation by the referrers tag schema, on demo/app:1. What is
/// in them does not matter here: that they come along does. Returns the attestation's digest.
fn sign(scene: &Scene) -> String {
    let stem = scene.app.digest().replace(':', "-");
    let registry: &DockerRegistry = &scene.registry;
    // What it is made of has to be there.
    scene.layout.push("arm", &format!("{}/demo/app:{stem}.sig", registry.address));
    let mut attestation: serde_json::Value = serde_json::from_str(&scene.arm.manifest).unwrap();
    attestation["artifactType"] = json!("application/example");
    attestation["subject"] = scene.app.descriptor.clone();
    let attestation = attestation.to_string();
    let name = moonlet::oci::Digest::sha256(attestation.as_bytes()).to_string();
    put_manifest(registry, MANIFEST, &format!("demo/app/manifests/{name}"), &attestation);
    let referrer = json!({ "mediaType": MANIFEST, "digest": name, "size": attestation.len(),
        "artifactType": "application/example" });
    let index = json!({ "schemaVersion": 2, "mediaType": crate::harness::images::INDEX,
        "manifests": [referrer] });
    let path = format!("demo/app/manifests/{stem}");
    put_manifest(registry, crate::harness::images::INDEX, &path, &index.to_string());
    name
}

/// As a pipeline does it: the image is pushed, and held, before it is signed.
#[test]
fn what_is_signed_later_is_held_with_its_image() {
    if missing("what_is_signed_later_is_held_with_its_image", &PEERS) {
        return;
    }
    let mut scene = Scene::new("signed");
    let mut satellite = scene.held("peers-signed");
    let attestation = sign(&scene);
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
    satellite.start_again();
    let stem = scene.app.digest().replace(':', "-");
    let signature = format!("demo/app/manifests/{stem}.sig");
    let attested = format!("demo/app/manifests/{attestation}");
    for path in [&signature, &attested] {
        wait_until(|| digest(&satellite.client(), path).is_ok(), || satellite.log());
    }
    scene.registry.stop();
    assert_eq!(digest(&satellite.client(), &signature).unwrap(), scene.arm.digest());
    assert_eq!(digest(&satellite.client(), &attested).unwrap(), attestation);
    let kind = "artifactType=application/example";
    let path = format!("/v2/demo/app/referrers/{}?{kind}", scene.app.digest());
    let listed = satellite.client().expect(200, "GET", &path, "").json();
    assert_eq!(listed["manifests"][0]["digest"], json!(attestation), "{listed}");
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 1, "{listed}");
}

/// Bytes in the middle of the largest layer change on flash: found, fetched again alone, repaired.
#[test]
fn a_corrupt_chunk_is_found_and_it_alone_is_fetched_again() {
    if missing("a_corrupt_chunk_is_found_and_it_alone_is_fetched_again", &PEERS) {
        return;
    }
    let scene = Scene::new("rot");
    let mut satellite = scene.held("peers-rot");
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
    satellite.expect(&["store", "verify"]);
    let layer = scene.layout.blob_file(scene.app.layers[2]["digest"].as_str().unwrap());
    let layer = std::fs::read(layer).unwrap();
    // Within one chunk.
    let pattern = &layer[1_300_000..][..64];
    let path = satellite.directory.join("store/log");
    let log = std::fs::read(&path).unwrap();
    let at = memchr::memmem::rfind(&log, pattern).expect("the layer's bytes are in the log");
    let corrupt: Vec<u8> = pattern.iter().map(|byte| byte.wrapping_add(1)).collect();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&corrupt, at as u64).unwrap();
    let (code, output, said) = satellite.run(&["store", "verify"]);
    assert_eq!(code, 1, "{output}{said}");
    assert!(format!("{output}{said}").contains(" 1 corrupt chunks"), "{output}{said}");
    satellite.start_again();
    let repaired = || satellite.metric("moonlet_flash_repaired_chunks_total") == 1;
    wait_until(repaired, || satellite.log());
    let fetched = satellite.metric("moonlet_fetch_body_bytes_total");
    assert!(fetched <= 512 << 10, "repairing a chunk fetched {fetched} bytes");
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
    satellite.expect(&["store", "verify"]);
}
