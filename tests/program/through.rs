//! What clients ask for and is not held: fetched on demand, once, and served as it lands; never a
//! whole wrong answer, and never a question to an upstream that is not configured for it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moonlet::oci::Digest;
use rustix::process::Signal;

use crate::client::Client;
use crate::many_images::{Answer, ManyImages, Request};
use crate::registry::Image;
use crate::satellite::{Satellite, get, start_with, wait_until};

/// A satellite that holds `images` of the registry, and fetches on demand what `lines` let it.
pub fn pulling(name: &str, registry: &ManyImages, images: &[&str], lines: &str) -> Satellite {
    let lines = format!("url = \"{}\"\npull_through = true\n{lines}", registry.url());
    start_with(name, "1s", &[("registry.test", &lines)], images)
}

pub fn layer_path(image: &Image) -> String {
    format!("/v2/app/blobs/{}", Digest::sha256(&image.layer))
}

/// Bytes of a blob that the registry was asked for.
pub fn asked_bytes(registry: &ManyImages, bytes: &[u8]) -> usize {
    let digest = Digest::sha256(bytes).to_string();
    let asked = registry.asked().into_iter().filter(|asked| asked.is("GET", &digest));
    asked.map(|asked| asked.range.map_or(bytes.len(), |r| r.end.min(bytes.len()) - r.start)).sum()
}

/// Holds back every part of a blob but the first, until it is opened.
pub fn gate(registry: &ManyImages) -> Arc<AtomicBool> {
    let gate = Arc::new(AtomicBool::new(false));
    let shut = Arc::clone(&gate);
    registry.fault(move |request, _| {
        while request.range.as_ref().is_some_and(|range| range.start > 0)
            && !shut.load(Ordering::Relaxed)
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    });
    gate
}

#[test]
fn a_herd_makes_one_download() {
    let registry = ManyImages::start();
    let image = Image::new(1, LAYER_BYTES);
    registry.push("1", &image);
    let satellite = pulling("herd", &registry, &[], "");
    let gate = gate(&registry);
    let (path, served) = (layer_path(&image), satellite.served.as_str());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    let client = Client::ask(served, "GET", "/v2/app/manifests/1", "");
                    assert!(client.status == 200 && client.rest() == image.manifest);
                    let client = Client::ask(served, "GET", &path, "");
                    (client.status, client.rest())
                })
            })
            .collect();
        registry.await_count("GET", "/blobs/", 1);
        gate.store(true, Ordering::Relaxed);
        for client in clients {
            let (status, bytes) = client.join().unwrap();
            assert!(status == 200 && bytes == image.layer, "{status}, {} bytes", bytes.len());
        }
    });
    assert_eq!(asked_bytes(&registry, &image.layer), LAYER_BYTES);
    assert_eq!(registry.count("GET", "/manifests/"), 1);
    assert_eq!(registry.count("HEAD", "/manifests/"), 1, "a minute has not passed");
    assert_eq!(registry.count("GET", &Digest::sha256(&image.config).to_string()), 0, "not asked");
}

#[test]
fn a_blob_is_served_as_it_lands_and_goes_on_without_its_client() {
    let registry = ManyImages::start();
    let image = Image::new(1, LAYER_BYTES);
    registry.push("1", &image);
    let satellite = pulling("lands", &registry, &[], "");
    let gate = gate(&registry);
    let path = layer_path(&image);
    let mut client = Client::ask(&satellite.served, "GET", &path, "");
    let length = format!("content-length: {LAYER_BYTES}\r\n");
    assert!(client.status == 200 && client.head.contains(&length), "{}", client.head);
    assert!(client.read(EARLY_BYTES) == image.layer[..EARLY_BYTES]);
    drop(client);
    let head = Client::ask(&satellite.served, "HEAD", &path, "");
    assert!(head.status == 200 && head.head.contains(&length), "{}", head.head);
    let part = Client::ask(&satellite.served, "GET", &path, "Range: bytes=5-104\r\n");
    assert!(part.head.contains(&format!("content-range: bytes 5-104/{LAYER_BYTES}")));
    assert!(part.status == 206 && part.rest() == image.layer[5..105]);
    let outside = format!("Range: bytes={LAYER_BYTES}-\r\n");
    assert_eq!(Client::ask(&satellite.served, "GET", &path, &outside).status, 416);
    let later = Client::ask(&satellite.served, "GET", &path, "Range: bytes=3000000-\r\n");
    assert_eq!(later.status, 206);
    gate.store(true, Ordering::Relaxed);
    assert!(later.rest() == image.layer[3_000_000..]);
    assert_eq!(asked_bytes(&registry, &image.layer), LAYER_BYTES);
    registry.fault(|_, _| Some(Answer::status(503)));
    assert!(satellite.get(&path) == (200, image.layer.clone()));
}

#[test]
fn an_image_and_a_client_share_a_download() {
    let registry = ManyImages::start();
    let image = Image::new(1, LAYER_BYTES);
    registry.push("1", &image);
    let gate = gate(&registry);
    let satellite = pulling("share", &registry, &["registry.test/app:1"], "");
    registry.await_count("GET", &Digest::sha256(&image.layer).to_string(), 1);
    let mut client = Client::ask(&satellite.served, "GET", &layer_path(&image), "");
    assert!(client.read(EARLY_BYTES) == image.layer[..EARLY_BYTES]);
    gate.store(true, Ordering::Relaxed);
    assert!(client.rest() == image.layer[EARLY_BYTES..]);
    satellite.await_line("held at");
    assert_eq!(asked_bytes(&registry, &image.layer), LAYER_BYTES);
}

/// A limited link has one slot for images, which a layer may have for hours.
#[test]
fn a_client_does_not_wait_for_the_layers_of_images() {
    let registry = ManyImages::start();
    let (image, other) = (Image::new(1, LAYER_BYTES), Image::new(2, LAYER_BYTES));
    registry.push("1", &image);
    registry.push("2", &other);
    let held_back = Digest::sha256(&image.layer).to_string();
    registry.fault(move |request, truth| {
        let stalls_at = request.is("GET", &held_back).then_some(1000);
        Some(Answer { stalls_at, ..truth.clone() })
    });
    let limited = "[link]\nrate_max = \"100MiB/s\"";
    let satellite = pulling("slots", &registry, &["registry.test/app:1"], limited);
    registry.await_count("GET", &Digest::sha256(&image.layer).to_string(), 1);
    assert!(satellite.get(&layer_path(&other)) == (200, other.layer.clone()));
    assert!(!satellite.log().contains("trying again"), "{}", satellite.log());
}

/// A bare name is that of what is held first, then of the first upstream that has it; whether one
/// has it must be known before the next is asked.
#[test]
fn a_bare_name_is_found_in_the_order_of_the_upstreams() {
    let (first, second) = (ManyImages::start(), ManyImages::start());
    let (image, other) = (Image::new(1, 300_000), Image::new(2, 300_000));
    second.push("1", &image);
    second.push("2", &other);
    let lines =
        |registry: &ManyImages| format!("url = \"{}\"\npull_through = true", registry.url());
    let (one, two) = (lines(&first), lines(&second));
    let upstreams = [("first.test", one.as_str()), ("second.test", two.as_str())];
    let satellite = start_with("order", "1s", &upstreams, &["second.test/app:1"]);
    satellite.await_line("held at");
    assert!(satellite.get("/v2/other/manifests/2") == (200, other.manifest.clone()));
    assert!(first.count("HEAD", "other/manifests/2") == 1, "it was asked first");
    first.fault(|_, _| Some(Answer::status(500)));
    assert_eq!(satellite.get("/v2/another/manifests/2").0, 503, "the first may have another");
    assert_eq!(second.count("HEAD", "another/"), 0);
    second.fault(|_, _| Some(Answer::status(500)));
    assert!(satellite.get("/v2/app/manifests/1") == (200, image.manifest.clone()));
    assert!(satellite.get(&layer_path(&image)) == (200, image.layer.clone()));
    assert_eq!(first.count("HEAD", "app/manifests/1"), 0, "what is held needs no upstream");
}

/// A connection to `served` from another address of the loopback.
fn connect_from(address: [u8; 4], served: &str) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((address, 0))).unwrap();
    connect(&socket, &served.parse::<SocketAddr>().unwrap()).unwrap();
    TcpStream::from(socket)
}

#[test]
fn a_client_that_asks_for_much_keeps_no_other_from_its_first_blob() {
    let registry = ManyImages::start();
    let image = Image::new(1, LAYER_BYTES);
    registry.push("1", &image);
    let satellite = pulling("greedy", &registry, &[], "");
    let mine = Digest::sha256(&image.layer).to_string();
    let others: Vec<String> = (0..20_u8)
        .map(|number| {
            let bytes = vec![number; LAYER_BYTES];
            let digest = Digest::sha256(&bytes).to_string();
            registry.blob(&digest, &bytes);
            digest
        })
        .collect();
    let slow = others.clone();
    registry.fault(move |request, truth| {
        let is_slow = slow.iter().any(|digest| request.path.contains(digest));
        is_slow.then(|| Answer { stalls_at: Some(EARLY_BYTES), ..truth.clone() })
    });
    let greedy: Vec<TcpStream> = others
        .iter()
        .map(|digest| {
            let mut stream = connect_from([127, 0, 0, 2], &satellite.served);
            write!(stream, "GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    registry.await_count("GET", "/blobs/", 3);
    let refused = || {
        let is_refused = |stream: &&TcpStream| {
            let mut begin = [0; 12];
            matches!(stream.peek(&mut begin), Ok(12)) && begin.ends_with(b"503")
        };
        greedy.iter().filter(is_refused).count()
    };
    wait_until(|| refused() == 4, || format!("{} are refused\n{}", refused(), satellite.log()));
    let client = Client::ask(&satellite.served, "GET", &format!("/v2/app/blobs/{mine}"), "");
    assert!((client.status, client.rest()) == (200, image.layer.clone()));
    assert_eq!(registry.count("GET", "/blobs/") - registry.count("GET", &mine), 3);
}

#[test]
fn wrong_bytes_are_never_a_whole_answer() {
    let registry = ManyImages::start();
    let image = Image::new(1, LAYER_BYTES);
    registry.push("1", &image);
    let satellite = pulling("wrong", &registry, &[], "");
    registry.fault(|request, truth| {
        let mut answer = truth.clone();
        let is_last = request.range.as_ref()?.end >= LAYER_BYTES;
        *answer.body.last_mut().filter(|_| is_last)? ^= 1;
        Some(answer)
    });
    let path = layer_path(&image);
    let client = Client::ask(&satellite.served, "GET", &path, "");
    assert_eq!(client.status, 200);
    let bytes = client.rest();
    assert!(bytes.len() < LAYER_BYTES && image.layer.starts_with(&bytes), "{}", bytes.len());
    let spent = asked_bytes(&registry, &image.layer);
    let rest = format!("Range: bytes={}-\r\n", bytes.len());
    assert_eq!(Client::ask(&satellite.served, "GET", &path, &rest).status, 503);
    assert_eq!(Client::ask(&satellite.served, "GET", &path, "").status, 503);
    assert_eq!(asked_bytes(&registry, &image.layer), spent, "no more is spent on it for now");
    registry.honest();
    wait_until(|| satellite.get(&path) == (200, image.layer.clone()), || satellite.log());
}

#[test]
fn what_was_cut_goes_on_where_it_was_after_a_pause_or_a_stop() {
    let registry = ManyImages::start();
    let image = Image::new(1, LAYER_BYTES);
    registry.push("1", &image);
    let mut satellite = pulling("cut", &registry, &[], "");
    registry.fault(|request, _| {
        let is_later = request.range.as_ref()?.start > 0;
        is_later.then(|| Answer::status(500))
    });
    let path = layer_path(&image);
    let bytes = Client::ask(&satellite.served, "GET", &path, "").rest();
    assert!(bytes.len() >= EARLY_BYTES && image.layer.starts_with(&bytes), "{}", bytes.len());
    let rest = format!("Range: bytes={}-\r\n", bytes.len());
    assert_eq!(Client::ask(&satellite.served, "GET", &path, &rest).status, 503);
    registry.honest();
    wait_until(
        || Client::ask(&satellite.served, "GET", &path, &rest).status == 206,
        || satellite.log(),
    );
    assert!(satellite.get(&path) == (200, image.layer.clone()));
    assert_eq!(asked_from(&registry, &image.layer).iter().filter(|start| **start == 0).count(), 1);

    let other = Image::new(2, LAYER_BYTES);
    registry.push("2", &other);
    let gate = gate(&registry);
    let mut client = Client::ask(&satellite.served, "GET", &layer_path(&other), "");
    client.read(EARLY_BYTES);
    assert_eq!(satellite.stop(Signal::TERM), Some(0), "{}", satellite.log());
    gate.store(true, Ordering::Relaxed);
    satellite.start_again();
    assert!(satellite.get(&layer_path(&other)) == (200, other.layer.clone()));
    assert_eq!(asked_from(&registry, &other.layer).iter().filter(|start| **start == 0).count(), 1);
}

/// Where each request for a blob began.
fn asked_from(registry: &ManyImages, bytes: &[u8]) -> Vec<usize> {
    let digest = Digest::sha256(bytes).to_string();
    let asked = registry.asked().into_iter().filter(|asked| asked.is("GET", &digest));
    asked.map(|asked| asked.range.map_or(0, |range| range.start)).collect()
}

#[test]
fn what_was_fetched_outlives_passes_restarts_and_the_upstream() {
    let registry = ManyImages::start();
    let (image, next) = (Image::new(1, LAYER_BYTES), Image::new(2, 300_000));
    registry.push("1", &image);
    let mut satellite = pulling("stale", &registry, &[], "tag_ttl = \"1s\"");
    let tag = "/v2/app/manifests/1";
    assert_eq!(satellite.get(tag), (200, image.manifest.clone()));
    assert!(satellite.get(&layer_path(&image)) == (200, image.layer.clone()));
    (0..3).for_each(|_| drop(satellite.await_line("sync: ")));
    for status in [401, 403, 404, 429, 500, 503] {
        satellite.kill();
        satellite.start_again();
        registry.fault(move |_, _| Some(Answer::status(status)));
        for accept in ["*/*", "application/vnd.oci.image.manifest.v1+json", "text/html"] {
            let lines = format!("Accept: {accept}\r\n");
            let client = Client::ask(&satellite.served, "GET", tag, &lines);
            assert!(client.head.contains("warning: 110 "), "{status}: {}", client.head);
            assert!(client.status == 200 && client.rest() == image.manifest, "{status}");
        }
        let missing = satellite.get("/v2/app/manifests/missing").0;
        assert_eq!(missing, if status < 405 { 404 } else { 503 }, "{status}");
        assert!(satellite.get(&layer_path(&image)) == (200, image.layer.clone()), "{status}");
    }
    registry.push("1", &next);
    registry.honest();
    let is_next = || {
        let client = Client::ask(&satellite.served, "GET", tag, "");
        !client.head.contains("warning: ") && client.rest() == next.manifest
    };
    wait_until(is_next, || satellite.log());
}

#[test]
fn an_upstream_that_is_away_is_not_waited_for_each_time() {
    let satellite = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let lines = format!("url = \"http://{gone}\"\npull_through = true");
        start_with("away", "1s", &[("registry.test", &lines)], &[])
    };
    let blob = format!("/v2/app/blobs/{}", Digest::sha256(b"x"));
    let manifest = format!("/v2/app/manifests/{}", Digest::sha256(b"x"));
    for path in ["/v2/app/manifests/1", &blob, &manifest] {
        let (status, body) = satellite.get(path);
        assert_eq!(status, 503, "{path}: {}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn a_registry_that_wants_a_pause_has_it() {
    let registry = ManyImages::start();
    let satellite = pulling("pause", &registry, &[], "");
    registry.fault(|_, _| Some(Answer::status(429).with("Retry-After", 600)));
    assert_eq!(satellite.get("/v2/app/manifests/1").0, 503);
    let asked = registry.asked().len();
    registry.honest();
    registry.push("1", &Image::new(1, 300_000));
    for path in ["/v2/app/manifests/1", "/v2/other/manifests/2"] {
        assert_eq!(satellite.get(path).0, 503, "{path}");
    }
    let blob = format!("/v2/app/blobs/{}", Digest::sha256(b"x"));
    assert_eq!(satellite.get(&blob).0, 503);
    assert_eq!((registry.asked().len(), asked), (1, 1));
}

#[test]
fn what_is_not_there_is_not_asked_for_again_at_once() {
    let registry = ManyImages::start();
    let image = Image::new(1, 300_000);
    registry.push("1", &image);
    let satellite = pulling("none", &registry, &[], "");
    let nothing = Digest::sha256(b"nothing");
    for path in [
        "/v2/app/manifests/none".to_owned(),
        format!("/v2/app/manifests/{nothing}"),
        format!("/v2/other/blobs/{nothing}"),
    ] {
        for method in ["HEAD", "GET", "GET"] {
            let client = Client::ask(&satellite.served, method, &path, "");
            assert_eq!(client.status, 404, "{method} {path}");
            let body = String::from_utf8(client.rest()).unwrap();
            assert!(method == "HEAD" || body.contains("_UNKNOWN"), "{body}");
        }
    }
    assert_eq!(registry.count("HEAD", "/manifests/none"), 1);
    assert_eq!(registry.count("GET", &format!("/manifests/{nothing}")), 1);
    let blobs = registry.asked();
    let blobs = blobs.iter().filter(|asked| asked.path.contains("/blobs/"));
    assert_eq!(blobs.count(), 1);
    // By digest alone, as a runtime does that resolved the tag elsewhere.
    let path = format!("/v2/app/manifests/{}", Digest::sha256(&image.manifest));
    assert_eq!(satellite.get(&path), (200, image.manifest.clone()));
}

/// A store that takes no writes says nothing of what its registry has.
#[test]
fn what_cannot_be_kept_is_not_called_unknown() {
    let registry = ManyImages::start();
    let held = Image::new(1, 300_000);
    registry.push("1", &held);
    let mut satellite = pulling("kept", &registry, &["registry.test/app:1"], "");
    wait_until(|| satellite.get("/v2/app/manifests/1").0 == 200, || satellite.log());
    assert_eq!(satellite.stop(Signal::TERM), Some(0));
    let chmod = |mode: &str, name: &str| {
        let path = satellite.directory.join(name);
        let status = Command::new("chmod").args(["-R", mode]).arg(path).status().unwrap();
        assert!(status.success());
    };
    chmod("a-w,a+rX", "store");
    chmod("a+r", "moonlet.toml");
    satellite.is_nobody = true;
    satellite.start_again();
    registry.push("2", &Image::new(2, 1_000));
    let (status, body) = satellite.get("/v2/app/manifests/2");
    let body = String::from_utf8(body).unwrap();
    assert_eq!(status, 503, "{body} {}", satellite.log());
    assert_eq!(satellite.get("/v2/app/manifests/1"), (200, held.manifest.clone()));
    satellite.kill();
    let path = satellite.directory.join("store");
    assert!(Command::new("chmod").args(["-R", "u+w"]).arg(path).status().unwrap().success());
}

#[test]
fn only_what_is_allowed_is_fetched() {
    let registry = ManyImages::start();
    registry.push("1", &Image::new(1, 300_000));
    let limits = "allow = [\"library/*\", \"team/**\"]\ndeny = [\"team/secret\"]";
    let satellite = pulling("allow", &registry, &[], limits);
    let blob = Digest::sha256(b"x");
    for (name, status) in [
        ("team/secret", 404),
        ("app", 404),
        ("library/a/b", 404),
        ("other.test/library/a", 404),
        ("127.0.0.1:1/library/a", 404),
        ("registry.test/team/secret", 404),
        ("library/..", 400),
        ("library/A", 400),
        ("library/%2e%2e%2f%2e%2e", 400),
    ] {
        for path in [format!("/v2/{name}/manifests/1"), format!("/v2/{name}/blobs/{blob}")] {
            assert_eq!(satellite.get(&path).0, status, "{path}");
        }
    }
    assert_eq!(satellite.get("/v2/library/app/manifests/1?ns=other.test").0, 404);
    assert_eq!(satellite.get("/v2/library/app/manifests/no%20tag").0, 404);
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
    // The registry knows repositories of one part only.
    for (path, status) in [
        ("/v2/library/app/manifests/1", 404),
        ("/v2/team/a/b/manifests/1?ns=registry.test", 404),
        ("/v2/registry.test/team/manifests/1", 200),
    ] {
        assert_eq!(satellite.get(path).0, status, "{path}");
    }
    let asked: Vec<String> = registry.asked().into_iter().map(|asked| asked.path).collect();
    for name in ["library/app/", "team/a/b/", "team/manifests/"] {
        assert!(asked.iter().any(|path| path.starts_with(name)), "{name} in {asked:?}");
    }
}

#[test]
fn a_cache_gives_way_and_what_is_desired_stays() {
    let registry = ManyImages::start();
    let images: Vec<Image> = (0..12).map(|seed| Image::new(seed, LAYER_BYTES)).collect();
    for (number, image) in images.iter().enumerate() {
        registry.push(&number.to_string(), image);
    }
    let satellite = pulling("evict", &registry, &["registry.test/app:0"], "tag_ttl = \"1h\"");
    let admin = satellite.await_line("status, metrics and health on ");
    let admin = admin.rsplit(' ').next().unwrap();
    satellite.await_line("held at");
    let pull = |number: usize| {
        let image = &images[number];
        let tag = format!("/v2/app/manifests/{number}");
        assert_eq!(satellite.get(&tag), (200, image.manifest.clone()), "{number}");
        assert!(satellite.get(&layer_path(image)) == (200, image.layer.clone()), "{number}");
    };
    (1..images.len()).for_each(pull);
    assert!(satellite.log().contains("are evicted, least recently used"), "{}", satellite.log());
    registry.forget();
    pull(1);
    let layer = Digest::sha256(&images[1].layer).to_string();
    assert!(registry.count("GET", &layer) > 0, "it had given way, and came again");
    let metrics = String::from_utf8(get(admin, "/metrics", "").1).unwrap();
    let metric = |name: &str| -> usize {
        let line = metrics.lines().find(|line| line.starts_with(&format!("moonlet_{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    // Of 1 to 11 and of 1 again a tag and a layer each, of which each tag is a manifest's.
    assert_eq!(metric("pull_through_bytes_total"), 12 * LAYER_BYTES);
    assert_eq!(metric("pull_through_misses_total"), 2 * 12);
    pull(1);
    let metrics = String::from_utf8(get(admin, "/metrics", "").1).unwrap();
    assert!(metrics.contains("\nmoonlet_pull_through_hits_total 2\n"), "{metrics}");
    registry.fault(|_: &Request, _| Some(Answer::status(503)));
    pull(0);
    pull(1);
    // What is larger than all that may be evicted evicts nothing.
    registry.honest();
    registry.push("huge", &Image::new(99, 40 << 20));
    let huge = Image::new(99, 40 << 20);
    assert_eq!(satellite.get(&layer_path(&huge)).0, 503);
    registry.fault(|_: &Request, _| Some(Answer::status(503)));
    pull(0);
    pull(1);
}

/// ManyImages chunks, and whole program units: all of it is on flash before its digest is known.
const LAYER_BYTES: usize = 1099 * 4096;
/// Less than the first chunk.
const EARLY_BYTES: usize = 900_000;

#[test]
fn what_is_cached_is_listed_kept_and_removed() {
    let registry = ManyImages::start();
    for (tag, seed) in [("1", 1), ("2", 2), ("3", 3)] {
        registry.push(tag, &Image::new(seed, 300_000));
    }
    let mut satellite = pulling("cached", &registry, &["registry.test/app:3"], "");
    let line = satellite.await_line("status, metrics and health on ");
    let admin = line.rsplit(' ').next().unwrap();
    satellite.await_line("registry.test/app:3: held at");
    for tag in ["1", "2"] {
        assert_eq!(satellite.get(&format!("/v2/app/manifests/{tag}")).0, 200);
    }
    let list = |satellite: &Satellite| satellite.run(&["image", "ls", "--cached"]).1;
    let live = String::from_utf8(get(admin, "/status/cached", "").1).unwrap();
    satellite.kill();
    for found in [live, list(&satellite)] {
        let has = |tag| found.contains(&format!("registry.test/app:{tag}"));
        assert!(has(1) && has(2) && !has(3), "the third is desired: {found}");
    }
    assert_eq!(satellite.run(&["image", "pin", "registry.test/app:1"]).0, 0);
    assert_eq!(satellite.run(&["image", "rm", "registry.test/app:2"]).0, 0);
    let (code, _, err) = satellite.run(&["image", "pin", "registry.test/app:2"]);
    assert!(code == 2 && err.contains("is not held"), "{err}");
    satellite.start_again();
    satellite.await_line("sync: 1 images held");
    satellite.kill();
    assert_eq!(list(&satellite), "nothing is held that is not desired\n");
    let (_, images, _) = satellite.run(&["image", "ls"]);
    assert!(images.contains("registry.test/app:1"), "{images}");
}
