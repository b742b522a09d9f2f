//! The read API over a socket, byte by byte.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::*;
use crate::clock::SystemClock;
use crate::net::http::{Listener, ServerLimits};
use crate::oci::Algorithm;

const GEOMETRY: Geometry =
    Geometry { segment_count: 256, segment_bytes: 65536, program_bytes: 4096, reprogram: true };

/// What one request is answered with.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    /// Without the date.
    head: Vec<String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.iter().find_map(|line| line.strip_prefix(&prefix))
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn ask(address: SocketAddr, method: &str, path: &str, lines: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    let fixed = "Host: h\r\nConnection: close\r\n";
    write!(stream, "{method} {path} HTTP/1.1\r\n{fixed}{lines}\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut head: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
    head.retain(|line| !line.starts_with("date: "));
    let status = head.remove(0).split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// A store that can be filled before it is served.
struct Held {
    store: Store,
}

impl Held {
    fn new() -> Self {
        let device = Arc::new(sim::Device::new(GEOMETRY));
        let (store, _) = Store::open(device, Rc::new(Metrics::default())).unwrap();
        Self { store }
    }

    fn put(&self, algorithm: Algorithm, bytes: &[u8], media_type: Option<&str>) -> Digest {
        let digest = algorithm.digest(bytes);
        smol::block_on(self.store.put(&digest, bytes, media_type)).unwrap();
        digest
    }

    fn manifest(&self, text: &str) -> Digest {
        self.put(Algorithm::Sha256, text.as_bytes(), Some(media_type::OCI_MANIFEST))
    }

    fn tag(&self, registry: &str, repository: &str, tag: &str, digest: &Digest) {
        let [registry, repository, tag] = [registry, repository, tag].map(str::to_owned);
        let key = TagKey { registry, repository, tag };
        smol::block_on(self.store.set_tag(&key, digest)).unwrap();
    }

    /// Serves it to `clients`, which run on another thread.
    fn serve(self, registries: &[&str], clients: impl FnOnce(SocketAddr) + Send + 'static) {
        let catalog = Catalog::new(self.store.clone());
        catalog.refresh().unwrap();
        let registries = registries.iter().map(|name| (*name).to_owned()).collect();
        let api = Rc::new(Api::new(self.store, catalog, registries));
        let executor = smol::LocalExecutor::new();
        smol::block_on(executor.run(async {
            let any = "127.0.0.1:0".parse().unwrap();
            let (limits, metrics) = (ServerLimits::default(), Rc::new(Metrics::default()));
            let listener = Listener::bind(any, None, limits, metrics, Rc::new(SystemClock::new()))
                .await
                .unwrap();
            let address = listener.local_addr();
            let accepting = async {
                loop {
                    let (connection, api) = (listener.accept().await.unwrap(), Rc::clone(&api));
                    executor
                        .spawn(async move {
                            let _ = connection.serve(api.as_ref()).await;
                        })
                        .detach();
                }
            };
            smol::future::or(smol::unblock(move || clients(address)), accepting).await;
        }));
    }
}

fn image(fields: &str) -> String {
    let config = Digest::sha256(b"{}");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"c","digest":"{config}","size":2}},"layers":[]{fields}}}"#,
        media_type::OCI_MANIFEST
    )
}

fn referrer(subject: &Digest, fields: &str) -> String {
    let subject = format!(
        r#""subject":{{"mediaType":"{}","digest":"{subject}","size":1}}"#,
        media_type::OCI_MANIFEST
    );
    image(&format!(",{subject}{fields}"))
}

#[test]
fn head_says_what_get_does() {
    let held = Held::new();
    let blob = held.put(Algorithm::Sha256, &[7; 70_000], None);
    let manifest = held.manifest(&image(""));
    held.manifest(&referrer(&manifest, r#","artifactType":"sig""#));
    held.tag("docker.io", "app", "1", &manifest);
    held.serve(&["docker.io"], move |address| {
        let fallback = manifest.to_tag();
        for (path, lines, status) in [
            ("/v2/".to_owned(), "", 200),
            ("/v2/_catalog".to_owned(), "", 200),
            ("/v2/_catalog?n=x".to_owned(), "", 400),
            ("/v2/app/tags/list".to_owned(), "", 200),
            ("/v2/app/manifests/1".to_owned(), "", 200),
            (format!("/v2/app/manifests/{manifest}"), "", 200),
            (format!("/v2/app/manifests/{fallback}"), "", 200),
            ("/v2/app/manifests/2".to_owned(), "", 404),
            ("/v2/app/manifests/sha256:0".to_owned(), "", 400),
            ("/v2/other/manifests/1".to_owned(), "", 404),
            (format!("/v2/app/blobs/{blob}"), "", 200),
            (format!("/v2/app/blobs/{blob}"), "Range: bytes=5-9\r\n", 206),
            (format!("/v2/app/blobs/{blob}"), "Range: bytes=70000-\r\n", 416),
            (format!("/v2/app/blobs/{}", Digest::sha256(b"")), "", 404),
            (format!("/v2/app/referrers/{manifest}"), "", 200),
            (format!("/v2/app/referrers/{manifest}?artifactType=x"), "", 200),
            ("/v2/app/referrers/1".to_owned(), "", 400),
        ] {
            let get = ask(address, "GET", &path, lines);
            assert_eq!(get.status, status, "{path}");
            assert_eq!(get.header("content-length"), Some(&*get.body.len().to_string()), "{path}");
            let head = ask(address, "HEAD", &path, lines);
            assert_eq!(head, Answer { body: Vec::new(), ..get }, "{path}");
        }
    });
}

#[test]
fn odd_content_is_served_as_any_other() {
    let held = Held::new();
    let empty = held.put(Algorithm::Sha256, b"", None);
    let blob = held.put(Algorithm::Sha512, b"0123456789", None);
    let text = image("");
    let kind = Some(media_type::OCI_MANIFEST);
    let manifest = held.put(Algorithm::Sha512, text.as_bytes(), kind);
    let mut large = image("");
    large.push_str(&" ".repeat((4 << 20) - large.len()));
    let large_digest = held.manifest(&large);
    held.tag("docker.io", "app", "1", &manifest);
    held.tag("docker.io", "app", "large", &large_digest);
    held.serve(&["docker.io"], move |address| {
        let get = |path: String| ask(address, "GET", &path, "");
        let answer = get(format!("/v2/app/blobs/{empty}"));
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!(answer.header("content-length"), Some("0"));
        let range = ask(address, "GET", &format!("/v2/app/blobs/{empty}"), "Range: bytes=0-\r\n");
        assert_eq!((range.status, range.header("content-range")), (416, Some("bytes */0")));
        let answer = get(format!("/v2/app/blobs/{blob}"));
        let digest = blob.to_string();
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(answer.body, b"0123456789");
        for reference in ["1".to_owned(), manifest.to_string()] {
            let answer = get(format!("/v2/app/manifests/{reference}"));
            assert_eq!((answer.status, answer.body), (200, text.clone().into_bytes()));
        }
        let answer = get("/v2/app/manifests/large".to_owned());
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some(media_type::OCI_MANIFEST));
        assert!(answer.body == large.as_bytes());
    });
}

#[test]
fn repositories_are_listed_by_names_that_lead_to_them() {
    let held = Held::new();
    let manifest = held.manifest(&image(""));
    for (registry, repository) in [
        ("docker.io", "library/busybox"),
        ("docker.io", "app"),
        ("localhost:5000", "app"),
        ("localhost:5000", "tools/cli"),
        ("gone.test", "app"),
    ] {
        held.tag(registry, repository, "1", &manifest);
        held.tag(registry, repository, "2", &manifest);
    }
    held.serve(&["docker.io", "localhost:5000"], move |address| {
        let list = |path: &str| {
            let answer = ask(address, "GET", path, "");
            let link = answer.header("link").map(str::to_owned);
            (answer.json()["repositories"].clone(), link)
        };
        let all = ["app", "library/busybox", "localhost:5000/app", "tools/cli"];
        assert_eq!(list("/v2/_catalog"), (json!(all), None));
        for name in all {
            let answer = ask(address, "GET", &format!("/v2/{name}/manifests/1"), "");
            assert_eq!(answer.status, 200, "{name}");
        }
        let next = "</v2/_catalog?n=2&last=library%2Fbusybox>; rel=\"next\"".to_owned();
        assert_eq!(list("/v2/_catalog?n=2"), (json!(all[..2]), Some(next)));
        assert_eq!(list("/v2/_catalog?n=2&last=library%2Fbusybox"), (json!(all[2..]), None));
        assert_eq!(list("/v2/_catalog?n=0"), (json!([]), None));
        let of_one = list("/v2/_catalog?ns=localhost:5000");
        assert_eq!(of_one, (json!(["app", "tools/cli"]), None));
    });
}

#[test]
fn a_registry_with_a_port_is_named_as_any_other() {
    let held = Held::new();
    let manifest = held.manifest(&image(""));
    held.tag("localhost:5000", "library/busybox", "1", &manifest);
    held.serve(&["docker.io", "localhost:5000"], move |address| {
        for path in [
            "/v2/localhost:5000/library/busybox/manifests/1",
            "/v2/localhost%3A5000/library/busybox/manifests/1",
            "/v2/LOCALHOST:5000/library%2fbusybox/manifests/1",
            "/v2/library/busybox/manifests/1",
            "/v2/library/busybox/manifests/1?ns=localhost:5000",
            "/v2/library/busybox/manifests/1?ns=localhost%3A5000",
        ] {
            assert_eq!(ask(address, "GET", path, "").status, 200, "{path}");
        }
        let other = "/v2/localhost:5001/library/busybox/manifests/1";
        let answer = ask(address, "GET", other, "");
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["errors"][0]["code"], "NAME_UNKNOWN");
    });
}

#[test]
fn the_fallback_tag_lists_referrers() {
    let held = Held::new();
    let manifest = held.manifest(&image(""));
    let signature = held.manifest(&referrer(&manifest, r#","artifactType":"sig""#));
    held.tag("docker.io", "app", "1", &manifest);
    let tagged = signature.to_tag();
    held.tag("docker.io", "app", &tagged, &manifest);
    held.serve(&["docker.io"], move |address| {
        let get = |tag: String| ask(address, "GET", &format!("/v2/app/manifests/{tag}"), "");
        let answer = get(manifest.to_tag());
        assert_eq!(answer.header("content-type"), Some(media_type::OCI_INDEX));
        let digest = Digest::sha256(&answer.body).to_string();
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(answer.json()["manifests"][0]["digest"], signature.to_string());
        let api = ask(address, "GET", &format!("/v2/app/referrers/{manifest}"), "");
        assert_eq!(api.body, answer.body);
        // A tag that is held is what it is.
        let digest = manifest.to_string();
        assert_eq!(get(tagged).header("docker-content-digest"), Some(digest.as_str()));
        let unknown = Digest::sha256(b"unknown").to_string();
        for tag in [unknown.replace(':', "-"), format!("{}.sig", digest.replace(':', "-"))] {
            let answer = get(tag);
            assert_eq!(answer.status, 404);
            assert_eq!(answer.json()["errors"][0]["code"], "MANIFEST_UNKNOWN");
        }
    });
}

#[test]
fn many_referrers_come_in_pages_of_bounded_work() {
    const COUNT: usize = 300;
    let held = Held::new();
    let manifest = held.manifest(&image(""));
    held.tag("docker.io", "app", "1", &manifest);
    let text = "x".repeat(15_000);
    for number in 0..COUNT {
        let fields = format!(r#","artifactType":"t","annotations":{{"{number}":"{text}"}}"#);
        held.manifest(&referrer(&manifest, &fields));
    }
    let long = format!(r#","artifactType":"t","annotations":{{"long":"{}"}}"#, " ".repeat(70_000));
    let long = held.manifest(&referrer(&manifest, &long));
    held.serve(&["docker.io"], move |address| {
        let mut path = format!("/v2/app/referrers/{manifest}?artifactType=t");
        let (mut pages, mut seen) = (0, std::collections::BTreeSet::new());
        loop {
            let answer = ask(address, "GET", &path, "");
            assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
            let list = answer.json();
            for entry in list["manifests"].as_array().unwrap() {
                let digest = entry["digest"].as_str().unwrap().to_owned();
                // Annotations of a manifest that is too long are not read.
                let annotations = entry["annotations"].as_object().map_or(0, serde_json::Map::len);
                assert_eq!(annotations, usize::from(digest != long.to_string()));
                assert!(seen.insert(digest));
            }
            pages += 1;
            let Some(link) = answer.header("link") else { break };
            let target = link.strip_prefix('<').unwrap().split_once('>').unwrap().0;
            path = target.to_owned();
        }
        assert_eq!((pages, seen.len()), (2, COUNT + 1));
    });
}
