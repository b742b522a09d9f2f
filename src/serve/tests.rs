//! The read API over a simulated device.

use std::sync::Arc;

mod wire;

use super::*;
use crate::blob::TagKey;
use crate::flash::{Geometry, sim};
use crate::metrics::Metrics;
use crate::oci::media_type;

const GEOMETRY: Geometry =
    Geometry { segment_count: 16, segment_bytes: 65536, program_bytes: 4096, reprogram: true };

struct Fixture {
    api: Api,
    manifest: Digest,
    blob: Digest,
}

fn fixture() -> Fixture {
    let device = Arc::new(sim::Device::new(GEOMETRY));
    let (store, _) = Store::open(device, Rc::new(Metrics::default())).unwrap();
    let blob = Digest::sha256(b"0123456789");
    let config = Digest::sha256(b"{}");
    let manifest = |subject: &str| {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{config}","size":2}},
            "layers":[{{"mediaType":"l","digest":"{blob}","size":10}}]{subject}}}"#
        )
    };
    let bytes = manifest("");
    let digest = Digest::sha256(bytes.as_bytes());
    let subject = format!(
        r#","artifactType":"sig","subject":{{"mediaType":"m","digest":"{digest}","size":1}}"#
    );
    let referrer = manifest(&subject);
    smol::block_on(async {
        let kind = Some(media_type::OCI_MANIFEST);
        store.put(&blob, b"0123456789", None).await.unwrap();
        store.put(&config, b"{}", None).await.unwrap();
        store.put(&digest, bytes.as_bytes(), kind).await.unwrap();
        store.put(&Digest::sha256(referrer.as_bytes()), referrer.as_bytes(), kind).await.unwrap();
        for (registry, tag) in [("docker.io", "a"), ("docker.io", "b"), ("quay.io", "q")] {
            let (registry, tag) = (registry.to_owned(), tag.to_owned());
            let key = TagKey { registry, repository: "app/web".to_owned(), tag };
            store.set_tag(&key, &digest).await.unwrap();
        }
    });
    let catalog = Catalog::new(store.clone());
    catalog.refresh().unwrap();
    let registries = vec!["docker.io".to_owned(), "quay.io".to_owned()];
    Fixture { api: Api::new(store, catalog, registries), manifest: digest, blob }
}

impl Fixture {
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> ServerResponse {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut lines = Headers::new();
        headers.iter().for_each(|(name, value)| lines.append(name, value));
        let peer = ([127, 0, 0, 1], 1).into();
        let path = path.to_owned();
        let (method, origin) = (Method::Get, None);
        let request =
            ServerRequest { method, origin, path, query, headers: lines, peer, certificate: None };
        let caller = Caller::new(&request, None, false);
        smol::block_on(self.api.answer(&request, &caller))
    }

    fn text(&self, path: &str) -> String {
        read(self.get(path, &[]))
    }
}

fn read(response: ServerResponse) -> String {
    match response.body {
        ResponseBody::Empty => String::new(),
        ResponseBody::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        ResponseBody::Files { .. } | ResponseBody::Parts(_) => {
            panic!("expected no files, no parts")
        }
        ResponseBody::Stream { len, mut source } => {
            let mut buffer = vec![0; usize::try_from(len).unwrap()];
            let length = smol::block_on(source.read(&mut buffer)).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        }
    }
}

#[test]
fn three_ways_of_naming() {
    let fixture = fixture();
    for path in [
        "/v2/app/web/manifests/a",
        "/v2/docker.io/app/web/manifests/b",
        "/v2/app/web/manifests/q?ns=quay.io",
        "/v2/quay.io/app/web/manifests/q",
    ] {
        let response = fixture.get(path, &[]);
        assert_eq!(response.status, 200, "{path}");
        let digest = fixture.manifest.to_string();
        assert_eq!(response.headers.get("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(response.headers.get("content-type"), Some(media_type::OCI_MANIFEST));
        assert_eq!(Digest::sha256(read(response).as_bytes()), fixture.manifest);
    }
    assert_eq!(fixture.get("/v2/app/web/manifests/q", &[]).status, 404, "the first that has it");
    assert_eq!(fixture.get("/v2/app/web/manifests/a?ns=ghcr.io", &[]).status, 404);
    assert_eq!(fixture.get("/v2/", &[]).status, 200);
}

#[test]
fn what_is_held_is_served_whatever_is_accepted() {
    let fixture = fixture();
    for accept in [media_type::OCI_INDEX, "text/html", "application/vnd.docker.*", ""] {
        let response = fixture.get("/v2/app/web/manifests/a", &[("accept", accept)]);
        assert_eq!(response.status, 200, "{accept:?}");
        assert_eq!(response.headers.get("content-type"), Some(media_type::OCI_MANIFEST));
    }
}

#[test]
fn ranges_of_blobs() {
    let fixture = fixture();
    let path = format!("/v2/app/web/blobs/{}", fixture.blob);
    let response = fixture.get(&path, &[("range", "bytes=2-4")]);
    assert_eq!(response.status, 206);
    assert_eq!(response.headers.get("content-range"), Some("bytes 2-4/10"));
    assert_eq!(read(response), "234");
    let outside = fixture.get(&path, &[("range", "bytes=10-")]);
    assert_eq!((outside.status, outside.headers.get("content-range")), (416, Some("bytes */10")));
    let other = fixture.get(&path, &[("range", "bytes=2-4"), ("if-range", "\"other\"")]);
    assert_eq!(read(other), "0123456789");
}

#[test]
fn what_has_rotted_is_kept_back() {
    let fixture = fixture();
    let path = format!("/v2/app/web/blobs/{}", fixture.blob);
    let corrupt = std::collections::BTreeSet::from([0]);
    smol::block_on(fixture.api.store.set_corrupt(&fixture.blob, &corrupt)).unwrap();
    assert_eq!(fixture.get(&path, &[]).status, 503);
    assert_eq!(fixture.get(&path, &[("range", "bytes=2-4")]).status, 503);
    smol::block_on(fixture.api.store.repair(&fixture.blob, 0, b"0123456789")).unwrap();
    assert_eq!(fixture.text(&path), "0123456789");
}

#[test]
fn tags_are_paged() {
    let fixture = fixture();
    assert!(fixture.text("/v2/app/web/tags/list").contains(r#""tags":["a","b"]"#));
    let first = fixture.get("/v2/app/web/tags/list?n=1", &[]);
    let link = "</v2/app/web/tags/list?n=1&last=a>; rel=\"next\"";
    assert_eq!(first.headers.get("link"), Some(link));
    let second = fixture.get("/v2/app/web/tags/list?n=1&last=a", &[]);
    assert_eq!(second.headers.get("link"), None);
    assert!(read(second).contains(r#""tags":["b"]"#));
    assert!(fixture.text("/v2/app/web/tags/list?n=0").contains(r#""tags":[]"#));
    assert_eq!(fixture.get("/v2/app/web/tags/list?n=x", &[]).status, 400);
}

#[test]
fn referrers_are_filtered() {
    let fixture = fixture();
    let path = format!("/v2/app/web/referrers/{}", fixture.manifest);
    assert!(fixture.text(&path).contains(r#""artifactType":"sig""#));
    let none = fixture.get(&format!("{path}?artifactType=other"), &[]);
    assert_eq!(none.headers.get("oci-filters-applied"), Some("artifactType"));
    assert!(read(none).contains(r#""manifests":[]"#));
    let unknown = Digest::sha256(b"unknown");
    assert_eq!(fixture.get(&format!("/v2/app/web/referrers/{unknown}"), &[]).status, 200);
}

#[test]
fn writes_are_refused() {
    let fixture = fixture();
    for method in [Method::Post, Method::Put, Method::Patch, Method::Delete] {
        let request = ServerRequest {
            method,
            origin: None,
            path: "/v2/app/web/blobs/uploads/".to_owned(),
            query: Vec::new(),
            headers: Headers::new(),
            peer: ([127, 0, 0, 1], 1).into(),
            certificate: None,
        };
        let response = smol::block_on(fixture.api.handle(request));
        assert_eq!((response.status, response.headers.get("allow")), (405, Some("GET, HEAD")));
        assert!(read(response).contains("UNSUPPORTED"));
    }
}
