//! Server and client against each other, and the server against clients that misbehave.

use std::cell::Cell;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

mod certificates;
mod fair;
mod framing;
mod scripted;

use super::*;
use crate::clock::{SharedClock, SystemClock};
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::net::{Network, tls};
use std::rc::Rc;

/// A socket that says what it is given to say.
type Raw = smol::Async<TcpStream>;

/// Serves what the tests ask for.
#[derive(Default)]
struct Echo {
    leases: Rc<Cell<u32>>,
    file: Option<Arc<std::fs::File>>,
    /// What `/held` waits for, and how often it did.
    gate: Option<smol::channel::Receiver<()>>,
    held: Cell<u32>,
}

struct Lease(Rc<Cell<u32>>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Admits so many bytes at a time, after others had their turn, and none from byte `end` on.
struct Steps {
    bytes: u64,
    end: u64,
}

impl Gate for Steps {
    fn admit(&self, at: u64) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<u64>> + '_>> {
        Box::pin(async move {
            smol::future::yield_now().await;
            let bytes = self.bytes.min(self.end.saturating_sub(at));
            if bytes == 0 { Err(std::io::ErrorKind::InvalidData.into()) } else { Ok(bytes) }
        })
    }
}

/// Gives `rest` bytes, then fails.
struct Broken(u64);

impl Source for Broken {
    fn read<'a>(
        &'a mut self,
        buf: &'a mut [u8],
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<usize>> + 'a>> {
        Box::pin(async move {
            let give = usize::try_from(self.0).unwrap().min(buf.len());
            if give == 0 {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            buf[..give].fill(b'x');
            self.0 -= u64::try_from(give).unwrap();
            Ok(give)
        })
    }
}

impl Handler for Echo {
    async fn handle(&self, request: ServerRequest) -> ServerResponse {
        let mut headers = Headers::new();
        for value in request.headers.all("accept") {
            headers.append("x-accept", value);
        }
        if request.path == "/held" {
            self.held.set(self.held.get() + 1);
            self.gate.as_ref().unwrap().recv().await.unwrap();
        }
        let body = match request.path.as_str() {
            "/empty" => ResponseBody::Empty,
            "/short" => ResponseBody::Stream { len: 100, source: Box::new(Broken(60)) },
            "/stream" => ResponseBody::Stream { len: 100_000, source: Box::new(Broken(100_000)) },
            "/files" | "/file" | "/gated" => {
                let file = Arc::clone(self.file.as_ref().unwrap());
                let span = |offset, len| FileSpan { file: Arc::clone(&file), offset, len };
                let spans = match request.path.as_str() {
                    "/files" | "/gated" => {
                        vec![span(5, 3_000_000), span(0, 5), span(3_000_005, 70_001)]
                    }
                    _ => vec![span(7, 1_200)],
                };
                let end = if request.path == "/gated" { 3_000_001 } else { u64::MAX };
                let gate = Box::new(Steps { bytes: 70_000, end });
                ResponseBody::Files { spans, lease: Rc::new(Lease(Rc::clone(&self.leases))), gate }
            }
            "/large" => ResponseBody::Bytes(vec![b'l'; 5 << 20].into()),
            path => ResponseBody::Bytes(
                format!("{} {path} {:?}", request.method, request.query).into_bytes().into(),
            ),
        };
        ServerResponse { status: 200, headers, body }
    }
}

struct Fixture {
    executor: Rc<LocalExecutor<'static>>,
    address: std::net::SocketAddr,
    handler: Rc<Echo>,
    metrics: Rc<Metrics>,
}

/// Runs `test` beside a server.
fn with_server<F: AsyncFnOnce(Fixture)>(
    limits: ServerLimits,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Echo,
    test: F,
) {
    let executor = Rc::new(LocalExecutor::new());
    let metrics = Rc::new(Metrics::default());
    let handler = Rc::new(handler);
    smol::block_on(executor.run(async {
        let any = "127.0.0.1:0".parse().unwrap();
        let listener =
            Listener::bind(any, tls, limits, Rc::clone(&metrics), clock()).await.unwrap();
        let address = listener.local_addr();
        let (spawner, serving) = (Rc::clone(&executor), Rc::clone(&handler));
        let accepting = executor.spawn(async move {
            loop {
                let connection = listener.accept().await.unwrap();
                let serving = Rc::clone(&serving);
                spawner
                    .spawn(async move {
                        let _ = connection.serve(serving.as_ref()).await;
                    })
                    .detach();
            }
        });
        let fixture = Fixture { executor: Rc::clone(&executor), address, handler, metrics };
        let deadline = async {
            smol::Timer::after(Duration::from_secs(20)).await;
            panic!("the test hangs");
        };
        smol::future::or(test(fixture), deadline).await;
        accepting.cancel().await;
    }));
}

fn plain<F: AsyncFnOnce(Fixture)>(test: F) {
    with_server(ServerLimits::default(), None, Echo::default(), test);
}

async fn raw(fixture: &Fixture) -> Raw {
    Raw::connect(fixture.address).await.unwrap()
}

async fn say(socket: &mut Raw, text: &str) {
    socket.write_all(text.as_bytes()).await.unwrap();
}

/// Everything up to the peer's end; an RST fails the test.
async fn rest(socket: &mut Raw) -> String {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

fn clock() -> SharedClock {
    Rc::new(SystemClock::new())
}

fn client(limits: ClientLimits) -> Client {
    let trust = tls::Trust::new(tls::ClientOptions::default(), clock());
    Client::new(trust, Network::default(), limits)
}

fn request(method: Method, url: &str) -> ClientRequest {
    ClientRequest { method, url: url.parse().unwrap(), headers: Headers::new(), body: Vec::new() }
}

async fn get(client: &Client, url: &str) -> Result<Vec<u8>, crate::net::Error> {
    client.send(request(Method::Get, url)).await?.body.bytes(8 << 20).await
}

#[test]
fn keep_alive_pipelining_and_repeated_lines() {
    plain(async |fixture| {
        let mut socket = raw(&fixture).await;
        let one = "GET /one?a=%41 HTTP/1.1\r\nHost: h\r\nAccept: 1\r\nAccept: 2\r\nAccept: 3\r\n\
                   Accept: 4\r\nAccept: 5\r\nAccept: 6\r\n\r\n";
        let two = "\r\nHEAD /two HTTP/1.1\r\nHost: h\r\n\r\n";
        let post = "POST /three HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let put =
            "PUT /four HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde";
        say(&mut socket, &[one, two, post, put].concat()).await;
        let text = rest(&mut socket).await;
        let parts: Vec<_> = text.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
        assert_eq!(parts.len(), 4, "{text}");
        assert!(parts[0].ends_with("GET /one [(\"a\", \"A\")]"), "{text}");
        assert_eq!(parts[0].matches("x-accept: ").count(), 6);
        assert!(parts[1].contains("content-length: 12\r\n") && parts[1].ends_with("\r\n\r\n"));
        assert!(parts[2].ends_with("POST /three []"));
        assert!(parts[3].contains("connection: close\r\n") && parts[3].ends_with("PUT /four []"));
        assert_eq!(fixture.metrics.http_requests.value(), 4);
    });
}

#[test]
fn an_old_client_is_answered_and_closed() {
    plain(async |fixture| {
        let mut socket = raw(&fixture).await;
        say(&mut socket, "GET /x HTTP/1.0\r\n\r\n").await;
        let text = rest(&mut socket).await;
        assert!(text.contains("connection: close\r\n") && text.ends_with("GET /x []"), "{text}");
    });
}

#[test]
fn a_head_of_a_mebibyte_is_refused() {
    plain(async |fixture| {
        let mut socket = raw(&fixture).await;
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
        say(&mut socket, &head).await;
        let text = rest(&mut socket).await;
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
        assert!(fixture.metrics.http_refused.value() >= 1);
        let range = format!("GET / HTTP/1.1\r\nHost: h\r\nRange: {}\r\n\r\n", "1-2,".repeat(5_000));
        let mut socket = raw(&fixture).await;
        say(&mut socket, &range.replace("Range", "Connection: close\r\nRange")).await;
        assert!(rest(&mut socket).await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn slow_heads_are_dropped() {
    let limits =
        ServerLimits { head_deadline: Duration::from_millis(300), ..ServerLimits::default() };
    with_server(limits, None, Echo::default(), async |fixture| {
        let before = Instant::now();
        let (mut silent, mut slow) = (raw(&fixture).await, raw(&fixture).await);
        let writer = slow.get_ref().try_clone().unwrap();
        let dripping = fixture.executor.spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nHost: a-host-that-comes-very-slowly\r\n" {
                if (&writer).write_all(&[*byte]).is_err() {
                    return;
                }
                smol::Timer::after(Duration::from_millis(30)).await;
            }
        });
        assert_eq!(rest(&mut silent).await, "");
        assert!(rest(&mut slow).await.starts_with("HTTP/1.1 408 "));
        assert!(before.elapsed() < Duration::from_millis(1500), "{:?}", before.elapsed());
        dripping.cancel().await;
    });
}

#[test]
fn continue_is_said_only_for_a_body_that_is_wanted() {
    plain(async |fixture| {
        let head = "PUT /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\n";
        let mut socket = raw(&fixture).await;
        say(&mut socket, &format!("{head}Content-Length: 3\r\n\r\n")).await;
        let mut line = [0; 25];
        socket.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
        say(&mut socket, "abc").await;
        assert!(rest(&mut socket).await.starts_with("HTTP/1.1 200 "));
        for length in ["Content-Length: 0\r\n", "", "Content-Length: 9999999999\r\n"] {
            let mut socket = raw(&fixture).await;
            say(&mut socket, &format!("{head}{length}\r\n")).await;
            assert!(rest(&mut socket).await.starts_with("HTTP/1.1 200 "), "{length}");
        }
    });
}

#[test]
fn malformed_requests_get_400() {
    plain(async |fixture| {
        for text in ["\u{1}\u{2}\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
            let mut socket = raw(&fixture).await;
            say(&mut socket, text).await;
            let answer = rest(&mut socket).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{text:?}: {answer}");
        }
    });
}

/// A file of 3.1 MB whose bytes tell their place, and the directory to remove.
fn numbered_file() -> (Arc<std::fs::File>, Vec<u8>, PathBuf) {
    let place = std::thread::current().name().unwrap_or("test").replace("::", "-");
    let name = format!("moonlet-http-{}-{place}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let bytes: Vec<u8> = (0..3_100_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    std::fs::write(&path, &bytes).unwrap();
    (Arc::new(std::fs::File::open(&path).unwrap()), bytes, path)
}

fn spans_of(bytes: &[u8]) -> Vec<u8> {
    [&bytes[5..3_000_005], &bytes[..5], &bytes[3_000_005..3_070_006]].concat()
}

#[test]
fn files_leave_whole_by_sendfile() {
    let (file, bytes, path) = numbered_file();
    let handler = Echo { file: Some(file), ..Echo::default() };
    with_server(ServerLimits::default(), None, handler, async |fixture| {
        let client = client(ClientLimits::default());
        for round in 1..=3 {
            let url = format!("http://{}/files", fixture.address);
            assert!(get(&client, &url).await.unwrap() == spans_of(&bytes));
            let url = format!("http://{}/file", fixture.address);
            assert!(get(&client, &url).await.unwrap() == bytes[7..1_207]);
            assert_eq!(fixture.handler.leases.get(), 2 * round);
        }
        assert_eq!(client.network.meter.connections(), 1);
        assert_eq!(fixture.metrics.http_sent_bytes.value(), 3 * (3_070_006 + 1_200));
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_is_too_short_ends_by_fin() {
    let (file, _, path) = numbered_file();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1_000_000).unwrap();
    let handler = Echo { file: Some(file), ..Echo::default() };
    with_server(ServerLimits::default(), None, handler, async |fixture| {
        let client = client(ClientLimits::default());
        let url = format!("http://{}/files", fixture.address);
        let error = get(&client, &url).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Retry);
        let text = error.to_string();
        assert!(text.ends_with("/files: body ended at byte 999995 of 3070006"), "{text}");
        assert_eq!(fixture.handler.leases.get(), 1);
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_the_gate_does_not_admit_is_not_sent() {
    let (file, bytes, path) = numbered_file();
    let handler = Echo { file: Some(file), ..Echo::default() };
    with_server(ServerLimits::default(), None, handler, async |fixture| {
        let mut socket = raw(&fixture).await;
        say(&mut socket, "GET /gated HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        assert!(answer[head..] == spans_of(&bytes)[..3_000_001], "{} bytes", answer.len() - head);
        assert_eq!(fixture.handler.leases.get(), 1);
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_source_that_breaks_ends_by_fin() {
    plain(async |fixture| {
        let client = client(ClientLimits::default());
        let url = format!("http://{}", fixture.address);
        let error = get(&client, &format!("{url}/short")).await.unwrap_err();
        assert!(error.to_string().ends_with("body ended at byte 60 of 100"), "{error}");
        assert_eq!(get(&client, &format!("{url}/stream")).await.unwrap(), vec![b'x'; 100_000]);
        let head = client.send(request(Method::Head, &format!("{url}/stream"))).await.unwrap();
        assert_eq!(head.headers.get("content-length"), Some("100000"));
        assert!(head.body.bytes(0).await.unwrap().is_empty());
        let large = get(&client, &format!("{url}/large")).await.unwrap();
        assert_eq!(large, vec![b'l'; 5 << 20]);
        let large = client.send(request(Method::Get, &format!("{url}/large"))).await.unwrap();
        assert_eq!(large.body.len(), Some(5 << 20));
        assert_eq!(large.body.bytes(100).await.unwrap_err().kind(), Kind::Invalid);
    });
}

#[test]
fn connections_are_used_again() {
    plain(async |fixture| {
        let client = client(ClientLimits { idle_max: 2, ..Default::default() });
        let url = format!("http://{}/a", fixture.address);
        for _ in 0..5 {
            get(&client, &url).await.unwrap();
        }
        assert_eq!(client.network.meter.connections(), 1);
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(client.send(request(Method::Get, &url)).await.unwrap());
        }
        for response in open {
            response.body.bytes(100).await.unwrap();
        }
        assert_eq!((client.network.meter.connections(), client.idle()), (4, 2));
        // Dropped before its end, a body takes its connection along.
        drop(client.send(request(Method::Get, &url)).await.unwrap());
        assert_eq!(client.idle(), 1);
        assert!(client.network.meter.received() > 9 * 80);
    });
}
