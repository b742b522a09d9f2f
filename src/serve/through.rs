//! What is not held, of upstreams with `pull_through`: fetched, and served as it lands.
//!
//! What an upstream does not have, or refuses, is 404; what could not be found out is 503. On
//! both a runtime goes on to its next registry. Never 401: there is no credential that would change
//! the answer.

use std::rc::Rc;
use std::time::Duration;

use super::growing::{Growing, KEPT_BACK_BYTES};
use super::{Api, Repository, Window, damaged, problem};
use crate::blob::{Entry, TagKey};
use crate::clock::SharedClock;
use crate::kind::Kind;
use crate::net::http::{ClientAddress, Method, ResponseBody, ServerRequest, ServerResponse};
use crate::oci::{Digest, valid_tag};
use crate::pull::{Download, Error, Puller};

impl Api {
    /// What fetches what is not held of a repository.
    pub(super) fn through(&self, repository: &Repository<'_>) -> Option<&Rc<Puller>> {
        let puller = self.puller.as_ref()?;
        puller.pulls_through(&repository.registry, repository.name).then_some(puller)
    }

    /// A manifest from the first of `known` that has it: another is asked only where nothing of the
    /// one before is held, and it does not have this either.
    pub(super) async fn find_manifest(
        &self,
        request: &ServerRequest,
        known: &[&Repository<'_>],
        reference: &str,
    ) -> ServerResponse {
        let mut refusal = None;
        for repository in known {
            let Some(puller) = self.through(repository) else {
                return self.manifest(request, repository, reference).await;
            };
            let found = match reference.parse::<Digest>() {
                Ok(digest) => self.manifest_through(puller, repository, &digest).await,
                Err(_) if !valid_tag(reference) => Ok((None, false)),
                Err(_) => self.tag_through(puller, repository, reference).await,
            };
            match found {
                Ok((Some(digest), is_stale)) => {
                    let entry = self.store.entry(&digest);
                    let Some(Entry { size, media_type: Some(media_type), .. }) = entry else {
                        return damaged();
                    };
                    let mut response =
                        self.held_manifest(request, &digest, size, &media_type).await;
                    if is_stale {
                        response.headers.append("warning", STALE);
                    }
                    return response;
                }
                Ok((None, _)) => return self.manifest(request, repository, reference).await,
                Err(error) if is_absent(&error) && self.has(repository) => {
                    return self.manifest(request, repository, reference).await;
                }
                Err(error) if is_absent(&error) => refusal = Some(error),
                Err(error) => return refused("MANIFEST_UNKNOWN", &error),
            }
        }
        match refusal {
            Some(error) => refused("MANIFEST_UNKNOWN", &error),
            None => problem(404, "MANIFEST_UNKNOWN", &format!("{reference} is not held here")),
        }
    }

    /// Makes a manifest held; returns its digest.
    async fn manifest_through(
        &self,
        puller: &Puller,
        repository: &Repository<'_>,
        digest: &Digest,
    ) -> Result<(Option<Digest>, bool), Error> {
        let is_held = puller.holds_manifest(digest);
        puller.count(is_held);
        if !is_held {
            // On the heap: a request for what is held should not pay for this.
            Box::pin(puller.manifest(&repository.registry, repository.name, digest)).await?;
        }
        Ok((Some(*digest), false))
    }

    /// What a tag means, and whether that is stale; none if what is held is all that there is to
    /// say.
    async fn tag_through(
        &self,
        puller: &Rc<Puller>,
        repository: &Repository<'_>,
        tag: &str,
    ) -> Result<(Option<Digest>, bool), Error> {
        let key = TagKey {
            registry: repository.registry.clone(),
            repository: repository.name.to_owned(),
            tag: tag.to_owned(),
        };
        let before = self.store.tag(&key);
        if before.is_some() && puller.is_desired(&key) {
            puller.count(true);
            return Ok((None, false));
        }
        let found = Box::pin(puller.tag(&key)).await;
        let is_hit = found.as_ref().is_ok_and(|tagged| before == Some(tagged.digest));
        puller.count(is_hit);
        found.map(|tagged| (Some(tagged.digest), tagged.is_stale))
    }

    /// A blob, held or fetched from the first of `known` that has it.
    pub(super) async fn find_blob(
        &self,
        request: &ServerRequest,
        known: &[&Repository<'_>],
        digest: &Digest,
    ) -> ServerResponse {
        let mut pulling = known.iter().filter_map(|one| Some((one, self.through(one)?))).peekable();
        if let Some((_, puller)) = pulling.peek() {
            if self.store.is_whole(digest)
                && self.store.entry(digest).is_none()
                && let Err(error) = self.store.flush().await
            {
                log::warn!("{digest}: {error}");
            }
            puller.count(self.store.entry(digest).is_some());
        }
        if self.store.entry(digest).is_some() {
            return self.blob(request, digest).await;
        }
        let mut refusal = None;
        for (repository, puller) in pulling {
            match Box::pin(self.blob_through(request, puller, repository, digest)).await {
                Ok(response) => return response,
                Err(error) if is_absent(&error) => refusal = Some(error),
                Err(error) => return refused("BLOB_UNKNOWN", &error),
            }
        }
        match refusal {
            Some(error) => refused("BLOB_UNKNOWN", &error),
            None => self.blob(request, digest).await,
        }
    }

    /// Whether the registry of a repository says that it has a digest.
    ///
    /// # Errors
    /// What is answered when that could not be found out.
    pub(super) async fn is_confirmed(
        &self,
        repository: &Repository<'_>,
        digest: &Digest,
        is_manifest: bool,
    ) -> Result<bool, ServerResponse> {
        let Some(puller) = self.through(repository) else { return Ok(false) };
        let Repository { registry, name } = repository;
        match Box::pin(puller.confirm(registry, name, digest, is_manifest)).await {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(problem(503, "UNAVAILABLE", &error.to_string())),
        }
    }

    async fn blob_through(
        &self,
        request: &ServerRequest,
        puller: &Rc<Puller>,
        repository: &Repository<'_>,
        digest: &Digest,
    ) -> Result<ServerResponse, Error> {
        let Repository { registry, name } = repository;
        if request.method == Method::Head {
            let size = puller.blob_size(registry, name, digest).await?;
            return Ok(match Window::of(request, digest, size) {
                // None of it is sent, and all that matters is how long it would be.
                Ok(window) => window.response(digest, |range| ResponseBody::Stream {
                    len: range.end - range.start,
                    source: Box::new(()),
                }),
                Err(response) => response,
            });
        }
        let client = ClientAddress::of(request.peer.ip());
        let download = puller.client_blob(registry, name, digest, client)?;
        let size = begun(&download, digest, puller.clock()).await?;
        if size <= KEPT_BACK_BYTES {
            self.store.flush().await?;
            return Ok(self.blob(request, digest).await);
        }
        let window = match Window::of(request, digest, size) {
            Ok(window) => window,
            Err(response) => return Ok(response),
        };
        Ok(window.response(digest, |range| {
            let (store, download) = (self.store.clone(), download.clone());
            let len = range.end - range.start;
            let source = Box::new(Growing::new(store, download, *digest, range, size));
            ResponseBody::Stream { len, source }
        }))
    }
}

/// Waits until there is something to send of a download, but not for ever: it goes on, and the
/// client elsewhere. Returns the size of the blob; one of which nothing is sent before its end has
/// landed.
async fn begun(download: &Download, digest: &Digest, clock: &SharedClock) -> Result<u64, Error> {
    let begun = async {
        let size = download.opened().await?;
        if size <= KEPT_BACK_BYTES {
            download.landed().await?;
        }
        Ok(size)
    };
    clock.timeout(BEGIN_PATIENCE, begun).await.unwrap_or_else(|| {
        Err(Error::new(Kind::Retry, digest.to_string(), "its registry does not answer yet"))
    })
}

/// Whether an upstream does not have something, as far as it says.
fn is_absent(error: &Error) -> bool {
    matches!(error.kind(), Kind::Missing | Kind::Denied)
}

fn refused(code: &str, error: &Error) -> ServerResponse {
    match is_absent(error) {
        true => problem(404, code, &error.to_string()),
        false => problem(503, "UNAVAILABLE", &error.to_string()),
    }
}

/// RFC 7234 section 5.5.1.
const STALE: &str = "110 moonlet \"Response is Stale\"";
/// Runtimes give up after 30 s without a head, and go on to their next registry.
const BEGIN_PATIENCE: Duration = Duration::from_secs(20);
