//! A satellite as `moonlet run` has it, for days, by a simulated clock: on simulated flash, with a
//! registry that comes and goes on a socket of this host.

mod errors;

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smol::{LocalExecutor, Task};

use super::daemon::{self, Daemon};
use super::notify::Notifier;
use super::run::Satellite;
use super::stop::PATIENCE;
use crate::clock::SharedClock;
use crate::clock::date::rfc3339;
use crate::clock::sim::SimulatedClock;
use crate::config;
use crate::fetch::Latch;
use crate::flash::{Geometry, sim};
use crate::metrics::Metrics;
use crate::net::Meter;
use crate::net::http::{
    Handler, Headers, Listener, Method, ResponseBody, ServerLimits, ServerRequest, ServerResponse,
};
use crate::oci::{Digest, media_type};
use crate::pull::tag_key;

/// 2026-11-24T12:00:00Z.
const NOON: u64 = 1_795_521_600;
const HOUR: Duration = Duration::from_hours(1);
const LAYER_BYTES: usize = 3 << 20;

/// A registry with one image of one layer.
struct Registry {
    manifest: Rc<[u8]>,
    layer: Rc<[u8]>,
    clock: SharedClock,
    /// When content was asked for, in seconds since 1970.
    asked: RefCell<Vec<u64>>,
    /// Bytes of content sent in each of those answers.
    sent: Cell<u64>,
}

impl Registry {
    fn new(clock: &SharedClock) -> Self {
        let mut state = 1_u64;
        let layer: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(LAYER_BYTES)
        .collect();
        let blob = |bytes: &[u8]| {
            format!("\"digest\":\"{}\",\"size\":{}", Digest::sha256(bytes), bytes.len())
        };
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\
             \"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",{}}},\
             \"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",{}}}]}}",
            media_type::OCI_MANIFEST,
            blob(b"{}"),
            blob(&layer)
        );
        let (manifest, layer) = (manifest.into_bytes().into(), layer.into());
        let (clock, asked) = (Rc::clone(clock), RefCell::default());
        Self { manifest, layer, clock, asked, sent: Cell::default() }
    }

    fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    fn blob(&self, request: &ServerRequest, whole: &Rc<[u8]>) -> (u16, Headers, Rc<[u8]>) {
        self.asked.borrow_mut().push(self.clock.unix_seconds());
        let mut headers = Headers::new();
        headers.append("docker-content-digest", Digest::sha256(whole).to_string());
        let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
            return (200, headers, Rc::clone(whole));
        };
        let first: usize = first.parse().unwrap();
        let end = last.parse().map_or(whole.len(), |last: usize| whole.len().min(last + 1));
        headers.append("content-range", format!("bytes {first}-{}/{}", end - 1, whole.len()));
        (206, headers, whole[first..end].into())
    }
}

impl Handler for Registry {
    async fn handle(&self, request: ServerRequest) -> ServerResponse {
        let path = request.path.as_str();
        let layer = Digest::sha256(&self.layer).to_string();
        let (status, headers, body) =
            if path.ends_with("/manifests/1") || path.ends_with(&self.digest().to_string()) {
                let mut headers = Headers::new();
                headers.append("content-type", media_type::OCI_MANIFEST);
                headers.append("docker-content-digest", self.digest().to_string());
                (200, headers, Rc::clone(&self.manifest))
            } else if path.ends_with(&layer) {
                self.blob(&request, &self.layer)
            } else if path.ends_with(&Digest::sha256(b"{}").to_string()) {
                self.blob(&request, &b"{}"[..].into())
            } else {
                (404, Headers::new(), Rc::default())
            };
        if request.method != Method::Head {
            self.sent.update(|sent| sent + body.len() as u64);
        }
        ServerResponse { status, headers, body: ResponseBody::Bytes(body) }
    }
}

/// Runs a test on a thread with a larger stack: futures are large where nothing is optimised.
fn deep(test: fn()) {
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(test);
    if let Err(panic) = thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// A satellite that runs, and what its registry is to be.
struct World {
    simulated: Rc<SimulatedClock>,
    clock: SharedClock,
    executor: Rc<LocalExecutor<'static>>,
    metrics: Rc<Metrics>,
    meter: Rc<Meter>,
    store: crate::blob::Store,
    socket: TcpListener,
    registry: Rc<Registry>,
    /// Opened, it stops the satellite.
    stop: Latch,
    /// The satellite that runs; what it ends with.
    running: Task<Option<String>>,
}

/// A socket that no one is answered at until it listens.
fn deaf() -> (rustix::fd::OwnedFd, SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(&fd, &any).unwrap();
    let address = getsockname(&fd).unwrap().try_into().unwrap();
    (fd, address)
}

impl World {
    /// `more` is added to the configuration, of which port 0 is Ground Control's, which is away.
    fn new(more: &str) -> Self {
        let simulated = Rc::new(SimulatedClock::new(NOON));
        let clock: SharedClock = Rc::<SimulatedClock>::clone(&simulated);
        let (fd, address) = deaf();
        let text = format!(
            "[serve]\nlisten = []\n[store]\npath = \"/nowhere\"\n[sync]\npoll_interval = \"5m\"\n\
             [[upstream]]\nregistry = \"far.test\"\nurl = \"http://{address}\"\n\
             [[image]]\nreference = \"far.test/app:1\"\n\
             [ground_control]\nurl = \"http://{address}\"\ntoken = \"t\"\n{more}"
        );
        let file = std::env::temp_dir().join(format!("moonlet-days-{}", address.port()));
        std::fs::write(&file, text).unwrap();
        let config = config::load(&file).ok().unwrap().config;
        std::fs::remove_file(&file).unwrap();
        let geometry = Geometry {
            segment_count: 65,
            segment_bytes: 262_144,
            program_bytes: 64,
            reprogram: true,
        };
        let device = Arc::new(sim::Device::new(geometry));
        let (satellite, _) = Satellite::mount(config, device, Rc::clone(&clock)).ok().unwrap();
        let (metrics, store) = (Rc::clone(&satellite.metrics), satellite.store.clone());
        let meter = Rc::clone(satellite.gate.meter());
        let executor = Rc::new(LocalExecutor::new());
        let (stop, asked) = (satellite.stop().clone(), satellite.stop().clone());
        let runs = Daemon::new(satellite, "/nowhere".into(), Rc::clone(&executor));
        let running = executor.spawn(async move {
            let signals = daemon::signals().ok().unwrap();
            let ended = runs.run(signals, &Notifier::from_env(), None).await;
            let failure = ended.err().map(|failure| failure.to_string());
            assert!(asked.is_open(), "the satellite ended: {failure:?}");
            failure
        });
        let registry = Rc::new(Registry::new(&clock));
        let socket = TcpListener::from(fd);
        Self { simulated, clock, executor, metrics, meter, store, socket, registry, stop, running }
    }

    /// Goes on for so long.
    fn pass(&self, duration: Duration) {
        self.simulated.run(&self.executor, self.clock.sleep(duration));
    }

    /// The registry comes back.
    fn listen(&self) {
        rustix::net::listen(&self.socket, 64).unwrap();
        let (metrics, clock) = (Rc::default(), Rc::clone(&self.clock));
        let socket = self.socket.try_clone().unwrap();
        let listener = Listener::over(socket, None, ServerLimits::default(), metrics, clock);
        let (listener, registry) = (listener.unwrap(), Rc::clone(&self.registry));
        let spawner = Rc::downgrade(&self.executor);
        let serving = async move {
            loop {
                let connection = listener.accept().await.unwrap();
                let registry = Rc::clone(&registry);
                let Some(executor) = spawner.upgrade() else { return };
                let serving = async move { drop(connection.serve(registry.as_ref()).await) };
                executor.spawn(serving).detach();
            }
        };
        self.executor.spawn(serving).detach();
    }

    /// Asks the satellite to stop; how long that took by its clock.
    fn stop(self) -> Duration {
        let begun = self.clock.monotonic();
        self.stop.open();
        let failure = self.simulated.run(&self.executor, self.running);
        assert_eq!(failure, None);
        self.clock.monotonic() - begun
    }

    fn is_held(&self) -> bool {
        let key = tag_key(&"far.test/app:1".parse().unwrap());
        self.store.tag(&key) == Some(self.registry.digest())
    }

    fn now(&self) -> String {
        rfc3339(self.clock.unix_seconds())
    }
}

/// Everything is away for a day: it is asked for again and again, and not too often; when it is
/// back, the next poll finds it.
#[test]
fn a_day_without_registry_and_ground_control() {
    deep(|| {
        let world = World::new("");
        world.pass(24 * HOUR);
        let (passes, attempts) =
            (world.metrics.sync_runs.value(), world.metrics.fetch_retries.value());
        assert!((200..=400).contains(&passes), "{passes} passes in a day of polls each 5 minutes");
        assert!((100..4_000).contains(&attempts), "{attempts} attempts again in a day");
        assert!(!world.is_held());
        assert_eq!(world.meter.connections(), 0);
        world.listen();
        world.pass(Duration::from_mins(11));
        assert!(world.is_held(), "at {}", world.now());
        let asked = world.registry.asked.borrow().len();
        world.pass(3 * HOUR);
        assert_eq!(world.registry.asked.borrow().len(), asked, "content is fetched once");
    });
}

/// Content comes while the window is open and at no other time, and polls go on outside it.
#[test]
fn a_window_opens_and_closes() {
    deep(|| {
        let world = World::new("[link]\nwindows = [\"22:00-23:00\"]\n");
        world.listen();
        world.pass(9 * HOUR + Duration::from_mins(59));
        assert!(world.registry.asked.borrow().is_empty(), "before 22:00");
        assert!(!world.is_held());
        world.pass(Duration::from_mins(12));
        assert!(world.is_held(), "at {}", world.now());
        for at in world.registry.asked.borrow().iter() {
            let time = rfc3339(*at);
            assert!(time.contains("T22:"), "content was fetched at {time}");
        }
    });
}

/// A layer that a day's data plan has no room for comes in parts, the next one after midnight.
#[test]
fn a_data_plan_is_spent_and_begins_anew_at_midnight() {
    deep(|| {
        let world = World::new("[link]\nday_max = \"1MiB\"\n");
        world.listen();
        let mut days = 0;
        while !world.is_held() {
            let before = world.meter.carried();
            // To noon of the next day at first, so that midnight lies in the middle.
            world.pass(if days == 0 { 12 * HOUR } else { 24 * HOUR });
            let after = world.meter.carried();
            assert!(after - before <= 1 << 20, "{} bytes on day {days}", after - before);
            days += 1;
            assert!(days < 10, "not held after {days} days, {after} bytes");
        }
        assert!((4..=6).contains(&days), "3 MiB at less than 1 MiB a day took {days} days");
        let sent = world.registry.sent.get();
        assert!(sent < 7 << 19, "{sent} bytes of 3 MiB were sent");
    });
}

/// Of a month's plan, with its beginning on the 26th.
#[test]
fn a_months_plan_begins_anew_on_its_day() {
    deep(|| {
        let world = World::new("[link]\nmonth_max = \"2MiB\"\nmonth_day = 26\n");
        world.listen();
        world.pass(35 * HOUR + Duration::from_mins(50));
        let spent = world.meter.received();
        assert!(
            !world.is_held() && (1 << 19..2 << 20).contains(&spent),
            "{spent} at {}",
            world.now()
        );
        world.pass(Duration::from_mins(30));
        assert!(world.meter.received() > spent + (1 << 19), "at {}", world.now());
        assert!(world.is_held(), "at {}", world.now());
    });
}

/// Whatever it waits for, the satellite does not wait for it any more: a registry that is away, a
/// pause, a window, the rate, the next poll.
#[test]
fn a_stop_waits_for_nothing_but_flash() {
    deep(|| {
        for (more, is_there, after) in [
            ("", false, HOUR),
            ("", true, HOUR),
            ("[link]\nwindows = [\"22:00-23:00\"]\n", true, HOUR),
            ("[link]\nrate_max = \"8KiB/s\"\n", true, Duration::from_secs(40)),
            ("[link]\nday_max = \"1MiB\"\n", true, HOUR),
        ] {
            let world = World::new(more);
            if is_there {
                world.listen();
            }
            world.pass(after);
            let took = world.stop();
            assert!(took < PATIENCE, "{more:?}: {took:?}");
        }
    });
}
