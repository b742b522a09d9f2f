//! Certificates as people make them, and proxies.

use std::sync::Arc;

use moonlet::kind::Kind;
use moonlet::oci::Digest;
use rustls::ServerConfig;
use smol::block_on;

use crate::fn_registry::{FnRegistry, TestFile, client_with_ca, reply};
use crate::registry::{Image, MANIFEST};
use crate::satellite::start;

/// A certificate as `openssl req -x509` makes it: signed by itself, an authority and a server's.
pub struct Own {
    pub pem: String,
    pub server: Arc<ServerConfig>,
}

impl Own {
    fn new(host: &str, last_year: i32) -> Self {
        Self::between(host, (2020, 1, 1), (last_year, 1, 1))
    }

    /// Good from one day to another.
    pub fn between(host: &str, first: (i32, u8, u8), last: (i32, u8, u8)) -> Self {
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(first.0, first.1, first.2);
        params.not_after = rcgen::date_time_ymd(last.0, last.1, last.2);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let chain = vec![certificate.der().clone()];
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let server = Arc::new(config.with_single_cert(chain, key).unwrap());
        Self { pem: certificate.pem(), server }
    }

    fn registry(&self) -> FnRegistry {
        FnRegistry::with_tls(Arc::clone(&self.server), |_| {
            reply(200, Image::new(1, 10).manifest).with(format!("Content-Type: {MANIFEST}"))
        })
    }
}

/// What a client that trusts `pem` makes of a registry with `own`.
fn ask(own: &Own, pem: &str) -> Result<(), String> {
    let file = TestFile::new("own");
    file.write(pem);
    let registry = own.registry();
    let ours = client_with_ca(&format!("https://{}", registry.address), &file.0);
    let asked = block_on(ours.open_manifest("app", "1"));
    asked.map(drop).map_err(|error| {
        assert_eq!(error.kind(), Kind::Invalid);
        error.to_string()
    })
}

#[test]
fn a_certificate_that_is_its_own_authority() {
    let own = Own::new("127.0.0.1", 2199);
    ask(&own, &own.pem).unwrap();
    let refusals = [
        (Own::new("127.0.0.1", 2021), "expired on 2021-01-01"),
        (Own::new("other.example", 2199), "is for other.example: expected 127.0.0.1"),
    ];
    for (other, expected) in refusals {
        let why = ask(&other, &other.pem).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
    let why = ask(&Own::new("127.0.0.1", 2199), &own.pem).unwrap_err();
    assert!(why.contains("is signed by itself: expected one of a known ca"), "{why}");
}

#[test]
fn files_are_read_when_they_are_used() {
    let own = Own::new("127.0.0.1", 2199);
    let registry = own.registry();
    let file = TestFile::new("late-ca");
    let ours = client_with_ca(&format!("https://{}", registry.address), &file.0);
    let ask =
        || block_on(ours.open_manifest("app", "1")).map(drop).map_err(|error| error.to_string());
    assert!(ask().unwrap_err().contains("late-ca"));
    file.write(&own.pem);
    ask().unwrap();
    std::fs::remove_file(&file.0).unwrap();
    file.write(&Own::new("127.0.0.1", 2199).pem);
    ask().unwrap_err();
    std::fs::remove_file(&file.0).unwrap();
    file.write(&own.pem);
    ask().unwrap();
}

#[test]
fn a_proxy_leads_to_hosts_that_are_not_known_here() {
    let own = Own::new("registry.invalid", 2199);
    let file = TestFile::new("proxied-ca");
    file.write(&own.pem);
    let image = Image::new(6, 5000);
    let proxy = FnRegistry::proxy(Arc::clone(&own.server), move |asked| {
        let digest = asked.path.rsplit('/').next().unwrap();
        let parts = [&image.config, &image.layer];
        match parts.into_iter().find(|part| Digest::sha256(part).to_string() == digest) {
            Some(part) => reply(200, part),
            None if asked.path.contains("/manifests/sha256-") => reply(404, ""),
            None if asked.path.contains("/manifests/") => {
                reply(200, &image.manifest).with(format!("Content-Type: {MANIFEST}"))
            }
            None => reply(404, ""),
        }
    });
    let port = proxy.address.port();
    let lines = format!(
        "[link]\nproxy = \"http://edge:s3cret@127.0.0.1:{port}\"\n[[upstream]]\n\
         registry = \"tls.test\"\nurl = \"https://registry.invalid\"\nca_file = {:?}\n\
         [[image]]\nreference = \"tls.test/app:1\"",
        file.0
    );
    let satellite = start("proxy", "http://plain.invalid:5000", &lines);
    satellite.await_line("tls.test/app:1: held at");
    satellite.await_line("2 images held, 0 not");
    let asked = proxy.asked();
    let to_proxy = |method: &str, path: &str| {
        let mut found = asked.iter().filter(|a| a.method == method && a.path.starts_with(path));
        // edge:s3cret
        found.any(|asked| asked.line("proxy-authorization") == Some("Basic ZWRnZTpzM2NyZXQ="))
    };
    assert!(to_proxy("CONNECT", "registry.invalid:443"));
    assert!(to_proxy("GET", "http://plain.invalid:5000/v2/app/manifests/1"));
    let inside = asked.iter().filter(|asked| asked.path.starts_with("/v2/"));
    assert!(inside.clone().count() > 0);
    assert!(inside.into_iter().all(|asked| asked.line("proxy-authorization").is_none()));
    let log = std::fs::read_to_string(satellite.directory.join("log")).unwrap();
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn a_proxy_that_refuses_is_named() {
    let proxy =
        FnRegistry::start(|asked| reply(if asked.method == "HEAD" { 407 } else { 403 }, ""));
    let lines = format!("[link]\nproxy = \"http://{}\"", proxy.address);
    let satellite = start("proxy-no", "http://plain.invalid", &lines);
    satellite.await_error("status 403 forbidden");
}
