//! Local time: how far a time zone is from UTC at a moment.
//!
//! Two forms are read: the `TZ` string of POSIX (`CET-1CEST,M3.5.0,M10.5.0/3`), which is what
//! OpenWrt has in `/etc/TZ`, and a TZif file (RFC 8536), which is what `/etc/localtime` is
//! elsewhere: its list of changes, and the POSIX string at its end for all that comes after.

use crate::clock::date::{Civil, date_of, days_of};

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Seconds since 1970 at which the offset changes, and the offset from then on.
    changes: Vec<(i64, i64)>,
    /// The offset before the first of them.
    first: i64,
    /// After the last of them; the last offset stays if there is none.
    rule: Option<Rule>,
}

/// Offsets that repeat each year, in seconds east of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    standard: i64,
    summer: Option<Summer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    offset: i64,
    begin: Change,
    end: Change,
}

/// When a year's change is: a day, and seconds of local time after its midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    day: Day,
    seconds: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    /// `Mm.w.d`: weekday `d` (0 is Sunday) of week `w` of the month; week 5 is the last.
    Week { month: u8, week: i64, weekday: i64 },
    /// `Jn`: day 1 to 365, in which February 29 is not counted.
    Counted(i64),
    /// `n`: day 0 to 365, in which it is.
    Plain(i64),
}

impl Default for Zone {
    fn default() -> Self {
        Self::utc()
    }
}

impl Zone {
    /// UTC.
    pub fn utc() -> Self {
        Self::of(Rule { standard: 0, summer: None })
    }

    fn of(rule: Rule) -> Self {
        Self { changes: Vec::new(), first: rule.standard, rule: Some(rule) }
    }

    /// Reads a POSIX string; none if it is not one.
    pub fn from_posix(text: &str) -> Option<Self> {
        rule(text.trim()).map(Self::of)
    }

    /// Reads a TZif file; none if it is not one.
    pub fn from_file(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = Header::read(bytes)?;
        if header.version == 0 {
            return header.zone(rest, 4, None);
        }
        // The first block is for readers of version 1.
        let (header, rest) = Header::read(rest.get(header.bytes(4)..)?)?;
        let footer = rest.get(header.bytes(8)..)?;
        let text = std::str::from_utf8(footer.strip_prefix(b"\n")?).ok()?;
        header.zone(rest, 8, rule(text.split_once('\n')?.0))
    }

    /// Seconds east of UTC at `unix_seconds`.
    pub fn offset(&self, unix_seconds: i64) -> i64 {
        let after = self.changes.partition_point(|(at, _)| *at <= unix_seconds);
        match (self.rule, after.checked_sub(1).and_then(|index| self.changes.get(index))) {
            (Some(rule), _) if after == self.changes.len() => rule.offset(unix_seconds),
            (_, Some((_, offset))) => *offset,
            (_, None) => self.first,
        }
    }

    /// Seconds since 1970-01-01 00:00 on the local clock.
    pub fn local(&self, unix_seconds: i64) -> i64 {
        unix_seconds.saturating_add(self.offset(unix_seconds))
    }

    /// The first moment after `from`, up to `until`, at which the local clock is set forward or
    /// back, where there is one.
    pub fn change_between(&self, from: i64, until: i64) -> Option<i64> {
        let before = self.offset(from);
        if self.offset(until) == before {
            return None;
        }
        let (mut same, mut other) = (from, until);
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            let side = if self.offset(middle) == before { &mut same } else { &mut other };
            *side = middle;
        }
        Some(other)
    }

    /// The moment at which the local clock shows `local` seconds since 1970-01-01; where it shows
    /// that twice or never, one nearby.
    pub fn moment(&self, local: i64) -> i64 {
        let guess = local - self.offset(local);
        local - self.offset(guess)
    }

    /// `then` for people who look at `now`: `22:00`, `sat 22:00` or `2026-12-15`.
    pub fn text(&self, now: i64, then: i64) -> String {
        let local = self.local(then);
        let minute = local.rem_euclid(DAY) / 60;
        let time = format!("{:02}:{:02}", minute / 60, minute % 60);
        match then - now {
            ..=DAY => time,
            DAY_AND_MORE..=WEEK => {
                let index = usize::try_from((local.div_euclid(DAY) + 3).rem_euclid(7));
                let name = index.ok().and_then(|index| WEEKDAYS.get(index)).unwrap_or(&"");
                format!("{name} {time}")
            }
            _ => Civil::new(u64::try_from(local).unwrap_or(0)).day(),
        }
    }
}

impl Rule {
    fn offset(&self, unix_seconds: i64) -> i64 {
        let Some(Summer { offset, begin, end }) = self.summer else { return self.standard };
        let local = unix_seconds.saturating_add(self.standard);
        let (year, ..) = date_of(local.div_euclid(DAY));
        // Each is given by the clock that is about to change.
        let (begin, end) = (begin.local(year) - self.standard, end.local(year) - offset);
        let is_summer = if begin < end {
            (begin..end).contains(&unix_seconds)
        } else {
            !(end..begin).contains(&unix_seconds)
        };
        if is_summer { offset } else { self.standard }
    }
}

impl Change {
    /// Seconds since 1970-01-01 of the local clock.
    fn local(&self, year: i64) -> i64 {
        let january = days_of(year, 1, 1);
        let day = match self.day {
            Day::Plain(day) => january + day,
            Day::Counted(day) => {
                let has_leap_day = days_of(year, 3, 1) - january == 60;
                january + day - 1 + i64::from(has_leap_day && day >= 60)
            }
            Day::Week { month, week, weekday } => {
                let first = days_of(year, month, 1);
                // 1970-01-01 was a Thursday.
                let shift = (weekday - (first + 4)).rem_euclid(7);
                let next =
                    if month == 12 { days_of(year + 1, 1, 1) } else { days_of(year, month + 1, 1) };
                let day = first + shift + (week - 1) * 7;
                if day >= next { day - 7 } else { day }
            }
        };
        day * DAY + self.seconds
    }
}

fn rule(text: &str) -> Option<Rule> {
    let rest = name(text)?;
    let (west, rest) = hours(rest, 24)?;
    let standard = -west;
    if rest.is_empty() {
        return Some(Rule { standard, summer: None });
    }
    let rest = name(rest)?;
    let (offset, rest) = match rest.chars().next() {
        None | Some(',') => (standard + 3_600, rest),
        Some(_) => hours(rest, 24).map(|(west, rest)| (-west, rest))?,
    };
    let dates = if rest.is_empty() { DATES_DEFAULT } else { rest.strip_prefix(',')? };
    let (begin, end) = dates.split_once(',')?;
    let summer = Some(Summer { offset, begin: change(begin)?, end: change(end)? });
    Some(Rule { standard, summer })
}

/// What follows the name of a zone: letters, or anything in angle brackets.
fn name(text: &str) -> Option<&str> {
    if let Some(quoted) = text.strip_prefix('<') {
        return quoted.split_once('>').map(|(_, rest)| rest);
    }
    let length = text.find(|sign: char| !sign.is_ascii_alphabetic()).unwrap_or(text.len());
    text.get(length..).filter(|_| length >= 3)
}

/// `[+-]hh[:mm[:ss]]` in seconds, and what follows.
fn hours(text: &str, hours_max: i64) -> Option<(i64, &str)> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hour, mut rest) = number(text, hours_max)?;
    let mut seconds = hour * 3_600;
    for unit in [60, 1] {
        let Some(more) = rest.strip_prefix(':') else { break };
        let (count, more) = number(more, 59)?;
        seconds += count * unit;
        rest = more;
    }
    Some((sign * seconds, rest))
}

fn change(text: &str) -> Option<Change> {
    let (day, seconds) = match text.split_once('/') {
        None => (text, 2 * 3_600),
        Some((day, time)) => {
            (day, hours(time, 167).filter(|(_, rest)| rest.is_empty()).map(|(seconds, _)| seconds)?)
        }
    };
    let whole = |text, max| number(text, max).filter(|(_, rest)| rest.is_empty());
    let day = if let Some(dotted) = day.strip_prefix('M') {
        let mut parts = dotted.split('.');
        let mut part = |min, max| {
            let (value, _) = whole(parts.next()?, max)?;
            (value >= min).then_some(value)
        };
        let (month, week, weekday) = (part(1, 12)?, part(1, 5)?, part(0, 6)?);
        parts.next().is_none().then_some(())?;
        Day::Week { month: u8::try_from(month).ok()?, week, weekday }
    } else if let Some(counted) = day.strip_prefix('J') {
        Day::Counted(whole(counted, 365).map(|(day, _)| day).filter(|day| *day > 0)?)
    } else {
        Day::Plain(whole(day, 365)?.0)
    };
    Some(Change { day, seconds })
}

/// Decimal digits at the beginning of a text, and what follows.
fn number(text: &str, max: i64) -> Option<(i64, &str)> {
    let length = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    let value = digits.parse().ok().filter(|value| *value <= max)?;
    Some((value, rest))
}

/// The counts at the head of a block of a TZif file.
struct Header {
    version: u8,
    universal: usize,
    standard: usize,
    leaps: usize,
    times: usize,
    types: usize,
    names: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_at_checked(44)?;
        let version = *head.strip_prefix(b"TZif")?.first()?;
        let count = |index: usize| {
            let four = head.get(20 + 4 * index..)?.first_chunk::<4>()?;
            usize::try_from(u32::from_be_bytes(*four)).ok().filter(|count| *count <= COUNT_MAX)
        };
        let (universal, standard, leaps) = (count(0)?, count(1)?, count(2)?);
        let (times, types, names) = (count(3)?, count(4)?, count(5)?);
        Some((Self { version, universal, standard, leaps, times, types, names }, rest))
    }

    /// Of the block, whose times have `width` bytes each.
    fn bytes(&self, width: usize) -> usize {
        self.times * (width + 1)
            + self.types * 6
            + self.names
            + self.leaps * (width + 4)
            + self.standard
            + self.universal
    }

    fn zone(&self, block: &[u8], width: usize, rule: Option<Rule>) -> Option<Zone> {
        let (times, rest) = block.split_at_checked(self.times * width)?;
        let (kinds, rest) = rest.split_at_checked(self.times)?;
        let types = rest.get(..self.types * 6)?;
        let offset = |kind: usize| {
            let four = types.get(kind * 6..)?.first_chunk::<4>()?;
            Some(i64::from(i32::from_be_bytes(*four)))
        };
        let times = times.chunks_exact(width).map(|time| match time.first_chunk::<8>() {
            Some(eight) => i64::from_be_bytes(*eight),
            None => time.first_chunk::<4>().map_or(0, |four| i64::from(i32::from_be_bytes(*four))),
        });
        let changes = times.zip(kinds).map(|(at, kind)| Some((at, offset(usize::from(*kind))?)));
        let changes: Vec<(i64, i64)> = changes.collect::<Option<_>>()?;
        changes.is_sorted().then_some(Zone { changes, first: offset(0)?, rule })
    }
}

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
const DAY_AND_MORE: i64 = DAY + 1;
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Where a string names summer time and not when it is: as POSIX systems take it, by the rule of
/// the United States.
const DATES_DEFAULT: &str = "M3.2.0,M11.1.0";
/// Of anything in a TZif file: those of the tz database have some hundreds.
const COUNT_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(year: i64, month: u8, day: u8, hour: i64) -> i64 {
        days_of(year, month, day) * DAY + hour * 3_600
    }

    #[test]
    fn posix_strings() {
        let offset = |text: &str, at| Zone::from_posix(text).unwrap().offset(at);
        let cases = [
            ("UTC0", utc(2026, 7, 1, 0), 0),
            ("<+0330>-3:30", utc(2026, 7, 1, 0), 12_600),
            ("CET-1CEST,M3.5.0,M10.5.0/3", utc(2026, 3, 29, 1) - 1, 3_600),
            ("CET-1CEST,M3.5.0,M10.5.0/3", utc(2026, 3, 29, 1), 7_200),
            ("CET-1CEST,M3.5.0,M10.5.0/3", utc(2026, 10, 25, 1) - 1, 7_200),
            ("CET-1CEST,M3.5.0,M10.5.0/3", utc(2026, 10, 25, 1), 3_600),
            ("EST5EDT", utc(2026, 3, 8, 7) - 1, -18_000),
            ("EST5EDT", utc(2026, 3, 8, 7), -14_400),
            // The southern summer goes over the new year.
            ("NZST-12NZDT,M9.5.0,M4.1.0/3", utc(2026, 1, 1, 0), 46_800),
            ("NZST-12NZDT,M9.5.0,M4.1.0/3", utc(2026, 4, 4, 14), 43_200),
            ("NZST-12NZDT,M9.5.0,M4.1.0/3", utc(2026, 12, 31, 23), 46_800),
            ("IST-2IDT,M3.4.4/26,M10.5.0", utc(2026, 3, 26, 23), 7_200),
            ("IST-2IDT,M3.4.4/26,M10.5.0", utc(2026, 3, 27, 0), 10_800),
            ("AAA3BBB,J60/0,J61/0", utc(2024, 3, 1, 3), -7_200),
            ("AAA3BBB,59/0,60/0", utc(2024, 2, 29, 3), -7_200),
        ];
        for (text, at, expected) in cases {
            assert_eq!(offset(text, at), expected, "{text} at {at}");
        }
        for wrong in ["", "X1", "CET", "CET-1CEST,M3.5.0", "CET-25", "CET-1CEST,M13.1.0,M1.1.0"] {
            assert_eq!(Zone::from_posix(wrong), None, "{wrong}");
        }
    }

    /// As the tz compiler writes it: an empty block for version 1, then changes, then the string.
    fn file(changes: &[(i64, u8)], offsets: &[i32], footer: &str) -> Vec<u8> {
        let head = |times: usize, types: usize| {
            let mut head = b"TZif2".to_vec();
            head.resize(20, 0);
            for count in [0, 0, 0, times, types, 4] {
                head.extend(u32::try_from(count).unwrap().to_be_bytes());
            }
            head
        };
        let mut bytes = head(0, 1);
        bytes.extend([0; 6 + 4]);
        bytes.extend(head(changes.len(), offsets.len()));
        changes.iter().for_each(|(at, _)| bytes.extend(at.to_be_bytes()));
        bytes.extend(changes.iter().map(|(_, kind)| kind));
        for offset in offsets {
            bytes.extend(offset.to_be_bytes());
            bytes.extend([0; 2]);
        }
        bytes.extend(b"CET\0\n");
        bytes.extend(footer.as_bytes());
        bytes.push(b'\n');
        bytes
    }

    #[test]
    fn files() {
        let changes = [(utc(2025, 3, 30, 1), 1), (utc(2025, 10, 26, 1), 0)];
        let bytes = file(&changes, &[3_600, 7_200], "CET-1CEST,M3.5.0,M10.5.0/3");
        let zone = Zone::from_file(&bytes).unwrap();
        for (at, offset) in [
            (utc(1990, 7, 1, 0), 3_600),
            (utc(2025, 7, 1, 0), 7_200),
            (utc(2025, 12, 1, 0), 3_600),
            (utc(2036, 7, 1, 0), 7_200),
        ] {
            assert_eq!(zone.offset(at), offset, "{at}");
        }
        let without = Zone::from_file(&file(&changes, &[3_600, 7_200], "")).unwrap();
        assert_eq!(without.offset(utc(2036, 7, 1, 0)), 3_600, "the last change stays");
        for length in 0..bytes.len() {
            assert_eq!(Zone::from_file(&bytes[..length]).filter(|other| *other == zone), None);
        }
        assert_eq!(Zone::from_file(&file(&[(0, 9)], &[0], "UTC0")), None, "no such type");
        let mut huge = bytes;
        huge[32..36].copy_from_slice(&[0xff; 4]);
        assert_eq!(Zone::from_file(&huge), None);
    }

    #[test]
    fn changes_and_texts() {
        let zone = Zone::from_posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let march = utc(2026, 3, 28, 0);
        assert_eq!(zone.change_between(march, march + 2 * DAY), Some(utc(2026, 3, 29, 1)));
        assert_eq!(zone.change_between(march, march + DAY), None);
        let now = utc(2026, 11, 26, 9);
        assert_eq!(zone.moment(utc(2026, 11, 27, 0)), utc(2026, 11, 26, 23));
        assert_eq!(zone.text(now, utc(2026, 11, 26, 21)), "22:00");
        assert_eq!(zone.text(now, utc(2026, 11, 28, 21)), "sat 22:00");
        assert_eq!(zone.text(now, utc(2026, 12, 14, 23)), "2026-12-15");
    }
}
