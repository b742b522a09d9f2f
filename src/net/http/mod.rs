//! HTTP/1.1, client and server: the only module that knows async-h1.
//!
//! async-h1 encodes the client's requests and decodes the heads of responses (`codec`); the
//! connections are ours, because they need what its own loop lacks: deadlines for head,
//! idling and progress, connection limits, keep-alive, bodies that leave by sendfile, and an end
//! by FIN instead of RST.
//!
//! | file | holds |
//! |---|---|
//! | `wire` | a socket, plain or TLS, with one buffer and one deadline |
//! | `headers` | header lines as an ordered multimap |
//! | `head` | where a head ends; the server's request heads; framing |
//! | `chunks` | the chunked transfer coding |
//! | `codec` | async-h1, fed only with what it can digest |
//! | `client` `pool` `body` `goodput` | requests, kept connections, the body of a response |
//! | `reach` | the way to a server in single steps |
//! | `server` `handshake` `session` | listening, TLS, the loop of a connection |
//! | `handler` `shared` `limits` | what answers, what connections share, how long they may take |
//! | `send` | how an answer leaves |
//! | `slots` | which clients may be connected, and which give way |
//! | `origin` `tunnel` | what a proxy is asked for, and the bytes of others through it |
//!
//! Why the server's heads are parsed with httparse, the parser inside async-h1, and written here:
//! async-h1's server decoder panics on header values that are not ASCII (with panic = abort one
//! line from a peer would end the process), starts a global executor and its threads on
//! `Expect: 100-continue`, takes 8 KiB where a podman Range line alone has 20 KB, resolves dots in
//! paths, and refuses HTTP/1.0 and unknown methods. It and its encoder also build a hash map, a
//! URL and several strings for every small answer, a third of what such an answer costs; a test
//! holds that both read ordinary requests alike. A download of the client is bound by its link,
//! so there the codec's cost does not matter, and its heads are made digestible first.
//! Why chunks are decoded here: its decoder waits for ever when the last two bytes of a body come
//! in a packet of their own, and panics on trailers that are not ASCII.

use std::fmt;

mod answer;
mod body;
mod chunks;
mod client;
mod codec;
mod goodput;
mod handler;
#[cfg(feature = "serve-tls")]
mod handshake;
#[cfg(not(feature = "serve-tls"))]
#[path = "no_handshake.rs"]
mod handshake;
mod head;
mod headers;
mod limits;
mod origin;
mod pool;
mod reach;
mod resident;
mod send;
mod server;
mod session;
mod shared;
mod slots;
mod tunnel;
mod wire;

pub use body::Body;
pub use client::{Client, ClientResponse};
pub use codec::ClientRequest;
pub use handler::{Connect, Handler, ServerRequest};
pub use headers::Headers;
pub use limits::{ClientLimits, ServerLimits};
pub use origin::{HTTP_PORT, HTTPS_PORT, Origin};
pub use reach::Connected;
pub use send::{FileSpan, Gate, ResponseBody, ServerResponse, Source};
pub use server::{Connection, Listener};
pub use slots::{ClientAddress, Slots};
pub use tunnel::{FarEnd, Leave, Tunnel};

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// CONNECT
    Connect,
    /// Any other word.
    Other,
}

impl Method {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Connect => "CONNECT",
            Self::Other => "OTHER",
        }
    }

    fn from_word(word: &str) -> Self {
        const KNOWN: [Method; 8] = [
            Method::Get,
            Method::Head,
            Method::Post,
            Method::Put,
            Method::Patch,
            Method::Delete,
            Method::Options,
            Method::Connect,
        ];
        KNOWN.into_iter().find(|method| method.as_str() == word).unwrap_or(Self::Other)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a status means, in English; empty for one that is seldom met.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
