//! A bundle: an OCI layout with a document that says which images it is for, and a signature of that.
//!
//! | file in the layout | holds |
//! |---|---|
//! | `moonlet-bundle.json` | the sequence, for which satellite, and each image's name and digest |
//! | `moonlet-bundle.sig` | the signature of those bytes: Ed25519, or ECDSA P-256 with SHA-256 (DER) |
//!
//! Where the configuration has a key, nothing is imported but what such a document names, and of
//! bundles only a later one than the last: who finds an old one must not bring its holes back. The
//! same one again is no step back. Digests lead from the signed document to every byte.

use std::path::Path;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::Error;
use super::contents::{Archive, FILE_BYTES_MAX, Listed, Wish};
use crate::blob::Store;
use crate::kind::Kind;
use crate::oci::{Digest, Reference};
use crate::trust::Keys;

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// Higher in each bundle than in those before.
    pub sequence: u64,
    /// The only satellite that it is for, if it is for one.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub satellite: Option<String>,
    /// When it was made, for people.
    #[serde(default)]
    pub created: String,
    /// What it brings.
    pub images: Vec<Named>,
}

/// An image of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub reference: String,
    /// Its manifest or index.
    pub digest: Digest,
}

/// What a bundle says whose signature is good.
#[derive(Debug)]
pub struct Terms {
    document: Document,
    /// Of the document as it was signed.
    digest: Digest,
}

/// The last bundle that was imported, as the log has it.
#[derive(Serialize, Deserialize)]
struct Last {
    sequence: u64,
    digest: Digest,
}

impl Terms {
    /// Reads the document of a bundle for the satellite `name`, and checks its signature.
    ///
    /// # Errors
    /// [`Kind::Denied`] without a signature by one of `keys`, or for another satellite;
    /// [`Kind::Invalid`] for what is no such document.
    pub fn read(archive: &mut Archive, keys: &Keys, name: &str) -> Result<Self, Error> {
        let path = archive.source.path().display().to_string();
        let denied = |what: &str| Error::new(Kind::Denied, format!("{path}: {what}"));
        let mut read = |name| archive.source.read(name, FILE_BYTES_MAX);
        let (Some(bytes), Some(signature)) = (read(DOCUMENT)?, read(SIGNATURE)?) else {
            let expected = "[import] key_file lets nothing else in";
            return Err(denied(&format!("not a signed bundle: {expected}")));
        };
        if !keys.verify(&bytes, &signature) {
            return Err(denied("its signature is by none of the keys in [import] key_file"));
        }
        let document: Document = archive.parse(DOCUMENT, &bytes)?;
        if document.version != VERSION {
            let what = format!("bundle version {}, expected {VERSION}", document.version);
            return Err(archive.source.wrong(&what));
        }
        match &document.satellite {
            Some(satellite) if satellite != name => {
                Err(denied(&format!("a bundle for {satellite:?}, this is {name:?}")))
            }
            _ => Ok(Self { document, digest: Digest::sha256(&bytes) }),
        }
    }

    /// Whether it is later than the last bundle, or that one again.
    ///
    /// # Errors
    /// [`Kind::Denied`] when it is neither.
    pub(super) fn check(&self, store: &Store) -> Result<(), Error> {
        let Some(bytes) = store.document(RECORD) else { return Ok(()) };
        let last: Last = serde_json::from_slice(&bytes).map_err(|error| {
            let what = "the log's record of the last bundle is unreadable";
            Error::from_source(Kind::Denied, error).about(what)
        })?;
        let sequence = self.document.sequence;
        if sequence > last.sequence || self.digest == last.digest {
            return Ok(());
        }
        let last = last.sequence;
        let what = format!("a bundle of sequence {sequence}, the last was {last}: expected more");
        Err(Error::new(Kind::Denied, what))
    }

    /// Records it as the last one.
    pub(super) async fn record(&self, store: &Store) -> Result<(), Error> {
        let last = Last { sequence: self.document.sequence, digest: self.digest };
        let bytes =
            serde_json::to_vec(&last).map_err(|error| Error::from_source(Kind::Invalid, error))?;
        Ok(store.set_document(RECORD, &bytes).await?)
    }

    /// The images that it names.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a wish of another name: what is signed is taken as it is.
    pub(super) fn chosen(
        &self,
        archive: &Archive,
        wish: &Wish,
    ) -> Result<Vec<(Reference, Listed)>, Error> {
        if wish.name.is_some() {
            let what = "--name: a signed bundle keeps its names, expected none";
            return Err(archive.source.wrong(what));
        }
        let listed = |named: &Named| {
            let name = named.reference.parse::<Reference>();
            let name = name.map_err(|error| archive.source.wrong(&error.to_string()))?;
            let digest = named.digest;
            let known = archive.listed.iter().find(|listed| listed.digest == digest);
            let media_type = known.and_then(|known| known.media_type.clone());
            let listed = Listed { name: None, digest, media_type, has_platform: false };
            Ok((name, listed))
        };
        self.document.images.iter().map(listed).collect()
    }
}

/// Reads the public keys that a bundle may be signed with.
///
/// # Errors
/// [`Kind::Invalid`] for what is no such file; what the system says of one that cannot be read.
pub fn read_keys(path: &Path) -> Result<Keys, Error> {
    let keys = Keys::parse(&read(path)?);
    keys.map_err(|error| Error::from_source(Kind::Invalid, error).about(path.display()))
}

/// A key to sign bundles with.
pub enum Signer {
    /// Ed25519.
    Ed25519(Box<Ed25519KeyPair>),
    /// ECDSA P-256.
    P256(Box<EcdsaKeyPair>, SystemRandom),
}

impl Signer {
    /// Reads a private key, PEM (PKCS#8): Ed25519 or ECDSA P-256.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for anything else.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |what: &str| Error::invalid(format!("{}: {what}", path.display()));
        let der = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?)
            .map_err(|_| wrong("holds no private key: expected pem with BEGIN PRIVATE KEY"))?;
        let der = der.secret_pkcs8_der();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::Ed25519(Box::new(pair)));
        }
        let random = SystemRandom::new();
        match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random) {
            Ok(pair) => Ok(Self::P256(Box::new(pair), random)),
            Err(_) => Err(wrong("a key of another kind, expected Ed25519 or ECDSA P-256")),
        }
    }

    /// The signature of `bytes`.
    pub(super) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Ed25519(pair) => Ok(pair.sign(bytes).as_ref().to_vec()),
            Self::P256(pair, random) => {
                let signature = pair.sign(random, bytes);
                let signature = signature.map_err(|_| Error::invalid("the key does not sign"))?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::io(path, error))
}

/// What a bundle says of itself.
pub const DOCUMENT: &str = "moonlet-bundle.json";
/// The signature of that.
pub const SIGNATURE: &str = "moonlet-bundle.sig";
/// Of the document.
pub const VERSION: u32 = 1;
/// What the log calls its record of the last bundle.
const RECORD: &str = "bundle";
