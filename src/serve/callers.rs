//! Which client may read what, by the rules of the configuration.
//!
//! A repository that a client may not read is to it like any other that it may not read, held or not:
//! 401 while credentials could change that, else 403. Lists leave it out. What a client may read of
//! the rest is what lies there: a digest leads to its bytes only below a repository that has it, by a
//! tag here or by the word of its registry. Else a digest, which is no secret, would lead around every
//! rule. Who may read everything is spared the question.

use std::net::IpAddr;
use std::rc::Rc;

use super::route::Target;
use super::{Api, Repository, problem, refusal, reply};
use crate::config::{ReadClient, ReadRule, may_read, may_read_all};
use crate::net::http::{ServerRequest, ServerResponse};
use crate::oci::{Digest, media_type};

/// Who asks.
pub struct Caller {
    user: Option<String>,
    certificate: Option<Rc<[String]>>,
    address: IpAddr,
    /// Whether credentials could let it read more.
    may_log_in: bool,
}

/// What is in a repository, by the word of its registry.
pub(super) type Confirmed = (String, String, Digest);

impl Caller {
    /// Who sent a request, as `user` if a password has shown that.
    pub(super) fn new(request: &ServerRequest, user: Option<String>, has_users: bool) -> Self {
        let may_log_in = user.is_none() && has_users;
        let (certificate, address) = (request.certificate.clone(), request.peer.ip());
        Self { user, certificate, address, may_log_in }
    }

    fn client(&self) -> ReadClient<'_> {
        let certificate = self.certificate.as_deref().unwrap_or_default();
        ReadClient { user: self.user.as_deref(), certificate, address: self.address }
    }

    /// What is said of a repository that it may not read.
    pub(super) fn refusal(&self, name: &str) -> ServerResponse {
        match self.may_log_in {
            true => refusal("credentials are needed"),
            false => problem(403, "DENIED", &format!("no rule lets this client read {name:?}")),
        }
    }
}

impl Api {
    /// Changes who may read what.
    pub fn set_rules(&self, rules: &[ReadRule]) {
        self.rules.replace(rules.into());
    }

    /// Whether a client may read a repository.
    pub(super) fn may_read(&self, caller: &Caller, repository: &Repository<'_>) -> bool {
        let rules = self.rules.borrow();
        may_read(&rules, caller.client(), &repository.registry, repository.name)
    }

    /// Whether it may read whatever is held.
    pub(super) fn may_read_all(&self, caller: &Caller) -> bool {
        may_read_all(&self.rules.borrow(), caller.client())
    }

    /// What is said to who asks only whether this is a registry: to who could read more with
    /// credentials that they are needed, for that is how a client learns to send them.
    pub(super) fn greeting(&self, caller: &Caller) -> Option<ServerResponse> {
        let is_enough = !caller.may_log_in || self.may_read_all(caller);
        (!is_enough).then(|| caller.refusal(""))
    }

    /// Leaves of the repositories in which `target` may lie those that have it.
    ///
    /// # Errors
    /// What is answered if that is none, or if that could not be found out.
    pub(super) async fn confine(
        &self,
        known: &mut Vec<&Repository<'_>>,
        target: &Target,
    ) -> Result<(), ServerResponse> {
        let (digest, is_manifest) = match target {
            Target::Blob(digest) => (*digest, false),
            Target::Manifest(reference) => match reference.parse() {
                Ok(digest) => (digest, true),
                // A tag is looked for in its repository, but for one that stands for a list.
                Err(_) => match Digest::from_tag(reference) {
                    Some(subject) => (subject, true),
                    None => return Ok(()),
                },
            },
            Target::Referrers(subject) => (*subject, true),
            Target::Tags | Target::Catalog => return Ok(()),
        };
        let mut found = Vec::new();
        for repository in known.iter() {
            if self.lies_in(repository, &digest, is_manifest).await? {
                found.push(*repository);
            }
        }
        *known = found;
        match (known.is_empty(), target) {
            (false, _) => Ok(()),
            (true, Target::Referrers(_)) => {
                let none = concat!(
                    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","#,
                    r#""manifests":[]}"#
                );
                Err(reply(200, media_type::OCI_INDEX, none.as_bytes().into()))
            }
            (true, _) => {
                let code = if is_manifest { "MANIFEST_UNKNOWN" } else { "BLOB_UNKNOWN" };
                Err(problem(404, code, &format!("{digest} is not in this repository")))
            }
        }
    }

    /// Whether a tag of the repository leads to a digest, or its registry says that it is there.
    async fn lies_in(
        &self,
        repository: &Repository<'_>,
        digest: &Digest,
        is_manifest: bool,
    ) -> Result<bool, ServerResponse> {
        let Repository { registry, name } = repository;
        let roots = {
            let confirmed = self.confirmed.borrow();
            let of = confirmed.iter().filter(|(of, at, _)| of == registry && at == name);
            of.map(|(_, _, digest)| *digest).collect::<Vec<_>>()
        };
        match self.catalog.leads_to((registry, name), &roots, digest) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => {
                log::warn!("{registry}/{name}: {error}");
                return Err(super::damaged());
            }
        }
        let is_there = self.is_confirmed(repository, digest, is_manifest).await?;
        if is_there {
            let mut confirmed = self.confirmed.borrow_mut();
            if confirmed.len() >= CONFIRMED_MAX {
                confirmed.pop_front();
            }
            confirmed.push_back((registry.clone(), (*name).to_owned(), *digest));
        }
        Ok(is_there)
    }
}

/// Digests without a tag of which it is remembered where they are; one more is asked for again.
const CONFIRMED_MAX: usize = 256;
