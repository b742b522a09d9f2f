//! Certificates that are good and will not be for long.

use std::time::Duration;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error};

use super::{Trust, verifier};

impl Trust {
    /// When the first certificate of a chain to end does, in seconds since 1970, if that is within
    /// `span` from now: the usual checks at that later time know it, and no other parser of
    /// certificates is needed.
    pub(in crate::net) fn end_within(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        span: Duration,
    ) -> Option<u64> {
        let (end_entity, intermediates) = chain.split_first()?;
        let later = Duration::from_secs(self.0.clock.unix_seconds()) + span;
        let later = UnixTime::since_unix_epoch(later);
        let checked = verifier(&self.0.options).ok()?.verify_server_cert(
            end_entity,
            intermediates,
            name,
            &[],
            later,
        );
        match checked {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => Some(not_after.as_secs()),
            _ => None,
        }
    }
}
