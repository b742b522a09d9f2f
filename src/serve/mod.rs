//! The read API: the pull part of the OCI distribution-spec, version 1.1.
//!
//! What is on flash is served, and nothing else is asked: the link may be down. Every write is
//! refused with 405. A held digest is served under any repository name that is known, because
//! access is decided by who reaches the port and not by name.
//!
//! Three ways of naming lead to a repository: `?ns=docker.io` (containerd), a first path segment
//! that is an upstream's registry (podman, CRI-O), and a bare path, which means the first upstream
//! in the configuration that has it.

mod route;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use serde_json::json;

use crate::blob::{Entry, Reader, Store, TagKey};
use crate::catalog::Catalog;
use crate::net::http::{
    FileSpan, Gate, Handler, Headers, Method, ResponseBody, ServerRequest, ServerResponse, Source,
};
use crate::oci::{Digest, MANIFEST_BYTES_MAX, media_type};
use route::{Range, Route, Target, range};

/// The read API over one store.
pub struct Api {
    store: Store,
    catalog: Catalog,
    /// The upstreams' registries, in the configuration's order.
    registries: RefCell<Vec<String>>,
    /// Manifests served of late, newest last, at most [`CACHED_MAX`].
    cached: RefCell<Vec<(Digest, Rc<[u8]>)>>,
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
        Self { store, catalog, registries, cached: RefCell::default() }
    }

    /// Changes the upstreams' registries.
    pub fn set_registries(&self, registries: Vec<String>) {
        self.registries.replace(registries);
    }

    async fn answer(&self, request: &ServerRequest) -> ServerResponse {
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
            return reply(200, JSON, b"{}".as_slice().into());
        };
        let namespace = query(request, "ns");
        let Some(repository) = self.repository(&route.name, namespace) else {
            let what = format!("repository {:?} is not held here", route.name);
            return problem(404, "NAME_UNKNOWN", &what);
        };
        let mut response = match target {
            Target::Manifest(reference) => self.manifest(request, &repository, &reference),
            Target::Blob(digest) => self.blob(request, &digest).await,
            Target::Tags => self.tags(request, &repository, &route.name),
            Target::Referrers(digest) => self.referrers(request, &digest),
        };
        if let Some(namespace) = namespace {
            response.headers.append("oci-namespace", namespace);
        }
        response
    }

    /// The first repository that is held, of those that a name may mean.
    fn repository<'a>(&self, name: &'a str, namespace: Option<&str>) -> Option<Repository<'a>> {
        let has = |registry: &str, name: &'a str| {
            let held = self.store.has_repository(registry, name);
            held.then(|| Repository { registry: registry.to_owned(), name })
        };
        if let Some(namespace) = namespace {
            let registry = match namespace {
                "registry-1.docker.io" | "index.docker.io" => "docker.io",
                other => other,
            };
            return has(registry, name);
        }
        let registries = self.registries.borrow();
        let prefixed = name
            .split_once('/')
            .filter(|(first, _)| registries.iter().any(|registry| registry == first));
        prefixed
            .and_then(|(registry, rest)| has(registry, rest))
            .or_else(|| registries.iter().find_map(|registry| has(registry, name)))
    }

    fn manifest(
        &self,
        request: &ServerRequest,
        repository: &Repository<'_>,
        reference: &str,
    ) -> ServerResponse {
        let (digest, by_tag) = match reference.parse::<Digest>() {
            Ok(digest) => (Some(digest), false),
            Err(_) => {
                let key = TagKey {
                    registry: repository.registry.clone(),
                    repository: repository.name.to_owned(),
                    tag: reference.to_owned(),
                };
                (self.store.tag(&key), true)
            }
        };
        let entry = digest.and_then(|digest| self.store.entry(&digest));
        let held = entry.as_ref().and_then(|entry| entry.media_type.clone().zip(digest));
        let Some((media_type, digest)) = held else {
            let what = format!("{}:{reference} is not held here", repository.name);
            return problem(404, "MANIFEST_UNKNOWN", &what);
        };
        if by_tag && !accepts(&request.headers, &media_type) {
            let what = format!("held as {media_type}, which Accept does not name");
            return problem(404, "MANIFEST_UNKNOWN", &what);
        }
        match self.manifest_bytes(&digest) {
            Ok(bytes) => {
                self.store.touch(&digest);
                let mut response = reply(200, &media_type, bytes);
                content(&mut response.headers, &digest);
                response
            }
            Err(error) => {
                log::error!("reading manifest {digest}: {error}");
                damaged()
            }
        }
    }

    fn manifest_bytes(&self, digest: &Digest) -> Result<Rc<[u8]>, crate::blob::Error> {
        let mut cached = self.cached.borrow_mut();
        if let Some((_, bytes)) = cached.iter().find(|(held, _)| held == digest) {
            return Ok(Rc::clone(bytes));
        }
        let bytes: Rc<[u8]> = self.store.read_all(digest, MANIFEST_BYTES_MAX)?.into();
        if bytes.len() <= CACHED_BYTES_MAX {
            if cached.len() >= CACHED_MAX {
                cached.remove(0);
            }
            cached.push((*digest, Rc::clone(&bytes)));
        }
        Ok(bytes)
    }

    async fn blob(&self, request: &ServerRequest, digest: &Digest) -> ServerResponse {
        let entry = self.store.entry(digest);
        let unknown = || problem(404, "BLOB_UNKNOWN", &format!("{digest} is not held here"));
        let Some(Entry { size, .. }) = entry else { return unknown() };
        let etag = format!("\"{digest}\"");
        let applies = request.headers.get("if-range").is_none_or(|value| value == etag);
        let wanted = request.headers.get("range").filter(|_| applies);
        let (status, first, length) = match wanted.map_or(Range::Whole, |text| range(text, size)) {
            Range::Whole => (200, 0, size),
            Range::Part { first, length } => (206, first, length),
            Range::Outside => {
                let mut response = problem(416, "RANGE_INVALID", "the range is not in the blob");
                response.headers.append("content-range", format!("bytes */{size}"));
                return response;
            }
        };
        let Ok(reader) = self.store.reader(digest) else { return unknown() };
        let Some(body) = self.body(request.method, reader, first..first + length).await else {
            return damaged();
        };
        let mut headers = Headers::new();
        headers.append("content-type", "application/octet-stream");
        headers.append("accept-ranges", "bytes");
        content(&mut headers, digest);
        if status == 206 {
            let last = first + length - 1;
            headers.append("content-range", format!("bytes {first}-{last}/{size}"));
        }
        ServerResponse { status, headers, body }
    }

    /// Bytes of a blob, from its files where it has some, else read piece by piece; none if any of
    /// them is known to be corrupt, or the first are found to be. Later ones are checked before
    /// they are sent. A HEAD sends none, and checks none.
    async fn body(
        &self,
        method: Method,
        reader: Reader,
        range: std::ops::Range<u64>,
    ) -> Option<ResponseBody> {
        if self.store.is_rotten(reader.digest(), range.clone()) {
            return None;
        }
        let (first, length) = (range.start, range.end - range.start);
        if method != Method::Head && length > 0 && reader.admit(first, length).await.is_err() {
            return None;
        }
        let (spans, lease) = (reader.spans(first, length), reader.lease());
        let part = Box::new(Part { reader, first, length, at: 0, admitted: 0 });
        let Some(spans) = spans else {
            return Some(ResponseBody::Stream { len: length, source: part });
        };
        let spans = spans.into_iter();
        let spans =
            spans.map(|span| FileSpan { file: span.file, offset: span.offset, len: span.bytes });
        Some(ResponseBody::Files { spans: spans.collect(), lease, gate: part })
    }

    fn tags(
        &self,
        request: &ServerRequest,
        repository: &Repository<'_>,
        name: &str,
    ) -> ServerResponse {
        let mut tags = self.catalog.tags(&repository.registry, repository.name);
        if let Some(last) = query(request, "last") {
            tags.retain(|tag| tag.as_str() > last);
        }
        let mut more = None;
        if let Some(text) = query(request, "n") {
            let Ok(n) = text.parse::<usize>() else {
                let what = format!("n={text:?}, expected a number");
                return problem(400, "PAGINATION_NUMBER_INVALID", &what);
            };
            let is_cut = n < tags.len();
            tags.truncate(n);
            more = tags.last().filter(|_| is_cut).map(|last| (n, last.clone()));
        }
        let mut response = document(200, JSON, &json!({ "name": name, "tags": tags }));
        if let Some((n, last)) = more {
            let mut link = url::form_urlencoded::Serializer::new(String::new());
            link.append_pair("n", &n.to_string()).append_pair("last", &last);
            if let Some(namespace) = query(request, "ns") {
                link.append_pair("ns", namespace);
            }
            let link = format!("</v2/{name}/tags/list?{}>; rel=\"next\"", link.finish());
            response.headers.append("link", link);
        }
        response
    }

    fn referrers(&self, request: &ServerRequest, digest: &Digest) -> ServerResponse {
        let mut manifests = self.catalog.referrers(digest);
        let wanted = query(request, "artifactType");
        if let Some(wanted) = wanted {
            manifests.retain(|manifest| manifest.artifact_type.as_deref() == Some(wanted));
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests,
        });
        let mut response = document(200, media_type::OCI_INDEX, &index);
        if wanted.is_some() {
            response.headers.append("oci-filters-applied", "artifactType");
        }
        response
    }
}

impl Handler for Api {
    async fn handle(&self, request: ServerRequest) -> ServerResponse {
        self.answer(&request).await
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

/// Whether any Accept line lets `media_type` through; no Accept lets everything.
fn accepts(headers: &Headers, media_type: &str) -> bool {
    let mut lines = headers.all("accept").peekable();
    if lines.peek().is_none() {
        return true;
    }
    let mut ranges = lines.flat_map(|line| line.split(','));
    ranges.any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        range == "*/*" || range == "application/*" || range.eq_ignore_ascii_case(media_type)
    })
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
    let what = "rotten on flash, and not fetched again yet: try another registry, or later";
    problem(503, "UNAVAILABLE", what)
}

fn problem(status: u16, code: &str, message: &str) -> ServerResponse {
    document(status, JSON, &json!({ "errors": [{ "code": code, "message": message }] }))
}

fn document(status: u16, content_type: &str, value: &serde_json::Value) -> ServerResponse {
    reply(status, content_type, value.to_string().into_bytes().into())
}

fn reply(status: u16, content_type: &str, bytes: Rc<[u8]>) -> ServerResponse {
    let mut headers = Headers::new();
    headers.append("content-type", content_type);
    headers.append("docker-distribution-api-version", "registry/2.0");
    ServerResponse { status, headers, body: ResponseBody::Bytes(bytes) }
}

const JSON: &str = "application/json";
/// Manifests kept in memory, and the longest that is.
const CACHED_MAX: usize = 16;
const CACHED_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests;
