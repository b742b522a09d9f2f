//! Right answers in words that no specification has, and those that are not to be believed.

use moonlet::fetch::Latch;
use moonlet::kind::Kind;
use moonlet::net::http::Body;
use moonlet::oci::Digest;
use moonlet::pull::Puller;
use moonlet::registry::Opened;
use smol::block_on;

use crate::fn_registry::{Asked, FnRegistry, Reply, client, puller, reply};
use crate::registry::{Image, MANIFEST};

fn image() -> Image {
    Image::new(4, 100)
}

fn manifest() -> Reply {
    reply(200, image().manifest).with(format!("Content-Type: {MANIFEST}"))
}

#[test]
fn a_head_that_fails_is_followed_by_a_get() {
    let held = Digest::sha256(&image().manifest);
    for status in [400, 401, 403, 404, 405, 406, 500, 501, 502] {
        let registry = FnRegistry::start(move |asked| match asked.method.as_str() {
            "HEAD" => reply(status, ""),
            _ => manifest(),
        });
        assert_eq!(block_on(current(&puller(&registry.url()))).unwrap(), held, "{status}");
    }
}

#[test]
fn a_registry_without_digests_costs_one_request() {
    let registry = FnRegistry::start(|_| manifest());
    let ours = puller(&registry.url());
    let held = Digest::sha256(&image().manifest);
    for _ in 0..3 {
        assert_eq!(block_on(current(&ours)).unwrap(), held);
    }
    assert_eq!((registry.count("HEAD", ""), registry.count("GET", "/manifests/")), (1, 3));
}

#[test]
fn whoever_asks_to_be_left_alone_is() {
    let registry = FnRegistry::start(|_| reply(429, "").with("Retry-After: 77"));
    let error = block_on(current(&puller(&registry.url()))).unwrap_err();
    assert_eq!(error.kind(), Kind::Retry);
    assert_eq!(error.retry_after().unwrap().as_secs(), 77);
    assert!(error.to_string().contains("status 429 too many requests"), "{error}");
    assert_eq!(registry.asked().len(), 1);
}

#[test]
fn endless_manifests_are_not_hashed_to_the_end() {
    let registry = FnRegistry::start(|asked| match asked.method.as_str() {
        "HEAD" => reply(200, ""),
        _ => reply(200, vec![b' '; 5 << 20]),
    });
    let error = block_on(current(&puller(&registry.url()))).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

/// What `app:1` is now.
async fn current(ours: &Puller) -> Result<Digest, moonlet::pull::Error> {
    ours.current(&"odd.test/app:1".parse().unwrap(), &Latch::default()).await
}

/// What comes of a request for bytes 1,000 to 1,999 of 5,000, and the requests it took.
fn part(answer: impl Fn(&Asked, &[u8]) -> Reply + Send + Sync + 'static) -> (Opened, usize) {
    let layer = Image::new(9, 5000).layer;
    let digest = Digest::sha256(&layer);
    let registry = FnRegistry::start(move |asked| match asked.range() {
        None => reply(200, &layer),
        Some(_) => answer(asked, &layer),
    });
    let opened = block_on(client(&registry.url()).blob("app", &digest, 1000, 1999, Some(5000)));
    (opened.unwrap(), registry.asked().len())
}

async fn read(mut body: Body) -> Vec<u8> {
    let mut all = Vec::new();
    let mut block = vec![0; 1000];
    loop {
        match body.read(&mut block).await.unwrap() {
            0 => return all,
            got => all.extend_from_slice(&block[..got]),
        }
    }
}

#[test]
fn ranges_as_servers_answer_them() {
    let some = |first: usize, end: usize, line: &'static str| {
        move |_: &Asked, layer: &[u8]| reply(206, &layer[first..end]).with(line)
    };
    let cases = [
        ("right", part(some(1000, 2000, "Content-Range: bytes 1000-1999/5000")), (1000, 2000)),
        ("odd", part(some(1000, 2000, "Content-Range: Bytes=1000-1999 / *")), (1000, 2000)),
        ("earlier", part(some(0, 2000, "Content-Range: bytes 0-1999/5000")), (0, 2000)),
        ("capped", part(some(1000, 1400, "Content-Range: bytes 1000-1399/5000")), (1000, 1400)),
        ("ignored", part(|_, layer| reply(200, layer)), (0, 5000)),
    ];
    let layer = Image::new(9, 5000).layer;
    for (name, (opened, requests), (start, end)) in cases {
        assert_eq!((opened.start, opened.end, requests), (start, end, 1), "{name}");
        let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
        assert!(block_on(read(opened.body)) == layer[range], "{name}");
    }
}

#[test]
fn a_range_that_is_refused_or_odd_is_given_up() {
    let cases = [
        part(|_, _| reply(416, "")),
        part(|_, _| reply(400, "")),
        part(|_, _| reply(403, "")),
        part(|_, _| reply(501, "")),
        part(|_, layer| reply(206, &layer[1000..2000])),
        part(|_, layer| reply(206, &layer[..1000]).with("Content-Range: bytes 0-999/5000")),
        part(|_, layer| reply(206, &layer[1000..2000]).with("Content-Range: bytes 0-1999/5000")),
        part(|_, layer| reply(206, &layer[1000..2000]).with("Content-Range: bytes 1000-999/5000")),
        part(|_, layer| reply(206, layer).with("Content-Type: multipart/byteranges; boundary=x")),
    ];
    for (index, (opened, requests)) in cases.into_iter().enumerate() {
        assert_eq!((opened.start, opened.end, requests), (0, 5000, 2), "case {index}");
        assert!(block_on(read(opened.body)) == Image::new(9, 5000).layer, "case {index}");
    }
}

#[test]
fn long_header_lines_are_read() {
    let registry =
        FnRegistry::start(|_| manifest().with(format!("Link: {}", "x".repeat(32 << 10))));
    block_on(client(&registry.url()).open_manifest("app", "1")).unwrap();
}
