//! A registry on loopback with one image, which can be made to misbehave.
//!
//! Peers' behaviour is tested with the peers themselves; this one does what no well-meaning peer
//! would do. Each connection carries one request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use moonlet::oci::Digest;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the registry does to a client that asks for the image's parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The truth.
    None,
    /// A layer of the right length and other bytes.
    WrongDigest,
    /// A layer that ends half way, each time.
    Truncated,
    /// A layer that never ends, whatever was asked for, without a length.
    Endless,
    /// A layer of another length than the manifest says.
    WrongLength,
    /// A page for people in place of the manifest, as a captive portal sends it.
    Html,
    /// Something that only looks like JSON, with a manifest's type.
    BrokenJson,
    /// A manifest that never ends.
    EndlessManifest,
    /// A manifest of 5 MiB.
    HugeManifest,
    /// The manifest of another digest than the registry says.
    OtherManifest,
    /// A whole blob in answer to a Range.
    RangeIgnored,
    /// Another range than was asked for.
    OtherRange,
    /// A layer that is always elsewhere.
    RedirectLoop,
    /// No fault: everything needs Basic credentials, and layers are at this port of the loopback.
    Elsewhere(u16),
}

/// An image of one layer.
#[derive(Clone)]
pub struct Image {
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// Images of different seeds share nothing.
    pub fn new(seed: u8, layer_bytes: usize) -> Self {
        let platform = r#""architecture":"amd64","os":"linux""#;
        let config = format!(
            r#"{{{platform},"config":{{"Labels":{{"seed":"{seed}"}}}},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        );
        let mut layer = vec![0; layer_bytes];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut layer);
        let descriptor = |kind: &str, bytes: &[u8]| {
            let (digest, size) = (Digest::sha256(bytes), bytes.len());
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#
            )
        };
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
            descriptor("config.v1+json", config.as_bytes()),
            descriptor("layer.v1.tar", &layer),
        );
        Self { config: config.into_bytes(), layer, manifest: manifest.into_bytes() }
    }
}

/// What the registry serves now.
#[derive(Clone)]
pub struct Show {
    pub image: Image,
    pub fault: Fault,
    pub tls: Option<Arc<ServerConfig>>,
}

/// The registry; it answers until the test's process ends.
pub struct Registry {
    pub address: SocketAddr,
    show: Arc<Mutex<Show>>,
    heads: Heads,
}

/// The heads of all requests, in lower case.
type Heads = Arc<Mutex<Vec<String>>>;

impl Registry {
    pub fn start(show: Show) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let show = Arc::new(Mutex::new(show));
        let (shared, heads) = (Arc::clone(&show), Heads::default());
        let asked = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let show = shared.lock().unwrap().clone();
                let asked = Arc::clone(&asked);
                std::thread::spawn(move || serve(stream.unwrap(), &show, &asked));
            }
        });
        Self { address, show, heads }
    }

    /// Serves something else from the next connection on.
    pub fn show(&self, show: Show) {
        *self.show.lock().unwrap() = show;
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, show: &Show, heads: &Heads) {
    // A peer that hangs up half way is what half of the tests are about.
    let _ = match &show.tls {
        None => answer(stream, show, heads),
        Some(config) => {
            let connection = ServerConnection::new(Arc::clone(config)).unwrap();
            answer(StreamOwned::new(connection, stream), show, heads)
        }
    };
}

fn answer(mut stream: impl Read + Write, show: &Show, heads: &Heads) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    heads.lock().unwrap().push(head.clone());
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let range = head.split_once("range: bytes=").map(|(_, rest)| {
        let (first, last) = rest.split_once("\r\n").unwrap().0.split_once('-').unwrap();
        first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1
    });
    let is_refused =
        matches!(show.fault, Fault::Elsewhere(_)) && !head.contains("authorization: basic");
    let reply = match is_refused {
        true => Reply::new(401, b"").with("WWW-Authenticate", "Basic realm=\"x\""),
        false => reply(show, path, range),
    };
    let mut text = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = reply.length {
        text += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all(text.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if method == "get" {
        stream.write_all(&reply.body)?;
        while reply.length.is_none() {
            stream.write_all(&[b' '; 4096])?;
        }
    }
    stream.flush()
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// What Content-Length says; none for a body that never ends.
    length: Option<usize>,
}

impl Reply {
    fn new(status: u16, body: &[u8]) -> Self {
        let (body, length) = (body.to_vec(), Some(body.len()));
        Self { status, headers: Vec::new(), body, length }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

fn reply(show: &Show, path: &str, range: Option<std::ops::Range<usize>>) -> Reply {
    let Show { image, fault, .. } = show;
    let digest = path.rsplit('/').next().unwrap();
    if path.contains("/manifests/sha256-") || path.contains("/referrers/") {
        return Reply::new(404, b"");
    }
    if path.contains("/manifests/") {
        return manifest(image, *fault);
    }
    if digest == Digest::sha256(&image.config).to_string() {
        return Reply::new(200, &image.config);
    }
    if digest == Digest::sha256(&image.layer).to_string() {
        return layer(&image.layer, *fault, path, range);
    }
    Reply::new(404, b"")
}

fn manifest(image: &Image, fault: Fault) -> Reply {
    let typed = |body: &[u8]| {
        let digest = Digest::sha256(&image.manifest);
        Reply::new(200, body).with("Content-Type", MANIFEST).with("Docker-Content-Digest", digest)
    };
    match fault {
        Fault::Html => {
            Reply::new(200, b"<html>Please log in</html>").with("Content-Type", "text/html")
        }
        Fault::BrokenJson => {
            Reply::new(200, b"{\"schemaVersion\":2,").with("Content-Type", MANIFEST)
        }
        Fault::EndlessManifest => Reply { length: None, ..typed(&image.manifest) },
        Fault::HugeManifest => typed(&vec![b' '; 5 << 20]),
        Fault::OtherManifest => typed(&Image::new(77, 10).manifest),
        _ => typed(&image.manifest),
    }
}

fn layer(layer: &[u8], fault: Fault, path: &str, range: Option<std::ops::Range<usize>>) -> Reply {
    let mut layer = layer.to_vec();
    match fault {
        Fault::WrongDigest => layer[1000] ^= 1,
        Fault::WrongLength => layer.push(0),
        Fault::Endless => return Reply { length: None, ..Reply::new(200, b"") },
        Fault::Elsewhere(port) => {
            let url = format!("http://127.0.0.1:{port}{path}");
            return Reply::new(307, b"").with("Location", url);
        }
        Fault::RedirectLoop => return Reply::new(307, b"").with("Location", path),
        _ => {}
    }
    let Some(range) = range.filter(|_| fault != Fault::RangeIgnored) else {
        let half = layer.len() / 2;
        let whole = Reply::new(200, &layer);
        return if fault == Fault::Truncated {
            Reply { body: layer[..half].to_vec(), ..whole }
        } else {
            whole
        };
    };
    let range = range.start..range.end.min(layer.len());
    let said = if fault == Fault::OtherRange { 0 } else { range.start };
    let part = Reply::new(206, &layer[range.clone()])
        .with("Content-Range", format!("bytes {said}-{}/{}", range.end - 1, layer.len()));
    let kept = if fault == Fault::Truncated { range.len() / 2 } else { range.len() };
    Reply { body: part.body[..kept].to_vec(), ..part }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
