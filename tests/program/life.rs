//! The life of a process: what is wrong at its start, what changes while it runs, and what it says
//! of itself meanwhile. No part holds up another.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::free_port;
use crate::registry::{Fault, Image, Registry, Show};
use crate::satellite::{self, get, launch};

fn head(directory: &Path, serve: &str, admin: &str) -> String {
    let store = directory.join("store");
    format!(
        "[serve]\ninsecure = true\nlisten = {serve}\n[admin]\nlisten = {admin:?}\n\
         [store]\npath = {store:?}\nsize_max = \"32MiB\"\n[sync]\npoll_interval = \"1s\"\n"
    )
}

fn desired(registry: &Registry, lines: &str) -> String {
    format!(
        "[[upstream]]\nregistry = \"registry.test\"\nurl = \"http://{}\"\n{lines}\
         [[image]]\nreference = \"registry.test/app:1\"\n",
        registry.address
    )
}

fn address_of(line: &str) -> String {
    line.rsplit(' ').next().unwrap().to_owned()
}

/// Asks the admin address until `expected` holds.
fn await_answer(admin: &str, path: &str, expected: impl Fn(u16, &str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, body) = get(admin, path, "");
        let body = String::from_utf8(body).unwrap();
        if expected(status, &body) {
            return body;
        }
        assert!(Instant::now() < deadline, "{path}: {status} {body}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_address_that_is_not_there_holds_up_no_other() {
    let port = free_port();
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let six = if has_ipv6 { format!(", \"[::]:{port}\"") } else { String::new() };
    let all = format!("[\"203.0.113.7:{port}\", \"127.0.0.1:{port}\"{six}]");
    let one = format!("[\"127.0.0.1:{port}\"]");
    let mut satellite = launch("address", |directory| head(directory, &all, "127.0.0.1:0"));
    let line = satellite.await_error("listen on 203.0.113.7");
    assert!(line.contains("tried again until it works"), "{line}");
    let served = address_of(&satellite.await_line("serving the OCI read API on 127.0.0.1"));
    if has_ipv6 {
        let beside = address_of(&satellite.await_line("serving the OCI read API on [::]"));
        assert_eq!(get(&beside.replace("[::]", "[::1]"), "/v2/", "").0, 200);
    }
    let admin = address_of(&satellite.await_line("status, metrics and health on "));
    assert_eq!(get(&served, "/v2/", "").0, 200);
    let (status, body) = get(&admin, "/readyz", "");
    let body = String::from_utf8(body).unwrap();
    assert!(status == 503 && body.contains("listen on 203.0.113.7"), "{status} {body}");
    assert_eq!(get(&admin, "/healthz", ""), (200, b"ok\n".to_vec()));
    let status = String::from_utf8(get(&admin, "/status", "").1).unwrap();
    assert!(status.contains("\"part\": \"listen on 203.0.113.7"), "{status}");
    satellite.reload(&head(&satellite.directory, &one, &admin));
    satellite.await_line("reloaded");
    assert_eq!(get(&admin, "/readyz", ""), (200, b"ok\n".to_vec()));
    assert!(satellite.lives());
}

#[test]
fn a_configuration_is_reloaded() {
    let image = Image::new(1, 300_000);
    let registry = Registry::start(Show { image, fault: Fault::None, tls: None });
    let (before, after) = (free_port(), free_port());
    let listen = |port: u16| format!("\"127.0.0.1:{port}\"");
    let admin = format!("127.0.0.1:{}", free_port());
    let mut satellite = launch("reload", |at| head(at, &listen(before), &admin));
    let directory = satellite.directory.clone();
    satellite.await_line("status, metrics and health on ");
    let served = |port: u16| format!("127.0.0.1:{port}");
    assert_eq!(get(&served(before), "/v2/app/manifests/1", "").0, 404);

    // One that is not good is refused, and changes nothing.
    satellite.reload("[serve]\nlisten = 5\n[store]\npth = \"/x\"\n");
    let line = satellite.await_line("refused, the one before stays in effect");
    assert!(line.contains("moonlet.toml:2: [serve] listen") && line.contains("pth"), "{line}");
    let body = await_answer(&admin, "/readyz", |_, body| body.contains("configuration"));
    assert!(body.starts_with("ok\n"), "what is held is served: {body}");
    assert_eq!(get(&served(before), "/v2/", "").0, 200);

    // Images, upstreams and the rate; and the next pass does not wait for the poll.
    let slow = head(&directory, &listen(before), &admin).replace("1s", "1h");
    satellite.reload(&slow);
    satellite.await_line("reloaded, 0 images");
    let rate = "[link]\nrate_max = \"1MiB/s\"\n";
    satellite.reload(&(slow + &desired(&registry, "") + rate));
    satellite.await_line("reloaded, 1 images");
    satellite.await_line("held at");
    assert_eq!(get(&served(before), "/v2/app/manifests/1", "").0, 200);
    assert_eq!(await_answer(&admin, "/readyz", |_, body| body == "ok\n"), "ok\n");

    // Another address, another name; the image goes. Another store has to wait.
    let last = format!("name = \"renamed\"\n{}", head(&directory, &listen(after), &admin));
    satellite.reload(&last.replace("/store", "/other"));
    satellite.await_line("in effect at the next start");
    satellite.await_line(&format!("serving the OCI read API on 127.0.0.1:{after}"));
    satellite.await_line("registry.test/app:1 is not desired any more");
    assert_eq!(get(&served(after), "/v2/app/manifests/1", "").0, 404);
    assert!(TcpStream::connect(served(before)).is_err());
    let status = await_answer(&admin, "/status", |_, body| body.contains("renamed"));
    assert!(status.contains("\"images\": []"), "{status}");
    assert!(!directory.join("other").exists());
    assert!(satellite.lives());
}

#[test]
fn an_upstream_without_its_files_holds_up_no_other() {
    let image = Image::new(1, 300_000);
    let registry = Registry::start(Show { image, fault: Fault::None, tls: None });
    let satellite = launch("files", |at| {
        let missing = at.join("password");
        let other = format!(
            "[[upstream]]\nregistry = \"other.test\"\nurl = \"http://{}\"\nusername = \"edge\"\n\
             password_file = {missing:?}\n[[image]]\nreference = \"other.test/app:1\"\n",
            registry.address
        );
        head(at, "\"127.0.0.1:0\"", "127.0.0.1:0") + &desired(&registry, "") + &other
    });
    // It is reported, and needed only when the registry asks for it, which this one does not.
    satellite.await_line("upstream other.test: ");
    let served = address_of(&satellite.await_line("serving the OCI read API on "));
    satellite.await_line("sync: 2 images held, 0 not");
    for registry in ["registry.test", "other.test"] {
        assert_eq!(get(&served, &format!("/v2/{registry}/app/manifests/1"), "").0, 200);
    }
    std::fs::write(satellite.directory.join("password"), "secret\n").unwrap();
    satellite.await_line("upstream other.test: ");
}

#[test]
fn a_store_that_is_not_there_yet_is_waited_for() {
    let mut satellite = launch("late", |at| {
        let config = head(at, "\"127.0.0.1:0\"", "127.0.0.1:0");
        config.replace("path", "device").replace("size_max", "# size_max")
    });
    let line = satellite.await_error("store: ");
    assert!(line.contains("tried again until it is there"), "{line}");
    let admin = address_of(&satellite.await_line("health, while there is no store, on "));
    let (status, body) = get(&admin, "/readyz", "");
    let body = String::from_utf8(body).unwrap();
    assert!(status == 503 && body.contains("/store"), "{status} {body}");
    assert_eq!(get(&admin, "/healthz", ""), (200, b"ok\n".to_vec()));
    satellite.reload(&head(&satellite.directory, "\"127.0.0.1:0\"", "127.0.0.1:0"));
    let admin = address_of(&satellite.await_line("status, metrics and health on "));
    assert_eq!(get(&admin, "/readyz", ""), (200, b"ok\n".to_vec()));
    assert!(satellite.lives());
}

/// A certificate for the loopback and its key, in files; returns the certificate.
fn certificate(directory: &Path) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(directory.join("cert"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// Whether the server shows `certificate` and answers.
fn shows(server: &str, certificate: &rustls::pki_types::CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let Ok(socket) = TcpStream::connect(server) else { return false };
    let mut stream = StreamOwned::new(connection, socket);
    let asked = write!(stream, "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    asked.is_ok() && stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

fn await_shown(server: &str, certificate: &rustls::pki_types::CertificateDer<'static>) {
    let deadline = Instant::now() + PATIENCE;
    while !shows(server, certificate) {
        assert!(Instant::now() < deadline, "the certificate is not shown");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn certificates_are_taken_up_when_they_change() {
    let port = free_port();
    let mut satellite = launch("certificate", |at| {
        std::fs::write(at.join("cert"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
        let (cert, key) = (at.join("cert"), at.join("key"));
        let tls = format!("\"127.0.0.1:{port}\"\ntls_cert = {cert:?}\ntls_key = {key:?}");
        head(at, &tls, "127.0.0.1:0")
    });
    let directory = satellite.directory.clone();
    satellite.await_error("certificate of the read API: ");
    let admin = address_of(&satellite.await_line("status, metrics and health on "));
    let (status, body) = get(&admin, "/readyz", "");
    let body = String::from_utf8(body).unwrap();
    assert!(status == 503 && body.contains("certificate of the read API"), "{status} {body}");

    let server = format!("127.0.0.1:{port}");
    let first = certificate(&directory);
    await_shown(&server, &first);
    assert_eq!(await_answer(&admin, "/readyz", |_, body| body == "ok\n"), "ok\n");
    let second = certificate(&directory);
    await_shown(&server, &second);
    assert!(!shows(&server, &first));

    // A bad one is reported, and the last good one shown on.
    std::fs::write(directory.join("cert"), "nonsense").unwrap();
    satellite.await_line("the one before is still shown");
    assert!(shows(&server, &second));
    let body = await_answer(&admin, "/readyz", |status, _| status == 200);
    assert!(body.contains("certificate of the read API"), "{body}");
    assert!(satellite.lives());
}

/// A poll, a look at the files or an attempt at an address is seconds away at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// podman and skopeo send a password with every request.
#[test]
fn only_the_users_of_the_htpasswd_file_read() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let image = Image::new(1, 300_000);
    let registry = Registry::start(Show { image, fault: Fault::None, tls: None });
    let mut satellite = satellite::prepare("htpasswd", |directory| {
        let users = directory.join("users");
        let text = satellite::text(
            directory,
            "1s",
            &[("registry.test", &format!("url = \"http://{}\"", registry.address))],
            &["registry.test/app:1"],
        );
        text.replacen("[serve]\n", &format!("[serve]\nhtpasswd = {users:?}\n"), 1)
    });
    let users = satellite.directory.join("users");
    satellite.start_again();
    let asked = |user: &str| {
        let line = format!("Authorization: Basic {}\r\n", STANDARD.encode(user));
        get(&satellite.served, "/v2/app/manifests/1", &line).0
    };
    assert_eq!(asked("edge:secret"), 503, "there is no file yet");
    let hash = bcrypt::hash_with_salt("secret", 4, [1; 16]).unwrap();
    std::fs::write(&users, format!("edge:{hash}\n")).unwrap();
    satellite::wait_until(|| asked("edge:secret") == 200, || satellite.log());
    assert_eq!((asked("edge:wrong"), asked("nobody:secret")), (401, 401));
    assert_eq!(satellite.get("/v2/").0, 401);
    let hash = bcrypt::hash_with_salt("another", 4, [2; 16]).unwrap();
    std::fs::write(&users, format!("edge:{hash}\n")).unwrap();
    assert_eq!((asked("edge:secret"), asked("edge:another")), (401, 200));
}

#[test]
fn a_storm_in_the_log_is_counted() {
    let broken = crate::fn_registry::FnRegistry::start(|_| crate::fn_registry::reply(503, ""));
    let url = format!("url = \"{}\"", broken.url());
    let mut satellite = satellite::prepare("storm", |directory| {
        satellite::text(directory, "1s", &[("r.test", &url)], &["r.test/app:1"])
    });
    satellite.log_level = "info";
    satellite.start_again();
    let deadline = Instant::now() + Duration::from_secs(60);
    while broken.count("GET", "/manifests/1") < 5 {
        assert!(Instant::now() < deadline, "{}", satellite.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let repeated = |log: &str, part: &str| {
        let lines = log.lines().filter(|line| line.contains("trying again in"));
        lines.filter(|line| line.contains(part)).count()
    };
    let log = satellite.log();
    assert_eq!((repeated(&log, "503"), repeated(&log, "more time")), (1, 0), "{log}");
    assert_eq!(satellite.stop(rustix::process::Signal::TERM), Some(0));
    let log = satellite.log();
    assert_eq!((repeated(&log, "503"), repeated(&log, " in the last 1 min)")), (2, 1), "{log}");
}
