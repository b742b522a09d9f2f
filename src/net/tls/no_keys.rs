//! In place of ring's keys where a build shows no certificate, neither to servers nor to clients: a
//! configuration that names one was refused earlier.

use std::sync::Arc;

use rustls::crypto::KeyProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

use crate::config::lacking;

/// Loads none.
#[derive(Debug)]
pub struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General(lacking("a private key", "client-certs")))
    }
}
