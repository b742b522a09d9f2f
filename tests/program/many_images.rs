//! A registry of several images that can be made to answer oddly, and a satellite with any
//! configuration against it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use moonlet::oci::Digest;

use crate::registry::Image;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Without `/v2/`.
    pub path: String,
    pub range: Option<Range<usize>>,
}

impl Request {
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.contains(path)
    }
}

/// An answer; its head is written at once, and then as much of the body as is given.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// So many bytes of the body are sent, and no more: the connection stays open.
    pub stalls_at: Option<usize>,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), stalls_at: None }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// Says what to answer instead of the truth, which it is given; none for the truth.
type Fault = dyn Fn(&Request, &Answer) -> Option<Answer> + Send + Sync;

#[derive(Default)]
struct Content {
    blobs: BTreeMap<String, Vec<u8>>,
    /// Manifests by `repository:tag` and by digest.
    manifests: BTreeMap<String, Vec<u8>>,
    fault: Option<Arc<Fault>>,
    asked: Vec<Request>,
    /// Bodies that stalled until the other end hung up.
    hung_up: usize,
}

/// The registry; it answers until the test's process ends.
pub struct ManyImages {
    pub address: SocketAddr,
    content: Arc<Mutex<Content>>,
}

impl ManyImages {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let content = Arc::new(Mutex::new(Content::default()));
        let shared = Arc::clone(&content);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let content = Arc::clone(&shared);
                // A peer that hangs up half way is what some of the tests are about.
                std::thread::spawn(move || serve(stream.unwrap(), &content));
            }
        });
        Self { address, content }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts an image under `app:tag`; whatever had the tag before stays, by its digest.
    pub fn push(&self, tag: &str, image: &Image) {
        let mut content = self.content.lock().unwrap();
        let name = |bytes: &[u8]| Digest::sha256(bytes).to_string();
        for blob in [&image.config, &image.layer] {
            content.blobs.insert(name(blob), blob.clone());
        }
        content.manifests.insert(name(&image.manifest), image.manifest.clone());
        content.manifests.insert(tag.to_owned(), image.manifest.clone());
    }

    /// Puts a blob under a digest.
    pub fn blob(&self, digest: &str, bytes: &[u8]) {
        self.content.lock().unwrap().blobs.insert(digest.to_owned(), bytes.to_vec());
    }

    /// Puts a manifest under a tag or digest, of the type that it says itself.
    pub fn manifest(&self, name: &str, bytes: &[u8]) {
        self.content.lock().unwrap().manifests.insert(name.to_owned(), bytes.to_vec());
    }

    /// Deletes a tag.
    pub fn untag(&self, tag: &str) {
        self.content.lock().unwrap().manifests.remove(tag);
    }

    /// Answers oddly from the next request on.
    pub fn fault(
        &self,
        fault: impl Fn(&Request, &Answer) -> Option<Answer> + Send + Sync + 'static,
    ) {
        self.content.lock().unwrap().fault = Some(Arc::new(fault));
    }

    /// Answers with the truth from the next request on.
    pub fn honest(&self) {
        self.content.lock().unwrap().fault = None;
    }

    /// All requests so far, or since they were forgotten.
    pub fn asked(&self) -> Vec<Request> {
        self.content.lock().unwrap().asked.clone()
    }

    /// How many requests there were with that method and such a path.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.asked().iter().filter(|request| request.is(method, path)).count()
    }

    /// How many bodies that stalled were not waited for any longer.
    pub fn hung_up(&self) -> usize {
        self.content.lock().unwrap().hung_up
    }

    pub fn forget(&self) {
        self.content.lock().unwrap().asked.clear();
    }

    /// Waits until there were `count` requests with that method and such a path.
    pub fn await_count(&self, method: &str, path: &str, count: usize) {
        crate::satellite::wait_until(
            || self.count(method, path) >= count,
            || format!("{count} times {method} {path} in {:?}", self.asked()),
        );
    }
}

fn serve(mut stream: TcpStream, content: &Mutex<Content>) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut words = head.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let range = head.to_lowercase();
        let range = range.split_once("range: bytes=").map(|(_, rest)| {
            let (first, last) = rest.split_once("\r\n").unwrap().0.split_once('-').unwrap();
            first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1
        });
        let path = path.trim_start_matches("/v2/").to_owned();
        let request = Request { method, path, range };
        let (truth, fault) = {
            let mut content = content.lock().unwrap();
            content.asked.push(request.clone());
            (truth(&content, &request), content.fault.clone())
        };
        let odd = fault.and_then(|fault| fault(&request, &truth));
        let answer = odd.unwrap_or(truth);
        let mut text = format!("HTTP/1.1 {} x\r\n", answer.status);
        text += &format!("Content-Length: {}\r\n", answer.body.len());
        for (name, value) in &answer.headers {
            text += &format!("{name}: {value}\r\n");
        }
        stream.write_all((text + "\r\n").as_bytes()).ok()?;
        if request.method == "GET" {
            let sent = answer.stalls_at.unwrap_or(usize::MAX).min(answer.body.len());
            stream.write_all(&answer.body[..sent]).ok()?;
            if sent < answer.body.len() {
                // Until the other end hangs up.
                let _ = stream.read(&mut [0]);
                content.lock().unwrap().hung_up += 1;
                return None;
            }
        }
    }
}

fn truth(content: &Content, request: &Request) -> Answer {
    let Some((_, rest)) = request.path.split_once('/') else { return Answer::status(404) };
    let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
    let found = match kind {
        "manifests" => content.manifests.get(name),
        "blobs" => content.blobs.get(name),
        _ => None,
    };
    let Some(bytes) = found else { return Answer::status(404) };
    if kind == "manifests" {
        let answer = Answer { body: bytes.clone(), ..Answer::status(200) };
        let digest = name.parse().unwrap_or_else(|_| Digest::sha256(bytes));
        let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let kind = manifest["mediaType"].as_str().unwrap().to_owned();
        return answer.with("Content-Type", kind).with("Docker-Content-Digest", digest);
    }
    let Some(range) = &request.range else {
        return Answer { body: bytes.clone(), ..Answer::status(200) };
    };
    if range.start >= bytes.len() {
        let said = format!("bytes */{}", bytes.len());
        return Answer::status(416).with("Content-Range", said);
    }
    let range = range.start..range.end.min(bytes.len());
    let said = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
    Answer { body: bytes[range].to_vec(), ..Answer::status(206) }.with("Content-Range", said)
}
