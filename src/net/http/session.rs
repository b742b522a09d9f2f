//! The loop of one connection: heads, bodies that are not wanted, answers, and tunnels.

use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;
use std::{io, mem};

use smol::Async;

use super::Method;
use super::chunks::{Chunks, Next};
use super::handler::{Answers, Connect, ServerRequest};
use super::handshake::handshake;
use super::head::{Arrival, HEAD_BYTES_MAX, Refusal, RequestBody, RequestHead, arrive};
use super::headers::Headers;
use super::origin::Origin;
use super::send::{ResponseBody, SendOptions, Sent, ServerResponse, send};
use super::shared::Shared;
use super::slots::{Phase, Slot};
use super::wire::{Socket, Stream, Wait, Wire};
use crate::kind::Kind;
use crate::net::Error;

/// Answers requests on a connection that has its slot.
pub(super) async fn talk(
    socket: Async<TcpStream>,
    peer: SocketAddr,
    shared: &Rc<Shared>,
    slot: &Slot,
    handler: &dyn Answers,
) -> Result<(), Error> {
    let socket = Socket::new(socket, None);
    let stream = match &shared.tls {
        None => Stream::Plain(socket),
        Some(identity) => handshake(socket, peer, shared, slot, identity.current()).await?,
    };
    let client = Client { peer, certificate: stream.certificate_names() };
    let wire = Wire::new(stream, HEAD_BYTES_MAX, &shared.clock);
    let mut session =
        Session { wire, out: Vec::new(), client, shared, slot, origin: None, credentials: None };
    match session.run(handler).await {
        Ok(Some(tunnel)) => Box::pin(session.tunnel(*tunnel, handler)).await,
        result => session.end(result.map(drop)).await,
    }
}

/// Why a connection ends before the peer wants it to.
enum End {
    /// The peer is gone, or does not take its bytes.
    Lost(io::Error),
    /// It exceeded a limit, or an answer could not be completed.
    Refused(&'static str),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Who is at the other end.
#[derive(Clone)]
struct Client {
    peer: SocketAddr,
    certificate: Option<Rc<[String]>>,
}

/// The state of one connection.
struct Session<'a> {
    wire: Wire,
    out: Vec<u8>,
    client: Client,
    shared: &'a Shared,
    slot: &'a Slot,
    /// Whom all requests are for: they come through a tunnel that ends here.
    origin: Option<Origin>,
    /// What its client showed to the proxy when it asked for the tunnel.
    credentials: Option<String>,
}

/// What follows an answer.
enum After {
    /// Another request.
    Request,
    /// The end of the connection.
    End,
    /// What goes through the tunnel.
    Tunnel(Box<Tunnelled>),
}

/// What a client asked for by CONNECT.
struct Tunnelled {
    to: Origin,
    /// What it showed for that.
    credentials: Option<String>,
    connect: Connect,
}

impl Session<'_> {
    /// Answers requests until the connection ends, or becomes a tunnel.
    async fn run(&mut self, handler: &dyn Answers) -> Result<Option<Box<Tunnelled>>, End> {
        let limits = self.shared.limits;
        // A client that connects has something to say; only between requests may one be silent.
        let mut silence = limits.head_deadline;
        let mut is_first = true;
        loop {
            self.wire.shrink();
            self.slot.set(Phase::Idle);
            if !mem::take(&mut is_first) {
                // Pipelined requests must not keep others waiting. When those had their turn, the next
                // request has mostly come where there are many: it is read without waiting for it.
                smol::future::yield_now().await;
                self.wire.ask_again();
            }
            if self.wire.buffered().is_empty() {
                match self.wire.fill(Wait::Stall(silence)).await {
                    Ok(0) => return Ok(None),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
            silence = limits.idle_deadline;
            if let Some(refusal) = self.wire.buffered().first().and_then(alien) {
                return self.refuse(refusal).await.map(|()| None);
            }
            let Some(head) = self.head().await? else { return Ok(None) };
            match self.answer(head, handler).await? {
                After::Request => {}
                After::End => return Ok(None),
                After::Tunnel(tunnel) => return Ok(Some(tunnel)),
            }
        }
    }

    /// Reads and parses a head; `None` when the peer has ended.
    async fn head(&mut self) -> Result<Option<RequestHead>, End> {
        let until = self.shared.clock.monotonic() + self.shared.limits.head_deadline;
        let len = match arrive(&mut self.wire, Wait::Until(until)).await {
            Ok(Arrival::Whole(len)) => len,
            Ok(Arrival::Ended(_)) => return Ok(None),
            Ok(Arrival::TooLong) => {
                let why = "the head is over 32 KiB";
                return self.refuse(Refusal { status: 431, why }).await.map(|()| None);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let why = "the head did not arrive in time";
                return self.refuse(Refusal { status: 408, why }).await.map(|()| None);
            }
            Err(error) => return Err(error.into()),
        };
        let parsed = RequestHead::parse(self.wire.buffered().get(..len).unwrap_or_default());
        self.wire.consume(len);
        match parsed {
            Ok(head) => Ok(Some(head)),
            Err(refusal) => self.refuse(refusal).await.map(|()| None),
        }
    }

    /// Ends the connection.
    async fn end(self, result: Result<(), End>) -> Result<(), Error> {
        let Self { wire, client, shared, slot, .. } = self;
        let peer = client.peer;
        if !matches!(result, Err(End::Lost(_))) {
            slot.set(Phase::Idle);
            wire.close(LINGER).await;
        }
        let why = match result {
            Ok(()) => return Ok(()),
            Err(End::Lost(error)) => error,
            Err(End::Refused(why)) => io::Error::other(why),
        };
        if why.kind() == io::ErrorKind::TimedOut {
            shared.metrics.http_refused.add(1);
        }
        Err(Error::io(Kind::Retry, format_args!("connection of {peer}"), why))
    }

    /// Goes on with what comes through a tunnel.
    async fn tunnel(
        self,
        Tunnelled { to, credentials, connect }: Tunnelled,
        handler: &dyn Answers,
    ) -> Result<(), Error> {
        let Self { wire, out, client, shared, slot, .. } = self;
        let peer = client.peer;
        // What a client sent before it knew of the tunnel was refused.
        let Some(socket) = wire.into_socket() else { return Ok(()) };
        match connect {
            Connect::Refused(_) => Ok(()),
            Connect::Answered(config) => {
                let stream = handshake(socket, peer, shared, slot, config).await?;
                let wire = Wire::new(stream, HEAD_BYTES_MAX, &shared.clock);
                let origin = Some(Origin { is_tunnelled: true, ..to });
                let mut session = Session { wire, out, client, shared, slot, origin, credentials };
                let result = session.run(handler).await;
                session.end(result.map(drop)).await
            }
            Connect::Relayed(tunnel) => {
                slot.set(Phase::Working);
                let relayed = tunnel.relay(socket, shared.clock.as_ref()).await;
                relayed.map_err(|why| {
                    Error::io(Kind::Retry, format_args!("tunnel of {peer} to {to}"), why)
                })
            }
        }
    }

    /// Answers one request; says what follows.
    async fn answer(&mut self, head: RequestHead, handler: &dyn Answers) -> Result<After, End> {
        let RequestHead { method, path, query, headers, body, keep_alive, is_old, .. } = head;
        let drained = self.drain(body, head.expects_continue).await?;
        let query = match query.as_str() {
            "" => Vec::new(),
            query => url::form_urlencoded::parse(query.as_bytes())
                .take(QUERY_PAIRS_MAX)
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        };
        let Client { peer, certificate } = self.client.clone();
        self.slot.set(Phase::Working);
        let is_within = self.origin.is_some();
        let to = head.origin.clone().filter(|_| method == Method::Connect && !is_within);
        // In a tunnel whatever else a request says of its host is not believed.
        let origin = self.origin.clone().or(head.origin);
        let mut headers = headers;
        if is_within {
            // Each request is one of the client that asked for the tunnel, and of no other.
            headers.remove(PROXY_AUTHORIZATION);
            if let Some(credentials) = &self.credentials {
                headers.append(PROXY_AUTHORIZATION, credentials);
            }
        }
        let credentials = headers.get(PROXY_AUTHORIZATION).map(str::to_owned);
        let request = ServerRequest { method, origin, path, query, headers, peer, certificate };
        let response = match to {
            None => handler.handle(request).await,
            Some(_) if !drained || !self.wire.buffered().is_empty() => {
                let why = "bytes before the tunnel stood";
                return self.refuse(Refusal { status: 400, why }).await.map(|()| After::End);
            }
            Some(to) => match handler.connect(request, to.clone()).await {
                Connect::Refused(response) => response,
                connect => {
                    let stall = Wait::Stall(self.shared.limits.stall_deadline);
                    self.wire.write_all(CONNECTED, stall).await?;
                    self.shared.metrics.http_requests.add(1);
                    let tunnelled = Tunnelled { to, credentials, connect };
                    return Ok(After::Tunnel(Box::new(tunnelled)));
                }
            },
        };
        let close = !keep_alive || !drained;
        self.send(response, method == Method::Head, close, is_old).await?;
        Ok(if close { After::End } else { After::Request })
    }

    /// Reads a body away; `false` if it is longer than that is worth.
    async fn drain(&mut self, body: RequestBody, expects_continue: bool) -> Result<bool, End> {
        let deadline = self.shared.limits.body_deadline;
        match body {
            RequestBody::None => return Ok(true),
            // The answer says all; a body that waits for our word never comes.
            RequestBody::Length(length) if length > REQUEST_BODY_BYTES_MAX => return Ok(false),
            RequestBody::Length(_) | RequestBody::Chunked => {}
        }
        if expects_continue {
            self.wire.write_all(CONTINUE, Wait::Stall(self.shared.limits.stall_deadline)).await?;
        }
        let wait = Wait::Until(self.shared.clock.monotonic() + deadline);
        match body {
            RequestBody::Length(length) => self.skip(length, wait).await.map(|()| true),
            _ => self.skip_chunks(wait).await,
        }
    }

    async fn skip(&mut self, mut length: u64, wait: Wait) -> Result<(), End> {
        while length > 0 {
            if self.wire.buffered().is_empty() && self.wire.fill(wait).await? == 0 {
                return Err(End::Refused("the body of a request ended early"));
            }
            let held = self.wire.buffered().len();
            let taken = usize::try_from(length).unwrap_or(held).min(held);
            self.wire.consume(taken);
            length = length.saturating_sub(taken as u64);
        }
        Ok(())
    }

    async fn skip_chunks(&mut self, wait: Wait) -> Result<bool, End> {
        let (mut chunks, mut total) = (Chunks::default(), 0_u64);
        loop {
            match chunks.next() {
                Next::End => return Ok(true),
                Next::Data(length) => {
                    total = total.saturating_add(length);
                    if total > REQUEST_BODY_BYTES_MAX {
                        return Ok(false);
                    }
                    self.skip(length, wait).await?;
                    chunks.data_taken(length);
                }
                Next::Framing => {
                    if self.wire.buffered().is_empty() && self.wire.fill(wait).await? == 0 {
                        return Err(End::Refused("the body of a request ended early"));
                    }
                    let Ok(taken) = chunks.advance(self.wire.buffered()) else {
                        let why = "malformed chunk";
                        return self.refuse(Refusal { status: 400, why }).await.map(|()| false);
                    };
                    self.wire.consume(taken);
                }
            }
        }
    }

    async fn send(
        &mut self,
        response: ServerResponse,
        head_only: bool,
        close: bool,
        is_old: bool,
    ) -> Result<(), End> {
        let stall = self.shared.limits.stall_deadline;
        let options = SendOptions { head_only, close, say_keep_alive: is_old, stall };
        // Others that are ready make their answers first, so that answers leave one right after the
        // other: the first wakes a client on this machine, and the rest find it awake.
        smol::future::yield_now().await;
        let Self { wire, out, shared, slot, .. } = self;
        slot.set(Phase::Sending);
        shared.metrics.http_sending.add(1);
        let sent = send(wire, out, shared, response, options, slot).await;
        shared.metrics.http_sending.sub(1);
        let sent = sent?;
        shared.metrics.http_requests.add(1);
        match sent {
            Sent::Whole(bytes) => {
                shared.metrics.http_sent_bytes.add(bytes);
                Ok(())
            }
            Sent::Short(bytes) => {
                shared.metrics.http_sent_bytes.add(bytes);
                Err(End::Refused("the body of an answer ended early"))
            }
        }
    }

    /// Says to the peer why nothing more is heard of it; always an end.
    async fn refuse(&mut self, refusal: Refusal) -> Result<(), End> {
        self.shared.metrics.http_refused.add(1);
        let mut headers = Headers::new();
        headers.append("content-type", "text/plain; charset=utf-8");
        let text = format!("{}\n", refusal.why);
        let body = ResponseBody::Bytes(text.into_bytes().into());
        let response = ServerResponse { status: refusal.status, headers, body };
        self.send(response, false, true, false).await?;
        Err(End::Refused(refusal.why))
    }
}

/// Why a request cannot begin with this byte, if it cannot. A peer that does waits for an answer
/// before it goes on, or never sends an end of a head: docker, podman and skopeo try TLS first where
/// they are set to take a registry as `insecure`.
fn alien(first: &u8) -> Option<Refusal> {
    let why = match first {
        TLS_HANDSHAKE => "this port speaks http, not tls",
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'\r' | b'\n' => return None,
        _ => "expected a method",
    };
    Some(Refusal { status: 400, why })
}

/// The first byte of a ClientHello's record.
const TLS_HANDSHAKE: &u8 = &0x16;

const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";
const PROXY_AUTHORIZATION: &str = "proxy-authorization";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bodies of requests that are read away; of longer ones the connection is ended.
const REQUEST_BODY_BYTES_MAX: u64 = 1 << 20;
/// Pairs of a query; the rest is ignored.
const QUERY_PAIRS_MAX: usize = 32;
/// Time for the peer to take what it was sent last.
const LINGER: Duration = Duration::from_secs(2);
