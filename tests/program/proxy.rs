//! The forward proxy: registries are answered from the store, the rest is led elsewhere or refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use moonlet::clock::{SharedClock, SystemClock};
use moonlet::net::http::{Client, ClientLimits, ClientRequest, Headers, Method};
use moonlet::net::{Network, Proxies, tls};
use moonlet::oci::Digest;

use crate::many_images::ManyImages;
use crate::registry::Image;
use crate::satellite::{Satellite, prepare, text, wait_until};

/// A configuration with a registry that clients' misses are fetched from, and a proxy.
fn config(directory: &Path, registry: &ManyImages, serve: &str, proxy: &str) -> String {
    let lines = format!("url = \"{}\"\npull_through = true", registry.url());
    let text = text(directory, "1s", &[("registry.test", &lines)], &[]);
    let text = text.replacen("[serve]\n", &format!("[serve]\n{serve}"), 1);
    format!("{text}[proxy]\nlisten = \"127.0.0.1:0\"\n{proxy}\n")
}

struct Proxied {
    satellite: Satellite,
    address: String,
}

fn start(name: &str, registry: &ManyImages, serve: &str, proxy: &str) -> Proxied {
    let satellite = prepare(name, |directory| config(directory, registry, serve, proxy));
    let mut proxied = Proxied { satellite, address: String::new() };
    proxied.start_again();
    proxied
}

impl Proxied {
    fn start_again(&mut self) {
        self.satellite.start_again();
        let line = self.satellite.await_line("forward proxy on ");
        self.address = line.rsplit(' ').next().unwrap().to_owned();
    }

    /// What clients have to trust.
    fn authority(&self) -> PathBuf {
        let (status, pem) = crate::satellite::get(&self.address, "/ca.pem", "");
        assert!(status == 200 && pem.starts_with(b"-----BEGIN CERTIFICATE-----\n"));
        let path = self.satellite.directory.join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        path
    }

    /// Asks for `url` through the proxy, trusting `authority`.
    fn get(&self, authority: &Path, url: &str) -> Result<(u16, Vec<u8>), String> {
        let clock: SharedClock = Rc::new(SystemClock::new());
        let options = tls::ClientOptions { ca_file: Some(authority.to_owned()), client_cert: None };
        let proxy = format!("http://{}", self.address).parse().unwrap();
        let proxies = Proxies::from_environment(Some(&proxy));
        let network = Network { proxies, ..Network::default() };
        let trust = tls::Trust::new(options, clock);
        let client = Client::new(trust, network, ClientLimits::default());
        smol::block_on(async {
            let request = ClientRequest {
                method: Method::Get,
                url: url.parse().unwrap(),
                headers: Headers::new(),
                body: Vec::new(),
            };
            let response = client.send(request).await.map_err(|error| error.to_string())?;
            let (status, mut body) = (response.status, response.body);
            let (mut all, mut buffer) = (Vec::new(), [0; 8192]);
            loop {
                match body.read(&mut buffer).await.map_err(|error| error.to_string())? {
                    0 => return Ok((status, all)),
                    bytes => all.extend_from_slice(&buffer[..bytes]),
                }
            }
        })
    }

    /// Sends a head as it stands; returns the connection, and the head of the answer with what came
    /// with it.
    fn send(&self, head: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            answer.push(byte[0]);
        }
        (stream, String::from_utf8(answer).unwrap())
    }

    fn connect(&self, to: &str, lines: &str) -> (TcpStream, String) {
        self.send(&format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{lines}\r\n"))
    }

    /// The status and what is said in answer to a CONNECT that is refused.
    fn refusal(&self, to: &str) -> String {
        let (mut stream, head) = self.connect(to, "Connection: close\r\n");
        let mut body = String::new();
        stream.read_to_string(&mut body).unwrap();
        format!("{} {body}", head.split(' ').nth(1).unwrap())
    }
}

/// A host that echoes.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                std::io::copy(&mut stream.try_clone().unwrap(), &mut stream)
            });
        }
    });
    address
}

fn says_back(stream: &mut TcpStream, bytes: &[u8]) {
    let mut sender = stream.try_clone().unwrap();
    let sent = bytes.to_vec();
    let sending = std::thread::spawn(move || sender.write_all(&sent).unwrap());
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    sending.join().unwrap();
    assert!(back == bytes);
}

#[test]
fn a_registry_is_answered_in_its_place() {
    let registry = ManyImages::start();
    let image = Image::new(1, 300_000);
    registry.push("1", &image);
    let mut proxied = start("proxy-registry", &registry, "", "");
    let authority = proxied.authority();
    let blob = format!("/v2/app/blobs/{}", Digest::sha256(&image.layer));
    for host in ["https://registry.test", "http://registry.test", "https://REGISTRY.test:443"] {
        let get = |path: &str| proxied.get(&authority, &format!("{host}{path}")).unwrap();
        assert_eq!(get("/v2/").0, 200, "{host}");
        assert_eq!(get("/v2/app/manifests/1"), (200, image.manifest.clone()), "{host}");
        assert!(get(&blob) == (200, image.layer.clone()), "{host}");
        // Whatever namespace a client names in there.
        assert_eq!(get("/v2/app/manifests/1?ns=other.test").0, 200, "{host}");
        assert_eq!(get("/v2/app/manifests/none").0, 404, "{host}");
    }
    let gets = registry.asked().iter().filter(|asked| asked.is("GET", "blobs/")).count();
    assert_eq!(gets, 1, "it came once: {:?}", registry.asked());
    let text = std::fs::read_to_string(&authority).unwrap();
    proxied.satellite.kill();
    let (code, printed, said) = proxied.satellite.run(&["proxy", "ca"]);
    assert_eq!((code, &printed), (0, &text));
    let fingerprint = said.split_whitespace().find(|word| word.len() > 64).unwrap();
    let fingerprint = fingerprint.trim_end_matches(':');
    assert!(proxied.satellite.log().contains(&format!("SHA-256 {fingerprint}")), "{said}");
    proxied.start_again();
    assert_eq!(std::fs::read_to_string(proxied.authority()).unwrap(), text, "the same as before");
    let url = format!("https://registry.test{blob}");
    assert!(proxied.get(&authority, &url).unwrap() == (200, image.layer.clone()));
    proxied.satellite.kill();
    let (code, renewed, _) = proxied.satellite.run(&["proxy", "ca", "--new"]);
    assert!(code == 0 && renewed != text, "{renewed}");
    proxied.start_again();
    assert_eq!(std::fs::read_to_string(proxied.authority()).unwrap(), renewed);
    assert!(proxied.get(&authority, &url).is_ok(), "the file has the new one by now");
    // Who trusts another one is not talked to.
    let other = moonlet::net::Authority::generate("other").unwrap();
    let untrusted = proxied.satellite.directory.join("other.pem");
    std::fs::write(&untrusted, other.pem()).unwrap();
    let error = proxied.get(&untrusted, &url).unwrap_err();
    assert!(error.contains("is signed by an unknown ca"), "{error}");
}

#[test]
fn what_is_no_registry_is_refused_or_led_on() {
    let registry = ManyImages::start();
    let host = echo();
    let proxied = start("proxy-others", &registry, "", "");
    assert!(proxied.refusal(&host.to_string()).starts_with("403 "), "nothing is allowed");
    let (_, head) = proxied.send("GET http://other.test/x HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let (_, head) = proxied.send("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let directory = &proxied.satellite.directory;
    let allow = format!("allow = [\"127.0.0.1:{0}\", \"localhost:{0}\"]", host.port());
    let reload = |proxy: &str| {
        proxied.satellite.reload(&config(directory, &registry, "", proxy));
        proxied.satellite.await_line(": reloaded, ");
    };
    reload(&allow);
    for name in ["127.0.0.1", "localhost"] {
        let said = proxied.refusal(&format!("{name}:{}", host.port()));
        assert!(said.starts_with("403 ") && said.contains("private = true"), "{said}");
    }
    reload(&format!("{allow}\nprivate = true"));
    let (mut stream, head) = proxied.connect(&format!("localhost:{}", host.port()), "");
    assert_eq!(head, "HTTP/1.1 200 Connection Established\r\n\r\n");
    says_back(&mut stream, &vec![7; 3 << 20]);
    // The end of one direction is not that of the other.
    stream.write_all(b"end").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"end");
    assert!(proxied.refusal("127.0.0.1:22").starts_with("403 "), "another port");
    // One that is open ends where a reload takes its host out.
    let (mut open, _) = proxied.connect(&host.to_string(), "");
    says_back(&mut open, b"before");
    reload("");
    let _ = open.write_all(b"after");
    assert!(open.read_to_end(&mut Vec::new()).is_ok_and(|bytes| bytes == 0), "it goes on");
    // Nothing listens there. What comes with the head is refused, before there is a tunnel.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    reload(&format!("allow = \"*:{}\"\nprivate = true", closed.port()));
    assert!(proxied.refusal(&closed.to_string()).starts_with("502 "));
    let head = format!("CONNECT {host} HTTP/1.1\r\nHost: x\r\n\r\nearly");
    assert!(proxied.send(&head).1.starts_with("HTTP/1.1 400 "));
    for to in ["registry.test", "registry.test:0", "/v2/", "http://registry.test:443"] {
        assert!(proxied.connect(to, "").1.starts_with("HTTP/1.1 400 "), "{to}");
    }
}

#[test]
fn only_so_many_tunnels_are_open_at_once() {
    let (registry, host) = (ManyImages::start(), echo());
    let allow = format!("allow = \"127.0.0.1:{}\"\nprivate = true", host.port());
    let proxied = start("proxy-many", &registry, "", &allow);
    let mut open: Vec<TcpStream> = Vec::new();
    let refused = loop {
        let (stream, head) = proxied.connect(&host.to_string(), "");
        if !head.starts_with("HTTP/1.1 200 ") {
            break head;
        }
        open.push(stream);
        assert!(open.len() <= 32, "there is no end");
    };
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after"), "{refused}");
    assert_eq!(open.len(), 32);
    let last = open.last_mut().unwrap();
    says_back(last, b"still");
    open.truncate(31);
    let one_more = || proxied.connect(&host.to_string(), "").1.starts_with("HTTP/1.1 200 ");
    wait_until(one_more, || proxied.satellite.log());
}

#[test]
fn tunnels_wait_for_windows_and_cost_the_plan() {
    let (registry, host) = (ManyImages::start(), echo());
    let allow = format!("allow = \"127.0.0.1:{}\"\nprivate = true\n[link]\n", host.port());
    // The local time of the programs here is noon.
    let closed = format!("{allow}windows = \"18:00-06:00\"");
    let proxied = start("proxy-link", &registry, "", &closed);
    let said = proxied.refusal(&host.to_string());
    assert!(said.starts_with("503 waits for the window until 18:00"), "{said}");
    let reload = |proxy: &str| {
        let directory = &proxied.satellite.directory;
        proxied.satellite.reload(&config(directory, &registry, "", proxy));
        proxied.satellite.await_line(": reloaded, ");
    };
    reload(&format!("{closed}\nurgent = true"));
    let (mut stream, _) = proxied.connect(&host.to_string(), "");
    says_back(&mut stream, b"urgent");
    // Its window is larger than the plan.
    drop(stream);
    // One that is open ends with the plan.
    reload(&format!("{allow}day_max = \"1MiB\""));
    let mut stream = None;
    let is_open = || {
        let (connected, head) = proxied.connect(&host.to_string(), "");
        stream = head.starts_with("HTTP/1.1 200 ").then_some(connected);
        stream.is_some()
    };
    wait_until(is_open, || proxied.satellite.log());
    let mut stream = stream.unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&vec![7; 4 << 20]));
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    assert!((1..1 << 20).contains(&back.len()), "{} bytes came back", back.len());
    drop(stream);
    let _ = sending.join().unwrap();
    let used_up = || proxied.refusal(&host.to_string()).starts_with("503 ");
    wait_until(used_up, || proxied.satellite.log());
}

#[test]
fn users_show_their_password_to_the_proxy() {
    let registry = ManyImages::start();
    let image = Image::new(1, 300_000);
    registry.push("1", &image);
    let satellite = prepare("proxy-users", |directory| {
        let hash = bcrypt::hash_with_salt("secret", 4, [1; 16]).unwrap();
        let path = directory.join("users");
        std::fs::write(&path, format!("edge:{hash}\n")).unwrap();
        config(directory, &registry, &format!("htpasswd = {path:?}\n"), "")
    });
    let mut proxied = Proxied { satellite, address: String::new() };
    proxied.start_again();
    let (_, head) = proxied.connect("registry.test:443", "");
    assert!(
        head.starts_with("HTTP/1.1 407 ") && head.contains("proxy-authenticate: Basic"),
        "{head}"
    );
    let basic = |pair: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Proxy-Authorization: Basic {pair}\r\n")
    };
    assert!(proxied.connect("registry.test:443", &basic("edge:wrong")).1.contains(" 407 "));
    assert!(proxied.connect("registry.test:443", &basic("edge:secret")).1.contains(" 200 "));
    let plain = |lines: &str| {
        let head =
            "GET http://registry.test/v2/app/manifests/1 HTTP/1.1\r\nHost: registry.test\r\n";
        proxied.send(&format!("{head}{lines}\r\n")).1
    };
    assert!(plain("").contains(" 407 ") && plain(&basic("edge:secret")).contains(" 200 "));
    // Within the tunnel they need none: registries are not given credentials that are the proxy's.
    let authority = proxied.authority();
    proxied.address = format!("edge:secret@{}", proxied.address);
    let got = proxied.get(&authority, "https://registry.test/v2/app/manifests/1");
    assert_eq!(got, Ok((200, image.manifest.clone())));
}
