//! What clients cost that ask and do not read: 127 of them for a manifest of 4 MiB, then for a list
//! of long referrers. Alone in its file: the heap is the process's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod heap;

use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use moonlet::blob::{Store, TagKey};
use moonlet::catalog::Catalog;
use moonlet::clock::SystemClock;
use moonlet::metrics::Metrics;
use moonlet::net::http::{Listener, ServerLimits};
use moonlet::oci::{Digest, media_type};
use moonlet::serve::Api;
use smol::LocalExecutor;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CLIENTS: u64 = 127;
/// Of which the kernel takes less than the answers have.
const RECEIVE_BYTES: usize = 4096;
const MANIFEST_BYTES: usize = 4 << 20;
/// A buffer, a block of the answer and the state of a connection.
const HEAP_BYTES_EACH: usize = 32 << 10;

/// A manifest of `length` bytes that refers to `subject`, if there is one.
fn manifest(length: usize, subject: Option<&Digest>, annotations: &str) -> String {
    let config = Digest::sha256(b"{}");
    let subject = subject.map_or(String::new(), |subject| {
        format!(
            r#","subject":{{"mediaType":"{}","digest":"{subject}","size":1}}"#,
            media_type::OCI_MANIFEST
        )
    });
    let mut text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"c","digest":"{config}","size":2}},"layers":[]{subject},"annotations":{{"a":"{annotations}"}}}}"#,
        media_type::OCI_MANIFEST
    );
    text.push_str(&" ".repeat(length.saturating_sub(text.len())));
    text
}

async fn put(store: &Store, text: String) -> Digest {
    let digest = Digest::sha256(text.as_bytes());
    store.put(&digest, text.as_bytes(), Some(media_type::OCI_MANIFEST)).await.unwrap();
    digest
}

/// Clients that ask for `path` and read nothing; returns them and what they cost at most.
async fn crowd(address: SocketAddr, path: &str, metrics: &Metrics) -> usize {
    heap::forget_peak();
    let (before, answered) = (heap::bytes(), metrics.http_requests.value());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = smol::Async::<TcpStream>::connect(address).await.unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&client, RECEIVE_BYTES).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 15];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        clients.push(client);
    }
    // The kernel may take a whole answer for a client that does not.
    let done = || metrics.http_requests.value() - answered + metrics.http_sending.value();
    while done() < CLIENTS {
        smol::future::yield_now().await;
    }
    let cost = heap::peak_bytes() - before;
    drop(clients);
    while metrics.http_connections.value() > 0 {
        smol::future::yield_now().await;
    }
    cost
}

#[test]
fn clients_that_do_not_read_cost_a_buffer_each() {
    let path = std::env::temp_dir().join(format!("moonlet-crowd-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let device = moonlet::flash::open(&path, Some(64 << 20)).unwrap();
    let metrics = Rc::new(Metrics::default());
    let (store, _) = Store::open(device, Rc::clone(&metrics)).unwrap();
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let image = put(&store, manifest(MANIFEST_BYTES, None, "")).await;
        for number in 0..2 {
            put(&store, manifest(MANIFEST_BYTES - number, Some(&image), "")).await;
        }
        for number in 0..60 {
            let text = format!("{number}{}", "x".repeat(15_000));
            put(&store, manifest(0, Some(&image), &text)).await;
        }
        let tag = TagKey { registry: "r".into(), repository: "app".into(), tag: "1".into() };
        store.set_tag(&tag, &image).await.unwrap();
        let catalog = Catalog::new(store.clone());
        catalog.refresh().unwrap();
        let api = Rc::new(Api::new(store, catalog, vec!["r".to_owned()]));
        let any = "127.0.0.1:0".parse().unwrap();
        let limits = ServerLimits::default();
        let listener =
            Listener::bind(any, None, limits, Rc::clone(&metrics), Rc::new(SystemClock::new()))
                .await
                .unwrap();
        let address = listener.local_addr();
        let spawner = Rc::clone(&executor);
        let serving = executor.spawn(async move {
            loop {
                let (connection, api) = (listener.accept().await.unwrap(), Rc::clone(&api));
                spawner.spawn(async move { connection.serve(api.as_ref()).await }).detach();
            }
        });
        for path in ["/v2/app/manifests/1".to_owned(), format!("/v2/app/referrers/{image}")] {
            let cost = crowd(address, &path, &metrics).await;
            println!("{path}: {} KiB for {CLIENTS} clients", cost >> 10);
            assert!(cost / 127 < HEAP_BYTES_EACH, "{path}: {cost} bytes");
        }
        serving.cancel().await;
    }));
    std::fs::remove_dir_all(&path).unwrap();
}
