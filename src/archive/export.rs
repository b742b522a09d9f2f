//! Writes held images as an OCI layout: a directory, or a tar where the name ends with `.tar`.
//!
//! What comes first says what follows, so that a tar can be read in one pass. Everything is checked
//! by its digest as it is read; the file has another name until it is whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use smol::future::yield_now;

use super::Error;
use super::bundle::{DOCUMENT, Document, Named, SIGNATURE, Signer, VERSION};
use super::contents::{INDEX, LAYOUT, blob_name};
use crate::blob::{Entry, Reader, Store};
use crate::catalog::{Catalog, Root};
use crate::fetch::{BUFFER_BYTES, Latch};
use crate::kind::Kind;
use crate::oci::{Digest, Hasher, Reference, media_type};
use crate::pull::{signed_digest, tag_key};
use crate::tar;

/// What is written.
pub struct Export<'a> {
    /// Where the images are.
    pub store: &'a Store,
    /// To know what they need.
    pub catalog: &'a Catalog,
    /// The sign to stop.
    pub stop: &'a Latch,
    /// Which.
    pub names: &'a [Reference],
    /// Images that are held where it goes: their layers are left out.
    pub held: Vec<Digest>,
    /// With which key, as which sequence and for which satellite, to make a bundle.
    pub signed: Option<(Signer, u64, Option<String>)>,
    /// The time, for people.
    pub created: String,
    /// Called with the bytes that are written, and those of all.
    pub each: &'a dyn Fn(u64, u64),
}

/// Writes a layout to `path`, where nothing may be; returns the bytes of what it holds.
///
/// # Errors
/// [`Kind::Missing`] for an image that is not held; [`Kind::Corrupt`] for what is not what its
/// digest says; those of writing.
pub async fn export(export: &Export<'_>, path: &Path) -> Result<u64, Error> {
    let contents = export.contents()?;
    if fs::symlink_metadata(path).is_ok() {
        let what = format!("{}: is there already, expected a new name", path.display());
        return Err(Error::invalid(what));
    }
    let is_tar = path.extension().is_some_and(|extension| extension == "tar");
    let mut sink = Sink::new(path, is_tar)?;
    export.write(&contents, &mut sink).await?;
    sink.finish(path)?;
    Ok(contents.bytes())
}

/// What a layout is to hold.
struct Contents {
    index: Vec<u8>,
    bundle: Option<(Vec<u8>, Vec<u8>)>,
    /// Manifests come first.
    entries: Vec<Entry>,
}

impl Contents {
    fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }
}

impl Export<'_> {
    fn contents(&self) -> Result<Contents, Error> {
        let (store, catalog) = (self.store, self.catalog);
        let (mut listed, mut images) = (Vec::new(), Vec::new());
        let (mut digests, mut roots) = (BTreeSet::new(), BTreeSet::new());
        let tags = store.tags();
        for name in self.names {
            let key = tag_key(name);
            let root = store.tag(&key).filter(|root| name.digest.is_none_or(|own| own == *root));
            let not_held = || Error::new(Kind::Missing, format!("{name} is not held"));
            let root = root.ok_or_else(not_held)?;
            let mut reachable = catalog.reachable(&[Root::whole(root)])?;
            listed.push((Some(name.to_string()), root));
            images.push(Named { reference: name.to_string(), digest: root });
            // Cosign's signatures have tags of their own.
            for (other, digest) in &tags {
                let is_beside =
                    other.registry == key.registry && other.repository == key.repository;
                let subject = signed_digest(&other.tag).filter(|_| is_beside);
                if subject.is_some_and(|subject| reachable.contains(&subject)) {
                    let name = format!("{}/{}:{}", key.registry, key.repository, other.tag);
                    listed.push((Some(name.clone()), *digest));
                    images.push(Named { reference: name, digest: *digest });
                    roots.insert(*digest);
                    reachable.extend(catalog.reachable(&[Root::whole(*digest)])?);
                }
            }
            roots.insert(root);
            digests.extend(reachable);
        }
        for subject in &digests {
            let mut after = None;
            while let Some((digest, _)) = catalog.referrer_after(subject, None, after.as_ref()) {
                if roots.insert(digest) {
                    listed.push((None, digest));
                }
                after = Some(digest);
            }
        }
        let mut entries: Vec<Entry> =
            digests.iter().filter_map(|digest| store.entry(digest)).collect();
        let held: Vec<Root<'_>> = self.held.iter().map(|digest| Root::whole(*digest)).collect();
        let held = catalog.reachable(&held)?;
        entries.retain(|entry| entry.media_type.is_some() || !held.contains(&entry.digest));
        entries.sort_by_key(|entry| (entry.media_type.is_none(), entry.digest));
        let manifests =
            listed.iter().filter_map(|(name, digest)| self.descriptor(name.as_deref(), digest));
        let manifests: Vec<Value> = manifests.collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": manifests,
        });
        let bundle = match &self.signed {
            None => None,
            Some((signer, sequence, satellite)) => {
                let document = Document {
                    version: VERSION,
                    sequence: *sequence,
                    satellite: satellite.clone(),
                    created: self.created.clone(),
                    images,
                };
                let text = serde_json::to_vec_pretty(&document)
                    .map_err(|error| Error::from_source(Kind::Invalid, error))?;
                let signature = signer.sign(&text)?;
                Some((text, signature))
            }
        };
        Ok(Contents { index: index.to_string().into_bytes(), bundle, entries })
    }

    fn descriptor(&self, name: Option<&str>, digest: &Digest) -> Option<Value> {
        let entry = self.store.entry(digest)?;
        let mut descriptor = json!({
            "mediaType": entry.media_type,
            "digest": digest,
            "size": entry.size,
        });
        if let (Some(name), Some(members)) = (name, descriptor.as_object_mut()) {
            let annotations = json!({
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name,
            });
            members.insert("annotations".to_owned(), annotations);
        }
        Some(descriptor)
    }

    async fn write(&self, contents: &Contents, sink: &mut Sink) -> Result<(), Error> {
        sink.file(LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        sink.file(INDEX, &contents.index)?;
        if let Some((document, signature)) = &contents.bundle {
            sink.file(DOCUMENT, document)?;
            sink.file(SIGNATURE, signature)?;
        }
        let all = contents.bytes();
        let mut before = 0;
        for entry in &contents.entries {
            let reader = self.store.reader(&entry.digest)?;
            sink.begin(&blob_name(&entry.digest), entry.size)?;
            self.blob(&reader, sink, |written| (self.each)(before + written, all)).await?;
            sink.end(entry.size)?;
            before += entry.size;
        }
        Ok(())
    }

    async fn blob(
        &self,
        reader: &Reader,
        sink: &mut Sink,
        each: impl Fn(u64),
    ) -> Result<(), Error> {
        let digest = reader.digest();
        let mut hash = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = 0;
        while at < reader.size() {
            if self.stop.is_open() {
                return Err(Error::new(Kind::Retry, "stopped"));
            }
            let length = reader.read_at(at, &mut buffer)?;
            let bytes = buffer.get(..length).unwrap_or_default();
            hash.update(bytes);
            sink.write(bytes)?;
            at += length as u64;
            each(at);
            // Signals are looked at.
            yield_now().await;
        }
        let found = hash.finish();
        if found != *digest {
            let what = format!("{digest} is corrupt on flash, its bytes have digest {found}");
            return Err(Error::new(Kind::Corrupt, what));
        }
        Ok(())
    }
}

/// Where a layout is written; removed unless it is finished.
struct Sink {
    /// Its name until it is whole.
    path: PathBuf,
    /// The tar, or the file at hand.
    file: Option<File>,
    is_tar: bool,
    is_finished: bool,
}

impl Sink {
    fn new(path: &Path, is_tar: bool) -> Result<Self, Error> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        if name.is_empty() {
            let what = format!("{}: expected the name of a new file", path.display());
            return Err(Error::invalid(what));
        }
        name.push(".partial");
        let path = path.with_file_name(name);
        let failed = |error: io::Error| Error::io(&path, error);
        // What a run left that was killed.
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(_) => Ok(()),
        };
        removed.map_err(failed)?;
        let file = if is_tar {
            Some(File::create_new(&path).map_err(failed)?)
        } else {
            fs::create_dir(&path).map_err(failed)?;
            None
        };
        Ok(Self { path, file, is_tar, is_finished: false })
    }

    /// Writes a short file.
    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.begin(name, bytes.len() as u64)?;
        self.write(bytes)?;
        self.end(bytes.len() as u64)
    }

    fn begin(&mut self, name: &str, size: u64) -> Result<(), Error> {
        if self.is_tar {
            return self.write(&tar::head(name, size));
        }
        let path = self.path.join(name);
        let failed = |error: io::Error| Error::io(&path, error);
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(failed)?;
        self.file = Some(File::create_new(&path).map_err(failed)?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes));
        written.map_err(|error| Error::io(&self.path, error))
    }

    fn end(&mut self, size: u64) -> Result<(), Error> {
        if self.is_tar {
            return self.write(tar::padding(size));
        }
        let synced = self.file.take().map_or(Ok(()), |file| file.sync_all());
        synced.map_err(|error| Error::io(&self.path, error))
    }

    /// Renames it to its final name.
    fn finish(mut self, path: &Path) -> Result<(), Error> {
        if self.is_tar {
            self.write(&tar::END)?;
        }
        let failed = |error: io::Error| Error::io(path, error);
        self.file.take().map_or(Ok(()), |file| file.sync_all()).map_err(failed)?;
        fs::rename(&self.path, path).map_err(failed)?;
        self.is_finished = true;
        // The name as well; a file system that cannot do that has none to sync.
        let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let _ = File::open(beside.unwrap_or(Path::new("."))).and_then(|file| file.sync_all());
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be removed now is at the next export to that name.
            let _ = if self.is_tar {
                fs::remove_file(&self.path)
            } else {
                fs::remove_dir_all(&self.path)
            };
        }
    }
}
