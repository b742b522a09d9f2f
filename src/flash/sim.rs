//! Flash in memory, with a plug to pull.
//!
//! The device enforces the program rules of its [`Geometry`] (a breach is an error of
//! [`Kind::Invalid`], which no test tolerates) and fails every call once its operation budget is
//! spent. [`Device::survivor`] is what a remount then finds: everything synced, and of what was
//! not, a subset drawn from a seed. Where units may be reprogrammed (a cache sits before the
//! flash) any unit may have persisted or not, in any order; where not (raw NAND, NOR) a segment
//! keeps a prefix. The unit at the cut may be torn: half new, half noise.
//!
//! Segments wear out in the ways of littlefs's emulated block device, an erase may turn out never
//! to have happened (UBI, after an unclean reboot), the unit beside a cut may decay, a sync may
//! lie, and a file system may have no block left.

mod cut;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, Geometry};
use crate::kind::Kind;
use crate::units::{to_u32, to_usize};
pub use cut::Aftermath;
use cut::{Fate, NOISE, store};

/// A simulated device.
pub struct Device {
    geometry: Geometry,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    /// What a read sees.
    now: Vec<Segment>,
    /// What is durable.
    durable: Vec<Segment>,
    /// What was done since the last sync.
    pending: Vec<Operation>,
    operations: u64,
    reads: u64,
    programmed_bytes: u64,
    /// Operations until the power goes away.
    budget: Option<u64>,
    /// Of how many operations a sync that lies keeps nothing.
    sync_lies: Option<usize>,
    /// Segments that fail, and how.
    worn: BTreeMap<u32, Worn>,
    marked: BTreeSet<u32>,
    /// Programs until no room is left behind the device.
    room: Option<u64>,
    /// Syncs until one fails.
    sound_syncs: Option<u64>,
    /// Whether calls are to be made on another thread.
    is_slow: bool,
    /// What the power would have left, had it gone at each operation.
    history: Option<Vec<Moment>>,
}

/// The device when the power goes at one operation.
#[derive(Clone)]
struct Moment {
    durable: Vec<Segment>,
    pending: Vec<Operation>,
}

/// What a worn segment does: littlefs's bad-block behaviours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worn {
    /// Programming it is an error.
    ProgramError,
    /// Programming it does nothing and says that it did.
    ProgramNothing,
    /// Erasing it is an error.
    EraseError,
    /// Erasing it does nothing and says that it did.
    EraseNothing,
    /// Reading it is an error.
    ReadError,
}

/// Bytes are shared until somebody changes them: most survivors are only looked at.
#[derive(Clone)]
struct Segment {
    bytes: Arc<Vec<u8>>,
    /// First byte that may be programmed, where units are programmed once.
    next: u32,
    erases: u32,
    /// What was there before the last erase, until something is programmed.
    ghost: Option<(Arc<Vec<u8>>, u32)>,
}

#[derive(Clone)]
enum Operation {
    Program { segment: u32, offset: u32, bytes: Arc<Vec<u8>> },
    Erase { segment: u32 },
}

impl Device {
    /// A device as it leaves the factory.
    pub fn new(geometry: Geometry) -> Self {
        let length = to_usize(geometry.segment_bytes);
        let blank = if geometry.reprogram { 0 } else { ERASED };
        let bytes = Arc::new(vec![blank; length]);
        let segment = Segment { bytes, next: 0, erases: 0, ghost: None };
        let count = to_usize(geometry.segment_count);
        let segments = vec![segment; count];
        let state = State { now: segments.clone(), durable: segments, ..State::default() };
        Self { geometry, state: Mutex::new(state) }
    }

    /// A device whose segments hold `image`, one after the other.
    pub fn with_image(geometry: Geometry, image: &[u8]) -> Self {
        let device = Self::new(geometry);
        let mut state = device.lock();
        let length = to_usize(geometry.segment_bytes).max(1);
        for (segment, bytes) in state.now.iter_mut().zip(image.chunks(length)) {
            let target = Arc::make_mut(&mut segment.bytes);
            if let Some(target) = target.get_mut(..bytes.len()) {
                target.copy_from_slice(bytes);
            }
            // Nothing may be programmed behind what is not erased.
            segment.next = geometry.segment_bytes;
        }
        state.durable = state.now.clone();
        drop(state);
        device
    }

    /// All bytes, segment after segment.
    pub fn image(&self) -> Vec<u8> {
        let state = self.lock();
        let segments: Vec<&[u8]> =
            state.now.iter().map(|segment| segment.bytes.as_slice()).collect();
        segments.concat()
    }

    /// Pulls the plug at the `operations`-th program, erase or sync from now (0 is the next).
    pub fn cut_after(&self, operations: u64) {
        self.lock().budget = Some(operations);
    }

    /// From now on keeps what every power cut would have left: see [`Device::at`].
    pub fn remember(&self) {
        self.lock().history = Some(Vec::new());
    }

    /// The device as it was when the power went at operation `cut` since [`Device::remember`]; of
    /// use only for its survivors. None after the last operation.
    pub fn at(&self, cut: usize) -> Option<Self> {
        let state = self.lock();
        let moment = state.history.as_ref()?.get(cut)?.clone();
        let state = State {
            now: moment.durable.clone(),
            durable: moment.durable,
            pending: moment.pending,
            worn: state.worn.clone(),
            marked: state.marked.clone(),
            ..State::default()
        };
        Some(Self { geometry: self.geometry, state: Mutex::new(state) })
    }

    /// From now on a sync answers and does nothing, as some SD cards do: the last `operations` are
    /// still on their way.
    pub fn lie_about_sync(&self, operations: usize) {
        self.lock().sync_lies = Some(operations);
    }

    /// From now on a segment fails.
    pub fn wear_out(&self, segment: u32, how: Worn) {
        self.lock().worn.insert(segment, how);
    }

    /// After so many more programs none can be done any more for want of room behind the device.
    pub fn fill_up_after(&self, programs: u64) {
        self.lock().room = Some(programs);
    }

    /// After so many more syncs one fails: what it should have made durable is lost, while reads
    /// still see it, and the next succeeds, as the kernel has it.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.lock().sound_syncs = Some(syncs);
    }

    /// Has its calls made on another thread from the next mount on, as those of a real device are.
    pub fn be_slow(&self) {
        self.lock().is_slow = true;
    }

    /// Programs, erases and syncs so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Bytes programmed so far.
    pub fn programmed_bytes(&self) -> u64 {
        self.lock().programmed_bytes
    }

    /// Erases of each segment so far.
    pub fn erases(&self) -> Vec<u32> {
        self.lock().now.iter().map(|segment| segment.erases).collect()
    }

    /// Changes stored bytes behind the log's back: each bit of `mask` is flipped.
    pub fn flip(&self, segment: u32, offset: u32, mask: u8) {
        let mut state = self.lock();
        let State { now, durable, .. } = &mut *state;
        for image in [now, durable] {
            let segment = usize::try_from(segment).ok().and_then(|index| image.get_mut(index));
            let byte = segment.and_then(|segment| {
                Arc::make_mut(&mut segment.bytes).get_mut(usize::try_from(offset).ok()?)
            });
            if let Some(byte) = byte {
                *byte ^= mask;
            }
        }
    }

    fn sync_what(&self, is_covered: impl Fn(&Operation) -> bool) -> Result<(), Error> {
        let mut state = self.lock();
        if Self::spend(&mut state)? {
            return Err(power_cut());
        }
        Self::note(&mut state);
        if let Some(left) = state.sound_syncs {
            state.sound_syncs = left.checked_sub(1);
            if left == 0 {
                state.pending.clear();
                return Err(Error::new(Kind::Retry, "bytes could not be written"));
            }
        }
        let State { durable, pending, sync_lies, .. } = &mut *state;
        let done = pending.len().saturating_sub(sync_lies.unwrap_or(0));
        for operation in pending.extract_if(..done, |operation| is_covered(operation)) {
            keep(durable, &operation, !self.geometry.reprogram);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panicking test thread leaves plain data behind; it is as good as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation; true when the power goes away with it.
    fn spend(state: &mut State) -> Result<bool, Error> {
        state.operations += 1;
        match state.budget {
            Some(u64::MAX) => Err(power_cut()),
            Some(0) => {
                state.budget = Some(u64::MAX);
                Ok(true)
            }
            Some(left) => {
                state.budget = Some(left - 1);
                Ok(false)
            }
            None => Ok(false),
        }
    }

    fn note(state: &mut State) {
        let State { durable, pending, history, .. } = state;
        if let Some(history) = history {
            history.push(Moment { durable: durable.clone(), pending: pending.clone() });
        }
    }

    fn check(&self, segment: u32, offset: u32, length: usize) -> Result<usize, Error> {
        let end = u64::from(offset) + length as u64;
        if segment >= self.geometry.segment_count || end > u64::from(self.geometry.segment_bytes) {
            let what = format!("segment {segment}, byte {end} is outside the device");
            return Err(Error::new(Kind::Corrupt, what));
        }
        usize::try_from(segment).map_err(|_| Error::new(Kind::Corrupt, "segment number"))
    }
}

impl super::Device for Device {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), Error> {
        let index = self.check(segment, offset, buffer.len())?;
        let mut state = self.lock();
        state.reads += 1;
        if state.worn.get(&segment) == Some(&Worn::ReadError) {
            return Err(worn_out("reading", segment));
        }
        let start = to_usize(offset);
        let bytes = state.now.get(index).and_then(|s| s.bytes.get(start..start + buffer.len()));
        buffer.copy_from_slice(bytes.unwrap_or_default());
        Ok(())
    }

    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let index = self.check(segment, offset, bytes.len())?;
        let unit = u64::from(self.geometry.program_bytes);
        if !u64::from(offset).is_multiple_of(unit) || !(bytes.len() as u64).is_multiple_of(unit) {
            let what = format!("program of {} bytes at {offset}: unit {unit}", bytes.len());
            return Err(Error::new(Kind::Invalid, what));
        }
        let mut state = self.lock();
        if let Some(room) = &mut state.room {
            let left = room.checked_sub(1);
            *room = left.ok_or_else(|| Error::new(Kind::Full, "no block left"))?;
        }
        let cut = Self::spend(&mut state)?;
        state.programmed_bytes += bytes.len() as u64;
        match state.worn.get(&segment) {
            Some(Worn::ProgramError) => return Err(worn_out("programming", segment)),
            Some(Worn::ProgramNothing) => return Ok(()),
            _ => {}
        }
        // Cells that were not erased keep their old bits.
        let is_stuck = state.worn.get(&segment) == Some(&Worn::EraseNothing);
        let Some(target) = state.now.get_mut(index) else { return Err(power_cut()) };
        if !self.geometry.reprogram && offset < target.next && !is_stuck {
            let next = target.next;
            let what = format!("segment {segment}: byte {offset} programmed again, next is {next}");
            return Err(Error::new(Kind::Invalid, what));
        }
        let start = to_usize(offset);
        let mut bytes = bytes.to_vec();
        if is_stuck && !self.geometry.reprogram {
            let old = target.bytes.get(start..).unwrap_or_default();
            bytes.iter_mut().zip(old).for_each(|(byte, old)| *byte &= old);
        }
        store(target, start, &bytes, Fate::Kept);
        target.next = target.next.max(offset + to_u32(bytes.len()));
        state.pending.push(Operation::Program { segment, offset, bytes: Arc::new(bytes) });
        Self::note(&mut state);
        if cut { Err(power_cut()) } else { Ok(()) }
    }

    fn erase(&self, segment: u32) -> Result<(), Error> {
        let index = self.check(segment, 0, 0)?;
        let mut state = self.lock();
        let cut = Self::spend(&mut state)?;
        match state.worn.get(&segment) {
            Some(Worn::EraseError) => return Err(worn_out("erasing", segment)),
            Some(Worn::EraseNothing) => return Ok(()),
            _ => {}
        }
        let in_order = !self.geometry.reprogram;
        if let Some(target) = state.now.get_mut(index) {
            erase(target, in_order);
        }
        state.pending.push(Operation::Erase { segment });
        Self::note(&mut state);
        if cut { Err(power_cut()) } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), Error> {
        self.sync_what(|_| true)
    }

    fn recover(&self) -> Result<(), Error> {
        self.sync()?;
        let State { now, durable, .. } = &mut *self.lock();
        now.clone_from(durable);
        Ok(())
    }

    fn sync_range(&self, segment: u32, range: Range<u32>) -> Result<(), Error> {
        // These programs and no others, so that nothing relies on more.
        self.sync_what(|operation| match operation {
            Operation::Erase { segment: erased } => *erased == segment,
            Operation::Program { segment: programmed, offset, .. } => {
                *programmed == segment && range.contains(offset)
            }
        })
    }

    fn is_bad(&self, segment: u32) -> Result<bool, Error> {
        Ok(self.lock().marked.contains(&segment))
    }

    fn mark_bad(&self, segment: u32) -> Result<(), Error> {
        let mut state = self.lock();
        if state.budget == Some(u64::MAX) {
            return Err(power_cut());
        }
        state.marked.insert(segment);
        Ok(())
    }

    fn trim(&self, segment: u32) -> Result<(), Error> {
        self.check(segment, 0, 0)?;
        let mut state = self.lock();
        let State { now, durable, .. } = &mut *state;
        for image in [now, durable] {
            let target = usize::try_from(segment).ok().and_then(|index| image.get_mut(index));
            if let Some(target) = target.filter(|_| self.geometry.reprogram) {
                Arc::make_mut(&mut target.bytes).fill(NOISE);
            }
        }
        Ok(())
    }

    fn is_slow(&self) -> bool {
        self.lock().is_slow
    }

    fn give_up_from(&self, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn read_only(&self) -> Option<&str> {
        None
    }

    fn file_span(&self, _segment: u32, _offset: u32) -> Option<(Arc<File>, u64)> {
        None
    }
}

/// Makes an operation durable.
fn keep(segments: &mut [Segment], operation: &Operation, in_order: bool) {
    let (Operation::Program { segment, .. } | Operation::Erase { segment }) = operation;
    let index = usize::try_from(*segment).ok();
    let Some(target) = index.and_then(|index| segments.get_mut(index)) else { return };
    match operation {
        Operation::Erase { .. } => erase(target, in_order),
        Operation::Program { offset, bytes, .. } => {
            let at = to_usize(*offset);
            store(target, at, bytes, Fate::Kept);
            let end = to_u32(at + bytes.len());
            target.next = target.next.max(end);
        }
    }
}

/// Behind a flash translation layer an erase is only a promise: the old bytes stay.
fn erase(segment: &mut Segment, in_order: bool) {
    segment.erases += 1;
    if in_order {
        let before = (Arc::clone(&segment.bytes), segment.next);
        // Erased twice, it is the first time that something was there.
        segment.ghost = segment.ghost.take().or(Some(before));
        segment.bytes = Arc::new(vec![ERASED; segment.bytes.len()]);
    }
    segment.next = 0;
}

fn worn_out(doing: &str, segment: u32) -> Error {
    Error::new(Kind::Retry, format!("{doing} segment {segment}: it is worn out"))
}

fn power_cut() -> Error {
    Error::new(Kind::Retry, "power cut")
}

const ERASED: u8 = 0xFF;

#[cfg(test)]
mod tests {
    use super::super::Device as _;
    use super::*;

    const NAND: Geometry =
        Geometry { segment_count: 2, segment_bytes: 64, program_bytes: 16, reprogram: false };

    #[test]
    fn program_once_pages_are_enforced() {
        let device = Device::new(NAND);
        device.program(0, 16, &[1; 16]).unwrap();
        assert_eq!(device.program(0, 0, &[1; 16]).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(device.program(0, 16, &[1; 16]).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(device.program(0, 33, &[1; 16]).unwrap_err().kind(), Kind::Invalid);
        device.program(0, 32, &[1; 16]).unwrap();
        device.erase(0).unwrap();
        device.program(0, 0, &[1; 16]).unwrap();
    }

    #[test]
    fn a_cut_keeps_what_was_synced() {
        let device = Device::new(NAND);
        device.program(0, 0, &[1; 16]).unwrap();
        device.sync().unwrap();
        device.program(0, 16, &[2; 16]).unwrap();
        device.cut_after(0);
        assert!(device.sync().is_err());
        assert!(device.program(1, 0, &[3; 16]).is_err());
        let mut bytes = [0; 32];
        device.survivor(0).read(0, 0, &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes[16]), (1, ERASED));
        device.survivor(1).read(0, 0, &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes[16]), (1, 2));
    }
}
