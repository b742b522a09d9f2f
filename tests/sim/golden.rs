//! Images that earlier programs wrote, one for each version of the format: they must be read for
//! as long as Moonlet is.
//!
//! `tests/data/log-v1.bin` was written by the first program of version 1, by `write` below. When
//! the format gets a new version, `GOLDEN=write cargo test --test sim golden` adds its image; one
//! that is there is never written again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use moonlet::blob::format::VERSION;
use moonlet::blob::{Store, TagKey};
use moonlet::flash::Geometry;
use moonlet::flash::sim::Device;
use moonlet::oci::{Algorithm, Digest, Hasher};

use crate::model::mount;

const GEOMETRY: Geometry =
    Geometry { segment_count: 48, segment_bytes: 32 << 10, program_bytes: 4096, reprogram: true };
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Bytes of the download that was suspended, and how far it was.
const PART: (usize, usize) = (600_000, 400_000);

#[test]
fn golden_images_of_every_version_are_read() {
    let wanted = path(VERSION);
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") && !wanted.exists() {
        std::fs::write(&wanted, write().image()).unwrap();
    }
    for version in 1..=VERSION {
        let image = std::fs::read(path(version)).unwrap();
        let device = Arc::new(Device::with_image(GEOMETRY, &image));
        let (store, report) = mount(&device).unwrap();
        assert_eq!((report.damaged, report.dropped), (0, 0), "version {version}: {report}");
        read(&store);
    }
}

#[test]
fn a_newer_version_is_refused_and_left_as_it_is() {
    let mut image = write().image();
    for segment in image.chunks_mut(GEOMETRY.segment_bytes as usize).take(4) {
        if segment.starts_with(b"MOONLET\0") {
            segment[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
            let checksum = crc32c::crc32c(&segment[..30]);
            segment[30..34].copy_from_slice(&checksum.to_le_bytes());
        }
    }
    let device = Arc::new(Device::with_image(GEOMETRY, &image));
    let refused = mount(&device).err().unwrap().to_string();
    assert!(refused.contains("version 2, this program knows version 1"), "{refused}");
    assert!(device.image() == image, "nothing was changed");
}

/// The same store on a device of another shape is refused, with both shapes in the line.
#[test]
fn another_geometry_is_refused() {
    let image = write().image();
    let other = Geometry { segment_bytes: 64 << 10, segment_count: 24, ..GEOMETRY };
    let refused = mount(&Arc::new(Device::with_image(other, &image))).err().unwrap().to_string();
    assert!(refused.contains("segments of 32768 bytes in units of 4096"), "{refused}");
    assert!(refused.contains("65536"), "{refused}");
}

/// Everything that the format can tell, once.
fn write() -> Device {
    let device = Arc::new(Device::new(GEOMETRY));
    let (store, _) = mount(&device).unwrap();
    let (long, short) = (content(300_000, 3), content(5000, 5));
    let (manifest, other) = (content(700, 7), content(9000, 9));
    smol::block_on(async {
        for (bytes, media_type) in
            [(&long, None), (&short, None), (&manifest, Some(MANIFEST)), (&other, None)]
        {
            store.put(&Digest::sha256(bytes), bytes, media_type).await.unwrap();
        }
        store.put(&sha512(&other), &other, None).await.unwrap();
        // Both in one unit.
        let (one, two) = (content(1500, 13), content(90, 17));
        let (one, two) = smol::future::zip(
            store.put(&Digest::sha256(&one), &one, None),
            store.put(&sha512(&two), &two, None),
        )
        .await;
        one.and(two).unwrap();
        store.delete(&[Digest::sha256(&other)]).await.unwrap();
        store.pin(&[Digest::sha256(&long)], true).await.unwrap();
        store.set_tag(&key("1.0"), &Digest::sha256(&manifest)).await.unwrap();
        store.set_tag(&key("gone"), &Digest::sha256(&manifest)).await.unwrap();
        store.remove_tag(&key("gone")).await.unwrap();
        store.set_rotten(&Digest::sha256(&long), &BTreeSet::from([1])).await.unwrap();
        store.passed(90_000).await.unwrap();
    });
    drop(store);
    // A checkpoint of all that, and a tail.
    let (store, _) = mount(&device).unwrap();
    let part = content(PART.0, 11);
    smol::block_on(async {
        let mut writer = store.writer(&Digest::sha256(&part), PART.0 as u64, None).await.unwrap();
        writer.write(&part[..PART.1]).await.unwrap();
        writer.suspend().await.unwrap();
        store.pin(&[Digest::sha256(&short)], true).await.unwrap();
    });
    device.survivor(0)
}

fn read(store: &Store) {
    let (long, short) = (content(300_000, 3), content(5000, 5));
    let (manifest, other) = (content(700, 7), content(9000, 9));
    for (digest, bytes, pinned) in [
        (Digest::sha256(&long), &long, true),
        (Digest::sha256(&short), &short, true),
        (Digest::sha256(&manifest), &manifest, false),
        (sha512(&other), &other, false),
        (Digest::sha256(&content(1500, 13)), &content(1500, 13), false),
        (sha512(&content(90, 17)), &content(90, 17), false),
    ] {
        assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), *bytes);
        assert_eq!(store.entry(&digest).unwrap().pinned, pinned, "{digest}");
    }
    assert_eq!(store.digests().len(), 6);
    let manifest = Digest::sha256(&manifest);
    assert_eq!(store.entry(&manifest).unwrap().media_type.as_deref(), Some(MANIFEST));
    assert_eq!(store.tags(), [(key("1.0"), manifest)]);
    assert_eq!(store.rotten(), [(Digest::sha256(&long), BTreeSet::from([1]))]);
    let stat = store.stat();
    assert_eq!((stat.recent_seconds, stat.image_bytes), (90_000, 325_290));
    let part = content(PART.0, 11);
    let unit = GEOMETRY.program_bytes as usize;
    let partials = store.partials();
    assert_eq!(partials.len(), 1);
    assert_eq!(partials[0].frontier as usize, PART.1 / unit * unit);
    // Resumed from its midstate, it is whole.
    let digest = Digest::sha256(&part);
    smol::block_on(store.put(&digest, &part, None)).unwrap();
    assert_eq!(store.read_all(&digest, u64::MAX).unwrap(), part);
    let check = || {
        let mut check = smol::block_on(store.check(&digest)).unwrap();
        while smol::block_on(check.step()).is_some() {}
        check.rotten().clone()
    };
    assert!(check().is_empty());
}

/// Bytes that do not repeat in step with chunks or units, and that pack well.
fn content(length: usize, step: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 997 * step) as u8).collect()
}

fn sha512(bytes: &[u8]) -> Digest {
    let mut hash = Hasher::new(Algorithm::Sha512);
    hash.update(bytes);
    hash.finish()
}

fn key(tag: &str) -> TagKey {
    let (registry, repository) = ("registry.example".to_owned(), "app/web".to_owned());
    TagKey { registry, repository, tag: tag.to_owned() }
}

fn path(version: u16) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/log-v{version}.bin"))
}
