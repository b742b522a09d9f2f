//! What Ground Control issued is sealed on flash with a key that the device makes of itself, so
//! that a card or a chip read elsewhere shows no credentials.
//!
//! The key is made (blake3, `derive_key`) from the first of these that the device has: a key file,
//! for boards that keep one in fuses or a TPM; the serial number of the board or of its eMMC; the
//! machine id. Which one it was stands before the sealed bytes, so that a serial number that shows
//! up after an upgrade of the kernel locks nothing out. A machine id comes last because images with
//! a read-only root make another one at each boot, and what is sealed with it is lost then. All of
//! them can be read by programs on the device: this guards flash that was taken out, not a device
//! that was broken into.
//!
//! ```text
//! | version: 1 | source: 1 | nonce: 12 | ChaCha20-Poly1305 of the text | tag: 16 |
//! ```

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

/// What a key is made from.
#[derive(Clone, Debug)]
pub struct Seal {
    /// The root of the file system that describes the device; `/` but in tests.
    root: PathBuf,
    key_file: Option<PathBuf>,
}

/// Why a document cannot be sealed or opened, in one line.
#[derive(Debug)]
pub struct Unsealed(String);

impl fmt::Display for Unsealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsealed {}

/// Where the material of a key comes from; the number stands on flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Nothing: the device has no number of its own.
    None = 0,
    KeyFile = 1,
    BoardSerial = 2,
    EmmcId = 3,
    ProductId = 4,
    MachineId = 5,
}

impl Seal {
    /// The key is read when it is needed.
    pub fn new(root: &Path, key_file: Option<PathBuf>) -> Self {
        Self { root: root.to_owned(), key_file }
    }

    /// Seals `text` with the best key that there is.
    pub fn seal(&self, text: &[u8]) -> Result<Vec<u8>, Unsealed> {
        let (source, key) = self.best()?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| Unsealed("no randomness from the kernel".to_owned()))?;
        let mut sealed = vec![VERSION, source as u8];
        sealed.extend_from_slice(&nonce);
        let mut body = text.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut body)
            .map_err(|_| Unsealed(format!("{} bytes are too many to seal", text.len())))?;
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made on this device.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Unsealed> {
        let malformed = || Unsealed("not a sealed document".to_owned());
        let (version, rest) = sealed.split_first().ok_or_else(malformed)?;
        if *version != VERSION {
            return Err(Unsealed(format!("sealed by version {version}, expected {VERSION}")));
        }
        let (source, rest) = rest.split_first().ok_or_else(malformed)?;
        let source = ALL.into_iter().chain([Source::None]).find(|one| *one as u8 == *source);
        let source = source.ok_or_else(malformed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(malformed)?;
        let material = match source {
            Source::None => Vec::new(),
            source => self.material(source)?.ok_or_else(|| {
                Unsealed(format!("sealed with {}, which is not there now", source.name()))
            })?,
        };
        let mut body = body.to_vec();
        let text = key(&material)?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut body)
            .map_err(|_| {
                Unsealed(format!("sealed with {}, which is another one now", source.name()))
            })?;
        Ok(text.to_vec())
    }

    /// Whether the device has nothing that a key could be made from.
    pub fn is_open(&self) -> bool {
        matches!(self.best(), Ok((Source::None, _)))
    }

    /// By what a person distinguishes this device from others; none where it has no number of its
    /// own. It is no secret, and leads to none.
    pub fn device(&self) -> Result<Option<String>, Unsealed> {
        let (source, material) = self.own()?;
        let hash = blake3::derive_key("moonlet 2026-11-26 device fingerprint v1", &material);
        let hash = blake3::Hash::from_bytes(hash).to_hex();
        Ok((source != Source::None).then(|| hash.chars().take(DEVICE_CHARS).collect()))
    }

    fn best(&self) -> Result<(Source, LessSafeKey), Unsealed> {
        let (source, material) = self.own()?;
        Ok((source, key(&material)?))
    }

    /// The first number that the device has.
    fn own(&self) -> Result<(Source, Vec<u8>), Unsealed> {
        for source in ALL {
            if let Some(material) = self.material(source)? {
                return Ok((source, material));
            }
        }
        Ok((Source::None, Vec::new()))
    }

    /// What the key is made from, if this device has it.
    fn material(&self, source: Source) -> Result<Option<Vec<u8>>, Unsealed> {
        if let Source::KeyFile = source {
            let Some(path) = &self.key_file else { return Ok(None) };
            let bytes = read(path)
                .map_err(|error| Unsealed(format!("key_file {}: {error}", path.display())))?;
            if bytes.len() < KEY_FILE_BYTES_MIN {
                let expected = format!("expected at least {KEY_FILE_BYTES_MIN} bytes");
                return Err(Unsealed(format!("key_file {}: {expected}", path.display())));
            }
            return Ok(Some(bytes));
        }
        let bytes = read(&self.root.join(source.path())).unwrap_or_default();
        let trimmed = bytes.trim_ascii().strip_suffix(b"\0").unwrap_or(bytes.trim_ascii());
        let is_blank = trimmed.iter().all(|byte| matches!(byte, b'0' | b'-' | 0xff | 0));
        // Boards that were never given a number say zero, and others say what their maker left.
        let is_left = [b"Default string".as_slice(), b"uninitialized"].contains(&trimmed);
        Ok((!is_blank && !is_left).then(|| trimmed.to_vec()))
    }
}

impl Source {
    fn path(self) -> &'static str {
        match self {
            Self::None | Self::KeyFile => "",
            Self::BoardSerial => "sys/firmware/devicetree/base/serial-number",
            Self::EmmcId => "sys/block/mmcblk0/device/cid",
            Self::ProductId => "sys/class/dmi/id/product_uuid",
            Self::MachineId => "etc/machine-id",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::KeyFile => "key_file",
            Self::BoardSerial => "the board's serial number",
            Self::EmmcId => "the eMMC's identification",
            Self::ProductId => "the board's product id",
            Self::MachineId => "the machine id",
        }
    }
}

fn key(material: &[u8]) -> Result<LessSafeKey, Unsealed> {
    let key = blake3::derive_key("moonlet 2026-11-26 sealed documents v1", material);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key);
    key.map(LessSafeKey::new).map_err(|_| Unsealed("a key of another length".to_owned()))
}

/// Reads a small file: more than [`MATERIAL_BYTES_MAX`] of it is not looked at.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MATERIAL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The best one first.
const ALL: [Source; 5] =
    [Source::KeyFile, Source::BoardSerial, Source::EmmcId, Source::ProductId, Source::MachineId];
/// Short enough to be read aloud, and nothing that meets by chance.
const DEVICE_CHARS: usize = 32;
const VERSION: u8 = 1;
/// What sealing adds to a text.
pub const SEAL_BYTES: usize = 2 + NONCE_LEN + 16;
const MATERIAL_BYTES_MAX: u64 = 4096;
const KEY_FILE_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    struct Device(PathBuf);

    impl Device {
        fn new(name: &str) -> Self {
            let root = format!("moonlet-seal-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(root);
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(&root).unwrap();
            Self(root)
        }

        fn write(&self, path: &str, text: &[u8]) -> PathBuf {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_sealed_opens_on_this_device_only() {
        let device = Device::new("own");
        device.write("etc/machine-id", b"0123456789abcdef\n");
        let seal = Seal::new(&device.0, None);
        let sealed = seal.seal(b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(seal.open(&sealed).unwrap(), b"hunter2");
        assert_eq!(sealed.len(), b"hunter2".len() + SEAL_BYTES);
        assert_ne!(seal.seal(b"hunter2").unwrap(), sealed, "another nonce");
        // A better number that shows up later locks nothing out.
        device.write("sys/firmware/devicetree/base/serial-number", b"10000000abcdef\0");
        assert_eq!(seal.open(&sealed).unwrap(), b"hunter2");
        let better = seal.seal(b"x").unwrap();
        device.write("etc/machine-id", b"fedcba9876543210\n");
        assert!(seal.open(&sealed).unwrap_err().to_string().contains("another one now"));
        assert_eq!(seal.open(&better).unwrap(), b"x");
        fs::remove_file(device.0.join("etc/machine-id")).unwrap();
        assert!(seal.open(&sealed).unwrap_err().to_string().contains("not there now"));
    }

    #[test]
    fn a_key_file_counts_before_all_and_must_be_there() {
        let device = Device::new("file");
        device.write("sys/block/mmcblk0/device/cid", b"150100414a54443452");
        let path = device.write("key", b"0123456789abcdef");
        let seal = Seal::new(&device.0, Some(path.clone()));
        let sealed = seal.seal(b"x").unwrap();
        assert!(Seal::new(&device.0, None).open(&sealed).is_err());
        fs::write(&path, b"short").unwrap();
        let error = seal.seal(b"x").unwrap_err().to_string();
        assert!(error.contains("at least 16 bytes"), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(seal.open(&sealed).unwrap_err().to_string().contains("key_file"));
    }

    #[test]
    fn a_device_without_numbers_says_so() {
        let device = Device::new("none");
        device.write("sys/class/dmi/id/product_uuid", b"00000000-0000-0000-0000-000000000000\n");
        let seal = Seal::new(&device.0, None);
        assert!(seal.is_open());
        assert_eq!(seal.open(&seal.seal(b"x").unwrap()).unwrap(), b"x");
    }

    #[test]
    fn damage_is_found() {
        let device = Device::new("damage");
        let seal = Seal::new(&device.0, None);
        let sealed = seal.seal(b"text").unwrap();
        for index in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert!(seal.open(&damaged).is_err(), "byte {index}");
            assert!(seal.open(&sealed[..index]).is_err(), "{index} bytes");
        }
    }
}
