//! One upstream registry, by the pull part of the OCI distribution-spec.
//!
//! Tokens are fetched when the registry asks for them and kept for as long as it says; redirects
//! are followed here, because `Authorization` must not go to another host. Whatever the registry
//! says is wrong is quoted in our errors, cut and cleaned; credentials never are. Retries and
//! pauses are the caller's: an error only says which reaction it calls for.
//!
//! | file | holds |
//! |---|---|
//! | `exchange` | one request: redirects, authentication, refusals |
//! | `challenge` `auth` `credentials` | what a registry asks for, what is known, who we are |
//! | `part` | a part of a blob |

mod auth;
mod challenge;
mod credentials;
mod error;
mod exchange;
mod part;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use url::Url;

use crate::clock::SharedClock;
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::net::http::{Body, Client, ClientLimits, Headers, Method};
use crate::net::{Network, tls};
use crate::oci::{
    Descriptor, Digest, Hasher, MANIFEST_BYTES_MAX, Manifest, ManifestKind, media_type,
};
use auth::Auth;
use credentials::Credentials;
pub use credentials::Password;
pub use error::Error;

/// Where a registry is and who we are to it.
pub struct Options {
    /// Its name in references, such as `docker.io`.
    pub registry: String,
    /// Where it answers; a path becomes a prefix of `/v2/`.
    pub url: Url,
    /// For Basic authentication and for fetching tokens.
    pub username: Option<String>,
    /// With `username`.
    pub password: Option<Password>,
    /// How its TLS is to be trusted.
    pub tls: tls::ClientOptions,
}

/// A client of one registry. Clones share connections and tokens.
#[derive(Clone)]
pub struct Registry(Rc<Inner>);

struct Inner {
    name: String,
    base: Url,
    client: Client,
    auth: Auth,
    clock: SharedClock,
    /// Until when HEAD is known to tell nothing.
    heads_are_mute: Cell<Option<Duration>>,
}

/// What HEAD tells of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest, where the registry says it.
    pub digest: Option<Digest>,
}

/// A manifest, byte for byte.
#[derive(Clone, Debug)]
pub struct RemoteManifest {
    /// Its bytes, at most [`MANIFEST_BYTES_MAX`].
    pub bytes: Vec<u8>,
    /// As the registry serves it, without parameters.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
}

/// The body of a blob, about to be read.
pub struct Opened {
    /// The bytes.
    pub body: Body,
    /// The blob's byte that comes first: at or before the one that was asked for.
    pub start: u64,
    /// The blob's byte at which the body ends, exclusive: it may be before or after the one that
    /// was asked for.
    pub end: u64,
}

impl Registry {
    /// A client without connections. Files that `options` name are read when they are used.
    pub fn new(
        options: Options,
        network: Network,
        clock: SharedClock,
        metrics: Rc<Metrics>,
    ) -> Self {
        let Options { registry: name, url: base, username, password, tls } = options;
        let trust = tls::Trust::new(tls, Rc::clone(&clock));
        let client = Client::new(trust, network, ClientLimits::default(), metrics);
        let credentials = username.zip(password);
        let auth = Auth::new(credentials.map(|(name, secret)| Credentials::new(name, secret)));
        let heads_are_mute = Cell::new(None);
        Self(Rc::new(Inner { name, base, client, auth, clock, heads_are_mute }))
    }

    /// Its name in references.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Asks what a tag or digest is, without fetching it.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not there.
    pub async fn head_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<ManifestHead, Error> {
        let path = format!("{repository}/manifests/{reference}");
        let mut response = self.request(Method::Head, &path, repository, accept()).await?;
        if response.status == 405 {
            // Allowed by no specification, and done by some proxies.
            return Ok(ManifestHead { digest: None });
        }
        response = self.expect(response, &path, &[200]).await?;
        Ok(ManifestHead { digest: said_digest(&response.headers) })
    }

    /// The digest that a tag means now. HEAD is asked first: it has no body, and is counted against
    /// no quota. Where it fails or does not say, GET may tell more: its bytes are hashed as they
    /// come if there is a digest to compare with, `held`. `None` means that only fetching the
    /// manifest will tell.
    ///
    /// # Errors
    /// Those of the link, of [`Kind::Retry`] when the registry asks to be left alone, and those of
    /// GET.
    pub async fn resolve(
        &self,
        repository: &str,
        tag: &str,
        held: Option<&Digest>,
    ) -> Result<Option<Digest>, Error> {
        let path = format!("{repository}/manifests/{tag}");
        let mute = &self.0.heads_are_mute;
        let mut may_be_mute = false;
        if mute.get().is_none_or(|end| end <= self.0.clock.monotonic()) {
            match self.request(Method::Head, &path, repository, accept()).await {
                Ok(response) if response.status == 200 => {
                    let digest = said_digest(&response.headers);
                    if digest.is_some() {
                        return Ok(digest);
                    }
                    may_be_mute = true;
                }
                Ok(response) if response.status == 429 => {
                    return Err(self.error_of(response, &path).await);
                }
                Ok(response) => may_be_mute = response.status < 500 || response.status == 501,
                Err(error) if matches!(error.kind(), Kind::Denied | Kind::Invalid) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(held) = held else { return Ok(None) };
        let response = self.request(Method::Get, &path, repository, accept()).await?;
        let mut body = self.expect(response, &path, &[200]).await?.body;
        if may_be_mute {
            mute.set(Some(self.0.clock.monotonic() + MUTE_FOR));
        }
        let mut hash = Hasher::new(held.algorithm());
        let mut block = vec![0; BLOCK_BYTES];
        let mut rest = MANIFEST_BYTES_MAX;
        loop {
            let got = body.read(&mut block).await.map_err(|error| self.link(&path, error))?;
            if got == 0 {
                return Ok(Some(hash.finish()));
            }
            hash.update(block.get(..got).unwrap_or_default());
            let left = rest.checked_sub(got as u64);
            rest = left.ok_or_else(|| {
                let what = format!("a body of more than {MANIFEST_BYTES_MAX} bytes");
                self.problem(Kind::Invalid, &path, what)
            })?;
        }
    }

    /// Fetches a manifest by tag or digest.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when the bytes are not those of the digest; [`Kind::Invalid`] for what is
    /// no manifest or longer than [`MANIFEST_BYTES_MAX`].
    pub async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<RemoteManifest, Error> {
        let path = format!("{repository}/manifests/{reference}");
        let response = self.request(Method::Get, &path, repository, accept()).await?;
        let response = self.expect(response, &path, &[200]).await?;
        let content_type = response.headers.get("content-type").unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        let said = said_digest(&response.headers);
        let bytes = response.body.bytes(MANIFEST_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| self.link(&path, error))?;
        if !content_type.is_empty() && !media_type::is_manifest(&content_type) {
            let guessed = Manifest::parse(&bytes, None).is_err();
            if guessed {
                let what = format!("a body of type {content_type:?}, expected an image manifest");
                return Err(self.problem(Kind::Invalid, &path, what));
            }
        }
        let manifest = Manifest::parse(&bytes, Some(&content_type))
            .map_err(|error| self.problem(Kind::Invalid, &path, error.to_string()))?;
        let wanted: Option<Digest> = reference.parse().ok();
        let digest = match wanted.or(said) {
            Some(expected) => {
                let mut hash = Hasher::new(expected.algorithm());
                hash.update(&bytes);
                let found = hash.finish();
                if found != expected {
                    let what = format!("bytes of digest {found}, expected {expected}");
                    return Err(self.problem(Kind::Corrupt, &path, what));
                }
                found
            }
            None => Digest::sha256(&bytes),
        };
        Ok(RemoteManifest { bytes, media_type: manifest.media_type, digest })
    }

    /// What refers to a manifest: by the referrers API, else by the tag that stands in for it.
    pub async fn referrers(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let path = format!("{repository}/referrers/{digest}");
        let mut headers = Headers::new();
        headers.append("accept", media_type::OCI_INDEX);
        let response = self.request(Method::Get, &path, repository, headers).await?;
        let is_index = |text: &str| text.starts_with(media_type::OCI_INDEX);
        if response.status == 200 && response.headers.get("content-type").is_some_and(is_index) {
            let bytes = response.body.bytes(MANIFEST_BYTES_MAX).await;
            let bytes = bytes.map_err(|error| self.link(&path, error))?;
            return self.listed(&path, &bytes);
        }
        if matches!(response.status, 429 | 500..) {
            self.expect(response, &path, &[200]).await?;
            return Ok(Vec::new());
        }
        match self.manifest(repository, &digest.to_string().replace(':', "-")).await {
            Ok(index) => self.listed(&path, &index.bytes),
            Err(error) if error.kind() == Kind::Missing => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn listed(&self, path: &str, bytes: &[u8]) -> Result<Vec<Descriptor>, Error> {
        let index = Manifest::parse(bytes, Some(media_type::OCI_INDEX))
            .map_err(|error| self.problem(Kind::Invalid, path, error.to_string()))?;
        match index.kind {
            ManifestKind::Index { manifests } => Ok(manifests),
            ManifestKind::Image { .. } => Ok(Vec::new()),
        }
    }
}

fn accept() -> Headers {
    let mut headers = Headers::new();
    headers.append("accept", media_type::ACCEPT_MANIFESTS.join(", "));
    headers
}

/// The digest that a registry says a manifest has.
fn said_digest(headers: &Headers) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.trim().parse().ok()
}

/// For how long a registry whose HEAD tells nothing is asked by GET at once.
const MUTE_FOR: Duration = Duration::from_hours(1);
/// One read of a manifest that is only hashed.
const BLOCK_BYTES: usize = 8 << 10;
const CONTENT_DIGEST: &str = "docker-content-digest";
