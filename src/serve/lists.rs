//! The lists of repositories and of tags, in pages.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Api, Caller, JSON, Repository, document, problem, query};
use crate::net::http::{ServerRequest, ServerResponse};
use crate::oci::registry_name;

impl Api {
    /// The repositories of which anything is held, each by a name that leads to it: the bare one,
    /// with the registry in front where another upstream comes first that has it too.
    pub(super) async fn repositories(
        &self,
        request: &ServerRequest,
        caller: &Caller,
    ) -> ServerResponse {
        let (max, after) = match page(request) {
            Ok(page) => page,
            Err(response) => return response,
        };
        // What cannot be the name of a registry is that of none here.
        let only = query(request, "ns").map(|text| registry_name(text).unwrap_or_default());
        let mut names = BTreeSet::new();
        let may_read = |registry: &str, name: &str| {
            self.may_read(caller, &Repository { registry: registry.to_owned(), name })
        };
        let (registries, mut looked) = (self.registries.borrow().clone(), 0_u32);
        for (place, registry) in registries.iter().enumerate() {
            if only.as_ref().is_some_and(|only| only != registry) {
                continue;
            }
            let before = registries.get(..place).filter(|_| only.is_none()).unwrap_or_default();
            let mut last = String::new();
            while let Some(repository) = self.store.repository_after(registry, &last) {
                last.clone_from(&repository);
                let is_readable = may_read(registry, &repository);
                let mut others = before.iter().filter(|other| may_read(other, &repository));
                let is_hidden = others.any(|other| self.store.has_repository(other, &repository));
                let name = if is_hidden { format!("{registry}/{repository}") } else { repository };
                if is_readable && name.as_str() > after {
                    names.insert(name);
                }
                if names.len() > max + 1 {
                    names.pop_last();
                }
                looked += 1;
                if looked.is_multiple_of(LOOKED_AT_ONCE) {
                    smol::future::yield_now().await;
                }
            }
        }
        let names: Vec<String> = names.into_iter().collect();
        respond(request, "/v2/_catalog", max, names, |names| json!({ "repositories": names }))
    }

    /// The tags of a repository.
    pub(super) fn tags(
        &self,
        request: &ServerRequest,
        repository: &Repository<'_>,
        name: &str,
    ) -> ServerResponse {
        let (max, after) = match page(request) {
            Ok(page) => page,
            Err(response) => return response,
        };
        let tags = self.catalog.tags((&repository.registry, repository.name), after, max + 1);
        let path = format!("/v2/{name}/tags/list");
        respond(request, &path, max, tags, |tags| json!({ "name": name, "tags": tags }))
    }
}

/// How many entries are asked for, and behind which.
fn page(request: &ServerRequest) -> Result<(usize, &str), ServerResponse> {
    let after = query(request, "last").unwrap_or_default();
    let Some(text) = query(request, "n") else { return Ok((PAGE_MAX, after)) };
    match text.parse::<u64>() {
        Ok(n) => Ok((usize::try_from(n).unwrap_or(PAGE_MAX).min(PAGE_MAX), after)),
        Err(_) => {
            let what = format!("n={text:?}, expected a number");
            Err(problem(400, "PAGINATION_NUMBER_INVALID", &what))
        }
    }
}

/// A page of `max` entries, with a link to the next one if there are more.
fn respond(
    request: &ServerRequest,
    path: &str,
    max: usize,
    mut entries: Vec<String>,
    document_of: impl Fn(&[String]) -> serde_json::Value,
) -> ServerResponse {
    let is_cut = entries.len() > max;
    entries.truncate(max);
    let mut response = document(200, JSON, &document_of(&entries));
    if let Some(last) = entries.last().filter(|_| is_cut) {
        let n = max.to_string();
        let link = link(request, path, &[("n", &n), ("last", last)]);
        response.headers.append("link", link);
    }
    response
}

/// The value of a `Link` header that leads to the next page.
pub(super) fn link(request: &ServerRequest, path: &str, pairs: &[(&str, &str)]) -> String {
    let mut link = url::form_urlencoded::Serializer::new(String::new());
    link.extend_pairs(pairs);
    if let Some(namespace) = query(request, "ns") {
        link.append_pair("ns", namespace);
    }
    format!("<{path}?{}>; rel=\"next\"", link.finish())
}

/// Entries of one page: of the longest names 128 KiB.
pub(super) const PAGE_MAX: usize = 500;
/// Repositories that are looked at before others have their turn.
const LOOKED_AT_ONCE: u32 = 64;
