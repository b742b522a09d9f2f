//! What refers to a manifest: by the referrers API, page by page, else by the tag that stands in for
//! it (distribution-spec, "Listing Referrers").
//!
//! Whatever a registry answers is bounded: bytes of a page, pages, and what is kept of them. Of the
//! address of a next page only the query is taken, so that no answer leads to another host or path.

use super::{Error, Registry};
use crate::kind::Kind;
use crate::net::http::{ClientResponse, Headers, Method};
use crate::oci::{Digest, LISTED_MAX, Listed, media_type};

/// What a registry lists of a manifest.
#[derive(Debug, Default)]
pub struct Referrers {
    /// As far as it was read.
    pub listed: Listed,
    /// Why there may be more.
    pub problem: Option<Error>,
}

impl Registry {
    /// What refers to the manifest `digest`.
    ///
    /// # Errors
    /// When neither the API nor the tag has an answer, and the API not just because there is none.
    pub async fn referrers(&self, repository: &str, digest: &Digest) -> Result<Referrers, Error> {
        let path = format!("{repository}/referrers/{digest}");
        let response = self.referrers_page(repository, &path).await?;
        let status = response.status;
        if status == 200 && is_list(&response) {
            return self.referrers_pages(repository, &path, response).await;
        }
        let problem = self.expect(response, &path, repository).await.err();
        if status == 429 {
            return problem.map_or_else(|| Ok(Referrers::default()), Err);
        }
        match self.referrers_tag(repository, &digest.to_tag()).await {
            Ok(listed) => Ok(Referrers { listed, problem: None }),
            // There is no such API (of a page for people a 200 is no proof), and no such tag.
            Err(error) if error.kind() == Kind::Missing => match problem {
                Some(problem)
                    if matches!(problem.kind(), Kind::Denied | Kind::Retry) && status != 501 =>
                {
                    Err(problem)
                }
                _ => Ok(Referrers::default()),
            },
            Err(error) => Err(error),
        }
    }

    async fn referrers_page(&self, repository: &str, path: &str) -> Result<ClientResponse, Error> {
        let mut headers = Headers::new();
        headers.append("accept", media_type::OCI_INDEX);
        self.request(Method::Get, path, repository, headers).await
    }

    /// Reads the page that came first, and those that follow.
    async fn referrers_pages(
        &self,
        repository: &str,
        path: &str,
        first: ClientResponse,
    ) -> Result<Referrers, Error> {
        let mut next = next_query(&first.headers);
        let mut listed = self.list(path, first).await?;
        let mut pages = 1;
        while let Some(query) = next {
            pages += 1;
            if pages > PAGES_MAX || listed.count > LISTED_MAX {
                let what = format!("more than {PAGES_MAX} pages or {LISTED_MAX} referrers");
                let problem = Some(self.problem(Kind::Invalid, path, what));
                return Ok(Referrers { listed, problem });
            }
            let page = async {
                let path = format!("{path}?{query}");
                let response = self.referrers_page(repository, &path).await?;
                let response = self.expect(response, &path, repository).await?;
                let next = next_query(&response.headers);
                Ok((next, self.list(&path, response).await?))
            };
            let page = match page.await {
                Ok((following, page)) => {
                    next = following.filter(|following| *following != query);
                    page
                }
                Err(problem) => return Ok(Referrers { listed, problem: Some(problem) }),
            };
            let room = LISTED_MAX.saturating_sub(listed.digests.len());
            listed.digests.extend(page.digests.into_iter().take(room));
            listed.count += page.count;
        }
        Ok(Referrers { listed, problem: None })
    }

    /// The index under the tag that stands in for the API.
    async fn referrers_tag(&self, repository: &str, tag: &str) -> Result<Listed, Error> {
        let opened = self.open_manifest(repository, tag).await?;
        let path = format!("{repository}/manifests/{tag}");
        let bytes = opened.body.bytes(PAGE_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| self.link(&path, error))?;
        self.listed(&path, &bytes)
    }

    async fn list(&self, path: &str, response: ClientResponse) -> Result<Listed, Error> {
        let bytes = response.body.bytes(PAGE_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| self.link(path, error))?;
        self.listed(path, &bytes)
    }

    fn listed(&self, path: &str, bytes: &[u8]) -> Result<Listed, Error> {
        Listed::read(bytes).map_err(|error| self.problem(Kind::Invalid, path, error.to_string()))
    }
}

fn is_list(response: &ClientResponse) -> bool {
    let content_type = response.headers.get("content-type").unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    [media_type::OCI_INDEX, "application/json"]
        .iter()
        .any(|list| content_type.eq_ignore_ascii_case(list))
}

/// The query of the next page's address, where a Link header names one (RFC 8288).
fn next_query(headers: &Headers) -> Option<String> {
    let links = headers.all("link").flat_map(|line| line.split(','));
    let mut next = links.filter_map(|link| {
        let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel") && value.eq_ignore_ascii_case("next")
        });
        let query = url.split_once('?')?.1;
        let query = query.split('#').next().unwrap_or_default();
        (is_next && query.len() <= QUERY_BYTES_MAX).then(|| query.to_owned())
    });
    next.next()
}

/// Bytes of a page, or of the index under the tag: some thousand referrers.
const PAGE_BYTES_MAX: u64 = 1 << 20;
/// Pages of one list.
const PAGES_MAX: usize = 32;
/// Bytes of a next page's query.
const QUERY_BYTES_MAX: usize = 2 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_pages() {
        let next = |link: &str| {
            let mut headers = Headers::new();
            headers.append("link", link);
            next_query(&headers)
        };
        for (link, query) in [
            (r#"</v2/a/referrers/x?page=1>; rel="next""#, Some("page=1")),
            ("<https://elsewhere.test/?n=1&last=a#f> ; title=x; REL=next", Some("n=1&last=a")),
            (r#"</a?b>; rel="prev", </a?c>; rel="next""#, Some("c")),
            (r#"</v2/a/referrers/x>; rel="next""#, None),
            (r#"</a?b>; rel="prev""#, None),
            ("</a?b>", None),
            ("a?b; rel=next", None),
            ("<", None),
        ] {
            assert_eq!(next(link).as_deref(), query, "{link}");
        }
        assert_eq!(next(&format!("</a?{}>; rel=next", "x".repeat(QUERY_BYTES_MAX + 1))), None);
    }
}
