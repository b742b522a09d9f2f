//! Image references as people write them: `docker.io/library/busybox:1.36`.
//!
//! Normalised as Docker and containerd do (distribution/reference): a first part without a dot, a
//! colon, an upper-case letter or the name `localhost` is no registry, and then the registry is
//! docker.io; an official image of docker.io lives under `library/`.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// A registry, a repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and optional port, such as `docker.io` or `10.0.0.1:5000`.
    pub registry: String,
    /// The name in the registry, such as `library/busybox`.
    pub repository: String,
    /// `latest` when the text had neither tag nor digest.
    pub tag: Option<String>,
    /// Pins the content, whatever the tag means at the registry.
    pub digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = |problem| ReferenceError { text: shortened(text), problem };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| error(EXPECTED_DIGEST))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest.get(name_start..).and_then(|last| last.find(':')) {
            Some(colon) => {
                let (name, tag) = rest.split_at(name_start + colon);
                (name, tag.strip_prefix(':'))
            }
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !valid_tag(tag)) {
            return Err(error("a tag of at most 128 letters, digits, _ . -"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
            _ => (DOCKER_IO, name.to_owned()),
        };
        let registry =
            registry_name(registry).ok_or(error("a registry host with an optional port"))?;
        let official = registry == DOCKER_IO && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository };
        if !valid_repository(&repository) {
            return Err(error("a repository of lower-case letters, digits, and . _ - / between"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

impl Reference {
    /// Whether both are held under the same tag; without a tag, whether both are the same content.
    pub fn is_same_tag(&self, other: &Self) -> bool {
        self.registry == other.registry
            && self.repository == other.repository
            && self.tag == other.tag
            && (self.tag.is_some() || self.digest == other.digest)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Whether `name` is a repository by the distribution-spec: path components of lower-case letters
/// and digits, with `.`, `_`, `__` or dashes between them; 255 bytes at most.
pub fn valid_repository(name: &str) -> bool {
    name.len() <= REPOSITORY_BYTES_MAX && name.split('/').all(valid_component)
}

/// Whether `tag` matches `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec).
pub fn valid_tag(tag: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    match tag.as_bytes() {
        [first, rest @ ..] => {
            word(first)
                && rest.len() < TAG_BYTES_MAX
                && rest.iter().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
        }
        [] => false,
    }
}

/// Whether `text` is a host with an optional port: a name, an IPv4 address, or an IPv6 one in
/// brackets.
pub fn valid_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                return address.parse::<std::net::Ipv6Addr>().is_ok() && valid_port(port);
            }
            None => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.len() <= REGISTRY_BYTES_MAX && host.split('.').all(label) && valid_port(port)
}

/// The one name of a registry that people write in several ways: in lower case, as host names are
/// the same in either, and `docker.io` for the hosts it answers at. `None` for what is no registry.
pub fn registry_name(text: &str) -> Option<String> {
    if !valid_registry(text) {
        return None;
    }
    let name = text.to_ascii_lowercase();
    match name.as_str() {
        "index.docker.io" | "registry-1.docker.io" => Some(DOCKER_IO.to_owned()),
        _ => Some(name),
    }
}

fn valid_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok_and(|port| port > 0),
        None => text.is_empty(),
    }
}

fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':', '['])
        || first.contains(|letter: char| letter.is_ascii_uppercase())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn valid_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.chunk_by(|a, b| alphanumeric(a) == alphanumeric(b)).all(|run| {
        run.first().is_some_and(alphanumeric)
            || matches!(run, b"." | b"_" | b"__")
            || run.iter().all(|byte| *byte == b'-')
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(ERROR_TEXT_MAX).collect()
}

/// Text that is not a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceError {
    text: String,
    problem: &'static str,
}

impl ReferenceError {
    /// What was expected.
    pub fn expected(&self) -> &'static str {
        self.problem
    }
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image reference {:?}: expected {}", self.text, self.problem)
    }
}

impl std::error::Error for ReferenceError {}

const DOCKER_IO: &str = "docker.io";
const REPOSITORY_BYTES_MAX: usize = 255;
const REGISTRY_BYTES_MAX: usize = 253;
const TAG_BYTES_MAX: usize = 128;
const ERROR_TEXT_MAX: usize = 200;

const EXPECTED_DIGEST: &str = "a digest sha256:<64 hex> or sha512:<128 hex>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalised_as_containerd_does() {
        let digest = Digest::sha256(b"x").to_string();
        for (text, normal) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("registry-1.docker.io/a/b:c", "docker.io/a/b:c"),
            ("Harbor.Example/a:c", "harbor.example/a:c"),
            ("localhost/x", "localhost/x:latest"),
            ("127.0.0.1:5000/x/y:v1", "127.0.0.1:5000/x/y:v1"),
            ("[::1]:5000/x:v1", "[::1]:5000/x:v1"),
            ("harbor.example/p/a__b/c-d.e:V_1", "harbor.example/p/a__b/c-d.e:V_1"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), normal);
        }
        let pinned: Reference = format!("ghcr.io/o/r:v1@{digest}").parse().unwrap();
        assert_eq!(pinned.to_string(), format!("ghcr.io/o/r:v1@{digest}"));
        let pinned: Reference = format!("ghcr.io/o/r@{digest}").parse().unwrap();
        assert_eq!(pinned.tag, None);
    }

    #[test]
    fn wrong_references_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":",
            "/",
            "a//b",
            "a/UPPER",
            "a/B",
            "a:",
            "a@sha256:1",
            "a:b c",
            "host:0/x",
            "host:99999/x",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "x/../y",
            "[::1/x",
            "ho_st.io/x",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!(!valid_tag(&"a".repeat(129)));
        assert!(valid_tag(&"a".repeat(128)));
    }
}
