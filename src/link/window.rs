//! When images may be fetched.
//!
//! Windows are parts of the week by the local clock. Where that is set back, an hour comes twice
//! and is inside both times; where it is set forward, the hour that is left out is nowhere.

use super::zone::Zone;
use crate::config::Window;

/// All windows together.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// Seconds since Monday 00:00: when each begins, and until when, which may be in the week that
    /// follows.
    spans: Vec<(i64, i64)>,
}

/// Whether a window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Until then, in seconds since 1970; for ever where there is no end.
    Open(Option<i64>),
    /// The same.
    Closed(Option<i64>),
}

impl Schedule {
    /// Of no windows, it is always open.
    pub fn new(windows: &[Window]) -> Self {
        let spans = windows.iter().flat_map(Window::spans);
        let spans = spans.map(|(from, until)| (i64::from(from) * 60, i64::from(until) * 60));
        Self { spans: spans.collect() }
    }

    /// Whether there are any windows.
    pub fn has_windows(&self) -> bool {
        !self.spans.is_empty()
    }

    /// Whether one is open at `now`, in seconds since 1970.
    pub fn is_open(&self, now: i64, zone: &Zone) -> bool {
        let second = second_of_week(zone.local(now));
        let is_in = |(from, until): &(i64, i64)| {
            (*from..*until).contains(&second) || (*from..*until).contains(&(second + WEEK))
        };
        self.spans.is_empty() || self.spans.iter().any(is_in)
    }

    /// The same, and until when that stays so.
    pub fn state(&self, now: i64, zone: &Zone) -> State {
        let is_open = self.is_open(now, zone);
        let next = self.next_change(now, zone, is_open);
        if is_open { State::Open(next) } else { State::Closed(next) }
    }

    /// Goes from edge to edge of the windows, and stops where the local clock is set as well.
    fn next_change(&self, now: i64, zone: &Zone, is_open: bool) -> Option<i64> {
        let mut at = now;
        while at < now + WEEK + DAY {
            let second = second_of_week(zone.local(at));
            let edges = self.spans.iter().flat_map(|(from, until)| [*from, *until]);
            let ahead = edges.map(|edge| (edge - second).rem_euclid(WEEK));
            let step = ahead.filter(|step| *step > 0).min().unwrap_or(WEEK);
            let next = at + step;
            at = zone.change_between(at, next).unwrap_or(next);
            if self.is_open(at, zone) != is_open {
                return Some(at);
            }
        }
        None
    }
}

/// Since Monday 00:00; 1970-01-01 was a Thursday.
fn second_of_week(local: i64) -> i64 {
    (local + 3 * DAY).rem_euclid(WEEK)
}

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::date::days_of;

    fn schedule(windows: &[&str]) -> Schedule {
        let windows: Vec<Window> = windows.iter().map(|text| text.parse().unwrap()).collect();
        Schedule::new(&windows)
    }

    /// A minute of UTC.
    fn at(month: u8, day: u8, hour: i64, minute: i64) -> i64 {
        days_of(2026, month, day) * DAY + hour * 3_600 + minute * 60
    }

    #[test]
    fn windows_open_and_close() {
        let utc = Zone::utc();
        // 2026-11-23 is a Monday.
        let (night, weekend) = ("mon-fri 22:00-06:00", "sat-sun");
        for (windows, now, expected) in [
            (&[night][..], at(11, 23, 5, 0), State::Closed(Some(at(11, 23, 22, 0)))),
            (&[night], at(11, 23, 22, 0), State::Open(Some(at(11, 24, 6, 0)))),
            (&[night], at(11, 24, 5, 59), State::Open(Some(at(11, 24, 6, 0)))),
            (&[night], at(11, 24, 6, 0), State::Closed(Some(at(11, 24, 22, 0)))),
            // Friday's goes on on Saturday, and into the weekend where there is one.
            (&[night], at(11, 28, 5, 0), State::Open(Some(at(11, 28, 6, 0)))),
            (&[night], at(11, 28, 6, 0), State::Closed(Some(at(11, 30, 22, 0)))),
            (&[night, weekend], at(11, 27, 23, 0), State::Open(Some(at(11, 30, 0, 0)))),
            // Sunday's goes round the end of the week.
            (&["sun 22:00-06:00"], at(11, 30, 1, 0), State::Open(Some(at(11, 30, 6, 0)))),
            (&["sun 22:00-06:00"], at(11, 30, 6, 0), State::Closed(Some(at(12, 6, 22, 0)))),
            (&["02:00-04:30"], at(11, 25, 4, 30), State::Closed(Some(at(11, 26, 2, 0)))),
            (&["mon-sun"], at(11, 25, 4, 30), State::Open(None)),
            (&["00:00-12:00", "12:00-24:00"], at(11, 25, 4, 30), State::Open(None)),
            (&[], at(11, 25, 4, 30), State::Open(None)),
        ] {
            assert_eq!(schedule(windows).state(now, &utc), expected, "{windows:?} at {now}");
        }
    }

    #[test]
    fn the_local_clock_is_set_forward_and_back() {
        let zone = Zone::from_posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let state = |windows: &[&str], now| schedule(windows).state(now, &zone);
        // On 2026-03-29 02:00 is 03:00 at once: the night is an hour shorter.
        let night = ["22:00-06:00"];
        assert_eq!(state(&night, at(3, 28, 21, 0)), State::Open(Some(at(3, 29, 4, 0))));
        assert_eq!(state(&night, at(10, 24, 20, 0)), State::Open(Some(at(10, 25, 5, 0))));
        // What begins in the hour that is left out begins at its end.
        let early = ["02:30-04:00"];
        assert_eq!(state(&early, at(3, 29, 0, 0)), State::Closed(Some(at(3, 29, 1, 0))));
        assert_eq!(state(&early, at(3, 29, 1, 0)), State::Open(Some(at(3, 29, 2, 0))));
        let gone = ["02:00-03:00"];
        assert_eq!(state(&gone, at(3, 29, 0, 0)), State::Closed(Some(at(3, 30, 0, 0))));
        // On 2026-10-25 03:00 is 02:00 again: the hour comes twice.
        let twice = ["02:15-02:45"];
        assert_eq!(state(&twice, at(10, 25, 0, 0)), State::Closed(Some(at(10, 25, 0, 15))));
        assert_eq!(state(&twice, at(10, 25, 0, 50)), State::Closed(Some(at(10, 25, 1, 15))));
        assert_eq!(state(&twice, at(10, 25, 1, 15)), State::Open(Some(at(10, 25, 1, 45))));
    }

    #[test]
    fn the_next_change_is_the_first() {
        let zone = Zone::from_posix("EST5EDT").unwrap();
        let schedule = schedule(&["mon,wed 23:30-01:45", "fri-sun 10:00-10:01", "01:00-02:30"]);
        // Every minute of the weeks around both changes.
        for begin in [at(3, 1, 0, 0), at(10, 25, 0, 0)] {
            let mut expected = schedule.state(begin, &zone);
            for minute in 0..14 * 1440 {
                let now = begin + minute * 60;
                let state = schedule.state(now, &zone);
                let (State::Open(next) | State::Closed(next)) = expected;
                if next == Some(now) {
                    expected = state;
                    continue;
                }
                assert_eq!(state, expected, "at {now}");
            }
        }
    }
}
