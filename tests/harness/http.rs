//! Asks a server as a test wants to, byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Someone who asks.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub authorization: Option<String>,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Client {
    /// Someone who asks another server.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, authorization: None }
    }

    /// The same one with credentials.
    pub fn with(&self, authorization: &str) -> Self {
        Self { authorization: Some(authorization.to_owned()), ..self.clone() }
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(method, path, "", body)
    }

    /// With header lines of the caller's.
    pub fn ask_with(&self, method: &str, path: &str, lines: &str, body: &str) -> Answer {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{lines}",
            self.address,
            body.len()
        );
        if let Some(authorization) = &self.authorization {
            head.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        self.send(format!("{head}\r\n{body}").as_bytes())
    }

    /// Sends bytes and reads what comes back until the server closes.
    pub fn send(&self, bytes: &[u8]) -> Answer {
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A server that refuses a long body may close before all of it was sent.
        let _ = socket.write_all(bytes);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&answer)));
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: answer[end + 4..].to_vec() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// Asks, and holds the answer to the status.
    pub fn expect(&self, status: u16, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        answer
    }
}

/// Asks the server at an address, with header lines of the caller's; returns the status and what
/// came of the body.
pub fn get(served: &str, path: &str, lines: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(served).unwrap();
    let fixed = "Host: x\r\nConnection: close\r\n";
    write!(stream, "GET {path} HTTP/1.1\r\n{fixed}{lines}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let text = String::from_utf8_lossy(&answer[..head]);
    (text.split(' ').nth(1).unwrap().parse().unwrap(), answer[head + 4..].to_vec())
}
