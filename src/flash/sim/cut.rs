//! What is left of a simulated device when the power went.

use std::sync::{Arc, Mutex};

use super::{Device, Operation, Segment, State, erase};
use crate::units::{to_u32, to_usize};

/// What else went wrong when the power went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// Segments that were erased and not programmed since have their old bytes again.
    pub resurrection: bool,
    /// The unit that was programmed before the one at the cut does not read back.
    pub decay: bool,
}

impl Device {
    /// The device after a power cut: see the module's words. Seed 0 keeps nothing that was not
    /// synced, seed 1 everything, others a subset of their own.
    pub fn survivor(&self, seed: u64) -> Self {
        self.survivor_of(seed, Aftermath::default())
    }

    /// As [`Device::survivor`], with more that went wrong.
    pub fn survivor_of(&self, seed: u64, aftermath: Aftermath) -> Self {
        let state = self.lock();
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut segments = state.durable.clone();
        let mut stopped = vec![false; segments.len()];
        for operation in &state.pending {
            let index = match operation {
                Operation::Program { segment, .. } | Operation::Erase { segment } => *segment,
            };
            let Ok(index) = usize::try_from(index) else { continue };
            let Some(segment) = segments.get_mut(index) else { continue };
            let Some(stopped) = stopped.get_mut(index) else { continue };
            self.survive(operation, segment, stopped, seed, &mut random);
        }
        if aftermath.resurrection {
            for segment in segments.iter_mut().filter(|_| random.below(2) == 0) {
                if let Some((bytes, next)) = segment.ghost.take() {
                    (segment.bytes, segment.next) = (bytes, next);
                }
            }
        }
        if aftermath.decay {
            self.decay(&state.pending, &mut segments);
        }
        let (worn, marked) = (state.worn.clone(), state.marked.clone());
        let state =
            State { now: segments.clone(), durable: segments, worn, marked, ..State::default() };
        Self { geometry: self.geometry, state: Mutex::new(state) }
    }

    /// Corrupts the unit before the last one that was programmed.
    fn decay(&self, pending: &[Operation], segments: &mut [Segment]) {
        let last = pending.iter().rev().find_map(|operation| match operation {
            Operation::Program { segment, offset, bytes } => {
                Some((*segment, u64::from(*offset) + bytes.len() as u64))
            }
            Operation::Erase { .. } => None,
        });
        let Some((segment, end)) = last else { return };
        let unit = u64::from(self.geometry.program_bytes);
        let start = to_usize(end.saturating_sub(2 * unit));
        let length = to_usize(unit);
        let segment = usize::try_from(segment).ok().and_then(|index| segments.get_mut(index));
        let bytes = segment.map(|segment| Arc::make_mut(&mut segment.bytes));
        if let Some(unit) = bytes.and_then(|bytes| bytes.get_mut(start..start + length)) {
            unit.iter_mut().step_by(5).for_each(|byte| *byte ^= NOISE);
        }
    }

    fn survive(
        &self,
        operation: &Operation,
        segment: &mut Segment,
        stopped: &mut bool,
        seed: u64,
        random: &mut Random,
    ) {
        let in_order = !self.geometry.reprogram;
        let mut fate = || match seed {
            0 => Fate::Lost,
            1 => Fate::Kept,
            _ => match random.below(8) {
                0..4 => Fate::Kept,
                4..7 => Fate::Lost,
                _ => Fate::Torn,
            },
        };
        match operation {
            Operation::Erase { .. } => {
                if !*stopped && fate() == Fate::Kept {
                    erase(segment, in_order);
                } else {
                    *stopped |= in_order;
                }
            }
            Operation::Program { offset, bytes, .. } => {
                let unit = to_usize(self.geometry.program_bytes);
                let mut at = to_usize(*offset);
                for piece in bytes.chunks(unit) {
                    let fate = if *stopped { Fate::Lost } else { fate() };
                    *stopped |= in_order && fate != Fate::Kept;
                    store(segment, at, piece, fate);
                    at += piece.len();
                    if in_order && fate != Fate::Lost {
                        segment.next = segment.next.max(to_u32(at));
                    }
                }
            }
        }
    }
}

/// What became of one unit.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fate {
    Kept,
    Lost,
    Torn,
}

/// Programs one unit, or several of the same fate.
pub(super) fn store(segment: &mut Segment, at: usize, bytes: &[u8], fate: Fate) {
    if fate != Fate::Lost {
        segment.ghost = None;
    }
    let Some(target) = Arc::make_mut(&mut segment.bytes).get_mut(at..at + bytes.len()) else {
        return;
    };
    let half = bytes.len() / 2;
    match fate {
        Fate::Lost => {}
        Fate::Kept => target.copy_from_slice(bytes),
        Fate::Torn => {
            for (index, (target, byte)) in target.iter_mut().zip(bytes).enumerate() {
                *target = if index < half { *byte } else { byte.rotate_left(3) ^ NOISE };
            }
        }
    }
}

/// Xorshift64* (Vigna 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % limit
    }
}

/// What cells hold that were not programmed to their end.
pub(super) const NOISE: u8 = 0x5A;
