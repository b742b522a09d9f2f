//! Which downloads may use the link now.
//!
//! There are few slots. A task that waits gets one in the order of what was asked with: first
//! what has not failed yet, then the images in the order of the configuration. A download that
//! backs off gives the slot back meanwhile, so that no pause holds up another.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::fetch::Latch;

/// What is served first: the fewest failures, then the first image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    /// Attempts that failed in a row.
    pub failures: u32,
    /// The image's place in the configuration.
    pub rank: usize,
}

/// The slots of one link.
pub struct Slots(RefCell<State>);

struct State {
    /// How many there are, and how many of them are in use: more for a while when there are fewer.
    max: usize,
    taken: usize,
    /// Counts those who came, so that equals are served in turn.
    arrivals: u64,
    waiting: BTreeMap<(Priority, u64), Latch>,
}

impl State {
    fn has_room(&self) -> bool {
        self.taken < self.max
    }
}

impl Slots {
    /// `max` free slots.
    pub fn new(max: usize) -> Self {
        Self(RefCell::new(State { max, taken: 0, arrivals: 0, waiting: BTreeMap::new() }))
    }

    /// Changes their number; what has one keeps it.
    pub fn resize(&self, max: usize) {
        self.0.borrow_mut().max = max;
        self.call_first();
    }

    /// Waits for a slot.
    pub async fn take(&self, priority: Priority) -> Slot<'_> {
        let key = {
            let mut state = self.0.borrow_mut();
            state.arrivals += 1;
            (priority, state.arrivals)
        };
        let place = Place { slots: self, key };
        loop {
            let turn = {
                let mut state = self.0.borrow_mut();
                let is_first = state.waiting.keys().next().is_none_or(|first| key <= *first);
                if state.has_room() && is_first {
                    state.taken += 1;
                    drop(state);
                    // Out of the queue; the next in it may have a slot too.
                    drop(place);
                    return Slot(self);
                }
                let turn = Latch::default();
                state.waiting.insert(key, turn.clone());
                turn
            };
            turn.opened().await;
        }
    }

    fn call_first(&self) {
        let state = self.0.borrow();
        if state.has_room()
            && let Some((_, turn)) = state.waiting.first_key_value()
        {
            turn.open();
        }
    }
}

/// The right to use the link, until it is dropped.
pub struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.0.borrow_mut().taken -= 1;
        self.0.call_first();
    }
}

/// A place in the queue, left when the task that waits goes away.
struct Place<'a> {
    slots: &'a Slots,
    key: (Priority, u64),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.slots.0.borrow_mut().waiting.remove(&self.key);
        self.slots.call_first();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<'a>(
        waiting: &mut std::pin::Pin<&mut impl Future<Output = Slot<'a>>>,
    ) -> Option<Slot<'a>> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(slot) => Some(slot),
            Poll::Pending => None,
        }
    }

    #[test]
    fn slots_go_to_what_did_not_fail_and_then_to_the_first_image() {
        let slots = Slots::new(1);
        let priority = |failures, rank| Priority { failures, rank };
        let mut held = pin!(slots.take(priority(0, 7)));
        let first = poll(&mut held);
        assert!(first.is_some());
        let mut failed = pin!(slots.take(priority(1, 0)));
        let mut second = pin!(slots.take(priority(0, 5)));
        {
            let mut gone = pin!(slots.take(priority(0, 1)));
            assert!(poll(&mut failed).is_none() && poll(&mut second).is_none());
            assert!(poll(&mut gone).is_none());
        }
        drop(first);
        assert!(poll(&mut failed).is_none(), "another is before it");
        let slot = poll(&mut second);
        assert!(slot.is_some() && poll(&mut failed).is_none());
        drop(slot);
        assert!(poll(&mut failed).is_some());
    }

    #[test]
    fn every_free_slot_is_taken() {
        let slots = Slots::new(2);
        let priority = Priority { failures: 0, rank: 0 };
        let (mut a, mut b) = (pin!(slots.take(priority)), pin!(slots.take(priority)));
        let (mut c, mut d) = (pin!(slots.take(priority)), pin!(slots.take(priority)));
        let taken = (poll(&mut a), poll(&mut b));
        assert!(poll(&mut c).is_none() && poll(&mut d).is_none());
        drop(taken);
        assert!(poll(&mut c).is_some() && poll(&mut d).is_some());
    }

    #[test]
    fn there_may_be_more_of_them_or_fewer() {
        let slots = Slots::new(1);
        let priority = Priority { failures: 0, rank: 0 };
        let (mut a, mut b) = (pin!(slots.take(priority)), pin!(slots.take(priority)));
        let (mut c, mut d) = (pin!(slots.take(priority)), pin!(slots.take(priority)));
        let first = poll(&mut a);
        assert!(first.is_some() && poll(&mut b).is_none() && poll(&mut c).is_none());
        slots.resize(3);
        let (second, third) = (poll(&mut b), poll(&mut c));
        assert!(second.is_some() && third.is_some() && poll(&mut d).is_none());
        slots.resize(1);
        drop((first, second));
        assert!(poll(&mut d).is_none(), "one is in use still");
        drop(third);
        assert!(poll(&mut d).is_some());
    }
}
