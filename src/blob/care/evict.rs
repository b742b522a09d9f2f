//! Giving up what is not needed, oldest use first.
//!
//! What the desired state needs is pinned and stays. The rest is a cache: an image that was desired
//! yesterday and may be again tomorrow, or what a client asked for once. It costs nothing while
//! there is room, and goes, least recently used first, when something else needs its place; tags
//! that name it go with it. Nothing is given up that is being written, or that somebody is reading.

use std::collections::BTreeSet;
use std::rc::Weak;

use log::info;

use crate::blob::format::{Record, TagKey};
use crate::blob::{Error, Store};
use crate::oci::Digest;
use crate::units::ByteCount;

impl Store {
    /// Evicts blobs of at least `bytes` in all, or what there is; false when there is nothing.
    pub(in crate::blob) async fn evict(&self, bytes: u64) -> Result<bool, Error> {
        let victims = self.victims(bytes);
        if victims.is_empty() {
            return Ok(false);
        }
        let sizes = victims.iter().filter_map(|digest| self.entry(digest));
        let size: u64 = sizes.map(|entry| entry.size).sum();
        info!(
            "{} blobs that no desired image needs are evicted, least recently used, {}",
            victims.len(),
            ByteCount(size)
        );
        self.metrics().store_evicted_bytes.add(size);
        // No tag may mean what is not held, not even after a cut.
        for key in self.tags_of(&victims) {
            self.append(Record::Untag { key })?;
        }
        self.delete(&victims).await?;
        Ok(true)
    }

    fn tags_of(&self, digests: &[Digest]) -> Vec<TagKey> {
        let digests: BTreeSet<&Digest> = digests.iter().collect();
        let state = self.0.state.borrow();
        let tags = state.index.tags.iter().filter(|(_, digest)| digests.contains(digest));
        tags.map(|(key, _)| key.clone()).collect()
    }

    fn victims(&self, bytes: u64) -> Vec<Digest> {
        let state = self.0.state.borrow();
        let read: BTreeSet<Digest> =
            state.leases.iter().filter_map(Weak::upgrade).map(|record| record.digest).collect();
        let mut idle: Vec<(u32, u64, Digest)> = state
            .index
            .blobs
            .summaries()
            .filter(|brief| !brief.pinned && !read.contains(&brief.digest))
            .map(|brief| (brief.used, brief.size, brief.digest))
            .collect();
        idle.sort_unstable();
        let mut found = 0;
        let enough = idle.into_iter().take_while(|(_, size, _)| {
            let wanted = found < bytes;
            found += size;
            wanted
        });
        enough.map(|(_, _, digest)| digest).collect()
    }
}
