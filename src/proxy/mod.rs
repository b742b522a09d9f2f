//! A forward proxy, for runtimes that can be set to nothing else (`HTTP_PROXY`, `HTTPS_PROXY`).
//!
//! A CONNECT to a registry ends here: TLS is answered with a certificate of this device's own
//! [`Authority`], and what is asked for within is what the read API is asked for with that registry's
//! name (`ns=`): held, or fetched. The same goes for `GET http://registry/...`. Whatever else is wanted
//! is led there, by name, if the configuration allows it. Those bytes are a client's: they count against
//! the data plan, and outside the windows they go if `urgent` lets them.
//!
//! Who else may use it is the same question as who may read: the users of `[serve] htpasswd`, who show
//! their password to the proxy.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use crate::config;
use crate::fetch::{self, Terms};
use crate::kind::Kind;
use crate::net::http::{
    Client, Connect, HTTP_PORT, HTTPS_PORT, Handler, Headers, Leave, Origin, ResponseBody,
    ServerRequest, ServerResponse, Tunnel,
};
use crate::net::{self, Authority};
use crate::oci::registry_name;

/// What answers for registries.
pub trait Registries {
    /// Whether it answers for that one.
    fn answers_for(&self, registry: &str) -> bool;
    /// Who asks.
    type Caller;
    /// Who asks with these credentials (of Basic); else what is answered.
    fn admit(
        &self,
        request: &ServerRequest,
        credentials: Option<&str>,
    ) -> impl Future<Output = Result<Self::Caller, ServerResponse>>;
    /// Answers who may ask.
    fn answer(
        &self,
        request: &ServerRequest,
        caller: &Self::Caller,
    ) -> impl Future<Output = ServerResponse>;
}

/// The proxy in front of `R`.
pub struct Proxy<R> {
    registries: Rc<R>,
    /// The pace of clients.
    terms: Terms,
    rules: Rc<RefCell<config::Proxy>>,
    client: RefCell<Client>,
    authority: RefCell<Option<Authority>>,
    /// Certificates by host, the last ones first.
    identities: RefCell<Vec<(String, Arc<ServerConfig>)>>,
    tunnels: Rc<Cell<usize>>,
}

impl<R: Registries> Proxy<R> {
    /// Answers for `registries`, and leads elsewhere by `client` at the pace of clients.
    pub fn new(registries: Rc<R>, client: Client, terms: Terms, rules: config::Proxy) -> Self {
        Self {
            registries,
            terms,
            rules: Rc::new(RefCell::new(rules)),
            client: RefCell::new(client),
            authority: RefCell::default(),
            identities: RefCell::default(),
            tunnels: Rc::default(),
        }
    }

    /// Changes what is led where, and how.
    pub fn configure(&self, client: Client, rules: config::Proxy) {
        self.client.replace(client);
        self.rules.replace(rules);
    }

    /// Shows certificates of `authority` from now on.
    pub fn set_authority(&self, authority: Authority) {
        self.identities.take();
        self.authority.replace(Some(authority));
    }

    /// Whether there is an authority.
    pub fn has_authority(&self) -> bool {
        self.authority.borrow().is_some()
    }

    /// The registry that is meant by a host, if it is answered for.
    fn registry(&self, origin: &Origin, usual_port: u16) -> Option<String> {
        let bare = (origin.port == usual_port).then(|| origin.host.clone());
        let names = bare.into_iter().chain([origin.to_string()]);
        let mut names = names.filter_map(|name| registry_name(&name));
        names.find(|name| self.registries.answers_for(name))
    }

    async fn admit(&self, request: &ServerRequest) -> Result<R::Caller, ServerResponse> {
        let credentials = request.headers.get("proxy-authorization");
        self.registries.admit(request, credentials).await.map_err(|mut refusal| {
            if refusal.status == 401 {
                refusal.status = 407;
                refusal.headers.append("proxy-authenticate", "Basic realm=\"moonlet\"");
            }
            refusal
        })
    }

    /// What to show as `host`.
    fn identity(&self, host: &str) -> Result<Arc<ServerConfig>, ServerResponse> {
        let mut identities = self.identities.borrow_mut();
        if let Some(at) = identities.iter().position(|(name, _)| name == host) {
            let known = identities.remove(at);
            let identity = Arc::clone(&known.1);
            identities.insert(0, known);
            return Ok(identity);
        }
        let authority = self.authority.borrow();
        let Some(authority) = &*authority else {
            let what = "there is no certificate authority yet: see moonlet status";
            return Err(refusal(503, what));
        };
        let identity = authority.identity(host);
        let identity = identity.map_err(|error| refusal(503, &error.to_string()))?;
        identities.truncate(IDENTITIES_MAX - 1);
        identities.insert(0, (host.to_owned(), Arc::clone(&identity)));
        Ok(identity)
    }

    /// Leads to a host that is no registry.
    async fn lead(&self, to: &Origin) -> Result<Tunnel, ServerResponse> {
        let (allowed, public_only) = {
            let rules = self.rules.borrow();
            (is_allowed(&rules, to), !rules.private)
        };
        if !allowed {
            let what = format!("{to}: neither a registry here nor in [proxy] allow");
            return Err(refusal(403, &what));
        }
        // Each has a part of a data plan on its way, which downloads then lack.
        let max = if self.terms.gate().is_limited() { LIMITED_TUNNELS_MAX } else { TUNNELS_MAX };
        let Some(place) = Place::new(&self.tunnels, max) else {
            let what = format!("{max} tunnels are open: expected one to end first");
            return Err(held_back(&what, PLACE_PAUSE));
        };
        if let Err(error) = self.terms.may_fetch() {
            let pause = match &error {
                fetch::Error::HeldBack { retry_after, .. } => *retry_after,
                _ => PLACE_PAUSE,
            };
            return Err(held_back(&error.to_string(), pause));
        }
        let client = self.client.borrow().clone();
        let far = client.far_end(&to.host, to.port, public_only).await;
        let far = far.map_err(|error| match (error.retry_after(), error.kind()) {
            (Some(pause), _) => held_back(&error.to_string(), pause),
            (None, Kind::Denied) => {
                refusal(403, &format!("{error}; expected [proxy] private = true"))
            }
            (None, _) => refusal(502, &error.to_string()),
        })?;
        let (terms, rules, to) = (self.terms.clone(), Rc::clone(&self.rules), to.clone());
        let leave: Leave = Box::new(move || {
            let (terms, _) = (terms.clone(), &place);
            // A reload may have taken it out.
            let allowed = is_allowed(&rules.borrow(), &to);
            Box::pin(async move {
                if !allowed {
                    return Err(net::Error::new(Kind::Denied, "not in [proxy] allow any more"));
                }
                terms
                    .may_fetch()
                    .map_err(|error| net::Error::held_back(error.to_string(), PLACE_PAUSE))?;
                Ok(())
            })
        });
        Ok(Tunnel { far, leave })
    }
}

impl<R: Registries> Handler for Proxy<R> {
    async fn handle(&self, mut request: ServerRequest) -> ServerResponse {
        let Some(origin) = request.origin.clone() else {
            return match self.authority.borrow().as_ref().filter(|_| request.path == AUTHORITY_PATH)
            {
                Some(authority) => document(200, "application/x-pem-file", authority.pem()),
                None => refusal(
                    400,
                    "this port is a proxy: expected CONNECT host:port or GET http://...",
                ),
            };
        };
        let caller = match self.admit(&request).await {
            Ok(caller) => caller,
            Err(refusal) => return refusal,
        };
        let usual_port = if origin.is_tunnelled { HTTPS_PORT } else { HTTP_PORT };
        let Some(registry) = self.registry(&origin, usual_port) else {
            let what = format!("{origin}: is no registry here, and only https is led elsewhere");
            return refusal(403, &what);
        };
        request.query.retain(|(name, _)| name != NAMESPACE);
        request.query.push((NAMESPACE.to_owned(), registry));
        self.registries.answer(&request, &caller).await
    }

    async fn connect(&self, request: ServerRequest, to: Origin) -> Connect {
        if let Err(refusal) = self.admit(&request).await {
            return Connect::Refused(refusal);
        }
        if self.registry(&to, HTTPS_PORT).is_some() {
            return match self.identity(&to.host) {
                Ok(identity) => Connect::Answered(identity),
                Err(refusal) => Connect::Refused(refusal),
            };
        }
        match self.lead(&to).await {
            Ok(tunnel) => Connect::Relayed(tunnel),
            Err(refusal) => Connect::Refused(refusal),
        }
    }
}

/// One of the tunnels that may be open.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn new(tunnels: &Rc<Cell<usize>>, max: usize) -> Option<Self> {
        (tunnels.get() < max).then(|| {
            tunnels.set(tunnels.get() + 1);
            Self(Rc::clone(tunnels))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn is_allowed(rules: &config::Proxy, to: &Origin) -> bool {
    rules.allow.iter().any(|pattern| pattern.fits(&to.host, to.port))
}

fn held_back(what: &str, pause: Duration) -> ServerResponse {
    let mut response = refusal(503, what);
    response.headers.append("retry-after", pause.as_secs().max(1).to_string());
    response
}

/// For people: what a runtime shows of it is mostly the status only.
fn refusal(status: u16, what: &str) -> ServerResponse {
    log::debug!("proxy: {status}: {what}");
    document(status, "text/plain; charset=utf-8", format!("{what}\n"))
}

fn document(status: u16, kind: &str, text: String) -> ServerResponse {
    let mut headers = Headers::new();
    headers.append("content-type", kind);
    ServerResponse { status, headers, body: ResponseBody::Bytes(text.into_bytes().into()) }
}

/// Where the proxy itself shows the certificate that its clients have to trust.
pub const AUTHORITY_PATH: &str = "/ca.pem";
/// The name of a registry in a query, as containerd has it.
const NAMESPACE: &str = "ns";
/// Tunnels that are open at once: each takes two sockets and 16 KiB.
const TUNNELS_MAX: usize = 32;
/// The same on a link with a rate or a data plan.
const LIMITED_TUNNELS_MAX: usize = 4;
/// Certificates that are kept: most satellites have a handful of registries.
const IDENTITIES_MAX: usize = 16;
/// When it may be worth to ask again for what depends on others.
const PLACE_PAUSE: Duration = Duration::from_secs(5);
