//! Quantities as people write them: `4GiB`, `1MiB/s`, `30s`.
//!
//! Parsing refuses what it does not know and says what it expected; printing rounds to three
//! digits, which is what a table has room for.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes. Written as `512`, `64KiB`, `4GiB` (binary) or `10MB` (decimal).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

impl FromStr for ByteCount {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let expected = Expected("a number of bytes such as 512, 64KiB, 4GiB or 10MB");
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let scale: u64 = match unit.trim() {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(expected),
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(scale))
            .map(ByteCount)
            .ok_or(expected)
    }
}

impl ByteCount {
    /// The number as a configuration has it, exact: `4GiB`, `10000000`.
    pub fn exact(self) -> String {
        let unit =
            UNITS.iter().find(|(scale, _)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        unit.map_or_else(|| self.0.to_string(), |(scale, name)| format!("{}{name}", self.0 / scale))
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scale, unit)) = UNITS.iter().find(|(scale, _)| self.0 >= *scale) else {
            return write!(f, "{} B", self.0);
        };
        let whole = self.0 / scale;
        let tenths = (self.0 % scale) * 10 / scale;
        if whole >= 100 || (tenths == 0 && self.0.is_multiple_of(*scale)) {
            write!(f, "{whole} {unit}")
        } else {
            write!(f, "{whole}.{tenths} {unit}")
        }
    }
}

const UNITS: [(u64, &str); 4] =
    [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

/// Bytes in one second. Written as `1MiB/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(pub u64);

impl FromStr for ByteRate {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let expected = Expected("bytes per second such as 64KiB/s or 1MiB/s");
        let count = text.trim().strip_suffix("/s").ok_or(expected)?;
        match count.parse::<ByteCount>() {
            Ok(ByteCount(rate)) if rate > 0 => Ok(ByteRate(rate)),
            _ => Err(expected),
        }
    }
}

impl ByteRate {
    /// The rate as a configuration has it, exact: `1MiB/s`.
    pub fn exact(self) -> String {
        format!("{}/s", ByteCount(self.0).exact())
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteCount(self.0))
    }
}

/// Reads a span of time such as `500ms`, `30s`, `5m`, `12h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, Expected> {
    let expected = Expected("a span of time such as 500ms, 30s, 5m, 12h or 7d");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(milliseconds))
        .map(Duration::from_millis)
        .ok_or(expected)
}

/// Writes a span of time as a configuration has it, exact: `7d`, `90s`.
pub fn exact_duration(span: Duration) -> String {
    const UNITS: [(u128, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let span = span.as_millis();
    let unit = UNITS.iter().find(|(scale, _)| span >= *scale && span.is_multiple_of(*scale));
    unit.map_or_else(|| format!("{span}ms"), |(scale, name)| format!("{}{name}", span / scale))
}

/// Writes a span of time for a table: `850ms`, `12s`, `3m05s`, `2h10m`, `7d03h`.
pub fn format_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// What a value should have looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected(pub &'static str);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for Expected {}

/// As an index, a length or a position in memory. What does not fit was let through by a mistake of ours:
/// numbers from outside are checked where they come in.
#[inline]
pub fn to_usize(value: impl TryInto<usize>) -> usize {
    let value = value.try_into();
    debug_assert!(value.is_ok(), "a number that memory has no room for");
    value.unwrap_or(usize::MAX)
}

/// As the number of a segment, a chunk or a unit, or an offset in a segment. What does not fit was let
/// through by a mistake of ours, as above.
#[inline]
pub fn to_u32(value: impl TryInto<u32>) -> u32 {
    let value = value.try_into();
    debug_assert!(value.is_ok(), "a number beyond what a store can have");
    value.unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_round_trip_for_people() {
        for (text, value, shown) in [
            ("512", 512, "512 B"),
            ("64KiB", 65_536, "64 KiB"),
            ("4GiB", 4 << 30, "4 GiB"),
            ("10MB", 10_000_000, "9.5 MiB"),
            ("1536KiB", 1_572_864, "1.5 MiB"),
        ] {
            assert_eq!(text.parse(), Ok(ByteCount(value)), "{text}");
            assert_eq!(ByteCount(value).to_string(), shown);
        }
        for wrong in ["", "-1", "1.5GiB", "4gib", "99999999999999TiB", "GiB"] {
            assert!(wrong.parse::<ByteCount>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_and_spans() {
        assert_eq!("1MiB/s".parse(), Ok(ByteRate(1 << 20)));
        assert!("1MiB".parse::<ByteRate>().is_err());
        assert!("0KiB/s".parse::<ByteRate>().is_err());
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert!(parse_duration("5").is_err());
        assert_eq!(format_duration(Duration::from_secs(7805)), "2h10m");
        assert_eq!(format_duration(Duration::from_secs(100_000)), "1d03h");
    }

    #[test]
    fn exact_texts_are_read_back_as_they_were() {
        for text in ["512", "64KiB", "4GiB", "1536KiB", "10000000"] {
            let count: ByteCount = text.parse().unwrap();
            assert_eq!(count.exact(), text);
        }
        assert_eq!(ByteRate(1 << 20).exact(), "1MiB/s");
        for text in ["1500ms", "90s", "5m", "6h", "7d", "36h"] {
            assert_eq!(exact_duration(parse_duration(text).unwrap()), text);
        }
    }
}
