//! What accompanies an image: attestations, signatures and other referrers, and the manifests and
//! configurations for other platforms. Whatever of it cannot be had is noted.

use std::rc::Rc;

use super::super::backoff::Backoff;
use super::super::{Error, SIGNATURE_TAG_SUFFIXES, Source};
use super::{HEADS_BYTES_MAX, MANIFESTS_MAX, Need, Walk};
use crate::blob::TagKey;
use crate::kind::Kind;
use crate::oci::Digest;

impl Walk<'_> {
    /// Takes in what accompanies the image; returns cosign's tags.
    pub(in crate::pull) async fn accompanying(&mut self, registry: &str) -> Vec<(TagKey, Digest)> {
        let images: Vec<Digest> = self.manifests.iter().map(|manifest| manifest.digest).collect();
        for digest in std::mem::take(&mut self.attestations) {
            self.accompany(digest, Need::Accompanying).await;
        }
        let signature_tags = self.signatures(&images, registry).await;
        self.referrers(images).await;
        let others = std::mem::take(&mut self.others);
        let count = others.len();
        let mut skipped = count.saturating_sub(HEADS_MAX);
        for digest in others.into_iter().take(HEADS_MAX) {
            if self.heads_room == 0 || self.asked.len() >= MANIFESTS_MAX {
                skipped += 1;
                continue;
            }
            self.accompany(digest, Need::Head).await;
        }
        if skipped > 0 {
            self.notes.add_first(format!(
                "the manifests of {skipped} of {count} other platforms, expected at most \
                 {HEADS_MAX} with {HEADS_BYTES_MAX} bytes"
            ));
        }
        signature_tags
    }

    /// Takes in something that the image can do without.
    async fn accompany(&mut self, digest: Digest, need: Need) -> bool {
        match self.manifest(&digest.to_string(), Some(digest), need, 1).await {
            Ok(_) => true,
            Err(error) => {
                self.note(error);
                false
            }
        }
    }

    fn note(&mut self, error: Error) {
        self.failures += usize::from(error.kind() == Kind::Retry);
        match error.held_back() {
            Some(_) => self.waits = Some(Rc::new(error)),
            None => self.notes.add(error.to_string()),
        }
    }

    /// Takes in signatures and other referrers of `subjects`, and of those referrers in turn.
    pub(in crate::pull) async fn referrers(&mut self, mut subjects: Vec<Digest>) {
        let mut next = 0;
        let mut left_out = 0;
        while let Some(subject) = subjects.get(next).copied() {
            next += 1;
            if next > SUBJECTS_MAX || self.failures >= FAILURES_MAX {
                self.notes.add_first(format!(
                    "referrers of {} manifests: {SUBJECTS_MAX} were asked for, {} times in vain",
                    subjects.len() - next + 1,
                    self.failures
                ));
                break;
            }
            let Source { registry, repository } = self.source;
            let listed = async || Ok(registry.referrers(repository, &subject).await?);
            let listed = match self.puller.retrying_with(Backoff::brief(), listed).await {
                Ok(listed) => listed,
                Err(error) => {
                    self.note(error);
                    continue;
                }
            };
            if let Some(problem) = listed.problem {
                self.note(problem.into());
            }
            left_out += listed.listed.count - listed.listed.digests.len();
            for referrer in listed.listed.digests {
                if self.asked.contains_key(&referrer) {
                    continue;
                }
                if self.asked.len() >= MANIFESTS_MAX || self.failures >= FAILURES_MAX {
                    left_out += 1;
                } else if self.accompany(referrer, Need::Accompanying).await {
                    subjects.push(referrer);
                }
            }
        }
        if left_out > 0 {
            self.notes.add_first(format!(
                "{left_out} referrers, of which {MANIFESTS_MAX} manifests are asked for at most"
            ));
        }
    }

    /// Takes in what cosign has tagged as belonging to `images`.
    pub(in crate::pull) async fn signatures(
        &mut self,
        images: &[Digest],
        registry: &str,
    ) -> Vec<(TagKey, Digest)> {
        let mut tags = Vec::new();
        for image in images.iter().take(SUBJECTS_MAX) {
            for suffix in SIGNATURE_TAG_SUFFIXES {
                if self.failures >= FAILURES_MAX {
                    return tags;
                }
                let tag = format!("{}{suffix}", image.to_tag());
                match self.signature(&tag).await {
                    Ok(None) => {}
                    Ok(Some(digest)) => {
                        let key = TagKey {
                            registry: registry.to_owned(),
                            repository: self.source.repository.to_owned(),
                            tag,
                        };
                        tags.push((key, digest));
                    }
                    Err(error) => self.note(error),
                }
            }
        }
        tags
    }

    /// The manifest under one of cosign's tags, if there is one.
    async fn signature(&mut self, tag: &str) -> Result<Option<Digest>, Error> {
        let Source { registry, repository } = self.source;
        let head = async || match registry.head_manifest(repository, tag).await {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.kind() == Kind::Missing => Ok(None),
            Err(error) => Err(error.into()),
        };
        let head = self.puller.retrying_with(Backoff::brief(), head).await?;
        let Some(head) = head else { return Ok(None) };
        // By its digest it is read from the store, if it is held.
        let wanted = head.digest.map_or_else(|| tag.to_owned(), |digest| digest.to_string());
        self.manifest(&wanted, head.digest, Need::Accompanying, 1).await.map(Some)
    }
}

/// Manifests of which referrers and signatures are asked for.
const SUBJECTS_MAX: usize = 64;
/// Failed attempts at what accompanies an image after which no more are made.
const FAILURES_MAX: usize = 3;
/// Children for other platforms of which the manifest and the configuration are held.
const HEADS_MAX: usize = 64;
