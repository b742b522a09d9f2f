//! What a reference means at its registry now, for as few bytes as the registry lets it cost.

use std::time::Duration;

use super::backoff::Backoff;
use super::plan::tag_text;
use super::{Error, Puller, tag_key};
use crate::fetch::{self, Latch};
use crate::kind::Kind;
use crate::oci::{Algorithm, Digest, Hasher, MANIFEST_BYTES_MAX, Reference};
use crate::registry::{ManifestHead, OpenedManifest};

impl Puller {
    /// The digest that `reference` means now: by HEAD, which has no body and counts against no
    /// quota of pulls, else by GET and its bytes. What HEAD had no answer for is asked for by GET
    /// alone for a while. `answered` is opened as soon as the registry has answered anything.
    ///
    /// # Errors
    /// [`Kind::Missing`] when there is no such tag.
    pub async fn current(&self, reference: &Reference, answered: &Latch) -> Result<Digest, Error> {
        self.current_with(reference, answered, Backoff::default).await
    }

    /// The same, with as many attempts as `backoff` makes.
    pub(super) async fn current_with(
        &self,
        reference: &Reference,
        answered: &Latch,
        backoff: fn() -> Backoff,
    ) -> Result<Digest, Error> {
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
        let is_asked = self.head_is_worth_asking(&self.head_in_vain.borrow().get(&key).copied());
        if is_asked {
            let head = self.retrying_with(backoff(), async || {
                match source.registry.head_manifest(source.repository, &tag).await {
                    // Whatever a registry has against HEAD: GET may answer.
                    Err(error) if !error.is_unanswered() && !error.is_throttled() => {
                        Ok(ManifestHead { digest: None, whole: None })
                    }
                    other => other.map_err(|error| heard(error.into())),
                }
            });
            let head = head.await.map_err(about)?;
            answered.open();
            if let Some(digest) = head.digest {
                return Ok(digest);
            }
        }
        let digest = self.retrying_with(backoff(), async || {
            let opened = source.registry.open_manifest(source.repository, &tag).await;
            let opened = opened.map_err(|error| heard(error.into()))?;
            answered.open();
            self.digest_of(opened).await
        });
        let digest = digest.await.map_err(about)?;
        if is_asked {
            // Only now: where GET fails too, HEAD said all that there is.
            let mut in_vain = self.head_in_vain.borrow_mut();
            if in_vain.len() >= IN_VAIN_MAX {
                in_vain.pop_first();
            }
            in_vain.insert(key, self.parts.clock.monotonic());
        }
        Ok(digest)
    }

    /// The digest of the bytes of a manifest, of which none is kept.
    async fn digest_of(&self, opened: OpenedManifest) -> Result<Digest, Error> {
        let algorithm = opened.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let (mut body, mut hash) = (opened.body, Hasher::new(algorithm));
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut total = 0;
        loop {
            let length = body.read(&mut buffer).await.map_err(fetch::Error::from)?;
            if length == 0 {
                return Ok(hash.finish());
            }
            total += length as u64;
            self.parts.metrics.fetch_body_bytes.add(length as u64);
            if total > MANIFEST_BYTES_MAX {
                let what = format!("a manifest of more than {MANIFEST_BYTES_MAX} bytes");
                return Err(Error::new(Kind::Invalid, "", what));
            }
            hash.update(buffer.get(..length).unwrap_or_default());
        }
    }

    fn head_is_worth_asking(&self, in_vain: &Option<Duration>) -> bool {
        let now = self.parts.clock.monotonic();
        in_vain.is_none_or(|asked| now.saturating_sub(asked) >= HEAD_INTERVAL)
    }
}

/// How long a reference that HEAD had no answer for is asked for by GET alone.
const HEAD_INTERVAL: Duration = Duration::from_hours(6);
/// Tags of which that is remembered; what is forgotten costs a HEAD.
const IN_VAIN_MAX: usize = 1024;
const BUFFER_BYTES: usize = 8 << 10;
