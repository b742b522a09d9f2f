//! What is asked for of a blob, and in which form it is sent: RFC 9110 section 14.
//!
//! One range is sent as it is. Several leave as `multipart/byteranges`, in the order in which they
//! were asked for and none of them joined with another: podman counts the parts, and takes a single
//! part for an error. What would have a small device send some bytes twice (ranges that overlap), or
//! do much work for few (more than [`RANGES_MAX`]), is answered with the whole, as is a range in
//! words that are none; one that ends before it begins is refused.

use std::ops::Range;

use super::{content, problem};
use crate::net::http::{Headers, ResponseBody, ServerRequest, ServerResponse};
use crate::oci::Digest;

/// The ranges of a blob that are to be sent.
pub(super) struct Window {
    /// At least one; none is empty but that of an empty blob.
    pub ranges: Vec<Range<u64>>,
    form: Form,
    /// Bytes of the whole blob.
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Whole,
    Part,
    /// Also when only one of the ranges that were asked for is there.
    Parts,
}

impl Window {
    /// What `request` asks for of a blob of `size` bytes; the answer, if the blob does not have it.
    pub fn of(request: &ServerRequest, digest: &Digest, size: u64) -> Result<Self, ServerResponse> {
        let etag = format!("\"{digest}\"");
        let applies = request.headers.get("if-range").is_none_or(|value| value == etag);
        let wanted = request.headers.get("range").filter(|_| applies);
        let wanted = wanted.and_then(|text| parse(text, size));
        let (form, ranges) =
            wanted.unwrap_or_else(|| (Form::Whole, std::iter::once(0..size).collect()));
        if ranges.is_empty() {
            let mut response = problem(416, "RANGE_INVALID", "the range is not in the blob");
            response.headers.append("content-range", format!("bytes */{size}"));
            return Err(response);
        }
        Ok(Self { ranges, form, size })
    }

    /// The answer, of bodies that `body` makes.
    pub fn response(
        self,
        digest: &Digest,
        mut body: impl FnMut(Range<u64>) -> ResponseBody,
    ) -> ServerResponse {
        let Self { mut ranges, form, size } = self;
        let mut headers = Headers::new();
        let said = |range: &Range<u64>| format!("bytes {}-{}/{size}", range.start, range.end - 1);
        if form != Form::Parts {
            headers.append("content-type", OCTETS);
        }
        headers.append("accept-ranges", "bytes");
        content(&mut headers, digest);
        let (status, body) = match (form, ranges.pop()) {
            (Form::Whole, last) => (200, body(last.unwrap_or_default())),
            (Form::Part, last) => {
                let range = last.unwrap_or_default();
                headers.append("content-range", said(&range));
                (206, body(range))
            }
            (Form::Parts, last) => {
                // Nothing has its own digest within it.
                let mut boundary = digest.to_string().replace(':', "");
                boundary.truncate(BOUNDARY_BYTES_MAX);
                headers
                    .append("content-type", format!("multipart/byteranges; boundary={boundary}"));
                let parts = ranges.into_iter().chain(last).map(|range| {
                    let lines =
                        format!("content-type: {OCTETS}\r\ncontent-range: {}", said(&range));
                    (format!("\r\n--{boundary}\r\n{lines}\r\n\r\n"), body(range))
                });
                let end = (format!("\r\n--{boundary}--\r\n"), ResponseBody::Empty);
                (206, ResponseBody::Parts(parts.chain([end]).collect()))
            }
        };
        ServerResponse { status, headers, body }
    }
}

/// Reads a Range line for a blob of `size` bytes; none if the whole is to be sent. No range at all:
/// the blob has nothing of what was asked for.
fn parse(text: &str, size: u64) -> Option<(Form, Vec<Range<u64>>)> {
    let (unit, set) = text.trim().split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty elements of a list mean nothing: RFC 9110 section 5.6.1.
    let all = set.split(',').map(|spec| spec.trim_matches([' ', '\t']));
    let all = all.filter(|spec| !spec.is_empty());
    let (mut ranges, mut count) = (Vec::new(), 0);
    let mut is_backwards = false;
    for spec in all {
        count += 1;
        if count > RANGES_MAX {
            return None;
        }
        let (first, last) = spec.split_once('-')?;
        let range = match (first, last) {
            ("", last) => size.saturating_sub(number(last)?)..size,
            (first, "") => number(first)?..size,
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                is_backwards |= last < first;
                first..last.saturating_add(1).min(size)
            }
        };
        if !range.is_empty() {
            ranges.push(range);
        }
    }
    if is_backwards {
        ranges.clear();
    }
    let mut sorted: Vec<&Range<u64>> = ranges.iter().collect();
    sorted.sort_by_key(|range| range.start);
    let overlap = |pair: &[&Range<u64>]| matches!(pair, [one, other] if one.end > other.start);
    if count == 0 || sorted.windows(2).any(overlap) {
        return None;
    }
    Some((if count == 1 { Form::Part } else { Form::Parts }, ranges))
}

/// A number of any length.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Ranges of one request.
const RANGES_MAX: usize = 16;
/// RFC 2046 section 5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;
const OCTETS: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |range: Range<u64>| Some((Form::Part, vec![range]));
        let parts = |ranges: &[Range<u64>]| Some((Form::Parts, ranges.to_vec()));
        let outside = |form| Some((form, Vec::new()));
        for (text, expected) in [
            ("bytes=0-3", part(0..4)),
            (" Bytes=5- ", part(5..10)),
            ("bytes=-3", part(7..10)),
            ("bytes=-30", part(0..10)),
            ("bytes=8-99", part(8..10)),
            ("bytes=0-18446744073709551615", part(0..10)),
            ("bytes=0-99999999999999999999999", part(0..10)),
            ("bytes=10-", outside(Form::Part)),
            ("bytes=99999999999999999999999-", outside(Form::Part)),
            ("bytes=5-2", outside(Form::Part)),
            ("bytes=-0", outside(Form::Part)),
            ("bytes=0-1,4-5", parts(&[0..2, 4..6])),
            ("bytes=4-5 ,\t0-3,-1", parts(&[4..6, 0..4, 9..10])),
            ("bytes=,0-1,,", part(0..2)),
            ("bytes=0-1,10-", parts(std::slice::from_ref(&(0..2)))),
            ("bytes=10-,-0", outside(Form::Parts)),
            ("bytes=0-1,5-2", outside(Form::Parts)),
            ("bytes=0-4,4-5", None),
            ("bytes=5-9,-6", None),
            ("bytes=0-,0-,0-", None),
            ("bytes=0-1,x", None),
            ("bytes=", None),
            ("bytes=,", None),
            ("bytes", None),
            ("items=0-1", None),
            ("bytes=x-", None),
            ("bytes=-", None),
            ("bytes=--1", None),
            ("bytes=+0-1", None),
            ("bytes=0 - 1", None),
            ("bytes=0-1-2", None),
        ] {
            assert_eq!(parse(text, 10), expected, "{text}");
        }
        assert_eq!(parse("bytes=0-", 0), outside(Form::Part));
        assert_eq!(parse("bytes=-1", 0), outside(Form::Part));
    }

    #[test]
    fn only_so_many_ranges_are_taken_apart() {
        let some = |count: u64| {
            let ranges: Vec<String> = (0..count).map(|at| format!("{}-{0}", 2 * at)).collect();
            parse(&format!("bytes={}", ranges.join(",")), 1 << 20)
        };
        let max = u64::try_from(RANGES_MAX).unwrap();
        assert_eq!(some(max).map(|(_, ranges)| ranges.len()), Some(RANGES_MAX));
        assert_eq!(some(max + 1), None);
    }
}
