//! A certificate authority of our own, for the hosts that this device answers for in their place.
//!
//! Its certificate, and those that it makes, are valid from 1970 on and without end (RFC 5280,
//! 4.1.2.5): the clock of a device may never have been set when the authority is made, nor that of
//! the runtime that verifies a certificate beside it. An authority ends when it is taken out of
//! what its clients trust. The keys that it signs are in memory only, and others after each start.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Error;
use super::der::{
    BOOLEAN, GENERALIZED_TIME, INTEGER, OBJECT, OCTET_STRING, SET, UTC_TIME, UTF8_STRING, bits,
    element, sequence,
};
use super::tls::{limit, provider};
use crate::kind::Kind;

/// The authority.
pub struct Authority {
    name: String,
    key: Key,
    certificate: Vec<u8>,
    /// That of all hosts.
    hosts: Key,
}

/// A pair of keys for ECDSA on P-256.
struct Key {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
}

impl Authority {
    /// Makes one that is called after `owner`.
    ///
    /// # Errors
    /// [`Kind::Retry`] where the kernel has no randomness.
    pub fn generate(owner: &str) -> Result<Self, Error> {
        let key = Key::generate()?;
        // Two devices of one name must not be taken for each other by who trusts both.
        let [first, second, third, fourth, ..] = key.id();
        let owner: String = owner.chars().take(OWNER_CHARS_MAX).collect();
        let name = format!("Moonlet proxy {owner} {first:02x}{second:02x}{third:02x}{fourth:02x}");
        let extensions = [
            // An authority, with none below it.
            extension(&[85, 29, 19], true, &sequence(&[&TRUE, &[INTEGER, 1, 0]])),
            // keyCertSign
            extension(&[85, 29, 15], true, &[3, 2, 2, 0x04]),
            // The name of the key.
            extension(&[85, 29, 14], false, &element(OCTET_STRING, &[&key.id()])),
        ];
        let certificate = certify(&key, &name, &name, &key, &extensions)?;
        Self::new(name, key, certificate)
    }

    fn new(name: String, key: Key, certificate: Vec<u8>) -> Result<Self, Error> {
        Ok(Self { name, key, certificate, hosts: Key::generate()? })
    }

    /// A result of [`Self::to_bytes`].
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = || Error::new(Kind::Corrupt, "expected the key of a certificate authority");
        let (name, rest) = part(bytes).ok_or_else(wrong)?;
        let (pkcs8, rest) = part(rest).ok_or_else(wrong)?;
        let (certificate, _) = part(rest).filter(|(_, rest)| rest.is_empty()).ok_or_else(wrong)?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| wrong())?;
        let key = Key::new(pkcs8.to_vec()).ok_or_else(wrong)?;
        Self::new(name, key, certificate.to_vec())
    }

    /// The whole, private key included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let parts = [self.name.as_bytes(), &self.key.pkcs8, &self.certificate];
        let with_length = |part: &[u8]| {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            [&length.to_be_bytes(), part].concat()
        };
        parts.map(with_length).concat()
    }

    /// What its certificate is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its certificate, for those who are to trust it: PEM.
    pub fn pem(&self) -> String {
        let text = STANDARD.encode(&self.certificate);
        let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(PEM_COLUMNS));
            pem.push_str(line);
            pem.push('\n');
            rest = more;
        }
        pem + "-----END CERTIFICATE-----\n"
    }

    /// What to show as `host`: a name or an address, of IPv6 in brackets.
    ///
    /// # Errors
    /// [`Kind::Retry`] where the kernel has no randomness.
    pub fn identity(&self, host: &str) -> Result<Arc<ServerConfig>, Error> {
        let chain = [self.leaf(host)?, self.certificate.clone()];
        let chain = chain.map(CertificateDer::from).to_vec();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.hosts.pkcs8.clone()));
        let invalid = |error| Error::new(Kind::Invalid, format!("certificate for {host}: {error}"));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(invalid)?;
        limit(&mut config);
        Ok(Arc::new(config))
    }

    fn leaf(&self, host: &str) -> Result<Vec<u8>, Error> {
        let bare = host.trim_matches(['[', ']']);
        let name = match bare.parse() {
            Ok(IpAddr::V4(address)) => element(ADDRESS, &[&address.octets()]),
            Ok(IpAddr::V6(address)) => element(ADDRESS, &[&address.octets()]),
            Err(_) => element(DNS_NAME, &[bare.as_bytes()]),
        };
        let extensions = [
            // digitalSignature
            extension(&[85, 29, 15], true, &[3, 2, 7, 0x80]),
            // serverAuth
            extension(&[85, 29, 37], false, &sequence(&[&object(&[43, 6, 1, 5, 5, 7, 3, 1])])),
            extension(&[85, 29, 35], false, &sequence(&[&element(KEY_ID, &[&self.key.id()])])),
            extension(&[85, 29, 17], false, &sequence(&[&name])),
        ];
        let subject = "Moonlet proxy";
        certify(&self.key, &self.name, subject, &self.hosts, &extensions)
    }
}

impl Key {
    fn generate() -> Result<Self, Error> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(ALGORITHM, &SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| unrandom())?;
        Self::new(pkcs8.as_ref().to_vec()).ok_or_else(unrandom)
    }

    fn new(pkcs8: Vec<u8>) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(ALGORITHM, &pkcs8, &SystemRandom::new()).ok()?;
        Some(Self { pkcs8, pair })
    }

    /// RFC 7093, 2: the first 160 bits of the public key's hash.
    fn id(&self) -> [u8; 20] {
        let hash = digest(&SHA256, self.pair.public_key().as_ref());
        hash.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

/// A certificate of version 3 for the public half of `key`.
fn certify(
    issuer: &Key,
    issuer_name: &str,
    subject: &str,
    key: &Key,
    extensions: &[Vec<u8>],
) -> Result<Vec<u8>, Error> {
    let random = SystemRandom::new();
    let mut serial = [0; SERIAL_BYTES];
    random.fill(&mut serial).map_err(|_| unrandom())?;
    // Above zero, and written with no byte too many.
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    // ecdsa-with-SHA256
    let algorithm = sequence(&[&object(&[42, 134, 72, 206, 61, 4, 3, 2])]);
    let validity = sequence(&[
        &element(UTC_TIME, &[b"700101000000Z"]),
        &element(GENERALIZED_TIME, &[b"99991231235959Z"]),
    ]);
    // id-ecPublicKey on prime256v1
    let kind = sequence(&[
        &object(&[42, 134, 72, 206, 61, 2, 1]),
        &object(&[42, 134, 72, 206, 61, 3, 1, 7]),
    ]);
    let extensions: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
    let body = sequence(&[
        &element(VERSION, &[&[INTEGER, 1, 2]]),
        &element(INTEGER, &[&serial]),
        &algorithm,
        &common_name(issuer_name),
        &validity,
        &common_name(subject),
        &sequence(&[&kind, &bits(key.pair.public_key().as_ref())]),
        &element(EXTENSIONS, &[&sequence(&extensions)]),
    ]);
    let signature = issuer.pair.sign(&random, &body).map_err(|_| unrandom())?;
    Ok(sequence(&[&body, &algorithm, &bits(signature.as_ref())]))
}

fn common_name(name: &str) -> Vec<u8> {
    let name = element(UTF8_STRING, &[name.as_bytes()]);
    sequence(&[&element(SET, &[&sequence(&[&object(&[85, 4, 3]), &name])])])
}

fn extension(id: &[u8], is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if is_critical { &TRUE } else { &[] };
    sequence(&[&object(id), critical, &element(OCTET_STRING, &[value])])
}

fn object(id: &[u8]) -> Vec<u8> {
    element(OBJECT, &[id])
}

/// What has its length before it, and what follows.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn unrandom() -> Error {
    Error::new(Kind::Retry, "no randomness from the kernel")
}

static ALGORITHM: &ring::signature::EcdsaSigningAlgorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
const TRUE: [u8; 3] = [BOOLEAN, 1, 0xff];
/// Context-specific tags of RFC 5280.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const KEY_ID: u8 = 0x80;
const DNS_NAME: u8 = 0x82;
const ADDRESS: u8 = 0x87;
const SERIAL_BYTES: usize = 16;
/// A common name has at most 64, and there are readers that hold it to that.
const OWNER_CHARS_MAX: usize = 32;
const PEM_COLUMNS: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    /// Whether a client that trusts `authority` takes what it shows as `host` for `name`.
    fn is_trusted(authority: &Authority, by: &Authority, host: &str, name: &str, at: u64) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(by.pem().as_bytes()).unwrap()).unwrap();
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let chain = [authority.leaf(host).unwrap(), authority.certificate.clone()];
        let [leaf, above] = chain.map(CertificateDer::from);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        roots.build().unwrap().verify_server_cert(&leaf, &[above], &name, &[], at).is_ok()
    }

    #[test]
    fn who_trusts_the_authority_trusts_each_host_at_any_time() {
        let authority = Authority::generate("gateway-17").unwrap();
        for host in ["docker.io", "a.b.example", "192.0.2.1", "[2001:db8::1]"] {
            let bare = host.trim_matches(['[', ']']);
            for at in [0, 1_000_000_000, 4_000_000_000, 250_000_000_000] {
                assert!(is_trusted(&authority, &authority, host, bare, at), "{host} at {at}");
            }
            assert!(!is_trusted(&authority, &authority, host, "other.example", 1_000_000_000));
            assert!(authority.identity(host).is_ok());
        }
        let other = Authority::generate("gateway-17").unwrap();
        assert_ne!(other.name(), authority.name());
        assert!(!is_trusted(&authority, &other, "docker.io", "docker.io", 1_000_000_000));
    }

    #[test]
    fn an_authority_is_the_same_after_a_restart() {
        let before = Authority::generate(&"long name ".repeat(20)).unwrap();
        let bytes = before.to_bytes();
        let after = Authority::from_bytes(&bytes).unwrap();
        assert_eq!((after.pem(), after.name()), (before.pem(), before.name()));
        assert!(is_trusted(&after, &before, "docker.io", "docker.io", 1_000_000_000));
        assert!(before.name().len() <= 64, "{}", before.name());
        for length in 0..bytes.len() {
            let cut = Authority::from_bytes(&bytes[..length]).err().unwrap();
            assert_eq!(cut.kind(), Kind::Corrupt, "{length}");
        }
    }
}
