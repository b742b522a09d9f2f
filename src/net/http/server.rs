//! The server: a listener, and what answers.
//!
//! A connection may wait for a head, be idle, and stall while sending, each for a bounded time,
//! and it ends by FIN: what is sent last must arrive. Which is closed when more come than there
//! are slots is decided in `slots`.
//! Bodies of requests have no use in a read API: they are read away up to a limit, so that the
//! connection can go on, and beyond it the answer is given and the connection ended.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use smol::Async;
use smol::future::or;

use super::handler::Handler;
use super::limits::ServerLimits;
use super::session::talk;
use super::shared::Shared;
use super::slots::{Slot, Slots};
use crate::clock::SharedClock;
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::net::{Error, Identity, dial, listen};

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
