//! What a reference means at its registry now, for as few bytes as the registry lets it cost.

use std::time::Duration;

use super::plan::tag_text;
use super::{Error, Puller, tag_key};
use crate::fetch::Latch;
use crate::oci::{Digest, Reference};

impl Puller {
    /// The digest that `reference` means now: by HEAD, which has no body and counts against no
    /// quota of pulls, else by GET and its bytes. A registry whose HEAD told nothing is asked by
    /// GET alone for a while. `answered` is opened as soon as the registry has answered anything.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::kind::Kind::Missing) when there is no such tag.
    pub async fn current(&self, reference: &Reference, answered: &Latch) -> Result<Digest, Error> {
        if let Some(digest) = reference.digest {
            answered.open();
            return Ok(digest);
        }
        let key = tag_key(reference);
        let source = self.source(&reference.registry, &reference.repository)?;
        let tag = tag_text(reference);
        let about = |error: Error| error.about(reference.to_string());
        let heard = |error: Error| {
            if !error.is_unanswered() {
                answered.open();
            }
            error
        };
        if self.head_is_worth_asking(&self.head_in_vain.borrow().get(&key).copied()) {
            let head = self.retrying(async || {
                let head = source.registry.head_manifest(source.repository, &tag).await;
                head.map_err(|error| heard(error.into()))
            });
            let head = head.await.map_err(about)?;
            answered.open();
            if let Some(digest) = head.digest {
                return Ok(digest);
            }
            self.head_in_vain.borrow_mut().insert(key, self.parts.clock.monotonic());
        }
        let manifest = self.retrying(async || {
            let manifest = source.registry.manifest(source.repository, &tag).await;
            manifest.map_err(|error| heard(error.into()))
        });
        let manifest = manifest.await.map_err(about)?;
        self.parts.metrics.fetch_body_bytes.add(manifest.bytes.len() as u64);
        Ok(manifest.digest)
    }

    fn head_is_worth_asking(&self, in_vain: &Option<Duration>) -> bool {
        let now = self.parts.clock.monotonic();
        in_vain.is_none_or(|asked| now.saturating_sub(asked) >= HEAD_INTERVAL)
    }
}

/// How long a registry whose HEAD told nothing is asked by GET alone.
const HEAD_INTERVAL: Duration = Duration::from_hours(6);
