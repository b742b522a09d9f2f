//! Desired state: which groups a satellite belongs to, and which images a group holds.
//!
//! Each is a file `artifacts.json`, the only one in the only layer of an image under the tag
//! `latest`: `satellite/satellite-state/<satellite>/state` lists the groups' artifacts and the
//! config's, `satellite/group-state/<group>/state` the images.

use serde::{Deserialize, Serialize};

use super::{Invalid, check_name, is_empty, or_default, shown};
use crate::clock::date::{parse_rfc3339, rfc3339};
use crate::oci::{DIGEST_FORM, Digest, Platform, valid_repository, valid_tag};

/// Of the answer to a look at a satellite-state: what stands for it and all that it names. As long
/// as it stays the same, none of that has changed. Go's Ground Control and registries do not say
/// it.
pub const WHOLE_STATE: &str = "moonlet-state";

/// The name of the only file in the only layer of a state artifact.
pub const FILE: &str = "artifacts.json";

/// What a satellite is to be: the satellite-state artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SatelliteState {
    /// URLs of the groups' artifacts.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    /// URL of the config's artifact; empty when there is none.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub config: String,
}

impl SatelliteState {
    /// Holds every URL to its form and the list to its limit.
    pub fn check(&self) -> Result<(), Invalid> {
        within("groups", self.states.len(), GROUPS_MAX)?;
        for state in &self.states {
            Url::parse(state)?;
        }
        if !self.config.is_empty() {
            Url::parse(&self.config)?;
        }
        Ok(())
    }
}

/// What a group holds: the group-state artifact, and the body of `POST /api/groups/sync`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupState {
    /// The group's name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The registry that the images come from, as a URL. Go satellites take the images from the
    /// registry that their state comes from, whatever this says.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub registry: String,
    /// The images.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// The platforms to hold, such as `linux/arm/v7`, or `all`; the device's own when empty. Go
    /// satellites do not read it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// What is to take the place of all that at a time. Go satellites do not read it, so that they
    /// hold what they held until Ground Control publishes the new images as the group's own.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub staged: Option<Staged>,
}

/// What a group is to hold from a time on: fetched and kept beside what it holds, and under no tag
/// that a client sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Staged {
    /// When it takes the group's place, as RFC 3339 has it; empty while that is not decided.
    #[serde(
        rename = "activateAt",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub activate_at: String,
    /// As the group's.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub registry: String,
    /// As the group's.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// As the group's.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
}

impl Staged {
    /// When it takes the group's place, in seconds since 1970, if that is decided.
    ///
    /// # Errors
    /// Names a time that is none.
    pub fn activate_at(&self) -> Result<Option<u64>, Invalid> {
        if self.activate_at.is_empty() {
            return Ok(None);
        }
        parse_time("activateAt", &self.activate_at).map(Some)
    }

    /// The group that it becomes.
    pub fn activated(self, group: &str) -> GroupState {
        let Self { registry, artifacts, platforms, .. } = self;
        GroupState { group: group.to_owned(), registry, artifacts, platforms, staged: None }
    }
}

/// What is said of images that wait for their time.
pub fn activation_text(at: Option<u64>) -> String {
    match at {
        Some(at) => format!("activates at {}", rfc3339(at)),
        None => "waits for its activation".to_owned(),
    }
}

/// Reads a time as RFC 3339 has it, in seconds since 1970.
///
/// # Errors
/// Names the value and what was expected.
pub fn parse_time(what: &str, text: &str) -> Result<u64, Invalid> {
    let wrong = || {
        let expected = "expected a time such as 2026-12-01T02:00:00Z";
        Invalid::new(format!("{what} {}: {expected}", shown(text)))
    };
    parse_rfc3339(text).ok_or_else(wrong)
}

impl GroupState {
    /// Holds names, tags, digests and the registry to their grammars, and lists to their limits.
    pub fn check(&self) -> Result<(), Invalid> {
        check_name("group", &self.group)?;
        if !self.registry.is_empty() {
            check_base(&self.registry)?;
        }
        within("platforms", self.platforms.len(), PLATFORMS_MAX)?;
        for text in &self.platforms {
            let is_known = text == ALL_PLATFORMS || text.parse::<Platform>().is_ok();
            if text.len() > KIND_BYTES_MAX || !is_known {
                return Err(Invalid::new(format!(
                    "platform {}: expected os/architecture[/variant], or all",
                    shown(text)
                )));
            }
        }
        within("artifacts", self.artifacts.len(), ARTIFACTS_MAX)?;
        self.artifacts.iter().try_for_each(Artifact::check)?;
        let Some(staged) = &self.staged else { return Ok(()) };
        staged.activate_at()?;
        staged.clone().activated(&self.group).check()
    }
}

/// One repository of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Artifact {
    /// The repository, such as `library/nginx`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub repository: String,
    /// Its tags; Go calls the list `tag`.
    #[serde(
        rename = "tag",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tags: Vec<String>,
    /// Labels as Harbor sends them. Go defines no form for them; they are passed on.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub labels: Option<serde_json::Value>,
    /// `IMAGE`, `CHART` or nothing.
    #[serde(rename = "type", deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub kind: String,
    /// What the tags mean, when known.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// The image is to be removed.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub deleted: bool,
}

impl Artifact {
    /// Takes `repository:tag`, `repository@digest` or `repository:tag@digest` apart.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let (name, digest) = text.split_once('@').unwrap_or((text, ""));
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (name, None),
        };
        let artifact = Self {
            repository: repository.to_owned(),
            tags: tag.into_iter().collect(),
            kind: IMAGE.to_owned(),
            digest: digest.to_owned(),
            ..Self::default()
        };
        if text.ends_with('@') {
            return Err(Invalid::new(format!("{}: expected a digest after the @", shown(text))));
        }
        artifact.check()?;
        Ok(artifact)
    }

    /// What it names, in the form that `parse` takes: one for each tag.
    pub fn references(&self) -> impl Iterator<Item = String> + use<'_> {
        let Self { repository, tags, digest, .. } = self;
        let digest = if digest.is_empty() { String::new() } else { format!("@{digest}") };
        let bare = tags.is_empty().then(|| format!("{repository}{digest}"));
        tags.iter().map(move |tag| format!("{repository}:{tag}{digest}")).chain(bare)
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Result<Option<Digest>, Invalid> {
        if self.digest.is_empty() {
            return Ok(None);
        }
        let digest = self.digest.parse().map_err(|_| {
            Invalid::new(format!(
                "digest {} of {}: expected {DIGEST_FORM}",
                shown(&self.digest),
                shown(&self.repository)
            ))
        })?;
        Ok(Some(digest))
    }

    fn check(&self) -> Result<(), Invalid> {
        if !valid_repository(&self.repository) {
            return Err(Invalid::new(format!(
                "repository {}: expected lower-case letters, digits, and . _ - / between",
                shown(&self.repository)
            )));
        }
        within("tags of a repository", self.tags.len(), TAGS_MAX)?;
        if let Some(tag) = self.tags.iter().find(|tag| !valid_tag(tag)) {
            return Err(Invalid::new(format!(
                "tag {} of {}: expected at most 128 letters, digits, _ . -",
                shown(tag),
                self.repository
            )));
        }
        if self.tags.is_empty() && self.digest.is_empty() {
            return Err(Invalid::new(format!(
                "repository {}: expected a tag or a digest",
                self.repository
            )));
        }
        if self.kind.len() > KIND_BYTES_MAX {
            return Err(Invalid::new(format!(
                "type {} of {}: expected at most {KIND_BYTES_MAX} bytes",
                shown(&self.kind),
                self.repository
            )));
        }
        self.digest().map(drop)
    }
}

/// Where a state artifact is: `https://host[:port]/repository:tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Scheme and host: `https://harbor.example`.
    pub base: String,
    /// Such as `satellite/group-state/g1/state`.
    pub repository: String,
    /// `latest` when the URL names none.
    pub tag: String,
}

impl Url {
    /// Takes a URL apart.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong =
            || Invalid::new(format!("state {}: expected https://host/repository:tag", shown(text)));
        if text.len() > URL_BYTES_MAX {
            return Err(wrong());
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').ok_or_else(wrong)?;
        let (repository, tag) = path.split_once(':').unwrap_or((path, "latest"));
        let base = format!("{scheme}://{host}");
        check_base(&base).map_err(|_| wrong())?;
        if !valid_repository(repository) || !valid_tag(tag) {
            return Err(wrong());
        }
        Ok(Self { base, repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

/// A registry's address is a scheme and a host: no user, path or query, and nothing that a parser
/// of URLs makes good silently, such as blanks or `https:host`.
pub(super) fn check_base(text: &str) -> Result<(), Invalid> {
    let plain = text.strip_suffix('/').unwrap_or(text);
    let is_plain = |url: url::Url| {
        let host = url.host_str().unwrap_or_default();
        let base = format!("{}://{host}", url.scheme());
        // The port may be written though it is the scheme's own.
        let with_port = url.port_or_known_default().map(|port| format!("{base}:{port}"));
        ["http", "https"].contains(&url.scheme())
            && [Some(base), with_port].iter().flatten().any(|base| plain.eq_ignore_ascii_case(base))
    };
    if text.len() <= URL_BYTES_MAX && url::Url::parse(plain).is_ok_and(is_plain) {
        return Ok(());
    }
    Err(Invalid::new(format!("registry {}: expected https://host or http://host", shown(text))))
}

/// The repository of a satellite's state.
pub fn satellite_repository(satellite: &str) -> String {
    format!("satellite/satellite-state/{satellite}/state")
}

/// The repository of a group's state.
pub fn group_repository(group: &str) -> String {
    format!("satellite/group-state/{group}/state")
}

/// The repository of a version of a group's state, as a rollout brings it to some satellites first.
pub fn version_repository(group: &str, version: i64) -> String {
    format!("satellite/group-state/{group}/{version}/state")
}

/// The repository of a config.
pub fn config_repository(config: &str) -> String {
    format!("satellite/config-state/{config}/state")
}

pub(super) fn within(what: &str, count: usize, max: usize) -> Result<(), Invalid> {
    if count > max {
        return Err(Invalid::new(format!("{count} {what}: expected at most {max}")));
    }
    Ok(())
}

/// Groups of one satellite.
pub const GROUPS_MAX: usize = 64;
/// Repositories of one group.
pub const ARTIFACTS_MAX: usize = 1000;
/// Platforms of one group.
pub const PLATFORMS_MAX: usize = 16;
/// In place of platforms: all that an image has.
pub const ALL_PLATFORMS: &str = "all";
/// Tags of one repository in a group.
pub const TAGS_MAX: usize = 100;
/// The largest `artifacts.json` that a satellite reads and Ground Control publishes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
const URL_BYTES_MAX: usize = 1024;
/// The kind of what is no chart.
const IMAGE: &str = "IMAGE";
const KIND_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Result<GroupState, Invalid> {
        let group: GroupState =
            serde_json::from_str(text).map_err(|error| Invalid::new(error.to_string()))?;
        group.check().map(|()| group)
    }

    #[test]
    fn nulls_and_unknown_fields_are_taken() {
        let group = group(
            r#"{"group":"g1","registry":null,"policy":{"x":1},"artifacts":[
                {"repository":"library/nginx","tag":["1.25"],"labels":null,"type":null,
                 "digest":null,"deleted":null,"size":5}]}"#,
        )
        .unwrap();
        let artifact = group.artifacts.first().unwrap();
        assert_eq!((artifact.tags.len(), artifact.digest().unwrap()), (1, None));
        assert_eq!(
            serde_json::to_string(&group).unwrap(),
            r#"{"group":"g1","artifacts":[{"repository":"library/nginx","tag":["1.25"]}]}"#
        );
        let empty: SatelliteState =
            serde_json::from_str(r#"{"states":null,"config":null}"#).unwrap();
        empty.check().unwrap();
        assert_eq!(serde_json::to_string(&empty).unwrap(), "{}");
    }

    #[test]
    fn what_can_never_work_is_named() {
        for (text, part) in [
            (r#"{"group":"G"}"#, r#"group "G""#),
            (r#"{"group":"g","registry":"ftp://x"}"#, "registry"),
            (r#"{"group":"g","registry":"http://u:p@x"}"#, "registry"),
            (r#"{"group":"g","registry":"http://x/y"}"#, "registry"),
            (r#"{"group":"g","platforms":["arm"]}"#, r#"platform "arm""#),
            (r#"{"group":"g","artifacts":[{}]}"#, "repository"),
            (r#"{"group":"g","artifacts":[{"repository":"../x","tag":["1"]}]}"#, "repository"),
            (r#"{"group":"g","artifacts":[{"repository":"x"}]}"#, "a tag or a digest"),
            (r#"{"group":"g","artifacts":[{"repository":"x","tag":["a b"]}]}"#, r#"tag "a b""#),
            (r#"{"group":"g","artifacts":[{"repository":"x","digest":"sha256:1"}]}"#, "digest"),
        ] {
            let error = group(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = vec!["http://h/satellite/group-state/g/state:latest".to_owned(); GROUPS_MAX + 1];
        assert!(SatelliteState { states: many, config: String::new() }.check().is_err());
    }

    #[test]
    fn what_is_staged_is_held_to_the_same() {
        let text = r#"{"group":"g1","artifacts":[{"repository":"app","tag":["1"]}],"staged":
            {"activateAt":"2026-12-01T02:00:00Z","artifacts":[{"repository":"app","tag":["2"]}]}}"#;
        let group = group(text).unwrap();
        let staged = group.staged.clone().unwrap();
        assert_eq!(staged.activate_at(), Ok(Some(1_796_090_400)));
        assert_eq!(staged.activated("g1").artifacts[0].tags, ["2"]);
        assert_eq!(serde_json::to_string(&group).unwrap(), text.replace(char::is_whitespace, ""));
        for (bad, part) in [
            (text.replace("02:00:00Z", "02:00"), "activateAt \"2026"),
            (text.replace(r#"["2"]"#, r#"["a b"]"#), "tag \"a b\""),
        ] {
            let error = self::group(&bad).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_an_image_is_written_as_is_read_again() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for text in [
            "library/nginx:1.25".to_owned(),
            format!("a/b@{digest}"),
            format!("library/nginx:1.25@{digest}"),
        ] {
            let artifact = Artifact::parse(&text).unwrap();
            assert_eq!(
                (artifact.references().collect::<Vec<_>>(), &*artifact.kind),
                (vec![text], "IMAGE")
            );
        }
        let two =
            Artifact { tags: vec!["1".into(), "2".into()], ..Artifact::parse("a:1").unwrap() };
        assert_eq!(two.references().collect::<Vec<_>>(), ["a:1", "a:2"]);
        for (bad, part) in [
            ("", "repository \"\""),
            ("a", "a tag or a digest"),
            ("a:", "tag \"\""),
            ("a@x", "digest \"x\""),
            ("a:1@", "after the @"),
            ("h:5000/a:1", "repository \"h:5000/a\""),
            ("https://h/a:1", "repository \"https://h/a\""),
        ] {
            let error = Artifact::parse(bad).unwrap_err().to_string();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn an_address_is_only_what_it_says() {
        for good in [
            "https://harbor.example",
            "http://127.0.0.1:5000/",
            "https://Harbor.example:443",
            "http://[::1]:80",
        ] {
            assert_eq!(check_base(good), Ok(()), "{good}");
        }
        for bad in [
            "https:harbor.example",
            "https:/harbor.example",
            "https:///harbor.example",
            " https://harbor.example",
            "https://harbor.example ",
            "https://harbor\t.example",
            "https://@harbor.example",
            "https://:@harbor.example",
            "https://harbor.example//",
            "https://harbor.example:",
            "https://harbor.example?",
            "https://harbor.example#",
            "https:\\\\harbor.example",
            "https://0x7f.1",
            "https://",
            "harbor.example",
        ] {
            let error = check_base(bad).unwrap_err().to_string();
            assert!(error.contains("registry \""), "{bad}: {error}");
        }
    }

    #[test]
    fn a_state_url_is_taken_apart() {
        let url =
            Url::parse("http://127.0.0.1:5000/satellite/group-state/g1/state:latest").unwrap();
        assert_eq!(url.base, "http://127.0.0.1:5000");
        assert_eq!(url.repository, group_repository("g1"));
        assert_eq!(url.tag, "latest");
        assert_eq!(Url::parse("https://h/a/b").unwrap().tag, "latest");
        for bad in
            ["", "h/a:b", "https://h", "file:///etc/passwd", "https://h/../x:y", "https:///a"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}
