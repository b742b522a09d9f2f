//! Paths of the read API: distribution-spec "Endpoints".

use percent_encoding::percent_decode_str;

use crate::oci::{Digest, valid_registry, valid_repository};

/// What a path asks for.
#[derive(Debug, PartialEq)]
pub struct Route {
    /// The repository as it stands in the path.
    pub name: String,
    /// What of it; none for `/v2/` itself.
    pub target: Option<Target>,
}

/// The four things a repository has, and the list of those.
#[derive(Debug, PartialEq)]
pub enum Target {
    /// A manifest by tag or digest.
    Manifest(String),
    /// A blob.
    Blob(Digest),
    /// The list of tags.
    Tags,
    /// What refers to a manifest.
    Referrers(Digest),
    /// The list of repositories.
    Catalog,
}

/// Why a path is none of these.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The distribution-spec's code.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Route {
    /// Reads a path as it was sent.
    pub fn parse(path: &str) -> Result<Self, Refusal> {
        let unknown = || refuse(404, "NAME_UNKNOWN", format!("{path:?}: expected /v2/..."));
        let path = percent_decode_str(path).decode_utf8().map_err(|_| unknown())?;
        let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
        if rest.is_empty() || rest == "/" {
            return Ok(Self { name: String::new(), target: None });
        }
        let rest = rest.strip_prefix('/').ok_or_else(unknown)?;
        if rest == "_catalog" {
            return Ok(Self { name: String::new(), target: Some(Target::Catalog) });
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Self::of(name, Target::Tags);
        }
        // The last two segments: names may contain any of these words themselves.
        let (head, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        let (name, word) = head.rsplit_once('/').ok_or_else(unknown)?;
        match word {
            "manifests" => Self::of(name, Target::Manifest(reference(last)?)),
            "blobs" => Self::of(name, Target::Blob(digest(last)?)),
            "referrers" => Self::of(name, Target::Referrers(digest(last)?)),
            _ => Err(unknown()),
        }
    }

    fn of(name: &str, target: Target) -> Result<Self, Refusal> {
        // As podman and CRI-O name mirrors: a registry, which may have a port, comes first.
        let behind = name.split_once('/').filter(|(first, _)| valid_registry(first));
        if !valid_repository(name) && !behind.is_some_and(|(_, rest)| valid_repository(rest)) {
            let what = format!("{name:?} is no repository name");
            return Err(refuse(400, "NAME_INVALID", what));
        }
        Ok(Self { name: name.to_owned(), target: Some(target) })
    }
}

fn reference(text: &str) -> Result<String, Refusal> {
    if text.contains(':') {
        digest(text)?;
    }
    Ok(text.to_owned())
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error| refuse(400, "DIGEST_INVALID", format!("{error}")))
}

fn refuse(status: u16, code: &'static str, message: String) -> Refusal {
    Refusal { status, code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let digest = Digest::sha256(b"x");
        let route = |path: &str| Route::parse(path).map(|route| (route.name, route.target));
        assert_eq!(route("/v2/"), Ok((String::new(), None)));
        assert_eq!(route("/v2"), Ok((String::new(), None)));
        let manifest = Some(Target::Manifest("v1".to_owned()));
        assert_eq!(route("/v2/a/b/manifests/v1"), Ok(("a/b".to_owned(), manifest)));
        let encoded = digest.to_string().replace(':', "%3A");
        let blob = Some(Target::Blob(digest));
        assert_eq!(route(&format!("/v2/a/blobs/{encoded}")), Ok(("a".to_owned(), blob)));
        let odd = route("/v2/manifests/blobs/tags/list");
        assert_eq!(odd, Ok(("manifests/blobs".to_owned(), Some(Target::Tags))));
        assert_eq!(route("/v2/_catalog"), Ok((String::new(), Some(Target::Catalog))));
        for registry in ["localhost:5000", "localhost%3A5000", "10.0.0.1%3a5000", "Reg.Test:443"] {
            let tags = route(&format!("/v2/{registry}/library/busybox/tags/list"));
            let name = format!("{}/library/busybox", registry.replace("%3A", ":"));
            assert_eq!(tags, Ok((name.replace("%3a", ":"), Some(Target::Tags))));
        }
        for (path, status) in [
            ("/v2/localhost:0/app/manifests/x", 400),
            ("/v2/localhost:5000/manifests/x", 400),
            ("/v2/app:5000/App/manifests/x", 400),
            ("/v2/_catalog/", 404),
            ("/v3/", 404),
            ("/v2x", 404),
            ("/v2/a", 404),
            ("/v2/a/blobs/md5:0", 400),
            ("/v2/A/manifests/x", 400),
            ("/v2/../manifests/x", 400),
            ("/v2/a/manifests/%ff", 404),
            ("/v2/a/manifests/sha256:0", 400),
            ("/v2/a/referrers/v1", 400),
        ] {
            assert_eq!(route(path).unwrap_err().status, status, "{path}");
        }
    }
}
