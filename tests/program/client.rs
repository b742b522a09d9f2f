//! A client that speaks raw HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;

/// A request whose answer is read bit by bit.
pub struct Client {
    stream: TcpStream,
    pub status: u16,
    /// In lower case, without the date.
    pub head: String,
}

impl Client {
    pub fn ask(served: &str, method: &str, path: &str, lines: &str) -> Self {
        let mut stream = TcpStream::connect(served).unwrap();
        let fixed = "Host: x\r\nConnection: close\r\n";
        write!(stream, "{method} {path} HTTP/1.1\r\n{fixed}{lines}\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let lines = head.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
        let head: String = lines.collect();
        Self { stream, status: head.split(' ').nth(1).unwrap().parse().unwrap(), head }
    }

    /// The value of a header line.
    pub fn line(&self, name: &str) -> Option<&str> {
        let line = self.head.split("\r\n").find_map(|line| line.strip_prefix(name));
        line?.strip_prefix(": ")
    }

    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// All that comes, which must end by FIN.
    pub fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }
}
