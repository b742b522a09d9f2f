//! The server: a listener that holds its connection cap, and the loop of one connection.
//!
//! A connection may wait for a head, be idle, and stall while sending, each for a bounded time,
//! and it ends by FIN: what it is told last must reach it. The listener accepts nothing while all
//! its connections are taken; the kernel's queue holds the rest back at no cost of memory here.
//! Bodies of requests have no use in a read API: they are read away up to a limit, so that the
//! connection can go on, and beyond it the answer is given and the connection ended.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_rustls::TlsAcceptor;
use smol::lock::{Semaphore, SemaphoreGuardArc};
use smol::{Async, Timer};

use super::Method;
use super::chunks::{Chunks, Next};
use super::head::{Arrival, HEAD_BYTES_MAX, Refusal, RequestBody, RequestHead, arrive};
use super::headers::Headers;
use super::send::{DateLine, Manner, ResponseBody, Sent, ServerResponse, send};
use super::wire::{Socket, Stream, Wait, Wire};
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::net::{Error, Identity, dial, listen, tls};

/// What strangers may take of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections open at once.
    pub connections_max: u32,
    /// Time for the TLS handshake, and for a head from its first byte to its last.
    pub head_deadline: Duration,
    /// Time between an answer and the next request.
    pub idle_deadline: Duration,
    /// Time for the whole body of a request.
    pub body_deadline: Duration,
    /// Time in which a peer must take some bytes of its answer.
    pub stall_deadline: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            head_deadline: Duration::from_secs(10),
            idle_deadline: Duration::from_secs(60),
            body_deadline: Duration::from_secs(30),
            stall_deadline: Duration::from_secs(30),
        }
    }
}

/// Answers requests.
pub trait Handler {
    /// Answers one request. It has all the time it takes: only the network has deadlines.
    fn handle(&self, request: ServerRequest) -> impl Future<Output = ServerResponse>;
}

/// A request, without its body.
#[derive(Clone, Debug)]
pub struct ServerRequest {
    /// The method.
    pub method: Method,
    /// The path as it was sent, not decoded.
    pub path: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// Header lines.
    pub headers: Headers,
    /// Who asks.
    pub peer: SocketAddr,
}

/// A listening socket.
pub struct Listener {
    socket: Async<TcpListener>,
    address: SocketAddr,
    slots: Arc<Semaphore>,
    shared: Rc<Shared>,
}

impl Listener {
    /// Listens on `address`, with TLS if a configuration is given. `Kind::Invalid` when the
    /// address cannot be had.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        limits: ServerLimits,
        metrics: Rc<Metrics>,
    ) -> Result<Self, Error> {
        Self::over(listen(address, false)?, tls.map(Identity::new), limits, metrics)
    }

    /// Accepts on `socket`; with TLS if there is an identity to show.
    pub fn over(
        socket: TcpListener,
        tls: Option<Identity>,
        limits: ServerLimits,
        metrics: Rc<Metrics>,
    ) -> Result<Self, Error> {
        let failed = |error| Error::io(Kind::Invalid, "listen", error);
        let address = socket.local_addr().map_err(failed)?;
        let socket = Async::new(socket).map_err(failed)?;
        let slots = usize::try_from(limits.connections_max.max(1)).unwrap_or(usize::MAX);
        let shared = Rc::new(Shared { tls, limits, metrics, date: DateLine::new() });
        Ok(Self { socket, address, slots: Arc::new(Semaphore::new(slots)), shared })
    }

    /// Where it listens: the port in particular, when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection; waits while all allowed connections are open. `Kind::Retry` when the
    /// process is out of descriptors or memory.
    pub async fn accept(&self) -> Result<Connection, Error> {
        let permit = self.slots.acquire_arc().await;
        loop {
            match self.socket.accept().await {
                Ok((socket, peer)) => {
                    // A peer that is gone already fails at the first read.
                    let _ = dial::tune(socket.get_ref());
                    let shared = Rc::clone(&self.shared);
                    shared.metrics.http_connections.add(1);
                    let slot = Slot { metrics: Rc::clone(&shared.metrics), _permit: permit };
                    return Ok(Connection { socket, peer, shared, slot });
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let what = format_args!("accept on {}", self.address);
                    return Err(Error::io(Kind::Retry, what, error));
                }
            }
        }
    }
}

/// What the connections of a listener share.
struct Shared {
    tls: Option<Identity>,
    limits: ServerLimits,
    metrics: Rc<Metrics>,
    date: DateLine,
}

/// One of the allowed connections.
struct Slot {
    metrics: Rc<Metrics>,
    _permit: SemaphoreGuardArc,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.http_connections.sub(1);
    }
}

/// An accepted connection.
pub struct Connection {
    socket: Async<TcpStream>,
    peer: SocketAddr,
    shared: Rc<Shared>,
    slot: Slot,
}

impl Connection {
    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Answers requests until the peer leaves, asks for the end, or exceeds a limit. The error is
    /// for a log: there is nothing to be done about it.
    pub async fn serve<H: Handler>(self, handler: &H) -> Result<(), Error> {
        let Self { socket, peer, shared, slot } = self;
        let head_deadline = shared.limits.head_deadline;
        let socket = Socket::new(socket, None);
        let stream = match &shared.tls {
            None => Stream::Plain(socket),
            Some(identity) => {
                let acceptor = TlsAcceptor::from(identity.current());
                let handshake = smol::future::or(acceptor.accept(socket), async {
                    Timer::after(head_deadline).await;
                    Err(io::ErrorKind::TimedOut.into())
                });
                let stream = handshake.await.map_err(|error| {
                    shared.metrics.http_refused.add(1);
                    tls::failure("tls handshake with", &peer.to_string(), error)
                })?;
                Stream::Tls(Box::new(stream.into()))
            }
        };
        let wire = Wire::new(stream, HEAD_BYTES_MAX);
        let mut session = Session { wire, out: Vec::new(), peer, shared };
        let result = session.run(handler).await;
        if !matches!(result, Err(End::Lost(_))) {
            session.wire.close(LINGER).await;
        }
        drop(slot);
        let why = match result {
            Ok(()) => return Ok(()),
            Err(End::Lost(error)) => error,
            Err(End::Refused(why)) => io::Error::other(why),
        };
        if why.kind() == io::ErrorKind::TimedOut {
            session.shared.metrics.http_refused.add(1);
        }
        Err(Error::io(Kind::Retry, format_args!("connection of {peer}"), why))
    }
}

/// Why a connection ends before the peer wants it to.
enum End {
    /// The peer is gone, or does not take its bytes.
    Lost(io::Error),
    /// It exceeded a limit, or an answer could not be completed.
    Refused(&'static str),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// The state of one connection.
struct Session {
    wire: Wire,
    out: Vec<u8>,
    peer: SocketAddr,
    shared: Rc<Shared>,
}

impl Session {
    async fn run<H: Handler>(&mut self, handler: &H) -> Result<(), End> {
        let limits = self.shared.limits;
        // Whoever connects has something to say; only between requests may one be silent.
        let mut silence = limits.head_deadline;
        loop {
            self.wire.settle();
            if self.wire.buffered().is_empty() {
                match self.wire.fill(Wait::Stall(silence)).await {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            } else {
                // Pipelined requests must not keep others waiting.
                smol::future::yield_now().await;
            }
            silence = limits.idle_deadline;
            let Some(head) = self.head().await? else { return Ok(()) };
            if !self.answer(head, handler).await? {
                return Ok(());
            }
        }
    }

    /// Reads and parses a head; `None` when the peer has ended.
    async fn head(&mut self) -> Result<Option<RequestHead>, End> {
        let until = Instant::now() + self.shared.limits.head_deadline;
        let len = match arrive(&mut self.wire, Wait::Until(until)).await {
            Ok(Arrival::Whole(len)) => len,
            Ok(Arrival::Ended(_)) => return Ok(None),
            Ok(Arrival::TooLong) => {
                let why = "the head is over 32 KiB";
                return self.refuse(Refusal { status: 431, why }).await.map(|()| None);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let why = "the head did not arrive in time";
                return self.refuse(Refusal { status: 408, why }).await.map(|()| None);
            }
            Err(error) => return Err(error.into()),
        };
        let parsed = RequestHead::parse(self.wire.buffered().get(..len).unwrap_or_default());
        self.wire.consume(len);
        match parsed {
            Ok(head) => Ok(Some(head)),
            Err(refusal) => self.refuse(refusal).await.map(|()| None),
        }
    }

    /// Answers one request; says whether the connection goes on.
    async fn answer<H: Handler>(&mut self, head: RequestHead, handler: &H) -> Result<bool, End> {
        let RequestHead { method, path, query, headers, body, keep_alive, is_old, .. } = head;
        let drained = self.drain(body, head.expects_continue).await?;
        let query = match query.as_str() {
            "" => Vec::new(),
            query => url::form_urlencoded::parse(query.as_bytes())
                .take(QUERY_PAIRS_MAX)
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        };
        let peer = self.peer;
        let response = handler.handle(ServerRequest { method, path, query, headers, peer }).await;
        let close = !keep_alive || !drained;
        self.send(response, method == Method::Head, close, is_old).await?;
        Ok(!close)
    }

    /// Reads a body away; `false` if it is longer than that is worth.
    async fn drain(&mut self, body: RequestBody, expects_continue: bool) -> Result<bool, End> {
        let deadline = self.shared.limits.body_deadline;
        match body {
            RequestBody::None => return Ok(true),
            // The answer says all; a body that waits for our word never comes.
            RequestBody::Length(length) if length > REQUEST_BODY_BYTES_MAX => return Ok(false),
            RequestBody::Length(_) | RequestBody::Chunked => {}
        }
        if expects_continue {
            self.wire.write_all(CONTINUE, Wait::Stall(self.shared.limits.stall_deadline)).await?;
        }
        let wait = Wait::Until(Instant::now() + deadline);
        match body {
            RequestBody::Length(length) => self.skip(length, wait).await.map(|()| true),
            _ => self.skip_chunks(wait).await,
        }
    }

    async fn skip(&mut self, mut length: u64, wait: Wait) -> Result<(), End> {
        while length > 0 {
            if self.wire.buffered().is_empty() && self.wire.fill(wait).await? == 0 {
                return Err(End::Refused("the body of a request ended early"));
            }
            let held = self.wire.buffered().len();
            let taken = usize::try_from(length).unwrap_or(held).min(held);
            self.wire.consume(taken);
            length = length.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    async fn skip_chunks(&mut self, wait: Wait) -> Result<bool, End> {
        let (mut chunks, mut total) = (Chunks::default(), 0_u64);
        loop {
            match chunks.next() {
                Next::End => return Ok(true),
                Next::Data(length) => {
                    total = total.saturating_add(length);
                    if total > REQUEST_BODY_BYTES_MAX {
                        return Ok(false);
                    }
                    self.skip(length, wait).await?;
                    chunks.data_taken(length);
                }
                Next::Framing => {
                    if self.wire.buffered().is_empty() && self.wire.fill(wait).await? == 0 {
                        return Err(End::Refused("the body of a request ended early"));
                    }
                    let Ok(taken) = chunks.advance(self.wire.buffered()) else {
                        let why = "malformed chunk";
                        return self.refuse(Refusal { status: 400, why }).await.map(|()| false);
                    };
                    self.wire.consume(taken);
                }
            }
        }
    }

    async fn send(
        &mut self,
        response: ServerResponse,
        head_only: bool,
        close: bool,
        is_old: bool,
    ) -> Result<(), End> {
        let stall = self.shared.limits.stall_deadline;
        let manner = Manner { head_only, close, tell_keep_alive: is_old, stall };
        let Self { wire, out, shared, .. } = self;
        shared.metrics.http_sending.add(1);
        let sent = send(wire, out, &shared.date, response, manner).await;
        shared.metrics.http_sending.sub(1);
        let sent = sent?;
        shared.metrics.http_requests.add(1);
        match sent {
            Sent::Whole(bytes) => {
                shared.metrics.http_sent_bytes.add(bytes);
                Ok(())
            }
            Sent::Short(bytes) => {
                shared.metrics.http_sent_bytes.add(bytes);
                Err(End::Refused("the body of an answer ended early"))
            }
        }
    }

    /// Tells the peer why nothing more is heard of it; always an end.
    async fn refuse(&mut self, refusal: Refusal) -> Result<(), End> {
        self.shared.metrics.http_refused.add(1);
        let mut headers = Headers::new();
        headers.append("content-type", "text/plain; charset=utf-8");
        let text = format!("{}\n", refusal.why);
        let body = ResponseBody::Bytes(text.into_bytes().into());
        let response = ServerResponse { status: refusal.status, headers, body };
        self.send(response, false, true, false).await?;
        Err(End::Refused(refusal.why))
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bodies of requests that are read away; of longer ones the connection is ended.
const REQUEST_BODY_BYTES_MAX: u64 = 1 << 20;
/// Pairs of a query; the rest is ignored.
const QUERY_PAIRS_MAX: usize = 32;
/// Time for the peer to take what it was told last.
const LINGER: Duration = Duration::from_secs(2);
