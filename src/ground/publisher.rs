//! Another registry that artifacts are put into: who we are to it, and who reads there.
//!
//! `push` puts them there. Here is what requests need of it as well: with Harbor, a satellite's
//! credentials are good there before they are sent.

mod robots;

use tokio::sync::Mutex;

use super::harbor::Harbor;
use super::http::Client;
use super::registry::{Error, Registry};
use super::settings::Target;
use super::signer::Signer;

/// A registry that artifacts are put into: by whom and when, `push` says.
pub struct Publisher {
    /// Scheme and host, as satellites are given it.
    pub url: String,
    pub(super) registry: Registry,
    credentials: Option<(String, String)>,
    client: Client,
    pub(super) harbor: Option<Harbor>,
    /// Where the registry asks this server who may do what.
    pub signer: Option<Signer>,
    /// Two secrets for one robot would cross.
    giving: [Mutex<()>; GIVING_MAX],
}

impl Publisher {
    pub fn new(target: Target) -> Result<Self, String> {
        let client = Client::new(target.ca_file.as_deref())?;
        let harbor = match (&target.credentials, target.is_harbor) {
            (Some((name, secret)), true) => {
                Some(Harbor::new(&target.url, (name, secret), client.clone()))
            }
            _ => None,
        };
        let Target { url, credentials, token, .. } = target;
        let signer = token.map(|(key, certificate)| Signer::open(&key, &certificate));
        let signer = signer.transpose()?;
        let registry = Registry::new(&url, credentials.clone(), client.clone());
        let giving = Default::default();
        Ok(Self { url, registry, credentials, client, harbor, signer, giving })
    }

    /// Whether these are the credentials that this server has for the registry.
    pub fn is_own(&self, username: &str, password: &str) -> bool {
        // Hashes take as long to compare whatever they are of.
        let hash =
            |name: &str, password: &str| blake3::hash(format!("{name}:{password}").as_bytes());
        let own = self.credentials.as_ref().map(|(name, password)| hash(name, password));
        own == Some(hash(username, password))
    }

    /// The same registry, for who only reads.
    pub fn reader(&self) -> Registry {
        Registry::new(&self.url, self.credentials.clone(), self.client.clone())
    }

    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        if self.harbor.is_some() { "harbor" } else { "registry" }
    }

    /// A secret that the target takes.
    pub fn secret(&self, random: String) -> String {
        // Harbor wants an upper-case letter.
        if self.harbor.is_some() { format!("Gc1{random}") } else { random }
    }
}

/// What the database says goes with the registry's own trouble: it passes.
pub(super) fn database(error: sqlx::Error) -> Error {
    Error::passing(format!("database: {error}"))
}

/// The project of Go's state artifacts.
pub(super) const PROJECT: &str = "satellite";
const GIVING_MAX: usize = 16;
