//! How an answer leaves: the head written in one piece, the body by the cheapest way there is.
//!
//! A small body goes out in the same write as its head. A large one from files leaves a plain
//! socket by sendfile, in slices, so that one fast reader does not keep the executor from all
//! others; under TLS it is read and written in blocks. The body's lease lives until the last
//! byte has been handed to the kernel. A peer that is slower than [`SEND_BYTES_PER_SECOND_MIN`]
//! on the whole is dropped, for it holds a connection and, by the lease, flash space.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Advice;
use rustix::net::SendFlags;
use smol::future::zip;

use super::answer::{has_body, write_head};
use super::headers::Headers;
use super::resident::{make_resident, with_block};
use super::shared::Shared;
use super::slots::{BLOCK_BYTES, Slot};
use super::wire::{Wait, Wire, advance};

/// An answer. Date, length and connection are written by the server.
pub struct ServerResponse {
    /// The status code.
    pub status: u16,
    /// Header lines.
    pub headers: Headers,
    /// The body; to HEAD its length is stated and nothing sent.
    pub body: ResponseBody,
}

/// The body of an answer.
pub enum ResponseBody {
    /// No bytes.
    Empty,
    /// Bytes in memory.
    Bytes(Rc<[u8]>),
    /// Bytes in files, one span after the other.
    Files {
        /// Where the bytes are.
        spans: Vec<FileSpan>,
        /// Keeps the bytes where they are; dropped when all have been sent, or will not be.
        lease: Rc<dyn Any>,
        /// Says which of the bytes may be sent.
        gate: Box<dyn Gate>,
    },
    /// Bytes that are still being made or fetched.
    Stream {
        /// How many there will be.
        len: u64,
        /// Where they come from.
        source: Box<dyn Source>,
    },
    /// Bodies that follow each other, each behind some text.
    Parts(Vec<(String, ResponseBody)>),
}

impl ResponseBody {
    /// Bytes of the body.
    #[allow(clippy::len_without_is_empty)] // No one asks.
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => length(bytes),
            Self::Files { spans, .. } => {
                spans.iter().fold(0, |sum, span| span.len.saturating_add(sum))
            }
            Self::Stream { len, .. } => *len,
            Self::Parts(parts) => {
                let part = |(text, body): &(String, Self)| length(text.as_bytes()) + body.len();
                parts.iter().map(part).sum()
            }
        }
    }
}

/// A range of a file.
#[derive(Clone, Debug)]
pub struct FileSpan {
    /// The file.
    pub file: Arc<File>,
    /// Its first byte.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// Says which bytes of a body may be sent.
pub trait Gate {
    /// Waits until the body's byte number `at` may be sent; returns how many from there on may be,
    /// at least one. An error ends the connection short, as that of a [`Source`] does.
    fn admit(&self, at: u64) -> Pin<Box<dyn Future<Output = io::Result<u64>> + '_>>;
}

/// Where the bytes of a [`ResponseBody::Stream`] come from.
pub trait Source {
    /// Produces the next bytes. An error, or 0 before the length that was announced, ends the
    /// connection short, by FIN and not by RST.
    fn read<'a>(
        &'a mut self,
        buf: &'a mut [u8],
    ) -> Pin<Box<dyn Future<Output = io::Result<usize>> + 'a>>;
}

/// No bytes, where none are going to be asked for.
impl Source for () {
    fn read<'a>(
        &'a mut self,
        _: &'a mut [u8],
    ) -> Pin<Box<dyn Future<Output = io::Result<usize>> + 'a>> {
        Box::pin(std::future::ready(Ok(0)))
    }
}

/// How the answer of one request is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendOptions {
    /// The request was HEAD: the length is stated, the body kept.
    pub head_only: bool,
    /// The connection ends after this answer.
    pub close: bool,
    /// The client speaks HTTP/1.0 and must be informed that the connection goes on.
    pub say_keep_alive: bool,
    /// Time in which the peer has to take something.
    pub stall: Duration,
}

/// What became of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// So many bytes, all of them.
    Whole(u64),
    /// The source ended early, after so many bytes.
    Short(u64),
}

/// Sends an answer. `out` is scratch that is kept between answers. An error is the peer's: it is
/// gone, or did not take its bytes in time.
pub(super) async fn send(
    wire: &mut Wire,
    out: &mut Vec<u8>,
    shared: &Shared,
    response: ServerResponse,
    options: SendOptions,
    slot: &Slot,
) -> io::Result<Sent> {
    let len = response.body.len();
    out.clear();
    let clock = shared.clock.as_ref();
    shared.date.refresh(clock.unix_seconds());
    let connection = match options {
        SendOptions { close: true, .. } => Some("close"),
        SendOptions { say_keep_alive: true, .. } => Some("keep-alive"),
        _ => None,
    };
    write_head(out, &shared.date, (response.status, &response.headers), len, connection)?;
    let stall = Wait::Stall(options.stall);
    if options.head_only || len == 0 || !has_body(response.status) {
        wire.write_all(out, stall).await?;
        return Ok(Sent::Whole(0));
    }
    let budget = options.stall + Duration::from_secs(len / SEND_BYTES_PER_SECOND_MIN);
    let until = clock.monotonic() + budget;
    let deadline = SendDeadline { shared, stall: options.stall, until, slot };
    let sent = match response.body {
        ResponseBody::Parts(parts) => {
            let mut total = 0;
            for (text, body) in parts {
                out.extend_from_slice(text.as_bytes());
                let text_bytes = length(text.as_bytes());
                total += match send_body(wire, out, body, deadline).await? {
                    Sent::Whole(bytes) => text_bytes + bytes,
                    Sent::Short(bytes) => return Ok(Sent::Short(total + text_bytes + bytes)),
                };
                out.clear();
            }
            Sent::Whole(total)
        }
        body => send_body(wire, out, body, deadline).await?,
    };
    if out.capacity() > KEPT_BYTES_MAX {
        *out = Vec::new();
    }
    Ok(sent)
}

/// Sends what is in `out`, and a body behind it.
async fn send_body(
    wire: &mut Wire,
    out: &mut Vec<u8>,
    body: ResponseBody,
    deadline: SendDeadline<'_>,
) -> io::Result<Sent> {
    match body {
        ResponseBody::Empty => send_bytes(wire, out, &[], deadline).await,
        ResponseBody::Bytes(bytes) => send_bytes(wire, out, &bytes, deadline).await,
        ResponseBody::Files { spans, lease, gate } => {
            let gate = gate.as_ref();
            let len: u64 = spans.iter().map(|span| span.len).sum();
            let sent = if wire.is_plain() && len > SMALL_BYTES_MAX {
                send_files(wire, out, &spans, gate, deadline).await
            } else {
                send_blocks(wire, out, &spans, gate, deadline).await
            };
            drop(lease);
            sent
        }
        ResponseBody::Stream { len, source } => send_stream(wire, out, len, source, deadline).await,
        // None has parts of its own.
        ResponseBody::Parts(_) => Ok(Sent::Short(0)),
    }
}

/// How long the peer may take.
#[derive(Clone, Copy)]
struct SendDeadline<'a> {
    shared: &'a Shared,
    stall: Duration,
    until: Duration,
    /// Where it is noted what the peer has taken.
    slot: &'a Slot,
}

impl SendDeadline<'_> {
    /// The bound of the next write.
    fn wait(self) -> io::Result<Wait> {
        let rest = self.until.saturating_sub(self.shared.clock.monotonic());
        if rest.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes bytes too slowly"));
        }
        Ok(Wait::Stall(rest.min(self.stall)))
    }
}

async fn send_bytes(
    wire: &mut Wire,
    out: &mut Vec<u8>,
    bytes: &[u8],
    deadline: SendDeadline<'_>,
) -> io::Result<Sent> {
    let first = bytes.len().min(BLOCK_BYTES);
    let (first, rest) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
    out.extend_from_slice(first);
    wire.write_all(out, deadline.wait()?).await?;
    for slice in rest.chunks(BLOCK_BYTES) {
        wire.write_all(slice, deadline.wait()?).await?;
        deadline.slot.taken(slice.len());
        smol::future::yield_now().await;
    }
    Ok(Sent::Whole(length(bytes)))
}

/// By sendfile. The head is held back by the kernel (MSG_MORE) until the first bytes join it. While
/// what the gate has admitted is sent, it is asked for what comes next.
async fn send_files(
    wire: &mut Wire,
    out: &[u8],
    spans: &[FileSpan],
    gate: &dyn Gate,
    deadline: SendDeadline<'_>,
) -> io::Result<Sent> {
    let mut head = out;
    while !head.is_empty() {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let sent = wire
            .write_plain(deadline.wait()?, |socket| Ok(rustix::net::send(socket, head, flags)?))
            .await
            .unwrap_or_else(not_plain)?;
        head = advance(head, sent)?;
    }
    let end = spans.iter().map(|span| span.len).sum();
    let (mut at, mut ahead) = (0, 0);
    let mut admitted = gate.admit(at).await;
    while at < end {
        let Ok(bytes) = admitted else { return Ok(Sent::Short(at)) };
        let stretch = at..end.min(at.saturating_add(bytes));
        let next = async { if stretch.end < end { gate.admit(stretch.end).await } else { Ok(0) } };
        let sending = send_stretch(wire, spans, stretch.clone(), &mut ahead, deadline);
        let (sent, next) = zip(sending, next).await;
        at += sent?;
        if at < stretch.end {
            return Ok(Sent::Short(at));
        }
        admitted = next;
    }
    Ok(Sent::Whole(at))
}

/// Sends a part of a body from files; returns the number of bytes, which is less when a file ends.
/// Up to byte `ahead` of the body the kernel was asked to read.
async fn send_stretch(
    wire: &mut Wire,
    spans: &[FileSpan],
    stretch: Range<u64>,
    ahead: &mut u64,
    deadline: SendDeadline<'_>,
) -> io::Result<u64> {
    let (mut at, mut begin) = (stretch.start, 0_u64);
    for span in spans {
        let end = begin + span.len;
        while at < end.min(stretch.end) {
            let mut position = span.offset + (at - begin);
            if at >= *ahead {
                let span_end = span.offset.saturating_add(span.len);
                *ahead = at + read_ahead(span, position, span_end) / 2;
            }
            let left = usize::try_from(end.min(stretch.end) - at).unwrap_or(SLICE_BYTES);
            let slice = left.min(SLICE_BYTES);
            make_resident(&span.file, position, slice).await;
            let sent = wire
                .write_plain(deadline.wait()?, |socket| {
                    Ok(rustix::fs::sendfile(socket, &span.file, Some(&mut position), slice)?)
                })
                .await
                .unwrap_or_else(not_plain)?;
            if sent == 0 {
                return Ok(at - stretch.start);
            }
            deadline.slot.taken(sent);
            at += sent as u64;
            if at < stretch.end {
                smol::future::yield_now().await;
            }
        }
        begin = end;
    }
    Ok(at - stretch.start)
}

/// Lets the kernel read what is sent next, and no more than that: sendfile would wait for flash,
/// and everybody with it. Returns the number of bytes.
fn read_ahead(span: &FileSpan, offset: u64, end: u64) -> u64 {
    let bytes = (end - offset).min(AHEAD_BYTES);
    // Advice that is not taken only costs time.
    let _ = rustix::fs::fadvise(&span.file, offset, NonZeroU64::new(bytes), Advice::WillNeed);
    bytes
}

/// By reading and writing: for TLS, and for bodies so small that a second call costs more. What is
/// read is encrypted at once, so that a connection holds no more than what it waits to send.
async fn send_blocks(
    wire: &mut Wire,
    out: &mut Vec<u8>,
    spans: &[FileSpan],
    gate: &dyn Gate,
    deadline: SendDeadline<'_>,
) -> io::Result<Sent> {
    if wire.seal(out)? {
        out.clear();
    }
    let (mut total, mut admitted) = (0_u64, 0_u64);
    for span in spans {
        let (mut offset, end) = (span.offset, span.offset.saturating_add(span.len));
        while offset < end {
            if total >= admitted {
                let Ok(bytes) = gate.admit(total).await else {
                    wire.write_all(out, deadline.wait()?).await?;
                    return Ok(Sent::Short(total));
                };
                admitted = total.saturating_add(bytes);
            }
            let block_bytes = deadline.slot.block_bytes();
            let want = (end - offset).min(admitted - total);
            let want = usize::try_from(want).unwrap_or(block_bytes).min(block_bytes);
            let take = |block: &[u8]| {
                if !wire.seal(block)? {
                    out.extend_from_slice(block);
                }
                Ok(block.len())
            };
            let read = with_block(&span.file, (offset, want), &deadline.shared.block, take);
            let got = match read.await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A read error of the device ends the body as a short one does.
                result => result.unwrap_or(0),
            };
            total = total.saturating_add(got as u64);
            if got == 0 {
                wire.write_all(out, deadline.wait()?).await?;
                return Ok(Sent::Short(total));
            }
            offset = offset.saturating_add(got as u64);
            // Encrypted, or as much as a connection should hold.
            if out.is_empty() || out.len() >= block_bytes {
                wire.write_all(out, deadline.wait()?).await?;
                deadline.slot.taken(got);
                out.clear();
                smol::future::yield_now().await;
            }
        }
    }
    wire.write_all(out, deadline.wait()?).await?;
    Ok(Sent::Whole(total))
}

/// The head goes out at once: a source may be slow, and the peer's patience for a head short.
async fn send_stream(
    wire: &mut Wire,
    out: &mut Vec<u8>,
    len: u64,
    mut source: Box<dyn Source>,
    deadline: SendDeadline<'_>,
) -> io::Result<Sent> {
    wire.write_all(out, deadline.wait()?).await?;
    let block_bytes = deadline.slot.block_bytes();
    out.resize(block_bytes, 0);
    let mut total = 0_u64;
    while total < len {
        let want = usize::try_from(len - total).unwrap_or(block_bytes).min(block_bytes);
        let block = out.get_mut(..want).unwrap_or_default();
        let got = source.read(block).await.unwrap_or_else(|error| {
            log::warn!("a body ended at byte {total} of {len}: {error}");
            0
        });
        let Some(block) = block.get(..got).filter(|block| !block.is_empty()) else {
            return Ok(Sent::Short(total));
        };
        // The source's pace is not the peer's fault: only stalls are counted here.
        wire.write_all(block, Wait::Stall(deadline.stall)).await?;
        deadline.slot.taken(block.len());
        total = total.saturating_add(length(block));
        smol::future::yield_now().await;
    }
    Ok(Sent::Whole(total))
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

fn not_plain<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "sendfile needs a plain socket"))
}

/// Bodies up to this length leave in one write with their head.
const SMALL_BYTES_MAX: u64 = 16 << 10;
/// What one connection may send before another has its turn.
const SLICE_BYTES: usize = 512 << 10;
/// What the kernel is asked to read beforehand: two such halves are on their way at most.
const AHEAD_BYTES: u64 = 2 << 20;
/// Scratch that an idle connection keeps.
const KEPT_BYTES_MAX: usize = 4 << 10;
/// Slower readers are dropped: a phone's worst link is ten times faster.
const SEND_BYTES_PER_SECOND_MIN: u64 = 512;
