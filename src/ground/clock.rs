//! Time as the database keeps it (microseconds since 1970) and as JSON shows it (RFC 3339).

use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::date::{date_of, days_of};

/// Microseconds since 1970.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}

/// One second.
pub const SECOND: i64 = 1_000_000;

/// As Go writes a time: `2026-11-26T00:50:24.524669Z`, without zeros at the fraction's end.
pub fn rfc3339(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(SECOND), micros.rem_euclid(SECOND));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if fraction != 0 {
        let digits = format!(".{fraction:06}");
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// The time that an RFC 3339 text names; what is finer than a microsecond is cut off.
pub fn parse(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let sign = |at: usize, wanted: &[u8]| {
        text.as_bytes().get(at).is_some_and(|byte| wanted.contains(byte))
    };
    let shape =
        sign(4, b"-") && sign(7, b"-") && sign(10, b"Tt") && sign(13, b":") && sign(16, b":");
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let days_max = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let day_max = *days_max.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if !shape || !(1..=day_max).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, zone) = rest.split_at_checked(digits)?;
            let micros = format!("{digits:0<6}");
            (micros.get(..6)?.parse().ok().filter(|_| !digits.is_empty())?, zone)
        }
        None => (0, rest),
    };
    let offset = offset_minutes(zone)?;
    let days = days_of(year, u8::try_from(month).ok()?, u8::try_from(day).ok()?);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset * 60;
    Some(seconds * SECOND + fraction)
}

fn offset_minutes(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes() {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    (hours < 24 && minutes < 60).then(|| sign * (i64::from(hours) * 60 + i64::from(minutes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2026-11-26T00:50:24.524669Z",
            "2024-02-29T23:59:59.5Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert_eq!(rfc3339(parse(text).unwrap()), text);
        }
        let cut = parse("2026-11-26T00:51:23.04239146Z").unwrap();
        assert_eq!(rfc3339(cut), "2026-11-26T00:51:23.042391Z");
        assert_eq!(parse("2026-11-26T02:00:00+02:00"), parse("2026-11-26T00:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-11-26",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-11-26T24:00:00Z",
            "2026-11-26T00:00:00",
            "2026-11-26T00:00:00.Z",
            "2026-11-26T00:00:00+2",
            "2026-11-26 00:00:00Z",
            "+026-11-26T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
