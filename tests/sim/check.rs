//! What a mounted log must be, by the model, and what must be true of it whatever was done.

use std::collections::BTreeSet;

use moonlet::blob::Store;

use crate::model::{Blobs, Model, document_bytes, key, spent};
use crate::run::resume_partials;

/// Compares a mounted log with what was promised before and after the step that was cut. Returns
/// the first breach.
pub fn check(store: &Store, blobs: &Blobs, before: &Model, after: &Model) -> Result<(), String> {
    for digest in store.digests() {
        let entry = store.entry(&digest).ok_or("listed and not held")?;
        let blob = blobs.index(&entry.digest);
        if !before.held.contains(&blob) && !after.held.contains(&blob) {
            return Err(format!("blob {blob} is held and was never acknowledged"));
        }
        let mut found = vec![0; blobs.bytes[blob].len()];
        let reader = store.reader(&digest).map_err(|error| error.to_string())?;
        reader.read_at(0, &mut found).map_err(|error| error.to_string())?;
        if found != blobs.bytes[blob] {
            return Err(format!("blob {blob} has wrong bytes"));
        }
        let (pinned, promised) = (entry.pinned, before.pinned.contains(&blob));
        let is_new = !before.held.contains(&blob);
        if pinned != promised && pinned != after.pinned.contains(&blob) && !is_new {
            return Err(format!("blob {blob}: pinned {pinned}"));
        }
    }
    // What a cut kept from being pinned may be evicted for what comes.
    let promised = |blob: &&usize| before.pinned.contains(blob);
    for blob in before.held.intersection(&after.held).filter(promised) {
        if store.entry(&blobs.digests[*blob]).is_none() {
            return Err(format!("blob {blob} was acknowledged and is gone"));
        }
    }
    for tag in before.tags.keys().chain(after.tags.keys()) {
        let found = store.tag(&key(tag)).map(|digest| blobs.index(&digest));
        if found != before.tags.get(tag).copied() && found != after.tags.get(tag).copied() {
            return Err(format!("tag {tag} means {found:?}"));
        }
    }
    check_notes(store, before, after)?;
    for partial in store.partials() {
        let blob = blobs.index(&partial.digest);
        let promised = before.begun.get(&blob).filter(|_| after.begun.contains_key(&blob));
        // Less than a unit is kept in memory only.
        if promised.is_some_and(|end| partial.frontier + 4096 < *end as u64) {
            return Err(format!("blob {blob} begins again at {}", partial.frontier));
        }
    }
    for (blob, end) in &before.begun {
        let is_there = store.partials().iter().any(|p| p.digest == blobs.digests[*blob]);
        if *end > 0 && after.begun.contains_key(blob) && !is_there {
            return Err(format!("blob {blob} was suspended and is gone"));
        }
    }
    Ok(())
}

fn check_notes(store: &Store, before: &Model, after: &Model) -> Result<(), String> {
    for name in before.documents.keys().chain(after.documents.keys()) {
        let found = document_bytes(store, name);
        let promised = [before, after].map(|model| model.documents.get(name).copied().unwrap_or(0));
        if !promised.contains(&found) {
            return Err(format!("document {name} has {found} bytes, expected {promised:?}"));
        }
    }
    let spent = spent(store);
    if ![before.spent, after.spent].contains(&spent) {
        return Err(format!("{spent} bytes spent, expected {} or {}", before.spent, after.spent));
    }
    Ok(())
}

/// The blobs of which every byte is served; what is served of the others is right, too.
pub fn check_served(store: &Store, blobs: &Blobs) -> Result<BTreeSet<usize>, String> {
    let mut whole = BTreeSet::new();
    for digest in store.digests() {
        let blob = blobs.index(&digest);
        // As the background does before anyone is served what was written before the cut.
        let checking = smol::block_on(store.check(&digest));
        let mut checking = checking.map_err(|error| error.to_string())?;
        while smol::block_on(checking.step()).is_some() {}
        let corrupt = checking.corrupt().clone();
        let reader = store.reader(&digest).map_err(|error| error.to_string())?;
        let mut at = 0;
        for (chunk, expected) in (0..).zip(chunks(&blobs.bytes[blob])) {
            let mut found = vec![0; expected.len()];
            let is_right = reader.read_at(at, &mut found).is_ok() && found == expected;
            if !is_right && !corrupt.contains(&chunk) {
                return Err(format!("blob {blob}: chunk {chunk} is wrong and passes for right"));
            }
            at += expected.len() as u64;
        }
        if corrupt.is_empty() {
            whole.insert(blob);
        }
    }
    Ok(whole)
}

fn chunks(bytes: &[u8]) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(moonlet::blob::format::CHUNK_BYTES as usize)
}

/// Whether everything that is held has the right bytes, and every tag a blob; returns the number
/// held.
pub fn check_bytes(store: &Store, blobs: &Blobs) -> Result<usize, String> {
    for digest in store.digests() {
        let found = store.read_all(&digest, u64::MAX).map_err(|error| error.to_string())?;
        let blob = blobs.index(&digest);
        if found != blobs.bytes[blob] {
            return Err(format!("blob {blob} has wrong bytes"));
        }
    }
    for (key, digest) in store.tags() {
        if store.entry(&digest).is_none() {
            return Err(format!("{key} means nothing that is held"));
        }
    }
    Ok(store.digests().len())
}

/// Finishes every download that the log knows of: what is on flash must fit what comes.
pub fn finish_partials(store: &Store, blobs: &Blobs) -> Result<(), String> {
    for blob in resume_partials(store, blobs)? {
        let found = store.read_all(&blobs.digests[blob], u64::MAX);
        if found.map_err(|error| error.to_string())? != blobs.bytes[blob] {
            return Err(format!("blob {blob} was resumed: wrong bytes"));
        }
    }
    Ok(())
}
