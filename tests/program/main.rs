//! Registries that misbehave, stores that cannot be used: each is reported in one clear line, the
//! process lives, what was held stays served, and nothing partial is visible. The built binary
//! runs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod admission;
mod answers;
mod auth;
mod client;
mod crossing;
mod doctor;
mod faithful;
mod files;
mod fleet;
mod flips;
mod fn_registry;
#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod harness;
mod isolation;
mod life;
mod many_images;
mod plan;
mod privileges;
mod proxy;
mod ranges;
mod readers;
mod referrers;
mod registry;
mod repair;
mod scripted;
mod signed;
mod state;
mod stop;
mod through;
mod trust;

use std::sync::Arc;

use harness::satellite::{self, Satellite, start};
use moonlet::oci::Digest;
use registry::{Fault, Image, Registry, Show};

/// Holds one image, then is shown another with a fault in it, and is to say `expected`.
fn reports(fault: Fault, expected: &str) {
    let (old, new) = (Image::new(1, 300_000), Image::new(2, LAYER_BYTES));
    let registry = Registry::start(Show { image: old.clone(), fault: Fault::None, tls: None });
    let satellite = start(&format!("{fault:?}"), &format!("http://{}", registry.address), "");
    satellite.await_line("held at");
    registry.show(Show { image: new.clone(), fault, tls: None });
    let line = satellite.await_error(expected);
    assert!(line.contains("registry.test/app") && line.contains(NEXT), "{line}");
    serves(&satellite, &old);
    hides(&satellite, &new);
    // The truth is taken as soon as it is served; what it replaces may stay, by its digest.
    registry.show(Show { image: new.clone(), fault: Fault::None, tls: None });
    satellite.await_line("moved from");
    serves(&satellite, &new);
}

fn serves(satellite: &Satellite, held: &Image) {
    let get = |path: String| satellite.get(&path);
    assert_eq!(get("/v2/app/manifests/1".to_owned()), (200, held.manifest.clone()));
    let layer = Digest::sha256(&held.layer);
    assert_eq!(get(format!("/v2/app/blobs/{layer}")), (200, held.layer.clone()));
}

fn hides(satellite: &Satellite, other: &Image) {
    let gone = [
        format!("/v2/app/blobs/{}", Digest::sha256(&other.layer)),
        format!("/v2/app/manifests/{}", Digest::sha256(&other.manifest)),
    ];
    for path in gone {
        assert_eq!(satellite.get(&path).0, 404, "{path}");
    }
}

#[test]
fn wrong_digest() {
    reports(Fault::WrongDigest, "the bytes that arrived have digest sha256:");
}

#[test]
fn truncated_body() {
    reports(Fault::Truncated, "body ended");
}

#[test]
fn endless_body() {
    reports(Fault::Endless, "the bytes that arrived have digest sha256:");
}

#[test]
fn wrong_length() {
    reports(Fault::WrongLength, "a blob of 9500001 bytes, expected 9500000");
}

#[test]
fn html_for_a_manifest() {
    reports(Fault::Html, r#"a body of type "text/html", expected an image manifest"#);
}

#[test]
fn broken_json() {
    reports(Fault::BrokenJson, "expected");
}

#[test]
fn endless_manifest() {
    reports(Fault::EndlessManifest, "body is over 1048576 bytes");
}

#[test]
fn manifest_over_4_mib() {
    reports(Fault::HugeManifest, "body is over 4194304 bytes");
}

#[test]
fn manifest_of_another_digest() {
    reports(Fault::OtherManifest, "bytes of digest sha256:");
}

#[test]
fn redirect_loop() {
    reports(Fault::RedirectLoop, "more than 5 redirects");
}

#[test]
fn a_registry_without_ranges_is_good_enough() {
    for fault in [Fault::RangeIgnored, Fault::OtherRange] {
        let image = Image::new(3, LAYER_BYTES);
        let registry = Registry::start(Show { image: image.clone(), fault, tls: None });
        let name = format!("range-{fault:?}");
        let satellite = start(&name, &format!("http://{}", registry.address), "");
        satellite.await_line("held at");
        serves(&satellite, &image);
    }
}

#[test]
fn credentials_stay_where_they_belong() {
    let image = Image::new(3, 700_000);
    let show = |fault| Show { image: image.clone(), fault, tls: None };
    let storage = Registry::start(show(Fault::None));
    let registry = Registry::start(show(Fault::Elsewhere(storage.address.port())));
    let password =
        std::env::temp_dir().join(format!("moonlet-program-pass-{}", std::process::id()));
    std::fs::write(&password, "secret").unwrap();
    let lines = format!("username = \"edge\"\npassword_file = {password:?}");
    let satellite = start("redirect", &format!("http://{}", registry.address), &lines);
    satellite.await_line("held at");
    let has = |heads: Vec<String>| heads.iter().any(|head| head.contains("authorization:"));
    assert!(has(registry.heads()));
    assert!(!storage.heads().is_empty() && !has(storage.heads()));
    std::fs::remove_file(password).unwrap();
}

/// An authority, and certificates of it for the loopback.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self(rcgen::CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn server(&self, last_year: i32) -> Option<Arc<rustls::ServerConfig>> {
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.0).unwrap().der().clone()];
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        Some(Arc::new(config.with_single_cert(chain, key).unwrap()))
    }
}

#[test]
fn certificates_that_are_not_to_be_trusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (old, new) = (Image::new(1, 300_000), Image::new(2, 700_000));
    let good = Show { image: old.clone(), fault: Fault::None, tls: ours.server(2199) };
    let registry = Registry::start(good);
    let ca_file = std::env::temp_dir().join(format!("moonlet-program-ca-{}", std::process::id()));
    std::fs::write(&ca_file, ours.0.pem()).unwrap();
    let ca_line = format!("ca_file = {ca_file:?}");
    let satellite = start("tls", &format!("https://{}", registry.address), &ca_line);
    satellite.await_line("held at");
    let show = |tls| Show { image: new.clone(), fault: Fault::None, tls };
    registry.show(show(ours.server(2021)));
    satellite.await_error("expired on 2021-01-01");
    serves(&satellite, &old);
    hides(&satellite, &new);
    registry.show(show(theirs.server(2199)));
    satellite.await_error("signed by an unknown ca");
    serves(&satellite, &old);
    hides(&satellite, &new);
    registry.show(show(ours.server(2199)));
    satellite.await_line("moved from");
    std::fs::remove_file(ca_file).unwrap();
}

#[test]
fn no_room() {
    let (old, new) = (Image::new(1, 300_000), Image::new(2, 40 << 20));
    let registry = Registry::start(Show { image: old.clone(), fault: Fault::None, tls: None });
    let satellite = start("room", &format!("http://{}", registry.address), "");
    satellite.await_line("held at");
    registry.show(Show { image: new.clone(), fault: Fault::None, tls: None });
    let line = satellite.await_error("no room: needs 40.0 MiB, ");
    assert!(line.contains("raise size_max or remove images; what is held stays served"), "{line}");
    serves(&satellite, &old);
    hides(&satellite, &new);
}

#[test]
fn stores_that_cannot_be_used() {
    let image = Image::new(1, 300_000);
    let registry = Registry::start(Show { image, fault: Fault::None, tls: None });
    let mut satellite = start("newer", &format!("http://{}", registry.address), "");
    satellite.await_line("held at");
    satellite.kill();
    assert_eq!(satellite.sync().0, 0);
    let store = satellite.directory.join("store");

    let layout = store.join("layout");
    let text = std::fs::read_to_string(&layout).unwrap();
    std::fs::write(&layout, text.replacen("moonlet-store 1", "moonlet-store 2", 1)).unwrap();
    let (code, said) = satellite.sync();
    assert!(code == 2 && said.contains("layout version 2, expected 1"), "{code} {said}");
    std::fs::write(&layout, &text).unwrap();

    // FORMAT.md section 3: every header of the ring says version 2, soundly.
    let log = store.join("log");
    let before = std::fs::read(&log).unwrap();
    let mut newer = before.clone();
    let segment_bytes: usize = text.split_whitespace().nth(3).unwrap().parse().unwrap();
    for header in newer.chunks_mut(segment_bytes).take(4) {
        header[8] = 2;
        let checksum = crc32c::crc32c(&header[..30]);
        header[30..34].copy_from_slice(&checksum.to_le_bytes());
    }
    std::fs::write(&log, &newer).unwrap();
    let (code, said) = satellite.sync();
    assert!(code == 2 && said.contains("format version 2, this program knows version 1"), "{said}");
    assert!(std::fs::read(&log).unwrap() == newer, "a newer store was changed");

    std::fs::write(&log, &before[..before.len() - 1]).unwrap();
    // What is there is read, and nothing written.
    let (_, said) = satellite.sync();
    assert!(said.contains("bytes long, its layout says"), "{said}");
    assert!(std::fs::read(&log).unwrap() == before[..before.len() - 1], "it was changed");
    std::fs::write(&log, before).unwrap();
    assert_eq!(satellite.sync().0, 0, "what it was before is good again");
}

/// What an error says of what happens next.
const NEXT: &str = "what is held stays served; tried again at the next poll";
/// More than any one request asks for: Range is always sent.
const LAYER_BYTES: usize = 9_500_000;
