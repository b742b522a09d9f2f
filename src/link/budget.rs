//! How many bytes a data plan has left.
//!
//! There is an account for each limit: for the day, and for the month of the plan. What was spent
//! is what the link's counter shows. Bytes that may yet come, because they were asked for, are
//! exposed: they are added to what was spent before anything more is asked for. And what is spent
//! and exposed must have been recorded before, so that after a power cut what the record says was
//! spent is never too little; it is too much by a step and what was exposed, at most.
//!
//! A day ends at midnight by the local clock. An account never goes back to an earlier day or
//! month: a clock that is set back brings no new budget. Nor does one that is set forward, for what
//! was spent while it was wrong was spent today: what went before the clock was set since the
//! device was switched on is recorded in an account of its own, and, as what went before a leap of
//! the clock, stays spent when the day or month changes.

use super::zone::Zone;
use crate::clock::date::{date_of, days_of};

/// The limits of a data plan, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of a day.
    pub day: Option<u64>,
    /// Of a month.
    pub month: Option<u64>,
    /// On which day of the calendar's months it begins: 1 to 28.
    pub month_day: u8,
}

/// What a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// From midnight to midnight.
    Day,
    /// From this day of one calendar month to that of the next.
    Month(u8),
}

/// What one account has spent, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The account's name.
    pub account: &'static str,
    /// The number of the day or month.
    pub period: u32,
    /// Bytes.
    pub bytes: u64,
}

/// What time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970.
    pub now: i64,
    /// Seconds by a clock that is never set.
    pub monotonic: i64,
    /// Whether the device's clock was set since it was switched on.
    pub is_set: bool,
}

/// How one account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// What its limit is for.
    pub span: Span,
    /// Bytes of its limit.
    pub limit: u64,
    /// Bytes spent in this period.
    pub spent: u64,
    /// The number of the day or month.
    period: u32,
    /// Bytes that are recorded as spent.
    recorded: u64,
    /// Bytes of what was spent that this process has seen go.
    seen: u64,
}

/// Whether bytes may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may.
    Granted,
    /// They may once [`Budget::claim`] is recorded.
    Unrecorded,
    /// They may not: this account has no room.
    Refused(Account),
}

/// All accounts.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    accounts: Vec<Account>,
    /// Where the link's counter was.
    counted: u64,
    /// When that was.
    last: Option<Moment>,
    /// Bytes spent while the clock was not set, and those recorded as such.
    unset: u64,
    unset_recorded: u64,
}

impl Span {
    /// The name of its account.
    pub fn account(self) -> &'static str {
        match self {
            Self::Day => "link/day",
            Self::Month(_) => "link/month",
        }
    }

    /// The number of the day, or of the month of the plan, in which `now` is.
    fn period(self, now: i64, zone: &Zone) -> u32 {
        let days = zone.local(now).div_euclid(DAY);
        let number = match self {
            Self::Day => days,
            Self::Month(first) => {
                let (year, month, day) = date_of(days);
                (year - 1970) * 12 + i64::from(month) - 1 - i64::from(day < first)
            }
        };
        u32::try_from(number.max(0)).unwrap_or(u32::MAX)
    }

    /// When `period` ends, in seconds since 1970.
    fn end(self, period: u32, zone: &Zone) -> i64 {
        let next = i64::from(period) + 1;
        let days = match self {
            Self::Day => next,
            Self::Month(first) => {
                let month = u8::try_from(next % 12 + 1).unwrap_or(1);
                days_of(1970 + next / 12, month, first)
            }
        };
        zone.moment(days * DAY)
    }

    /// How much later than now a period may be that is believed: a clock that was far in the future
    /// once must not close the link for years. As for the time that the log records, about 400
    /// days.
    fn ahead_max(self) -> u32 {
        match self {
            Self::Day => 400,
            Self::Month(_) => 14,
        }
    }
}

impl Account {
    /// When it begins anew, in seconds since 1970.
    pub fn end(&self, zone: &Zone) -> i64 {
        self.span.end(self.period, zone)
    }
}

impl Budget {
    /// The accounts now.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Puts limits into effect. An account that is new begins with what `recorded` says of it: the
    /// period and the bytes. `counter` is the link's counter now.
    pub fn set(
        &mut self,
        limits: Limits,
        at: Moment,
        zone: &Zone,
        counter: u64,
        recorded: impl Fn(&str) -> Option<(u32, u64)>,
    ) {
        self.charge(counter, at, zone);
        if self.accounts.is_empty() {
            self.unset = recorded(UNSET).map_or(0, |(_, bytes)| bytes);
            self.unset_recorded = self.unset;
        }
        let day = limits.day.map(|limit| (Span::Day, limit));
        let month = limits.month.map(|limit| (Span::Month(limits.month_day), limit));
        let accounts = day.into_iter().chain(month).map(|(span, limit)| {
            let same = |account: &&Account| account.span.account() == span.account();
            if let Some(known) = self.accounts.iter().find(same) {
                return Account { span, limit, ..*known };
            }
            let (period, spent) =
                recorded(span.account()).unwrap_or_else(|| (span.period(at.now, zone), 0));
            Account { span, limit, spent, period, recorded: spent, seen: 0 }
        });
        self.accounts = accounts.collect();
        self.turn(at, zone, false);
    }

    /// Charges all bytes that the link's counter shows since the last call.
    pub fn charge(&mut self, counter: u64, at: Moment, zone: &Zone) {
        let spent = counter.saturating_sub(self.counted);
        self.counted = counter;
        for account in &mut self.accounts {
            account.spent = account.spent.saturating_add(spent);
            account.seen = account.seen.saturating_add(spent);
        }
        if !at.is_set {
            self.unset = self.unset.saturating_add(spent);
        }
        let leapt = self
            .last
            .replace(at)
            .is_some_and(|last| at.now - last.now > at.monotonic - last.monotonic + LEAP_SECONDS);
        self.turn(at, zone, leapt);
    }

    /// Begins the accounts anew whose day or month is over, but for what was spent while the clock
    /// was wrong.
    fn turn(&mut self, at: Moment, zone: &Zone, leapt: bool) {
        for account in &mut self.accounts {
            let period = account.span.period(at.now, zone);
            if period > account.period {
                let seen = if leapt { account.seen } else { 0 };
                (account.period, account.spent, account.recorded) =
                    (period, seen.max(self.unset), 0);
                account.seen = seen;
            } else if account.period - period > account.span.ahead_max() {
                account.period = period;
            }
        }
        if at.is_set {
            // It is in all accounts by now.
            self.unset = 0;
        }
    }

    /// Whether `exposed` bytes may be on their way.
    pub fn check(&self, exposed: u64) -> Verdict {
        if self.accounts.is_empty() {
            // Nothing is recorded for a plan that there is not, whatever the clock.
            return Verdict::Granted;
        }
        let sum = |account: &Account| account.spent.saturating_add(exposed);
        if let Some(account) = self.accounts.iter().find(|account| sum(account) > account.limit) {
            return Verdict::Refused(*account);
        }
        let is_known = self.is_set() || self.unset.saturating_add(exposed) <= self.unset_recorded;
        match is_known && self.accounts.iter().all(|account| sum(account) <= account.recorded) {
            true => Verdict::Granted,
            false => Verdict::Unrecorded,
        }
    }

    /// Bytes that may be spent beside `exposed`.
    pub fn room(&self, exposed: u64) -> u64 {
        let rooms = self
            .accounts
            .iter()
            .map(|account| account.limit.saturating_sub(account.spent).saturating_sub(exposed));
        rooms.min().unwrap_or(u64::MAX)
    }

    /// What is to be recorded so that `exposed` bytes may be on their way, and a step more.
    pub fn claim(&self, exposed: u64) -> Vec<Entry> {
        let unset = match self.is_set() {
            true => self.unset,
            false => self.unset.saturating_add(exposed).saturating_add(STEP_MAX),
        };
        self.entries(unset, |account| {
            let sum = account.spent.saturating_add(exposed);
            let step = (account.limit.saturating_sub(sum) / 100).clamp(STEP_MIN, STEP_MAX);
            sum.saturating_add(step).min(account.limit).max(account.recorded)
        })
    }

    /// What is to be recorded so that nothing is lost: what was spent, and `exposed`.
    pub fn settlement(&self, exposed: u64) -> Vec<Entry> {
        let unset = if self.is_set() { 0 } else { self.unset.saturating_add(exposed) };
        self.entries(unset, |account| account.spent.saturating_add(exposed))
    }

    fn is_set(&self) -> bool {
        self.last.is_none_or(|last| last.is_set)
    }

    fn entries(&self, unset: u64, bytes: impl Fn(&Account) -> u64) -> Vec<Entry> {
        let entry = |account: &Account| Entry {
            account: account.span.account(),
            period: account.period,
            bytes: bytes(account),
        };
        let unset = Entry { account: UNSET, period: 0, bytes: unset };
        self.accounts.iter().map(entry).chain([unset]).collect()
    }

    /// These were recorded.
    pub fn recorded(&mut self, entries: &[Entry]) {
        for account in &mut self.accounts {
            let is_of = |entry: &&Entry| {
                entry.account == account.span.account() && entry.period == account.period
            };
            if let Some(entry) = entries.iter().find(is_of) {
                account.recorded = entry.bytes;
            }
        }
        let unset = entries.iter().find(|entry| entry.account == UNSET);
        self.unset_recorded = unset.map_or(0, |entry| entry.bytes);
    }
}

const DAY: i64 = 86_400;
/// The account of what was spent while the clock was not set.
const UNSET: &str = "link/unset";
/// By how much a clock may gain on another that is never set; more is a leap.
const LEAP_SECONDS: i64 = 60;
/// What is recorded beforehand: a hundredth of what is left, so that a power cut costs little of
/// it, within these. Each step costs a page of flash.
const STEP_MIN: u64 = 16 << 10;
const STEP_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn noon(month: u8, day: u8) -> i64 {
        days_of(2026, month, day) * DAY + 43_200
    }

    /// By a clock that was set and goes right.
    fn at(now: i64) -> Moment {
        Moment { now, monotonic: now, is_set: true }
    }

    fn budget(limits: Limits, now: i64) -> Budget {
        let mut budget = Budget::default();
        budget.set(limits, at(now), &Zone::utc(), 0, |_| None);
        budget
    }

    fn day(limit: u64) -> Limits {
        Limits { day: Some(limit), month: None, month_day: 1 }
    }

    #[test]
    fn nothing_is_granted_before_it_is_recorded() {
        let mut budget = budget(day(200 * MIB), noon(11, 26));
        assert_eq!(budget.check(5), Verdict::Unrecorded);
        let claim = budget.claim(5);
        assert_eq!(claim[0].bytes, 5 + MIB, "a step of 1 MiB");
        budget.recorded(&claim);
        assert_eq!(budget.check(5 + MIB), Verdict::Granted);
        assert_eq!(budget.check(6 + MIB), Verdict::Unrecorded);
        budget.charge(MIB, at(noon(11, 26)), &Zone::utc());
        assert_eq!((budget.check(5), budget.check(6)), (Verdict::Granted, Verdict::Unrecorded));
        assert_eq!(budget.settlement(7)[0].bytes, MIB + 7);
    }

    /// Each is a page of flash: DESIGN.md says how many there are.
    #[test]
    fn a_plan_takes_some_hundred_records() {
        let mut budget = budget(day(200 * MIB), noon(11, 26));
        let (mut records, mut counter) = (0, 0);
        loop {
            match budget.check(256 << 10) {
                Verdict::Granted => counter += 64 << 10,
                Verdict::Unrecorded => {
                    let claim = budget.claim(256 << 10);
                    budget.recorded(&claim);
                    records += 1;
                }
                Verdict::Refused(_) => break,
            }
            budget.charge(counter, at(noon(11, 26)), &Zone::utc());
        }
        assert!((400..600).contains(&records), "{records} records for {counter} bytes");
        assert!(counter > 199 * MIB);
    }

    #[test]
    fn the_limit_is_never_passed_and_used_to_the_last() {
        let (mut spent, mut cuts) = (0, 0);
        let mut ledger: Option<(u32, u64)> = None;
        // Each life spends what it may in pieces, and is killed at a time of its own.
        for life in 1_u64.. {
            let mut budget = Budget::default();
            budget.set(day(3 * MIB), at(noon(11, 26)), &Zone::utc(), 0, |name| {
                ledger.filter(|_| name == "link/day")
            });
            let mut counter = 0;
            for piece in 0..life % 7 {
                let exposed = 20_000 + piece * 1000;
                match budget.check(exposed) {
                    Verdict::Refused(account) => {
                        assert_eq!(account.limit, 3 * MIB);
                        assert!(spent <= 3 * MIB && spent > 2 * MIB, "{spent} after {cuts} cuts");
                        return;
                    }
                    Verdict::Unrecorded => {
                        let claim = budget.claim(exposed);
                        assert!(claim[0].bytes <= 3 * MIB);
                        ledger = Some((claim[0].period, claim[0].bytes));
                        budget.recorded(&claim);
                        assert_eq!(budget.check(exposed), Verdict::Granted);
                    }
                    Verdict::Granted => {}
                }
                counter += exposed;
                spent += exposed;
                budget.charge(counter, at(noon(11, 26)), &Zone::utc());
            }
            cuts += 1;
        }
    }

    #[test]
    fn days_end_at_local_midnight_and_never_come_back() {
        let zone = Zone::from_posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let midnight = days_of(2026, 11, 27) * DAY - 3_600;
        let mut budget = Budget::default();
        budget.set(day(10 * MIB), at(midnight - 10), &zone, 0, |_| None);
        budget.charge(10 * MIB, at(midnight - 1), &zone);
        let Verdict::Refused(account) = budget.check(1) else { panic!("10 MiB were spent") };
        assert_eq!(account.end(&zone), midnight);
        budget.charge(10 * MIB, at(midnight), &zone);
        assert_eq!((budget.accounts()[0].spent, budget.room(0)), (0, 10 * MIB));
        budget.charge(11 * MIB, at(midnight), &zone);
        // Set back, the clock brings nothing.
        budget.charge(11 * MIB, at(midnight - 3 * DAY), &zone);
        assert_eq!(budget.accounts()[0].spent, MIB);
        budget.charge(11 * MIB, at(midnight + DAY - 1), &zone);
        assert_eq!(budget.accounts()[0].spent, MIB);
        // It was years ahead: then what was spent is of today.
        budget.charge(12 * MIB, at(midnight + 3000 * DAY), &zone);
        budget.charge(14 * MIB, at(midnight + 3000 * DAY), &zone);
        budget.charge(14 * MIB, at(midnight + DAY), &zone);
        assert_eq!(budget.accounts()[0].spent, 2 * MIB);
        assert_eq!(budget.accounts()[0].end(&zone), midnight + 2 * DAY);
    }

    #[test]
    fn what_was_spent_by_a_wrong_clock_was_spent_today() {
        let utc = Zone::utc();
        let stale = |monotonic| Moment { now: noon(11, 26), monotonic, is_set: false };
        let right = |monotonic| Moment { now: noon(11, 28), monotonic, is_set: true };
        // Spent before a power cut, before a second one, and before the clock is set at last.
        let mut ledger = vec![Entry { account: "link/day", period: 20_783, bytes: 5 * MIB }];
        for _ in 0..2 {
            let mut budget = Budget::default();
            let recorded = |name: &str| {
                let entry = ledger.iter().find(|entry| entry.account == name)?;
                Some((entry.period, entry.bytes))
            };
            budget.set(day(20 * MIB), stale(0), &utc, 0, recorded);
            assert_eq!(budget.check(MIB), Verdict::Unrecorded);
            let claim = budget.claim(MIB);
            budget.recorded(&claim);
            assert_eq!(budget.check(MIB), Verdict::Granted);
            budget.charge(MIB, stale(5), &utc);
            ledger = budget.settlement(0);
        }
        assert_eq!((ledger[0].bytes, ledger[1].bytes), (7 * MIB, 2 * MIB));
        let mut budget = Budget::default();
        let recorded = |name: &str| {
            let entry = ledger.iter().find(|entry| entry.account == name)?;
            Some((entry.period, entry.bytes))
        };
        budget.set(day(20 * MIB), stale(0), &utc, 0, recorded);
        budget.charge(MIB, stale(5), &utc);
        budget.charge(2 * MIB, right(10), &utc);
        assert_eq!(budget.accounts()[0].spent, 3 * MIB, "and what came as it was being set");
        budget.charge(2 * MIB, at(noon(11, 29)), &utc);
        assert_eq!(budget.accounts()[0].spent, 0);
        // One that looked as if it was set, and leaps over midnight.
        let mut budget = self::budget(day(20 * MIB), noon(11, 26));
        budget.charge(MIB, at(noon(11, 26) + 5), &utc);
        let later = Moment { now: noon(11, 27), ..at(noon(11, 26) + 10) };
        budget.charge(3 * MIB, later, &utc);
        assert_eq!(budget.accounts()[0].spent, 3 * MIB);
    }

    #[test]
    fn the_month_of_a_plan_begins_on_its_day() {
        let utc = Zone::utc();
        for (first, now, end) in [
            (1, noon(11, 26), (12, 1)),
            (1, noon(1, 31), (2, 1)),
            (15, noon(11, 14), (11, 15)),
            (15, noon(11, 15), (12, 15)),
            (28, noon(2, 27), (2, 28)),
            (28, noon(2, 28), (3, 28)),
        ] {
            let limits = Limits { day: None, month: Some(MIB), month_day: first };
            let account = budget(limits, now).accounts()[0];
            let end = days_of(2026, end.0, end.1) * DAY;
            assert_eq!(account.end(&utc), end, "{first} {now}");
            let mut same = budget(limits, now);
            same.charge(5, at(end - 1), &utc);
            assert_eq!(same.accounts()[0].spent, 5);
            same.charge(5, at(end), &utc);
            assert_eq!(same.accounts()[0].spent, 0);
        }
        let limits = Limits { day: None, month: Some(MIB), month_day: 20 };
        let account = budget(limits, noon(12, 24)).accounts()[0];
        assert_eq!(account.end(&utc), days_of(2027, 1, 20) * DAY);
    }

    #[test]
    fn the_smaller_room_counts_and_limits_may_change() {
        let both = Limits { day: Some(2 * MIB), month: Some(3 * MIB), month_day: 1 };
        let mut budget = budget(both, noon(11, 26));
        budget.charge(2 * MIB, at(noon(11, 26)), &Zone::utc());
        assert_eq!(budget.room(0), 0);
        budget.charge(2 * MIB, at(noon(11, 27)), &Zone::utc());
        assert_eq!((budget.room(0), budget.room(MIB)), (MIB, 0), "of the month");
        let month = Limits { day: None, month: Some(9 * MIB), month_day: 1 };
        budget.set(month, at(noon(11, 27)), &Zone::utc(), 3 * MIB, |_| None);
        assert_eq!(budget.room(0), 6 * MIB, "what was spent stays spent");
        let less = Limits { day: None, month: Some(MIB), month_day: 1 };
        budget.set(less, at(noon(11, 27)), &Zone::utc(), 3 * MIB, |_| None);
        assert!(matches!(budget.check(0), Verdict::Refused(_)));
        assert_eq!(budget.claim(0)[0].bytes, MIB);
        budget.set(Limits::default(), at(noon(11, 27)), &Zone::utc(), 3 * MIB, |_| None);
        assert_eq!((budget.check(u64::MAX), budget.room(0)), (Verdict::Granted, u64::MAX));
        budget.charge(4 * MIB, Moment { is_set: false, ..at(noon(11, 27)) }, &Zone::utc());
        assert_eq!(budget.check(MIB), Verdict::Granted, "there is no plan to record anything of");
    }
}
