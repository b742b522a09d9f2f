//! How long either end of a connection waits, and how much it keeps.

use std::time::Duration;

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

/// How long a client waits and how much it keeps.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Time for resolving and connecting, and again for the TLS handshake.
    pub connect_deadline: Duration,
    /// Time from the request to the end of the response's head.
    pub head_deadline: Duration,
    /// Time without a byte, in either direction.
    pub stall_deadline: Duration,
    /// Time spent waiting for a body after which it must have come at 1 KiB/s.
    pub goodput_span: Duration,
    /// Connections kept for each scheme, host and port.
    pub idle_max: usize,
    /// Time that a connection is kept unused.
    pub idle_age_max: Duration,
    /// Size of the kernel's receive buffer in bytes; `None` leaves it to the kernel.
    pub receive_buffer_bytes: Option<u32>,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_deadline: Duration::from_secs(15),
            head_deadline: Duration::from_secs(60),
            stall_deadline: Duration::from_secs(30),
            goodput_span: Duration::from_mins(1),
            idle_max: 4,
            // A poll each 30 s, spread over a tenth of that, finds its connection.
            idle_age_max: Duration::from_secs(45),
            receive_buffer_bytes: None,
        }
    }
}
