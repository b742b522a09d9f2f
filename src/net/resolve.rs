//! Names into addresses, on threads of their own.
//!
//! getaddrinfo blocks for as long as the name servers take, so nothing else may share its threads:
//! a dead name server must not hold up a sync of the flash, nor the look-up of another name.
//! Threads are started when there is a name to look up and end when there has been none for a
//! while. Those who ask for the same name share one look-up, and what it found is used for a
//! minute: the system does not say how long it may be. What could not be connected to is looked up
//! again.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol::channel::{Receiver, Sender, bounded};

/// Looks names up. Clones share threads and what was found.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

impl Default for Resolver {
    /// With the system's resolver.
    fn default() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }
}

impl Resolver {
    /// Without a thread yet; `look_up` may block.
    fn new(look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State::default());
        Self(Arc::new(Shared { look_up: Box::new(look_up), state, queued: Condvar::new() }))
    }

    /// The addresses of a name in the system's order. `now` is that of one clock, which never goes
    /// back.
    pub(super) async fn addresses(&self, name: &str, now: Duration) -> io::Result<Vec<IpAddr>> {
        match self.begin(name, now)? {
            Begun::Known(addresses) => Ok(addresses),
            Begun::Asked(answer) => answer.recv().await.unwrap_or_else(|_| Err(ended())),
        }
    }

    /// Looks `name` up anew the next time.
    pub(super) fn forget(&self, name: &str) {
        self.0.lock().known.remove(name);
    }

    fn begin(&self, name: &str, now: Duration) -> io::Result<Begun> {
        let mut state = self.0.lock();
        state.known.retain(|_, known| now < known.end);
        if let Some(known) = state.known.get(name) {
            return Ok(Begun::Known(known.addresses.clone()));
        }
        let (sender, receiver) = bounded(1);
        if let Some(waiting) = state.waiting.get_mut(name) {
            waiting.retain(|sender| !sender.is_closed());
            if waiting.len() >= WAITING_MAX {
                return Err(io::Error::other("too many wait for this name"));
            }
            waiting.push(sender);
            return Ok(Begun::Asked(receiver));
        }
        if state.waiting.len() >= NAMES_MAX {
            return Err(io::Error::other("too many names are being looked up"));
        }
        if state.queue.len() >= state.idle && state.threads < THREADS_MAX {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("resolver".to_owned());
            match thread.stack_size(STACK_BYTES).spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                // One that is there already gets to it.
                Err(_) if state.threads > 0 => {}
                Err(error) => return Err(error),
            }
        }
        state.waiting.insert(name.to_owned(), vec![sender]);
        state.queue.push_back((name.to_owned(), now + KNOWN_FOR));
        self.0.queued.notify_one();
        Ok(Begun::Asked(receiver))
    }
}

enum Begun {
    Known(Vec<IpAddr>),
    Asked(Receiver<Answer>),
}

type Answer = io::Result<Vec<IpAddr>>;
type LookUp = dyn Fn(&str) -> Answer + Send + Sync;

struct Shared {
    look_up: Box<LookUp>,
    state: Mutex<State>,
    /// There is a name in the queue.
    queued: Condvar,
}

#[derive(Default)]
struct State {
    /// Names that no thread has taken yet, and until when what is found will be known: threads have
    /// no clock.
    queue: VecDeque<(String, Duration)>,
    /// Who waits for each name that is queued or being looked up.
    waiting: BTreeMap<String, Vec<Sender<Answer>>>,
    known: BTreeMap<String, Known>,
    threads: usize,
    /// Threads that wait for a name.
    idle: usize,
}

struct Known {
    addresses: Vec<IpAddr>,
    end: Duration,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            let Some((name, end)) = state.queue.pop_front() else {
                state.idle += 1;
                let woken = self.queued.wait_timeout(state, THREAD_IDLE_MAX);
                let (again, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
                state = again;
                state.idle -= 1;
                if timeout.timed_out() && state.queue.is_empty() {
                    state.threads -= 1;
                    return;
                }
                continue;
            };
            drop(state);
            let answer = (self.look_up)(&name);
            state = self.lock();
            for sender in state.waiting.remove(&name).unwrap_or_default() {
                // Who waited may have given up.
                let _ = sender.try_send(copied(&answer));
            }
            if let Ok(addresses) = answer
                && state.known.len() < NAMES_MAX
            {
                state.known.insert(name, Known { addresses, end });
            }
        }
    }
}

fn copied(answer: &Answer) -> Answer {
    match answer {
        Ok(addresses) => Ok(addresses.clone()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

fn ended() -> io::Error {
    io::Error::other("the resolver ended")
}

/// Names whose servers are dead occupy a thread each until the system gives up.
const THREADS_MAX: usize = 4;
/// What getaddrinfo needs, with room for modules of glibc; only what is touched takes memory.
const STACK_BYTES: usize = 256 << 10;
/// Names that are known, and as many that are being looked up.
const NAMES_MAX: usize = 64;
/// Who waits for one name.
const WAITING_MAX: usize = 64;
/// From when it was asked for.
const KNOWN_FOR: Duration = Duration::from_secs(60);
const THREAD_IDLE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{poll_once, zip};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    const NOW: Duration = Duration::ZERO;

    /// A resolver that answers with `127.0.0.1` when it is asked to, and counts its look-ups.
    fn held_up() -> (Resolver, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (release, released) = mpsc::channel();
        let (released, count) = (Mutex::new(released), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        let resolver = Resolver::new(move |name| {
            counted.fetch_add(1, Ordering::SeqCst);
            if name == "dead" {
                released.lock().unwrap().recv().unwrap();
            }
            if name == "none" { Err(io::Error::other("no such name")) } else { Ok(vec![HOME]) }
        });
        (resolver, release, count)
    }

    #[test]
    fn a_dead_name_server_holds_up_neither_other_names_nor_the_blocking_pool() {
        let (resolver, release, count) = held_up();
        smol::block_on(async {
            let mut first = Box::pin(resolver.addresses("dead", NOW));
            let mut second = Box::pin(resolver.addresses("dead", NOW));
            assert!(poll_once(&mut first).await.is_none());
            assert!(poll_once(&mut second).await.is_none());
            assert_eq!(resolver.addresses("alive", NOW).await.unwrap(), [HOME]);
            assert!(poll_once(&mut first).await.is_none());
            release.send(()).unwrap();
            let (first, second) = zip(first, second).await;
            assert_eq!((first.unwrap(), second.unwrap()), (vec![HOME], vec![HOME]));
            assert_eq!(resolver.addresses("dead", NOW).await.unwrap(), [HOME]);
        });
        assert_eq!(count.load(Ordering::SeqCst), 2, "who waits shares, what was found is kept");
    }

    #[test]
    fn what_failed_and_what_was_forgotten_is_looked_up_again() {
        let (resolver, _release, count) = held_up();
        smol::block_on(async {
            for _ in 0..2 {
                let error = resolver.addresses("none", NOW).await.unwrap_err();
                assert_eq!(error.to_string(), "no such name");
                resolver.addresses("alive", NOW).await.unwrap();
                resolver.forget("alive");
            }
        });
        assert_eq!(count.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn threads_and_those_who_wait_are_bounded() {
        let (resolver, release, _) = held_up();
        let asked: Vec<_> =
            (0..WAITING_MAX).map(|_| resolver.begin("dead", NOW).unwrap()).collect();
        assert!(resolver.begin("dead", NOW).is_err());
        drop(asked);
        resolver.begin("dead", NOW).unwrap();
        for name in 0..3 * THREADS_MAX {
            resolver.begin(&name.to_string(), NOW).unwrap();
        }
        assert!(resolver.0.lock().threads <= THREADS_MAX);
        release.send(()).unwrap();
    }

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
}
