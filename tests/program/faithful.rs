//! The pull API to the letter, by raw HTTP: what the distribution-spec demands, and what the
//! clients of the field send and trip over. What is asked for is odd content too; the upstream is
//! gone when it is asked for again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moonlet::oci::Algorithm;
use serde_json::{Value, json};

use crate::client::Client;
use crate::many_images::{Answer, ManyImages};
use crate::registry::{Image, MANIFEST};
use crate::satellite::{Satellite, prepare, text, wait_until};
use crate::through::pulling;

/// A satellite that was asked for an image and odd content on demand, and whose upstream is gone.
struct Fixture {
    satellite: Satellite,
    image: Image,
    /// By sha512, as are its parts.
    long: Vec<u8>,
    nested: Vec<u8>,
    outer: Vec<u8>,
    large: Vec<u8>,
}

fn index(children: &[(&str, &[u8])]) -> Vec<u8> {
    let children = children.iter().map(|(kind, bytes)| {
        let digest = Algorithm::Sha256.digest(bytes).to_string();
        let platform = json!({"os": "linux", "architecture": "arm"});
        json!({"mediaType": kind, "digest": digest, "size": bytes.len(), "platform": platform})
    });
    let children: Vec<Value> = children.collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    index.to_string().into_bytes()
}

fn fixture(name: &str) -> Fixture {
    let registry = ManyImages::start();
    let (image, absent) = (Image::new(1, 300_000), Image::new(2, 10));
    for tag in ["b", "B", "a10", "a2"] {
        registry.push(tag, &image);
    }
    let empty: &[u8] = b"";
    registry.blob(&Algorithm::Sha256.digest(empty).to_string(), empty);
    let parts = [(&b"{}"[..], "config"), (&b"0123456789"[..], "layer")].map(|(bytes, kind)| {
        let digest = Algorithm::Sha512.digest(bytes).to_string();
        registry.blob(&digest, bytes);
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    });
    let long = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0],
        "layers": [parts[1]]});
    let long = long.to_string().into_bytes();
    registry.manifest(&Algorithm::Sha512.digest(&long).to_string(), &long);
    // Of the inner index one child is not at the registry either.
    let nested = index(&[(MANIFEST, &image.manifest), (MANIFEST, &absent.manifest)]);
    let outer = index(&[(INDEX, &nested)]);
    let mut large = image.manifest.clone();
    large.resize(4 << 20, b' ');
    for (tag, bytes) in [("nested", &nested), ("outer", &outer), ("large", &large)] {
        registry.manifest(&Algorithm::Sha256.digest(bytes).to_string(), bytes);
        registry.manifest(tag, bytes);
    }
    let satellite = pulling(name, &registry, &[], "tag_ttl = \"1h\"");
    let fixture = Fixture { satellite, image, long, nested, outer, large };
    for path in fixture.held() {
        assert_eq!(fixture.ask("GET", &path, "").status, 200, "{path}");
    }
    registry.fault(|_, _| Some(Answer::status(503)));
    fixture
}

impl Fixture {
    fn ask(&self, method: &str, path: &str, lines: &str) -> Client {
        Client::ask(&self.satellite.served, method, path, lines)
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let client = self.ask("GET", path, "");
        assert_eq!(client.status, 200, "{path}");
        client.rest()
    }

    fn list(&self, path: &str) -> (Value, Option<String>) {
        let client = self.ask("GET", path, "");
        assert_eq!((client.status, client.line("content-type")), (200, Some("application/json")));
        let link = client.line("link").map(str::to_owned);
        (serde_json::from_slice(&client.rest()).unwrap(), link)
    }

    /// Paths of all that there is.
    fn held(&self) -> Vec<String> {
        let sha256 = |bytes: &[u8]| Algorithm::Sha256.digest(bytes).to_string();
        let sha512 = |bytes: &[u8]| Algorithm::Sha512.digest(bytes).to_string();
        let tags = ["b", "B", "a10", "a2", "nested", "outer", "large"].map(str::to_owned);
        let manifests = [&self.image.manifest, &self.nested, &self.outer, &self.large];
        let manifests = manifests.map(|bytes| sha256(bytes));
        let blobs = [&self.image.config, &self.image.layer, &Vec::new()].map(|bytes| sha256(bytes));
        let long = [&b"{}"[..], b"0123456789"].map(sha512);
        let manifests = tags.into_iter().chain(manifests).chain([sha512(&self.long)]);
        let blobs = blobs.into_iter().chain(long).map(|digest| format!("/v2/app/blobs/{digest}"));
        manifests.map(|name| format!("/v2/app/manifests/{name}")).chain(blobs).collect()
    }
}

#[test]
fn exact_bytes_come_under_their_digest_and_type() {
    let fixture = fixture("faithful-exact");
    for path in fixture.held() {
        let head = fixture.ask("HEAD", &path, "");
        let client = fixture.ask("GET", &path, "");
        assert_eq!((client.status, &client.head), (200, &head.head), "{path}");
        assert_eq!(head.rest(), b"", "{path}");
        let digest = client.line("docker-content-digest").unwrap().to_owned();
        let kind = client.line("content-type").unwrap().to_owned();
        let length = client.line("content-length").unwrap().to_owned();
        assert_eq!(client.line("content-encoding"), None);
        let bytes = client.rest();
        assert_eq!(bytes.len().to_string(), length, "{path}");
        let name = path.rsplit('/').next().unwrap();
        assert!(name == digest || !name.contains(':'), "{path} is {digest}");
        let algorithm =
            if digest.starts_with("sha512") { Algorithm::Sha512 } else { Algorithm::Sha256 };
        assert_eq!(algorithm.digest(&bytes).to_string(), digest, "{path}");
        let expected = match serde_json::from_slice::<Value>(&bytes) {
            Ok(manifest) if path.contains("/manifests/") => manifest["mediaType"].clone(),
            _ => json!("application/octet-stream"),
        };
        assert_eq!(expected, kind, "{path}");
    }
    let empty = Algorithm::Sha256.digest(b"");
    let range = fixture.ask("GET", &format!("/v2/app/blobs/{empty}"), "Range: bytes=0-\r\n");
    assert_eq!((range.status, range.line("content-range")), (416, Some("bytes */0")));
}

#[test]
fn a_sparse_index_is_served_and_what_it_lacks_is_not_there() {
    let fixture = fixture("faithful-sparse");
    assert_eq!(fixture.get("/v2/app/manifests/nested"), fixture.nested);
    assert_eq!(fixture.get("/v2/app/manifests/outer"), fixture.outer);
    let absent = Algorithm::Sha256.digest(&Image::new(2, 10).manifest);
    let client = fixture.ask("GET", &format!("/v2/app/manifests/{absent}"), "");
    // Its upstream is away: that is no word about what it has.
    assert_eq!(client.status, 503);
}

#[test]
fn whatever_a_client_accepts_it_is_given_what_is_held() {
    let fixture = fixture("faithful-accept");
    let skopeo = [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    ];
    let six: String = skopeo.map(|kind| format!("Accept: {kind}\r\n")).concat();
    let containerd = format!("Accept: {}, */*\r\n", skopeo.join(", "));
    for lines in [six.as_str(), &containerd, "Accept: text/html\r\n", ""] {
        for method in ["GET", "HEAD"] {
            let client = fixture.ask(method, "/v2/app/manifests/b?ns=registry.test", lines);
            assert_eq!((client.status, client.line("content-type")), (200, Some(MANIFEST)));
            assert_eq!(client.line("oci-namespace"), Some("registry.test"));
        }
    }
    let path = format!("/v2/app/blobs/{}", Algorithm::Sha256.digest(&fixture.image.layer));
    let coded = "Accept-Encoding: zstd;q=1.0, gzip;q=0.8, deflate;q=0.5\r\n";
    let client = fixture.ask("GET", &path, coded);
    assert_eq!(client.line("content-encoding"), None);
    assert_eq!(client.line("oci-namespace"), None);
    assert!(client.rest() == fixture.image.layer);
}

#[test]
fn tags_are_in_the_order_of_bytes_and_come_in_pages() {
    let fixture = fixture("faithful-tags");
    let tags = |path: &str| {
        let (list, link) = fixture.list(path);
        assert_eq!(list["name"], "app");
        (list["tags"].clone(), link)
    };
    let all = ["B", "a10", "a2", "b", "large", "nested", "outer"];
    assert_eq!(tags("/v2/app/tags/list"), (json!(all), None));
    let next = "</v2/app/tags/list?n=2&last=a10>; rel=\"next\"".to_owned();
    assert_eq!(tags("/v2/app/tags/list?n=2"), (json!(all[..2]), Some(next)));
    assert_eq!(tags("/v2/app/tags/list?n=9&last=b"), (json!(all[4..]), None));
    assert_eq!(tags("/v2/app/tags/list?n=0"), (json!([]), None));
    assert_eq!(fixture.list("/v2/_catalog").0, json!({"repositories": ["app"]}));
}

#[test]
fn what_is_refused_says_why_in_the_words_of_the_specification() {
    let fixture = fixture("faithful-errors");
    let unknown = Algorithm::Sha256.digest(b"unknown");
    for (method, path, status, code) in [
        ("GET", "/v2/App/manifests/b".to_owned(), 400, "NAME_INVALID"),
        ("GET", "/v2/app/manifests/sha256:0".to_owned(), 400, "DIGEST_INVALID"),
        ("GET", "/v2/app/blobs/sha256:0".to_owned(), 400, "DIGEST_INVALID"),
        ("GET", "/v2/app/referrers/b".to_owned(), 400, "DIGEST_INVALID"),
        ("GET", format!("/v2/app/blobs/{unknown}?ns=other.test"), 404, "NAME_UNKNOWN"),
        ("GET", "/v2/app/manifests/b?ns=other.test".to_owned(), 404, "NAME_UNKNOWN"),
        ("GET", "/v2/app/tags/list?ns=other.test".to_owned(), 404, "NAME_UNKNOWN"),
        ("GET", "/v2/other/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("GET", "/v2/app/tags/list?n=x".to_owned(), 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/elsewhere".to_owned(), 404, "NAME_UNKNOWN"),
        ("POST", "/v2/app/blobs/uploads/".to_owned(), 405, "UNSUPPORTED"),
        ("POST", format!("/v2/app/blobs/uploads/?mount={unknown}&from=x"), 405, "UNSUPPORTED"),
        ("PATCH", "/v2/app/blobs/uploads/1".to_owned(), 405, "UNSUPPORTED"),
        ("PUT", "/v2/app/manifests/b".to_owned(), 405, "UNSUPPORTED"),
        ("DELETE", "/v2/app/manifests/b".to_owned(), 405, "UNSUPPORTED"),
        ("BREW", "/v2/".to_owned(), 405, "UNSUPPORTED"),
    ] {
        let client = fixture.ask(method, &path, "");
        assert_eq!(client.status, status, "{method} {path}");
        assert_eq!(client.line("content-type"), Some("application/json"));
        let allow = client.line("allow").map(str::to_owned);
        assert_eq!(allow.as_deref(), (status == 405).then_some("get, head"));
        let problem: Value = serde_json::from_slice(&client.rest()).unwrap();
        assert_eq!(problem["errors"][0]["code"], code, "{method} {path}");
        assert!(problem["errors"][0]["message"].is_string());
        if method == "GET" {
            let head = fixture.ask("HEAD", &path, "");
            assert_eq!(head.status, status, "HEAD {path}");
            assert_eq!(head.rest(), b"");
        }
    }
}

#[test]
fn referrers_are_always_a_list() {
    let fixture = fixture("faithful-referrers");
    for subject in [b"unknown".as_slice(), &fixture.image.manifest] {
        let path = format!("/v2/app/referrers/{}", Algorithm::Sha256.digest(subject));
        let client = fixture.ask("GET", &format!("{path}?artifactType=a%2Fb"), "");
        assert_eq!((client.status, client.line("content-type")), (200, Some(INDEX)));
        assert_eq!(client.line("oci-filters-applied"), Some("artifacttype"));
        let list: Value = serde_json::from_slice(&client.rest()).unwrap();
        assert_eq!(list, json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}));
        assert_eq!(fixture.ask("GET", &path, "").line("oci-filters-applied"), None);
    }
}

#[test]
fn what_clients_do_to_connections_is_borne() {
    let fixture = fixture("faithful-connections");
    let layer = &fixture.image.layer;
    let path = format!("/v2/app/blobs/{}", Algorithm::Sha256.digest(layer));
    // containerd asks for all from somewhere on, and leaves after a piece.
    for _ in 0..20 {
        let mut client = fixture.ask("GET", &path, "Range: bytes=1000-\r\n");
        assert!(client.status == 206 && client.read(64) == layer[1000..1064]);
    }
    // regclient goes on up to one byte behind the end.
    let client = fixture.ask("GET", &path, "Range: bytes=299990-300000\r\n");
    assert_eq!(client.line("content-range"), Some("bytes 299990-299999/300000"));
    assert!(client.status == 206 && client.rest() == layer[299_990..]);
    // podman's longest line.
    let ranges: Vec<String> =
        (0..1024).map(|at| format!("{}-{}", at * 200, at * 200 + 9)).collect();
    let client = fixture.ask("GET", &path, &format!("Range: bytes={}\r\n", ranges.join(",")));
    assert!(client.status == 200 && client.rest() == *layer);
    // One connection, several requests, of which the second comes before the first is answered.
    let mut stream = TcpStream::connect(&fixture.satellite.served).unwrap();
    let ping = "GET /v2/ HTTP/1.1\r\nHost: x\r\n";
    let part = format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0,9-9\r\n\r\n");
    write!(stream, "{ping}\r\n{part}{ping}Connection: close\r\n\r\n").unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text);
    let answers = text.split("HTTP/1.1 ").skip(1);
    let statuses: Vec<&str> = answers.map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "206", "200"]);
    // docker, podman and skopeo try TLS first.
    let mut stream = TcpStream::connect(&fixture.satellite.served).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    assert!(text.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&text));
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// HEAD and GET, of whatever is there or not, are refused alike, before anything is said of it.
#[test]
fn passwords_are_asked_for_alike_and_guesses_have_to_wait() {
    let registry = ManyImages::start();
    registry.push("1", &Image::new(1, 1000));
    let mut satellite = prepare("faithful-passwords", |directory| {
        let path = directory.join("users");
        // Slow enough that what is sent at once waits for its turn.
        let hash = bcrypt::hash_with_salt("secret", 10, [1; 16]).unwrap();
        std::fs::write(&path, format!("edge:{hash}\n")).unwrap();
        let lines = format!("url = \"{}\"\npull_through = true", registry.url());
        let text = text(directory, "1s", &[("registry.test", &lines)], &[]);
        text.replacen("[serve]\n", &format!("[serve]\nhtpasswd = {path:?}\n"), 1)
    });
    satellite.start_again();
    let basic = |pair: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(pair));
    let code = |client: Client| {
        let problem: Value = serde_json::from_slice(&client.rest()).unwrap();
        problem["errors"][0]["code"].as_str().unwrap().to_owned()
    };
    let digest = Algorithm::Sha256.digest(b"x");
    let bearer = "Authorization: Bearer a.b.c\r\n".to_owned();
    for path in [
        "/v2/",
        "/v2/_catalog",
        "/v2/app/manifests/1",
        "/v2/none/tags/list",
        "/v2/App/manifests/1",
        "/elsewhere",
        &format!("/v2/app/blobs/{digest}"),
        &format!("/v2/app/referrers/{digest}"),
    ] {
        for lines in ["", &basic("nobody:secret"), &basic(":"), &bearer] {
            let get = Client::ask(&satellite.served, "GET", path, lines);
            let head = Client::ask(&satellite.served, "HEAD", path, lines);
            assert_eq!((get.status, &get.head), (401, &head.head), "{path} {lines}");
            let challenge = "basic realm=\"moonlet\", charset=\"utf-8\"";
            assert_eq!(get.line("www-authenticate"), Some(challenge), "{path} {lines}");
            assert_eq!((head.rest(), code(get).as_str()), (Vec::new(), "UNAUTHORIZED"));
        }
    }
    assert_eq!(registry.count("GET", "") + registry.count("HEAD", ""), 0);
    assert_eq!(Client::ask(&satellite.served, "PUT", "/v2/app/manifests/1", "").status, 401);

    // Of many guesses at once most are not even looked at, and say when to come back.
    let guesses: Vec<TcpStream> = (0..60)
        .map(|guess| {
            let mut stream = TcpStream::connect(&satellite.served).unwrap();
            let method = if guess % 2 == 0 { "GET" } else { "HEAD" };
            let lines = format!("Connection: close\r\n{}", basic(&format!("edge:{guess}")));
            write!(stream, "{method} /v2/ HTTP/1.1\r\nHost: x\r\n{lines}\r\n").unwrap();
            stream
        })
        .collect();
    let mut waited = [0, 0];
    for (guess, mut stream) in guesses.into_iter().enumerate() {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        if answer.starts_with("HTTP/1.1 429 ") {
            waited[guess % 2] += 1;
            assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
            assert_eq!(guess % 2 == 0, answer.contains("TOOMANYREQUESTS"), "{answer}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        }
    }
    assert!(waited.iter().all(|count| *count > 0), "GET and HEAD: {waited:?}");
    let good =
        || Client::ask(&satellite.served, "GET", "/v2/app/manifests/1", &basic("edge:secret"));
    wait_until(|| good().status == 200, || satellite.log());
    // What its registry does not have is not there; what it does not answer is not there now.
    let asked = |path: &str| Client::ask(&satellite.served, "GET", path, &basic("edge:secret"));
    let none = asked("/v2/app/manifests/none");
    assert_eq!((none.status, code(none).as_str()), (404, "MANIFEST_UNKNOWN"));
    let none = asked(&format!("/v2/app/blobs/{digest}"));
    assert_eq!((none.status, code(none).as_str()), (404, "BLOB_UNKNOWN"));
    registry.fault(|_, _| Some(Answer::status(429).with("Retry-After", 7)));
    let away = asked("/v2/app/manifests/other");
    assert_eq!((away.status, code(away).as_str()), (503, "UNAVAILABLE"));
}
