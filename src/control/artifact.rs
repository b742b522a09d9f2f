//! A state artifact: an image whose only layer holds the only file `artifacts.json`, as Go's
//! go-containerregistry makes it (`crane.Image`: a tar, compressed with gzip).
//!
//! What it is is asked by HEAD first: an unchanged artifact costs no body. Every length is limited
//! before a byte is read, and the digests are checked before a byte is believed.

use miniz_oxide::inflate::decompress_to_vec_with_limit;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::fleet::state::{FILE, FILE_BYTES_MAX, Url};
use crate::kind::Kind;
use crate::oci::Digest;
use crate::registry::Registry;

/// The part of an image manifest that leads to the file.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    digest: String,
    size: u64,
}

/// Reads the artifact at `url`, unless it is still `known`: its digest and what it says.
///
/// # Errors
/// [`Kind::Missing`] when there is none, [`Kind::Invalid`] when it is not such an artifact; the
/// registry's own.
pub async fn read<T: DeserializeOwned>(
    registry: &Registry,
    url: &Url,
    known: Option<&Digest>,
) -> Result<Option<(Digest, T)>, Error> {
    let Url { repository, tag, .. } = url;
    let head = registry.head_manifest(repository, tag).await?;
    if head.digest.is_some() && head.digest.as_ref() == known {
        return Ok(None);
    }
    let invalid = |what: String| {
        Error::new(Kind::Invalid, format!("{}/{repository}:{tag}: {what}", url.base))
    };
    let opened = registry.open_manifest(repository, tag).await?;
    let said = opened.digest;
    let bytes = opened.body.bytes(MANIFEST_BYTES_MAX).await?;
    let digest = Digest::sha256(&bytes);
    if said.is_some_and(|said| said != digest) {
        return Err(Error::new(
            Kind::Corrupt,
            format!("{}/{repository}:{tag}: the manifest is not what its digest says", url.base),
        ));
    }
    if known == Some(&digest) {
        return Ok(None);
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("{error}; expected an image manifest")))?;
    let [layer] = manifest.layers.as_slice() else {
        return Err(invalid(format!("{} layers, expected one", manifest.layers.len())));
    };
    let layer_digest: Digest = layer
        .digest
        .parse()
        .map_err(|_| invalid(format!("layer {:?}: expected a digest", layer.digest)))?;
    if !(1..=LAYER_BYTES_MAX).contains(&layer.size) {
        let expected = format!("expected 1 to {LAYER_BYTES_MAX}");
        return Err(invalid(format!("a layer of {} bytes, {expected}", layer.size)));
    }
    let opened = registry.blob(repository, &layer_digest, 0, layer.size - 1, layer.size).await?;
    let bytes = opened.body.bytes(layer.size).await?;
    if layer_digest.algorithm().digest(&bytes) != layer_digest {
        return Err(Error::new(
            Kind::Corrupt,
            format!("{}/{repository}: layer {layer_digest} came as something else", url.base),
        ));
    }
    let tar = gunzip(&bytes).map_err(&invalid)?;
    let file = only_file(tar.as_deref().unwrap_or(&bytes)).map_err(&invalid)?;
    let value =
        serde_json::from_slice(file).map_err(|error| invalid(format!("{FILE}: {error}")))?;
    Ok(Some((digest, value)))
}

/// What gzip (RFC 1952) has compressed; none for what it has not. Its checksum is not looked at,
/// for the digest of the whole was.
fn gunzip(bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let Some([0x1f, 0x8b, method, flags, ..]) = bytes.first_chunk::<10>() else { return Ok(None) };
    let malformed = || "malformed gzip".to_owned();
    if *method != 8 || flags & !(HEADER_CRC | EXTRA | NAME | COMMENT | 1) != 0 {
        return Err(malformed());
    }
    let mut rest = bytes.get(10..).ok_or_else(malformed)?;
    if flags & EXTRA != 0 {
        let (length, tail) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
        rest = tail.get(usize::from(u16::from_le_bytes(*length))..).ok_or_else(malformed)?;
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let end = rest.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
            rest = rest.get(end + 1..).ok_or_else(malformed)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        rest = rest.get(2..).ok_or_else(malformed)?;
    }
    let tar = decompress_to_vec_with_limit(rest, TAR_BYTES_MAX)
        .map_err(|error| format!("gzip: {error}, expected at most {TAR_BYTES_MAX} bytes"))?;
    Ok(Some(tar))
}

/// The file `artifacts.json` of a tar (POSIX ustar, which GNU's and Go's are as far as this goes).
fn only_file(mut tar: &[u8]) -> Result<&[u8], String> {
    loop {
        let missing = || format!("a layer without {FILE}");
        let (header, rest) = tar.split_first_chunk::<TAR_BLOCK>().ok_or_else(missing)?;
        if header.iter().all(|byte| *byte == 0) {
            return Err(missing());
        }
        let field = |from: usize, to: usize| {
            let field = header.get(from..to).unwrap_or_default();
            field.split(|byte| *byte == 0).next().unwrap_or_default()
        };
        let octal = std::str::from_utf8(field(124, 136)).map(str::trim);
        let size = octal.ok().and_then(|octal| usize::from_str_radix(octal, 8).ok());
        let size = size.filter(|size| *size <= rest.len());
        let size = size.ok_or("a malformed tar")?;
        let name = field(0, 100);
        let is_file = matches!(header.get(156), Some(b'0' | 0));
        if is_file && name.strip_prefix(b"./").unwrap_or(name) == FILE.as_bytes() {
            if size > FILE_BYTES_MAX {
                return Err(format!("{FILE} of {size} bytes, expected at most {FILE_BYTES_MAX}"));
            }
            return Ok(rest.get(..size).unwrap_or_default());
        }
        tar = rest.get(size.next_multiple_of(TAR_BLOCK)..).ok_or_else(missing)?;
    }
}

const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const TAR_BLOCK: usize = 512;
/// The file, its header, and the two blocks of the end that some pad to twenty.
const TAR_BYTES_MAX: usize = FILE_BYTES_MAX + 20 * TAR_BLOCK;
/// What does not compress grows a little.
const LAYER_BYTES_MAX: u64 = TAR_BYTES_MAX as u64 + 4096;
/// A manifest of one layer has less than one.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(name: &str, kind: u8, text: &[u8]) -> Vec<u8> {
        let mut header = vec![0; TAR_BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", text.len()).as_bytes());
        header[156] = kind;
        header.extend_from_slice(text);
        header.resize(header.len().next_multiple_of(TAR_BLOCK), 0);
        header
    }

    #[test]
    fn the_file_is_found_among_others() {
        let mut all = tar("./", b'5', b"");
        all.extend(tar("other.json", b'0', b"no"));
        all.extend(tar("./artifacts.json", b'0', b"{\"x\":1}"));
        all.extend([0; 2 * TAR_BLOCK]);
        assert_eq!(only_file(&all).unwrap(), b"{\"x\":1}");
        assert_eq!(only_file(&tar("artifacts.json", 0, b"")).unwrap(), b"");
    }

    #[test]
    fn a_malformed_tar_is_refused() {
        let long = tar("artifacts.json", b'0', &vec![b' '; FILE_BYTES_MAX + 1]);
        assert!(only_file(&long).unwrap_err().contains("expected at most"));
        let mut all = tar("artifacts.json", b'0', b"text");
        for length in 0..TAR_BLOCK + 4 {
            assert!(only_file(&all[..length]).is_err(), "{length} bytes");
        }
        all[124] = b'9';
        assert_eq!(only_file(&all).unwrap_err(), "a malformed tar");
        assert!(only_file(&[0; 4 * TAR_BLOCK]).unwrap_err().contains("without artifacts.json"));
    }

    #[test]
    fn gzip_is_taken_with_every_field_and_no_bomb() {
        let packed = miniz_oxide::deflate::compress_to_vec(b"text", 6);
        let mut plain = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        plain.extend(&packed);
        assert_eq!(gunzip(&plain).unwrap().unwrap(), b"text");
        let mut fields = vec![0x1f, 0x8b, 8, 2 + 4 + 8 + 16, 0, 0, 0, 0, 0, 3, 2, 0, b'a', b'b'];
        fields.extend(b"name\0comment\0\x01\x02");
        fields.extend(&packed);
        assert_eq!(gunzip(&fields).unwrap().unwrap(), b"text");
        for length in 2..fields.len() {
            assert!(!matches!(gunzip(&fields[..length]), Ok(Some(_))), "{length} bytes");
        }
        assert_eq!(gunzip(b"{\"plain\": 1}").unwrap(), None);
        let mut bomb = plain[..10].to_vec();
        bomb.extend(miniz_oxide::deflate::compress_to_vec(&vec![0; TAR_BYTES_MAX + 1], 6));
        assert!(gunzip(&bomb).unwrap_err().contains("expected at most"));
    }
}
