//! The body of a response, read as it comes.
//!
//! A body knows how it is framed, so that an end before its time is an error and never taken for
//! the end: a cut link must not pass for a short file. Read to its end it returns its connection
//! back; dropped before, it closes it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::chunks::{Chunks, Next};
use super::goodput::{BYTES_PER_SECOND_MIN, Goodput};
use super::limits::ClientLimits;
use super::pool::{Peer, Pool};
use super::wire::{Wait, Wire};
use crate::kind::Kind;
use crate::net::{Error, tls};
use crate::units::ByteRate;

/// The body of a response.
pub struct Body {
    wire: Option<Wire>,
    framing: Framing,
    declared: Option<u64>,
    /// Bytes given to the reader so far.
    position: u64,
    stall: Duration,
    goodput: Goodput,
    home: Home,
}

impl Body {
    pub(super) fn new(wire: Wire, framing: Framing, limits: &ClientLimits, home: Home) -> Self {
        let declared = match framing {
            Framing::Length(length) => Some(length),
            Framing::None => Some(0),
            Framing::Chunked(_) | Framing::UntilEnd => None,
        };
        let (stall, goodput) = (limits.stall_deadline, Goodput::new(limits.goodput_span));
        let mut body =
            Self { wire: Some(wire), framing, declared, position: 0, stall, goodput, home };
        if declared == Some(0) {
            body.give_back();
        }
        body
    }

    /// Bytes of the whole body, if the server stated them.
    #[allow(clippy::len_without_is_empty)] // An unknown length is not emptiness.
    pub fn len(&self) -> Option<u64> {
        self.declared
    }

    /// Reads some bytes; 0 is the end (unless `into` is empty). `Kind::Retry` when the link is
    /// cut, stalls, or the body ends early.
    pub async fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let left = match &self.framing {
                Framing::None => 0,
                Framing::Length(length) => length.saturating_sub(self.position),
                Framing::UntilEnd => u64::MAX,
                Framing::Chunked(chunks) => match chunks.next() {
                    Next::Data(left) => left,
                    Next::End => 0,
                    Next::Framing => {
                        self.read_framing().await?;
                        continue;
                    }
                },
            };
            if left == 0 {
                self.give_back();
                return Ok(0);
            }
            return self.read_data(into, left).await;
        }
    }

    /// The whole body, which must not be longer than `max` bytes: `Kind::Invalid` if it is.
    pub async fn bytes(mut self, max: u64) -> Result<Vec<u8>, Error> {
        let too_long = |this: &Self| {
            let what = &this.home.what;
            Error::new(Kind::Invalid, format!("{what}: body is over {max} bytes"))
        };
        if self.declared.is_some_and(|declared| declared > max) {
            return Err(too_long(&self));
        }
        let mut bytes = Vec::new();
        let mut block = vec![0_u8; BLOCK_BYTES];
        loop {
            let got = self.read(&mut block).await?;
            if got == 0 {
                return Ok(bytes);
            }
            if self.position > max {
                return Err(too_long(&self));
            }
            bytes.extend_from_slice(block.get(..got).unwrap_or_default());
        }
    }

    async fn read_data(&mut self, into: &mut [u8], left: u64) -> Result<usize, Error> {
        let room = usize::try_from(left).unwrap_or(into.len()).min(into.len());
        let wait = Wait::Stall(self.stall);
        let Some(wire) = &mut self.wire else { return Err(self.cut()) };
        if let Framing::Length(_) = self.framing {
            wire.expect(left);
        }
        if wire.buffered().is_empty()
            && let Err(error) = wire.admit().await
        {
            return Err(self.failed(error));
        }
        let into = into.get_mut(..room).unwrap_or_default();
        let began = self.home.pool.clock.monotonic();
        let got = match wire.read(into, wait).await {
            Ok(got) => got,
            Err(error) => return Err(self.failed(error)),
        };
        if self.goodput.is_too_low(got as u64, self.home.pool.clock.since(began)) {
            self.wire = None;
            let (what, position, floor) =
                (&self.home.what, self.position, ByteRate(BYTES_PER_SECOND_MIN));
            let message = format!("{what}: less than {floor} before byte {position}");
            return Err(Error::new(Kind::Retry, message));
        }
        if got == 0 {
            if matches!(self.framing, Framing::UntilEnd) {
                self.framing = Framing::None;
                self.give_back();
                return Ok(0);
            }
            return Err(self.cut());
        }
        let count = got as u64;
        self.position = self.position.saturating_add(count);
        match &mut self.framing {
            Framing::Chunked(chunks) => chunks.data_taken(count),
            Framing::Length(length) if *length == self.position => self.give_back(),
            _ => {}
        }
        Ok(got)
    }

    async fn read_framing(&mut self) -> Result<(), Error> {
        let wait = Wait::Stall(self.stall);
        let (Some(wire), Framing::Chunked(chunks)) = (&mut self.wire, &mut self.framing) else {
            return Err(self.cut());
        };
        if wire.buffered().is_empty() {
            match wire.fill(wait).await {
                Ok(0) => return Err(self.cut()),
                Ok(_) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        match chunks.advance(wire.buffered()) {
            Ok(taken) => {
                wire.consume(taken);
                Ok(())
            }
            Err(_) => {
                self.wire = None;
                let message = format!("{}: malformed chunk", self.home.what);
                Err(Error::new(Kind::Retry, message))
            }
        }
    }

    /// The connection is used again if nothing of it is left unread.
    fn give_back(&mut self) {
        if let Some(mut wire) = self.wire.take().filter(|wire| wire.buffered().is_empty()) {
            wire.release();
            if self.home.is_reusable {
                self.home.pool.put(&self.home.peer, wire);
            }
        }
    }

    fn cut(&mut self) -> Error {
        self.wire = None;
        let (what, position) = (&self.home.what, self.position);
        let message = match self.declared {
            Some(declared) => format!("{what}: body ended at byte {position} of {declared}"),
            None => format!("{what}: body ended at byte {position}, before its end"),
        };
        Error::new(Kind::Retry, message)
    }

    fn failed(&mut self, error: io::Error) -> Error {
        self.wire = None;
        let (what, position) = (&self.home.what, self.position);
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.cut(),
            io::ErrorKind::TimedOut => {
                let seconds = self.stall.as_secs();
                let message = format!("{what}: no byte after byte {position} within {seconds} s");
                Error::new(Kind::Retry, message)
            }
            _ => tls::failure(
                &format!("{what}: body after byte {position} from"),
                &self.home.peer.host,
                error,
            ),
        }
    }
}

/// How the end of a body is known.
#[derive(Debug)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked(Chunks),
    /// The connection's end, which is an error under TLS unless it was announced.
    UntilEnd,
}

/// Where the connection goes, and what messages say of it.
pub(super) struct Home {
    pub pool: Rc<Pool>,
    pub peer: Peer,
    pub is_reusable: bool,
    /// `GET host/path`.
    pub what: String,
}

/// One read of [`Body::bytes`].
const BLOCK_BYTES: usize = 8 << 10;
