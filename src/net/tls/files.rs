//! Files of certificates and keys: those of the system, and those that a configuration names.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::invalid;
use crate::kind::Kind;
use crate::net::Error;

/// Read here and nowhere else: the variable is a custom of TLS stacks, not one of our options.
pub fn system_bundle_named() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)
}

/// Where the system's certificates may be.
pub fn system_bundles() -> impl Iterator<Item = PathBuf> {
    system_bundle_named().into_iter().chain(BUNDLES.iter().map(PathBuf::from))
}

/// Trusts the bundle that is `named`, else the system's, else the embedded one.
pub fn add_system_roots(roots: &mut RootCertStore, named: Option<&Path>) -> Result<(), Error> {
    if let Some(path) = named.filter(|path| path.exists()) {
        return add_roots(roots, path);
    }
    for path in BUNDLES.iter().map(Path::new).filter(|path| path.exists()) {
        match add_roots(roots, path) {
            Ok(()) => return Ok(()),
            // The next place, or the embedded roots, may still do.
            Err(error) => log::warn!("system bundle passed over: {error}"),
        }
    }
    add_embedded_roots(roots);
    Ok(())
}

#[cfg(feature = "embedded-roots")]
fn add_embedded_roots(roots: &mut RootCertStore) {
    log::info!("no system bundle of certificates: the embedded roots are trusted");
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
}

/// What is missing shows at the first connection, unless a `ca_file` does.
#[cfg(not(feature = "embedded-roots"))]
fn add_embedded_roots(_: &mut RootCertStore) {
    let what = "no system bundle of certificates: only ca_file and SSL_CERT_FILE are trusted";
    log::warn!("{what}; this moonlet is built without the feature `embedded-roots`");
}

/// Trusts what a PEM file holds: at least one certificate must be usable, for bundles carry some
/// that are not.
pub fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), Error> {
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    if added == 0 {
        return Err(invalid(path.display(), "no certificate in it can be a ca: expected x.509"));
    }
    Ok(())
}

/// The certificates of a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    let found = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(path.display(), pem_words(&error)))?;
    if found.is_empty() {
        return Err(invalid(
            path.display(),
            "holds no certificate: expected pem with BEGIN CERTIFICATE",
        ));
    }
    Ok(found)
}

/// The private key of a PEM file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            invalid(path.display(), "holds no private key: expected pem with BEGIN PRIVATE KEY")
        }
        error => invalid(path.display(), pem_words(&error)),
    })
}

fn pem_words(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "is cut short: expected an END line for every BEGIN line".to_owned()
        }
        error => format!("is not pem: {error:?}"),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let what = path.display();
    let bytes = std::fs::read(path).map_err(|error| Error::io(Kind::Invalid, &what, error))?;
    if bytes.len() > PEM_BYTES_MAX {
        return Err(invalid(what, format!("is over {} MiB: expected pem", PEM_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

/// Where distributions keep their bundle: Debian and Alpine, OpenSSL's own place, Fedora, openSUSE.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];
/// A PEM file larger than this is a mistake.
const PEM_BYTES_MAX: usize = 4 << 20;
