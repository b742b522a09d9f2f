//! A state artifact: an image with one layer that holds one file, `artifacts.json`.
//!
//! As go-containerregistry's `crane.Image` makes it, so that a Go satellite reads it: a Docker v2
//! schema 2 manifest and a gzip tar layer. Every byte follows from the file's text: the same state
//! has the same digest, on every replica of the server.

use std::io::Write as _;

use flate2::{Compression, GzBuilder};
use serde_json::json;

use super::store::Published;
use crate::fleet::state::FILE;
use crate::oci::{Digest, media_type};
use crate::tar;

/// Makes the artifact that says `content`, published at `now_seconds`.
pub fn build(content: &str, now_seconds: i64) -> std::io::Result<Published> {
    let tar = tar(content.as_bytes());
    // No name and no time in the head: the bytes depend on the content alone.
    let mut gzip =
        GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    gzip.write_all(&tar)?;
    let layer = gzip.finish()?;
    let layer_digest = Digest::sha256(&layer).to_string();
    let config = json!({
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "history": [{ "created": "0001-01-01T00:00:00Z" }],
        "os": "",
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&tar).to_string()] },
    });
    let config = config.to_string().into_bytes();
    let config_digest = Digest::sha256(&config).to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::DOCKER_MANIFEST,
        "config": { "mediaType": CONFIG, "size": config.len(), "digest": config_digest },
        "layers": [{ "mediaType": LAYER, "size": layer.len(), "digest": layer_digest }],
    });
    let manifest = manifest.to_string().into_bytes();
    Ok(Published {
        digest: Digest::sha256(&manifest).to_string(),
        tag: now_seconds.to_string(),
        manifest,
        config_digest,
        config,
        layer_digest,
        layer,
    })
}

/// A tar with one file, of no owner and of no time.
fn tar(content: &[u8]) -> Vec<u8> {
    let size = content.len() as u64;
    [tar::head(FILE, size).as_slice(), content, tar::padding(size), &tar::END].concat()
}

/// The config's media type.
pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The layer's.
pub const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_state_has_the_same_digest() {
        let one = build(r#"{"states":[]}"#, 1).unwrap();
        let two = build(r#"{"states":[]}"#, 2).unwrap();
        assert_eq!((&one.digest, &one.layer), (&two.digest, &two.layer));
        assert_ne!(one.tag, two.tag);
        assert_ne!(build("{}", 1).unwrap().digest, one.digest);
    }

    #[test]
    fn sizes_around_a_block() {
        use crate::tar::BLOCK_BYTES as BLOCK;
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1] {
            let tar = tar(&vec![b'x'; length]);
            assert_eq!(tar.len(), BLOCK * (3 + length.div_ceil(BLOCK)), "{length}");
        }
    }
}
