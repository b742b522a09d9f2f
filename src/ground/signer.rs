//! Tokens for a registry that asks this server who may do what: JSON Web Tokens as the distribution
//! project's token specification has them.
//!
//! A registry with a list of users cannot know satellites, which come and go, and in most such
//! registries who may read may write as well. One that takes tokens knows no user: it checks a
//! signature by a certificate, and does what the token says.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::fault::Fault;
use super::{clock, secret};

/// Signs tokens.
pub struct Signer {
    key: EcdsaKeyPair,
    /// The certificate that the registry knows the key by.
    certificate: String,
}

/// What may be done with a repository.
pub struct Access {
    pub repository: String,
    pub actions: Vec<&'static str>,
}

impl Signer {
    /// Reads a key and its certificate, both in PEM.
    pub fn open(key: &Path, certificate: &Path) -> Result<Self, String> {
        let of_key = |error: &dyn std::fmt::Display| {
            format!(
                "publish_token_key {}: {error}: expected a key of P-256 in PEM, PKCS#8",
                key.display()
            )
        };
        let of_certificate = |error: &dyn std::fmt::Display| {
            format!("publish_token_cert {}: {error}", certificate.display())
        };
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_file(key).map_err(|error| of_key(&error))?;
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            pkcs8.secret_pkcs8_der(),
            &SystemRandom::new(),
        );
        let pair = pair.map_err(|error| of_key(&error))?;
        let der = CertificateDer::from_pem_file(certificate);
        let der = der.map_err(|error| of_certificate(&error))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|error| of_certificate(&error))?;
        let public: &[u8] = &parsed.public_key().subject_public_key.data;
        if public != ring::signature::KeyPair::public_key(&pair).as_ref() {
            return Err(of_certificate(&"it is of another key than publish_token_key"));
        }
        Ok(Self { key: pair, certificate: STANDARD.encode(&der) })
    }

    /// A token for `subject`, and how many seconds it lasts.
    pub fn token(&self, subject: &str, access: &[Access]) -> Result<(String, i64), Fault> {
        let now = clock::now() / clock::SECOND;
        let access = access.iter().map(
            |one| json!({ "type": "repository", "name": one.repository, "actions": one.actions }),
        );
        let head = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            // The registry's clock may be a little behind.
            "nbf": now - EARLY_SECONDS,
            "iat": now,
            "exp": now + LIFE_SECONDS,
            "jti": secret::random(16)?,
            "access": access.collect::<serde_json::Value>(),
        });
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(head), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|error| Fault::internal("signing a token", &error))?;
        Ok((format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), LIFE_SECONDS))
    }
}

/// What the registry's configuration names: who signs, and whom for.
const ISSUER: &str = "ground-control";
pub const SERVICE: &str = "ground-control-registry";
const LIFE_SECONDS: i64 = 300;
const EARLY_SECONDS: i64 = 60;
