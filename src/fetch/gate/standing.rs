//! How the link's limits stand, for people and metrics to look at.

use super::Gate;
use crate::link::budget::Span;
use crate::link::window::State;

/// How things stand, for people to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The data plan's day.
    pub day: Option<Used>,
    /// The data plan's month.
    pub month: Option<Used>,
    /// The windows, if there are any.
    pub window: Option<Window>,
}

/// How much of a limit is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Bytes spent.
    pub used_bytes: u64,
    /// Bytes of the limit.
    pub max_bytes: u64,
    /// When it begins anew, in seconds since 1970.
    pub until: u64,
    /// The same by the local clock, for people.
    pub until_text: String,
}

/// Whether images may be fetched now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// They may.
    pub is_open: bool,
    /// When that changes, in seconds since 1970; never where there is none.
    pub until: Option<u64>,
    /// The same by the local clock, for people.
    pub until_text: String,
}

impl Gate {
    /// How things stand now.
    pub fn standing(&self) -> Standing {
        let inner = &self.0;
        let (now, zone) = (inner.now(), inner.zone());
        let used = |span: fn(&Span) -> bool| {
            inner.charged_budget(|budget| {
                let mut accounts = budget.accounts().iter();
                let account = accounts.find(|account| span(&account.span))?;
                let end = account.end(&zone);
                Some(Used {
                    used_bytes: account.spent,
                    max_bytes: account.limit,
                    until: u64::try_from(end).unwrap_or(0),
                    until_text: zone.text(now, end),
                })
            })
        };
        let (day, month) =
            (used(|span| matches!(span, Span::Day)), used(|span| matches!(span, Span::Month(_))));
        let rules = inner.rules.borrow();
        let window = rules.schedule.has_windows().then(|| {
            let state = rules.schedule.state(now, &zone);
            let (State::Open(until) | State::Closed(until)) = state;
            Window {
                is_open: matches!(state, State::Open(_)) && inner.clock.is_set(),
                until: until.and_then(|until| u64::try_from(until).ok()),
                until_text: until.map_or_else(String::new, |until| zone.text(now, until)),
            }
        });
        Standing { day, month, window }
    }

    /// Shows what went over the link, and how much of the data plan that is.
    pub fn export_gauges(&self) {
        let Standing { day, month, window } = self.standing();
        let figures = |used: Option<Used>| used.map_or((0, 0), |u| (u.used_bytes, u.max_bytes));
        let (metrics, meter) = (&self.0.metrics, self.meter());
        metrics.link_received_bytes.show(meter.received());
        metrics.link_sent_bytes.show(meter.sent());
        metrics.link_connections.show(meter.connections());
        let (used, max) = figures(day);
        metrics.link_day_used_bytes.set(used);
        metrics.link_day_max_bytes.set(max);
        let (used, max) = figures(month);
        metrics.link_month_used_bytes.set(used);
        metrics.link_month_max_bytes.set(max);
        metrics.link_window_open.set(u64::from(window.is_none_or(|window| window.is_open)));
    }
}
