//! The read API: the pull part of the OCI distribution-spec, version 1.1.
//!
//! What is on flash is served, and nothing else is asked: the link may be down. Only of upstreams
//! with `pull_through` is what is not held fetched, and served as it lands. Every write is
//! refused with 405. A held digest is served under any repository name that is known, unless rules
//! say which repositories the client may read (`callers`). A manifest is
//! served whatever `Accept` names: there is only the one that is held, and its digest is what was
//! asked for.
//!
//! Three ways of naming lead to a repository: `?ns=docker.io` (containerd), a first path segment
//! that is an upstream's registry (podman, CRI-O), and a bare path, which means the first upstream
//! in the configuration that has it.
//!
//! Nothing here is held per client but a few KiB: manifests leave as blobs do, lists come in pages,
//! and that of referrers is made while it is sent.

mod access;
mod callers;
#[cfg(feature = "pull-through")]
mod growing;
mod lists;
mod manifest;
mod ranges;
mod referrers;
mod route;
#[cfg(feature = "pull-through")]
mod through;
#[cfg(not(feature = "pull-through"))]
#[path = "held.rs"]
mod through;
#[cfg(not(feature = "htpasswd"))]
#[path = "no_users.rs"]
mod users;
#[cfg(feature = "htpasswd")]
mod users;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;

use serde_json::json;

use crate::blob::{Entry, Reader, Store};
use crate::catalog::Catalog;
use crate::config::ReadRule;
use crate::net::http::{
    ClientAddress, FileSpan, Gate, Handler, Headers, Method, ResponseBody, ServerRequest,
    ServerResponse, Source,
};
use crate::oci::{Digest, registry_name};
use crate::pull::Puller;
use access::{is_blank, refusal};
pub use callers::Caller;
use ranges::Window;
use route::{Route, Target};
use users::Users;

/// The read API over one store.
pub struct Api {
    store: Store,
    catalog: Catalog,
    /// The upstreams' registries, in the configuration's order.
    registries: RefCell<Vec<String>>,
    /// Who may read, where not anyone may.
    users: RefCell<Option<(PathBuf, Rc<Users>)>>,
    /// What of it, where that is not all.
    rules: RefCell<Rc<[ReadRule]>>,
    confirmed: RefCell<VecDeque<callers::Confirmed>>,
    /// Small manifests served of late.
    cached: RefCell<Vec<(Digest, Rc<[u8]>)>>,
    /// Fetches what is not held, where that is configured.
    puller: Option<Rc<Puller>>,
}

/// A repository as the store names it.
struct Repository<'a> {
    registry: String,
    name: &'a str,
}

impl Api {
    /// Serves what `store` holds.
    pub fn new(store: Store, catalog: Catalog, registries: Vec<String>) -> Self {
        let registries = RefCell::new(registries);
        let (users, cached) = (RefCell::default(), RefCell::default());
        let (rules, confirmed) = (RefCell::new([].into()), RefCell::default());
        Self { store, catalog, registries, users, rules, confirmed, cached, puller: None }
    }

    /// Has `puller` fetch what is not held of upstreams with `pull_through`.
    #[must_use]
    pub fn pulling(self, puller: Rc<Puller>) -> Self {
        Self { puller: Some(puller), ..self }
    }

    /// Lets only the users of an htpasswd file read, or anyone. `key` is random: by it they are
    /// remembered. Returns what is wrong with the file now, if anything is.
    pub fn set_users(
        &self,
        path: Option<&PathBuf>,
        key: impl FnOnce() -> [u8; 32],
    ) -> Option<String> {
        let mut users = self.users.borrow_mut();
        if users.as_ref().map(|(path, _)| path) != path {
            let new = |path: &PathBuf| (path.clone(), Rc::new(Users::new(path.clone(), key())));
            *users = path.map(new);
        }
        users.as_ref().and_then(|(_, users)| users.problem())
    }

    /// Changes the upstreams' registries.
    pub fn set_registries(&self, registries: Vec<String>) {
        self.registries.replace(registries);
    }

    /// Whether a registry is that of an upstream, or of an image.
    pub fn serves(&self, registry: &str) -> bool {
        self.registries.borrow().iter().any(|one| one == registry)
    }

    /// Who sent a request with these credentials (the value of an Authorization line): a user,
    /// where there are any.
    ///
    /// # Errors
    /// What is answered to who is none.
    pub async fn admit(
        &self,
        request: &ServerRequest,
        credentials: Option<&str>,
    ) -> Result<Caller, ServerResponse> {
        let users = self.users.borrow().as_ref().map(|(_, users)| Rc::clone(users));
        let user = match users {
            Some(users) => {
                Some(users.admit(credentials, ClientAddress::of(request.peer.ip())).await?)
            }
            None => None,
        };
        Ok(Caller::new(request, user, false))
    }

    /// The same, but where rules say who may read what, credentials may be left out.
    async fn identify(&self, request: &ServerRequest) -> Result<Caller, ServerResponse> {
        let credentials = request.headers.get("authorization").filter(|shown| !is_blank(shown));
        let has_rules = !self.rules.borrow().is_empty();
        if has_rules && credentials.is_none() {
            return Ok(Caller::new(request, None, self.users.borrow().is_some()));
        }
        self.admit(request, credentials).await
    }

    /// Answers who may read.
    pub async fn answer(&self, request: &ServerRequest, caller: &Caller) -> ServerResponse {
        if !matches!(request.method, Method::Get | Method::Head) {
            let what = "this registry is read-only: push to the one it replicates";
            let mut response = problem(405, "UNSUPPORTED", what);
            response.headers.append("allow", "GET, HEAD");
            return response;
        }
        let route = match Route::parse(&request.path) {
            Ok(route) => route,
            Err(refusal) => return problem(refusal.status, refusal.code, &refusal.message),
        };
        let Some(target) = route.target else {
            let greeting = self.greeting(caller);
            return greeting.unwrap_or_else(|| reply(200, JSON, b"{}".as_slice().into()));
        };
        let namespace = query(request, "ns");
        let mut response = self.find(request, caller, &route.name, target).await;
        if let Some(namespace) = namespace {
            response.headers.append("oci-namespace", namespace);
        }
        response
    }

    async fn find(
        &self,
        request: &ServerRequest,
        caller: &Caller,
        name: &str,
        target: Target,
    ) -> ServerResponse {
        if target == Target::Catalog {
            return self.repositories(request, caller).await;
        }
        let candidates = self.candidates(name, query(request, "ns"));
        let may_read = |one: &&Repository<'_>| self.may_read(caller, one);
        let is_known = |one: &&Repository<'_>| self.has(one) || self.through(one).is_some();
        let readable: Vec<&Repository<'_>> = candidates.iter().filter(may_read).collect();
        let mut known: Vec<&Repository<'_>> = readable.iter().copied().filter(is_known).collect();
        if known.is_empty() && readable.len() < candidates.len() {
            return caller.refusal(name);
        }
        // What is held needs no upstream, and must not come to need one.
        known.sort_by_key(|repository| !self.has(repository));
        if !known.is_empty()
            && !self.may_read_all(caller)
            && let Err(response) = self.confine(&mut known, &target).await
        {
            return response;
        }
        let held = known.iter().find(|repository| self.has(repository));
        match (target, known.is_empty(), held) {
            (_, true, _) | (Target::Tags | Target::Catalog, _, None) => {
                let what = format!("repository {name:?} is not held here");
                problem(404, "NAME_UNKNOWN", &what)
            }
            (Target::Manifest(reference), ..) => {
                self.find_manifest(request, &known, &reference).await
            }
            (Target::Blob(digest), ..) => self.find_blob(request, &known, &digest).await,
            (Target::Tags | Target::Catalog, _, Some(repository)) => {
                self.tags(request, repository, name)
            }
            (Target::Referrers(digest), ..) => self.referrers(request, &digest).await,
        }
    }

    /// The repositories that a name may mean; the first that is known counts.
    fn candidates<'a>(&self, name: &'a str, namespace: Option<&str>) -> Vec<Repository<'a>> {
        if let Some(namespace) = namespace {
            let registry = registry_name(namespace);
            return registry.map(|registry| Repository { registry, name }).into_iter().collect();
        }
        let registries = self.registries.borrow();
        let prefixed = name.split_once('/');
        let prefixed = prefixed.and_then(|(first, rest)| Some((registry_name(first)?, rest)));
        let prefixed = prefixed.filter(|(first, _)| registries.contains(first));
        let prefixed = prefixed.map(|(registry, name)| Repository { registry, name });
        let bare =
            registries.iter().map(|registry| Repository { registry: registry.clone(), name });
        prefixed.into_iter().chain(bare).collect()
    }

    /// Whether anything of a repository is held under a tag.
    fn has(&self, repository: &Repository<'_>) -> bool {
        self.store.has_repository(&repository.registry, repository.name)
    }

    async fn blob(&self, request: &ServerRequest, digest: &Digest) -> ServerResponse {
        let entry = self.store.entry(digest);
        let unknown = || problem(404, "BLOB_UNKNOWN", &format!("{digest} is not held here"));
        let Some(Entry { size, .. }) = entry else { return unknown() };
        let window = match Window::of(request, digest, size) {
            Ok(window) => window,
            Err(response) => return response,
        };
        let Ok(reader) = self.store.reader(digest) else { return unknown() };
        if !self.is_sound(request.method, &reader, &window.ranges).await {
            return damaged();
        }
        window.response(digest, |range| body(reader.clone(), range))
    }

    /// Whether no byte of these ranges is known to be corrupt, and the first are found to be right.
    /// Later ones are checked before they are sent. A HEAD sends none, and checks none.
    async fn is_sound(&self, method: Method, reader: &Reader, ranges: &[Range<u64>]) -> bool {
        let is_corrupt = |range: &Range<u64>| self.store.is_corrupt(reader.digest(), range.clone());
        if ranges.iter().any(is_corrupt) {
            return false;
        }
        let first = ranges.first().filter(|range| method != Method::Head && !range.is_empty());
        match first {
            Some(first) => reader.admit(first.start, first.end - first.start).await.is_ok(),
            None => true,
        }
    }
}

/// Bytes of a blob, from its files where it has some, else read piece by piece.
fn body(reader: Reader, range: Range<u64>) -> ResponseBody {
    let (first, length) = (range.start, range.end - range.start);
    let (spans, lease) = (reader.spans(first, length), reader.lease());
    let part = Box::new(Part::new(reader, range));
    let Some(spans) = spans else {
        return ResponseBody::Stream { len: length, source: part };
    };
    let spans = spans.into_iter();
    let spans =
        spans.map(|span| FileSpan { file: span.file, offset: span.offset, len: span.bytes });
    ResponseBody::Files { spans: spans.collect(), lease, gate: part }
}

impl Handler for Api {
    async fn handle(&self, request: ServerRequest) -> ServerResponse {
        match self.identify(&request).await {
            Ok(caller) => self.answer(&request, &caller).await,
            Err(refusal) => refusal,
        }
    }
}

/// A part of a blob that is being sent.
struct Part {
    reader: Reader,
    first: u64,
    length: u64,
    /// How far it was read, where the device has no files.
    at: u64,
    /// How far it may be.
    admitted: u64,
}

impl Part {
    /// Nothing of it was sent.
    fn new(reader: Reader, range: Range<u64>) -> Self {
        let (first, length) = (range.start, range.end - range.start);
        Self { reader, first, length, at: 0, admitted: 0 }
    }
}

impl Gate for Part {
    fn admit(&self, at: u64) -> Pin<Box<dyn Future<Output = io::Result<u64>> + '_>> {
        let (offset, left) = (self.first + at, self.length.saturating_sub(at));
        // Mostly there is nothing to wait for.
        match self.reader.admitted(offset, left) {
            0 => {
                Box::pin(
                    async move { self.reader.admit(offset, left).await.map_err(io::Error::other) },
                )
            }
            bytes => Box::pin(std::future::ready(Ok(bytes))),
        }
    }
}

impl Source for Part {
    fn read<'a>(
        &'a mut self,
        buffer: &'a mut [u8],
    ) -> Pin<Box<dyn Future<Output = io::Result<usize>> + 'a>> {
        Box::pin(async move {
            if self.at >= self.admitted {
                self.admitted = self.at + self.admit(self.at).await?;
            }
            let left = usize::try_from(self.admitted - self.at).unwrap_or(usize::MAX);
            let length = left.min(buffer.len());
            let buffer = buffer.get_mut(..length).unwrap_or_default();
            let outcome = self.reader.read_at(self.first + self.at, buffer);
            let read = outcome.map_err(io::Error::other)?;
            self.at += read as u64;
            Ok(read)
        })
    }
}

fn query<'a>(request: &'a ServerRequest, name: &str) -> Option<&'a str> {
    let pair = request.query.iter().find(|(key, _)| key == name);
    pair.map(|(_, value)| value.as_str())
}

fn content(headers: &mut Headers, digest: &Digest) {
    let text = digest.to_string();
    headers.append("etag", format!("\"{text}\""));
    headers.append("docker-content-digest", text);
}

/// Held, but not readable: to a client an error that may pass, so that it tries elsewhere.
fn damaged() -> ServerResponse {
    let what = "corrupt on flash, and not fetched again yet: try another registry, or later";
    problem(503, "UNAVAILABLE", what)
}

fn problem(status: u16, code: &str, message: &str) -> ServerResponse {
    document(status, JSON, &json!({ "errors": [{ "code": code, "message": message }] }))
}

fn document(status: u16, content_type: &str, value: &serde_json::Value) -> ServerResponse {
    reply(status, content_type, value.to_string().into_bytes().into())
}

fn reply(status: u16, content_type: &str, bytes: Rc<[u8]>) -> ServerResponse {
    let body = ResponseBody::Bytes(bytes);
    ServerResponse { status, headers: head(content_type), body }
}

/// The headers of every answer but that with a blob.
fn head(content_type: &str) -> Headers {
    let mut headers = Headers::new();
    headers.append("content-type", content_type);
    headers.append("docker-distribution-api-version", "registry/2.0");
    headers
}

const JSON: &str = "application/json";

#[cfg(test)]
mod tests;
