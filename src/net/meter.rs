//! What connections carry, counted where it is paid for.

use std::cell::Cell;

/// What the connections of one purpose have carried since the process began, in both directions: the
/// uplink, or what goes no further than this device. Who makes a [`Network`](super::Network) says by
/// its meter what its bytes count as.
#[derive(Debug, Default)]
pub struct Meter {
    received: Cell<u64>,
    sent: Cell<u64>,
    connections: Cell<u64>,
}

impl Meter {
    /// Bytes received, headers and TLS included.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes sent.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Bytes of both directions.
    pub fn carried(&self) -> u64 {
        self.received() + self.sent()
    }

    /// Connections that were opened.
    pub fn connections(&self) -> u64 {
        self.connections.get()
    }

    pub(super) fn connected(&self) {
        self.connections.update(|count| count + 1);
    }

    /// Counts what was read.
    pub fn add_received(&self, bytes: u64) {
        self.received.update(|sum| sum + bytes);
    }

    pub(super) fn add_sent(&self, bytes: u64) {
        self.sent.update(|sum| sum + bytes);
    }
}
