//! Credentials as a client shows them, and what is said to one that has to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::problem;
use crate::net::http::ServerResponse;

/// User and password of a header line of Basic (RFC 7617).
pub(super) fn basic(value: &str) -> Option<(String, Vec<u8>)> {
    let (scheme, pair) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(pair.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(pair.get(..colon)?.to_vec()).ok()?;
    Some((user, pair.get(colon + 1..)?.to_vec()))
}

/// Whether these are no credentials: podman and skopeo send an empty user where they have none.
pub(super) fn is_blank(value: &str) -> bool {
    basic(value).is_some_and(|(user, password)| user.is_empty() && password.is_empty())
}

pub(super) fn refusal(why: &str) -> ServerResponse {
    let mut response = problem(401, "UNAUTHORIZED", why);
    response.headers.append("www-authenticate", "Basic realm=\"moonlet\", charset=\"UTF-8\"");
    response
}
