//! Platforms (`linux/arm/v7`), and how far one is from another.
//!
//! Spelled as oddly as indexes spell them, and matched as containerd does (`platforms.Normalize`
//! and `platforms.Only`), because what it would not choose is of no use here.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

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
    pub(super) fn distance(&self, offered: &Self) -> Option<u32> {
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

    pub(super) fn is_all(&self) -> bool {
        self.os == ALL
    }

    pub(super) fn is_unknown(&self) -> bool {
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

/// Platforms for a person to read: each once, the first [`SHOWN_MAX`].
pub fn platform_list<'a>(platforms: impl Iterator<Item = &'a Platform>) -> String {
    let platforms: BTreeSet<String> = platforms.map(Platform::to_string).collect();
    let more = platforms.len().saturating_sub(SHOWN_MAX);
    let text = platforms.into_iter().take(SHOWN_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

/// Platforms that an error lists.
const SHOWN_MAX: usize = 16;
const ALL: &str = "all";
const UNKNOWN: &str = "unknown";
/// The level of 64-bit ARM without a variant.
const ARM_V8: u32 = 800;
/// Farther than any variant of the same architecture.
const FAR: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

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
