//! Calendar dates from seconds since 1970 and back, for the `Date` header and for messages.
//!
//! async-h1 has the same sum inside, but it panics on a clock outside 1970-9999 and formats anew
//! for every answer; a clock is outside input here, so any value must yield some text.

/// A moment in UTC, split into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    year: i64,
    month: u8,
    day: u8,
    second_of_day: u64,
    weekday: u64,
}

impl Civil {
    /// The moment `unix_seconds` after 1970-01-01.
    pub fn new(unix_seconds: u64) -> Self {
        let days = unix_seconds / DAY_SECONDS;
        let (year, month, day) = date_of(i64::try_from(days).unwrap_or(i64::MAX));
        let (second_of_day, weekday) = (unix_seconds % DAY_SECONDS, (days + 4) % 7);
        Self { year, month, day, second_of_day, weekday }
    }

    /// `2026-11-24`.
    pub fn day(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn time(self) -> String {
        let second = self.second_of_day;
        format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
    }

    /// `Tue, 24 Nov 2026 08:49:37 GMT`, the form RFC 9110 asks for.
    pub fn http(self) -> String {
        let Self { year, month, day, weekday, .. } = self;
        let name = |names: &'static [&'static str], index: u64| {
            usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or("")
        };
        let (weekday, month) = (name(&WEEKDAYS, weekday), name(&MONTHS, u64::from(month) - 1));
        format!("{weekday}, {day:02} {month} {year:04} {} GMT", self.time())
    }
}

/// `2026-11-24T08:49:37Z`, the form of RFC 3339.
pub fn rfc3339(unix_seconds: u64) -> String {
    let civil = Civil::new(unix_seconds);
    format!("{}T{}Z", civil.day(), civil.time())
}

/// Seconds since 1970 of a date as RFC 9110 asks for it (`Sun, 06 Nov 1994 08:49:37 GMT`); none for
/// anything else, its obsolete forms included. The weekday is not looked at.
pub fn parse_http_date(text: &str) -> Option<u64> {
    let mut words = text.split_once(", ")?.1.split(' ');
    let mut word = || words.next();
    let day = u8::try_from(number(word()?, 1..=31)?).ok()?;
    let name = word()?;
    let month = MONTHS.iter().position(|month| *month == name)? + 1;
    let month = u8::try_from(month).ok()?;
    let year = number(word()?, 1970..=9999)?;
    let mut parts = word()?.split(':');
    let mut part = |max| number(parts.next()?, 0..=max);
    let (hour, minute, second) = (part(23)?, part(59)?, part(60)?);
    let is_whole = word() == Some("GMT") && word().is_none() && parts.next().is_none();
    let days = u64::try_from(days_of(i64::try_from(year).ok()?, month, day)).ok()?;
    let seconds = days * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    is_whole.then_some(seconds)
}

/// Seconds since 1970 of a date in the form of RFC 3339 without parts of seconds, such as
/// `2026-11-24T08:49:37Z` or `2026-11-24T09:49:37+01:00`; none for anything else.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (day, time) = text.split_once('T')?;
    let mut parts = day.split('-');
    let mut part =
        |length: usize, within| number(parts.next().filter(|part| part.len() == length)?, within);
    let (year, month, day) = (part(4, 1970..=9999)?, part(2, 1..=12)?, part(2, 1..=31)?);
    let date = (i64::try_from(year).ok()?, u8::try_from(month).ok()?, u8::try_from(day).ok()?);
    let days = days_of(date.0, date.1, date.2);
    if parts.next().is_some() || date_of(days) != date {
        return None;
    }
    let clock = |text: &str| {
        let (hour, minute) = text.split_once(':').filter(|_| text.len() == 5)?;
        Some(number(hour, 0..=23)? * 3_600 + number(minute, 0..=59)? * 60)
    };
    let minute = clock(time.get(..5)?)?;
    let (second, zone) = time.get(5..)?.strip_prefix(':')?.split_at_checked(2)?;
    let seconds = u64::try_from(days).ok()? * DAY_SECONDS + minute + number(second, 0..=59)?;
    match zone.split_at_checked(1)? {
        ("Z", "") => Some(seconds),
        ("+", ahead) => seconds.checked_sub(clock(ahead)?),
        ("-", behind) => Some(seconds + clock(behind)?),
        _ => None,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, negative before (Howard Hinnant's
/// algorithm). Of a day that the month does not have: as many days after its first.
pub fn days_of(year: i64, month: u8, day: u8) -> i64 {
    // Years that begin in March put the leap day last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - MARCH_0000_DAYS
}

/// Year, month and day of the month, `days` after 1970-01-01: the inverse of [`days_of`].
pub fn date_of(days: i64) -> (i64, u8, u8) {
    let days = days.saturating_add(MARCH_0000_DAYS);
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let small = |value: i64| u8::try_from(value).unwrap_or(u8::MAX);
    (era * 400 + year_of_era + i64::from(month <= 2), small(month), small(day))
}

fn number(text: &str, within: std::ops::RangeInclusive<u64>) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_plain && within.contains(number))
}

const DAY_SECONDS: u64 = 86_400;
/// In 400 years.
const ERA_DAYS: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const MARCH_0000_DAYS: i64 = 719_468;
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
            assert_eq!(parse_http_date(text), Some(seconds));
        }
        assert_eq!(Civil::new(784_111_777).day(), "1994-11-06");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for seconds in (0..4_000_000_000).step_by(9_876_543) {
            assert_eq!(parse_http_date(&Civil::new(seconds).http()), Some(seconds));
        }
        let wrong = [
            "",
            "Sun, ",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37:1 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nox 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ];
        for text in wrong {
            assert_eq!(parse_http_date(text), None, "{text:?}");
        }
    }

    #[test]
    fn dates_of_rfc_3339_are_read() {
        for seconds in (0..4_000_000_000).step_by(9_876_543) {
            assert_eq!(parse_rfc3339(&rfc3339(seconds)), Some(seconds));
        }
        for text in ["2026-12-01T03:30:00+01:30", "2026-11-30T21:00:00-05:00"] {
            assert_eq!(parse_rfc3339(text), parse_rfc3339("2026-12-01T02:00:00Z"), "{text}");
        }
        for text in [
            "",
            "2026-12-01",
            "2026-12-01T02:00Z",
            "2026-12-01T02:00:00",
            "2026-12-01 02:00:00Z",
            "2026-12-01T02:00:00.5Z",
            "2026-12-01T24:00:00Z",
            "2026-12-01T02:60:00Z",
            "2026-02-29T02:00:00Z",
            "2026-13-01T02:00:00Z",
            "+026-12-01T02:00:00Z",
            "2026-12-01T02:00:00Zx",
            "2026-12-01T02:00:00+1:00",
            "1970-01-01T00:00:00+01:00",
            "2026-12-01T02:00:0\u{e9}Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text:?}");
        }
    }

    #[test]
    fn days_are_counted_on_both_sides_of_1970() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (-719_468, (0, 3, 1)),
            (-719_469, (0, 2, 29)),
        ] {
            let (year, month, day) = date;
            assert_eq!((date_of(days), days_of(year, month, day)), (date, days));
        }
    }

    #[test]
    fn absurd_clocks_give_text() {
        assert!(!Civil::new(u64::MAX).http().is_empty());
    }
}
