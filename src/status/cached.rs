//! Images that are held and that nothing asks to be: what clients had fetched, and what is not
//! desired any more. They are evicted when room is needed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Admin;
use crate::blob::{self, TagKey};
use crate::catalog::Root;
use crate::kind::Kind;
use crate::oci::Reference;
use crate::pull::{is_companion_tag, is_staged_tag, tag_key};
use crate::units::ByteCount;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedReport {
    /// Its name.
    pub reference: String,
    /// The digest held under its tag.
    pub digest: String,
    /// Bytes of it on flash; some may be other images' as well.
    pub held_bytes: u64,
}

impl Admin {
    /// All of them, in the order of their names.
    ///
    /// # Errors
    /// The log's own.
    pub fn cached(&self) -> Result<Vec<CachedReport>, blob::Error> {
        let kept = self.progress.images(self.clock.monotonic()).into_iter();
        let kept = kept.filter_map(|(reference, _)| reference.parse::<Reference>().ok());
        let kept: BTreeSet<TagKey> = kept.map(|reference| tag_key(&reference)).collect();
        let mut cached = Vec::new();
        for (key, digest) in self.store.tags() {
            if is_companion_tag(&key.tag) || is_staged_tag(&key.tag) || kept.contains(&key) {
                continue;
            }
            let reference = key.to_string();
            // What a manifest that has decayed names is not known.
            let held = match self.catalog.reachable(&[Root::whole(digest)]) {
                Err(error) if error.kind() == Kind::Corrupt => BTreeSet::from([digest]),
                held => held?,
            };
            let held = held.iter().filter_map(|digest| self.store.entry(digest));
            let held_bytes = held.map(|entry| entry.size).sum();
            cached.push(CachedReport { reference, digest: digest.to_string(), held_bytes });
        }
        cached.sort_by(|one, other| one.reference.cmp(&other.reference));
        Ok(cached)
    }
}

/// A row an image.
pub fn draw_cached(images: &[CachedReport]) -> String {
    if images.is_empty() {
        return "nothing is held that is not desired\n".to_owned();
    }
    let width = images.iter().map(|image| image.reference.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:12}  {:>9}\n", "IMAGE", "DIGEST", "SIZE");
    for CachedReport { reference, digest, held_bytes } in images {
        let digest: String = digest.split(':').nth(1).unwrap_or(digest).chars().take(12).collect();
        let size = ByteCount(*held_bytes).to_string();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{reference:width$}  {digest:12}  {size:>9}");
    }
    text
}
