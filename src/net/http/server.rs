//! The server: a listener, and the loop of one connection.
//!
//! A connection may wait for a head, be idle, and stall while sending, each for a bounded time,
//! and it ends by FIN: what is sent last must arrive. Who gives way when more come than there
//! are slots is decided in `slots`.
//! Bodies of requests have no use in a read API: they are read away up to a limit, so that the
//! connection can go on, and beyond it the answer is given and the connection ended.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_rustls::{TlsAcceptor, TlsStream};
use rustix::io::Errno;
use smol::future::or;
use smol::{Async, Timer};

use super::Method;
use super::chunks::{Chunks, Next};
use super::head::{Arrival, HEAD_BYTES_MAX, Refusal, RequestBody, RequestHead, arrive};
use super::headers::Headers;
use super::send::{DateLine, ResponseBody, SendOptions, Sent, ServerResponse, send};
use super::slots::{Phase, Slot, Slots};
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
    slots: Rc<Slots>,
    shared: Rc<Shared>,
    /// When accepting last failed for want of descriptors or memory.
    exhausted: Cell<Option<Instant>>,
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
        let shared = Rc::new(Shared { tls, limits, metrics, date: DateLine::new() });
        let slots = Slots::fitting(limits.connections_max);
        Ok(Self { socket, address, slots, shared, exhausted: Cell::new(None) })
    }

    /// Takes the slots of its connections from `slots`, which other listeners may share.
    #[must_use]
    pub fn sharing(self, slots: &Rc<Slots>) -> Self {
        Self { slots: Rc::clone(slots), ..self }
    }

    /// Where it listens: the port in particular, when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, which may have to wait for a slot when it is served. Descriptors or
    /// memory that run out are waited for, and reported once.
    pub async fn accept(&self) -> Result<Connection, Error> {
        loop {
            self.slots.room().await;
            match self.socket.accept().await {
                Ok((socket, peer)) => {
                    // A peer that is gone already fails at the first read.
                    let _ = dial::tune(socket.get_ref());
                    let slot = self.slots.enter(peer.ip());
                    return Ok(Connection { socket, peer, shared: Rc::clone(&self.shared), slot });
                }
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                        self.recover(&error).await;
                    }
                    // What befell a connection before it was accepted: accept(2).
                    Some(
                        Errno::CONNABORTED
                        | Errno::PROTO
                        | Errno::NETDOWN
                        | Errno::NETUNREACH
                        | Errno::HOSTDOWN
                        | Errno::HOSTUNREACH
                        | Errno::NONET
                        | Errno::OPNOTSUPP
                        | Errno::NOPROTOOPT
                        | Errno::PERM
                        | Errno::INTR,
                    ) => smol::future::yield_now().await,
                    _ => {
                        let what = format_args!("accept on {}", self.address);
                        return Err(Error::io(Kind::Retry, what, error));
                    }
                },
            }
        }
    }

    /// Makes room after an accept that failed for want of descriptors or memory.
    async fn recover(&self, error: &io::Error) {
        let last = self.exhausted.replace(Some(Instant::now()));
        if last.is_none_or(|last| last.elapsed() > EPISODE) {
            let address = self.address;
            log::warn!("accept on {address}: {error}; idle connections are closed until it works");
        }
        self.slots.shed_idle();
        Timer::after(ACCEPT_PAUSE).await;
    }
}

/// What the connections of a listener share.
struct Shared {
    tls: Option<Identity>,
    limits: ServerLimits,
    metrics: Rc<Metrics>,
    date: DateLine,
}

/// Counts an open connection.
struct Counted(Rc<Shared>);

impl Counted {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.metrics.http_connections.add(1);
        Self(Rc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.http_connections.sub(1);
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

    /// Waits for a slot, and answers requests until the peer leaves, asks for the end, exceeds a
    /// limit, or has to give way to others. The error is for a log: there is nothing to be done
    /// about it.
    pub async fn serve<H: Handler>(self, handler: &H) -> Result<(), Error> {
        let Self { socket, peer, shared, slot } = self;
        let gave_way = || {
            shared.metrics.http_refused.add(1);
            Err(Error::new(Kind::Retry, format!("connection of {peer}: gave way to others")))
        };
        if !slot.opened().await {
            return gave_way();
        }
        let _counted = Counted::new(&shared);
        // On the heap, for those who wait for a slot should cost little.
        let talk = Box::pin(talk(socket, peer, &shared, &slot, handler));
        let outcome = or(async { Some(talk.await) }, async {
            slot.shed().await;
            None
        });
        outcome.await.unwrap_or_else(gave_way)
    }
}

/// Answers requests on a connection that has its slot.
async fn talk<H: Handler>(
    socket: Async<TcpStream>,
    peer: SocketAddr,
    shared: &Rc<Shared>,
    slot: &Slot,
    handler: &H,
) -> Result<(), Error> {
    let socket = Socket::new(socket, None);
    let stream = match &shared.tls {
        None => Stream::Plain(socket),
        Some(identity) => {
            slot.set(Phase::Greeting);
            let stream = handshake(socket, peer, shared, slot, identity).await?;
            slot.set(Phase::Idle);
            Stream::Tls(Box::new(stream))
        }
    };
    let wire = Wire::new(stream, HEAD_BYTES_MAX);
    let mut session = Session { wire, out: Vec::new(), peer, shared, slot };
    let result = session.run(handler).await;
    if !matches!(result, Err(End::Lost(_))) {
        slot.set(Phase::Idle);
        session.wire.close(LINGER).await;
    }
    let why = match result {
        Ok(()) => return Ok(()),
        Err(End::Lost(error)) => error,
        Err(End::Refused(why)) => io::Error::other(why),
    };
    if why.kind() == io::ErrorKind::TimedOut {
        shared.metrics.http_refused.add(1);
    }
    Err(Error::io(Kind::Retry, format_args!("connection of {peer}"), why))
}

async fn handshake(
    socket: Socket,
    peer: SocketAddr,
    shared: &Shared,
    slot: &Slot,
    identity: &Identity,
) -> Result<TlsStream<Socket>, Error> {
    let acceptor = TlsAcceptor::from(identity.current());
    let accepting = acceptor.accept_with(socket, |connection| {
        connection.set_buffer_limit(Some(slot.block_bytes()));
    });
    let deadline = async {
        Timer::after(shared.limits.head_deadline).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let stream = or(accepting, deadline).await.map_err(|error| {
        shared.metrics.http_refused.add(1);
        tls::failure("tls handshake with", &peer.to_string(), error)
    })?;
    Ok(stream.into())
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
struct Session<'a> {
    wire: Wire,
    out: Vec<u8>,
    peer: SocketAddr,
    shared: &'a Shared,
    slot: &'a Slot,
}

impl Session<'_> {
    async fn run<H: Handler>(&mut self, handler: &H) -> Result<(), End> {
        let limits = self.shared.limits;
        // A client that connects has something to say; only between requests may one be silent.
        let mut silence = limits.head_deadline;
        loop {
            self.wire.shrink();
            self.slot.set(Phase::Idle);
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
            if let Some(refusal) = self.wire.buffered().first().and_then(alien) {
                return self.refuse(refusal).await;
            }
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
        self.slot.set(Phase::Working);
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
        let options = SendOptions { head_only, close, say_keep_alive: is_old, stall };
        let Self { wire, out, shared, slot, .. } = self;
        slot.set(Phase::Sending);
        shared.metrics.http_sending.add(1);
        let sent = send(wire, out, &shared.date, response, options, slot).await;
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

    /// Says to the peer why nothing more is heard of it; always an end.
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

/// Why a request cannot begin with this byte, if it cannot. A peer that does waits for an answer
/// before it goes on, or never sends an end of a head: docker, podman and skopeo try TLS first where
/// they are set to take a registry as `insecure`.
fn alien(first: &u8) -> Option<Refusal> {
    let why = match first {
        TLS_HANDSHAKE => "this port speaks http, not tls",
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'\r' | b'\n' => return None,
        _ => "expected a method",
    };
    Some(Refusal { status: 400, why })
}

/// The first byte of a ClientHello's record.
const TLS_HANDSHAKE: &u8 = &0x16;
/// Failures for want of descriptors or memory that follow each other this closely are one.
const EPISODE: Duration = Duration::from_mins(1);
/// After such a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bodies of requests that are read away; of longer ones the connection is ended.
const REQUEST_BODY_BYTES_MAX: u64 = 1 << 20;
/// Pairs of a query; the rest is ignored.
const QUERY_PAIRS_MAX: usize = 32;
/// Time for the peer to take what it was sent last.
const LINGER: Duration = Duration::from_secs(2);
