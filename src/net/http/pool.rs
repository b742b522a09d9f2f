//! Connections to upstreams that wait for their next request.
//!
//! A connection comes here only when the body of its last response has been read to the end, and
//! leaves when it is taken, too old, or one too many. A server may end it at any moment: it is
//! probed when it is taken, and the client tries once more should it die after that.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use super::wire::Wire;
use crate::clock::SharedClock;

/// Whom a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub is_tls: bool,
    pub host: String,
    pub port: u16,
}

impl Peer {
    /// The host without the brackets that an address has in a URL.
    pub(super) fn bare_host(&self) -> String {
        self.host.trim_matches(['[', ']']).to_owned()
    }
}

/// The connections.
pub(super) struct Pool {
    idle: RefCell<VecDeque<Idle>>,
    idle_max: usize,
    age_max: Duration,
    pub(super) clock: SharedClock,
}

impl Pool {
    /// Keeps `idle_max` connections for a peer, each for `age_max`.
    pub(super) fn new(idle_max: usize, age_max: Duration, clock: SharedClock) -> Self {
        Self { idle: RefCell::default(), idle_max, age_max, clock }
    }

    /// A connection that seems alive.
    pub(super) async fn take(&self, peer: &Peer) -> Option<Wire> {
        loop {
            let mut wire = self.pop(peer)?;
            if wire.is_quiet().await {
                return Some(wire);
            }
        }
    }

    /// The youngest: it is the likeliest to be alive.
    fn pop(&self, peer: &Peer) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| self.clock.since(idle.since) < self.age_max);
        let at = idle.iter().rposition(|idle| idle.peer == *peer)?;
        idle.remove(at).map(|idle| idle.wire)
    }

    pub(super) fn put(&self, peer: &Peer, wire: Wire) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| self.clock.since(idle.since) < self.age_max);
        if idle.iter().filter(|idle| idle.peer == *peer).count() >= self.idle_max
            && let Some(oldest) = idle.iter().position(|idle| idle.peer == *peer)
        {
            idle.remove(oldest);
        }
        if idle.len() >= IDLE_MAX {
            idle.pop_front();
        }
        if self.idle_max > 0 {
            idle.push_back(Idle { peer: peer.clone(), wire, since: self.clock.monotonic() });
        }
    }

    /// Connections kept now.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.idle.borrow().len()
    }
}

struct Idle {
    peer: Peer,
    wire: Wire,
    since: Duration,
}

/// Connections kept for all peers together.
const IDLE_MAX: usize = 16;
