//! What stands before every byte of the uplink.
//!
//! A data plan counts what the far side sent, not what was read here: up to a receive window of
//! bytes may be in the kernel or on their way that were not read. Before a request goes out, and
//! before each read, the bytes that may still come are therefore put to a [`Gate`], which knows
//! what the plan has left. They are bounded by the receive buffer, and by what is left of the body
//! where its length is known.
//!
//! A connection that ends before its response was read to the end leaves such bytes behind. What of
//! them is taken as received: those that are in the kernel, and as many as a sender may have on its
//! way by TCP's slow start, which is no more than a first flight and what came before.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::{Error, Meter, Network};

/// Says whether bytes may go over the uplink, and when. What went is in its [`Meter`].
pub trait Gate {
    /// Lets `wanted` bytes be on their way in place of the `held` that this connection had before,
    /// as soon as the link's rate has room for more.
    ///
    /// # Errors
    /// One with [`Error::retry_after`] where there is no room for them; then it is still `held`.
    fn admit(&self, held: u64, wanted: u64) -> Admission<'_>;

    /// Of `held` bytes none can come any more; `lost` of them are taken to have come.
    fn release(&self, held: u64, lost: u64);

    /// The size to be set for the receive buffer of a connection; `None` leaves it to the kernel.
    fn receive_buffer_bytes(&self) -> Option<u32>;
}

/// The result of [`Gate::admit`].
pub type Admission<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// One connection's account at the gate.
pub(super) struct Link {
    meter: Rc<Meter>,
    gate: Option<Rc<dyn Gate>>,
    /// What the kernel may hold of the connection that was not read.
    window: u64,
    held: u64,
    received: u64,
    is_connected: bool,
    /// Something came since the last request.
    is_answered: bool,
    /// In the kernel when the connection ended.
    unread: u64,
}

impl Link {
    /// Of a connection that is about to be opened with this receive buffer.
    pub fn new(network: &Network, receive_buffer_bytes: Option<u32>) -> Self {
        let (meter, gate) = (Rc::clone(&network.meter), network.gate.clone());
        let window = receive_buffer_bytes.map_or(WINDOW_MAX, u64::from);
        Self {
            meter,
            gate,
            window,
            held: 0,
            received: 0,
            is_connected: false,
            is_answered: false,
            unread: 0,
        }
    }

    /// There is a connection.
    pub fn connected(&mut self) {
        self.meter.connected();
        self.is_connected = true;
    }

    /// Asks to send `sent` bytes and to have up to `pending` come.
    pub async fn admit(&mut self, sent: u64, pending: u64) -> Result<(), Error> {
        let Some(gate) = &self.gate else { return Ok(()) };
        let wanted = pending.min(self.window).saturating_add(sent);
        gate.admit(self.held, wanted).await?;
        self.held = wanted;
        self.is_answered &= sent == 0;
        Ok(())
    }

    /// Nothing more is on its way: the response was read to its end.
    pub fn release(&mut self) {
        self.leave(0);
    }

    /// `bytes` of the connection were in the kernel when it ended.
    pub fn unread(&mut self, bytes: u64) {
        self.unread = bytes;
    }

    fn leave(&mut self, lost: u64) {
        let held = std::mem::take(&mut self.held);
        if let Some(gate) = self.gate.as_ref().filter(|_| held > 0) {
            gate.release(held, lost.min(held));
        }
    }

    /// The peer has ended the connection, or never knew it: a request to one that was kept too long
    /// must not cost what an answer might have had.
    pub fn ended(&mut self, is_reset: bool) {
        if !is_reset || !self.is_answered {
            self.leave(0);
        }
    }

    /// Counts what was read.
    pub fn received(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.received += bytes;
        self.is_answered = true;
        self.meter.add_received(bytes);
    }

    /// Counts what was written.
    pub fn sent(&self, bytes: usize) {
        self.meter.add_sent(bytes as u64);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let lost = match self.is_connected {
            true => self.unread.saturating_add(FIRST_FLIGHT_BYTES).saturating_add(self.received),
            false => ATTEMPT_BYTES,
        };
        self.leave(lost);
    }
}

/// Where the kernel sizes the buffer: the largest that Linux comes to by itself.
const WINDOW_MAX: u64 = 6 << 20;
/// Ten segments (RFC 6928), and as many again for a sender that takes liberties.
const FIRST_FLIGHT_BYTES: u64 = 32 << 10;
/// Of an attempt to connect: some packets.
const ATTEMPT_BYTES: u64 = 512;
