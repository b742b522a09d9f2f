//! Content digests: `sha256:<64 hex>` and `sha512:<128 hex>` (OCI image-spec, descriptor.md).
//!
//! A build without the feature `sha512` knows such a digest and cannot verify what it names: it asks no
//! registry for that, and takes nothing for right by it that a log of a larger build has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState as _;

/// The two algorithms that the image-spec registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `sha256`, 32 bytes: what every registry speaks.
    Sha256,
    /// `sha512`, 64 bytes: accepted for content.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The digest of `bytes`.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hash = Hasher::new(self);
        hash.update(bytes);
        hash.finish()
    }

    /// Whether this build can verify what a digest of it names.
    pub const fn is_verified(self) -> bool {
        match self {
            Self::Sha256 => true,
            Self::Sha512 => cfg!(feature = "sha512"),
        }
    }

    /// Length of the digest in bytes.
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// The name of content: an algorithm and its result over the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// 32 bytes of SHA-256.
    Sha256([u8; 32]),
    /// 64 bytes of SHA-512.
    Sha512([u8; 64]),
}

impl Digest {
    /// The sha256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// Which algorithm made it.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw result, 32 or 64 bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The opposite of [`Digest::bytes`]; `None` when the length does not fit the algorithm.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => bytes.try_into().ok().map(Self::Sha256),
            Algorithm::Sha512 => bytes.try_into().ok().map(Self::Sha512),
        }
    }

    /// As a tag says it, which may have no colon: `sha256-<hex>`. Under it, or under what begins
    /// with it, stands what refers to the content (distribution-spec, "Referrers Tag Schema").
    pub fn to_tag(&self) -> String {
        self.to_string().replacen(':', "-", 1)
    }

    /// The opposite of [`Digest::to_tag`].
    pub fn from_tag(tag: &str) -> Option<Self> {
        tag.replacen('-', ":", 1).parse().ok().filter(|_| !tag.contains(':'))
    }

    /// Twelve hexadecimal digits for logs and tables.
    pub fn short(&self) -> String {
        self.to_string().split(':').nth(1).and_then(|hex| hex.get(..12)).unwrap_or("").to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().name())?;
        f.write_str(":")?;
        // In one piece: each answer names a digest twice.
        let mut text = [0; 2 * Algorithm::Sha512.digest_bytes()];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.bytes()) {
            let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        let text = text.get(..2 * self.bytes().len()).unwrap_or_default();
        f.write_str(str::from_utf8(text).unwrap_or_default())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let error = || DigestError(text.chars().take(ERROR_TEXT_MAX).collect());
        let (name, hex) = text.split_once(':').ok_or_else(error)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(error()),
        };
        if hex.len() != 2 * algorithm.digest_bytes() {
            return Err(error());
        }
        let mut bytes = [0; Algorithm::Sha512.digest_bytes()];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(error()) };
            let nibbles = nibble(*high).zip(nibble(*low));
            *byte = nibbles.map(|(high, low)| high << 4 | low).ok_or_else(error)?;
        }
        let bytes = bytes.get(..algorithm.digest_bytes()).unwrap_or_default();
        Self::from_bytes(algorithm, bytes).ok_or_else(error)
    }
}

impl Serialize for Digest {
    /// Text for people (JSON), algorithm and raw bytes for machines (the blob log).
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        (self.algorithm() == Algorithm::Sha512, self.bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        if deserializer.is_human_readable() {
            return String::deserialize(deserializer)?.parse().map_err(D::Error::custom);
        }
        let (long, bytes) = <(bool, &[u8])>::deserialize(deserializer)?;
        let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
        Self::from_bytes(algorithm, bytes)
            .ok_or_else(|| D::Error::invalid_length(bytes.len(), &"32 or 64 bytes"))
    }
}

/// A running hash of one of the two algorithms.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256 in progress.
    Sha256(sha2::Sha256),
    /// SHA-512 in progress.
    #[cfg(feature = "sha512")]
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// An empty hash. Where SHA-512 is left out it is one of SHA-256, whose digest equals none of
    /// SHA-512: nothing verifies by it.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            #[cfg(feature = "sha512")]
            Algorithm::Sha512 => Self::Sha512(Box::default()),
            _ => Self::Sha256(sha2::Sha256::new()),
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            #[cfg(feature = "sha512")]
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The state after the bytes taken in so far, from which [`Hasher::resume`] goes on.
    pub fn state(&self) -> Vec<u8> {
        match self {
            Self::Sha256(hash) => hash.serialize().to_vec(),
            #[cfg(feature = "sha512")]
            Self::Sha512(hash) => hash.serialize().to_vec(),
        }
    }

    /// A hash that goes on from a [`Hasher::state`]; `None` when that is not one.
    pub fn resume(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => {
                let state = state.try_into().ok()?;
                sha2::Sha256::deserialize(state).ok().map(Self::Sha256)
            }
            #[cfg(feature = "sha512")]
            Algorithm::Sha512 => {
                let state = state.try_into().ok()?;
                sha2::Sha512::deserialize(state).ok().map(|hash| Self::Sha512(Box::new(hash)))
            }
            #[cfg(not(feature = "sha512"))]
            Algorithm::Sha512 => None,
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::Sha256(hash.finalize().into()),
            #[cfg(feature = "sha512")]
            Self::Sha512(hash) => Digest::Sha512(hash.finalize().into()),
        }
    }
}

/// Text that is not a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestError(String);

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "digest {:?}: expected {DIGEST_FORM}", self.0)
    }
}

impl std::error::Error for DigestError {}

/// Lower case only, as the image-spec asks.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// What a digest looks like.
pub const DIGEST_FORM: &str = "sha256:<64 hex> or sha512:<128 hex>, in lower case";
/// Why a build without that feature fetches nothing that is named by [`Algorithm::Sha512`].
pub const SHA512_LEFT_OUT: &str =
    "content named by sha512 needs a moonlet built with the feature `sha512`";
/// How much of a wrong digest an error repeats, in characters.
const ERROR_TEXT_MAX: usize = 140;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let digest = Digest::sha256(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(digest.short(), "e3b0c44298fc");
        let long = sha512();
        assert_eq!(long.to_string(), LONG);
        assert_eq!(Algorithm::Sha256.digest(b""), digest);
    }

    #[test]
    fn a_sha512_verifies_nothing_where_it_is_left_out() {
        let digest: Digest = LONG.parse().unwrap();
        let is_verified = cfg!(feature = "sha512");
        assert_eq!(digest.algorithm().is_verified(), is_verified);
        assert_eq!(Algorithm::Sha512.digest(b"") == digest, is_verified);
        let state = Hasher::new(Algorithm::Sha512).state();
        assert_eq!(Hasher::resume(Algorithm::Sha512, &state).is_some(), is_verified);
    }

    #[test]
    fn tags_name_digests() {
        for digest in [Digest::sha256(b"x"), sha512()] {
            let tag = digest.to_tag();
            assert_eq!(tag, digest.to_string().replace(':', "-"));
            assert_eq!(Digest::from_tag(&tag), Some(digest));
            assert_eq!(Digest::from_tag(&digest.to_string()), None);
        }
        for tag in ["", "v1", "sha256-", "md5-00", "sha256-E3"] {
            assert_eq!(Digest::from_tag(tag), None, "{tag}");
        }
    }

    #[test]
    fn a_hash_goes_on_from_its_state() {
        let long = cfg!(feature = "sha512").then_some(Algorithm::Sha512);
        for algorithm in [Algorithm::Sha256].into_iter().chain(long) {
            let mut whole = Hasher::new(algorithm);
            whole.update(b"moon");
            let mut resumed = Hasher::resume(algorithm, &whole.state()).unwrap();
            assert!(Hasher::resume(algorithm, b"short").is_none());
            whole.update(b"let");
            resumed.update(b"let");
            assert_eq!(whole.finish(), resumed.finish());
        }
    }

    #[test]
    fn wrong_text_is_refused() {
        for text in ["", "sha256:", "md5:00", "sha256:E3B0", "sha256:zz", &"sha256:0".repeat(20)] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let upper = Digest::sha256(b"").to_string().to_uppercase();
        assert!(upper.parse::<Digest>().is_err());
    }

    /// Of no bytes, from FIPS 180-4's examples.
    const LONG: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                        47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    fn sha512() -> Digest {
        let (_, hex) = LONG.split_once(':').unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        Digest::Sha512(std::array::from_fn(byte))
    }
}
