//! Untrusted input over HTTP, and what must hold for any: what clients send to the read API, what
//! registries answer to our client, and manifests.
//!
//! Each input is a connection of its own over loopback, all ends of it on one thread. What is sent is
//! ended by FIN, so that nothing waits for a deadline.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;

use moonlet::blob::{Store, TagKey};
use moonlet::catalog::Catalog;
use moonlet::clock::{SharedClock, SystemClock};
use moonlet::flash::{Geometry, sim};
use moonlet::metrics::Metrics;
use moonlet::net::http::{
    Client, ClientLimits, ClientRequest, Headers, Listener, Method, ServerLimits,
};
use moonlet::net::{Network, tls};
use moonlet::oci::{Digest, Manifest, media_type};
use moonlet::serve::Api;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{Async, LocalExecutor};

/// What reads the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Sends requests.
    Client,
    /// Answers ours.
    Registry,
    /// Has made a manifest.
    Manifest,
}

/// Reads an input, and asserts what must hold for any.
pub fn check(target: Target, input: &[u8]) {
    match target {
        Target::Client => WORLD.with(|world| world.take_requests(input)),
        Target::Registry => WORLD.with(|world| world.take_answer(input)),
        Target::Manifest => read_manifest(input),
    }
}

thread_local! {
    static WORLD: World = World::new();
}

/// The read API over a small store, and somebody who answers as a registry does.
struct World {
    executor: Rc<LocalExecutor<'static>>,
    api: SocketAddr,
    registry: Async<TcpListener>,
    clock: SharedClock,
}

impl World {
    fn new() -> Self {
        let executor = Rc::new(LocalExecutor::new());
        let clock: SharedClock = Rc::new(SystemClock::new());
        let api = Rc::new(read_api());
        let limits = ServerLimits::default();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listening = Listener::bind(any, None, limits, Rc::default(), Rc::clone(&clock));
        let listener = smol::block_on(listening).unwrap();
        let address = listener.local_addr();
        let spawner = Rc::clone(&executor);
        let serving = async move {
            loop {
                let connection = listener.accept().await.unwrap();
                let api = Rc::clone(&api);
                let talk = async move { drop(connection.serve(api.as_ref()).await) };
                spawner.spawn(talk).detach();
            }
        };
        executor.spawn(serving).detach();
        let registry = Async::<TcpListener>::bind(any).unwrap();
        Self { executor, api: address, registry, clock }
    }

    /// The first byte says where the rest is sent in two.
    fn take_requests(&self, input: &[u8]) {
        let Some((at, bytes)) = input.split_first() else { return };
        let (first, second) = bytes.split_at(usize::from(*at) % (bytes.len() + 1));
        let talk = async {
            let mut stream = Async::<TcpStream>::connect(self.api).await.unwrap();
            // What is refused may be closed before all of it was sent.
            let _ = stream.write_all(first).await;
            smol::future::yield_now().await;
            let _ = stream.write_all(second).await;
            let _ = stream.get_ref().shutdown(Shutdown::Write);
            let mut answers = Vec::new();
            let _ = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answers).await;
            answers
        };
        let answers = smol::block_on(self.executor.run(talk));
        if !answers.is_empty() {
            let head = answers.get(..13).unwrap_or_default();
            let status = std::str::from_utf8(head).ok().and_then(|h| h.strip_prefix("HTTP/1.1 "));
            let status = status.and_then(|rest| rest.trim_end().parse::<u16>().ok());
            assert!(status.is_some_and(|one| STATUSES.contains(&one)), "{head:?}");
        }
    }

    fn take_answer(&self, input: &[u8]) {
        let options = tls::ClientOptions::default();
        let trust = tls::Trust::new(options, Rc::clone(&self.clock));
        let client = Client::new(trust, Network::default(), ClientLimits::default());
        let address = self.registry.get_ref().local_addr().unwrap();
        let url = format!("http://{address}/v2/").parse().unwrap();
        let (method, headers, body) = (Method::Get, Headers::new(), Vec::new());
        let request = ClientRequest { method, url, headers, body };
        let answering = async {
            let (mut stream, _) = self.registry.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(input).await;
        };
        let asking = async {
            let mut response = client.send(request).await.ok()?;
            let (mut buffer, mut total) = ([0; 4096], 0_u64);
            loop {
                match response.body.read(&mut buffer).await.ok()? {
                    0 => return response.body.len().map(|stated| (stated, total)),
                    bytes => total += bytes as u64,
                }
            }
        };
        let both = smol::future::zip(answering, asking);
        let (_, whole) = smol::block_on(self.executor.run(both));
        // A body that ends well has the length that was stated, and no more than came.
        if let Some((stated, total)) = whole {
            assert!(stated == total && total <= input.len() as u64, "{total} of {stated} bytes");
        }
    }
}

/// The first byte says as what type it came.
fn read_manifest(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let types = [None, Some(media_type::OCI_MANIFEST), Some(media_type::OCI_INDEX), Some("a/b")];
    let content_type = types[usize::from(*kind) % types.len()];
    let read = Manifest::read(bytes, content_type);
    let parsed = Manifest::parse(bytes, content_type);
    assert_eq!(read.is_ok(), parsed.is_ok());
    if let Ok(manifest) = read {
        // No more is named than there was room for.
        assert!(manifest.children().len() * 32 <= bytes.len());
    }
    let _ = Manifest::annotations(bytes);
}

/// An image of two blobs under `registry.test/app:1`, and a list of what refers to it.
fn read_api() -> Api {
    let geometry =
        Geometry { segment_count: 16, segment_bytes: 65536, program_bytes: 4096, reprogram: true };
    let device = Arc::new(sim::Device::new(geometry));
    let (store, _) = Store::open(device, Rc::new(Metrics::default())).unwrap();
    let (config, layer) = (Digest::sha256(b"{}"), Digest::sha256(LAYER));
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{config}","size":2}},
        "layers":[{{"mediaType":"l","digest":"{layer}","size":{}}}]}}"#,
        LAYER.len()
    );
    let digest = Digest::sha256(manifest.as_bytes());
    smol::block_on(async {
        store.put(&config, b"{}", None).await.unwrap();
        store.put(&layer, LAYER, None).await.unwrap();
        let kind = Some(media_type::OCI_MANIFEST);
        store.put(&digest, manifest.as_bytes(), kind).await.unwrap();
        let (registry, repository) = ("registry.test".to_owned(), "app".to_owned());
        let key = TagKey { registry, repository, tag: "1".to_owned() };
        store.set_tag(&key, &digest).await.unwrap();
    });
    let catalog = Catalog::new(store.clone());
    catalog.refresh().unwrap();
    Api::new(store, catalog, vec!["registry.test".to_owned()])
}

const LAYER: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// More than all that there is, many times.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// What a client may be answered; 500 is none of them.
const STATUSES: [u16; 14] = [100, 200, 206, 400, 401, 403, 404, 405, 408, 416, 417, 431, 503, 505];

/// What to begin with.
pub fn seeds(target: Target) -> Vec<Vec<u8>> {
    let layer = Digest::sha256(LAYER);
    let text = match target {
        Target::Client => {
            let get = |path: &str, lines: &str| {
                format!("\u{7f}GET {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
            };
            let blob = format!("/v2/app/blobs/{layer}");
            vec![
                get("/v2/", ""),
                get("/v2/app/manifests/1?ns=registry.test", "Accept: a/b\r\nAccept: c/d, */*\r\n"),
                get(&blob, "Range: bytes=0-3,-2,7-\r\n"),
                get(&blob, "Range: bytes=5-\r\nConnection: close\r\n") + "GET /v2/ HTTP/1.1\r\n",
                get(&format!("/v2/app/referrers/{layer}?artifactType=a%2Fb"), ""),
                get("/v2/registry.test/app/tags/list?n=1&last=%41", ""),
                get("/v2/_catalog?n=0", "Authorization: Basic Og==\r\n"),
                format!("\u{1}HEAD {blob} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
                "\u{9}PUT /v2/app/manifests/1 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\
                 Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n"
                    .to_owned(),
                // One digit more than a length has.
                "\u{9}PUT /v2/app/manifests/1 HTTP/1.1\r\nHost: h\r\n\
                 Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n"
                    .to_owned(),
                "\u{9}POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
                    .to_owned(),
                "\u{9}CONNECT registry.test:443 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            ]
        }
        Target::Registry => vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nDocker-Content-Digest: x\r\n\r\nabc"
                .to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n"
                .to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n"
                .to_owned(),
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"http://a\",scope=\"b\"\r\n\
             Content-Length: 0\r\n\r\n"
                .to_owned(),
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 307 x\r\nLocation: //h/a?b\r\n\r\n".to_owned(),
            "HTTP/1.0 206 x\r\nContent-Range: bytes 0-2/3\r\nConnection: close\r\n\r\nabc"
                .to_owned(),
        ],
        Target::Manifest => vec![
            format!(
                r#"0{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
                "config":{{"mediaType":"c","digest":"{layer}","size":2}},"layers":[
                {{"mediaType":"l","digest":"{layer}","size":10,"urls":["u"]}}],
                "subject":{{"mediaType":"m","digest":"{layer}","size":1}},"artifactType":"t",
                "annotations":{{"a":"b"}}}}"#
            ),
            format!(
                r#"2{{"schemaVersion":2,"manifests":[{{"mediaType":
                "application/vnd.oci.image.manifest.v1+json","digest":"{layer}","size":7,"platform":
                {{"os":"linux","architecture":"arm","variant":"v7"}},"annotations":{{"k":"v"}}}}]}}"#
            ),
        ],
    };
    text.into_iter().map(String::into_bytes).collect()
}
