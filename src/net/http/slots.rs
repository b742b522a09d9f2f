//! Who may be connected: a number of slots, shared out fairly.
//!
//! A connection is let in while there is a slot. When there is none, it waits, and somebody
//! gives way (`Slots::victim`), in this order:
//!
//! 1. a connection whose peer has nothing to say: one between two requests, or whose request is not
//!    whole yet, for [`IDLE`]; and one whose peer takes less than [`PROGRESS_BYTES`] of its answer in
//!    [`SLOW`]. Of these, those of the client that holds the most slots come first, and of its own
//!    the one that has been so for longest. A client that holds fewer slots than the one that waits
//!    is spared until its connection has been idle for [`STALE`];
//! 2. after [`PATIENCE`], of the client with the most slots any connection, if it has at least two
//!    more than the one that waits. So each client comes to its share, however busy the others are,
//!    and a gateway behind which many hide has all slots while no one else wants them.
//!
//! A client is an IPv4 address or an IPv6 network of 64 bits. Those who wait hold a socket and
//! nothing else. When [`WAITING_PER_SLOT`] times as many wait as there are slots, no more are
//! accepted for as long as slots change hands, and the kernel's queue holds the rest; when they do
//! not, of the client with the most connections the one that came last is closed, so that those
//! behind it come into sight.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::clock::SharedClock;
use crate::net::tls::RECORD_BYTES;

/// The connections that may be open at once, over all listeners that share them.
pub struct Slots {
    open_max: usize,
    waiting_max: usize,
    state: RefCell<State>,
    clock: SharedClock,
    /// When somebody last got a slot.
    moved: Cell<Duration>,
    /// When it was last decided which connection has to give way.
    assigned: Cell<Duration>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// All connections, in the order in which they came.
    places: BTreeMap<u64, Rc<Place>>,
    /// Open connections of each client that has any.
    open: BTreeMap<ClientAddress, usize>,
}

/// An IPv4 address or the network of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientAddress(u128);

/// One connection.
struct Place {
    client: ClientAddress,
    phase: Cell<Phase>,
    /// When the phase began, or when the peer last took [`PROGRESS_BYTES`].
    since: Cell<Duration>,
    /// Bytes that the peer has taken since then.
    taken: Cell<usize>,
    waker: Cell<Option<Waker>>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for a slot.
    Queued,
    /// The peer is to do its part of a handshake.
    Greeting,
    /// The peer is to say something: a head, a body.
    Idle,
    /// The answer is being made.
    Working,
    /// The peer is to take its answer.
    Sending,
    /// It has given way.
    Shed,
}

/// The place of one connection.
pub(super) struct Slot {
    id: u64,
    place: Rc<Place>,
    slots: Rc<Slots>,
}

impl Slots {
    /// So many slots, or as many as the process has file descriptors for beside its own.
    pub fn new(connections_max: u32, clock: SharedClock) -> Rc<Self> {
        let slots = Self::fitting(connections_max, clock);
        if u32::try_from(slots.open_max).is_ok_and(|open_max| open_max < connections_max) {
            log::warn!(
                "the limit of open files leaves {} connections at once, not {connections_max}",
                slots.open_max
            );
        }
        slots
    }

    /// As [`Slots::new`], without a word.
    pub(super) fn fitting(connections_max: u32, clock: SharedClock) -> Rc<Self> {
        let wanted = usize::try_from(connections_max.max(1)).unwrap_or(usize::MAX);
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let spare = limit.saturating_sub(DESCRIPTORS_KEPT);
        let open_max = wanted.min(spare / 4 * 3).max(DESCRIPTORS_MIN.min(wanted));
        let waiting_max = open_max.saturating_mul(WAITING_PER_SLOT);
        let waiting_max = waiting_max.min(spare.saturating_sub(open_max)).max(1);
        Self::with(open_max, waiting_max, clock)
    }

    fn with(open_max: usize, waiting_max: usize, clock: SharedClock) -> Rc<Self> {
        let moved = Cell::new(clock.monotonic());
        let (assigned, state) = (moved.clone(), RefCell::default());
        Rc::new(Self { open_max, waiting_max, state, clock, moved, assigned })
    }

    /// Waits until one more may wait.
    pub(super) async fn room(&self) {
        while self.waiting() >= self.waiting_max && self.clock.since(self.moved.get()) < STUCK {
            self.clock.sleep(TICK).await;
        }
    }

    fn waiting(&self) -> usize {
        self.state.borrow().places.values().filter(|place| place.is_queued()).count()
    }

    /// A connection has come.
    pub(super) fn enter(self: &Rc<Self>, peer: IpAddr) -> Slot {
        let place = Rc::new(Place {
            client: ClientAddress::of(peer),
            phase: Cell::new(Phase::Queued),
            since: Cell::new(self.clock.monotonic()),
            taken: Cell::new(0),
            waker: Cell::new(None),
        });
        let id = {
            let mut state = self.state.borrow_mut();
            state.next += 1;
            let id = state.next;
            state.places.insert(id, Rc::clone(&place));
            id
        };
        self.assign();
        Slot { id, place, slots: Rc::clone(self) }
    }

    /// Closes a part of the connections that have been idle for [`IDLE`], the oldest first:
    /// descriptors have run out.
    pub(super) fn shed_idle(&self) {
        let state = &mut *self.state.borrow_mut();
        let is_idle = |place: &Place| {
            place.phase.get() == Phase::Idle && self.clock.since(place.since.get()) >= IDLE
        };
        let mut idle: Vec<_> =
            state.places.values().filter(|place| is_idle(place)).cloned().collect();
        idle.sort_by_key(|place| place.since.get());
        let count = idle.len().div_ceil(SHED_PART);
        idle.into_iter().take(count).for_each(|place| shed(&mut state.open, &place));
    }

    /// Hands slots to waiting connections, as far as there are any or a connection gives way.
    fn assign(&self) {
        let now = self.clock.monotonic();
        self.assigned.set(now);
        let state = &mut *self.state.borrow_mut();
        loop {
            let queued = state.places.iter().filter(|(_, place)| place.is_queued());
            let next = queued.min_by_key(|(id, place)| (held(&state.open, place.client), **id));
            let Some(next) = next.map(|(_, place)| Rc::clone(place)) else { return };
            if state.open.values().sum::<usize>() >= self.open_max {
                let Some(victim) = state.victim(&next, now) else { break };
                shed(&mut state.open, &victim);
            }
            *state.open.entry(next.client).or_default() += 1;
            next.enter(Phase::Idle, now);
            next.wake();
            self.moved.set(now);
        }
        let queued = |place: &&Rc<Place>| place.is_queued();
        while state.places.values().filter(queued).count() > self.waiting_max {
            let Some(last) = state.most_greedy() else { return };
            shed(&mut state.open, &last);
        }
    }
}

impl State {
    /// The connection that gives way to `newcomer`, if one has to by now; see the module's head.
    fn victim(&self, newcomer: &Place, now: Duration) -> Option<Rc<Place>> {
        let own = held(&self.open, newcomer.client);
        let age = |place: &Place| now.saturating_sub(place.since.get());
        let is_useless = |place: &Place| match place.phase.get() {
            Phase::Idle if held(&self.open, place.client) >= own => age(place) >= IDLE,
            Phase::Idle => age(place) >= STALE,
            Phase::Greeting => age(place) >= GREETING,
            Phase::Sending => age(place) >= SLOW,
            Phase::Queued | Phase::Working | Phase::Shed => false,
        };
        let rank = |place: &&Rc<Place>| (held(&self.open, place.client), age(place));
        let useless = self.places.values().filter(|place| is_useless(place)).max_by_key(rank);
        if useless.is_some() || age(newcomer) < PATIENCE {
            return useless.cloned();
        }
        let is_over = |place: &&Rc<Place>| {
            place.is_open() && held(&self.open, place.client) >= own.saturating_add(2)
        };
        self.places.values().filter(is_over).max_by_key(rank).cloned()
    }

    /// Of those who wait the last of the client that has the most connections.
    fn most_greedy(&self) -> Option<Rc<Place>> {
        let mut all: BTreeMap<ClientAddress, usize> = BTreeMap::new();
        let queued_or_open = |place: &&Rc<Place>| place.is_queued() || place.is_open();
        for place in self.places.values().filter(queued_or_open) {
            *all.entry(place.client).or_default() += 1;
        }
        let queued = self.places.iter().filter(|(_, place)| place.is_queued());
        let last = queued.max_by_key(|(id, place)| (held(&all, place.client), **id));
        last.map(|(_, place)| Rc::clone(place))
    }
}

impl Place {
    fn is_queued(&self) -> bool {
        self.phase.get() == Phase::Queued
    }

    fn is_open(&self) -> bool {
        !matches!(self.phase.get(), Phase::Queued | Phase::Shed)
    }

    fn enter(&self, phase: Phase, now: Duration) {
        self.phase.set(phase);
        self.since.set(now);
        self.taken.set(0);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Slot {
    /// Waits for a slot; `false` if the connection is to be closed instead.
    pub(super) async fn opened(&self) -> bool {
        while self.place.is_queued() {
            let tick = async {
                self.slots.clock.sleep(TICK).await;
                // One who waits looks for all.
                if self.slots.clock.since(self.slots.assigned.get()) >= TICK {
                    self.slots.assign();
                }
            };
            smol::future::or(self.leaves(Phase::Queued), tick).await;
        }
        self.place.is_open()
    }

    /// Waits until the connection has to give way.
    pub(super) async fn shed(&self) {
        while self.place.is_open() {
            self.leaves(self.place.phase.get()).await;
        }
    }

    /// Notes what the connection does from now on.
    pub(super) fn set(&self, phase: Phase) {
        if self.place.is_open() {
            self.place.enter(phase, self.slots.clock.monotonic());
        }
    }

    /// Notes that the peer has taken some of its answer.
    pub(super) fn taken(&self, bytes: usize) {
        let taken = self.place.taken.get().saturating_add(bytes);
        self.place.taken.set(taken);
        if taken >= PROGRESS_BYTES {
            self.set(Phase::Sending);
        }
    }

    /// The bytes of an answer that the connection should hold at once: fewer the more connections
    /// there are, for each holds as much.
    pub(super) fn block_bytes(&self) -> usize {
        let open: usize = self.slots.state.borrow().open.values().sum();
        if open <= FEW {
            FEW_BLOCK_BYTES
        } else if open <= CROWD {
            BLOCK_BYTES
        } else {
            CROWD_BLOCK_BYTES
        }
    }

    /// Waits until somebody else has changed the phase.
    async fn leaves(&self, phase: Phase) {
        poll_fn(|cx| {
            let now = self.place.phase.get();
            // What the connection itself does wakes no one.
            if now == Phase::Shed || (phase == Phase::Queued && now != phase) {
                return Poll::Ready(());
            }
            self.place.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let state = &mut *self.slots.state.borrow_mut();
            state.places.remove(&self.id);
            if self.place.is_open() {
                release(&mut state.open, self.place.client);
            }
        }
        self.slots.assign();
    }
}

impl ClientAddress {
    /// Whose address this is.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => Self(address.to_bits() & !u128::from(u64::MAX)),
        }
    }
}

fn held(open: &BTreeMap<ClientAddress, usize>, client: ClientAddress) -> usize {
    open.get(&client).copied().unwrap_or(0)
}

fn release(open: &mut BTreeMap<ClientAddress, usize>, client: ClientAddress) {
    if let Some(count) = open.get_mut(&client) {
        debug_assert!(*count > 0, "a client's place is given back twice");
        *count = count.saturating_sub(1);
        if *count == 0 {
            open.remove(&client);
        }
    }
}

fn shed(open: &mut BTreeMap<ClientAddress, usize>, place: &Place) {
    if place.is_open() {
        release(open, place.client);
    }
    place.phase.set(Phase::Shed);
    place.wake();
}

/// So long a peer may be silent although somebody waits.
const IDLE: Duration = Duration::from_millis(250);
/// So long, although one waits who has more slots.
const STALE: Duration = Duration::from_secs(5);
/// So long a handshake may take although somebody waits: several round trips of a bad link, and
/// those of others on a slow processor.
const GREETING: Duration = Duration::from_secs(3);
/// In this time a peer has to take [`PROGRESS_BYTES`] of its answer, if somebody waits.
const SLOW: Duration = Duration::from_secs(10);
const PROGRESS_BYTES: usize = 64 << 10;
/// After this, a client that has less than its share has a slot of one that has more.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a connection holds of its answer at once: one TLS record.
pub(super) const BLOCK_BYTES: usize = RECORD_BYTES;
/// So many connections may hold that much each.
const CROWD: usize = 64;
/// What each holds when there are more.
const CROWD_BLOCK_BYTES: usize = RECORD_BYTES / 4;
/// So many connections may hold [`FEW_BLOCK_BYTES`].
const FEW: usize = 8;
/// Records that leave in one call.
const FEW_BLOCK_BYTES: usize = 4 * RECORD_BYTES;
/// After this without a change, all slots are taken by those who keep them.
const STUCK: Duration = Duration::from_millis(500);
/// How often a waiting connection checks whether another has to give way by now.
const TICK: Duration = Duration::from_millis(100);
/// So many may wait for each slot.
const WAITING_PER_SLOT: usize = 4;
/// File descriptors that connections leave to the store, the upstreams and the admin address.
const DESCRIPTORS_KEPT: usize = 40;
/// Slots that there are however few descriptors the process has.
const DESCRIPTORS_MIN: usize = 8;
/// When descriptors have run out, one idle connection in so many is closed.
const SHED_PART: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::sim::SimulatedClock;

    fn slots(open_max: usize, waiting_max: usize) -> Rc<Slots> {
        let clock = Rc::new(SimulatedClock::new(0));
        clock.advance(Duration::from_hours(2));
        Slots::with(open_max, waiting_max, clock)
    }

    const A: [u8; 4] = [10, 0, 0, 1];
    const B: [u8; 4] = [10, 0, 0, 2];

    fn phases(all: &[Slot]) -> Vec<Phase> {
        all.iter().map(|slot| slot.place.phase.get()).collect()
    }

    /// As if a slot had been in its phase for so long.
    fn age(slot: &Slot, by: Duration) {
        slot.place.since.set(slot.place.since.get().checked_sub(by).unwrap());
    }

    fn many(slots: &Rc<Slots>, address: [u8; 4], count: usize, phase: Phase) -> Vec<Slot> {
        let enter = |_| {
            let slot = slots.enter(address.into());
            slot.set(phase);
            slot
        };
        (0..count).map(enter).collect()
    }

    #[test]
    fn one_client_has_all_slots_while_nobody_else_wants_them() {
        let slots = slots(4, 4);
        let all = many(&slots, A, 5, Phase::Working);
        let (last, open) = all.split_last().unwrap();
        assert_eq!(phases(open), [Phase::Working; 4]);
        age(last, Duration::from_hours(1));
        slots.assign();
        assert_eq!(last.place.phase.get(), Phase::Queued, "its own share is not taken from itself");
        drop(all.into_iter().next());
    }

    #[test]
    fn many_connections_hold_less_each() {
        let slots = slots(128, 4);
        let mut all = many(&slots, A, FEW, Phase::Sending);
        assert_eq!(all[0].block_bytes(), FEW_BLOCK_BYTES);
        all.extend(many(&slots, A, CROWD - FEW, Phase::Sending));
        assert_eq!(all[0].block_bytes(), BLOCK_BYTES);
        all.extend(many(&slots, B, 1, Phase::Sending));
        assert_eq!(all[0].block_bytes(), CROWD_BLOCK_BYTES, "whichever client's they are");
        all.pop();
        assert_eq!(all[0].block_bytes(), BLOCK_BYTES);
    }

    #[test]
    fn the_oldest_idle_one_gives_way() {
        let slots = slots(3, 3);
        let open = many(&slots, A, 3, Phase::Idle);
        let newcomer = slots.enter(A.into());
        assert_eq!(newcomer.place.phase.get(), Phase::Queued, "they were only just let in");
        age(&open[2], IDLE * 2);
        age(&open[1], IDLE);
        open[0].set(Phase::Working);
        slots.assign();
        assert_eq!(phases(&open), [Phase::Working, Phase::Idle, Phase::Shed]);
        assert_eq!(newcomer.place.phase.get(), Phase::Idle);
    }

    #[test]
    fn a_client_with_fewer_slots_is_spared() {
        let slots = slots(4, 4);
        let other = many(&slots, B, 1, Phase::Idle);
        let busy = many(&slots, A, 3, Phase::Working);
        let newcomer = slots.enter(A.into());
        age(&other[0], IDLE * 2);
        slots.assign();
        assert_eq!(newcomer.place.phase.get(), Phase::Queued);
        age(&other[0], STALE);
        slots.assign();
        assert_eq!(other[0].place.phase.get(), Phase::Shed);
        assert_eq!(phases(&busy), [Phase::Working; 3]);
    }

    #[test]
    fn slow_readers_give_way_and_quick_ones_do_not() {
        let slots = slots(2, 2);
        let open = many(&slots, A, 2, Phase::Sending);
        let newcomer = slots.enter(A.into());
        open.iter().for_each(|slot| age(slot, SLOW));
        open[0].taken(PROGRESS_BYTES);
        open[1].taken(PROGRESS_BYTES - 1);
        slots.assign();
        assert_eq!(phases(&open), [Phase::Sending, Phase::Shed]);
        assert_eq!(newcomer.place.phase.get(), Phase::Idle);
    }

    #[test]
    fn each_client_comes_to_its_share_of_busy_slots() {
        let slots = slots(4, 4);
        let busy = many(&slots, A, 6, Phase::Working);
        let others = many(&slots, B, 3, Phase::Working);
        assert_eq!(phases(&others), [Phase::Queued; 3]);
        others.iter().for_each(|slot| age(slot, PATIENCE));
        slots.assign();
        // Two each: the third of B would have more than A.
        let open = |all: &[Slot]| all.iter().filter(|slot| slot.place.is_open()).count();
        assert_eq!((open(&busy), open(&others)), (2, 2));
    }

    #[test]
    fn the_client_that_fills_the_queue_is_closed_not_those_behind() {
        let slots = slots(2, 3);
        let busy = many(&slots, A, 5, Phase::Working);
        let other = slots.enter(B.into());
        assert_eq!(other.place.phase.get(), Phase::Queued);
        assert_eq!(busy[4].place.phase.get(), Phase::Shed);
        drop(busy);
        assert!(smol::block_on(other.opened()));
        assert_eq!(slots.state.borrow().open.len(), 1);
        drop(other);
        assert!(slots.state.borrow().open.is_empty() && slots.state.borrow().places.is_empty());
    }

    #[test]
    fn networks_of_64_bits_are_one_client() {
        let client = |text: &str| ClientAddress::of(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:0:0:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.2"), client("10.0.0.1"));
    }
}
