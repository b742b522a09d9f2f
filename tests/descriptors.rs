//! A process that runs out of file descriptors. Alone in its file: the limit is the process's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::TcpStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use moonlet::clock::SystemClock;
use moonlet::metrics::Metrics;
use moonlet::net::http::{
    Handler, Headers, Listener, ResponseBody, ServerLimits, ServerRequest, ServerResponse,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Plain;

impl Handler for Plain {
    async fn handle(&self, _: ServerRequest) -> ServerResponse {
        let body = ResponseBody::Bytes(b"answer".as_slice().into());
        ServerResponse { status: 200, headers: Headers::new(), body }
    }
}

/// Counts what is said of accepting.
struct Lines;

static SAID: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.args().to_string().contains("accept on") {
            SAID.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

#[test]
fn idle_connections_make_room_and_it_is_said_once() {
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let executor = Rc::new(smol::LocalExecutor::new());
    smol::block_on(executor.run(async {
        let any = "127.0.0.1:0".parse().unwrap();
        let metrics = Rc::new(Metrics::default());
        let limits = ServerLimits { connections_max: 1000, ..ServerLimits::default() };
        let listener =
            Listener::bind(any, None, limits, metrics, Rc::new(SystemClock::new())).await.unwrap();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let address = listener.local_addr();
            let mut client = smol::Async::<TcpStream>::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
            clients.push(client);
        }
        // Of all that have connected, so few can be accepted at a time.
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(open + 3);
        setrlimit(Resource::Nofile, limit).unwrap();
        let spawner = Rc::clone(&executor);
        let serving = executor.spawn(async move {
            loop {
                let connection = listener.accept().await.unwrap();
                spawner.spawn(async move { connection.serve(&Plain).await }).detach();
            }
        });
        // None of them ever closes.
        for client in &mut clients {
            let mut answer = [0; 15];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
        }
        serving.cancel().await;
    }));
    assert_eq!(SAID.load(Ordering::Relaxed), 1);
}

const CLIENTS: usize = 24;
