//! TLS configurations: rustls with ring, and whom to trust.
//!
//! Trust is the system's bundle and the extra CA file; the embedded Mozilla roots serve only
//! images that ship no bundle, since what an administrator took out of the bundle must stay out.
//! No process-wide provider is installed: every configuration names its own, so that nothing
//! depends on who came first.
//!
//! A device without a real-time clock starts in 1970, when every certificate is "not valid yet".
//! Certificates are therefore checked against a [`Floor`]: the handed-in clock when the
//! configuration was made, plus the time since, or the kernel's clock if that is later.
//!
//! A client's files are read when a connection is made and again when they have changed, so that a
//! rotated certificate works without a restart and a file that is missing is an error of the
//! connection that needs it.

mod expiry;
mod files;
pub(super) mod names;
#[cfg(not(any(feature = "client-certs", feature = "serve-tls")))]
mod no_keys;

use std::cell::RefCell;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, ServerSessionMemoryCache};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

#[cfg(any(feature = "client-certs", feature = "serve-tls"))]
use files::private_key;
use files::{add_roots, add_system_roots, certificates, system_bundle_named, system_bundles};

use super::Error;
use crate::clock::date::Civil;
use crate::clock::{Clock, SharedClock, Stopwatch, unix_seconds_from};
use crate::config::{Stamp, lacking, stamp};
use crate::kind::Kind;

/// Whom a client trusts and how it names itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// PEM certificates that are trusted beside the system's: those of authorities, or a server's
    /// own.
    pub ca_file: Option<PathBuf>,
    /// PEM certificate chain and private key shown to servers that ask.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

impl ClientOptions {
    /// Of the files that a configuration names: a certificate counts with its key only.
    pub fn new(
        ca_file: &Option<PathBuf>,
        client_cert: &Option<PathBuf>,
        client_key: &Option<PathBuf>,
    ) -> Self {
        let client_cert = client_cert.clone().zip(client_key.clone());
        Self { ca_file: ca_file.clone(), client_cert }
    }

    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pair = self.client_cert.iter().flat_map(|(chain, key)| [chain, key]);
        self.ca_file.iter().chain(pair).map(PathBuf::as_path)
    }
}

/// The client side as its files are now. Clones share it.
#[derive(Clone)]
pub struct Trust(Rc<Files>);

struct Files {
    options: ClientOptions,
    clock: SharedClock,
    made: RefCell<Option<Made>>,
}

struct Made {
    config: Arc<ClientConfig>,
    /// Of the files that it was made from, as they were then.
    stamps: Vec<Option<Stamp>>,
}

impl Trust {
    /// Reads nothing yet.
    pub fn new(options: ClientOptions, clock: SharedClock) -> Self {
        Self(Rc::new(Files { options, clock, made: RefCell::default() }))
    }

    /// What certificates are checked by.
    pub(super) fn clock(&self) -> &SharedClock {
        &self.0.clock
    }

    /// The configuration for a new connection. `Kind::Invalid` with the file's name when a file is
    /// not what it should be.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let Files { options, clock, made } = &*self.0;
        let bundles = system_bundles().map(|path| stamp(&path));
        let stamps: Vec<Option<Stamp>> = options.files().map(stamp).chain(bundles).collect();
        if let Some(made) = made.borrow().as_ref().filter(|made| made.stamps == stamps) {
            return Ok(Arc::clone(&made.config));
        }
        let config = client_config(options, Rc::clone(clock))?;
        *made.borrow_mut() = Some(Made { config: Arc::clone(&config), stamps });
        Ok(config)
    }
}

/// Builds the client side. `Kind::Invalid` with the file's name when a file is not what it
/// should be.
pub fn client_config(
    options: &ClientOptions,
    clock: SharedClock,
) -> Result<Arc<ClientConfig>, Error> {
    let verifier = verifier(options)?;
    let builder =
        ClientConfig::builder_with_details(provider(), Arc::new(Floor::new(clock.as_ref())))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid("tls versions", error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &options.client_cert {
        None => builder.with_no_client_auth(),
        #[cfg(not(feature = "client-certs"))]
        Some(_) => return Err(Error::new(Kind::Invalid, lacking("client_cert", "client-certs"))),
        #[cfg(feature = "client-certs")]
        Some((chain, key)) => {
            let (chain_der, key_der) = (certificates(chain)?, private_key(key)?);
            builder
                .with_client_auth_cert(chain_der, key_der)
                .map_err(|error| invalid(pair(chain, key), error))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(Arc::new(config))
}

/// What checks the certificates of servers, by the files as they are now.
fn verifier(options: &ClientOptions) -> Result<Verifier, Error> {
    let mut roots = RootCertStore::empty();
    add_system_roots(&mut roots, system_bundle_named().as_deref())?;
    let mut own = Vec::new();
    if let Some(path) = &options.ca_file {
        add_roots(&mut roots, path)?;
        own = certificates(path)?;
    }
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| invalid("trusted certificates", error))?;
    Ok(Verifier { usual, own })
}

/// The usual checks, and one exception: `openssl req -x509`, as the quick starts of registries have
/// it, makes a certificate that is its own authority, and that no chain may end with. One that
/// the administrator named byte for byte needs no chain; its dates and its name are checked.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usual = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match usual {
            // Both are found after the dates were checked; a test holds that.
            Err(rustls::Error::InvalidCertificate(why))
                if lacks_only_a_chain(&why) && self.own.iter().any(|own| own == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

fn lacks_only_a_chain(why: &CertificateError) -> bool {
    matches!(why, CertificateError::UnknownIssuer) || is_own_authority(why)
}

fn is_own_authority(why: &CertificateError) -> bool {
    match why {
        CertificateError::Other(other) => {
            other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
        }
        _ => false,
    }
}

/// In place of what is below where a build leaves the server's side out.
#[cfg(not(feature = "serve-tls"))]
pub fn server_config(_: &Path, _: &Path, _: Option<&Path>) -> Result<Arc<ServerConfig>, Error> {
    Err(Error::new(Kind::Invalid, lacking("[serve] tls_cert", "serve-tls")))
}

/// Builds the server side; with `client_ca` only clients with a certificate signed by it are
/// served. `Kind::Invalid` with the file's name when a file is not what it should be.
#[cfg(feature = "serve-tls")]
pub fn server_config(
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    // Only certificates of clients are checked here: the day of the build is floor enough.
    let floor = Arc::new(Floor::new(&crate::clock::SystemClock::new()));
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), floor)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("tls versions", error))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            add_roots(&mut roots, path)?;
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            )
            .build()
            .map_err(|error| invalid(path.display(), error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| invalid(pair(certificate, key), error))?;
    limit(&mut config);
    Ok(Arc::new(config))
}

/// Says in plain words why `what`, tried with `peer`, failed. Under TLS 1.3 a refused client
/// certificate is reported only after the handshake, hence any operation may end here.
pub(super) fn failure(what: &str, peer: &str, error: io::Error) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(held_back) => return held_back,
        Err(error) => error,
    };
    let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return Error::io(Kind::Retry, format_args!("{what} {peer}"), error);
    };
    let (kind, message) = match cause {
        rustls::Error::InvalidCertificate(problem) => {
            (Kind::Invalid, format!("certificate of {peer} {}", certificate_words(problem)))
        }
        rustls::Error::InvalidMessage(_) => (
            Kind::Invalid,
            format!("{peer} does not speak tls: expected an https server on this port"),
        ),
        rustls::Error::AlertReceived(alert) => {
            let alert = format!("{alert:?}");
            let message = if alert.contains("Certificate") || alert == "UnknownCA" {
                format!(
                    "{peer} refused our client certificate ({alert}): expected one signed by \
                     a ca that it trusts"
                )
            } else if alert == "ProtocolVersion" && !cfg!(feature = "tls12") {
                lacking(&format!("{peer} does not speak tls 1.3, and older versions"), "tls12")
            } else {
                format!("{peer} refused the tls handshake ({alert})")
            };
            (Kind::Invalid, message)
        }
        other => (Kind::Retry, format!("{what} {peer}: {other}")),
    };
    Error::new(kind, message).caused_by(error)
}

fn certificate_words(problem: &CertificateError) -> String {
    let day = |time: &UnixTime| Civil::new(time.as_secs()).day();
    match problem {
        // A bad signature is what an unknown ca with a known one's name looks like.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is signed by an unknown ca: expected one of the system's bundle or of ca_file"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let (time, not_after) = (day(time), day(not_after));
            format!("expired on {not_after}, and today is {time}: expected a valid one")
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let (time, not_before) = (day(time), day(not_before));
            format!("is valid from {not_before} on, but the clock says {time}: check the clock")
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented
                .iter()
                .take(NAMES_SHOWN_MAX)
                .map(|name| {
                    let name = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
                    name.trim_matches(['"', '(', ')'])
                })
                .collect();
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            format!("is for {names}: expected {}", expected.to_str())
        }
        other if is_own_authority(other) => {
            "is signed by itself: expected one of a known ca, or this one in ca_file".to_owned()
        }
        other => format!("is not acceptable: {other}"),
    }
}

/// What a server keeps in memory of its clients.
pub(super) fn limit(config: &mut ServerConfig) {
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    config.max_fragment_size = Some(RECORD_BYTES + RECORD_HEADER_BYTES);
}

#[cfg(any(feature = "client-certs", feature = "serve-tls"))]
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What signs with a key of this device is not even linked.
#[cfg(not(any(feature = "client-certs", feature = "serve-tls")))]
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { key_provider: &no_keys::NoKeys, ..ring::default_provider() })
}

fn invalid(what: impl Display, why: impl Display) -> Error {
    Error::new(Kind::Invalid, format!("{what}: {why}"))
}

fn pair(chain: &Path, key: &Path) -> String {
    format!("certificate {} with key {}", chain.display(), key.display())
}

/// Wall time for certificates; see the module's head. Verifiers may be on any thread, so it runs on
/// by a stopwatch from when the clock was asked.
#[derive(Debug)]
struct Floor {
    unix_seconds: u64,
    since: Stopwatch,
}

impl Floor {
    fn new(clock: &dyn Clock) -> Self {
        Self { unix_seconds: clock.unix_seconds(), since: Stopwatch::start() }
    }
}

impl TimeProvider for Floor {
    fn current_time(&self) -> Option<UnixTime> {
        let floor = Duration::from_secs(self.unix_seconds).saturating_add(self.since.elapsed());
        let now = Duration::from_secs(unix_seconds_from(floor.as_secs()));
        Some(UnixTime::since_unix_epoch(now))
    }
}

/// Sessions kept for resumption, on either side.
const SESSIONS_MAX: usize = 32;
/// Content of a record, at most: with head and tag it fills 16 KiB of memory, and no byte of the next
/// size that an allocator has.
pub(super) const RECORD_BYTES: usize = (16 << 10) - 32;
const RECORD_HEADER_BYTES: usize = 5;
/// Names of a wrong certificate that a message repeats.
const NAMES_SHOWN_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn options(name: &str, contents: &[u8]) -> ClientOptions {
        let name = format!("moonlet-tls-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, contents).unwrap();
        ClientOptions { ca_file: Some(path), ..Default::default() }
    }

    #[test]
    fn bad_files_are_named() {
        let clock: SharedClock = Rc::new(SystemClock::new());
        let truncated = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        let hollow = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cases: [(&str, &[u8], &str); 4] = [
            ("empty", b"", "holds no certificate"),
            ("text", b"hello\n", "holds no certificate"),
            ("cut", truncated, "is cut short"),
            ("hollow", hollow, "no certificate in it can be a ca"),
        ];
        for (name, contents, expected) in cases {
            let options = options(name, contents);
            let error = client_config(&options, clock.clone()).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(expected), "{text}");
            std::fs::remove_file(options.ca_file.unwrap()).unwrap();
        }
        let missing =
            ClientOptions { ca_file: Some("/nowhere/ca.pem".into()), ..Default::default() };
        let error = client_config(&missing, clock.clone()).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/ca.pem: no such file or directory");
    }

    #[test]
    fn the_floor_wins_over_an_early_clock() {
        let clock: SharedClock = Rc::new(SystemClock::new());
        let floor = clock.unix_seconds() + 30_000_000;
        clock.raise_floor(floor);
        assert!(Floor::new(clock.as_ref()).current_time().unwrap().as_secs() >= floor);
        assert!(client_config(&ClientOptions::default(), clock).is_ok());
    }
}
