//! Public keys that signatures are checked with: Ed25519, or ECDSA P-256 with SHA-256 (DER).

use std::fmt;

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;

/// Keys of which any one will do.
#[derive(Debug)]
pub struct Keys(Vec<UnparsedPublicKey<Vec<u8>>>);

impl Keys {
    /// Reads public keys, PEM (`BEGIN PUBLIC KEY`): one or several.
    ///
    /// # Errors
    /// What is wrong, without the name of the file.
    pub fn parse(pem: &[u8]) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for found in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let found = found.map_err(|error| KeyError(format!("is not pem: {error:?}")))?;
            let Some(key) = public_key(&found) else {
                let what = "a key of another kind, expected Ed25519 or ECDSA P-256";
                return Err(KeyError(what.to_owned()));
            };
            if keys.len() == KEYS_MAX {
                return Err(KeyError(format!("more than {KEYS_MAX} keys")));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            let what = "holds no public key: expected pem with BEGIN PUBLIC KEY";
            return Err(KeyError(what.to_owned()));
        }
        Ok(Self(keys))
    }

    /// Whether `signature` is one of `message` by any of the keys.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.iter().any(|key| key.verify(message, signature).is_ok())
    }
}

/// What is wrong with a file of keys.
#[derive(Debug)]
pub struct KeyError(String);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

/// A key as RFC 8410 and RFC 5480 encode it: of either kind there is one form.
fn public_key(der: &[u8]) -> Option<UnparsedPublicKey<Vec<u8>>> {
    let kinds: [(&[u8], usize, &'static dyn VerificationAlgorithm); 2] =
        [(&ED25519_HEAD, 32, &ED25519), (&P256_HEAD, 65, &ECDSA_P256_SHA256_ASN1)];
    kinds.into_iter().find_map(|(head, length, algorithm)| {
        let key = der.strip_prefix(head).filter(|key| key.len() == length)?;
        Some(UnparsedPublicKey::new(algorithm, key.to_vec()))
    })
}

/// Keys in one file.
const KEYS_MAX: usize = 16;
const ED25519_HEAD: [u8; 12] = [0x30, 42, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 33, 0];
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 3, 1, 7, 3, 0x42, 0,
];
