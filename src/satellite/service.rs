//! A service at its addresses: each is listened on by itself, and tried again where that fails.
//!
//! An interface may come up after the satellite, a port may still be in use: that is reported, and
//! holds up neither the other addresses nor anything else. The addresses can be changed while the
//! service runs; connections that are open go on.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, info, warn};
use smol::{LocalExecutor, Task};

use super::identity::Certificate;
use super::run::Satellite;
use crate::clock::SharedClock;
use crate::config::ServerTls;
use crate::metrics::Metrics;
use crate::net::http::{Handler, Listener, ServerLimits, Slots};
use crate::net::{self, listen};
use crate::status::Health;

/// One service.
pub struct Service<H> {
    /// As the log names it, before the address.
    pub what: &'static str,
    /// Where connections are served.
    pub executor: Rc<LocalExecutor<'static>>,
    /// What answers.
    pub handler: Rc<H>,
    /// Counts connections and answers.
    pub metrics: Rc<Metrics>,
    /// For deadlines and pauses.
    pub clock: SharedClock,
    /// Where addresses that cannot be had are reported.
    pub health: Health,
    /// What is listened on; begins empty.
    pub sockets: RefCell<Vec<(Socket, Task<()>)>>,
    /// What all of them share, and how many connections that lets be open at once; begins empty.
    pub slots: RefCell<Option<(u32, Rc<Slots>)>>,
}

/// A service that does not listen yet.
pub fn service<H>(
    what: &'static str,
    handler: Rc<H>,
    metrics: Rc<Metrics>,
    satellite: &Satellite,
    executor: &Rc<LocalExecutor<'static>>,
) -> Service<H> {
    let (executor, health) = (Rc::clone(executor), satellite.health.clone());
    let clock = Rc::clone(&satellite.clock);
    let (sockets, slots) = (RefCell::default(), RefCell::default());
    Service { what, executor, handler, metrics, clock, health, sockets, slots }
}

/// Where, and how, a service listens.
pub struct Place {
    /// The addresses.
    pub addresses: Vec<SocketAddr>,
    /// Ports on which IPv4 has addresses of its own.
    pub ipv4_ports: Vec<u16>,
    /// Connections open at once, on all together.
    pub connections_max: u32,
    /// With TLS, if it is to be.
    pub certificate: Option<Rc<Certificate>>,
}

/// A change of any of this is another socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    address: SocketAddr,
    ipv6_only: bool,
    connections_max: u32,
    tls: Option<ServerTls>,
}

impl Place {
    fn sockets(&self) -> Vec<Socket> {
        let socket = |address: &SocketAddr| Socket {
            address: *address,
            ipv6_only: address.is_ipv6() && self.ipv4_ports.contains(&address.port()),
            connections_max: self.connections_max,
            tls: self.certificate.as_ref().map(|certificate| certificate.files().clone()),
        };
        self.addresses.iter().map(socket).collect()
    }
}

impl<H: Handler + 'static> Service<H> {
    /// Stops listening everywhere but at `place`.
    pub async fn leave(&self, place: &Place) {
        let wanted = place.sockets();
        for (socket, task) in self.sockets.take() {
            if wanted.contains(&socket) {
                self.sockets.borrow_mut().push((socket, task));
                continue;
            }
            // The socket is closed by then: its port is free for what comes.
            task.cancel().await;
            self.health.forget(&part(socket.address));
            info!("{}: not on {} any more", self.what, socket.address);
        }
    }

    /// Listens at all of `place`.
    pub fn listen(&self, place: &Place) {
        let slots = self.slots(place.connections_max);
        let mut sockets = self.sockets.borrow_mut();
        for socket in place.sockets() {
            if sockets.iter().all(|(other, _)| *other != socket) {
                let task = self.keep(&socket, place, &slots);
                sockets.push((socket, task));
            }
        }
    }

    /// The slots for so many connections: those that there are, unless that has changed.
    fn slots(&self, connections_max: u32) -> Rc<Slots> {
        let mut slots = self.slots.borrow_mut();
        match &*slots {
            Some((max, slots)) if *max == connections_max => Rc::clone(slots),
            _ => {
                let fresh = Slots::new(connections_max, Rc::clone(&self.clock));
                *slots = Some((connections_max, Rc::clone(&fresh)));
                fresh
            }
        }
    }

    /// Listens on one address for as long as the task lives.
    fn keep(&self, socket: &Socket, place: &Place, slots: &Rc<Slots>) -> Task<()> {
        let slots = Rc::clone(slots);
        let (socket, certificate) = (socket.clone(), place.certificate.clone());
        let (executor, handler) = (Rc::clone(&self.executor), Rc::clone(&self.handler));
        let (metrics, health, what) = (Rc::clone(&self.metrics), self.health.clone(), self.what);
        let clock = Rc::clone(&self.clock);
        let waiting = Rc::clone(&clock);
        let attempt = move || {
            let part = part(socket.address);
            match bind(&socket, certificate.as_deref(), &metrics, &clock) {
                Ok(listener) => {
                    let listener = listener?.sharing(&slots);
                    health.works(&part);
                    info!("{what} on {}", listener.local_addr());
                    Some(listener)
                }
                Err(error) => {
                    let reason = error.to_string();
                    let reason = reason.strip_prefix(&format!("{part}: ")).unwrap_or(&reason);
                    health.failed(&part, &format!("{reason}; tried again until it works"));
                    None
                }
            }
        };
        let mut listener = attempt();
        self.executor.spawn(async move {
            let listener = loop {
                match listener {
                    Some(listener) => break listener,
                    None => waiting.sleep(BIND_PAUSE).await,
                };
                listener = attempt();
            };
            accept(&executor, &listener, &handler, &waiting).await;
        })
    }
}

/// As status names it.
pub fn part(address: SocketAddr) -> String {
    format!("listen on {address}")
}

/// `None` while there is no certificate to show, which is reported by itself.
fn bind(
    socket: &Socket,
    certificate: Option<&Certificate>,
    metrics: &Rc<Metrics>,
    clock: &SharedClock,
) -> Result<Option<Listener>, net::Error> {
    let identity = match certificate.map(Certificate::identity) {
        Some(None) => return Ok(None),
        Some(identity) => identity,
        None => None,
    };
    let limits = ServerLimits { connections_max: socket.connections_max, ..Default::default() };
    let listening = listen(socket.address, socket.ipv6_only)?;
    Listener::over(listening, identity, limits, Rc::clone(metrics), Rc::clone(clock)).map(Some)
}

/// Accepts connections without end; a connection's end is its own affair.
async fn accept<H: Handler + 'static>(
    executor: &Rc<LocalExecutor<'static>>,
    listener: &Listener,
    handler: &Rc<H>,
    clock: &SharedClock,
) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                let handler = Rc::clone(handler);
                let serving = async move {
                    if let Err(error) = connection.serve(handler.as_ref()).await {
                        debug!("{error}");
                    }
                };
                executor.spawn(serving).detach();
            }
            Err(error) => {
                warn!("{error}; accepting again in {ACCEPT_PAUSE:?}");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Between two attempts at an address.
const BIND_PAUSE: Duration = Duration::from_secs(2);
/// After a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
