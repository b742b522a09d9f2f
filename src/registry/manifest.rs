//! Manifests, opened to be read as they come: one can have four megabytes, and a gateway little
//! memory.

use super::{Error, Registry, accept, said_digest};
use crate::net::http::{Body, Method};
use crate::oci::Digest;

/// A manifest about to be read; nothing of it was looked at.
pub struct OpenedManifest {
    /// Its bytes.
    pub body: Body,
    /// What the registry says that it is, without parameters.
    pub content_type: Option<String>,
    /// The digest that the registry says it has.
    pub digest: Option<Digest>,
}

impl Registry {
    /// Opens a manifest by tag or digest.
    ///
    /// # Errors
    /// [`crate::kind::Kind::Missing`] when it is not there.
    pub async fn open_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<OpenedManifest, Error> {
        let path = format!("{repository}/manifests/{reference}");
        let response = self.request(Method::Get, &path, repository, accept()).await?;
        let response = self.expect(response, &path, repository).await?;
        let content_type = response.headers.get("content-type").unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        let content_type = Some(content_type.to_owned()).filter(|text| !text.is_empty());
        let digest = said_digest(&response.headers);
        Ok(OpenedManifest { body: response.body, content_type, digest })
    }
}
