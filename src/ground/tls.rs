//! The server's certificate, taken up when its files change or at SIGHUP, and whom a client's
//! certificate names.
//!
//! Certificate, key and authorities are read together. Files that are replaced one after the other
//! are read once they are the same at two looks; what cannot be used is said, and what was good
//! before stays in use. Connections keep what they began with.
//!
//! A satellite may show a certificate in the place of a token. It names the satellite by a SPIFFE
//! id as Go's does, `spiffe://DOMAIN/satellite/region/REGION/NAME`, or by its common name where it
//! has no SPIFFE id. A client without one is served as well: people and satellites with tokens.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::signal::unix::Signal;
use tokio_rustls::TlsAcceptor;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::settings::Tls;
use crate::config::{Stamp, stamp};
use crate::fleet::valid_name;

/// What is shown to clients, and whom they may be.
pub struct Identity {
    files: Tls,
    config: RwLock<Arc<ServerConfig>>,
}

impl Identity {
    /// Reads the files; at the start what is wrong with them is an error.
    pub fn open(files: Tls) -> Result<Self, String> {
        let config = read(&files)?;
        Ok(Self { files, config: RwLock::new(config) })
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }

    /// Reads the files whenever they have changed, and at the signal, without end.
    pub async fn watch(&self, mut hangup: Signal) {
        let mut used = self.stamps();
        let mut last = used;
        loop {
            let is_asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK_PAUSE) => false,
            };
            let now = self.stamps();
            if is_asked || (now == last && now != used) {
                self.renew();
                used = now;
            }
            last = now;
        }
    }

    fn renew(&self) {
        let cert = self.files.cert.display();
        match read(&self.files) {
            Ok(config) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!("tls_cert {cert} is shown from now on");
            }
            Err(error) => tracing::error!("{error}; the one before is still shown"),
        }
    }

    fn stamps(&self) -> [Option<Stamp>; 3] {
        let Tls { cert, key, client_ca } = &self.files;
        [stamp(cert), stamp(key), client_ca.as_deref().and_then(stamp)]
    }
}

fn read(files: &Tls) -> Result<Arc<ServerConfig>, String> {
    let cert = files.cert.display();
    let chain = certificates(&files.cert).map_err(|error| format!("tls_cert {cert}: {error}"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| format!("tls_key {}: {error}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let failed =
                |error: &dyn std::fmt::Display| format!("client_ca {}: {error}", path.display());
            let mut roots = RootCertStore::empty();
            for authority in certificates(path).map_err(|error| failed(&error))? {
                roots.add(authority).map_err(|error| failed(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| failed(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls_cert {cert}: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("expected a certificate in PEM".to_owned()) } else { Ok(found) }
}

/// The satellite that a client's certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    pub name: String,
    /// Of a SPIFFE id.
    pub region: Option<String>,
}

impl Certified {
    /// Whom a certificate names that an authority of the client's vouched for; none where it is no
    /// satellite.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.into_iter().flat_map(|names| &names.value.general_names);
        let mut ids = names.filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
            _ => None,
        });
        // A certificate with a SPIFFE id is what that says, and nothing else.
        let named = match ids.next() {
            Some(id) => Self::of_spiffe(id)?,
            None => {
                let mut names = certificate.subject().iter_common_name();
                let name = names.next()?.as_str().ok()?.to_owned();
                Self { name, region: None }
            }
        };
        valid_name(&named.name).then_some(named)
    }

    /// `DOMAIN/satellite/region/REGION/NAME`, or without a region.
    fn of_spiffe(id: &str) -> Option<Self> {
        let (_domain, path) = id.split_once('/')?;
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["satellite", "region", region, name] => {
                Some(Self { name: name.to_owned(), region: Some(region.to_owned()) })
            }
            ["satellite", name] => Some(Self { name: name.to_owned(), region: None }),
            _ => None,
        }
    }
}

/// Three looks at metadata that the kernel has in memory.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_names_a_satellite() {
        let of = |id: &str| Certified::of_spiffe(id).map(|one| (one.name, one.region));
        let named = ("edge1".to_owned(), Some("north".to_owned()));
        assert_eq!(of("td/satellite/region/north/edge1"), Some(named));
        assert_eq!(of("td/satellite/edge1"), Some(("edge1".to_owned(), None)));
        for other in ["td", "td/", "td/server/edge1", "td/satellite", "td/satellite/region/x/y/z"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
