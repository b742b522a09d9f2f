//! Manifests and indexes, read but never written: their bytes are kept as the registry sent them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest, Platform, media_type};

/// Points to content (image-spec descriptor.md). Unknown fields are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// In an index: what the child runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// In a list of referrers: what the referrer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor with nothing optional.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// The parts of a manifest or an index that Moonlet acts on.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What it is; from its own `mediaType`, else from the Content-Type, else from its shape.
    pub media_type: String,
    /// What it holds, when it is no image; falls back to the config's media type.
    pub artifact_type: Option<String>,
    /// What it refers to, when it is a signature, an SBOM and the like.
    pub subject: Option<Descriptor>,
    /// Free text by key.
    pub annotations: BTreeMap<String, String>,
    /// What it points to.
    pub kind: ManifestKind,
}

/// The two shapes.
#[derive(Clone, Debug)]
pub enum ManifestKind {
    /// An index: manifests for several platforms.
    Index {
        /// The children.
        manifests: Vec<Descriptor>,
    },
    /// An image or an artifact.
    Image {
        /// Its configuration.
        config: Box<Descriptor>,
        /// Its layers.
        layers: Vec<Descriptor>,
    },
}

impl Manifest {
    /// Reads a manifest's bytes; `content_type` is what the registry called them.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            let length = bytes.len();
            return Err(ManifestError(format!(
                "manifest of {length} bytes, expected at most {MANIFEST_BYTES_MAX}"
            )));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
            let start: String =
                String::from_utf8_lossy(bytes).chars().take(40).map(printable).collect();
            ManifestError(format!("manifest is not JSON of the expected form: {error}: {start:?}"))
        })?;
        let content_type = content_type.map(|text| text.split(';').next().unwrap_or("").trim());
        let schema1 = [media_type::DOCKER_SCHEMA1, media_type::DOCKER_SCHEMA1_SIGNED];
        if raw.schema_version != 2 || content_type.is_some_and(|text| schema1.contains(&text)) {
            let version = raw.schema_version;
            return Err(ManifestError(format!("manifest schema {version}, expected 2")));
        }
        let named = raw.media_type.as_deref().or(content_type);
        let named = named.filter(|text| media_type::is_manifest(text)).map(str::to_owned);
        let media_type = named.unwrap_or_else(|| {
            let index = raw.manifests.is_some();
            if index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST }.to_owned()
        });
        let kind = match (media_type::is_index(&media_type), raw.manifests, raw.config) {
            (true, Some(manifests), None) => ManifestKind::Index { manifests },
            (false, None, Some(config)) => ManifestKind::Image {
                config: Box::new(config),
                layers: raw.layers.unwrap_or_default(),
            },
            _ => {
                return Err(ManifestError(format!(
                    "{media_type} is ambiguous: expected manifests in an index, config and layers \
                     in an image, never both"
                )));
            }
        };
        let config_type = match &kind {
            ManifestKind::Image { config, .. } => Some(config.media_type.clone()),
            ManifestKind::Index { .. } => None,
        };
        let manifest = Self {
            media_type,
            artifact_type: raw.artifact_type.filter(|text| !text.is_empty()).or(config_type),
            subject: raw.subject,
            annotations: raw.annotations.unwrap_or_default(),
            kind,
        };
        if let Some(child) = manifest.children().find(|child| child.size > CONTENT_BYTES_MAX) {
            let Descriptor { digest, size, .. } = child;
            return Err(ManifestError(format!(
                "{digest} is of {size} bytes, expected at most {CONTENT_BYTES_MAX}"
            )));
        }
        Ok(manifest)
    }

    /// All content that it names: an index's manifests, or an image's configuration and layers.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        let (first, rest) = match &self.kind {
            ManifestKind::Index { manifests } => (None, manifests),
            ManifestKind::Image { config, layers } => (Some(config.as_ref()), layers),
        };
        first.into_iter().chain(rest)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

fn printable(letter: char) -> char {
    if letter.is_control() { ' ' } else { letter }
}

/// Bytes that are not a manifest that Moonlet can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError(String);

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ManifestError {}

/// The largest content that a manifest may name, in bytes: no device holds more, and all sums of
/// what manifests name stay far from overflowing.
const CONTENT_BYTES_MAX: u64 = 1 << 40;
/// The largest manifest taken in, in bytes: what the distribution-spec lets a registry refuse
/// above, and what clients accept.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, content_type: Option<&str>) -> Result<Manifest, String> {
        Manifest::parse(json.as_bytes(), content_type).map_err(|error| error.to_string())
    }

    #[test]
    fn shapes() {
        let digest = Digest::sha256(b"x");
        let thing = format!(r#"{{"mediaType":"t","digest":"{digest}","size":3,"unknown":1}}"#);
        let image = format!(r#"{{"schemaVersion":2,"config":{thing},"layers":[{thing},{thing}]}}"#);
        let manifest = parse(&image, None).unwrap();
        assert_eq!(manifest.media_type, media_type::OCI_MANIFEST);
        assert_eq!(manifest.artifact_type.as_deref(), Some("t"));
        assert_eq!(manifest.children().count(), 3);
        let manifest = parse(&image, Some(media_type::DOCKER_MANIFEST)).unwrap();
        assert_eq!(manifest.media_type, media_type::DOCKER_MANIFEST);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{thing}],"subject":{thing}}}"#);
        let manifest = parse(&index, Some("application/json")).unwrap();
        assert_eq!(manifest.media_type, media_type::OCI_INDEX);
        assert_eq!(manifest.subject.map(|subject| subject.digest), Some(digest));
    }

    #[test]
    fn what_is_no_manifest_is_refused_in_one_line() {
        let html = parse("<html>\n<body>login", None).unwrap_err();
        assert!(html.contains("<html> <body>login"), "{html}");
        for json in ["{}", "[]", "null", r#"{"schemaVersion":2}"#, r#"{"schemaVersion":1}"#] {
            assert!(!parse(json, None).unwrap_err().contains('\n'), "{json}");
        }
        let digest = Digest::sha256(b"x");
        let thing = format!(r#"{{"digest":"{digest}","size":-1}}"#);
        assert!(parse(&format!(r#"{{"schemaVersion":2,"config":{thing}}}"#), None).is_err());
        let thing = format!(r#"{{"digest":"{digest}","size":{}}}"#, u64::MAX);
        let huge = parse(&format!(r#"{{"schemaVersion":2,"config":{thing}}}"#), None);
        assert!(huge.unwrap_err().contains("expected at most 1099511627776"));
        let big = vec![b' '; usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1];
        assert!(Manifest::parse(&big, None).is_err());
        let thing = format!(r#"{{"digest":"{digest}","size":1}}"#);
        let both = format!(r#"{{"schemaVersion":2,"config":{thing},"manifests":[{thing}]}}"#);
        assert!(parse(&both, None).unwrap_err().contains("ambiguous"));
    }
}
