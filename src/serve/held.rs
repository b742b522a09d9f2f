//! In place of `through` where a build leaves pull-through out: what is held is all that is served.

use std::rc::Rc;

use super::{Api, Repository, problem};
use crate::net::http::{ServerRequest, ServerResponse};
use crate::oci::Digest;
use crate::pull::Puller;

impl Api {
    pub(super) fn through(&self, _: &Repository<'_>) -> Option<&Rc<Puller>> {
        None
    }

    pub(super) async fn is_confirmed(
        &self,
        _: &Repository<'_>,
        _: &Digest,
        _: bool,
    ) -> Result<bool, ServerResponse> {
        Ok(false)
    }

    pub(super) async fn find_manifest(
        &self,
        request: &ServerRequest,
        known: &[&Repository<'_>],
        reference: &str,
    ) -> ServerResponse {
        match known.first() {
            Some(repository) => self.manifest(request, repository, reference).await,
            None => problem(404, "MANIFEST_UNKNOWN", &format!("{reference} is not held here")),
        }
    }

    pub(super) async fn find_blob(
        &self,
        request: &ServerRequest,
        _: &[&Repository<'_>],
        digest: &Digest,
    ) -> ServerResponse {
        self.blob(request, digest).await
    }
}
