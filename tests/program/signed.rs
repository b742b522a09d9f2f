//! Images that must be signed: what cosign made, and what is not quite that.

use std::path::{Path, PathBuf};

use moonlet::oci::{Digest, media_type};

use crate::satellite::{Satellite, prepare, text};
use crate::scripted::{Answer, ScriptedRegistry};

/// What is in `tests/data/cosign`.
fn data(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cosign").join(name)
}

/// A registry that has the image of the data under `app:1`, and no signature of it.
fn registry() -> ScriptedRegistry {
    let scripted = ScriptedRegistry::start();
    scripted.blob("app", &data("config.json"));
    scripted.blob("app", &data("layer.tar.gz"));
    scripted.manifest("app", "1", &String::from_utf8(data("image.json")).unwrap());
    scripted
}

fn image() -> Digest {
    Digest::sha256(&data("image.json"))
}

/// Puts a signature's manifest and blob there; returns the manifest's digest.
fn put(scripted: &ScriptedRegistry, name: &str, tag: &str) -> Digest {
    scripted.blob("app", &data(&format!("{name}.json")));
    for config in ["simple.config.json", "empty"] {
        scripted.blob("app", &if config == "empty" { b"{}".to_vec() } else { data(config) });
    }
    let manifest = String::from_utf8(data(&format!("{name}.manifest.json"))).unwrap();
    scripted.manifest("app", tag, &manifest)
}

/// As cosign's tag names it.
fn sign(scripted: &ScriptedRegistry) {
    put(scripted, "simple", &format!("{}.sig", image().to_tag()));
}

/// As the referrers API lists it.
fn refer(scripted: &ScriptedRegistry, names: &[&str]) {
    let listed = names.iter().map(|name| {
        let size = data(&format!("{name}.manifest.json")).len();
        let digest = put(scripted, name, "");
        format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":{size}}}"#,
            media_type::OCI_MANIFEST
        )
    });
    let listed: Vec<String> = listed.collect();
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(","));
    let answer = Answer::new(200, index).with("Content-Type", media_type::OCI_INDEX);
    scripted.set(&format!("app/referrers/{}", image()), answer);
}

fn rule(key: &Path) -> String {
    format!("[[verify]]\nregistry = \"registry.test\"\nkey_file = {key:?}\n")
}

fn start(
    name: &str,
    scripted: &ScriptedRegistry,
    images: &[&str],
    lines: &str,
    rules: &str,
) -> Satellite {
    let upstream = format!("url = \"{}\"\n{lines}", scripted.url());
    let mut satellite = prepare(name, |directory| {
        text(directory, "1s", &[("registry.test", &upstream)], images) + rules
    });
    satellite.start_again();
    satellite
}

#[test]
fn an_image_without_a_signature_costs_its_manifests() {
    let scripted = registry();
    scripted.image("free", "1", "free", "");
    let rules = rule(&path("cosign.pub")).replace("key_file", "repositories = \"app\"\nkey_file");
    let images = ["registry.test/app:1", "registry.test/free:1"];
    let satellite = start("unsigned", &scripted, &images, "", &rules);
    let line = satellite.await_error("registry.test/app:1: must be signed by a key in ");
    assert!(line.contains("cosign.pub, and it has no signature; not held yet; tried"), "{line}");
    satellite.await_line("sync: 1 images held, 1 not");
    assert_eq!(
        scripted.asked(&format!("GET /v2/app/blobs/{}", Digest::sha256(&data("layer.tar.gz")))),
        0
    );
    assert_eq!(satellite.get("/v2/app/manifests/1").0, 404);
    assert_eq!(satellite.get("/v2/free/manifests/1").0, 200);
    let asked = scripted.asked("app/manifests");
    satellite.await_line("sync: 1 images held, 1 not");
    assert_eq!(scripted.asked("app/manifests"), asked, "it is left alone for a while");
}

#[test]
fn both_forms_of_cosign_will_do() {
    for (name, forms) in [("simple", &[][..]), ("bundle", &["attestation", "bundle"][..])] {
        let scripted = registry();
        match forms {
            [] => sign(&scripted),
            forms => refer(&scripted, forms),
        }
        let images = ["registry.test/app:1"];
        let rules = rule(&path("cosign.pub"));
        let satellite = start(&format!("signed-{name}"), &scripted, &images, "", &rules);
        satellite.await_line("registry.test/app:1: held at");
        assert_eq!(satellite.get("/v2/app/manifests/1"), (200, data("image.json")));
    }
}

#[test]
fn what_will_not_do_is_named() {
    let scripted = registry();
    sign(&scripted);
    refer(&scripted, &["attestation"]);
    let images = ["registry.test/app:1"];
    let rules = rule(&path("other.pub"));
    let satellite = start("foreign", &scripted, &images, "", &rules);
    let line = satellite.await_error("none of its signatures will do: ");
    assert!(line.matches("is by another key").count() == 2, "{line}");
    let text = std::fs::read_to_string(satellite.directory.join("moonlet.toml")).unwrap();
    // With a key that fits it is tried at once.
    satellite.reload(&text.replace("other.pub", "cosign.pub"));
    satellite.await_line("registry.test/app:1: held at");
}

#[test]
fn an_attestation_by_the_key_is_not_enough() {
    let scripted = registry();
    refer(&scripted, &["attestation"]);
    let rules = rule(&path("cosign.pub"));
    let satellite = start("attested", &scripted, &["registry.test/app:1"], "", &rules);
    satellite.await_error("is no signature of an image");
}

#[test]
fn a_tag_that_moves_to_something_unsigned_stays_where_it_was() {
    let scripted = registry();
    sign(&scripted);
    let rules = rule(&path("cosign.pub"));
    let satellite = start("moved", &scripted, &["registry.test/app:1"], "", &rules);
    satellite.await_line("registry.test/app:1: held at");
    scripted.image("app", "1", "unsigned", "");
    let line = satellite.await_error("must be signed by a key in ");
    assert!(line.contains("what is held stays served"), "{line}");
    assert_eq!(satellite.get("/v2/app/manifests/1"), (200, data("image.json")));
}

#[test]
fn a_key_that_is_not_there_yet_is_waited_for() {
    let scripted = registry();
    sign(&scripted);
    let upstream = format!("url = \"{}\"", scripted.url());
    let mut satellite = prepare("nokey", |directory| {
        text(directory, "1s", &[("registry.test", &upstream)], &["registry.test/app:1"])
            + &rule(&directory.join("late.pub"))
    });
    satellite.start_again();
    let line = satellite.await_error("its signature cannot be checked: ");
    assert!(line.contains("late.pub: No such file"), "{line}");
    std::fs::copy(path("cosign.pub"), satellite.directory.join("late.pub")).unwrap();
    satellite.await_line("registry.test/app:1: held at");
}

#[test]
fn what_a_client_asks_for_by_tag_must_be_signed_too() {
    let scripted = registry();
    let rules = rule(&path("cosign.pub"));
    let lines = "pull_through = true\ntag_ttl = \"1s\"";
    let satellite = start("client", &scripted, &[], lines, &rules);
    let (status, body) = satellite.get("/v2/app/manifests/1?ns=registry.test");
    let body = String::from_utf8(body).unwrap();
    assert!(status != 200 && body.contains("must be signed by a key in"), "{status} {body}");
    sign(&scripted);
    crate::satellite::wait_until(
        || satellite.get("/v2/app/manifests/1?ns=registry.test") == (200, data("image.json")),
        || format!("it is signed now:\n{}", satellite.log()),
    );
    // What is unsigned does not take its place.
    let unsigned = scripted.image("app", "1", "unsigned", "");
    let referrers = format!("app/referrers/{unsigned}");
    crate::satellite::wait_until(
        || {
            let held = satellite.get("/v2/app/manifests/1?ns=registry.test");
            assert_eq!(held, (200, data("image.json")));
            scripted.asked(&referrers) > 0
        },
        || format!("the signatures of the new one were not asked for:\n{}", satellite.log()),
    );
}

#[test]
fn what_is_held_needs_no_signature_any_more() {
    let scripted = registry();
    let image = "registry.test/app:1";
    let mut satellite = start("held", &scripted, &[image], "", "");
    satellite.await_line("registry.test/app:1: held at");
    satellite.kill();
    let config = satellite.directory.join("moonlet.toml");
    let text = std::fs::read_to_string(&config).unwrap() + &rule(&path("cosign.pub"));
    std::fs::write(config, text).unwrap();
    satellite.start_again();
    // What accompanies it is asked for in the first pass after a start.
    satellite.await_line("sync: 1 images held, 0 not");
    assert!(!satellite.log().contains("must be signed"), "{}", satellite.log());
}

#[test]
fn a_claim_about_a_layer_fetches_none() {
    let scripted = registry();
    let big = vec![7; 200_000];
    let layer = scripted.blob("big", &big);
    let config = scripted.blob("big", b"config of big");
    let digest = scripted.manifest("big", "1", &crate::scripted::image(&config, &layer, ""));
    let claim = format!(
        r#"{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{}","size":1,
            "annotations":{{"dev.cosignproject.cosign/signature":"AA=="}}}}"#,
        Digest::sha256(&big)
    );
    let signature = crate::scripted::image(&scripted.blob("big", b"{}"), &claim, "");
    scripted.manifest("big", &format!("{}.sig", digest.to_tag()), &signature);
    let rules = rule(&path("cosign.pub"));
    let satellite = start("claim", &scripted, &["registry.test/big:1"], "", &rules);
    satellite.await_error("has 200000 bytes, expected 65536");
    assert_eq!(scripted.asked(&format!("GET /v2/big/blobs/{}", Digest::sha256(&big))), 0);
}

#[test]
fn another_registry_does_not_stand_in_for_an_unsigned_image() {
    let (scripted, other) = (registry(), ScriptedRegistry::start());
    other.image("app", "1", "another", "");
    let lines =
        |scripted: &ScriptedRegistry| format!("url = \"{}\"\npull_through = true", scripted.url());
    let (first, second) = (lines(&scripted), lines(&other));
    let upstreams = [("registry.test", first.as_str()), ("other.test", second.as_str())];
    let mut satellite = prepare("stand-in", |directory| {
        text(directory, "1s", &upstreams, &[]) + &rule(&path("cosign.pub"))
    });
    satellite.start_again();
    let (status, body) = satellite.get("/v2/app/manifests/1");
    let body = String::from_utf8(body).unwrap();
    assert!(status == 503 && body.contains("must be signed"), "{status} {body}");
    assert_eq!(other.asked("app"), 0);
}

#[test]
fn clients_can_have_the_signatures_too() {
    let scripted = registry();
    sign(&scripted);
    let rules = rule(&path("cosign.pub"));
    let satellite = start("companion", &scripted, &[], "pull_through = true", &rules);
    let tag = format!("/v2/app/manifests/{}.sig?ns=registry.test", image().to_tag());
    assert_eq!(satellite.get(&tag), (200, data("simple.manifest.json")));
}
