//! The signatures that the configuration demands of an image, checked before its tag means it.
//!
//! They come before the layers: an image that is not signed costs its manifests and no more. What a
//! registry says of a tag is believed in no other way than before, so who asks by digest needs no
//! signature: the digest is the proof.

use std::rc::Rc;

use super::plan::PlannedManifest;
use super::walk::Walk;
use super::{Asker, Error, Job, Notes, Plan, Puller};
use crate::blob::TagKey;
use crate::config::Verify;
use crate::kind::Kind;
use crate::oci::Digest;
use crate::trust::{self, CLAIM_BYTES_MAX, Claim, Keys};

impl Puller {
    /// Checks that `plan` is of an image that is signed as it must be, if it must.
    ///
    /// # Errors
    /// [`Kind::Denied`] when it is not; others when that could not be found out.
    pub(super) async fn check_signed(
        self: &Rc<Self>,
        plan: &Plan,
        asker: Asker,
    ) -> Result<(), Error> {
        let TagKey { registry, repository, .. } = &plan.key;
        let Some(rule) = self.rule(registry, repository) else { return Ok(()) };
        let path = rule.key_file.display();
        let keys = std::fs::read(&rule.key_file).map_err(|error| error.to_string());
        let keys = keys.and_then(|pem| Keys::parse(&pem).map_err(|error| error.to_string()));
        let keys = keys.map_err(|error| {
            let what = format!("its signature cannot be checked: {path}: {error}");
            Error::new(Kind::Denied, plan.name.clone(), what)
        })?;
        let source = self.source(registry, repository)?;
        let job = Job { source, image: &plan.name, asker };
        let mut seen = Notes::default();
        let mut count = 0;
        for manifest in plan.signatures() {
            let claims = trust::claims(&self.signature(manifest)?);
            for claim in claims.into_iter().take(CLAIMS_MAX - count) {
                count += 1;
                match self.check_claim(&job, plan, &claim, &keys).await? {
                    Ok(()) => return Ok(()),
                    Err(why) => seen.add(format!("{} {why}", claim.blob.short())),
                }
            }
        }
        let seen = seen.lines().join("; ");
        let what = match (count, plan.is_provisional) {
            (0, true) => {
                format!("its signatures could not be asked for: {}", plan.notes.lines().join("; "))
            }
            (0, false) => "it has no signature".to_owned(),
            _ => format!("none of its signatures will do: {seen}"),
        };
        Err(Error::unsigned(
            plan.name.clone(),
            format!("must be signed by a key in {path}, and {what}"),
        ))
    }

    /// The same for what a client asks for by tag: the signatures are looked for first.
    pub(super) async fn check_signed_for_client(
        self: &Rc<Self>,
        key: &TagKey,
        digest: Digest,
    ) -> Result<(), Error> {
        let TagKey { registry, repository, .. } = key;
        if self.rule(registry, repository).is_none() {
            return Ok(());
        }
        let source = self.source(registry, repository)?;
        let mut walk = Walk::new(self, &source, key.to_string(), &[]).for_client();
        let tags = walk.signatures(&[digest], registry).await;
        walk.referrers(vec![digest]).await;
        let plan = walk.plan(key.clone(), digest, tags);
        self.check_signed(&plan, Asker::Client).await
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
