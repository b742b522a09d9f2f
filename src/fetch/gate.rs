//! The uplink's gate: the rate, the data plan and the time windows, as the configuration has them.
//!
//! Every byte to and from an upstream passes [`net::Gate`], blobs, manifests, HEADs, tokens and
//! reports alike, which the rate and the data plan are kept to by: what may come is recorded as
//! spent in the log's ledger, and synced, before it is asked for. What a window is kept to by is
//! [`Gate::may_fetch`], which is asked before the content of images, and not before polls, tokens
//! and reports.
//!
//! What counts is what sockets carry in both directions, a sixteenth more for the headers of
//! packets and their acknowledgements, and some packets for each connection. Where nothing can be
//! recorded, because the log takes no writes, nothing goes over a link that has a limit.

mod standing;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use log::warn;
use smol::lock::Mutex;

use super::Error;
use crate::blob::{self, Spent, Store};
use crate::clock::SharedClock;
use crate::config;
use crate::link::Urgency;
use crate::link::budget::{Account, Budget, Entry, Limits, Moment, Span, Verdict};
use crate::link::rate::Bucket;
use crate::link::window::{Schedule, State};
use crate::link::zone::Zone;
use crate::metrics::Metrics;
use crate::net::{self, Admission, Meter};
use crate::units::ByteCount;
pub use standing::{Standing, Used, Window};

/// What the uplink may carry. Clones share it.
#[derive(Clone)]
pub struct Gate(Rc<Inner>);

struct Inner {
    store: Store,
    clock: SharedClock,
    /// Shows what the gate knows.
    metrics: Rc<Metrics>,
    /// What the uplink has carried.
    meter: Rc<Meter>,
    rules: RefCell<Rules>,
    /// What the rate is kept to by.
    bucket: RefCell<Option<Bucket>>,
    budget: RefCell<Budget>,
    /// Bytes that may be on their way, of all connections.
    exposed: Cell<u64>,
    /// Bytes that are taken to have come though they were not read.
    lost: Cell<u64>,
    /// Held while a task records.
    recording: Mutex<()>,
}

#[derive(Default)]
struct Rules {
    schedule: Schedule,
    is_urgent: bool,
    zone: Rc<Zone>,
}

impl Gate {
    /// A gate that stands open, and records in `store`.
    pub fn new(store: Store, clock: SharedClock, metrics: Rc<Metrics>) -> Self {
        Self(Rc::new(Inner {
            store,
            clock,
            metrics,
            meter: Rc::default(),
            rules: RefCell::default(),
            bucket: RefCell::default(),
            budget: RefCell::default(),
            exposed: Cell::default(),
            lost: Cell::default(),
            recording: Mutex::new(()),
        }))
    }

    /// Puts the limits and windows of `[link]` into effect, by the local time of `zone`. What was
    /// spent stays spent.
    pub fn configure(&self, link: &config::Link, zone: Zone) {
        let inner = &self.0;
        let schedule = Schedule::new(&link.windows);
        let rules = Rules { schedule, is_urgent: link.urgent, zone: Rc::new(zone) };
        inner.rules.replace(rules);
        let is_kept = inner.bucket.borrow().as_ref().map(Bucket::rate) == link.rate_max;
        if !is_kept {
            let (now, counted) = (inner.clock.monotonic(), inner.meter.received());
            let bucket = link.rate_max.map(|rate| Bucket::new(rate, now, counted));
            inner.bucket.replace(bucket);
        }
        let limits = Limits {
            day: link.day_max.map(|max| max.0),
            month: link.month_max.map(|max| max.0),
            month_day: link.month_day,
        };
        let ledger = inner.store.ledger();
        let recorded = |account: &str| {
            let spent = ledger.iter().find(|spent| spent.account == account)?;
            Some((spent.period, spent.bytes))
        };
        let (at, counter) = (inner.moment(), inner.counter());
        inner.budget.borrow_mut().set(limits, at, &inner.zone(), counter, recorded);
    }

    /// What the uplink has carried.
    pub fn meter(&self) -> &Rc<Meter> {
        &self.0.meter
    }

    /// Whether there is a rate or a data plan: such a link carries one download at a time.
    pub fn is_limited(&self) -> bool {
        self.0.bucket.borrow().is_some() || self.is_metered()
    }

    /// Whether there is a data plan.
    pub fn is_metered(&self) -> bool {
        !self.0.budget.borrow().accounts().is_empty()
    }

    /// Whether what clients ask for has to wait: for a window, or for the plan to have room for a
    /// connection.
    pub fn is_shut(&self) -> bool {
        let has_room = || {
            let room = self.0.charged_budget(|budget| budget.room(0));
            room >= charged(u64::from(RECEIVE_BUFFER_BYTES) + 2 * OVERHEAD_BYTES)
        };
        self.may_fetch(Urgency::Client).is_err() || !has_room()
    }

    /// As much of a request for `bytes` as the data plan has room for, at least one.
    pub fn fit(&self, bytes: u64) -> u64 {
        let inner = &self.0;
        let room = inner.charged_budget(|budget| budget.room(charged(inner.exposed.get())));
        // Less what it counts for, its own request and head.
        let room = (room - room / 8).saturating_sub(OVERHEAD_BYTES);
        bytes.min(room.max(1))
    }

    /// Whether the content of an image may be fetched now.
    ///
    /// # Errors
    /// [`Error::HeldBack`] outside the windows, with when to ask again.
    pub fn may_fetch(&self, urgency: Urgency) -> Result<(), Error> {
        let inner = &self.0;
        let rules = inner.rules.borrow();
        let is_exempt = urgency == Urgency::Client && rules.is_urgent;
        if is_exempt || !rules.schedule.has_windows() {
            return Ok(());
        }
        if !inner.clock.is_set() {
            let reason = "waits for the window: the clock of this device is not set".to_owned();
            return Err(Error::HeldBack { reason, retry_after: CLOCK_PAUSE });
        }
        let (now, zone) = (inner.now(), inner.zone());
        if rules.schedule.is_open(now, &zone) {
            return Ok(());
        }
        let (State::Open(until) | State::Closed(until)) = rules.schedule.state(now, &zone);
        let until = until.unwrap_or(i64::MAX);
        let reason = format!("waits for the window until {}", zone.text(now, until));
        Err(Error::HeldBack { reason, retry_after: pause(now, until) })
    }

    /// Records what was really spent, for a clean end: nothing of the plan is lost then.
    pub async fn flush(&self) {
        let inner = &self.0;
        if !self.is_metered() || !inner.store.is_writable() {
            return;
        }
        let _turn = inner.recording.lock().await;
        let exposed = charged(inner.exposed.get());
        let entries = inner.charged_budget(|budget| budget.settlement(exposed));
        match inner.record(&entries).await {
            Ok(()) => inner.budget.borrow_mut().recorded(&entries),
            Err(error) => warn!("{error}; some of the data plan counts as spent that was not"),
        }
    }
}

impl Inner {
    fn now(&self) -> i64 {
        i64::try_from(self.clock.unix_seconds()).unwrap_or(i64::MAX)
    }

    fn moment(&self) -> Moment {
        let monotonic = i64::try_from(self.clock.monotonic().as_secs()).unwrap_or(i64::MAX);
        Moment { now: self.now(), monotonic, is_set: self.clock.is_set() }
    }

    fn zone(&self) -> Rc<Zone> {
        Rc::clone(&self.rules.borrow().zone)
    }

    /// What the link has carried since the process began.
    fn counter(&self) -> u64 {
        let connections = self.meter.connections() * CONNECTION_BYTES;
        charged(self.meter.carried() + self.lost.get()) + connections
    }

    /// Waits until the rate has room for more than what was carried so far.
    async fn wait_for_rate(&self) {
        let (now, counter) = (self.clock.monotonic(), self.meter.received());
        let wait = self.bucket.borrow_mut().as_mut().map(|bucket| bucket.charge(now, counter));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            self.clock.sleep(wait).await;
        }
    }

    /// The budget, after it was charged with all that was carried so far.
    fn charged_budget<T>(&self, use_it: impl FnOnce(&Budget) -> T) -> T {
        let mut budget = self.budget.borrow_mut();
        budget.charge(self.counter(), self.moment(), &self.zone());
        use_it(&budget)
    }

    async fn admit(&self, held: u64, wanted: u64) -> Result<(), net::Error> {
        self.wait_for_rate().await;
        loop {
            debug_assert!(
                self.exposed.get() >= held,
                "{held} bytes are held that were not admitted"
            );
            let exposed = self.exposed.get().saturating_sub(held).saturating_add(wanted);
            match self.charged_budget(|budget| budget.check(charged(exposed))) {
                Verdict::Granted => {
                    self.exposed.set(exposed);
                    return Ok(());
                }
                Verdict::Refused(account) => return Err(self.refusal(&account, wanted)),
                Verdict::Unrecorded => self.claim(charged(exposed)).await.map_err(|error| {
                    let what = format!("the data plan cannot be recorded: {error}");
                    net::Error::held_back(what, RECORD_PAUSE)
                })?,
            }
        }
    }

    /// Records that `exposed` bytes, and a step more, are spent.
    async fn claim(&self, exposed: u64) -> Result<(), blob::Error> {
        let _turn = self.recording.lock().await;
        if self.charged_budget(|budget| budget.check(exposed)) != Verdict::Unrecorded {
            // Another has recorded enough meanwhile, or spent it.
            return Ok(());
        }
        let entries = self.budget.borrow().claim(exposed);
        self.record(&entries).await?;
        self.budget.borrow_mut().recorded(&entries);
        Ok(())
    }

    async fn record(&self, entries: &[Entry]) -> Result<(), blob::Error> {
        let mut ledger = self.store.ledger();
        ledger.retain(|spent| entries.iter().all(|entry| entry.account != spent.account));
        ledger.extend(entries.iter().map(|entry| Spent {
            account: entry.account.to_owned(),
            period: entry.period,
            bytes: entry.bytes,
        }));
        // It shares the page: after a restart no earlier day is believed than the ledger's.
        self.store.record_time(self.clock.unix_seconds())?;
        self.store.set_ledger(ledger).await
    }

    /// Why `wanted` bytes may not be on their way, and until when.
    fn refusal(&self, account: &Account, wanted: u64) -> net::Error {
        let span = match account.span {
            Span::Day => "day",
            Span::Month(_) => "month",
        };
        let (now, zone) = (self.now(), self.zone());
        let end = account.end(&zone);
        let (limit, until) = (ByteCount(account.limit).exact(), zone.text(now, end));
        // What others may have on its way comes to much more than what will come.
        let alone = self.charged_budget(|budget| budget.check(charged(wanted)));
        if !matches!(alone, Verdict::Refused(_)) {
            let what = format!("what is left of the {span} budget of {limit} is in use");
            return net::Error::held_back(what, EXPOSED_PAUSE);
        }
        let what = format!("{span} budget of {limit} used, until {until}");
        net::Error::held_back(what, pause(now, end))
    }
}

impl net::Gate for Inner {
    fn admit(&self, held: u64, wanted: u64) -> Admission<'_> {
        Box::pin(self.admit(held, wanted))
    }

    fn release(&self, held: u64, lost: u64) {
        debug_assert!(self.exposed.get() >= held, "{held} bytes are released that were not held");
        self.exposed.set(self.exposed.get().saturating_sub(held));
        self.lost.set(self.lost.get().saturating_add(lost));
    }

    fn receive_buffer_bytes(&self) -> Option<u32> {
        let is_metered = !self.budget.borrow().accounts().is_empty();
        is_metered.then_some(RECEIVE_BUFFER_BYTES)
    }
}

impl From<&Gate> for Rc<dyn net::Gate> {
    fn from(gate: &Gate) -> Self {
        Rc::<Inner>::clone(&gate.0)
    }
}

/// What bytes on a socket count for: on the wire there are 40 to 60 more for each packet of some
/// 1400, and an acknowledgement for every other one.
fn charged(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 16)
}

/// From now on until then, within bounds: the clock may be set meanwhile.
fn pause(now: i64, until: i64) -> Duration {
    let seconds = u64::try_from(until.saturating_sub(now)).unwrap_or(0);
    Duration::from_secs(seconds).clamp(PAUSE_MIN, PAUSE_MAX)
}

/// Packets that begin and end a connection, and those that look up the name.
const CONNECTION_BYTES: u64 = 512;
/// Of a request: its own bytes, and the head of the response.
const OVERHEAD_BYTES: u64 = 16 << 10;
/// As much as may have come unread. More would leave more of a small plan unused at
/// its end; less would be slow over a satellite: 256 KiB each 600 ms are 430 KiB/s.
const RECEIVE_BUFFER_BYTES: u32 = 256 << 10;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_hours(1);
/// Until it is asked again whether the clock was set.
const CLOCK_PAUSE: Duration = Duration::from_secs(15);
/// Until it is asked again for what is left of the plan, which other requests may take.
const EXPOSED_PAUSE: Duration = Duration::from_secs(5);
/// Until it is tried again to record: a log that failed is mounted again after ten seconds or more.
const RECORD_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smol::{LocalExecutor, block_on};

    use super::*;
    use crate::clock::Clock as _;
    use crate::clock::sim::SimulatedClock;
    use crate::flash::{Geometry, sim};
    use crate::units::ByteRate;

    /// 2026-11-26 12:00:00 UTC, a Thursday.
    const NOON: u64 = 1_795_694_400;
    const MIB: u64 = 1 << 20;

    struct World {
        gate: Gate,
        clock: Rc<SimulatedClock>,
        store: Store,
    }

    fn world(device: Arc<sim::Device>) -> World {
        let clock = Rc::new(SimulatedClock::new(NOON));
        let metrics = Rc::new(Metrics::default());
        let (store, _) = Store::open(device, Rc::clone(&metrics)).unwrap();
        let shared: SharedClock = Rc::<SimulatedClock>::clone(&clock);
        World { gate: Gate::new(store.clone(), shared, metrics), clock, store }
    }

    fn device() -> Arc<sim::Device> {
        let geometry =
            Geometry { segment_count: 9, segment_bytes: 65536, program_bytes: 64, reprogram: true };
        Arc::new(sim::Device::new(geometry))
    }

    fn link(day_max: u64, windows: &[&str]) -> config::Link {
        config::Link {
            rate_max: None,
            proxy: None,
            day_max: (day_max > 0).then_some(ByteCount(day_max)),
            month_max: None,
            month_day: 1,
            windows: windows.iter().map(|text| text.parse().unwrap()).collect(),
            urgent: true,
        }
    }

    impl World {
        /// As a connection with a receive window does: pieces come until they are refused, or
        /// `pieces` came. Returns the refusal.
        fn receive(&self, pieces: usize) -> Option<net::Error> {
            let gate: Rc<dyn net::Gate> = (&self.gate).into();
            let mut held = 0;
            for _ in 0..pieces {
                if let Err(refused) = block_on(gate.admit(held, 200_000)) {
                    gate.release(held, held);
                    return Some(refused);
                }
                held = 200_000;
                self.gate.meter().add_received(64 << 10);
            }
            gate.release(held, 0);
            None
        }

        fn recorded(&self) -> u64 {
            let ledger = self.store.ledger();
            ledger.iter().find(|spent| spent.account == "link/day").unwrap().bytes
        }

        fn used(&self) -> u64 {
            self.gate.standing().day.unwrap().used_bytes
        }
    }

    #[test]
    fn a_data_plan_is_kept_over_power_cuts() {
        let mut device = device();
        let (mut received, mut lives) = (0, 0);
        let refused = loop {
            let world = world(Arc::clone(&device));
            world.gate.configure(&link(8 * MIB, &[]), Zone::utc());
            assert!(world.used() >= received, "{} recorded of {received}", world.used());
            let refused = world.receive(5);
            received += world.gate.meter().received();
            assert!(charged(received) <= 8 * MIB, "{received}");
            lives += 1;
            if let Some(refused) = refused {
                break refused;
            }
            device = Arc::new(device.survivor(lives));
        };
        assert_eq!(refused.to_string(), "day budget of 8MiB used, until 00:00");
        assert_eq!(refused.retry_after(), Some(PAUSE_MAX), "12 hours, and the clock may be set");
        assert!(received > 4 * MIB, "{received} bytes of 8 MiB in {lives} lives");
    }

    #[test]
    fn a_clean_end_loses_nothing_and_midnight_begins_anew() {
        let device = device();
        let first = world(Arc::clone(&device));
        first.gate.configure(&link(8 * MIB, &[]), Zone::utc());
        assert!(first.receive(10).is_none());
        assert!(first.recorded() > first.used());
        block_on(first.gate.flush());
        assert_eq!(first.recorded(), first.used());
        assert_eq!(first.used(), charged(10 * (64 << 10)));
        let used = first.used();
        drop(first);
        let second = world(device);
        second.gate.configure(&link(8 * MIB, &[]), Zone::utc());
        assert_eq!(second.used(), used);
        assert!(second.gate.fit(64 * MIB) < 8 * MIB && second.gate.fit(1000) == 1000);
        assert!(second.receive(200).is_some());
        second.clock.advance(Duration::from_hours(12));
        assert!(second.receive(5).is_none());
        second.gate.configure(&link(0, &[]), Zone::utc());
        assert!(second.receive(500).is_none() && !second.gate.is_metered());
    }

    #[test]
    fn what_cannot_be_recorded_does_not_go() {
        let device = device();
        let world = world(Arc::clone(&device));
        world.gate.configure(&link(8 * MIB, &[]), Zone::utc());
        device.fail_sync_after(0);
        let refused = world.receive(1).unwrap();
        assert!(refused.to_string().contains("the data plan cannot be recorded"), "{refused}");
        assert!(refused.retry_after().is_some());
    }

    #[test]
    fn what_others_may_have_on_its_way_is_waited_for_briefly() {
        let world = world(device());
        world.gate.configure(&link(MIB, &[]), Zone::utc());
        let gate: Rc<dyn net::Gate> = (&world.gate).into();
        (0..3).for_each(|_| block_on(gate.admit(0, 300_000)).unwrap());
        let refused = block_on(gate.admit(0, 300_000)).unwrap_err();
        assert_eq!(refused.to_string(), "what is left of the day budget of 1MiB is in use");
        assert_eq!(refused.retry_after(), Some(EXPOSED_PAUSE));
        assert!(!world.gate.is_shut());
        gate.release(900_000, 900_000);
        let refused = block_on(gate.admit(0, 300_000)).unwrap_err();
        assert_eq!(refused.to_string(), "day budget of 1MiB used, until 00:00");
        assert!(world.gate.is_shut(), "none has room");
    }

    #[test]
    fn windows_are_for_images_and_need_a_clock() {
        let world = world(device());
        world.gate.configure(&link(0, &["22:00-06:00"]), Zone::utc());
        let refused = |urgency| world.gate.may_fetch(urgency).err();
        let error = refused(Urgency::Sync).unwrap();
        assert_eq!(error.to_string(), "waits for the window until 22:00");
        assert!(refused(Urgency::Client).is_none() && world.receive(3).is_none());
        assert!(!world.gate.is_shut(), "clients are let through");
        assert!(!world.gate.standing().window.unwrap().is_open);
        world.clock.advance(Duration::from_hours(10));
        assert!(refused(Urgency::Sync).is_none());
        assert_eq!(world.gate.standing().window.unwrap().until_text, "06:00");
        world.clock.set_known(false);
        let error = refused(Urgency::Sync).unwrap();
        assert!(error.to_string().contains("the clock of this device is not set"), "{error}");
    }

    #[test]
    fn windows_are_for_clients_too_unless_they_are_urgent() {
        let world = world(device());
        let calm = config::Link { urgent: false, ..link(0, &["fri-wed"]) };
        world.gate.configure(&calm, Zone::utc());
        let refused = world.gate.may_fetch(Urgency::Client).unwrap_err();
        assert!(refused.to_string().ends_with("until 00:00"), "{refused}");
        assert!(world.gate.is_shut());
    }

    #[test]
    fn whatever_passes_waits_for_the_rate_and_a_reload_adds_none() {
        let world = world(device());
        let slow = config::Link { rate_max: Some(ByteRate(1 << 10)), ..link(0, &[]) };
        world.gate.configure(&slow, Zone::utc());
        let gate: Rc<dyn net::Gate> = (&world.gate).into();
        let waited = |bytes| {
            world.gate.meter().add_received(bytes);
            let before = world.clock.monotonic();
            world.clock.run(&LocalExecutor::new(), gate.admit(0, 100)).unwrap();
            (world.clock.monotonic() - before).as_secs()
        };
        assert_eq!(waited(80 << 10), 64, "a burst of 16 KiB is free");
        world.gate.configure(&slow, Zone::utc());
        assert_eq!(waited(32 << 10), 32);
        world.gate.configure(&link(0, &[]), Zone::utc());
        assert!(waited(1 << 30) == 0 && !world.gate.is_limited());
    }
}
