//! Images that earlier programs wrote, one for each version of the format: they must be read for
//! as long as Moonlet is.
//!
//! `tests/data/log-v1.bin` was written by the first program of version 1, by `write` below. When
//! the format gets a new version, `GOLDEN=write cargo test --test sim golden` adds its image; one
//! that is there is never written again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use moonlet::blob::format::{HEADER_BYTES, Header, HeaderState, Part, Record, VERSION};
use moonlet::blob::{Spent, Store, TagKey};
use moonlet::flash::Geometry;
use moonlet::flash::sim::Device;
use moonlet::kind::Kind;
use moonlet::oci::{Algorithm, Digest};

use crate::run::mount;

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

/// A frame that is sound and not known is no damage: a newer program wrote it, and would miss what
/// this one leaves behind.
#[test]
fn an_unknown_record_is_a_newer_programs() {
    let known = Record::Time { unix_seconds: 1 };
    for (payload, is_refused) in [
        (postcard::to_allocvec(&known).unwrap(), false),
        (vec![16], true),
        (vec![0xE7, 7, 1, 2], true),
        // A record with one field more.
        ([postcard::to_allocvec(&known).unwrap(), vec![5]].concat(), true),
        // Not even the number of a record; damage, if something follows.
        (vec![0x80; 11], false),
    ] {
        for part in [Part::Checkpoint, Part::Tail] {
            let mut records = vec![(vec![0], Part::Checkpoint), (vec![1, 0], Part::Checkpoint)];
            let frames = u8::from(part == Part::Checkpoint);
            records.insert(if frames == 1 { 1 } else { 2 }, (payload.clone(), part));
            if frames == 1 {
                records[2].0 = vec![1, frames];
            }
            let image = meta_segment(1, &records);
            let device = Arc::new(Device::with_image(GEOMETRY, &image));
            match mount(&device) {
                Err(error) => {
                    assert!(is_refused, "{payload:?} {part:?}: {error}");
                    assert_eq!(error.kind(), Kind::Invalid);
                    assert!(error.to_string().contains("newer moonlet"), "{error}");
                    assert!(device.image()[..image.len()] == image, "nothing was changed");
                }
                Ok(_) => assert!(!is_refused, "{payload:?} in the {part:?} was read"),
            }
        }
    }
}

/// A header whose number no log comes to, forged or corrupt past its checksum, hides nothing and
/// does not make those that are begun later unreadable.
#[test]
fn a_number_out_of_all_bounds_is_left_behind() {
    let whole = write().image();
    for sequence in [1 << 40, (1 << 63) - 2, (1 << 63) - 1, 1 << 63, u64::MAX] {
        // Beside a log, in each place of its ring; and alone, on a device that has no other.
        let beside = (0..4).map(|slot| (slot, whole.clone()));
        let alone = (0, vec![0; GEOMETRY.segment_bytes as usize * 4]);
        for (slot, mut image) in beside.chain([alone]) {
            let start = slot * GEOMETRY.segment_bytes as usize;
            let forged = meta_segment(sequence, &[(vec![0], Part::Checkpoint)]);
            let is_alone = image.iter().all(|byte| *byte == 0);
            let is_base = image[start..].starts_with(&base_header(&whole));
            image[start..start + 4096].copy_from_slice(&forged[..4096]);
            let device = Arc::new(Device::with_image(GEOMETRY, &image));
            let what = format!("{sequence} in {slot}");
            for round in 0..12_u8 {
                let (store, report) = mount(&device).unwrap();
                assert!(round < 5 || report.damaged == 0, "{what}, {round}: {report}");
                if round == 0 && !is_alone && !is_base {
                    read(&store);
                }
                let said = store.document("round").as_deref().map(|said| said[0]);
                assert_eq!(said, round.checked_sub(1), "{what}: what was recorded last");
                smol::block_on(store.set_document("round", &[round])).unwrap();
            }
        }
    }
}

/// The header of the newest segment.
fn base_header(image: &[u8]) -> Vec<u8> {
    let segments = image.chunks(GEOMETRY.segment_bytes as usize).take(4);
    let header = segments.map(|segment| &segment[..HEADER_BYTES]);
    let sequence = |header: &&[u8]| match Header::decode(header) {
        HeaderState::Valid(header) => header.sequence,
        _ => 0,
    };
    header.max_by_key(sequence).unwrap().to_vec()
}

/// A META segment of these payloads, each in its part.
fn meta_segment(sequence: u64, payloads: &[(Vec<u8>, Part)]) -> Vec<u8> {
    let Geometry { segment_bytes, program_bytes, .. } = GEOMETRY;
    let header = Header { sequence, erase_count: 1, segment_bytes, program_bytes };
    let mut bytes = header.encode().to_vec();
    bytes.resize(program_bytes as usize, 0);
    for (payload, part) in payloads {
        let length = payload.len() as u32;
        let seed = crc32c::crc32c(&sequence.to_le_bytes());
        let seed = crc32c::crc32c_append(seed, &[u8::from(*part == Part::Tail)]);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c_append(seed, payload).to_le_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
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

/// Everything that the format can hold, once.
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
        store.set_corrupt(&Digest::sha256(&long), &BTreeSet::from([1])).await.unwrap();
        store.record_time(1_700_000_000).unwrap();
        store.set_document("gone", b"a draft").await.unwrap();
        store.set_document("gone", b"").await.unwrap();
        store.set_document("state", b"an older state").await.unwrap();
        store.set_document("enrolment", &[0, 255, 7]).await.unwrap();
        store.set_ledger(vec![spent("link/day", 19_675, 1), spent("old", 1, 2)]).await.unwrap();
        store.tick(90_000).await.unwrap();
    });
    drop(store);
    // A checkpoint of all that, and a tail.
    let (store, _) = mount(&device).unwrap();
    let part = content(PART.0, 11);
    smol::block_on(async {
        let mut writer = store.writer(&Digest::sha256(&part), PART.0 as u64, None).await.unwrap();
        writer.write(&part[..PART.1]).await.unwrap();
        writer.suspend().await.unwrap();
        store.record_time(1_700_086_400).unwrap();
        store.set_document("state", b"the state").await.unwrap();
        store.set_ledger(ledger()).await.unwrap();
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
    assert_eq!(store.corrupt(), [(Digest::sha256(&long), BTreeSet::from([1]))]);
    let stat = store.stat();
    assert_eq!((stat.recent_seconds, stat.image_bytes), (90_000, 325_290));
    assert_eq!(store.recorded_time(), Some(1_700_086_400));
    assert_eq!(store.document("state").as_deref(), Some(b"the state".as_slice()));
    assert_eq!(store.document("enrolment").as_deref(), Some([0, 255, 7].as_slice()));
    assert_eq!(store.document("gone"), None);
    assert_eq!(store.ledger(), ledger());
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
        check.corrupt().clone()
    };
    assert!(check().is_empty());
}

fn ledger() -> Vec<Spent> {
    vec![spent("link/day", 19_676, 300_000_000), spent("link/month", 23_886, u64::MAX)]
}

fn spent(account: &str, period: u32, bytes: u64) -> Spent {
    Spent { account: account.to_owned(), period, bytes }
}

/// Bytes that do not repeat in step with chunks or units, and that pack well.
fn content(length: usize, step: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 997 * step) as u8).collect()
}

fn sha512(bytes: &[u8]) -> Digest {
    Algorithm::Sha512.digest(bytes)
}

fn key(tag: &str) -> TagKey {
    let (registry, repository) = ("registry.example".to_owned(), "app/web".to_owned());
    TagKey { registry, repository, tag: tag.to_owned() }
}

fn path(version: u16) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/log-v{version}.bin"))
}
