//! Heads: where one ends, what a request's head says, and how long the body after it is.
//!
//! A head is looked for as bytes arrive and parsed once, when it is whole: parsing what has come
//! so far again and again would let one slow sender cost the square of its bytes. Whatever two
//! readers could take for different lengths is refused (RFC 9112 sections 6 and 11.2).

use std::io;

use super::Method;
use super::headers::Headers;
use super::origin::{HTTP_PORT, HTTPS_PORT, Origin};
use super::wire::{Wait, Wire};

/// What reading a head came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The head is the first so many buffered bytes, blank line included.
    Whole(usize),
    /// The read buffer is full and holds no end of a head.
    TooLong,
    /// The peer ended, with so many bytes of a head sent.
    Ended(usize),
}

/// Reads until a whole head is buffered; blank lines before it are skipped.
pub(super) async fn arrive(wire: &mut Wire, wait: Wait) -> io::Result<Arrival> {
    let mut searched = 0_usize;
    loop {
        if searched == 0 {
            let blank = wire.buffered().iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
            let blank = blank.count();
            wire.consume(blank);
        }
        let held = wire.buffered();
        // The end may straddle two reads.
        if let Some(end) = find_end(held, searched.saturating_sub(END_BYTES_MAX)) {
            return Ok(Arrival::Whole(end));
        }
        searched = held.len();
        if wire.is_full() {
            return Ok(Arrival::TooLong);
        }
        if wire.fill(wait).await? == 0 {
            return Ok(Arrival::Ended(searched));
        }
    }
}

/// The length of the head, if a blank line is found at or after `from`.
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.iter().position(|byte| *byte == b'\n') {
        at += found + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// The head of a request.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub method: Method,
    /// Whom it is for, where it names that as one to a proxy does.
    pub origin: Option<Origin>,
    /// As it was sent, without the query.
    pub path: String,
    /// As it was sent, empty when there is none.
    pub query: String,
    pub headers: Headers,
    pub body: RequestBody,
    /// Whether the client would use the connection again.
    pub keep_alive: bool,
    /// Whether the answer must say if the connection is kept: it speaks HTTP/1.0.
    pub is_old: bool,
    /// Whether the client waits for `100 Continue` before it sends a body.
    pub expects_continue: bool,
}

/// The body that follows a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestBody {
    None,
    Length(u64),
    Chunked,
}

/// Why a head is refused, and with which status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub why: &'static str,
}

impl RequestHead {
    /// Parses a whole head.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut lines = [const { std::mem::MaybeUninit::uninit() }; LINES_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, &mut lines) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal { status: 431, why: "too many header lines" });
            }
            Err(httparse::Error::Version) => {
                return Err(Refusal { status: 505, why: "expected HTTP/1.1" });
            }
            Ok(httparse::Status::Partial) | Err(_) => return Err(bad("malformed head")),
        }
        let mut headers = Headers::new();
        for line in parsed.headers.iter() {
            // What is not UTF-8 is no concern of ours, but must not be lost silently either.
            headers.append(line.name, String::from_utf8_lossy(line.value));
        }
        let is_old = parsed.version == Some(0);
        let method = Method::from_word(parsed.method.unwrap_or_default());
        let wanted = parsed.path.unwrap_or_default();
        let (origin, path, query) = match method {
            Method::Connect => {
                let origin = Origin::parse(wanted, None);
                (Some(origin.ok_or(bad("expected CONNECT host:port"))?), "", "")
            }
            _ => target(wanted)?,
        };
        let hosts = headers.all("host").count();
        if hosts > 1 || (hosts == 0 && !is_old) {
            return Err(bad("expected one Host line"));
        }
        let closes = headers.has_word("connection", "close");
        let keep_alive =
            if is_old { headers.has_word("connection", "keep-alive") } else { !closes };
        let body = request_body(&headers, is_old)?;
        let expects_continue = match headers.get("expect") {
            None => false,
            Some(value) if value.eq_ignore_ascii_case("100-continue") => {
                !is_old && body != RequestBody::None
            }
            Some(_) => return Err(Refusal { status: 417, why: "expected Expect: 100-continue" }),
        };
        Ok(Self {
            method,
            origin,
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body,
            keep_alive,
            is_old,
            expects_continue,
        })
    }
}

/// Host, path and query of a request's target. Only a proxy is asked for `http://host/path`; elsewhere
/// the path counts alone.
fn target(target: &str) -> Result<(Option<Origin>, &str, &str), Refusal> {
    let (origin, local) = match target.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            let (host, local) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let port = if scheme == "http" { HTTP_PORT } else { HTTPS_PORT };
            let local = if local.is_empty() { "/" } else { local };
            (Origin::parse(host, Some(port)), local)
        }
        _ => (None, target),
    };
    if !local.starts_with('/') && local != "*" {
        return Err(bad("expected a path that begins with /"));
    }
    let local = local.split('#').next().unwrap_or_default();
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    Ok((origin, path, query))
}

fn request_body(headers: &Headers, is_old: bool) -> Result<RequestBody, Refusal> {
    let mut codings = headers.all("transfer-encoding");
    let mut lengths = headers.all("content-length");
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        // Of two that are the same, a proxy may have seen one: RFC 9112 section 6.3.
        (Some(_), Some(_)) => return Err(bad("more than one Content-Length")),
        (Some(text), None) => {
            let length = decimal(strip(text));
            Some(length.map_err(|_| bad("expected a number for Content-Length"))?)
        }
    };
    match (codings.next(), codings.next(), length) {
        (None, _, None | Some(0)) => Ok(RequestBody::None),
        (None, _, Some(length)) => Ok(RequestBody::Length(length)),
        (Some(_), _, Some(_)) => Err(bad("Content-Length beside Transfer-Encoding")),
        (Some(_), ..) if is_old => Err(bad("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None, None) if strip(coding).eq_ignore_ascii_case("chunked") => {
            Ok(RequestBody::Chunked)
        }
        (Some(_), ..) => Err(bad("expected Transfer-Encoding: chunked")),
    }
}

/// Without the white space that may surround a value, which is SP and HTAB and nothing else: what
/// one reader trims and another does not is a way to have two requests read as one.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn decimal(text: &str) -> Result<u64, Contradictory> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Contradictory);
    }
    text.parse().map_err(|_| Contradictory)
}

/// Content-Length lines that contradict each other, or are no numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contradictory;

/// The value of all Content-Length lines together.
pub(super) fn content_length(headers: &Headers) -> Result<Option<u64>, Contradictory> {
    let mut agreed = None;
    for value in headers.all("content-length").flat_map(|value| value.split(',')) {
        let length = decimal(strip(value))?;
        if agreed.is_some_and(|agreed| agreed != length) {
            return Err(Contradictory);
        }
        agreed = Some(length);
    }
    Ok(agreed)
}

fn bad(why: &'static str) -> Refusal {
    Refusal { status: 400, why }
}

/// Bytes of a request's or a response's head: podman's Range lines have 20 KB.
pub(super) const HEAD_BYTES_MAX: usize = 32 << 10;
/// Header lines of one request.
const LINES_MAX: usize = 100;
/// Bytes of the longest end of a head.
const END_BYTES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RequestHead, Refusal> {
        assert_eq!(find_end(text.as_bytes(), 0), Some(text.len()), "{text:?}");
        RequestHead::parse(text.as_bytes())
    }

    #[test]
    fn the_end_is_found_wherever_reads_split() {
        for text in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n"] {
            let bytes = [text.as_bytes(), b"GET /next HTTP/1.1\r\n\r\n"].concat();
            for split in 0..text.len() {
                assert_eq!(find_end(&bytes[..split], 0), None);
                let from = split.saturating_sub(END_BYTES_MAX);
                assert_eq!(find_end(&bytes, from), Some(text.len()), "{split}");
            }
        }
    }

    #[test]
    fn targets_and_repeated_lines() {
        let head = parse(
            "GET http://h:1/v2/a/../%41?n=1&last=%20 HTTP/1.1\r\nHost: h\r\nAccept: a\r\nACCEPT: \
             b\r\nX: \u{e9}\r\n\r\n",
        )
        .unwrap();
        assert_eq!((head.path.as_str(), head.query.as_str()), ("/v2/a/../%41", "n=1&last=%20"));
        assert_eq!(head.headers.all("accept").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(head.headers.get("x"), Some("\u{e9}"));
        assert!(head.keep_alive && !head.is_old && head.body == RequestBody::None);
        let old = parse("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(!old.keep_alive && old.is_old);
        assert!(parse("BREW / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().method == Method::Other);
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        let cases = [
            (400, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            (400, "Content-Length: 1\r\nContent-Length: 2\r\n"),
            (400, "Content-Length: +1\r\n"),
            (400, "Content-Length: 99999999999999999999\r\n"),
            (400, "Content-Length: 1\r\nContent-Length: 1\r\n"),
            (400, "Content-Length: 1, 1\r\n"),
            (400, "Content-Length: 1\u{a0}\r\n"),
            (400, "Content-Length: \u{2003}1\r\n"),
            (400, "Content-Length: 1\u{b}\r\n"),
            (400, "Content-Length: \r\n"),
            (400, "Content-Length: 0x1\r\n"),
            (400, "Content-Length: 1 1\r\n"),
            (400, "Content-Length : 1\r\n"),
            (400, "X: a\r\n Content-Length: 1\r\n"),
            (400, "X: a\r\n\tb\r\n"),
            (400, "X: a\rContent-Length: 1\r\n"),
            (400, "X: a\u{0}\r\n"),
            (400, "Transfer-Encoding: gzip, chunked\r\n"),
            (400, "Transfer-Encoding: chunked, identity\r\n"),
            (400, "Transfer-Encoding: identity\r\n"),
            (400, "Transfer-Encoding: \r\n"),
            (400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            (400, "Transfer-Encoding: chunked\u{a0}\r\n"),
            (400, "Transfer-Encoding: \u{2028}chunked\r\n"),
            (400, "Transfer-Encoding: \u{b}chunked\r\n"),
            (400, "Transfer-Encoding: \"chunked\"\r\n"),
            (400, "Transfer_Encoding: chunked\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n"),
            (400, "Host: other\r\n"),
            (417, "Expect: miracles\r\n"),
            (400, "Bad Name: x\r\n"),
        ];
        for (status, lines) in cases {
            let text = format!("PUT / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            assert_eq!(parse(&text).unwrap_err().status, status, "{lines}");
        }
        assert_eq!(
            parse("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err().status,
            400
        );
        let padded = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \t Chunked \t\r\n\r\n";
        assert_eq!(parse(padded).unwrap().body, RequestBody::Chunked);
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n").unwrap_err().status, 400);
        assert_eq!(parse("GET nowhere HTTP/1.1\r\nHost: h\r\n\r\n").unwrap_err().status, 400);
        assert_eq!(parse("GET / HTTP/2.0\r\nHost: h\r\n\r\n").unwrap_err().status, 505);
        let many = "A: b\r\n".repeat(LINES_MAX);
        assert_eq!(
            parse(&format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n")).unwrap_err().status,
            431
        );
    }

    #[test]
    fn async_h1_reads_ordinary_requests_alike() {
        let text = "GET /v2/a/manifests/1?n=2 HTTP/1.1\r\nHost: h\r\nAccept: a\r\nAccept: b\r\n\
                    Content-Length: 0\r\n\r\n";
        let head = parse(text).unwrap();
        let io = shared(text);
        let (theirs, _) = smol::block_on(async_h1::server::decode(io)).unwrap().unwrap();
        assert_eq!(theirs.url().path(), head.path);
        assert_eq!(theirs.url().query(), Some(head.query.as_str()));
        let accepts: Vec<_> = theirs.header("accept").unwrap().iter().map(|v| v.as_str()).collect();
        assert_eq!(accepts, head.headers.all("accept").collect::<Vec<_>>());
    }

    /// What the decoder asks of a socket, over bytes in memory.
    fn shared(text: &str) -> Shared {
        Shared(std::sync::Arc::new(std::sync::Mutex::new(std::io::Cursor::new(text.into()))))
    }

    #[derive(Clone)]
    struct Shared(std::sync::Arc<std::sync::Mutex<std::io::Cursor<Vec<u8>>>>);

    impl smol::io::AsyncRead for Shared {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::task::Poll::Ready(io::Read::read(&mut *self.0.lock().unwrap(), buf))
        }
    }

    impl smol::io::AsyncWrite for Shared {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::task::Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn poll_close(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }
}
