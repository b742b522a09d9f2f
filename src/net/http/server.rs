//! The server: a listener, and what answers.
//!
//! A connection may wait for a head, be idle, and stall while sending, each for a bounded time,
//! and it ends by FIN: what is sent last must arrive. Who gives way when more come than there
//! are slots is decided in `slots`.
//! Bodies of requests have no use in a read API: they are read away up to a limit, so that the
//! connection can go on, and beyond it the answer is given and the connection ended.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use smol::Async;
use smol::future::or;

use super::Method;
use super::answer::DateLine;
use super::headers::Headers;
use super::origin::Origin;
use super::send::ServerResponse;
use super::session::talk;
use super::slots::{Slot, Slots};
use super::tunnel::Tunnel;
use crate::clock::SharedClock;
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::net::{Error, Identity, dial, listen};

/// What clients may take of the server.
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

    /// Says what becomes of a CONNECT to an origin. Who is no proxy refuses it.
    fn connect(&self, request: ServerRequest, _to: Origin) -> impl Future<Output = Connect> {
        async { Connect::Refused(self.handle(request).await) }
    }
}

/// What becomes of a CONNECT.
pub enum Connect {
    /// There is no tunnel.
    Refused(ServerResponse),
    /// It ends here: TLS is answered with this certificate, and the requests within are handled.
    Answered(Arc<rustls::ServerConfig>),
    /// It leads to another host.
    Relayed(Tunnel),
}

/// A [`Handler`] of any type: the loop of a connection is in the program once.
pub(super) trait Answers {
    fn handle<'a>(&'a self, request: ServerRequest) -> Answer<'a, ServerResponse>;
    fn connect<'a>(&'a self, request: ServerRequest, to: Origin) -> Answer<'a, Connect>;
}

pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

impl<H: Handler> Answers for H {
    fn handle<'a>(&'a self, request: ServerRequest) -> Answer<'a, ServerResponse> {
        Box::pin(Handler::handle(self, request))
    }

    fn connect<'a>(&'a self, request: ServerRequest, to: Origin) -> Answer<'a, Connect> {
        Box::pin(Handler::connect(self, request, to))
    }
}

/// A request, without its body.
#[derive(Clone, Debug)]
pub struct ServerRequest {
    /// The method.
    pub method: Method,
    /// Whom it is for, where it came to a proxy.
    pub origin: Option<Origin>,
    /// The path as it was sent, not decoded.
    pub path: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// Header lines.
    pub headers: Headers,
    /// Who asks.
    pub peer: SocketAddr,
    /// The names of the certificate that it has shown.
    pub certificate: Option<Rc<[String]>>,
}

/// A listening socket.
pub struct Listener {
    socket: Async<TcpListener>,
    address: SocketAddr,
    slots: Rc<Slots>,
    shared: Rc<Shared>,
    /// When accepting last failed for want of descriptors or memory.
    exhausted: Cell<Option<Duration>>,
}

impl Listener {
    /// Listens on `address`, with TLS if a configuration is given. `Kind::Invalid` when the
    /// address cannot be had.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        limits: ServerLimits,
        metrics: Rc<Metrics>,
        clock: SharedClock,
    ) -> Result<Self, Error> {
        Self::over(listen(address, false)?, tls.map(Identity::new), limits, metrics, clock)
    }

    /// Accepts on `socket`; with TLS if there is an identity to show.
    pub fn over(
        socket: TcpListener,
        tls: Option<Identity>,
        limits: ServerLimits,
        metrics: Rc<Metrics>,
        clock: SharedClock,
    ) -> Result<Self, Error> {
        let failed = |error| Error::io(Kind::Invalid, "listen", error);
        let address = socket.local_addr().map_err(failed)?;
        let socket = Async::new(socket).map_err(failed)?;
        let slots = Slots::fitting(limits.connections_max, Rc::clone(&clock));
        let (date, block) = Default::default();
        let shared = Rc::new(Shared { tls, limits, metrics, clock, date, block });
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
        let clock = &self.shared.clock;
        let last = self.exhausted.replace(Some(clock.monotonic()));
        if last.is_none_or(|last| clock.since(last) > EPISODE) {
            let address = self.address;
            log::warn!("accept on {address}: {error}; idle connections are closed until it works");
        }
        self.slots.shed_idle();
        clock.sleep(ACCEPT_PAUSE).await;
    }
}

/// What the connections of a listener share.
pub(super) struct Shared {
    pub tls: Option<Identity>,
    pub limits: ServerLimits,
    pub metrics: Rc<Metrics>,
    pub clock: SharedClock,
    pub date: DateLine,
    /// What is read of a file passes through here on its way to where it is encrypted.
    pub block: RefCell<Vec<u8>>,
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

/// Failures for want of descriptors or memory that follow each other this closely are one.
const EPISODE: Duration = Duration::from_mins(1);
/// After such a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
