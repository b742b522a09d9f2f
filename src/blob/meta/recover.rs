//! Mounting: from what a device holds to what the log knows.
//!
//! The newest META segment whose checkpoint is whole is the base; its tail is replayed. A newer
//! segment without a tail is a compaction that power cut short, and is ignored: nothing was
//! appended to it. A newer one with a tail was in use and is damaged: what can be read of it is
//! replayed over the base, and then nothing is believed without its hash, because a Delete may be
//! among what was lost. Mount ends by beginning a new segment, so that nothing is ever appended
//! after a torn unit.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use log::warn;

use crate::blob::Error;
use crate::blob::format::layout::GRAINS;
use crate::blob::format::{
    BlobRecord, CHUNK_BYTES, Extent, Header, HeaderState, Part, Record, VERSION, meta_segments,
};
use crate::blob::index::Index;
use crate::blob::index::space::Space;
use crate::blob::meta::claims::{claim_all, drop_overlaps, drop_wrong_bytes, drop_wrong_places};
use crate::blob::meta::read::{Survey, read_header, scan};
use crate::blob::meta::{Meta, Ring, SEQUENCE_MAX};
use crate::flash::{self, Device, Geometry, SEGMENTS_MAX};
use crate::kind::Kind;
use crate::oci::Digest;
use crate::units::{to_u32, to_usize};

/// What was found on the device. Its `Display` is one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountReport {
    /// Whole blobs.
    pub blobs: usize,
    /// Downloads that will go on.
    pub partials: usize,
    /// Tags.
    pub tags: usize,
    /// Places in the META ring that could not be read.
    pub damaged: u32,
    /// Blobs and downloads that were dropped because their bytes or their room are not theirs.
    pub dropped: usize,
    /// Nothing could be read where a log had been: it was begun anew.
    pub was_lost: bool,
}

impl fmt::Display for MountReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blobs, partials, tags, damaged, dropped, was_lost } = self;
        write!(f, "{blobs} blobs held, {partials} under way, {tags} tags")?;
        if *was_lost {
            write!(f, "; the index of an older log cannot be read: begun anew")?;
        }
        if *damaged > 0 || *dropped > 0 {
            write!(
                f,
                "; {damaged} damaged places, {dropped} blobs dropped: the next sync fetches"
            )?;
        }
        Ok(())
    }
}

/// A log ready for use.
pub struct Mounted {
    /// What it holds.
    pub index: Index,
    /// What is free.
    pub space: Space,
    /// Its end.
    pub meta: Meta,
    /// What was written last, and may be less than whole if the device lied or was hurt.
    pub suspects: BTreeSet<Digest>,
    /// What was found.
    pub report: MountReport,
    /// Bytes programmed to begin the new segment.
    pub programmed_bytes: u64,
    /// Room of nothing that is held, in which somebody reads.
    pub read: Vec<Extent>,
}

/// Mounts what `device` holds, or begins a log on it. What can only be read is left as it is, and
/// nothing may be appended to it. Where somebody reads the blobs that are `held`, nothing else may
/// lie, even if the log has no such blob there.
pub fn mount(device: &Arc<dyn Device>, held: &[BlobRecord]) -> Result<Mounted, Error> {
    mount_by(device.as_ref(), device, held, |_| Ok(()))
}

/// As [`mount`], of a log that was mounted before and is served still. A disk that does not read is
/// tried again later: what was held is worth more than to write now. Cells of our own that do not
/// read (NAND, NOR) never will, and are damage here as well.
///
/// # Errors
/// [`Kind::Retry`] when anything cannot be read, or no header is left. Nothing was programmed then.
pub fn mount_again(device: &Arc<dyn Device>, held: &[BlobRecord]) -> Result<Mounted, Error> {
    let witness = Witness { device: device.as_ref(), failures: AtomicU32::new(0) };
    mount_by(&witness, device, held, |report| {
        let failures = witness.failures.load(Ordering::Relaxed);
        let may_read_later = failures > 0 && witness.geometry().reprogram;
        if !may_read_later && !report.was_lost {
            return Ok(());
        }
        let what = format!("the log does not read back: {failures} reads failed");
        Err(Error::new(Kind::Retry, what))
    })
}

/// Mounts what `eyes` read of `device`, unless `allow` has something against what was found.
fn mount_by(
    eyes: &dyn Device,
    device: &Arc<dyn Device>,
    held: &[BlobRecord],
    allow: impl FnOnce(&MountReport) -> Result<(), Error>,
) -> Result<Mounted, Error> {
    let geometry = device.geometry();
    check_geometry(geometry)?;
    let Found { ring, replay, mut report } = look(eyes)?;
    let mut index = Index::new(geometry);
    let mut latest = Latest::default();
    for Survey { slot, header, .. } in replay {
        scan(eyes, slot, header, |part, record| {
            latest.note(part, &record);
            index.apply(record);
        });
    }
    let mut space = Space::new(geometry);
    for segment in space.data_segments() {
        let number = to_u32(segment);
        if device.is_bad(number)? {
            space.retire(number);
        }
    }
    report.dropped += drop_wrong_places(&space, &mut index);
    if report.damaged > 0 {
        report.dropped += drop_wrong_bytes(eyes, &mut index);
    }
    report.dropped += drop_overlaps(geometry, &mut index);
    let Index { blobs, tags, .. } = &mut index;
    tags.retain(|_, digest| blobs.contains(digest));
    let read: Vec<Extent> = held
        .iter()
        .filter(|held| {
            index.blobs.get(&held.digest).is_none_or(|blob| blob.extents != held.extents)
        })
        .flat_map(|held| held.extents.iter().copied())
        .collect();
    allow(&report)?;
    claim_all(&mut space, &index, &read);
    let mut meta = Meta::new(device, ring);
    let programmed_bytes = match device.read_only() {
        Some(_) => 0,
        None => match meta.program_now(&index) {
            // What is held can be served, and the next record tries again.
            Err(error) if error.kind() == Kind::Full => {
                warn!("{error}; nothing can be recorded until there is room");
                0
            }
            other => other?,
        },
    };
    report.blobs = index.blobs.len();
    report.partials = index.partials.len();
    report.tags = index.tags.len();
    let mut suspects = latest.0;
    suspects.retain(|digest| index.blobs.contains(digest));
    // Those that go on from here as well, as soon as they are whole.
    suspects.extend(index.partials.keys());
    Ok(Mounted {
        index,
        space,
        meta,
        suspects: suspects.into_iter().collect(),
        report,
        programmed_bytes,
        read,
    })
}

/// The blobs that were committed since the last checkpoint, and the [`SUSPECTS_OF_CHECKPOINT`] that
/// it names last, which were used or committed shortly before.
#[derive(Default)]
struct Latest(VecDeque<Digest>);

impl Latest {
    fn note(&mut self, part: Part, record: &Record) {
        let Record::Commit(BlobRecord { digest, .. }) = record else { return };
        if part == Part::Checkpoint && self.0.len() >= SUSPECTS_OF_CHECKPOINT {
            self.0.pop_front();
        }
        self.0.push_back(*digest);
    }
}

fn check_geometry(geometry: Geometry) -> Result<(), Error> {
    let (count, least) = (geometry.segment_count, meta_segments(geometry) + 2);
    let units = geometry.bytes().checked_div(u64::from(geometry.program_bytes)).unwrap_or(0);
    let divides = CHUNK_BYTES.is_multiple_of(u64::from(geometry.program_bytes))
        && geometry.program_bytes >= GRAINS;
    if (least..=SEGMENTS_MAX).contains(&count) && units < UNITS_MAX && divides {
        return Ok(());
    }
    let what = format!(
        "device of {count} segments of {} bytes in units of {}: expected {least} to {SEGMENTS_MAX} \
         segments, fewer than {UNITS_MAX} units, and units of {GRAINS} bytes or more that divide \
         {CHUNK_BYTES}",
        geometry.segment_bytes, geometry.program_bytes
    );
    Err(Error::new(Kind::Invalid, what))
}

/// A device whose reads that fail are counted. Nothing is written through it.
struct Witness<'a> {
    device: &'a dyn Device,
    failures: AtomicU32,
}

impl Device for Witness<'_> {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), flash::Error> {
        let outcome = self.device.read(segment, offset, buffer);
        self.failures.fetch_add(u32::from(outcome.is_err()), Ordering::Relaxed);
        outcome
    }

    fn program(&self, _: u32, _: u32, _: &[u8]) -> Result<(), flash::Error> {
        Err(written())
    }

    fn erase(&self, _: u32) -> Result<(), flash::Error> {
        Err(written())
    }

    fn sync(&self) -> Result<(), flash::Error> {
        Err(written())
    }

    fn is_slow(&self) -> bool {
        self.device.is_slow()
    }

    fn read_only(&self) -> Option<&str> {
        self.device.read_only()
    }

    fn give_up_from(&self, _: u32) -> Result<(), flash::Error> {
        Err(written())
    }

    fn file_span(&self, segment: u32, offset: u32) -> Option<(Arc<File>, u64)> {
        self.device.file_span(segment, offset)
    }

    fn is_bad(&self, segment: u32) -> Result<bool, flash::Error> {
        self.device.is_bad(segment)
    }
}

fn written() -> flash::Error {
    flash::Error::new(Kind::ReadOnly, "a log is only read while it is looked at")
}

/// What the META ring holds.
struct Found {
    ring: Ring,
    /// The segments whose records must be replayed, in order.
    replay: Vec<Survey>,
    report: MountReport,
}

fn look(device: &dyn Device) -> Result<Found, Error> {
    let slots = 0..meta_segments(device.geometry());
    let mut states = Vec::new();
    for slot in slots.clone() {
        let state = read_header(device, slot);
        // A segment is marked only after another one took its place: nothing was lost with it.
        let is_bad = state.is_lost() && device.is_bad(slot)?;
        states.push(if is_bad { HeaderState::Blank } else { state });
    }
    check_headers(device, &states)?;
    drop_strays(&mut states);
    let mut ring = Ring { slot: slots.end - 1, ..Ring::default() };
    let mut found: Vec<(u32, Header)> = Vec::new();
    for ((slot, state), erase_count) in slots.zip(&states).zip(&mut ring.erase_counts) {
        if let HeaderState::Valid(header) = state {
            *erase_count = header.erase_count;
            found.push((slot, *header));
        }
    }
    found.sort_by_key(|(_, header)| std::cmp::Reverse(header.sequence));
    if let Some((slot, header)) = found.first() {
        ring.slot = *slot;
        ring.sequence = header.sequence;
    }
    let unreadable: Vec<u32> =
        (0..).zip(&states).filter(|(_, state)| state.is_lost()).map(|(slot, _)| slot).collect();
    let mut report = MountReport {
        was_lost: found.is_empty() && !unreadable.is_empty(),
        ..MountReport::default()
    };
    let mut surveys = Vec::new();
    if !found.is_empty() {
        for slot in &unreadable {
            match rescue(device, *slot, ring.sequence) {
                Some(survey) => surveys.push(survey),
                // The newest segment may have been there, and with it a Delete.
                None => report.damaged += u32::from(may_be_newest(*slot, &states)),
            }
        }
    }
    for (slot, header) in found {
        let survey = scan(device, slot, header, |_, _| ());
        surveys.push(survey);
        if survey.is_complete {
            break;
        }
    }
    surveys.sort_by_key(|survey| std::cmp::Reverse(survey.header.sequence));
    let replay = replayed(surveys, &mut report);
    if replay.iter().any(|survey| survey.is_newer) {
        let what = "the log holds records that this program does not know: run the newer moonlet \
                    that wrote them, or give this one an empty store";
        return Err(Error::new(Kind::Invalid, what));
    }
    ring.spared = replay.iter().map(|survey| survey.slot).collect();
    if !unreadable.is_empty() {
        // A number that a header now unreadable may have had is not used again.
        ring.sequence += u64::from(meta_segments(device.geometry()));
    }
    if ring.sequence >= SEQUENCE_MAX - SEQUENCES_APART_MAX {
        // No log comes so far. What is begun now counts from the beginning, and these are strays.
        ring.sequence = 0;
    }
    Ok(Found { ring, replay, report })
}

/// Refuses a log of another version or shape, and what is somebody else's.
fn check_headers(device: &dyn Device, states: &[HeaderState]) -> Result<(), Error> {
    let Geometry { segment_bytes, program_bytes, .. } = device.geometry();
    for state in states {
        let what = match state {
            HeaderState::Newer(version) => format!(
                "the log is of format version {version}, this program knows version {VERSION}: run \
                 the newer moonlet that wrote it, or give this one an empty store"
            ),
            HeaderState::Valid(header)
                if (header.segment_bytes, header.program_bytes)
                    != (segment_bytes, program_bytes) =>
            {
                format!(
                    "the log was made with segments of {} bytes in units of {}, the device has \
                     {segment_bytes} in units of {program_bytes}: it lies on another device than it \
                     was made on, or on one that was resized",
                    header.segment_bytes, header.program_bytes
                )
            }
            _ => continue,
        };
        return Err(Error::new(Kind::Invalid, what));
    }
    let is_ours =
        |state: &HeaderState| matches!(state, HeaderState::Valid(_) | HeaderState::Damaged);
    let may_be_anothers = device.may_be_anothers() && !states.iter().any(is_ours);
    if may_be_anothers && !is_all_blank(device)? {
        let what = "the device holds something that is no log of Moonlet: expected it to be blank; \
                    if nothing on it is needed, erase its beginning (blkdiscard, flash_erase, \
                    ubiupdatevol -t, or dd from /dev/zero)";
        return Err(Error::new(Kind::Invalid, what));
    }
    Ok(())
}

/// Takes headers for damaged whose numbers no log can have come to that has the others: one of
/// them would make every later header look older, or as if it were out of bounds.
fn drop_strays(states: &mut [HeaderState]) {
    let sequence = |state: &HeaderState| match state {
        HeaderState::Valid(header) => Some(header.sequence),
        _ => None,
    };
    let Some(least) = states.iter().filter_map(sequence).min() else { return };
    let is_stray = |state: &HeaderState| {
        sequence(state).is_some_and(|sequence| sequence - least > SEQUENCES_APART_MAX)
    };
    states.iter_mut().filter(|state| is_stray(state)).for_each(|s| *s = HeaderState::Damaged);
}

fn is_all_blank(device: &dyn Device) -> Result<bool, Error> {
    for slot in 0..meta_segments(device.geometry()) {
        if !device.is_bad(slot)? && !is_blank(device, slot) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether nothing was ever written at the beginning of a META segment: deep enough in to find
/// every file system's first traces.
fn is_blank(device: &dyn Device, slot: u32) -> bool {
    let segment_bytes = device.geometry().segment_bytes;
    let mut bytes = vec![0; BLANK_PIECE_BYTES];
    let pieces = (0..BLANK_BYTES.min(segment_bytes)).step_by(BLANK_PIECE_BYTES);
    pieces.into_iter().all(|offset| {
        let length = to_usize(segment_bytes - offset);
        let piece = bytes.get_mut(..BLANK_PIECE_BYTES.min(length)).unwrap_or_default();
        let is_read = device.read(slot, offset, piece).is_ok();
        is_read && [0, 0xFF].iter().any(|blank| piece.iter().all(|byte| byte == blank))
    })
}

/// Whether the segment in `slot`, of which nothing can be read, can have been begun after all the
/// others: not if numbers go on rising behind it.
fn may_be_newest(slot: u32, states: &[HeaderState]) -> bool {
    let slot = to_usize(slot);
    let sequence = |state: &HeaderState| match state {
        HeaderState::Valid(header) => Some(header.sequence),
        _ => None,
    };
    let (before, after) = states.split_at_checked(slot).unwrap_or_default();
    let around = after.iter().skip(1).chain(before);
    let next = around.clone().find_map(sequence);
    let previous = around.rev().find_map(sequence);
    previous >= next
}

/// The segments to replay, oldest first: the newest whole one, and those that were in use after
/// it. A newer one that was never used is a begin that power cut short.
fn replayed(newest_first: Vec<Survey>, report: &mut MountReport) -> Vec<Survey> {
    let mut replay = Vec::new();
    for survey in newest_first {
        if survey.is_complete {
            report.damaged += survey.damaged;
            replay.push(survey);
            break;
        }
        if survey.was_used {
            report.damaged += survey.damaged + 1;
            replay.push(survey);
        }
    }
    replay.reverse();
    replay
}

/// Looks behind a header that cannot be read: were frames written there after segment `last`?
fn rescue(device: &dyn Device, slot: u32, last: u64) -> Option<Survey> {
    let sequences = last + 1..=last + u64::from(meta_segments(device.geometry()));
    sequences.into_iter().find_map(|sequence| {
        let Geometry { segment_bytes, program_bytes, .. } = device.geometry();
        let header = Header { sequence, erase_count: 0, segment_bytes, program_bytes };
        let survey = scan(device, slot, header, |_, _| ());
        (survey.is_complete || survey.was_used).then_some(survey)
    })
}

/// More numbers than are used while a ring goes round once, bad segments and damage included, and
/// than any flash lives to use.
const SEQUENCES_APART_MAX: u64 = 1 << 32;
/// Units of a device: eight grains of each are counted in 32 bits.
const UNITS_MAX: u64 = 1 << 29;
/// As many blobs as a card's cache of a few programs can have been about.
const SUSPECTS_OF_CHECKPOINT: usize = 32;
/// Behind the superblock of btrfs, which is the last to begin, at 64 KiB.
const BLANK_BYTES: u32 = 128 << 10;
const BLANK_PIECE_BYTES: usize = 4 << 10;
