//! A clock for simulations: its time passes when nothing else can happen.
//!
//! [`SimulatedClock::run`] polls what it is given, and the tasks beside it, for as long as any of
//! them gets on or a socket has something for them. When all of them wait, the time jumps to the
//! next alarm: a day of pauses takes as long as what is done between them. What runs on threads of
//! its own (a sync of flash, a name that is looked up) takes no time by this clock; where it
//! matters, it is given a moment of real time before a jump ([`SimulatedClock::set_patience`]).

#![allow(clippy::panic)] // What uses it is a test.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use smol::future::{or, poll_fn};
use smol::{Async, LocalExecutor, Timer};

use super::Clock;

/// A clock that stands still until it is moved.
pub struct SimulatedClock(Rc<State>);

struct State {
    now: Cell<Duration>,
    /// Seconds since 1970-01-01 UTC at the clock's start.
    start: Cell<u64>,
    is_unset: Cell<bool>,
    next: Cell<u64>,
    /// Who is to be woken when; the number distinguishes those of one moment.
    alarms: RefCell<BTreeMap<(Duration, u64), Waker>>,
    patience: Cell<Duration>,
}

impl SimulatedClock {
    /// A clock that shows `unix_seconds` for as long as it is not moved.
    pub fn new(unix_seconds: u64) -> Self {
        Self(Rc::new(State {
            now: Cell::default(),
            start: Cell::new(unix_seconds),
            is_unset: Cell::default(),
            next: Cell::default(),
            alarms: RefCell::default(),
            patience: Cell::default(),
        }))
    }

    /// How long, in real time, other threads may take before the time jumps.
    pub fn set_patience(&self, patience: Duration) {
        self.0.patience.set(patience);
    }

    /// Makes the time one that was never set, or one that was.
    pub fn set_known(&self, is_known: bool) {
        self.0.is_unset.set(!is_known);
    }

    /// Lets the time pass without anything happening in it.
    pub fn advance(&self, duration: Duration) {
        self.0.jump(self.0.now.get().saturating_add(duration));
    }

    /// Runs `future`, and the tasks of `executor`, to the end of `future`.
    ///
    /// # Panics
    /// When all wait and no alarm is set: nothing would ever happen again.
    pub fn run<T>(&self, executor: &LocalExecutor<'_>, future: impl Future<Output = T>) -> T {
        smol::block_on(self.drive(executor, future))
    }

    async fn drive<T>(&self, executor: &LocalExecutor<'_>, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let sockets = Sockets::new();
        let mut looks = 0;
        flag.wake_by_ref();
        loop {
            let mut gets_on = flag.lower();
            if gets_on
                && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return value;
            }
            while executor.try_tick() {
                gets_on = true;
            }
            looks = if gets_on { 0 } else { looks + 1 };
            if looks < LOOKS {
                sockets.seen().await;
                continue;
            }
            looks = 0;
            if self.hears(executor, &flag).await {
                continue;
            }
            let first = self.0.alarms.borrow().keys().next().map(|(at, _)| *at);
            assert!(first.is_some(), "everything waits, and no alarm is set");
            self.0.jump(first.unwrap_or_default());
        }
    }

    /// Lets other threads run; whether one of them woke something.
    async fn hears(&self, executor: &LocalExecutor<'_>, flag: &Flag) -> bool {
        let patience = self.0.patience.get();
        if patience.is_zero() {
            return false;
        }
        let task = async {
            executor.tick().await;
            true
        };
        let future = async {
            poll_fn(|cx| flag.poll(cx)).await;
            true
        };
        or(or(task, future), async {
            Timer::after(patience).await;
            false
        })
        .await
    }
}

impl State {
    /// Wakes all whose moment is not after `at`.
    fn jump(&self, at: Duration) {
        self.now.set(self.now.get().max(at));
        let mut alarms = self.alarms.borrow_mut();
        let later = alarms.split_off(&(at.saturating_add(Duration::from_nanos(1)), 0));
        let due = std::mem::replace(&mut *alarms, later);
        drop(alarms);
        due.into_values().for_each(Waker::wake);
    }
}

impl Clock for SimulatedClock {
    fn monotonic(&self) -> Duration {
        self.0.now.get()
    }

    fn alarm(&self, at: Duration) -> super::Alarm {
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        super::Alarm::simulated(Alarm { state: Rc::clone(&self.0), place: (at, number) })
    }

    fn unix_seconds(&self) -> u64 {
        self.0.start.get().saturating_add(self.0.now.get().as_secs())
    }

    fn is_set(&self) -> bool {
        !self.0.is_unset.get()
    }

    fn raise_floor(&self, unix_seconds: u64) {
        let behind = unix_seconds.saturating_sub(self.unix_seconds());
        self.0.start.set(self.0.start.get().saturating_add(behind));
    }
}

/// An alarm of this clock.
struct Alarm {
    state: Rc<State>,
    place: (Duration, u64),
}

impl Future for Alarm {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut alarms = self.state.alarms.borrow_mut();
        if self.place.0 <= self.state.now.get() {
            alarms.remove(&self.place);
            return Poll::Ready(());
        }
        alarms.insert(self.place, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.state.alarms.borrow_mut().remove(&self.place);
    }
}

/// Whether the future is to be polled again.
#[derive(Default)]
struct Flag {
    is_raised: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Flag {
    fn lower(&self) -> bool {
        self.is_raised.swap(false, Ordering::AcqRel)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        match self.is_raised.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_raised.store(true, Ordering::Release);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Finds out when all that sockets of this host had to report by now was taken: the kernel reports
/// in order, and so what is written to this pair last is heard of last.
struct Sockets(UnixStream, Async<UnixStream>);

impl Sockets {
    fn new() -> Self {
        let made = UnixStream::pair().and_then(|(one, two)| Ok(Self(one, Async::new(two)?)));
        made.unwrap_or_else(|error| panic!("a pair of sockets: {error}"))
    }

    async fn seen(&self) {
        let Self(writer, reader) = self;
        let heard = async {
            let (mut writer, mut read) = (writer, reader.get_ref());
            writer.write_all(&[0])?;
            reader.readable().await?;
            read.read(&mut [0])
        };
        heard.await.unwrap_or_else(|error| panic!("a pair of sockets: {error}"));
    }
}

/// So often sockets are looked at before it is believed that nothing comes from them.
const LOOKS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::super::SharedClock;
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_year_passes_when_nothing_happens() {
        let simulated = Rc::new(SimulatedClock::new(1_000));
        let clock: SharedClock = Rc::<SimulatedClock>::clone(&simulated);
        let executor = LocalExecutor::new();
        let hours = Rc::new(Cell::new(0));
        let (counted, ticking) = (Rc::clone(&hours), Rc::clone(&clock));
        executor
            .spawn(async move {
                loop {
                    ticking.sleep(seconds(3_600)).await;
                    counted.set(counted.get() + 1);
                }
            })
            .detach();
        simulated.run(&executor, clock.sleep(seconds(365 * 86_400)));
        assert_eq!(clock.unix_seconds(), 1_000 + 365 * 86_400);
        assert_eq!(clock.monotonic(), seconds(365 * 86_400));
        // Of the last moment the future that was asked for may come before the task.
        assert!((365 * 24 - 1..=365 * 24).contains(&hours.get()), "{}", hours.get());
    }

    #[test]
    fn alarms_that_are_dropped_hold_up_nothing() {
        let simulated = Rc::new(SimulatedClock::new(0));
        let clock: SharedClock = Rc::<SimulatedClock>::clone(&simulated);
        let executor = LocalExecutor::new();
        let late = simulated.run(&executor, async {
            or(
                async {
                    clock.sleep(seconds(9)).await;
                    true
                },
                async {
                    clock.sleep(seconds(5)).await;
                    false
                },
            )
            .await
        });
        assert!(!late);
        assert_eq!(clock.monotonic(), seconds(5));
        assert!(simulated.0.alarms.borrow().is_empty());
        let answer =
            simulated.run(&executor, clock.timeout(seconds(3), std::future::pending::<()>()));
        assert_eq!((answer, clock.monotonic()), (None, seconds(8)));
        let answer = simulated.run(&executor, clock.timeout(seconds(3), async { 7 }));
        assert_eq!((answer, clock.monotonic()), (Some(7), seconds(8)));
    }

    #[test]
    fn what_other_threads_do_is_waited_for() {
        let simulated = Rc::new(SimulatedClock::new(0));
        simulated.set_patience(seconds(60));
        let clock: SharedClock = Rc::<SimulatedClock>::clone(&simulated);
        let executor = LocalExecutor::new();
        let (sender, receiver) = smol::channel::bounded(1);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            sender.try_send(()).unwrap();
        });
        let task = executor.spawn(async move { receiver.recv().await.is_ok() });
        let answer = simulated.run(&executor, clock.timeout(seconds(1), task));
        assert_eq!((answer, clock.monotonic()), (Some(true), Duration::ZERO));
    }

    #[test]
    #[should_panic(expected = "no alarm is set")]
    fn a_standstill_is_found() {
        SimulatedClock::new(0).run(&LocalExecutor::new(), std::future::pending::<()>());
    }
}
