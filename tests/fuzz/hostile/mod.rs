//! What the log owes to a mount of an arbitrary image: no panic, no wrong bytes, and from then
//! on a store that keeps what it acknowledges.
//!
//! A panic here is a finding. The fuzzer (`scripts/fuzz`) and `tests/hostile.rs` share this.

mod contents;
mod image;
mod input;
mod records;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use moonlet::blob::{Error, MountReport, Store, TagKey};
use moonlet::flash::sim::Device;
use moonlet::kind::Kind;
use moonlet::metrics::Metrics;
use moonlet::oci::Digest;

use contents::Content;
use image::Image;
use input::Input;

/// Makes an image of `input` and lives with it for a while.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let image = Image::read(&mut input);
    let device = Arc::new(image.device());
    let (store, report) = match open(&device) {
        Ok(mounted) => mounted,
        Err(error) if error.kind() == Kind::Invalid => {
            assert_eq!(device.operations(), 0, "refused and changed: {error}");
            return;
        }
        Err(error) => return assert!(image.is_worn(), "{:?}: {error}", error.kind()),
    };
    check_report(&store, &report);
    check_view(&store);
    store.digests().iter().for_each(|digest| check_blob(&store, digest));
    let mut life = Life {
        image: &image,
        cut: false,
        kept: Vec::new(),
        document: None,
        gone: BTreeSet::new(),
        resumed: BTreeSet::new(),
    };
    smol::block_on(life.spend(&store, &device, &mut input));
    drop(store);
    let survivor = Arc::new(device.survivor(u64::from(input.byte() % 4)));
    life.check_remount(&survivor);
    life.check_remount(&survivor);
}

fn open(device: &Arc<Device>) -> Result<(Store, MountReport), Error> {
    Store::open(Arc::clone(device) as _, Rc::new(Metrics::default()))
}

/// What is reported at the mount is what is there.
fn check_report(store: &Store, report: &MountReport) {
    assert_eq!(report.blobs, store.digests().len(), "{report}");
    assert_eq!(report.partials, store.partials().len(), "{report}");
    assert_eq!(report.tags, store.tags().len(), "{report}");
}

/// All ways to look at the store say the same.
fn check_view(store: &Store) {
    let stat = store.stat();
    let digests = store.digests();
    assert_eq!(stat.blobs, digests.len() as u64);
    let entry = |digest: &Digest| store.entry(digest).expect("listed and not held");
    let entries: Vec<_> = digests.iter().map(entry).collect();
    let held: u64 = entries.iter().map(|entry| entry.size).sum();
    assert_eq!(stat.held_bytes, held);
    let cached = entries.iter().filter(|entry| !entry.pinned);
    assert_eq!(stat.cached_bytes, cached.map(|entry| entry.size).sum::<u64>());
    assert!(held <= stat.used_bytes, "{stat:?}");
    let manifests = entries.iter().filter(|entry| entry.media_type.is_some());
    assert_eq!(store.manifests().len(), manifests.count());
    assert_eq!(stat.partials, store.partials().len() as u64);
    for partial in store.partials() {
        assert!(partial.frontier <= partial.size, "{partial:?}");
    }
    for (key, digest) in store.tags() {
        assert!(store.entry(&digest).is_some(), "{key} means what is not held");
        assert_eq!(store.tag(&key), Some(digest));
        assert!(store.has_repository(&key.registry, &key.repository));
        let repository = (key.registry.as_str(), key.repository.as_str());
        let tags = store.tags_after(repository, "", usize::MAX, |tag| tag == key.tag);
        // No tag comes behind one that is empty, which only a forged log has.
        assert!(key.tag.is_empty() || tags == [key.tag.as_str()], "{tags:?}, expected {key}");
    }
    for (digest, _) in store.corrupt() {
        assert!(store.entry(&digest).is_some(), "{digest} is corrupt and not held");
        store.is_corrupt(&digest, 0..u64::MAX);
    }
}

/// Looks at a blob in all ways. A check of its chunks finds something if, and only if, a reading
/// of the whole does.
fn check_blob(store: &Store, digest: &Digest) {
    // A blob of no bytes has no chunk that could be wrong.
    let is_empty = store.entry(digest).is_some_and(|entry| entry.size == 0);
    assert!(read_blob(store, digest) || is_empty, "{digest}: checks differ");
}

/// No read of a blob returns other bytes than its digest's as right. Whether a check
/// of its chunks agrees.
fn read_blob(store: &Store, digest: &Digest) -> bool {
    let entry = store.entry(digest).expect("listed and not held");
    let reader = store.reader(digest).expect("listed and not held");
    assert_eq!(reader.size(), entry.size);
    let whole = store.read_all(digest, u64::MAX);
    if let Ok(bytes) = &whole {
        let is_right = match contents::find(digest) {
            Some(content) => content.bytes == *bytes,
            None => digest.algorithm().digest(bytes) == *digest,
        };
        assert!(is_right, "{digest}: wrong bytes");
        let mut read = vec![0; bytes.len() + 1];
        assert_eq!(reader.read_at(0, &mut read).ok(), Some(bytes.len()));
        assert_eq!(read[..bytes.len()], *bytes, "{digest}: two readings differ");
        let middle = bytes.len() / 3;
        let count = reader.read_at(middle as u64, &mut read).unwrap();
        assert_eq!(read[..count], bytes[middle..], "{digest}: the middle differs");
    }
    if entry.size > 0 {
        assert!(store.read_all(digest, entry.size - 1).is_err());
    }
    for offset in [entry.size, entry.size + 1, u64::MAX] {
        assert_eq!(reader.read_at(offset, &mut [0; 4]).ok(), Some(0), "behind the end");
        assert!(reader.spans(offset, 1).is_none());
    }
    let mut check = smol::block_on(store.check(digest)).expect("listed and not held");
    let mut checked = 0;
    while let Some(bytes) = smol::block_on(check.step()) {
        checked += bytes;
    }
    assert_eq!(checked, entry.size);
    check.corrupt().is_empty() == whole.is_ok()
}

/// What is done with a store after the mount, and what it promised meanwhile.
struct Life<'a> {
    image: &'a Image,
    /// The power goes away at some point.
    cut: bool,
    /// Acknowledged, and not given up since.
    kept: Vec<&'static Content>,
    /// What the document says, if it was set.
    document: Option<Vec<u8>>,
    /// Given up.
    gone: BTreeSet<Digest>,
    /// Begun before the mount and finished after it: the hashes of its first chunks are those that
    /// the log held, which may have made them up.
    resumed: BTreeSet<Digest>,
}

impl Life<'_> {
    async fn spend(&mut self, store: &Store, device: &Device, input: &mut Input<'_>) {
        let plan = input.byte();
        if plan & 1 == 1 {
            self.cut = true;
            device.cut_after(u64::from(input.byte()));
        }
        if plan & 2 == 2 {
            for digest in store.digests() {
                self.judge("check", store.check_all(&digest, async |_| ()).await);
            }
        }
        if plan & 4 == 4 {
            self.repair(store).await;
        }
        if plan & 8 == 8 {
            self.resume(store).await;
        }
        self.put(store, &contents::new()[0]).await;
        if plan & 16 == 16 {
            let segment_bytes = u64::from(self.image.geometry.segment_bytes);
            let size_max = u64::from(input.byte()) * segment_bytes;
            self.judge("resize", store.resize(size_max).await);
        }
        let larger = 1 + usize::from(plan >> 5) % 4;
        self.put(store, &contents::new()[larger]).await;
        self.tag(store, &contents::new()[0]).await;
        for _ in 0..input.below(4) {
            self.delete(store, input).await;
        }
        self.put(store, &contents::new()[5]).await;
        self.put(store, &contents::new()[larger]).await;
        self.document(store, input).await;
        check_view(store);
    }

    /// Whether it was done; the reasons not to are few.
    fn judge<T>(&self, doing: &str, outcome: Result<T, Error>) -> bool {
        let Err(error) = outcome else { return true };
        let kind = error.kind();
        let passes = kind == Kind::Full || self.image.is_worn() || self.cut;
        assert!(passes, "{doing}: {kind:?}: {error}");
        false
    }

    async fn put(&mut self, store: &Store, content: &'static Content) {
        let Content { bytes, digest, .. } = content;
        self.kept.retain(|kept| kept.digest != *digest || store.entry(digest).is_some());
        // Even when this fails, it may be there after a remount.
        self.gone.remove(digest);
        if self.judge("put", store.put(digest, bytes, None).await) {
            let found = store.read_all(digest, u64::MAX);
            // A card that takes what is programmed and keeps nothing is noticed at the next check.
            assert!(found.is_ok_and(|found| found == *bytes) || self.image.is_worn(), "just put");
            // What is not pinned may be evicted. And what is held already need not be durable yet.
            let is_kept = self.judge("pin", store.pin(&[*digest], true).await);
            if is_kept && self.judge("flush", store.flush().await) {
                self.kept.push(content);
            }
        }
    }

    /// What is set is what is read, now and after the remount.
    async fn document(&mut self, store: &Store, input: &mut Input<'_>) {
        let bytes = vec![b'd'; usize::from(input.byte() % 8)];
        store.recorded_time();
        store.ledger();
        let outcome = store.set_document(DOCUMENT, &bytes).await;
        // As many as there may be are there under other names.
        let is_refused = outcome.as_ref().is_err_and(|error| error.kind() == Kind::Invalid);
        if !is_refused && self.judge("document", outcome) {
            assert_eq!(store.document(DOCUMENT).as_deref().unwrap_or_default(), bytes);
            self.document = Some(bytes);
        }
    }

    async fn tag(&mut self, store: &Store, content: &Content) {
        if store.entry(&content.digest).is_some() {
            self.judge("tag", store.set_tag(&key(), &content.digest).await);
        }
    }

    async fn delete(&mut self, store: &Store, input: &mut Input<'_>) {
        let mut digests = store.digests();
        digests.extend(store.partials().iter().map(|partial| partial.digest));
        if digests.is_empty() {
            return;
        }
        let digest = digests[input.byte() as usize % digests.len()];
        for (key, tagged) in store.tags() {
            if tagged == digest && !self.judge("untag", store.remove_tag(&key).await) {
                return;
            }
        }
        self.kept.retain(|kept| kept.digest != digest);
        if self.judge("delete", store.delete(&[digest]).await) {
            self.gone.insert(digest);
        }
    }

    /// Puts right what is corrupt, where the bytes are known.
    async fn repair(&mut self, store: &Store) {
        for (digest, chunks) in store.corrupt() {
            let Some(content) = contents::find(&digest) else { continue };
            for chunk in chunks {
                let Ok(range) = store.chunk_range(&digest, chunk) else { break };
                let bytes = content.bytes.get(range.start as usize..range.end as usize);
                let outcome = store.repair(&digest, chunk, bytes.unwrap_or_default()).await;
                if let Err(error) = outcome
                    && error.kind() != Kind::Corrupt
                {
                    self.judge("repair", Err::<(), _>(error));
                }
            }
        }
    }

    /// Goes on with what was begun, where the bytes are known.
    async fn resume(&mut self, store: &Store) {
        for partial in store.partials() {
            let Some(content) = contents::find(&partial.digest) else { continue };
            if store.entry(&partial.digest).is_some() {
                continue;
            }
            self.resumed.insert(content.digest);
            let outcome = store.put(&content.digest, &content.bytes, None).await;
            // What the log said of the first bytes may be wrong: then it is noticed at the end,
            // or whenever they are read.
            let is_noticed = outcome.as_ref().is_err_and(|error| error.kind() == Kind::Corrupt);
            if !is_noticed && self.judge("resume", outcome) {
                read_blob(store, &content.digest);
            }
        }
    }

    /// What was acknowledged is there after a remount, and what was given up is not.
    fn check_remount(&self, device: &Arc<Device>) {
        let (store, report) = match open(device) {
            Ok(mounted) => mounted,
            Err(error) => return assert!(self.image.is_worn(), "remount: {error}"),
        };
        check_report(&store, &report);
        check_view(&store);
        for digest in store.digests() {
            if self.resumed.contains(&digest) {
                read_blob(&store, &digest);
            } else {
                check_blob(&store, &digest);
            }
        }
        if !self.image.is_plausible || self.image.is_worn() {
            return;
        }
        for Content { bytes, digest, .. } in &self.kept {
            let found = store.read_all(digest, u64::MAX);
            let found = found.unwrap_or_else(|error| panic!("{error}; {report}"));
            assert_eq!(found, *bytes);
        }
        if let Some(document) = &self.document {
            assert_eq!(store.document(DOCUMENT).as_deref().unwrap_or_default(), document);
        }
        for digest in &self.gone {
            assert!(store.entry(digest).is_none(), "{digest}: given up and there; {report}");
        }
    }
}

const DOCUMENT: &str = "desired";

fn key() -> TagKey {
    let (registry, repository) = ("registry.example".to_owned(), "app/web".to_owned());
    TagKey { registry, repository, tag: "new".to_owned() }
}
