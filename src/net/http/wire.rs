//! One connection: a socket, plain or TLS, with one read buffer and one timer.
//!
//! Every wait is bounded by a [`Wait`]. The timer is armed only when the socket makes us wait, and
//! left armed when the socket moves on: pushing a deadline back costs nothing, so a connection
//! that keeps up never touches the timer wheel.
//!
//! Bytes of the link are counted here, below TLS, since that is what a data plan counts.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_rustls::TlsStream;
use smol::Async;
use smol::future::Future;
use smol::io::{AsyncRead, AsyncWrite};

use crate::clock::{Alarm, SharedClock};
use crate::net::Error;
use crate::net::gate::Link;
use crate::net::tls::names::names;

/// How long to wait for a socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// This long without progress.
    Stall(Duration),
    /// Until this moment of the monotonic clock, however much progress there is.
    Until(Duration),
}

/// The connection.
pub(super) struct Wire {
    stream: Stream,
    /// All of it initialised; the bytes in `start..end` have been read and not consumed.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    buffer_bytes_max: usize,
    deadline: Deadline,
    /// Bytes that the peer may still send before it is asked for more.
    pending: u64,
}

impl Wire {
    pub(super) fn new(stream: Stream, buffer_bytes_max: usize, clock: &SharedClock) -> Self {
        let deadline = Deadline { clock: Rc::clone(clock), alarm: None };
        let (buffer, pending) = (Vec::new(), u64::MAX);
        Self { stream, buffer, start: 0, end: 0, buffer_bytes_max, deadline, pending }
    }

    /// Asks whether a request of `bytes` may be sent, whatever comes in answer.
    pub(super) async fn ask(&mut self, bytes: usize) -> Result<(), Error> {
        self.pending = u64::MAX;
        let sent = bytes as u64;
        match &mut self.stream.socket_mut().link {
            Some(link) => link.admit(sent, u64::MAX).await,
            None => Ok(()),
        }
    }

    /// No more than `bytes` of content are to come.
    pub(super) fn expect(&mut self, bytes: u64) {
        // Records of TLS have a few bytes for each kilobyte.
        self.pending = bytes.saturating_add(bytes / 32).saturating_add(PENDING_SLACK_BYTES);
    }

    /// Nothing more is to come.
    pub(super) fn release(&mut self) {
        if let Some(link) = &mut self.stream.socket_mut().link {
            link.release();
        }
    }

    /// Asks whether what is pending may come, and waits until it may; the wait of a read begins
    /// after that.
    pub(super) async fn admit(&mut self) -> io::Result<()> {
        let pending = self.pending;
        match &mut self.stream.socket_mut().link {
            Some(link) => link.admit(0, pending).await.map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Bytes that have been read and not consumed.
    pub(super) fn buffered(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.end - self.start, "{bytes} bytes that are not buffered");
        self.start = self.start.saturating_add(bytes).min(self.end);
    }

    /// Whether [`Wire::fill`] has no room left.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start >= self.buffer_bytes_max
    }

    /// Something may have come since the last read: the next one asks for it before it waits.
    pub(super) fn ask_again(&mut self) {
        self.stream.socket_mut().is_drained = false;
    }

    /// Frees the memory of a large head.
    pub(super) fn shrink(&mut self) {
        if self.start == self.end && self.buffer.len() > BUFFER_BYTES {
            self.buffer = Vec::new();
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads once into the buffer; 0 is the peer's end. A full buffer is an error.
    pub(super) async fn fill(&mut self, wait: Wait) -> io::Result<usize> {
        if self.is_full() {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "the read buffer is full"));
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            let len = (2 * self.buffer.len()).clamp(BUFFER_BYTES, self.buffer_bytes_max);
            self.buffer.resize(len.max(self.end + 1), 0);
        }
        self.admit().await?;
        let Self { stream, buffer, end, deadline, .. } = self;
        let spare = buffer.get_mut(*end..).unwrap_or_default();
        let bytes = deadline.limit(wait, |cx| Pin::new(&mut *stream).poll_read(cx, spare)).await?;
        self.end += bytes;
        Ok(bytes)
    }

    /// Reads what is buffered, else once from the socket, for which [`Wire::admit`] is asked
    /// before; 0 is the peer's end.
    pub(super) async fn read(&mut self, into: &mut [u8], wait: Wait) -> io::Result<usize> {
        let held = self.buffered();
        if !held.is_empty() {
            let bytes = held.len().min(into.len());
            for (to, from) in into.iter_mut().zip(held) {
                *to = *from;
            }
            self.consume(bytes);
            return Ok(bytes);
        }
        let Self { stream, deadline, .. } = self;
        deadline.limit(wait, |cx| Pin::new(&mut *stream).poll_read(cx, into)).await
    }

    /// Writes everything; `wait` begins anew with each piece the socket takes.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8], wait: Wait) -> io::Result<()> {
        let Self { stream, deadline, .. } = self;
        while !bytes.is_empty() {
            let written =
                deadline.limit(wait, |cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await?;
            bytes = advance(bytes, written)?;
        }
        if matches!(stream, Stream::Tls(_)) {
            deadline.limit(wait, |cx| Pin::new(&mut *stream).poll_flush(cx)).await?;
        }
        Ok(())
    }

    /// Encrypts bytes that the next [`Wire::write_all`] is to send first; `false` on a plain
    /// socket. What is encrypted is kept until then, however much it is.
    pub(super) fn seal(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let Stream::Tls(stream) = &mut self.stream else { return Ok(false) };
        let mut writer = match &mut **stream {
            TlsStream::Server(stream) => stream.get_mut().1.writer(),
            TlsStream::Client(stream) => stream.get_mut().1.writer(),
        };
        writer.write_all(bytes).map(|()| true)
    }

    /// Hands the plain socket to `operation` until it is done; `None` under TLS.
    pub(super) async fn write_plain<T>(
        &mut self,
        wait: Wait,
        mut operation: impl FnMut(&TcpStream) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let Stream::Plain(socket) = &self.stream else { return None };
        let attempt = |cx: &mut Context<'_>| {
            loop {
                match operation(socket.tcp.get_ref()) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(socket.tcp.poll_writable(cx))?;
                    }
                    result => return Poll::Ready(result),
                }
            }
        };
        Some(self.deadline.limit(wait, attempt).await)
    }

    /// The plain socket of a connection of which nothing is buffered.
    pub(super) fn into_socket(self) -> Option<Socket> {
        match self.stream {
            Stream::Plain(socket) if self.start == self.end => Some(socket),
            _ => None,
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.stream, Stream::Plain(_))
    }

    /// Whether an idle connection is still what it was: nothing to read, not even an end.
    pub(super) async fn is_quiet(&mut self) -> bool {
        if self.start != self.end {
            return false;
        }
        let mut probe = [0_u8; 1];
        let stream = &mut self.stream;
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut probe).is_pending()))
            .await
    }

    /// Ends our side with FIN and reads away what the peer still sends.
    ///
    /// A socket closed with unread input sends RST, and RST makes the peer's kernel throw away
    /// what we sent last: the very answer that explains why we close.
    pub(super) async fn close(mut self, linger: Duration) {
        let until = Wait::Until(self.deadline.clock.monotonic() + linger);
        let Self { stream, deadline, .. } = &mut self;
        // Under TLS this sends close_notify. A peer that is gone already is out of reach.
        let _ = deadline.limit(until, |cx| Pin::new(&mut *stream).poll_close(cx)).await;
        if stream.socket().tcp.get_ref().shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut sink = vec![0_u8; BUFFER_BYTES];
        let mut rest = LINGER_BYTES_MAX;
        while rest > 0 {
            // Below TLS: what is thrown away need not be deciphered.
            let socket = stream.socket_mut();
            match deadline.limit(until, |cx| Pin::new(&mut *socket).poll_read(cx, &mut sink)).await
            {
                Ok(0) | Err(_) => return,
                Ok(bytes) => rest = rest.saturating_sub(bytes),
            }
        }
    }
}

/// A socket with or without TLS.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// The names of the certificate that the peer has shown.
    pub(super) fn certificate_names(&self) -> Option<Rc<[String]>> {
        let Self::Tls(stream) = self else { return None };
        let shown = stream.get_ref().1.peer_certificates()?.first()?;
        Some(names(shown).into())
    }

    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_close(cx),
            Self::Tls(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}

/// A TCP socket that counts its bytes where they are paid for.
pub(super) struct Socket {
    tcp: Async<TcpStream>,
    link: Option<Link>,
    /// Of a client: whether the last read took all there was, so that the next one has to wait.
    is_drained: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(link) = &mut self.link {
            // A socket that cannot say so has failed, and holds nothing any more.
            link.unread(rustix::io::ioctl_fionread(&self.tcp).unwrap_or(0));
        }
    }
}

impl Socket {
    /// The socket, for both directions at once.
    pub(super) fn parts(&self) -> (&Async<TcpStream>, Option<&Link>) {
        (&self.tcp, self.link.as_ref())
    }

    /// The same, with the account of what is received.
    pub(super) fn parts_mut(&mut self) -> (&Async<TcpStream>, Option<&mut Link>) {
        (&self.tcp, self.link.as_mut())
    }

    /// Reads what a client sent. A socket that the last read has emptied is waited for first: a read
    /// would find nothing.
    fn poll_read_client(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.is_drained {
                ready!(self.tcp.poll_readable(cx))?;
            }
            match self.tcp.get_ref().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_drained = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(bytes) => {
                    self.is_drained = bytes < buf.len();
                    return Poll::Ready(Ok(bytes));
                }
            }
        }
    }

    /// `link` is given for sockets towards an upstream.
    pub(super) fn new(tcp: Async<TcpStream>, link: Option<Link>) -> Self {
        Self { tcp, link, is_drained: false }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.link.is_none() {
            return self.poll_read_client(cx, buf);
        }
        let read = ready!(Pin::new(&mut self.tcp).poll_read(cx, buf));
        match (&mut self.link, &read) {
            (Some(link), Ok(0)) => link.ended(false),
            (Some(link), Ok(bytes)) => link.received(*bytes),
            (Some(link), Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                link.ended(true);
            }
            _ => {}
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.tcp).poll_write(cx, buf))?;
        if let Some(link) = &self.link {
            link.sent(bytes);
        }
        Poll::Ready(Ok(bytes))
    }

    /// All records of TLS that wait leave in one call.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs))?;
        if let Some(link) = &self.link {
            link.sent(bytes);
        }
        Poll::Ready(Ok(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_close(cx)
    }
}

/// The timer of a connection; see the module's head.
struct Deadline {
    clock: SharedClock,
    /// What is armed, and for when.
    alarm: Option<(Alarm, Duration)>,
}

impl Deadline {
    /// Runs a socket operation, `TimedOut` if it has to wait too long.
    async fn limit<T>(
        &mut self,
        wait: Wait,
        mut operation: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let mut at = None;
        poll_fn(|cx| {
            if let Poll::Ready(result) = operation(cx) {
                return Poll::Ready(result);
            }
            let at = *at.get_or_insert_with(|| match wait {
                Wait::Stall(duration) => self.clock.monotonic().saturating_add(duration),
                Wait::Until(moment) => moment,
            });
            ready!(self.poll(at, cx));
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }

    fn poll(&mut self, at: Duration, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.take_if(|(_, armed)| *armed > at);
        loop {
            let (alarm, armed) = self.alarm.get_or_insert_with(|| (self.clock.alarm(at), at));
            ready!(Pin::new(alarm).poll(cx));
            let is_over = *armed >= at;
            self.alarm = None;
            if is_over {
                return Poll::Ready(());
            }
        }
    }
}

/// What is left of `bytes` after `written`; a socket that takes nothing is an error.
pub(super) fn advance(bytes: &[u8], written: usize) -> io::Result<&[u8]> {
    match bytes.get(written..) {
        Some(rest) if written > 0 => Ok(rest),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Beside the content: the head of the next chunk, or a TLS alert.
const PENDING_SLACK_BYTES: u64 = 2 << 10;
/// First size of a read buffer: a customary head fits.
const BUFFER_BYTES: usize = 4 << 10;
/// What is read away from a peer after our end.
const LINGER_BYTES_MAX: usize = 1 << 20;
