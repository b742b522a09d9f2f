//! What answers requests, and what it is asked.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::Method;
use super::headers::Headers;
use super::origin::Origin;
use super::send::ServerResponse;
use super::tunnel::Tunnel;

/// Answers requests.
pub trait Handler {
    /// Answers one request. It has all the time it takes: only the network has deadlines.
    fn handle(&self, request: ServerRequest) -> impl Future<Output = ServerResponse>;

    /// Says what becomes of a CONNECT to an origin. Who is no proxy refuses it.
    fn connect(&self, request: ServerRequest, _to: Origin) -> impl Future<Output = Connect> {
        async { Connect::Refused(self.handle(request).await) }
    }
}

/// What becomes of a CONNECT.
pub enum Connect {
    /// There is no tunnel.
    Refused(ServerResponse),
    /// It ends here: TLS is answered with this certificate, and the requests within are handled.
    Answered(Arc<rustls::ServerConfig>),
    /// It leads to another host.
    Relayed(Tunnel),
}

/// A [`Handler`] of any type: the loop of a connection is in the program once.
pub(super) trait Answers {
    fn handle<'a>(&'a self, request: ServerRequest) -> Answer<'a, ServerResponse>;
    fn connect<'a>(&'a self, request: ServerRequest, to: Origin) -> Answer<'a, Connect>;
}

pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

impl<H: Handler> Answers for H {
    fn handle<'a>(&'a self, request: ServerRequest) -> Answer<'a, ServerResponse> {
        Box::pin(Handler::handle(self, request))
    }

    fn connect<'a>(&'a self, request: ServerRequest, to: Origin) -> Answer<'a, Connect> {
        Box::pin(Handler::connect(self, request, to))
    }
}

/// A request, without its body.
#[derive(Clone, Debug)]
pub struct ServerRequest {
    /// The method.
    pub method: Method,
    /// Whom it is for, where it came to a proxy.
    pub origin: Option<Origin>,
    /// The path as it was sent, not decoded.
    pub path: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// Header lines.
    pub headers: Headers,
    /// Who asks.
    pub peer: SocketAddr,
    /// The names of the certificate that it has shown.
    pub certificate: Option<Rc<[String]>>,
}
