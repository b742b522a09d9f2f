//! Calendar dates from seconds since 1970, for the `Date` header and for messages.
//!
//! async-h1 has the same sum inside, but it panics on a clock outside 1970-9999 and formats anew
//! for every answer; a clock is outside input here, so any value must give some text.

/// A moment in UTC, split into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
    weekday: u64,
}

impl Civil {
    /// The moment `unix_seconds` after 1970-01-01.
    pub(super) fn new(unix_seconds: u64) -> Self {
        let days = unix_seconds / DAY_SECONDS;
        // Days since 0000-03-01: years that begin in March put the leap day last.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            second_of_day: unix_seconds % DAY_SECONDS,
            weekday: (days + 4) % 7,
        }
    }

    /// `2026-11-24`.
    pub(super) fn day(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// `Tue, 24 Nov 2026 08:49:37 GMT`, the form RFC 9110 asks for.
    pub(super) fn http(self) -> String {
        let Self { year, month, day, second_of_day, weekday } = self;
        let name = |names: &'static [&'static str], index: u64| {
            usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or("")
        };
        let (weekday, month) = (name(&WEEKDAYS, weekday), name(&MONTHS, month - 1));
        let (hour, minute) = (second_of_day / 3_600, second_of_day / 60 % 60);
        let second = second_of_day % 60;
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

const DAY_SECONDS: u64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        let cases = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_826_154, "Tue, 29 Feb 2000 12:09:14 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
        ];
        for (seconds, text) in cases {
            assert_eq!(Civil::new(seconds).http(), text);
        }
        assert_eq!(Civil::new(784_111_777).day(), "1994-11-06");
    }

    #[test]
    fn absurd_clocks_give_text() {
        assert!(!Civil::new(u64::MAX).http().is_empty());
    }
}
