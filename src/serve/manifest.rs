//! Manifests: small ones from memory, others as blobs are sent.

use std::rc::Rc;

use super::{Api, Repository, body, content, damaged, head, problem, reply};
use crate::blob::{Entry, Error, TagKey};
use crate::net::http::{ServerRequest, ServerResponse};
use crate::oci::Digest;

impl Api {
    /// A manifest by tag or digest.
    pub(super) async fn manifest(
        &self,
        request: &ServerRequest,
        repository: &Repository<'_>,
        reference: &str,
    ) -> ServerResponse {
        let digest = match reference.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => {
                let key = TagKey {
                    registry: repository.registry.clone(),
                    repository: repository.name.to_owned(),
                    tag: reference.to_owned(),
                };
                self.store.tag(&key)
            }
        };
        let entry = digest.and_then(|digest| self.store.entry(&digest));
        if let Some(Entry { digest, size, media_type: Some(media_type), .. }) = entry {
            return self.held_manifest(request, &digest, size, &media_type).await;
        }
        // A tag that is held, of which the manifest is not, is no fallback.
        let subject = Digest::from_tag(reference).filter(|_| digest.is_none());
        let fallback = match subject {
            Some(subject) => self.fallback_tag(&subject).await,
            None => None,
        };
        fallback.unwrap_or_else(|| {
            let what = format!("{}:{reference} is not held here", repository.name);
            problem(404, "MANIFEST_UNKNOWN", &what)
        })
    }

    pub(super) async fn held_manifest(
        &self,
        request: &ServerRequest,
        digest: &Digest,
        size: u64,
        media_type: &str,
    ) -> ServerResponse {
        if self.store.is_corrupt(digest, 0..size.max(1)) {
            return damaged();
        }
        let mut response = if size <= CACHED_BYTES_MAX {
            match self.small_manifest(digest) {
                Ok(bytes) => {
                    self.store.touch(digest);
                    reply(200, media_type, bytes)
                }
                Err(error) => {
                    log::error!("reading manifest {digest}: {error}");
                    // What is corrupt is recorded, and so fetched again at once.
                    if let Err(error) = self.store.check_all(digest, async |_| {}).await {
                        log::warn!("{digest}: {error}");
                    }
                    return damaged();
                }
            }
        } else {
            let Ok(reader) = self.store.reader(digest) else { return damaged() };
            if !self.is_sound(request.method, &reader, std::slice::from_ref(&(0..size))).await {
                return damaged();
            }
            ServerResponse { status: 200, headers: head(media_type), body: body(reader, 0..size) }
        };
        content(&mut response.headers, digest);
        response
    }

    fn small_manifest(&self, digest: &Digest) -> Result<Rc<[u8]>, Error> {
        let mut cached = self.cached.borrow_mut();
        if let Some((_, bytes)) = cached.iter().find(|(held, _)| held == digest) {
            return Ok(Rc::clone(bytes));
        }
        let bytes: Rc<[u8]> = self.store.read_all(digest, CACHED_BYTES_MAX)?.into();
        if cached.len() >= CACHED_MAX {
            cached.remove(0);
        }
        cached.push((*digest, Rc::clone(&bytes)));
        Ok(bytes)
    }
}

/// Manifests kept in memory, and the longest that is.
const CACHED_MAX: usize = 16;
const CACHED_BYTES_MAX: u64 = 16 << 10;
