//! The signatures that the configuration demands of an image, checked before its tag means it.
//!
//! They come before the layers: an image that is not signed costs its manifests and no more. What a
//! registry says of a tag is believed in no other way than before, so who asks by digest needs no
//! signature: the digest is the proof.

use std::rc::Rc;

use super::plan::{PlannedManifest, is_companion_tag};
use super::walk::Walk;
use super::{Asker, Error, Job, Notes, Plan, Puller};
use crate::blob::TagKey;
use crate::config::Verify;
use crate::fetch::Latch;
use crate::kind::Kind;
use crate::oci::Digest;
use crate::trust::{self, CLAIM_BYTES_MAX, Claim, Keys};

impl Puller {
    /// Checks that an image is signed as it must be, if it must, and its tag does not mean it yet. What
    /// signs it is downloaded for that; the downloads of an image with a lower `rank` come first.
    ///
    /// # Errors
    /// [`Error::is_unsigned`] when it is not; [`Error::is_left`] when `leave` was opened first; others
    /// when that could not be found out.
    pub async fn check_signed(
        self: &Rc<Self>,
        plan: &Plan,
        rank: usize,
        leave: &Latch,
    ) -> Result<(), Error> {
        if self.parts.store.tag(&plan.key) == Some(plan.root) {
            return Ok(());
        }
        let check = self.check_signatures(plan, Asker::Image(rank));
        leave.unless_opened(check).await.unwrap_or_else(|| Err(Error::left()))
    }

    async fn check_signatures(self: &Rc<Self>, plan: &Plan, asker: Asker) -> Result<(), Error> {
        let TagKey { registry, repository, .. } = &plan.key;
        let Some(rule) = self.rule(registry, repository) else { return Ok(()) };
        let path = rule.key_file.display();
        let keys = std::fs::read(&rule.key_file).map_err(|error| error.to_string());
        let keys = keys.and_then(|pem| Keys::parse(&pem).map_err(|error| error.to_string()));
        let keys = keys.map_err(|error| {
            let what = format!("its signature cannot be checked: {path}: {error}");
            Error::new(Kind::Invalid, plan.name.clone(), what)
        })?;
        let source = self.source(registry, repository)?;
        let job = Job { source, image: &plan.name, asker };
        let mut seen = Notes::default();
        let (mut count, mut problem) = (0, None);
        for manifest in plan.signatures() {
            let claims = match self.signature(manifest) {
                Ok(bytes) => trust::claims(&bytes),
                Err(error) => {
                    problem = problem.or(Some(error));
                    continue;
                }
            };
            for claim in claims.into_iter().take(CLAIMS_MAX - count) {
                count += 1;
                match self.check_claim(&job, plan, &claim, &keys).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(why)) => seen.add(format!("{} {why}", claim.blob.short())),
                    // Another may do.
                    Err(error) => problem = problem.or(Some(error)),
                }
            }
        }
        if let Some(waits) = &plan.waits {
            return Err(Error::shared(Rc::clone(waits)));
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        let about = |what: &str| format!("must be signed by a key in {path}, and {what}");
        let notes = plan.notes.lines().join("; ");
        if plan.is_provisional {
            let what = format!("not all of its signatures could be asked for: {notes}");
            return Err(Error::new(Kind::Retry, plan.name.clone(), about(&what)));
        }
        let what = match count {
            0 => "it has no signature".to_owned(),
            _ => format!("none of its signatures will do: {}", seen.lines().join("; ")),
        };
        Err(Error::unsigned(plan.name.clone(), about(&what)))
    }

    /// The same for what a client asks for by tag: the signatures are looked for first.
    pub(super) async fn check_signed_for_client(
        self: &Rc<Self>,
        key: &TagKey,
        digest: Digest,
    ) -> Result<(), Error> {
        let TagKey { registry, repository, .. } = key;
        // What signs others is not signed itself.
        if self.rule(registry, repository).is_none() || is_companion_tag(&key.tag) {
            return Ok(());
        }
        let source = self.source(registry, repository)?;
        let mut walk = Walk::new(self, &source, key.to_string(), &[]).for_client();
        let tags = walk.signatures(&[digest], registry).await;
        walk.referrers(vec![digest]).await;
        let plan = walk.plan(key.clone(), digest, tags);
        self.check_signatures(&plan, Asker::Client).await
    }

    fn rule(&self, registry: &str, repository: &str) -> Option<Verify> {
        let rules = self.parts.verify.borrow();
        rules.iter().find(|rule| rule.covers(registry, repository)).cloned()
    }

    /// The bytes of a signature's manifest; none of one that is too long to be one.
    fn signature(&self, manifest: &PlannedManifest) -> Result<Vec<u8>, Error> {
        match &manifest.bytes {
            Some(bytes) => Ok(bytes.clone()),
            None if manifest.size > CLAIM_BYTES_MAX => Ok(Vec::new()),
            None => Ok(self.parts.store.read_all(&manifest.digest, CLAIM_BYTES_MAX)?),
        }
    }

    /// Downloads what a claim is of, and checks it: the inner result says why it is no good.
    async fn check_claim(
        self: &Rc<Self>,
        job: &Job<'_>,
        plan: &Plan,
        claim: &Claim,
        keys: &Keys,
    ) -> Result<Result<(), String>, Error> {
        let Some(blob) = plan.blobs.iter().find(|blob| blob.digest == claim.blob) else {
            return Ok(Err("is not among what is planned".to_owned()));
        };
        // The claim has a size of its own.
        if blob.size > CLAIM_BYTES_MAX {
            return Ok(Err(format!("has {} bytes, expected {CLAIM_BYTES_MAX}", blob.size)));
        }
        match self.blob(job, blob).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), Kind::Missing | Kind::Denied | Kind::Invalid) => {
                return Ok(Err(format!("cannot be had: {error}")));
            }
            Err(error) => return Err(error),
        }
        self.parts.store.flush().await?;
        let bytes = self.parts.store.read_all(&claim.blob, CLAIM_BYTES_MAX)?;
        Ok(claim.check(&bytes, &plan.root, keys).map_err(str::to_owned))
    }
}

/// Signatures of one image that are looked at.
const CLAIMS_MAX: usize = 32;
