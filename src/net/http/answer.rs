//! The head of an answer.
//!
//! Header text never breaks out of its line: control characters in it become spaces.

use std::cell::RefCell;
use std::io::{self, Write as _};

use super::headers::Headers;
use super::reason;
use crate::clock::date::Civil;

/// Writes the head of an answer whose body has `len` bytes, with what is said of the connection.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    date: &DateLine,
    (status, headers): (u16, &Headers),
    len: u64,
    connection: Option<&str>,
) -> io::Result<()> {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        write!(out, "HTTP/1.1 {status} {}\r\n", reason(status))?;
    }
    date.write(out);
    if has_body(status) {
        write!(out, "content-length: {len}\r\n")?;
    }
    if let Some(connection) = connection {
        write!(out, "connection: {connection}\r\n")?;
    }
    write_lines(out, headers);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn write_lines(out: &mut Vec<u8>, headers: &Headers) {
    for (name, value) in headers.iter() {
        if matches!(name, "date" | "connection" | "transfer-encoding" | "content-length") {
            continue;
        }
        push_text(out, name);
        out.extend_from_slice(b": ");
        push_text(out, value);
        out.extend_from_slice(b"\r\n");
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    out.extend_from_slice(text.as_bytes());
    for byte in out.get_mut(start..).unwrap_or_default() {
        if byte.is_ascii_control() && *byte != b'\t' {
            *byte = b' ';
        }
    }
}

/// The `date:` line, made once a second.
#[derive(Default)]
pub(super) struct DateLine(RefCell<(u64, Vec<u8>)>);

impl DateLine {
    /// Shows the second `now`, since 1970.
    pub(super) fn refresh(&self, now: u64) {
        let mut made = self.0.borrow_mut();
        if made.0 != now {
            *made = (now, format!("date: {}\r\n", Civil::new(now).http()).into_bytes());
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.borrow().1);
    }
}

/// Whether answers of this status carry a body, or the length of one.
pub(super) fn has_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_text_cannot_break_out_of_its_line() {
        let mut headers = Headers::new();
        headers.append("location", "/x\r\nset-cookie: a=b");
        headers.append("content-length", "5");
        headers.append("Date", "now");
        let mut out = Vec::new();
        let date = DateLine::default();
        date.refresh(1);
        write_head(&mut out, &date, (404, &headers), 0, Some("close")).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\ndate: "), "{text}");
        assert!(text.ends_with(
            "\r\ncontent-length: 0\r\nconnection: close\r\nlocation: /x  set-cookie: a=b\r\n\r\n"
        ));
    }
}
