//! A state artifact: an image whose only layer holds the only file `artifacts.json`, as Go's
//! go-containerregistry makes it (`crane.Image`: a tar, compressed with gzip).
//!
//! What it is is asked by HEAD first: an unchanged artifact costs no body. Every length is limited
//! before a byte is read, and the digests are checked before a byte is believed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::fleet::Invalid;
use crate::fleet::state::{FILE, FILE_BYTES_MAX, GROUPS_MAX, Url};
use crate::kind::Kind;
use crate::oci::Digest;
use crate::registry::Registry;
use crate::tar::{BLOCK_BYTES, EntryKind, Gunzip, is_gzip, next_entry};

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

/// Artifacts that make no sense, by URL: their digest, and why.
#[derive(Default)]
pub struct Unusable(RefCell<BTreeMap<String, (Digest, String)>>);

impl Unusable {
    /// Why the artifact at `url` is of no use, if it is still `digest`.
    fn why(&self, url: &str, digest: &Digest) -> Option<Error> {
        let known = self.0.borrow();
        let (_, why) = known.get(url).filter(|(known, _)| known == digest)?;
        Some(Error::new(Kind::Invalid, why.clone()))
    }

    /// The artifact at `url` is of no use while it is `digest`, for this reason.
    pub fn refuse(&self, url: &Url, digest: Digest, why: &str) {
        self.note(name(url), digest, &Error::new(Kind::Invalid, why));
    }

    fn note(&self, url: String, digest: Digest, error: &Error) {
        let mut known = self.0.borrow_mut();
        if known.len() >= UNUSABLE_MAX {
            known.clear();
        }
        known.insert(url, (digest, error.to_string()));
    }
}

/// Reads the artifact at `url`, unless it is still `known`: its digest and what it says, if that
/// passes `check`. `whole` is what was said of the state that begins with it. One that was of no use before is not fetched again while it stays what it is.
///
/// # Errors
/// [`Kind::Missing`] when there is none, [`Kind::Invalid`] when it is not such an artifact; the
/// registry's own.
pub async fn read<T: DeserializeOwned>(
    registry: &Registry,
    url: &Url,
    known: Option<&Digest>,
    unusable: &Unusable,
    whole: &mut Option<String>,
    check: impl Fn(&T) -> Result<(), Invalid>,
) -> Result<Option<(Digest, T)>, Error> {
    let Url { repository, tag, .. } = url;
    let head = registry.head_manifest(repository, tag).await?;
    *whole = head.whole;
    if head.digest.is_some() && head.digest.as_ref() == known {
        return Ok(None);
    }
    let name = name(url);
    if let Some(error) = head.digest.and_then(|digest| unusable.why(&name, &digest)) {
        return Err(error);
    }
    let read = fetch(registry, url, known, check).await;
    if let (Err(error), Some(digest)) = (&read, head.digest)
        && matches!(error.kind(), Kind::Invalid | Kind::Corrupt)
    {
        unusable.note(name, digest, error);
    }
    read
}

fn name(Url { base, repository, tag }: &Url) -> String {
    format!("{base}/{repository}:{tag}")
}

async fn fetch<T: DeserializeOwned>(
    registry: &Registry,
    url: &Url,
    known: Option<&Digest>,
    check: impl Fn(&T) -> Result<(), Invalid>,
) -> Result<Option<(Digest, T)>, Error> {
    let Url { repository, tag, .. } = url;
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
    let opened =
        registry.blob(repository, &layer_digest, 0, layer.size - 1, Some(layer.size)).await?;
    let bytes = opened.body.bytes(layer.size).await?;
    if layer_digest.algorithm().digest(&bytes) != layer_digest {
        return Err(Error::new(
            Kind::Corrupt,
            format!("{}/{repository}: layer {layer_digest} came as something else", url.base),
        ));
    }
    let file = only_file(&bytes).map_err(&invalid)?;
    let value =
        serde_json::from_slice(&file).map_err(|error| invalid(format!("{FILE}: {error}")))?;
    check(&value).map_err(|error| invalid(error.to_string()))?;
    Ok(Some((digest, value)))
}

/// The file `artifacts.json` of a tar that may be compressed with gzip.
fn only_file(layer: &[u8]) -> Result<Vec<u8>, String> {
    if is_gzip(layer) { file_of(Gunzip::new(layer)) } else { file_of(layer) }
}

fn file_of(tar: impl Read) -> Result<Vec<u8>, String> {
    let mut tar = tar.take(TAR_BYTES_MAX);
    let cut = |error: std::io::Error| format!("{error}, expected at most {TAR_BYTES_MAX} bytes");
    while let Some(entry) = next_entry(&mut tar).map_err(cut)? {
        let is_file = entry.kind == EntryKind::File && entry.name == FILE;
        if is_file && entry.size > FILE_BYTES_MAX as u64 {
            let size = entry.size;
            return Err(format!("{FILE} of {size} bytes, expected at most {FILE_BYTES_MAX}"));
        }
        let length = if is_file { entry.size } else { entry.padded_size() };
        let mut content = tar.by_ref().take(length);
        let mut bytes = Vec::new();
        let read = if is_file {
            content.read_to_end(&mut bytes).map(|read| read as u64)
        } else {
            std::io::copy(&mut content, &mut std::io::sink())
        };
        if read.map_err(cut)? != length {
            return Err(format!("a tar cut short, expected at most {TAR_BYTES_MAX} bytes"));
        }
        if is_file {
            return Ok(bytes);
        }
    }
    Err(format!("a layer without {FILE}"))
}

/// The file, its head, and the two blocks of the end that some pad to twenty.
const TAR_BYTES_MAX: u64 = FILE_BYTES_MAX as u64 + 20 * BLOCK_BYTES as u64;
/// What does not compress grows a little.
const LAYER_BYTES_MAX: u64 = TAR_BYTES_MAX + 4096;
/// More than a satellite's state can name.
const UNUSABLE_MAX: usize = GROUPS_MAX + 2;
/// A manifest of one layer has less than one.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar;

    fn file(name: &str, text: &[u8]) -> Vec<u8> {
        let size = text.len() as u64;
        [tar::head(name, size), text.to_vec(), tar::padding(size).to_vec()].concat()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend(miniz_oxide::deflate::compress_to_vec(content, 6));
        bytes.extend([0; 8]);
        bytes
    }

    #[test]
    fn the_file_is_found_among_others() {
        let mut all = file("other.json", b"no");
        all.extend(file("./artifacts.json", b"{\"x\":1}"));
        all.extend(tar::END);
        assert_eq!(only_file(&all).unwrap(), b"{\"x\":1}");
        assert_eq!(only_file(&gzip(&all)).unwrap(), b"{\"x\":1}");
        assert_eq!(only_file(&file("artifacts.json", b"")).unwrap(), b"");
    }

    #[test]
    fn a_malformed_tar_and_a_bomb_are_refused() {
        let long = file("artifacts.json", &vec![b' '; FILE_BYTES_MAX + 1]);
        assert!(only_file(&long).unwrap_err().contains("expected at most"));
        let all = file("artifacts.json", b"text");
        for length in 0..BLOCK_BYTES + 4 {
            assert!(only_file(&all[..length]).is_err(), "{length} bytes");
        }
        assert!(only_file(&tar::END).unwrap_err().contains("without artifacts.json"));
        let bomb = gzip(&file("other", &vec![0; usize::try_from(TAR_BYTES_MAX).unwrap()]));
        assert!(bomb.len() < 100_000);
        assert!(only_file(&bomb).unwrap_err().contains("expected at most"));
    }
}
