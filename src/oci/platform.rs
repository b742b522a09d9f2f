//! Platforms (`linux/arm/v7`), and which children of an index serve them.
//!
//! Spelled as oddly as indexes spell them, and matched as containerd does (`platforms.Normalize`
//! and `platforms.Only`), because what it would not choose is of no use here.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::{Child, Digest};
use crate::units::Expected;

/// An operating system and a processor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// As Go names it: `arm`, `arm64`, `amd64`.
    pub architecture: String,
    /// `v7` and the like.
    pub variant: Option<String>,
}

impl Platform {
    /// What this binary was compiled for, and so what its device runs.
    pub fn device() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            other => (other, ""),
        };
        Self::normalised("linux", architecture, variant)
    }

    /// Every platform that an index offers.
    pub fn all() -> Self {
        Self { os: ALL.to_owned(), architecture: String::new(), variant: None }
    }

    /// A platform as others spell it. Without an architecture it is unknown.
    pub fn normalised(os: &str, architecture: &str, variant: &str) -> Self {
        let [os, architecture, variant] =
            [os, architecture, variant].map(|text| text.trim().to_ascii_lowercase());
        let os = match os.as_str() {
            _ if architecture.is_empty() => UNKNOWN,
            "" => "linux",
            "macos" => "darwin",
            other => other,
        };
        let (architecture, variant) = match architecture.as_str() {
            "" => (UNKNOWN, ""),
            "x86_64" | "x86-64" => ("amd64", variant.as_str()),
            "aarch64" => ("arm64", variant.as_str()),
            "i386" => ("386", ""),
            "armhf" => ("arm", "v7"),
            "armel" => ("arm", "v6"),
            other => (other, variant.as_str()),
        };
        let is_number = variant.starts_with(|first: char| first.is_ascii_digit());
        let variant = match variant {
            "" => None,
            number if is_number => Some(format!("v{number}")),
            other => Some(other.to_owned()),
        };
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant }
    }

    /// How well `offered` serves `self`: 0 is exact, more is worse, `None` is not at all. Newer
    /// variants run what was made for older ones, and 64-bit processors what was for 32 bits.
    fn distance(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os {
            return None;
        }
        let levels = self.level().zip(offered.level());
        let older = levels.and_then(|(wanted, offered)| wanted.checked_sub(offered));
        match (self.architecture.as_str(), offered.architecture.as_str()) {
            ("arm64", "arm") => ARM_V8.checked_sub(offered.level()?).map(|older| FAR + older),
            ("amd64", "386") => Some(FAR),
            (wanted, offered) if wanted != offered => None,
            ("arm" | "arm64" | "amd64", _) => older,
            _ => (self.variant == offered.variant).then_some(0),
        }
    }

    /// The number of the variant, in hundredths. An absent one means v7 on 32-bit ARM, v8 on
    /// 64-bit, v1 on amd64.
    fn level(&self) -> Option<u32> {
        let Some(variant) = self.variant.as_deref() else {
            return match self.architecture.as_str() {
                "arm" => Some(700),
                "arm64" => Some(ARM_V8),
                "amd64" => Some(100),
                _ => None,
            };
        };
        let level = variant.strip_prefix('v')?;
        let (major, minor) = level.split_once('.').unwrap_or((level, "0"));
        let (major, minor) = (major.parse::<u8>().ok()?, minor.parse::<u8>().ok()?);
        Some(u32::from(major) * 100 + u32::from(minor.min(99)))
    }

    fn is_all(&self) -> bool {
        self.os == ALL
    }

    fn is_unknown(&self) -> bool {
        self.os == UNKNOWN || self.architecture == UNKNOWN
    }
}

impl FromStr for Platform {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let error = Expected("a platform such as linux/arm/v7, linux/arm64 or linux/amd64, or all");
        if text == ALL {
            return Ok(Self::all());
        }
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let word = |word: &&str| !word.is_empty() && word.bytes().all(letter);
        let mut parts = text.split('/');
        let os = parts.next().filter(word).filter(|os| *os != ALL).ok_or(error)?;
        let architecture = parts.next().filter(word).ok_or(error)?;
        let variant = match parts.next() {
            Some(variant) => Some(variant).filter(word).ok_or(error)?,
            None => "",
        };
        match parts.next() {
            Some(_) => Err(error),
            None => Ok(Self::normalised(os, architecture, variant)),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str(ALL);
        }
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// The children of an index, each digest once and in the index's order, by what they are to those
/// who want certain platforms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// They serve one of them, or say of no platform that they are for it.
    pub chosen: Vec<Digest>,
    /// They are attestations of such that serve one of them.
    pub attestations: Vec<Digest>,
    /// They serve others.
    pub others: Vec<Digest>,
}

impl Selection {
    /// Sorts `children`: for each of `platforms` the best match is chosen, the first of equals.
    pub fn new(children: &[Child], platforms: &[Platform]) -> Self {
        let serving = serving(children, platforms);
        let mut selection = Self::default();
        let mut seen = BTreeSet::new();
        for child in children.iter().filter(|child| seen.insert(child.digest)) {
            let list = match (child.attests, &child.platform) {
                _ if serving.contains(&child.digest) => &mut selection.chosen,
                (Some(attested), _) if serving.contains(&attested) => &mut selection.attestations,
                (None, None) => &mut selection.chosen,
                _ => &mut selection.others,
            };
            list.push(child.digest);
        }
        selection
    }
}

/// Of the children that have a platform, the best match for each of `platforms`.
fn serving(children: &[Child], platforms: &[Platform]) -> BTreeSet<Digest> {
    let known = || {
        children.iter().filter_map(|child| {
            let platform = child.platform.as_ref().filter(|platform| !platform.is_unknown());
            platform.map(|platform| (platform, child.digest))
        })
    };
    let best = |wanted: &Platform| {
        let offered = known().filter_map(|(platform, digest)| {
            wanted.distance(platform).map(|distance| (distance, digest))
        });
        offered.min_by_key(|(distance, _)| *distance).map(|(_, digest)| digest)
    };
    if platforms.iter().any(Platform::is_all) {
        return known().map(|(_, digest)| digest).collect();
    }
    platforms.iter().filter_map(best).collect()
}

const ALL: &str = "all";
const UNKNOWN: &str = "unknown";
/// The level of 64-bit ARM without a variant.
const ARM_V8: u32 = 800;
/// Farther than any variant of the same architecture.
const FAR: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn child(platform: &str) -> Child {
        let digest = Digest::sha256(platform.as_bytes());
        Child { digest, size: 1, platform: platform.parse().ok(), attests: None }
    }

    fn pick(offered: &[&str], wanted: &[&str]) -> Vec<String> {
        let children: Vec<_> = offered.iter().map(|text| child(text)).collect();
        let wanted: Vec<Platform> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        let chosen = Selection::new(&children, &wanted).chosen.into_iter();
        let child = |digest| children.iter().find(|child| child.digest == digest).unwrap();
        chosen.map(|digest| child(digest).platform.as_ref().unwrap().to_string()).collect()
    }

    #[test]
    fn older_variants_and_fewer_bits_are_fallen_back_to() {
        let all = ["linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        assert_eq!(pick(&all, &["linux/arm/v7"]), ["linux/arm/v7"]);
        assert_eq!(pick(&all[..3], &["linux/arm/v7"]), ["linux/arm/v6"]);
        assert_eq!(pick(&all[..2], &["linux/arm/v7"]), ["linux/arm/v5"]);
        assert_eq!(pick(&all, &["linux/arm/v6"]), ["linux/arm/v6"]);
        assert!(pick(&all[3..4], &["linux/arm/v6"]).is_empty());
        assert_eq!(pick(&all, &["linux/arm64"]), ["linux/arm64/v8"]);
        assert_eq!(pick(&all[..4], &["linux/arm64"]), ["linux/arm/v7"]);
        assert!(pick(&all[4..], &["linux/arm/v7"]).is_empty());
        assert_eq!(pick(&all, &["linux/amd64", "linux/arm64/v8"]).len(), 2);
        assert!(pick(&["windows/amd64"], &["linux/amd64"]).is_empty());
        let levels = ["linux/386", "linux/amd64", "linux/amd64/v3", "linux/arm64/v8.2"];
        assert_eq!(pick(&levels, &["linux/amd64/v2"]), ["linux/amd64"]);
        assert_eq!(pick(&levels, &["linux/amd64/v4"]), ["linux/amd64/v3"]);
        assert_eq!(pick(&levels[..1], &["linux/amd64"]), ["linux/386"]);
        assert_eq!(pick(&levels, &["linux/arm64/v9"]), ["linux/arm64/v8.2"]);
        assert!(pick(&levels, &["linux/arm64"]).is_empty());
        assert!(pick(&["linux/mips/softfloat"], &["linux/mips"]).is_empty());
    }

    #[test]
    fn spellings() {
        for (os, architecture, variant, expected) in [
            ("linux", "aarch64", "", "linux/arm64"),
            ("linux", "aarch64", "8", "linux/arm64/v8"),
            ("linux", "x86_64", "", "linux/amd64"),
            ("Linux", "AMD64", "", "linux/amd64"),
            ("", "x86-64", "", "linux/amd64"),
            ("linux", "arm", "7", "linux/arm/v7"),
            ("linux", "armhf", "", "linux/arm/v7"),
            ("linux", "armel", "", "linux/arm/v6"),
            ("linux", "i386", "", "linux/386"),
            ("linux", "", "", "unknown/unknown"),
            ("", "", "", "unknown/unknown"),
        ] {
            let found = Platform::normalised(os, architecture, variant).to_string();
            assert_eq!(found, expected, "{os} {architecture} {variant}");
        }
    }

    #[test]
    fn all_is_everything_but_what_is_unknown() {
        let children = ["linux/amd64", "windows/amd64", "unknown/unknown"].map(child);
        let selection = Selection::new(&children, &[Platform::all()]);
        let [linux, windows, unknown] = children.map(|child| child.digest);
        let expected = Selection {
            chosen: vec![linux, windows],
            others: vec![unknown],
            ..Selection::default()
        };
        assert_eq!(selection, expected);
    }

    #[test]
    fn attestations_of_what_is_chosen_come_along() {
        let image = child("linux/amd64");
        let other = child("linux/arm64");
        let attest = |of: &Child| {
            let digest = Digest::sha256(&of.digest.bytes()[..4]);
            Child { digest, attests: Some(of.digest), ..child("unknown/unknown") }
        };
        let bare = Child { platform: None, ..child("x/y") };
        let twice = image.clone();
        let children = [image.clone(), other.clone(), attest(&image), attest(&other), bare, twice];
        let selection = Selection::new(&children, &["linux/amd64".parse().unwrap()]);
        let [image, other, attestation, of_other, bare, _] = children.map(|child| child.digest);
        let expected = Selection {
            chosen: vec![image, bare],
            attestations: vec![attestation],
            others: vec![other, of_other],
        };
        assert_eq!(selection, expected);
    }

    #[test]
    fn text() {
        for wrong in ["", "linux", "linux/", "linux/arm/v7/x", "Linux/arm", "linux//v7", "all/arm"]
        {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
        for (text, shown) in
            [("linux/arm/v7", "linux/arm/v7"), ("linux/x86_64", "linux/amd64"), ("all", "all")]
        {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown);
        }
    }
}
