//! What the log reports of itself.

use crate::blob::Store;
use crate::blob::format::counts::DAY_SECONDS;
use crate::flash::Health;

/// The log in figures; what was counted is since the log was begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Bytes that blobs can have in all.
    pub size_max_bytes: u64,
    /// Bytes in use or reserved.
    pub used_bytes: u64,
    /// Blobs held.
    pub blobs: u64,
    /// Bytes of them.
    pub held_bytes: u64,
    /// Bytes of those that the desired state does not need, and that may be evicted.
    pub cached_bytes: u64,
    /// Downloads under way or suspended.
    pub partials: u64,
    /// Segments with nothing in them.
    pub free_segments: usize,
    /// Bytes programmed on the device.
    pub programmed_bytes: u64,
    /// Blob bytes acknowledged.
    pub image_bytes: u64,
    /// Bytes copied to make room, or to level.
    pub copied_bytes: u64,
    /// Bytes programmed of late, and the seconds in which that was.
    pub recent_bytes: u64,
    /// Seconds with power.
    pub recent_seconds: u64,
    /// Bytes of the whole device.
    pub device_bytes: u64,
    /// Segments that are out of use.
    pub bad_segments: usize,
    /// Erases of the data segment that has had most.
    pub erases_max: u32,
    /// Erases of a data segment in the mean.
    pub erases_mean: u64,
}

impl Stat {
    /// Bytes programmed in a day, at the recent rate; none before the first day is over.
    pub fn programmed_bytes_per_day(&self) -> Option<u64> {
        let days = u128::from(self.recent_seconds);
        let bytes = u128::from(self.recent_bytes) * u128::from(DAY_SECONDS);
        let is_known = self.recent_seconds >= DAY_SECONDS;
        bytes.checked_div(days).filter(|_| is_known).and_then(|bytes| u64::try_from(bytes).ok())
    }

    /// Tenths of years with power until the device is worn out at the recent rate, if each of its
    /// bytes bears `cycles_rated` erases and whatever is behind it adds no wear of its own; at
    /// most [`LIFE_MAX`]. Where the hardware says how much of its life is used, it is believed.
    pub fn life_tenths_of_years(&self, cycles_rated: u32, health: Option<Health>) -> Option<u32> {
        let a_year = u128::from(self.programmed_bytes_per_day()?) * 365;
        let all = u128::from(self.device_bytes) * u128::from(cycles_rated);
        let left = all.saturating_sub(u128::from(self.programmed_bytes));
        let reported = health.and_then(|health| health.life_used_percent);
        let left_percent = reported.map_or(100, |used| 100_u8.saturating_sub(used));
        let left = left.min(all * u128::from(left_percent) / 100);
        let tenths = (left * 10).checked_div(a_year).unwrap_or(u128::MAX);
        Some(u32::try_from(tenths).unwrap_or(u32::MAX).min(LIFE_MAX))
    }
}

impl Store {
    /// The log in figures.
    pub fn stat(&self) -> Stat {
        let state = self.0.state.borrow();
        let wear = &state.index.wear;
        let mut bytes = [0; 2];
        for summary in state.index.blobs.summaries() {
            let [pinned, cached] = &mut bytes;
            *if summary.pinned { pinned } else { cached } += summary.size;
        }
        let [pinned_bytes, cached_bytes] = bytes;
        let erases = state.space.data_segments().map(|segment| wear.erases_of(segment));
        Stat {
            size_max_bytes: state.space.capacity_bytes(),
            used_bytes: state.space.used_bytes(),
            blobs: state.index.blobs.len() as u64,
            held_bytes: pinned_bytes.saturating_add(cached_bytes),
            cached_bytes,
            partials: state.index.partials.len() as u64,
            free_segments: state.space.free_segments(),
            programmed_bytes: wear.counts.programmed_bytes,
            image_bytes: wear.counts.image_bytes,
            copied_bytes: wear.counts.copied_bytes,
            recent_bytes: wear.counts.recent_bytes,
            recent_seconds: wear.counts.recent_seconds,
            device_bytes: self.device().geometry().bytes(),
            bad_segments: state.space.bad_segments(),
            erases_max: erases.clone().max().unwrap_or(0),
            erases_mean: erases.clone().map(u64::from).sum::<u64>() / erases.count().max(1) as u64,
        }
    }

    /// Sets the gauges that follow from the state: they are to be read next.
    pub fn export_gauges(&self) {
        let stat = self.stat();
        let metrics = self.metrics();
        metrics.flash_erases_max.set(u64::from(stat.erases_max));
        metrics.flash_erases_mean.set(stat.erases_mean);
        metrics.flash_bad_segments.set(stat.bad_segments as u64);
        let used = self.health().and_then(|health| health.life_used_percent).unwrap_or(0);
        metrics.flash_life_used_percent.set(u64::from(used));
        metrics.flash_programmed_bytes_per_day.set(stat.programmed_bytes_per_day().unwrap_or(0));
        metrics.store_size_max_bytes.set(stat.size_max_bytes);
        metrics.store_used_bytes.set(stat.used_bytes);
        metrics.store_blobs.set(stat.blobs);
        metrics.store_cached_bytes.set(stat.cached_bytes);
        let corrupt = self.corrupt();
        let corrupt = corrupt.iter().map(|(_, chunks)| chunks.len() as u64);
        metrics.store_corrupt_chunks.set(corrupt.sum());
    }
}

/// A hundred years, in tenths: longer than anybody counts.
pub const LIFE_MAX: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_is_forecast_at_the_recent_rate() {
        let stat = Stat {
            device_bytes: 4 << 30,
            programmed_bytes: 100 << 30,
            recent_bytes: 20 << 30,
            recent_seconds: 10 * DAY_SECONDS,
            ..Stat::default()
        };
        assert_eq!(stat.programmed_bytes_per_day(), Some(2 << 30));
        // 4 GiB x 3000 less 100 GiB, at 730 GiB a year.
        assert_eq!(stat.life_tenths_of_years(3000, None), Some(163));
        let worn = Health { life_used_percent: Some(80), ..Health::default() };
        assert_eq!(stat.life_tenths_of_years(3000, Some(worn)), Some(32));
        let idle = Stat { recent_bytes: 0, ..stat };
        assert_eq!(idle.life_tenths_of_years(3000, None), Some(LIFE_MAX));
        let new = Stat { recent_seconds: 5, ..stat };
        assert_eq!(new.life_tenths_of_years(3000, None), None);
    }
}
