//! Who may read what: by user, by certificate and by address, whichever way is tried.

use std::path::Path;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moonlet::clock::SystemClock;
use moonlet::net::http::{Client as Http, ClientLimits, ClientRequest, Headers, Method};
use moonlet::net::{Network, tls};
use moonlet::oci::Digest;
use serde_json::{Value, json};

use crate::client::Client;
use crate::many_images::{Answer, ManyImages};
use crate::registry::Image;
use crate::satellite::{Satellite, prepare, text};

/// A registry with `open:1` and `secret:s`, neither of which has anything of the other.
struct Scene {
    registry: ManyImages,
    open: Image,
    secret: Image,
}

fn sha256(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

fn scene() -> Scene {
    let registry = ManyImages::start();
    let (open, secret) = (Image::new(1, 300_000), Image::new(2, 300_000));
    registry.push("1", &open);
    registry.push("s", &secret);
    let names = |image: &Image, tag: &str| {
        let parts = [&image.config, &image.layer, &image.manifest].map(|part| sha256(part));
        parts.into_iter().chain([tag.to_owned()]).collect::<Vec<_>>()
    };
    let (of_open, of_secret) = (names(&open, "1"), names(&secret, "s"));
    registry.fault(move |request, _| {
        let others = if request.path.starts_with("secret/") { &of_open } else { &of_secret };
        let is_other = others.iter().any(|name| request.path.ends_with(&format!("/{name}")));
        is_other.then(|| Answer::status(404))
    });
    Scene { registry, open, secret }
}

/// A configuration with these lines in `[serve]`, and these behind it.
fn config(directory: &Path, registry: &ManyImages, serve: &str, more: &str) -> String {
    let lines = format!("url = \"{}\"\npull_through = true\ntag_ttl = \"1h\"", registry.url());
    let text = text(directory, "1s", &[("registry.test", &lines)], &[]);
    text.replacen("[serve]\n", &format!("[serve]\n{serve}"), 1) + more
}

fn htpasswd(directory: &Path) -> String {
    let path = directory.join("users");
    let hash = |password: &str| bcrypt::hash_with_salt(password, 4, [1; 16]).unwrap();
    std::fs::write(&path, format!("ci:{}\nops:{}\n", hash("c"), hash("o"))).unwrap();
    format!("htpasswd = {path:?}\n")
}

fn basic(pair: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(pair))
}

/// Status and code of an answer to GET, which HEAD must have too.
fn reply(satellite: &Satellite, path: &str, lines: &str) -> (u16, String) {
    let get = Client::ask(&satellite.served, "GET", path, lines);
    let head = Client::ask(&satellite.served, "HEAD", path, lines);
    assert_eq!(get.status, head.status, "{path}");
    // What a registry had to say is said once.
    assert!(
        matches!(get.status, 404 | 503) || get.head == head.head,
        "{path}: {} {}",
        get.head,
        head.head
    );
    assert_eq!(head.rest(), b"", "{path}");
    let challenge = get.line("www-authenticate");
    let is_asked = challenge.is_some_and(|line| line.starts_with("basic realm="));
    assert_eq!(is_asked, get.status == 401, "{path}");
    let status = get.status;
    let body = get.rest();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    (status, problem["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

fn list(satellite: &Satellite, path: &str, lines: &str) -> Value {
    let client = Client::ask(&satellite.served, "GET", path, lines);
    assert_eq!(client.status, 200, "{path}");
    serde_json::from_slice(&client.rest()).unwrap()
}

const RULES: &str = "[[serve.rule]]\nusers = \"ci\"\nrepositories = \"secret/**\"\n\
                     [[serve.rule]]\nrepositories = \"secret/**\"\nallow = false\n\
                     [[serve.rule]]\nrepositories = \"open/**\"\n";

#[test]
fn rules_hold_whichever_way_is_tried() {
    let Scene { registry, open, secret } = scene();
    let mut satellite = prepare("readers", |directory| {
        config(
            directory,
            &registry,
            &htpasswd(directory),
            &format!("[proxy]\nlisten = \"127.0.0.1:0\"\n{RULES}"),
        )
    });
    satellite.start_again();
    let (ci, ops) = (basic("ci:c"), basic("ops:o"));
    let secrets = [
        "/v2/secret/manifests/s".to_owned(),
        "/v2/registry.test/secret/manifests/s".to_owned(),
        "/v2/secret/manifests/s?ns=registry.test".to_owned(),
        format!("/v2/secret/blobs/{}", sha256(&secret.layer)),
        format!("/v2/secret/manifests/{}", sha256(&secret.manifest)),
        format!("/v2/secret/referrers/{}", sha256(&secret.manifest)),
        "/v2/secret/tags/list".to_owned(),
        // What is nowhere is refused alike: a refusal reveals nothing.
        "/v2/secret/none/manifests/s".to_owned(),
        "/v2/other/manifests/1".to_owned(),
    ];
    let closed = || {
        for path in &secrets {
            assert_eq!(reply(&satellite, path, ""), (401, "UNAUTHORIZED".to_owned()), "{path}");
            assert_eq!(reply(&satellite, path, &ops), (403, "DENIED".to_owned()), "{path}");
        }
    };
    closed();
    assert_eq!(registry.count("GET", "") + registry.count("HEAD", ""), 0, "nothing is asked for");
    // Who reads without a password has to learn that there are passwords.
    assert_eq!(reply(&satellite, "/v2/", "").0, 401);
    assert_eq!(reply(&satellite, "/v2/", &ops).0, 200);
    let layer = format!("/v2/open/blobs/{}", sha256(&open.layer));
    for lines in ["", &basic(":"), &ops, &ci] {
        assert_eq!(reply(&satellite, "/v2/open/manifests/1", lines).0, 200, "{lines}");
        assert_eq!(reply(&satellite, &layer, lines).0, 200, "{lines}");
        assert_eq!(reply(&satellite, "/v2/open/manifests/2", lines).0, 404, "{lines}");
    }
    assert_eq!(reply(&satellite, &layer, &basic("ops:c")).0, 401, "a wrong password is none");
    // By its digest alone it leads nowhere else, though it is held from here on.
    assert_eq!(reply(&satellite, &secrets[0], &ci).0, 200);
    assert_eq!(reply(&satellite, &secrets[3], &ci).0, 200);
    closed();
    for (kind, bytes, code) in [
        ("blobs", &secret.layer, "BLOB_UNKNOWN"),
        ("blobs", &secret.config, "BLOB_UNKNOWN"),
        ("manifests", &secret.manifest, "MANIFEST_UNKNOWN"),
    ] {
        let path = format!("/v2/open/{kind}/{}", sha256(bytes));
        for lines in ["", ops.as_str(), ci.as_str(), "Range: bytes=0-9\r\n"] {
            assert_eq!(reply(&satellite, &path, lines), (404, code.to_owned()), "{path} {lines}");
        }
    }
    let fallback = sha256(&secret.manifest).replace(':', "-");
    assert_eq!(reply(&satellite, &format!("/v2/open/manifests/{fallback}"), "").0, 404);
    let referrers =
        list(&satellite, &format!("/v2/open/referrers/{}", sha256(&secret.manifest)), "");
    assert_eq!(referrers["manifests"], json!([]));
    let repositories =
        |lines: &str| list(&satellite, "/v2/_catalog", lines)["repositories"].clone();
    assert_eq!((repositories(""), repositories(&ops)), (json!(["open"]), json!(["open"])));
    assert_eq!(repositories(&ci), json!(["open", "secret"]));
    assert_eq!(reply(&satellite, "/v2/open/tags/list", "").0, 200);
    let write = Client::ask(&satellite.served, "PUT", "/v2/secret/manifests/s", "");
    assert_eq!(write.status, 405);

    // The forward proxy asks for a password first, and goes by the same rules.
    let proxy = satellite.address_of("forward proxy");
    let through = |pair: &str, url: &str| {
        let line = basic(pair).replace("Authorization", "Proxy-Authorization");
        Client::ask(&proxy, "GET", url, if pair.is_empty() { "" } else { &line }).status
    };
    let (of_secret, of_open) =
        ("http://registry.test/v2/secret/manifests/s", "http://registry.test/v2/open/manifests/1");
    assert_eq!((through("", of_open), through("ops:o", of_open)), (407, 200));
    assert_eq!((through("ops:o", of_secret), through("ci:c", of_secret)), (403, 200));

    // A reload changes them.
    let more = "[[serve.rule]]\nusers = \"ops\"\n";
    let text = config(&satellite.directory, &registry, &htpasswd(&satellite.directory), more);
    satellite.reload(&text);
    satellite.await_line(": reloaded, ");
    assert_eq!(reply(&satellite, &secrets[0], &ops).0, 200);
    assert_eq!(reply(&satellite, "/v2/open/manifests/1", "").0, 401);
    assert_eq!(
        reply(&satellite, &format!("/v2/open/blobs/{}", sha256(&secret.layer)), &ops).0,
        200,
        "who may read all is asked nothing"
    );
}

#[test]
fn what_no_tag_leads_to_is_asked_of_its_registry() {
    let Scene { registry, open, secret } = scene();
    let mut satellite = prepare("readers-digest", |directory| {
        config(directory, &registry, "", "[[serve.rule]]\nrepositories = \"open/**\"\n")
    });
    satellite.start_again();
    let path = |kind: &str, bytes: &[u8]| format!("/v2/open/{kind}/{}", sha256(bytes));
    let manifest = path("manifests", &open.manifest);
    assert_eq!(reply(&satellite, &manifest, "").0, 200);
    assert_eq!(reply(&satellite, &path("blobs", &open.layer), "").0, 200);
    let digest = sha256(&open.manifest);
    assert_eq!(registry.count("HEAD", &digest), 1, "once: {:?}", registry.asked());
    assert_eq!(registry.count("HEAD", &sha256(&open.layer)), 0, "its manifest leads there");
    assert_eq!(reply(&satellite, &path("blobs", &secret.layer), "").0, 404);
    // It is not known what else is there while its registry is away.
    satellite.kill();
    registry.fault(|_, _| Some(Answer::status(503)));
    satellite.start_again();
    assert_eq!(reply(&satellite, &manifest, "").0, 503);
    assert_eq!(reply(&satellite, "/v2/secret/manifests/s", "").0, 403, "no password would do");
}

#[test]
fn addresses_and_certificates_are_clients_too() {
    let Scene { registry, .. } = scene();
    let rules = "[[serve.rule]]\naddresses = \"10.0.0.0/8\"\n\
                 [[serve.rule]]\naddresses = [\"127.0.0.0/8\"]\nrepositories = \"open/**\"\n";
    let mut satellite =
        prepare("readers-address", |directory| config(directory, &registry, "", rules));
    satellite.start_again();
    assert_eq!(reply(&satellite, "/v2/open/manifests/1", "").0, 200);
    assert_eq!(reply(&satellite, "/v2/secret/manifests/s", "").0, 403);
    assert_eq!(reply(&satellite, "/v2/", "").0, 200, "there is nothing to log in with");
    drop(satellite);

    let mut satellite = prepare("readers-certificate", |directory| {
        let authority = Authority::new();
        std::fs::write(directory.join("ca.pem"), authority.certificate.pem()).unwrap();
        authority.issue(directory, "server", "127.0.0.1", &["127.0.0.1"]);
        authority.issue(directory, "edge", "edge-1", &[]);
        authority.issue(directory, "named", "whoever", &["edge-2.test"]);
        let at = |name: &str| directory.join(name);
        let serve = format!(
            "tls_cert = {:?}\ntls_key = {:?}\nclient_ca = {:?}\n",
            at("server.pem"),
            at("server.key"),
            at("ca.pem")
        );
        let rules = "[[serve.rule]]\ncertificates = \"edge-1\"\n\
                     [[serve.rule]]\ncertificates = \"edge-2.test\"\nrepositories = \"open*\"\n";
        config(directory, &registry, &serve, rules)
    });
    satellite.start_again();
    let ask = |name: &str, path: &str| secure(&satellite, name, path);
    for (name, open, secret) in [("edge", 200, 200), ("named", 200, 403), ("server", 403, 403)] {
        assert_eq!(ask(name, "/v2/open/manifests/1"), open, "{name}");
        assert_eq!(ask(name, "/v2/secret/manifests/s"), secret, "{name}");
    }
}

struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Writes a certificate and its key.
    fn issue(&self, directory: &Path, file: &str, common_name: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(directory.join(format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

/// The status that a client with a certificate is given.
fn secure(satellite: &Satellite, name: &str, path: &str) -> u16 {
    let at = |file: String| satellite.directory.join(file);
    let client_cert = Some((at(format!("{name}.pem")), at(format!("{name}.key"))));
    let options = tls::ClientOptions { ca_file: Some(at("ca.pem".to_owned())), client_cert };
    let trust = tls::Trust::new(options, Rc::new(SystemClock::new()));
    let client = Http::new(trust, Network::default(), ClientLimits::default());
    let url = format!("https://{}{path}", satellite.served).parse().unwrap();
    let (method, headers, body) = (Method::Get, Headers::new(), Vec::new());
    let request = ClientRequest { method, url, headers, body };
    smol::block_on(client.send(request)).unwrap().status
}
