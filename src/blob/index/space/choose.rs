//! Which segments are given up, moved or trimmed next.

use super::{Open, Space};
use crate::blob::format::counts::Wear;

impl Space {
    /// Chooses the shared segment that is best given up, of those that `may` be: nothing is
    /// allocated in it any more. None when no copying would gain anything. By segment, a copy takes
    /// so many bytes more than what lives there (`extra`).
    pub fn pick_victim(&mut self, may: impl Fn(u32) -> bool, extra: &[u32]) -> Option<u32> {
        let open = |segment| self.open.iter().find(move |open: &&Open| open.segment == segment);
        let room_behind = |segment| open(segment).map_or(0, |open| self.room(open));
        let room_elsewhere = |segment| {
            let others = self.open.iter().filter(|open| open.segment != segment && !open.busy);
            others.map(|open| self.room(open)).max().unwrap_or(0)
        };
        let is_busy = |segment| open(segment).is_some_and(|open| open.busy);
        let score = |segment| {
            let extra = extra.get(segment).copied().unwrap_or(0);
            let live = self.live_of(segment).saturating_add(extra);
            let mut dead = self.geometry.segment_bytes.saturating_sub(live);
            // Room behind what lives is as good as free, unless two such segments make one.
            if room_elsewhere(segment) < live {
                dead = dead.saturating_sub(room_behind(segment));
            }
            let touched = self.touched.get(segment).copied().unwrap_or(0);
            let age = u128::from(self.clock.wrapping_sub(touched)) + 1;
            let whole = u128::from(self.geometry.segment_bytes);
            // Scaled: the quotient of small ages must still distinguish segments.
            (dead > 0).then(|| u128::from(dead) * age * SCORE_SCALE / (whole + u128::from(live)))
        };
        let candidates = self.data_segments().filter(|segment| {
            self.live_of(*segment) > 0
                && !is_busy(*segment)
                && !self.is_bad(*segment)
                && u32::try_from(*segment).is_ok_and(&may)
        });
        let scored = candidates.filter_map(|segment| Some((score(segment)?, segment)));
        let (_, best) = scored.max_by_key(|(score, _)| *score)?;
        self.open.retain(|open| open.segment != best);
        u32::try_from(best).ok()
    }

    /// The least worn segment in which something lives, of those that `may` be moved, if a free
    /// one is `erases` ahead of it.
    pub fn coldest(&self, wear: &Wear, erases: u32, may: impl Fn(u32) -> bool) -> Option<u32> {
        let is_open = |segment: usize| self.open.iter().any(|open| open.segment == segment);
        let sound = self.data_segments().filter(|segment| !self.is_bad(*segment));
        let (free, taken): (Vec<usize>, Vec<usize>) =
            sound.partition(|segment| self.live_of(*segment) == 0);
        let taken = taken
            .into_iter()
            .filter(|segment| !is_open(*segment) && u32::try_from(*segment).is_ok_and(&may));
        let cold = taken.min_by_key(|segment| wear.erases_of(*segment))?;
        let worn = free.into_iter().map(|segment| wear.erases_of(segment)).max()?;
        (worn >= wear.erases_of(cold).saturating_add(erases)).then(|| u32::try_from(cold).ok())?
    }

    /// At most `count` free segments that were not trimmed yet and are not among the tenth that is
    /// taken next; they count as trimmed from here on.
    pub fn take_untrimmed(&mut self, count: usize) -> Vec<u32> {
        let spared = self.data_segments().len() / 10;
        let (before, after): (Vec<usize>, Vec<usize>) =
            self.data_segments().partition(|segment| *segment < self.cursor);
        let free = after.into_iter().chain(before).filter(|segment| self.is_free(*segment));
        let untrimmed = free.skip(spared).filter(|s| self.trimmed.get(*s) == Some(&false));
        let taken: Vec<usize> = untrimmed.take(count).collect();
        for segment in &taken {
            self.trimmed.get_mut(*segment).into_iter().for_each(|trimmed| *trimmed = true);
        }
        taken.into_iter().filter_map(|segment| u32::try_from(segment).ok()).collect()
    }
}

const SCORE_SCALE: u128 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::index::space::tests::GEOMETRY;
    use crate::flash::Geometry;

    #[test]
    fn the_emptiest_old_segment_is_given_up() {
        let mut space = Space::new(GEOMETRY);
        let blobs: Vec<_> =
            (0..8).map(|_| space.allocate(512, &Wear::default()).unwrap().extents).collect();
        assert!(space.allocate(512, &Wear::default()).is_none());
        assert_eq!(space.pick_victim(|_| true, &[]), None, "nothing is dead");
        space.release(&blobs[2]);
        space.release(&blobs[7]);
        assert!(space.allocate(1024, &Wear::default()).is_none(), "dead bytes in two segments");
        assert_eq!(space.pick_victim(|segment| segment != 5, &[]), Some(7));
        let copy = space.allocate_copy(512, &Wear::default(), false).unwrap();
        assert_eq!(copy.fresh, [8]);
        space.release(&blobs[6]);
        assert_eq!(space.free_segments(), 1);
        assert_eq!(space.pick_victim(|_| true, &[]), Some(5));
        assert!(
            space.allocate_copy(512, &Wear::default(), false).unwrap().fresh.is_empty(),
            "beside the other copy"
        );
        space.release(&blobs[3]);
        assert_eq!(space.allocate(1024, &Wear::default()).unwrap().fresh.len(), 1);
    }

    #[test]
    fn what_is_free_is_trimmed_once_but_for_what_comes_next() {
        let geometry = Geometry { segment_count: 24, ..GEOMETRY };
        let mut space = Space::new(geometry);
        let taken = space.allocate(2048, &Wear::default()).unwrap();
        assert_eq!(taken.fresh, [4, 5]);
        assert_eq!(space.take_untrimmed(3), [8, 9, 10], "6 and 7 come next");
        assert_eq!(space.take_untrimmed(99).len(), 13);
        space.release(&taken.extents);
        assert_eq!(space.take_untrimmed(99), [4, 5]);
        assert!(space.take_untrimmed(99).is_empty());
    }
}
