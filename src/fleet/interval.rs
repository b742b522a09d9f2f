//! Go's schedules: `@every` and a Go duration, such as `@every 00h00m30s`.

use std::time::Duration;

use super::{Invalid, shown};

/// Reads a schedule: a whole number of seconds, at least one and at most [`SECONDS_MAX`].
///
/// A bare `5m` and fractions of a second are refused, as Go's Ground Control refuses them.
pub fn parse(text: &str) -> Result<Duration, Invalid> {
    let wrong = || {
        Invalid::new(format!(
            "interval {}: expected \"@every 00h00m30s\", whole seconds, at most 30 days",
            shown(text)
        ))
    };
    let mut rest = text.strip_prefix("@every ").ok_or_else(wrong)?;
    if rest.len() > TEXT_BYTES_MAX || rest.is_empty() {
        return Err(wrong());
    }
    let mut milliseconds = 0_u64;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|sign: char| sign.is_ascii_digit()).len();
        let (number, tail) = rest.split_at_checked(digits).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let letters =
            tail.len() - tail.trim_start_matches(|sign: char| sign.is_ascii_alphabetic()).len();
        let (unit, tail) = tail.split_at_checked(letters).ok_or_else(wrong)?;
        let unit_ms = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(wrong()),
        };
        milliseconds = number
            .checked_mul(unit_ms)
            .and_then(|part| milliseconds.checked_add(part))
            .ok_or_else(wrong)?;
        rest = tail;
    }
    let seconds = milliseconds / 1000;
    if !milliseconds.is_multiple_of(1000) || seconds == 0 || seconds > SECONDS_MAX {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

/// Writes a schedule as Go writes it.
pub fn format(every: Duration) -> String {
    let seconds = every.as_secs();
    format!("@every {:02}h{:02}m{:02}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// 30 days.
pub const SECONDS_MAX: u64 = 30 * 24 * 3600;
const TEXT_BYTES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_takes_is_taken() {
        for (text, seconds) in [
            ("@every 00h00m30s", 30),
            ("@every 300s", 300),
            ("@every 5m", 300),
            ("@every 1h30m", 5400),
            ("@every 2000ms", 2),
        ] {
            assert_eq!(parse(text).unwrap().as_secs(), seconds, "{text}");
        }
        assert_eq!(format(Duration::from_secs(3725)), "@every 01h02m05s");
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "5m",
            "@every",
            "@every ",
            "@every 5",
            "@every m",
            "@every 0s",
            "@every 1500ms",
            "@every -5s",
            "@every 1.5s",
            "@every 99999999999999999999h",
            "@every 5 m",
            "@every 721h",
            "@every \u{661}s",
            "*/5 * * * *",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
