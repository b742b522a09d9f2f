//! A part of a blob, from servers as they are.
//!
//! Some storage hosts refuse Range, answer it from a multiple of their own block, cap it, or do not
//! say what they send. What is not surely the part that was asked for, or some of it, is answered
//! by asking for the whole blob: bytes at the wrong place would only be found by the digest of all.

use super::{Error, Opened, Registry};
use crate::kind::Kind;
use crate::net::http::{ClientResponse, Headers, Method};
use crate::oci::Digest;

impl Registry {
    /// Opens the bytes from `start` to `last` (inclusive) of a blob of `size` bytes, or more; where
    /// the size is not known, the registry states it.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not there, [`Kind::Invalid`] when it has another size, or no
    /// answer states one.
    pub async fn blob(
        &self,
        repository: &str,
        digest: &Digest,
        start: u64,
        last: u64,
        size: Option<u64>,
    ) -> Result<Opened, Error> {
        let path = format!("{repository}/blobs/{digest}");
        if start > 0 || size.is_none_or(|size| last + 1 < size) {
            let mut headers = Headers::new();
            headers.append("range", format!("bytes={start}-{last}"));
            let response = self.request(Method::Get, &path, repository, headers).await?;
            match response.status {
                200 if size.is_some() || response.body.len().is_some() => {
                    return self.whole(response, &path, size);
                }
                // Of which length is to be known first.
                200 => {}
                206 => {
                    if let Some(opened) = self.part(response, &path, start, size)? {
                        return Ok(opened);
                    }
                }
                status if refuses_ranges(status) => {}
                _ => return Err(self.error_of(response, &path, repository).await),
            }
        }
        let size = match size {
            Some(size) => size,
            None => self.blob_size(repository, digest).await?,
        };
        let response = self.request(Method::Get, &path, repository, Headers::new()).await?;
        let response = self.expect(response, &path, repository).await?;
        self.whole(response, &path, Some(size))
    }

    /// Asks how long a blob is, without fetching it.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not there, [`Kind::Invalid`] when no answer states that.
    pub async fn blob_size(&self, repository: &str, digest: &Digest) -> Result<u64, Error> {
        let path = format!("{repository}/blobs/{digest}");
        let response = self.request(Method::Head, &path, repository, Headers::new()).await?;
        let response = self.expect(response, &path, repository).await?;
        let length = response.headers.get("content-length").and_then(|text| text.parse().ok());
        length.ok_or_else(|| self.problem(Kind::Invalid, &path, "no answer states its length"))
    }

    fn whole(
        &self,
        response: ClientResponse,
        path: &str,
        size: Option<u64>,
    ) -> Result<Opened, Error> {
        let length = response.body.len();
        match (length, size) {
            (Some(length), Some(size)) if length != size => {
                Err(self.other_size(path, length, size))
            }
            (None, None) => Err(self.problem(Kind::Invalid, path, "no answer states its length")),
            _ => {
                let size = size.or(length).unwrap_or_default();
                Ok(Opened { body: response.body, start: 0, end: size, size })
            }
        }
    }

    /// What a 206 brings; none if it is not what was asked for.
    fn part(
        &self,
        response: ClientResponse,
        path: &str,
        start: u64,
        size: Option<u64>,
    ) -> Result<Option<Opened>, Error> {
        let range = response.headers.get("content-range").and_then(content_range);
        let Some((first, last, all)) = range else { return Ok(None) };
        if let Some((all, size)) = all.zip(size).filter(|(all, size)| all != size) {
            return Err(self.other_size(path, all, size));
        }
        let Some(size) = size.or(all) else { return Ok(None) };
        let end = last.saturating_add(1);
        let is_length =
            response.body.len().is_none_or(|length| Some(length) == end.checked_sub(first));
        let is_wanted = first <= start && start < end && end <= size;
        Ok((is_wanted && is_length).then_some(Opened {
            body: response.body,
            start: first,
            end,
            size,
        }))
    }

    fn other_size(&self, path: &str, length: u64, size: u64) -> Error {
        let what = format!("a blob of {length} bytes, expected {size}");
        self.problem(Kind::Invalid, path, what)
    }
}

/// Whether a server means the Range and not the blob: what else is refused by these statuses would
/// be refused again.
fn refuses_ranges(status: u16) -> bool {
    let is_other = matches!(status, 401 | 404 | 407 | 408 | 410 | 425 | 429);
    (400..500).contains(&status) && !is_other || status == 501
}

/// `bytes first-last/size`, of which the size may be `*`; written with any case, blanks and `=`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let text = text.trim();
    let unit = text.get(..5).filter(|unit| unit.eq_ignore_ascii_case("bytes"))?;
    let (range, size) = text.get(unit.len()..)?.split_once('/')?;
    let range = range.trim_start_matches([' ', '\t', '=']);
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let size = if size.trim() == "*" { None } else { Some(number(size)?) };
    Some((number(first)?, number(last)?, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_servers_write_them() {
        for text in ["bytes 5-9/20", "Bytes 5-9/20", "bytes=5-9/20", " bytes  5 - 9 / 20"] {
            assert_eq!(content_range(text), Some((5, 9, Some(20))), "{text}");
        }
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        for wrong in
            ["", "bytes */20", "bytes 5/9", "items 1-2/3", "bytes 5-x/9", "byt\u{e9}s 1-2/3"]
        {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn refusals_of_a_range() {
        assert!([400, 403, 405, 416, 501].into_iter().all(refuses_ranges));
        assert!(![200, 206, 401, 404, 429, 500, 503].into_iter().any(refuses_ranges));
    }
}
