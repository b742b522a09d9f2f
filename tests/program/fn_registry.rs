//! A registry whose answers are a function of the request, and our client of it without the rest of
//! the program: what one request leads to is seen exactly.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use moonlet::blob::Store;
use moonlet::clock::{SharedClock, SystemClock};
use moonlet::fetch::{Gate, Latch, Terms};
use moonlet::flash::{Geometry, sim};
use moonlet::metrics::Metrics;
use moonlet::net::{Network, tls};
use moonlet::pull::progress::Progress;
use moonlet::pull::{Parts, Puller};
use moonlet::registry::{Options, Password, Registry};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    lines: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn line(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    pub fn authorization(&self) -> &str {
        self.line("authorization").unwrap_or("")
    }

    /// The first and the last byte that Range asks for.
    pub fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.line("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().unwrap()))
    }
}

/// One answer; its length is stated.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub lines: Vec<String>,
    pub body: Vec<u8>,
}

pub fn reply(status: u16, body: impl AsRef<[u8]>) -> Reply {
    Reply { status, lines: Vec::new(), body: body.as_ref().to_vec() }
}

impl Reply {
    pub fn with(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }
}

/// It answers until the test's process ends.
pub struct FnRegistry {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FnRegistry {
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Transport::Plain, answer)
    }

    pub fn with_tls(
        tls: Arc<ServerConfig>,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Transport::Tls(tls), answer)
    }

    /// A proxy that stands for all hosts.
    pub fn proxy(
        tls: Arc<ServerConfig>,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Transport::Proxy(tls), answer)
    }

    fn listen(
        transport: Transport,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let started = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (asked, answer) = (Arc::clone(&started.asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
                let transport = transport.clone();
                std::thread::spawn(move || {
                    // A client that hangs up is the test's affair.
                    let _ = transport.serve(stream.unwrap(), answer.as_ref(), &asked);
                });
            }
        });
        started
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How many requests were of this method with this in their path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let asked = self.asked();
        asked.iter().filter(|asked| asked.method == method && asked.path.contains(part)).count()
    }
}

/// What requests come over.
#[derive(Clone)]
enum Transport {
    Plain,
    Tls(Arc<ServerConfig>),
    /// Plain, and TLS after CONNECT.
    Proxy(Arc<ServerConfig>),
}

impl Transport {
    fn serve(
        &self,
        stream: TcpStream,
        answer: &dyn Fn(&Asked) -> Reply,
        log: &Mutex<Vec<Asked>>,
    ) -> std::io::Result<()> {
        let over_tls = |tls: &Arc<ServerConfig>, stream| {
            let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
            serve(StreamOwned::new(connection, stream), answer, log).map(drop)
        };
        match self {
            Self::Plain => serve(stream, answer, log).map(drop),
            Self::Tls(tls) => over_tls(tls, stream),
            Self::Proxy(tls) => match serve(stream, answer, log)? {
                Some(stream) => over_tls(tls, stream),
                None => Ok(()),
            },
        }
    }
}

/// Answers one request; after CONNECT, which is made to succeed, returns the stream.
fn serve<S: Read + Write>(
    mut stream: S,
    answer: &dyn Fn(&Asked) -> Reply,
    log: &Mutex<Vec<Asked>>,
) -> std::io::Result<Option<S>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.lines();
    let mut words = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let lines = lines.filter_map(|line| line.split_once(": "));
    let lines = lines.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let mut asked = Asked { method, path, lines, body: Vec::new() };
    let length = asked.line("content-length").map_or(0, |length| length.parse().unwrap());
    asked.body.resize(length, 0);
    stream.read_exact(&mut asked.body)?;
    log.lock().unwrap().push(asked.clone());
    if asked.method == "CONNECT" {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")?;
        return Ok(Some(stream));
    }
    let Reply { status, lines, body } = answer(&asked);
    let mut text = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
    text += &format!("Content-Length: {}\r\n", body.len());
    for line in lines {
        text += &format!("{line}\r\n");
    }
    stream.write_all(text.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if asked.method != "HEAD" {
        stream.write_all(&body)?;
    }
    stream.flush()?;
    Ok(None)
}

/// Our client, anonymous.
pub fn client(url: &str) -> Registry {
    with(url, None, None)
}

/// Our client as user `edge`.
pub fn client_with_password(url: &str, password: Password) -> Registry {
    with(url, Some(password), None)
}

/// Our client, trusting a file.
pub fn client_with_ca(url: &str, ca_file: &Path) -> Registry {
    with(url, None, Some(ca_file.to_owned()))
}

fn with(url: &str, password: Option<Password>, ca_file: Option<PathBuf>) -> Registry {
    let username = password.as_ref().map(|_| "edge".to_owned());
    let tls = tls::ClientOptions { ca_file, client_cert: None };
    let url = url.parse().unwrap();
    let options = Options { registry: "odd.test".to_owned(), url, username, password, tls };
    Registry::new(options, Network::default(), Rc::new(SystemClock::new()))
}

/// Our engine over that client, with an empty store in memory.
pub fn puller(url: &str) -> Puller {
    let clock: SharedClock = Rc::new(SystemClock::new());
    let metrics = Rc::new(Metrics::default());
    let geometry =
        Geometry { segment_count: 9, segment_bytes: 65536, program_bytes: 64, reprogram: true };
    let device = Arc::new(sim::Device::new(geometry));
    let (store, _) = Store::open(device, Rc::clone(&metrics)).unwrap();
    let gate = Gate::new(store.clone(), Rc::clone(&clock), Rc::clone(&metrics));
    let registries = BTreeMap::from([("odd.test".to_owned(), client(url))]);
    Puller::new(Parts {
        store,
        registries: Rc::new(RefCell::new(registries)),
        policies: Rc::default(),
        verify: Rc::default(),
        // No blob is asked for.
        spawn: Rc::new(drop),
        terms: Terms::new(gate, Latch::default(), Rc::clone(&metrics)),
        progress: Progress::default(),
        clock,
        metrics,
        random: Rc::new(|| 0),
    })
}

/// A file of one test, removed with it.
pub struct TestFile(pub PathBuf);

impl TestFile {
    /// It is not there yet.
    pub fn new(name: &str) -> Self {
        let name = format!("moonlet-program-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
