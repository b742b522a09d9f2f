//! async-h1, fed only with what it can digest.
//!
//! Requests: names and values are checked first, since its types panic on what is not ASCII and
//! its encoder would let a line break through. Responses: its decoder knows HTTP/1.1 only, the
//! statuses of its own table only (a proxy's 520 is an error to it), 8 KiB at a time, and panics
//! on values that are not ASCII. So the status line is read here, foreign bytes become `?`, and
//! the header lines are handed to it in portions; the lines that frame the body stay here, since
//! the body is read here, and so do lines that are too long for it.

use http_types::headers::{HeaderName, HeaderValue};
use smol::io::AsyncReadExt as _;
use url::Url;

use super::Method;
use super::headers::Headers;
use crate::kind::Kind;
use crate::net::Error;
use crate::net::proxy::Proxy;

/// What is asked.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// The method.
    pub method: Method,
    /// Where to: `http` or `https`.
    pub url: Url,
    /// Header lines; Host and Content-Length are added.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

/// The bytes of a request, body included, as its host or as `proxy` wants it. `Kind::Invalid` for
/// headers that cannot be sent.
pub(super) async fn encode(
    request: &ClientRequest,
    proxy: Option<&Proxy>,
) -> Result<Vec<u8>, Error> {
    let invalid = |why: String| {
        let host = request.url.host_str().unwrap_or_default();
        Error::new(Kind::Invalid, format!("request to {host}: {why}"))
    };
    let method = match request.method {
        Method::Get => http_types::Method::Get,
        Method::Head => http_types::Method::Head,
        Method::Post => http_types::Method::Post,
        Method::Put => http_types::Method::Put,
        Method::Patch => http_types::Method::Patch,
        Method::Delete => http_types::Method::Delete,
        Method::Options => http_types::Method::Options,
        Method::Connect | Method::Other => {
            return Err(invalid("expected a method that has a name".to_owned()));
        }
    };
    let mut theirs = http_types::Request::new(method, request.url.clone());
    let has_body = !request.body.is_empty();
    if has_body {
        theirs.set_body(request.body.clone());
    }
    if request.headers.get("user-agent").is_none() {
        theirs.insert_header("user-agent", USER_AGENT);
    }
    // The encoder would add a type of its own; ours replaces it, the first of each name at least.
    for (name, value) in request.headers.iter() {
        let refused = || invalid(format!("header {name:?}: expected printable ascii"));
        let printable = value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        let is_token = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte));
        if !printable || !is_token {
            return Err(refused());
        }
        let value = HeaderValue::from_bytes(value.into()).map_err(|_| refused())?;
        let name = HeaderName::from_bytes(name.into()).map_err(|_| refused())?;
        let first = theirs.header(&name).is_none() || name == "content-type";
        if first {
            theirs.insert_header(name, value);
        } else {
            theirs.append_header(name, value);
        }
    }
    let mut bytes = Vec::new();
    async_h1::client::Encoder::new(theirs)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| invalid(error.to_string()))?;
    if !has_body && matches!(request.method, Method::Get | Method::Head) {
        remove(&mut bytes, b"content-length: 0\r\n");
    }
    if let Some(proxy) = proxy {
        address(&mut bytes, request, proxy);
    }
    Ok(bytes)
}

/// Makes of a request to a host one to a proxy: the whole URL, and who asks.
fn address(bytes: &mut Vec<u8>, request: &ClientRequest, proxy: &Proxy) {
    let url = &request.url;
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let target = request.method.as_str().len() + 1;
    if let Some(value) = &proxy.authorization
        && let Some(end) = bytes.iter().position(|byte| *byte == b'\n')
    {
        let line = format!("proxy-authorization: {value}\r\n");
        bytes.splice(end + 1..end + 1, line.into_bytes());
    }
    bytes.splice(target..target, format!("http://{host}{port}").into_bytes());
}

/// Takes the first occurrence of a line away: some servers refuse a GET that states a length.
fn remove(bytes: &mut Vec<u8>, line: &[u8]) {
    if let Some(at) = bytes.windows(line.len()).position(|window| window == line) {
        bytes.drain(at..at + line.len());
    }
}

/// The head of a response.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub status: u16,
    pub headers: Headers,
    /// Whether the server speaks HTTP/1.0.
    pub is_old: bool,
}

/// Decodes a whole head; the error says what is wrong with it.
pub(super) async fn decode(bytes: &[u8]) -> Result<ResponseHead, String> {
    let mut lines = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty());
    let (status, is_old) = lines
        .next()
        .and_then(status_line)
        .ok_or_else(|| "expected a status line of HTTP/1.1".to_owned())?;
    let mut head = ResponseHead { status, headers: Headers::new(), is_old };
    let mut portion = Portion::new();
    for (count, line) in lines.enumerate() {
        if count >= LINES_MAX {
            return Err(format!("more than {LINES_MAX} header lines"));
        }
        let line: Vec<u8> =
            line.iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' }).collect();
        if let Some((name, value)) = framing(&line) {
            head.headers.append(name, value);
            continue;
        }
        let is_long = line.len() > LINE_BYTES_MAX;
        if is_long || !portion.has_room(&line) {
            std::mem::replace(&mut portion, Portion::new()).decode(&mut head.headers).await?;
        }
        if is_long {
            let (name, value) = long(&line)?;
            head.headers.append(name, value);
        } else {
            portion.push(&line);
        }
    }
    portion.decode(&mut head.headers).await?;
    Ok(head)
}

/// Status and age from `HTTP/1.1 200 OK`.
fn status_line(line: &[u8]) -> Option<(u16, bool)> {
    let line = std::str::from_utf8(line.get(..12)?).ok()?;
    let (version, status) = line.split_once(' ')?;
    let is_old = match version {
        "HTTP/1.1" => false,
        "HTTP/1.0" => true,
        _ => return None,
    };
    let status = status.parse().ok().filter(|status| (100..1000).contains(status))?;
    Some((status, is_old))
}

/// The line, if it frames the body.
fn framing(line: &[u8]) -> Option<(&str, &str)> {
    let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
    let frames = ["content-length", "transfer-encoding"];
    frames.iter().any(|frame| name.eq_ignore_ascii_case(frame)).then(|| (name, value.trim()))
}

/// A line that is too long for the decoder.
fn long(line: &[u8]) -> Result<(&str, &str), String> {
    let split = std::str::from_utf8(line).ok().and_then(|line| line.split_once(':'));
    let (name, value) = split.ok_or_else(|| "a header line without a colon".to_owned())?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a header line without a name".to_owned());
    }
    Ok((name, value.trim_matches([' ', '\t'])))
}

/// Header lines for one call of the decoder.
struct Portion {
    text: Vec<u8>,
    lines: usize,
    has_date: bool,
}

impl Portion {
    fn new() -> Self {
        Self { text: b"HTTP/1.1 200 OK\r\n".to_vec(), lines: 0, has_date: false }
    }

    fn has_room(&self, line: &[u8]) -> bool {
        self.text.len() + line.len() <= PORTION_BYTES_MAX && self.lines < PORTION_LINES_MAX
    }

    fn push(&mut self, line: &[u8]) {
        self.has_date |= line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"date:"));
        self.text.extend_from_slice(line);
        self.text.extend_from_slice(b"\r\n");
        self.lines += 1;
    }

    async fn decode(mut self, into: &mut Headers) -> Result<(), String> {
        if self.lines == 0 {
            return Ok(());
        }
        self.text.extend_from_slice(b"\r\n");
        let decoded = async_h1::client::decode(smol::io::Cursor::new(self.text))
            .await
            .map_err(|error| error.to_string())?;
        for (name, values) in decoded.iter() {
            // A date that no line stated is the decoder's own.
            if *name == "date" && !self.has_date {
                continue;
            }
            for value in values {
                into.append(name.as_str(), value.as_str());
            }
        }
        Ok(())
    }
}

const USER_AGENT: &str = concat!("moonlet/", env!("CARGO_PKG_VERSION"));
/// async-h1 takes heads of less than 8 KiB and 128 lines.
const PORTION_BYTES_MAX: usize = 7 << 10;
const LINE_BYTES_MAX: usize = 6 << 10;
const PORTION_LINES_MAX: usize = 100;
/// Header lines of one response.
const LINES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, name: &str, value: &str, body: &[u8]) -> Result<String, Error> {
        let mut headers = Headers::new();
        headers.append(name, value);
        headers.append(name, "second");
        let url = "http://[::1]:5000/v2/a%20b?x=%2F#no".parse().unwrap();
        let request = ClientRequest { method, url, headers, body: body.to_vec() };
        smol::block_on(encode(&request, None)).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn requests_are_encoded() {
        let text = request(Method::Get, "accept", "first", b"").unwrap();
        assert!(text.starts_with("GET /v2/a%20b?x=%2F HTTP/1.1\r\nhost: [::1]:5000\r\n"), "{text}");
        assert!(text.contains("accept: first\r\naccept: second\r\n"));
        assert!(text.contains("user-agent: moonlet/") && !text.contains("content-length"));
        let text = request(Method::Post, "content-type", "text/plain", b"a=b").unwrap();
        assert!(text.contains("content-length: 3\r\n") && text.ends_with("\r\n\r\na=b"), "{text}");
        for (name, value) in [("a", "x\r\ny: z"), ("a", "\u{e9}"), ("a b", "c"), ("", "c")] {
            let error = request(Method::Get, name, value, b"").unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
        }
    }

    #[test]
    fn heads_that_async_h1_would_refuse_are_decoded() {
        let many = (0..300).map(|n| format!("X-{n}: {}\r\n", "v".repeat(60))).collect::<String>();
        let text = format!(
            "HTTP/1.0 520 Odd\r\nContent-Length: 5\r\nSet-Cookie: \u{e9}\r\nA: 1\r\n{many}A: 2\r\n\
             Date: today\r\n\r\n"
        );
        let head = smol::block_on(decode(text.as_bytes())).unwrap();
        assert_eq!((head.status, head.is_old), (520, true));
        assert_eq!(head.headers.get("content-length"), Some("5"));
        assert_eq!(head.headers.get("set-cookie"), Some("??"));
        assert_eq!(head.headers.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.headers.all("date").collect::<Vec<_>>(), ["today"]);
        assert_eq!(head.headers.iter().count(), 305);
    }

    #[test]
    fn a_proxy_gets_the_whole_url() {
        let authorization = Some("Basic dTpw".to_owned());
        let proxy = Proxy { host: "p".to_owned(), port: 1, authorization };
        let url = "http://u:p@h:5000/v2/?x=1".parse().unwrap();
        let (method, headers, body) = (Method::Head, Headers::new(), Vec::new());
        let request = ClientRequest { method, url, headers, body };
        let bytes = smol::block_on(encode(&request, Some(&proxy))).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let expected = "HEAD http://h:5000/v2/?x=1 HTTP/1.1\r\nproxy-authorization: Basic dTpw\r\n\
                        host: h:5000\r\n";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn long_lines_and_many() {
        let long = "v".repeat(32 << 10);
        let text = format!("HTTP/1.1 200 OK\r\nA: 1\r\nLink:  {long}\t\r\nA: 2\r\n\r\n");
        let head = smol::block_on(decode(text.as_bytes())).unwrap();
        assert_eq!(head.headers.get("link"), Some(long.as_str()));
        assert_eq!(head.headers.all("a").collect::<Vec<_>>(), ["1", "2"]);
        for bad in [format!("{long}: x"), long.clone(), format!(": {long}"), format!("a b: {long}")]
        {
            let text = format!("HTTP/1.1 200 OK\r\n{bad}\r\n\r\n");
            let is_named = bad.ends_with(": x");
            assert_eq!(smol::block_on(decode(text.as_bytes())).is_ok(), is_named);
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(LINES_MAX + 1));
        assert!(smol::block_on(decode(many.as_bytes())).unwrap_err().contains("512"));
    }

    #[test]
    fn malformed_heads_are_refused() {
        for text in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20x\r\n\r\n",
            "\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        ] {
            assert!(smol::block_on(decode(text.as_bytes())).is_err(), "{text:?}");
        }
    }
}
