//! `[link]`: what the uplink may carry, and when.

use std::fmt;
use std::str::FromStr;

use url::Url;

use super::table::masked;
use super::table::{Reader, Table};
use super::{Link, ProxyUrl};
use crate::units::{ByteCount, ByteRate, Expected};

/// A part of the week, in local time. Written as `mon-fri 22:00-06:00`, `sat,sun` or
/// `02:00-04:30`; a time that ends at or before it begins ends on the next day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Monday first.
    days: [bool; 7],
    /// Minutes since midnight.
    from: u32,
    /// The same, of the day on which it begins: it may be beyond that day's end.
    until: u32,
    text: String,
}

impl Window {
    /// Minutes since Monday 00:00 at which it begins and ends, for each of its days; an end beyond
    /// the week's is in the week that follows.
    pub fn spans(&self) -> impl Iterator<Item = (u32, u32)> {
        let days = (0..).zip(self.days).filter(|(_, is_in)| *is_in);
        days.map(|(day, _)| (day * DAY_MINUTES + self.from, day * DAY_MINUTES + self.until))
    }
}

impl FromStr for Window {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let text = text.to_ascii_lowercase();
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let parsed = match words.as_slice() {
            [time] if time.contains(':') => Some(([true; 7], times(time))),
            [days] => parse_days(days).map(|days| (days, Some((0, DAY_MINUTES)))),
            [days, time] => parse_days(days).map(|days| (days, times(time))),
            _ => None,
        };
        let Some((days, Some((from, until)))) = parsed else { return Err(EXPECTED) };
        Ok(Self { days, from, until, text: words.join(" ") })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `mon-fri`, `sat`, `mon,wed-fri`
fn parse_days(text: &str) -> Option<[bool; 7]> {
    let number = |name: &str| DAYS.iter().position(|day| *day == name);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        // From Friday to Monday goes round the end of the week.
        let count = (last + DAYS.len() - first) % DAYS.len() + 1;
        for day in (first..).take(count) {
            *days.get_mut(day % DAYS.len())? = true;
        }
    }
    Some(days)
}

/// `22:00-06:00`
fn times(text: &str) -> Option<(u32, u32)> {
    let (from, until) = text.split_once('-')?;
    let (from, until) = (minute(from)?, minute(until)?);
    if from == until || from == DAY_MINUTES {
        return None;
    }
    Some((from, if until < from { until + DAY_MINUTES } else { until }))
}

fn minute(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let is_plain = text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| is_plain)
    };
    let (hour, minute) = (number(hour)?, number(minute).filter(|_| minute.len() == 2)?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= DAY_MINUTES).then_some(all)
}

impl<'a> Reader<'a> {
    pub(super) fn link(&mut self, mut table: Table<'a>) -> Link {
        let rate_max: Option<ByteRate> =
            self.parsed(&mut table, "rate_max", "a rate such as \"1MiB/s\"");
        let proxy = self.proxy(&mut table);
        let day_max = self.budget(&mut table, "day_max");
        let month_max = self.budget(&mut table, "month_max");
        let month_day = self.count(&mut table, "month_day");
        if month_day.is_some_and(|day| day > MONTH_DAY_MAX) {
            self.wrong(&table, "month_day", "1 to 28, a day that every month has");
        }
        if month_day.is_some() && month_max.is_none() {
            self.wrong(&table, "month_day", "a month_max with it");
        }
        if let (Some(day), Some(month)) = (day_max, month_max)
            && day > month
        {
            let what = "day_max is more than month_max";
            self.warn(table.span.clone(), &format!("[link] {what}: it limits nothing"));
        }
        let windows = self.windows(&mut table);
        let urgent = self.flag(&mut table, "urgent").unwrap_or(false);
        if urgent && windows.is_empty() {
            self.warn(table.span.clone(), "[link] urgent: there are no windows to break");
        }
        self.finish(table, &KEYS);
        let month_day = month_day.and_then(|day| u8::try_from(day).ok()).unwrap_or(1);
        Link { rate_max, proxy, day_max, month_max, month_day, windows, urgent }
    }

    fn budget(&mut self, table: &mut Table<'a>, key: &str) -> Option<ByteCount> {
        let budget: Option<ByteCount> = self.parsed(table, key, "a size such as \"200MiB\"");
        if budget.is_some_and(|budget| budget.0 < BUDGET_MIN) {
            let least = ByteCount(BUDGET_MIN).exact();
            self.wrong(table, key, &format!("at least \"{least}\""));
        }
        budget
    }

    fn windows(&mut self, table: &mut Table<'a>) -> Vec<Window> {
        let is_given = table.has("windows");
        let texts = self.texts(table, "windows");
        if is_given && texts.is_empty() || texts.len() > WINDOWS_MAX {
            let expected = format!("1 to {WINDOWS_MAX} of them; without the key it is always open");
            self.wrong(table, "windows", &expected);
        }
        let mut windows = Vec::new();
        for (span, text) in texts {
            match text.parse() {
                Ok(window) => windows.push(window),
                Err(Expected(what)) => {
                    self.problem(span, "[link] windows", &format!("{text:?}"), what);
                }
            }
        }
        windows
    }

    fn proxy(&mut self, table: &mut Table<'a>) -> Option<ProxyUrl> {
        let (span, text) = self.spanned(table, "proxy")?;
        let is_proxy = |url: &Url| {
            let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
            url.scheme() == "http" && url.host_str().is_some() && is_bare
        };
        let url = text.parse::<Url>().ok().filter(is_proxy);
        if url.is_none() {
            let expected = "a proxy such as \"http://proxy.example:3128\"";
            self.problem(span, "[link] proxy", &format!("{:?}", masked(&text)), expected);
        }
        url.map(ProxyUrl)
    }
}

const KEYS: [&str; 7] =
    ["rate_max", "proxy", "day_max", "month_max", "month_day", "windows", "urgent"];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u32 = 24 * 60;
const EXPECTED: Expected =
    Expected("a window such as \"mon-fri 22:00-06:00\", \"sat-sun\" or \"02:00-04:30\"");
/// A request is only made with room for a receive window and more: in less nothing could be moved.
const BUDGET_MIN: u64 = 1 << 20;
/// February has no more.
const MONTH_DAY_MAX: u32 = 28;
const WINDOWS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::super::read::parse;
    use super::*;

    #[test]
    fn windows_as_people_write_them() {
        let spans = |text: &str| text.parse::<Window>().unwrap().spans().collect::<Vec<_>>();
        let day = DAY_MINUTES;
        assert_eq!(spans("sat-sun"), [(5 * day, 6 * day), (6 * day, 7 * day)]);
        assert_eq!(spans("Fri 22:00-06:00"), [(4 * day + 1320, 4 * day + 1800)]);
        assert_eq!(spans("02:00-04:30").len(), 7);
        assert_eq!(spans("sun-mon 9:00-24:00"), [(540, 1440), (6 * day + 540, 7 * day)]);
        assert_eq!(spans("mon,wed").len(), 2);
        for wrong in [
            "",
            "mon-",
            "monday",
            "22:00",
            "22:00-22:00",
            "24:00-06:00",
            "22:60-06:00",
            "25:00-06:00",
            "1:0-2:00",
            "+1:00-2:00",
            "mon 22-06",
            "mon 22:00-06:00 x",
            "22:00-06:00 mon",
        ] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_link_is_printed_as_it_was_read() {
        let text = "[link]\nday_max = \"200MiB\"\nmonth_max = \"5GB\"\nmonth_day = 15\n\
                    windows = [\"MON-fri  22:00-06:00\", \"sat-sun\"]\nurgent = true\n";
        let config = parse("m.toml", text).unwrap().config;
        assert_eq!(config.link.month_day, 15);
        assert_eq!(parse("again", &config.to_string()).unwrap().config, config);
    }

    #[test]
    fn limits_that_cannot_be() {
        for (lines, expected) in [
            ("day_max = \"1023KiB\"", "[link] day_max: expected at least \"1MiB\""),
            ("month_max = \"x\"", "[link] month_max = \"x\": expected a size"),
            ("month_max = \"1GiB\"\nmonth_day = 29", "month_day: expected 1 to 28"),
            ("month_max = \"1GiB\"\nmonth_day = 0", "month_day = 0: expected a whole number"),
            ("month_day = 3", "month_day: expected a month_max with it"),
            ("windows = []", "windows: expected 1 to 32 of them"),
            ("windows = [\"night\"]", "[link] windows = \"night\": expected a window such as"),
            ("urgent = \"yes\"", "[link] urgent = \"yes\": expected true or false"),
            ("day_mx = \"1GiB\"", "did you mean day_max?"),
        ] {
            let problems = parse("m.toml", &format!("[link]\n{lines}\n")).err().unwrap();
            assert!(problems.len() == 1, "{lines}: {problems:?}");
            assert!(problems.concat().contains(expected), "{lines}: {problems:?}");
        }
        let warned = |lines: &str| parse("m.toml", &format!("[link]\n{lines}\n")).unwrap().warnings;
        assert!(warned("urgent = true")[0].contains("no windows to break"));
        assert!(warned("day_max = \"2GiB\"\nmonth_max = \"1GiB\"")[0].contains("limits nothing"));
    }
}
