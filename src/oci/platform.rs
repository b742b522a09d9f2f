//! Platforms (`linux/arm/v7`), and which children of an index serve them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Descriptor;
use crate::units::Expected;

/// An operating system and a processor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// As Go names it: `arm`, `arm64`, `amd64`.
    pub architecture: String,
    /// `v7` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// What this binary was compiled for, and so what its device runs.
    pub fn device() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well `offered` serves `self`: 0 is exact, more is worse, `None` is not at all. 32-bit
    /// ARM runs code for older variants (containerd `platforms.Only`: v8, v7, v6, v5).
    fn distance(&self, offered: &Self) -> Option<u8> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let (wanted, offered) = (self.level(), offered.level());
        match (self.architecture.as_str(), wanted, offered) {
            ("arm", Some(wanted), Some(offered)) => wanted.checked_sub(offered),
            (_, wanted, offered) => (wanted == offered).then_some(0),
        }
    }

    /// The number of the variant. An absent one means v7 on 32-bit ARM, v8 on 64-bit, v1 on
    /// amd64, as containerd normalises.
    fn level(&self) -> Option<u8> {
        let default = match self.architecture.as_str() {
            "arm" => Some(7),
            "arm64" => Some(8),
            "amd64" => Some(1),
            _ => None,
        };
        match self.variant.as_deref() {
            None | Some("") => default,
            Some(variant) => variant.strip_prefix('v').and_then(|level| level.parse().ok()),
        }
    }

    fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }
}

impl FromStr for Platform {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let error = Expected("a platform such as linux/arm/v7, linux/arm64 or linux/amd64");
        let word = |word: &&str| {
            !word.is_empty()
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.')
        };
        let mut parts = text.split('/');
        let os = parts.next().filter(word).ok_or(error)?.to_owned();
        let architecture = parts.next().filter(word).ok_or(error)?.to_owned();
        let variant = match parts.next() {
            Some(variant) => Some(Some(variant).filter(word).ok_or(error)?.to_owned()),
            None => None,
        };
        match parts.next() {
            Some(_) => Err(error),
            None => Ok(Self { os, architecture, variant }),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// The children of an index that serve `platforms`: for each the best match (the first of equals),
/// each child once, in the index's order. Children without a platform belong to all; attestations
/// of a chosen child (BuildKit's `vnd.docker.reference.digest`) come along.
pub fn select<'a>(children: &'a [Descriptor], platforms: &[Platform]) -> Vec<&'a Descriptor> {
    let best = |wanted: &Platform| {
        let offered = children.iter().filter_map(|child| {
            let platform = child.platform.as_ref().filter(|platform| !platform.is_unknown())?;
            wanted.distance(platform).map(|distance| (distance, child))
        });
        offered.min_by_key(|(distance, _)| *distance).map(|(_, child)| child.digest)
    };
    let chosen: Vec<_> = platforms.iter().filter_map(best).collect();
    let wanted = |child: &&Descriptor| match &child.platform {
        None => true,
        Some(platform) if platform.is_unknown() => child
            .annotations
            .get(ATTESTED_DIGEST)
            .is_some_and(|text| chosen.iter().any(|digest| digest.to_string() == *text)),
        Some(_) => chosen.contains(&child.digest),
    };
    let mut kept: Vec<&Descriptor> = Vec::new();
    for child in children.iter().filter(wanted) {
        if kept.iter().all(|other| other.digest != child.digest) {
            kept.push(child);
        }
    }
    kept
}

const ATTESTED_DIGEST: &str = "vnd.docker.reference.digest";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn child(platform: &str) -> Descriptor {
        Descriptor {
            platform: platform.parse().ok(),
            ..Descriptor::new("m", Digest::sha256(platform.as_bytes()), 1)
        }
    }

    fn pick(offered: &[&str], wanted: &[&str]) -> Vec<String> {
        let children: Vec<_> = offered.iter().map(|text| child(text)).collect();
        let wanted: Vec<Platform> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        let chosen = select(&children, &wanted);
        chosen.iter().map(|child| child.platform.as_ref().unwrap().to_string()).collect()
    }

    #[test]
    fn arm_falls_back_to_older_variants_only() {
        let all = ["linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        assert_eq!(pick(&all, &["linux/arm/v7"]), ["linux/arm/v7"]);
        assert_eq!(pick(&all[..3], &["linux/arm/v7"]), ["linux/arm/v6"]);
        assert_eq!(pick(&all[..2], &["linux/arm/v7"]), ["linux/arm/v5"]);
        assert_eq!(pick(&all, &["linux/arm/v6"]), ["linux/arm/v6"]);
        assert!(pick(&all[3..4], &["linux/arm/v6"]).is_empty());
        assert_eq!(pick(&all, &["linux/arm64"]), ["linux/arm64/v8"]);
        assert!(pick(&all[..4], &["linux/arm64"]).is_empty());
        assert_eq!(pick(&all, &["linux/amd64", "linux/arm64/v8"]).len(), 2);
        assert!(pick(&["windows/amd64"], &["linux/amd64"]).is_empty());
    }

    #[test]
    fn attestations_of_what_is_chosen_come_along() {
        let image = child("linux/amd64");
        let other = child("linux/arm64");
        let attest = |of: &Descriptor| {
            let mut attestation = child("unknown/unknown");
            attestation.digest = Digest::sha256(&of.digest.bytes()[..4]);
            attestation.annotations.insert(ATTESTED_DIGEST.to_owned(), of.digest.to_string());
            attestation
        };
        let children = [image.clone(), other.clone(), attest(&image), attest(&other)];
        let chosen = select(&children, &["linux/amd64".parse().unwrap()]);
        assert_eq!(chosen, [&children[0], &children[2]]);
    }

    #[test]
    fn text() {
        for wrong in ["", "linux", "linux/", "linux/arm/v7/x", "Linux/arm", "linux//v7"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
        assert_eq!("linux/arm/v7".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
    }
}
