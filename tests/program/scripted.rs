//! A registry on loopback that is put together answer by answer, and notes what it was asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use moonlet::oci::{Digest, media_type};

/// What is answered to one path.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// The registry; it answers until the test's process ends, 404 to whatever it does not have.
#[derive(Clone)]
pub struct ScriptedRegistry {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    asked: Vec<String>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

impl ScriptedRegistry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scripted = Self { address, state: Arc::default() };
        let serving = scripted.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let scripted = serving.clone();
                // A peer that hangs up half way is its own affair.
                std::thread::spawn(move || scripted.serve(stream.unwrap()));
            }
        });
        scripted
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers to `path` below `/v2/`, its query included.
    pub fn set(&self, path: &str, answer: Answer) {
        self.state.lock().unwrap().answers.insert(format!("/v2/{path}"), answer);
    }

    /// Answers 404 to `path` from now on.
    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().answers.remove(&format!("/v2/{path}"));
    }

    /// Requests so far (`GET /v2/...`) with `part` in them.
    pub fn asked(&self, part: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|line| line.contains(part)).count()
    }

    /// Has a blob; returns its descriptor.
    pub fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = Digest::sha256(bytes);
        self.set(&format!("{repository}/blobs/{digest}"), Answer::new(200, bytes));
        descriptor("application/octet-stream", &digest, bytes.len(), "")
    }

    /// Has a manifest, also under `tag` if that is not empty; returns its digest.
    pub fn manifest(&self, repository: &str, tag: &str, text: &str) -> Digest {
        let is_index = text.contains(r#""manifests":"#);
        let kind = if is_index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
        let digest = Digest::sha256(text.as_bytes());
        let answer =
            Answer::new(200, text).with("Content-Type", kind).with("Docker-Content-Digest", digest);
        if !tag.is_empty() {
            self.set(&format!("{repository}/manifests/{tag}"), answer.clone());
        }
        self.set(&format!("{repository}/manifests/{digest}"), answer);
        digest
    }

    /// Has an image of one layer, with `rest` in its manifest.
    pub fn image(&self, repository: &str, tag: &str, name: &str, rest: &str) -> Digest {
        let config = self.blob(repository, format!("config of {name}").as_bytes());
        let layer = self.blob(repository, layer(name).as_bytes());
        self.manifest(repository, tag, &image(&config, &layer, rest))
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let answer = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(format!("{method} {path}"));
            state.answers.get(path).cloned().unwrap_or_else(|| Answer::new(404, ""))
        };
        let mut text = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
        for (name, value) in &answer.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !answer.headers.iter().any(|(name, _)| *name == "Transfer-Encoding") {
            text += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        stream.write_all(text.as_bytes())?;
        stream.write_all(b"\r\n")?;
        if method == "GET" {
            stream.write_all(&answer.body)?;
        }
        stream.flush()
    }
}

/// The bytes of an image's layer.
pub fn layer(name: &str) -> String {
    format!("layer of {name}")
}

/// The text of an image's manifest.
pub fn image(config: &str, layers: &str, rest: &str) -> String {
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]{rest}}}"#)
}

/// The text of an index.
pub fn index(children: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(","))
}

/// The text of a descriptor, with `rest` in it.
pub fn descriptor(media_type: &str, digest: &Digest, size: usize, rest: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}{rest}}}"#)
}

/// The text of a child of an index.
pub fn child(digest: &Digest, os: &str, architecture: &str, rest: &str) -> String {
    let rest = format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}{rest}"#);
    descriptor(media_type::OCI_MANIFEST, digest, 1, &rest)
}
