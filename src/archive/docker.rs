//! A docker-archive, as `docker save` and `podman save` write it: configurations and layers without
//! manifests.
//!
//! The manifests are made here, so that they have other digests than a registry's. A layer that is
//! not compressed has the name that its image's configuration has for it (`diff_ids`); of one that
//! is, the digest is taken first, and what it inflates to is checked. Layers that are links to
//! others, as Docker wrote them until version 25, are found within the tar.

use std::io::{self, Read};

use serde::Deserialize;
use serde_json::json;

use super::Error;
use super::contents::{Archive, FILE_BYTES_MAX, Listed};
use crate::kind::Kind;
use crate::oci::{Algorithm, Digest, Hasher, MANIFEST_BYTES_MAX, Reference, media_type};
use crate::tar::Gunzip;

/// Names the images of a docker-archive.
pub const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// Reads what a docker-archive holds, and makes its manifests.
pub fn read(archive: &mut Archive) -> Result<(), Error> {
    let items: Vec<Item> = archive.json(MANIFEST)?;
    for item in items {
        let manifest = manifest(archive, &item)?;
        let digest = Digest::sha256(&manifest);
        archive.made.insert(digest, manifest);
        let mut names: Vec<Option<Reference>> = Vec::new();
        for tag in item.repo_tags.unwrap_or_default() {
            let name = tag.parse().map_err(|error| archive.source.wrong(&format!("{error}")))?;
            names.push(Some(name));
        }
        if names.is_empty() {
            names.push(None);
        }
        let media_type = Some(media_type::OCI_MANIFEST.to_owned());
        archive.listed.extend(names.into_iter().map(|name| Listed {
            name,
            digest,
            media_type: media_type.clone(),
            has_platform: false,
        }));
    }
    Ok(())
}

fn manifest(archive: &mut Archive, item: &Item) -> Result<Vec<u8>, Error> {
    let name = archive.source.resolved(&item.config);
    let config = archive.source.read(&name, FILE_BYTES_MAX)?;
    let config = config.ok_or_else(|| archive.source.wrong(&format!("no {name}, expected one")))?;
    let config_digest = Digest::sha256(&config);
    let stem = item.config.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    if let Ok(named) = format!("sha256:{stem}").parse::<Digest>()
        && named != config_digest
    {
        let what = format!("{name} has the digest {config_digest}: the file is corrupt");
        return Err(Error::new(Kind::Corrupt, archive.source.wrong(&what).to_string()));
    }
    let Config { rootfs: RootFs { diff_ids } } = archive.parse(&name, &config)?;
    if diff_ids.len() != item.layers.len() {
        let what = format!("{name} names {} layers, {MANIFEST}", diff_ids.len());
        return Err(archive.source.wrong(&format!("{what} {}", item.layers.len())));
    }
    let mut layers = Vec::new();
    for (path, diff_id) in item.layers.iter().zip(&diff_ids) {
        let path = archive.source.resolved(path);
        let size = archive.source.size(&path)?;
        let size = size.ok_or_else(|| archive.source.wrong(&format!("no {path}, expected one")))?;
        let is_gzip = archive.source.is_gzip(&path);
        let digest = if is_gzip { compressed(archive, &path, diff_id)? } else { *diff_id };
        let kind = if is_gzip { LAYER_GZIP } else { LAYER };
        layers.push(json!({ "mediaType": kind, "digest": digest, "size": size }));
        archive.places.insert(digest, path);
    }
    archive.places.insert(config_digest, name);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": { "mediaType": CONFIG, "digest": config_digest, "size": config.len() },
        "layers": layers,
    });
    let bytes = manifest.to_string().into_bytes();
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(archive.source.wrong("a manifest that is too long"));
    }
    Ok(bytes)
}

/// The digest of a compressed layer that inflates to what `diff_id` names.
fn compressed(archive: &mut Archive, path: &str, diff_id: &Digest) -> Result<Digest, Error> {
    let source = archive.source.reader(path, 0)?;
    let digests = digests(source, diff_id.algorithm());
    let (digest, found) = digests.map_err(|error| archive.failed(error))?;
    if found != *diff_id {
        let what = format!("{path} inflates to the digest {found}, expected {diff_id}");
        return Err(Error::new(Kind::Corrupt, archive.source.wrong(&what).to_string()));
    }
    Ok(digest)
}

/// The digests of what is read, and of what it inflates to.
fn digests(source: impl Read, algorithm: Algorithm) -> io::Result<(Digest, Digest)> {
    let mut source = Hashed { source, hash: Hasher::new(Algorithm::Sha256) };
    let mut inflated = Hasher::new(algorithm);
    let mut reader = Gunzip::new(&mut source);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            length => inflated.update(buffer.get(..length).unwrap_or_default()),
        }
    }
    // What is behind the last member is part of the layer.
    io::copy(&mut source, &mut io::sink())?;
    Ok((source.hash.finish(), inflated.finish()))
}

/// Takes the digest of what is read.
struct Hashed<R> {
    source: R,
    hash: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.hash.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const BUFFER_BYTES: usize = 64 << 10;
