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
//! | `auth` `credentials` | what is known of what a registry asks for, and who we are |
//! | `manifest` `referrers` | manifests as they come, and what refers to them |
//! | `part` | a part of a blob |
//! | `ping` | whether it answers at all |

mod auth;
mod credentials;
mod error;
mod exchange;
mod manifest;
mod part;
mod ping;
mod referrers;

use std::rc::Rc;

use url::Url;

use crate::clock::SharedClock;
use crate::fleet::state::WHOLE_STATE;
use crate::net::http::{Body, Client, ClientLimits, Headers, Method};
use crate::net::{Network, tls};
use crate::oci::{Digest, media_type};
use auth::Auth;
pub use credentials::{Credentials, Password};
pub use error::Error;
pub use manifest::OpenedManifest;
pub use referrers::Referrers;

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
}

/// What HEAD says of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest, where the registry says it.
    pub digest: Option<Digest>,
    /// What Ground Control says of the state that begins here: [`WHOLE_STATE`].
    pub whole: Option<String>,
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
    /// Bytes of the whole blob.
    pub size: u64,
}

impl Registry {
    /// A client without connections. Files that `options` name are read when they are used.
    pub fn new(options: Options, network: Network, clock: SharedClock) -> Self {
        let Options { registry: name, url: base, username, password, tls } = options;
        let trust = tls::Trust::new(tls, Rc::clone(&clock));
        let client = Client::new(trust, network, ClientLimits::default());
        let credentials = username.zip(password);
        let auth = Auth::new(credentials.map(|(name, secret)| Credentials::new(name, secret)));
        Self(Rc::new(Inner { name, base, client, auth, clock }))
    }

    /// Its name in references.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Asks what a tag or digest is, without fetching it.
    ///
    /// # Errors
    /// [`crate::kind::Kind::Missing`] when it is not there.
    pub async fn head_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<ManifestHead, Error> {
        let path = format!("{repository}/manifests/{reference}");
        let mut response = self.request(Method::Head, &path, repository, accept()).await?;
        if response.status == 405 {
            // Allowed by no specification, and done by some proxies.
            return Ok(ManifestHead { digest: None, whole: None });
        }
        response = self.expect(response, &path, repository).await?;
        let whole = response.headers.get(WHOLE_STATE).map(str::to_owned);
        Ok(ManifestHead { digest: said_digest(&response.headers), whole })
    }
}

fn accept() -> Headers {
    let mut headers = Headers::new();
    headers.append("accept", media_type::ACCEPT_MANIFESTS.join(", "));
    headers
}

/// The digest that a registry says a manifest has.
fn said_digest(headers: &Headers) -> Option<Digest> {
    let said: Option<Digest> = headers.get(CONTENT_DIGEST)?.trim().parse().ok();
    said.filter(|digest| digest.algorithm().is_verified())
}

const CONTENT_DIGEST: &str = "docker-content-digest";
