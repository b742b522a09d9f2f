//! The client: one request, one response, over a kept connection if there is one.
//!
//! Redirects and credentials are `registry`'s: here a response is what the server said. A kept
//! connection may have been ended by the server while our request was on its way; if it dies
//! before the first byte of a response, the request is sent once more over a new one, unless its
//! method could have had an effect. Everything else that fails is reported, not retried: pauses and
//! budgets belong to `pull`.

use std::io;
use std::rc::Rc;

use futures_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use url::Url;

use super::Method;
use super::body::{Body, Framing, Home};
use super::chunks::Chunks;
use super::codec::{self, ClientRequest, ResponseHead};
use super::head::{Arrival, arrive, content_length};
use super::headers::Headers;
use super::limits::ClientLimits;
use super::pool::{Peer, Pool};
use super::tunnel::FarEnd;
use super::wire::{Socket, Stream, Wait, Wire};
use crate::clock::SharedClock;
use crate::kind::Kind;
use crate::net::gate::Link;
use crate::net::proxy::Proxy;
use crate::net::{Error, Network, dial, tls};

/// What the server said.
pub struct ClientResponse {
    /// The status code.
    pub status: u16,
    /// Header lines, in no order across different names.
    pub headers: Headers,
    /// The body, not yet read.
    pub body: Body,
}

/// Sends requests; a clone shares its connections.
#[derive(Clone)]
pub struct Client {
    pub(super) trust: tls::Trust,
    pub(super) network: Network,
    limits: ClientLimits,
    pub(super) pool: Rc<Pool>,
}

impl Client {
    /// A client with no connections yet.
    pub fn new(trust: tls::Trust, network: Network, limits: ClientLimits) -> Self {
        let clock = Rc::clone(trust.clock());
        let pool = Rc::new(Pool::new(limits.idle_max, limits.idle_age_max, clock));
        Self { trust, network, limits, pool }
    }

    /// Sends a request and waits for the head of its response. Redirects are not followed.
    ///
    /// `Kind::Retry` for what the link or a confused server can do, `Kind::Invalid` for a request
    /// or a peer that cannot work (a wrong scheme, a certificate that is not trusted).
    pub async fn send(&self, request: ClientRequest) -> Result<ClientResponse, Error> {
        let peer = peer(&request.url)?;
        let what = format!("{} {}{}", request.method, authority(&request.url), request.url.path());
        // What is encrypted goes through a tunnel, of which the far end knows nothing.
        let proxy = self.proxy(&peer).filter(|_| !peer.is_tls);
        let bytes = codec::encode(&request, proxy).await?;
        let kept = self.pool.take(&peer).await;
        let may_repeat = !matches!(request.method, Method::Post | Method::Patch);
        if let Some(mut wire) = kept {
            match self.exchange(&mut wire, &bytes, &peer, &what).await {
                Ok(head) => return self.response(wire, head, request.method, peer, what),
                Err(Failure { is_stale: true, .. }) if may_repeat => {}
                Err(failure) => return Err(failure.error),
            }
        }
        let mut wire = self.open(&peer).await?;
        let exchanged = self.exchange(&mut wire, &bytes, &peer, &what).await;
        let head = exchanged.map_err(|failure| failure.error)?;
        self.response(wire, head, request.method, peer, what)
    }

    /// Connections kept now.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.pool.len()
    }

    pub(super) fn proxy(&self, peer: &Peer) -> Option<&Proxy> {
        self.network.proxies.find(peer.is_tls, &peer.host, peer.port)
    }

    /// The clock of its deadlines: that of its certificates.
    pub(super) fn clock(&self) -> &SharedClock {
        self.trust.clock()
    }

    async fn open(&self, peer: &Peer) -> Result<Wire, Error> {
        if peer.is_tls {
            // A file that is missing is known without a connection.
            self.trust.config()?;
        }
        let socket = self.reach(peer, false).await?;
        Ok(Wire::new(self.secure(socket, peer).await?, HEAD_BYTES_MAX, self.clock()))
    }

    /// A connection to `peer`, through its proxy where it has one, without TLS yet. `public_only`
    /// is for a peer of a client's choice.
    pub(super) async fn reach(&self, peer: &Peer, public_only: bool) -> Result<Socket, Error> {
        let Peer { is_tls, host, port } = peer;
        let Some(proxy) = self.proxy(peer) else {
            return self.dial(host, *port, public_only).await;
        };
        let socket = self.dial(&proxy.host, proxy.port, false).await.map_err(|error| {
            // What the link holds back says nothing of the proxy.
            match error.retry_after() {
                Some(_) => error,
                None => error.about(format_args!("proxy for {host}")),
            }
        })?;
        if *is_tls { self.tunnel(socket, proxy, peer).await } else { Ok(socket) }
    }

    /// The connection with TLS, where `peer` has it.
    pub(super) async fn secure(&self, socket: Socket, peer: &Peer) -> Result<Stream, Error> {
        let Peer { is_tls, host, port } = peer;
        if !is_tls {
            return Ok(Stream::Plain(socket));
        }
        let config = self.trust.config()?;
        let name = ServerName::try_from(peer.bare_host()).map_err(|_| {
            Error::new(Kind::Invalid, format!("{host}: expected a dns name or an address"))
        })?;
        let stream = smol::future::or(TlsConnector::from(config).connect(name, socket), async {
            self.clock().sleep(self.limits.connect_deadline).await;
            Err(io::ErrorKind::TimedOut.into())
        });
        let stream = stream.await.map_err(|error| {
            tls::failure("tls handshake with", &format!("{host}:{port}"), error)
        })?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    /// Connects to a host whose bytes are those of another, who is to get only to addresses of the
    /// internet if `public_only`. Where a proxy stands between, names are its to look up.
    ///
    /// # Errors
    /// [`Kind::Denied`] for an address that is not one; as of [`Self::send`].
    pub async fn far_end(&self, host: &str, port: u16, public_only: bool) -> Result<FarEnd, Error> {
        let peer = Peer { is_tls: true, host: host.to_owned(), port };
        let address = peer.bare_host().parse();
        if public_only && address.is_ok_and(|address| !dial::is_public(address)) {
            let what = format!("connect to {host}:{port}: {}", dial::NOT_PUBLIC);
            return Err(Error::new(Kind::Denied, what));
        }
        let socket = self.reach(&peer, public_only).await?;
        let sent = Link::new(&self.network, None);
        Ok(FarEnd { socket, sent })
    }

    async fn dial(&self, host: &str, port: u16, public_only: bool) -> Result<Socket, Error> {
        let ClientLimits { connect_deadline: deadline, receive_buffer_bytes, .. } = self.limits;
        let receive_buffer_bytes =
            receive_buffer_bytes.or_else(|| self.network.gate.as_ref()?.receive_buffer_bytes());
        let mut link = Link::new(&self.network, receive_buffer_bytes);
        link.admit(HANDSHAKE_BYTES, u64::MAX).await?;
        let options = dial::Options { deadline, receive_buffer_bytes, public_only };
        let socket =
            dial::connect(host, port, &self.network.resolver, &options, &**self.clock()).await?;
        link.connected();
        Ok(Socket::new(socket, Some(link)))
    }

    /// Asks a proxy for a connection to `peer`.
    async fn tunnel(&self, socket: Socket, proxy: &Proxy, peer: &Peer) -> Result<Socket, Error> {
        let Peer { host, port, .. } = peer;
        let what = format!("proxy {proxy:?}: CONNECT {host}:{port}");
        let line = proxy.authorization.as_ref();
        let line = line.map(|value| format!("Proxy-Authorization: {value}\r\n"));
        let text = format!(
            "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{}\r\n",
            line.unwrap_or_default()
        );
        let mut wire = Wire::new(Stream::Plain(socket), HEAD_BYTES_MAX, self.clock());
        let head = self.exchange(&mut wire, text.as_bytes(), peer, &what).await;
        let status = head.map_err(|failure| failure.error)?.status;
        let kind = match status {
            200..=299 => Kind::Retry,
            407 => {
                let why = "the proxy wants credentials, expected them in its URL";
                return Err(Error::new(Kind::Invalid, format!("{what}: status 407, {why}")));
            }
            429 | 500.. => Kind::Retry,
            _ => Kind::Invalid,
        };
        match wire.into_socket().filter(|_| status < 300) {
            Some(socket) => Ok(socket),
            None if status < 300 => {
                Err(Error::new(kind, format!("{what}: bytes before the handshake")))
            }
            None => Err(Error::new(kind, format!("{what}: refused with status {status}"))),
        }
    }

    /// Sends the request and reads the head of the response.
    async fn exchange(
        &self,
        wire: &mut Wire,
        bytes: &[u8],
        peer: &Peer,
        what: &str,
    ) -> Result<ResponseHead, Failure> {
        let failed = |error: io::Error| {
            // Nothing but a dead connection makes a request worth repeating.
            let is_stale = matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            );
            let error = tls::failure(&format!("{what}: from"), &peer.host, error);
            Failure { error, is_stale }
        };
        let wrong = |text: String| Failure {
            error: Error::new(Kind::Retry, format!("{what}: {text}")),
            is_stale: false,
        };
        let held_back = |error| Failure { error, is_stale: false };
        wire.ask(bytes.len()).await.map_err(held_back)?;
        wire.write_all(bytes, Wait::Stall(self.limits.stall_deadline)).await.map_err(failed)?;
        let until = Wait::Until(self.clock().monotonic() + self.limits.head_deadline);
        for _ in 0..INTERIM_MAX {
            let len = match arrive(wire, until).await {
                Ok(Arrival::Whole(len)) => len,
                Ok(Arrival::Ended(0)) => {
                    let mut failure = wrong("connection closed without a response".to_owned());
                    failure.is_stale = true;
                    return Err(failure);
                }
                Ok(Arrival::Ended(_)) => {
                    return Err(wrong("response ended in its head".to_owned()));
                }
                Ok(Arrival::TooLong) => {
                    let limit = HEAD_BYTES_MAX >> 10;
                    return Err(wrong(format!("head of the response is over {limit} KiB")));
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let seconds = self.limits.head_deadline.as_secs();
                    return Err(wrong(format!("no response within {seconds} s")));
                }
                Err(error) => return Err(failed(error)),
            };
            let head = codec::decode(wire.buffered().get(..len).unwrap_or_default()).await;
            wire.consume(len);
            let head = head.map_err(|why| wrong(format!("malformed response: {why}")))?;
            // 101 would be the answer to an upgrade, which is never asked for.
            if !(100..=199).contains(&head.status) || head.status == 101 {
                return Ok(head);
            }
        }
        Err(wrong(format!("more than {INTERIM_MAX} interim responses")))
    }

    fn response(
        &self,
        wire: Wire,
        head: ResponseHead,
        method: Method,
        peer: Peer,
        what: String,
    ) -> Result<ClientResponse, Error> {
        let ResponseHead { status, headers, is_old } = head;
        let framing = framing(status, &headers, method)
            .map_err(|why| Error::new(Kind::Retry, format!("{what}: {why}")))?;
        let stays = if is_old {
            headers.has_word("connection", "keep-alive")
        } else {
            !headers.has_word("connection", "close")
        };
        // A length beside a coding is how smuggling begins: such a connection is not trusted on.
        let is_plain =
            headers.get("transfer-encoding").is_none() || headers.get("content-length").is_none();
        let is_reusable = stays && is_plain && !matches!(framing, Framing::UntilEnd);
        let home = Home { pool: Rc::clone(&self.pool), peer, is_reusable, what };
        let body = Body::new(wire, framing, &self.limits, home);
        Ok(ClientResponse { status, headers, body })
    }
}

/// Why there is no response.
struct Failure {
    error: Error,
    /// The connection was dead before the response began.
    is_stale: bool,
}

fn framing(status: u16, headers: &Headers, method: Method) -> Result<Framing, &'static str> {
    if method == Method::Head || matches!(status, 101 | 204 | 304) {
        return Ok(Framing::None);
    }
    let mut codings = headers.all("transfer-encoding");
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => {
            return Ok(Framing::Chunked(Chunks::default()));
        }
        (None, _) => {}
        _ => return Err("expected transfer-encoding chunked or none"),
    }
    match content_length(headers) {
        Ok(Some(length)) => Ok(Framing::Length(length)),
        Ok(None) => Ok(Framing::UntilEnd),
        Err(_) => Err("contradictory content-length"),
    }
}

pub(super) fn peer(url: &Url) -> Result<Peer, Error> {
    let invalid = |why: &str| {
        let host = url.host_str().unwrap_or_default();
        Error::new(Kind::Invalid, format!("{}://{host}: {why}", url.scheme()))
    };
    let is_tls = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return Err(invalid("expected http or https")),
    };
    let host = url.host_str().ok_or_else(|| invalid("expected a host"))?.to_owned();
    let port = url.port_or_known_default().ok_or_else(|| invalid("expected a port"))?;
    Ok(Peer { is_tls, host, port })
}

/// Host and port for messages, without credentials.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Bytes of a response's head: there are proxies and stores with lines of 32 KiB.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
/// Of a TLS handshake, both ways, with a long chain of certificates.
const HANDSHAKE_BYTES: u64 = 32 << 10;
/// Interim (1xx) responses before the one that counts.
const INTERIM_MAX: usize = 8;
