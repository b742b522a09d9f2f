//! Manifests and indexes, read but never written: their bytes are kept as the registry sent them.
//!
//! Read as they come ([`Manifest::read`]), into no more than what is acted on: annotations and
//! unknown members are passed over, and lists have limits of their own, because an item of 80 bytes
//! can be made of one of 8.

mod raw;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use raw::{Annotated, OPENING_BYTES, Opening, Raw, printable};

use super::json::read;
use super::{Digest, Platform, media_type};

/// Points to a configuration or a layer (image-spec descriptor.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Whether a registry may well not have it, and images are used without it.
    pub is_foreign: bool,
}

/// Points to a manifest of an index or of a list of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes; 0 where the index does not say it.
    pub size: u64,
    /// What it runs on.
    pub platform: Option<Platform>,
    /// The child that it is an attestation of (`BuildKit`'s `vnd.docker.reference.digest`).
    pub attests: Option<Digest>,
}

/// The parts of a manifest or an index that Moonlet acts on.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What it is; from its own `mediaType`, else from the Content-Type, else from its shape.
    pub media_type: &'static str,
    /// What it holds, when it is no image; falls back to the config's media type.
    pub artifact_type: Option<String>,
    /// What it refers to, when it is a signature, an SBOM and the like.
    pub subject: Option<Digest>,
    /// What it points to.
    pub kind: ManifestKind,
}

/// The two shapes.
#[derive(Clone, Debug)]
pub enum ManifestKind {
    /// An index: manifests for several platforms.
    Index {
        /// The children.
        manifests: Vec<Child>,
    },
    /// An image or an artifact.
    Image {
        /// Its configuration.
        config: Descriptor,
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
        Self::read(bytes, content_type)
    }

    /// As [`Manifest::parse`], from any source of bytes, one after the other.
    pub fn read(mut source: impl Read, content_type: Option<&str>) -> Result<Self, ManifestError> {
        Self::read_any(&mut source, content_type)
    }

    fn read_any(source: &mut dyn Read, content_type: Option<&str>) -> Result<Self, ManifestError> {
        let mut source = Opening { source, bytes: Vec::new() };
        let raw = read::<Raw>(&mut source).map_err(|error| {
            let start = String::from_utf8_lossy(&source.bytes);
            let start: String = start.chars().take(OPENING_BYTES).map(printable).collect();
            ManifestError(format!("manifest is not of the expected form: {error}: {start:?}"))
        })?;
        Self::new(raw.unwrap_or_default(), content_type)
    }

    fn new(raw: Raw, content_type: Option<&str>) -> Result<Self, ManifestError> {
        let content_type = content_type.map(|text| text.split(';').next().unwrap_or("").trim());
        let schema1 = [media_type::DOCKER_SCHEMA1, media_type::DOCKER_SCHEMA1_SIGNED];
        let version = raw.schema_version.unwrap_or(2);
        if version != 2 || content_type.is_some_and(|text| schema1.contains(&text)) {
            return Err(ManifestError(format!("manifest schema {version}, expected 2")));
        }
        let named = raw.media_type.as_deref().and_then(media_type::manifest);
        let named = named.or_else(|| content_type.and_then(media_type::manifest));
        let by_shape = match raw.manifests {
            Some(_) => media_type::OCI_INDEX,
            None => media_type::OCI_MANIFEST,
        };
        let media_type = named.unwrap_or(by_shape);
        let (kind, config_type) = match (media_type::is_index(media_type), raw.config) {
            (true, None) if raw.layers.is_none() => {
                (ManifestKind::Index { manifests: raw.manifests.unwrap_or_default() }, None)
            }
            (false, Some(config)) if raw.manifests.is_none() => {
                let config_type = config.media_type.clone();
                let config = config.descriptor().map_err(ManifestError)?;
                let layers = raw.layers.unwrap_or_default();
                (ManifestKind::Image { config, layers }, config_type)
            }
            _ => {
                return Err(ManifestError(format!(
                    "{media_type} is ambiguous: expected manifests in an index, config and layers \
                     in an image, never both"
                )));
            }
        };
        let artifact_type = raw.artifact_type.filter(|text| !text.is_empty()).or(config_type);
        Ok(Self { media_type, artifact_type, subject: raw.subject, kind })
    }

    /// The annotations of a manifest, those that fit into [`ANNOTATIONS_BYTES_MAX`]: nothing holds
    /// them, they are read when they are asked for.
    pub fn annotations(mut source: impl Read) -> Result<BTreeMap<String, String>, ManifestError> {
        match read::<Annotated>(&mut source) {
            Ok(annotated) => Ok(annotated.unwrap_or_default().0),
            Err(error) => Err(ManifestError(format!("annotations cannot be read: {error}"))),
        }
    }

    /// All content that it names: an index's manifests, or an image's configuration and layers.
    pub fn children(&self) -> Vec<Digest> {
        match &self.kind {
            ManifestKind::Index { manifests } => {
                manifests.iter().map(|child| child.digest).collect()
            }
            ManifestKind::Image { config, layers } => {
                std::iter::once(config).chain(layers).map(|blob| blob.digest).collect()
            }
        }
    }
}

/// What a list of referrers names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The first [`LISTED_MAX`] of them, in the list's order.
    pub digests: Vec<Digest>,
    /// How many there are.
    pub count: usize,
}

impl Listed {
    /// Reads a list of referrers: an index as the registry's API answers with it, or as it is held
    /// under the tag that stands in for that.
    pub fn read(mut source: impl Read) -> Result<Self, ManifestError> {
        match read::<Self>(&mut source) {
            Ok(listed) => Ok(listed.unwrap_or_default()),
            Err(error) => Err(ManifestError(format!("no list of referrers: {error}"))),
        }
    }
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

/// The largest manifest taken in, in bytes: what the distribution-spec lets a registry refuse
/// above, and what clients accept.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Manifests that an index may name; the largest that are known have about a hundred.
pub const CHILDREN_MAX: usize = 1024;
/// Layers that an image may have; the largest that runtimes can mount have 127.
pub const LAYERS_MAX: usize = 2048;
/// Referrers of one list that are looked at.
pub const LISTED_MAX: usize = 1024;
/// What is kept of a manifest's annotations for requests for referrers.
pub const ANNOTATIONS_BYTES_MAX: usize = 16 << 10;

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
        assert_eq!(manifest.children().len(), 3);
        let manifest = parse(&image, Some(media_type::DOCKER_MANIFEST)).unwrap();
        assert_eq!(manifest.media_type, media_type::DOCKER_MANIFEST);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{thing}],"subject":{thing}}}"#);
        let manifest = parse(&index, Some("application/json")).unwrap();
        assert_eq!(manifest.media_type, media_type::OCI_INDEX);
        assert_eq!(manifest.subject, Some(digest));
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

    #[test]
    fn as_lenient_as_go_and_as_strict() {
        let digest = Digest::sha256(b"x");
        let thing = format!(r#"{{"Digest":"{digest}","SIZE":3,"annotations":null,"urls":null}}"#);
        let image = format!(
            r#"{{"SchemaVersion":2,"MediaType":null,"Config":{thing},"layers":null,
                "annotations":null,"subject":null,"manifests":null}}"#
        );
        let manifest = parse(&image, None).unwrap();
        assert_eq!((manifest.media_type, manifest.children().len()), (media_type::OCI_MANIFEST, 1));
        for json in [r#"{"manifests":null}"#, r#"{"schemaVersion":2}"#, "{}", "null"] {
            let index = parse(json, Some(media_type::OCI_INDEX)).unwrap();
            assert!(index.children().is_empty(), "{json}");
        }
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let layer = format!(r#"{{"mediaType":"{foreign}","digest":"{digest}","size":3}}"#);
        let image = format!(r#"{{"schemaVersion":2,"config":{thing},"layers":[{layer},{thing}]}}"#);
        let ManifestKind::Image { layers, .. } = parse(&image, None).unwrap().kind else {
            panic!()
        };
        assert_eq!(layers.iter().map(|layer| layer.is_foreign).collect::<Vec<_>>(), [true, false]);
        for layer in ["null", "{}", r#"{"digest":"sha256:1","size":1}"#, "1", r#""""#] {
            let image = format!(r#"{{"schemaVersion":2,"config":{thing},"layers":[{layer}]}}"#);
            assert!(parse(&image, None).is_err(), "{layer}");
        }
        assert!(parse(&format!(r#"{{"schemaVersion":1,"config":{thing}}}"#), None).is_err());
    }

    #[test]
    fn children_and_their_platforms() {
        let digest = Digest::sha256(b"x");
        let index = |rest: &str| {
            let json = format!(r#"{{"manifests":[{{"digest":"{digest}","size":3{rest}}}]}}"#);
            let ManifestKind::Index { manifests } = parse(&json, None).unwrap().kind else {
                panic!()
            };
            manifests.into_iter().next().unwrap()
        };
        let platform = |rest: &str| index(&format!(r#","platform":{rest}"#)).platform;
        assert_eq!(platform("null"), None);
        let text = |rest: &str| platform(rest).unwrap().to_string();
        assert_eq!(
            text(r#"{"os":"Linux","architecture":"aarch64","os.features":null}"#),
            "linux/arm64"
        );
        assert_eq!(text(r#"{"architecture":"arm","variant":"7"}"#), "linux/arm/v7");
        assert_eq!(text(r#"{"os":"linux"}"#), "unknown/unknown");
        assert_eq!(
            text(&format!(r#"{{"os":"linux","architecture":"{}"}}"#, "x".repeat(999))),
            "unknown/unknown"
        );
        let annotations =
            format!(r#","annotations":{{"a":"b","vnd.docker.reference.digest":"{digest}"}}"#);
        assert_eq!(index(&annotations).attests, Some(digest));
        // A digest of an algorithm that is not known here must not hide the others.
        let json = r#"{"manifests":[{"digest":"sha384:00","size":1},null,{}]}"#;
        assert!(parse(json, None).unwrap().children().is_empty());
    }

    #[test]
    fn counts_are_bounded() {
        let thing = format!(r#"{{"digest":"{}","size":3}}"#, Digest::sha256(b"x"));
        let list = |count: usize| vec![thing.as_str(); count].join(",");
        let index = |count| parse(&format!(r#"{{"manifests":[{}]}}"#, list(count)), None);
        assert_eq!(index(CHILDREN_MAX).unwrap().children().len(), CHILDREN_MAX);
        assert!(index(CHILDREN_MAX + 1).unwrap_err().contains("more than 1024 manifests"));
        let image =
            |count| parse(&format!(r#"{{"config":{thing},"layers":[{}]}}"#, list(count)), None);
        assert_eq!(image(LAYERS_MAX).unwrap().children().len(), LAYERS_MAX + 1);
        assert!(image(LAYERS_MAX + 1).unwrap_err().contains("more than 2048 layers"));
    }

    #[test]
    fn lists_of_referrers_are_cut() {
        let thing = format!(r#"{{"digest":"{}","size":3}}"#, Digest::sha256(b"x"));
        let json = format!(r#"{{"manifests":[{}]}}"#, vec![thing.as_str(); 5_000].join(","));
        let listed = Listed::read(json.as_bytes()).unwrap();
        assert_eq!((listed.digests.len(), listed.count), (LISTED_MAX, 5_000));
        assert_eq!(Listed::read(&br#"{"manifests":null}"#[..]), Ok(Listed::default()));
        assert!(Listed::read(&b"<html>"[..]).is_err());
    }

    #[test]
    fn annotations_are_read_when_they_are_asked_for() {
        let json = r#"{"config":{"annotations":{"no":"1"}},"annotations":{"yes":"1","null":null}}"#;
        let read = Manifest::annotations(json.as_bytes()).unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), [("yes".to_owned(), "1".to_owned())]);
        let many: Vec<String> = (0..100_000).map(|n| format!(r#""{n}":"""#)).collect();
        let json = format!(r#"{{"annotations":{{{}}}}}"#, many.join(","));
        let read = Manifest::annotations(json.as_bytes()).unwrap();
        assert!((1..1000).contains(&read.len()), "{}", read.len());
    }

    #[test]
    fn nothing_makes_it_panic() {
        let digest = Digest::sha256(b"x");
        let thing = format!(
            r#"{{"mediaType":"t\u00e9","digest":"{digest}","size":3,"platform":{{"os":"linux",
                "architecture":"arm","variant":"v7"}},"annotations":{{"vnd.docker.reference.digest":
                "{digest}","x":[1,-2.5e3,true,null,"\\"]}}}}"#
        );
        let whole = [
            format!(
                r#"{{"schemaVersion":2,"config":{thing},"layers":[{thing}],"subject":{thing}}}"#
            ),
            format!(
                r#"{{"schemaVersion":2,"manifests":[{thing},{thing}],"annotations":{{"a":"b"}}}}"#
            ),
        ];
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for text in whole {
            assert!(parse(&text, None).is_ok(), "{text}");
            for end in 0..text.len() {
                assert!(Manifest::parse(&text.as_bytes()[..end], None).is_err(), "{end}");
            }
            for _ in 0..20_000 {
                let mut bytes = text.clone().into_bytes();
                for _ in 0..1 + random % 4 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let at = usize::try_from(random >> 8).unwrap() % bytes.len();
                    bytes[at] = random.to_le_bytes()[0];
                }
                let _ = Manifest::parse(&bytes, Some(media_type::OCI_INDEX));
                let _ = Manifest::annotations(bytes.as_slice());
            }
        }
    }
}
