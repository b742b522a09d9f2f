//! The satellite at work: mounts the log, serves, reconciles, until it is told to stop.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use log::{error, info, warn};
use smol::future::or;
use smol::stream::StreamExt as _;
use smol::{LocalExecutor, Timer};

use super::{Failure, scrub, upkeep};
use crate::blob::{MountReport, Store};
use crate::catalog::Catalog;
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Location, Upstream};
use crate::fetch::Pace;
use crate::flash::{self, Device};
use crate::link::rate::Bucket;
use crate::metrics::Metrics;
use crate::net::http::{Handler, Listener, ServerLimits, Slots};
use crate::net::tls;
use crate::pull::board::Board;
use crate::pull::{Parts, Puller};
use crate::reconcile::{Outcome, Reconciler};
use crate::registry::{self, Registry};
use crate::serve::Api;
use crate::status::{Admin, Report};

/// Everything below the services, put together from one configuration.
pub struct Satellite {
    config: Config,
    clock: SharedClock,
    metrics: Rc<Metrics>,
    board: Board,
    store: Store,
    catalog: Catalog,
}

impl Satellite {
    /// Mounts the log that `config` names, or begins it.
    pub fn open(config: Config) -> Result<Self, Failure> {
        let location = &config.store.location;
        let device = match location {
            // Its size is ours to say; a device has one, within which `fit` keeps the log.
            Location::Directory(path) => {
                flash::open(path, config.store.size_max.map(|size| size.0))?
            }
            Location::Device(path) => flash::open(path, None)?,
        };
        if let Some(why) = device.read_only() {
            warn!("{why}; what is held is served, nothing can be added");
        }
        let path = location.path().display().to_string();
        let (satellite, report) = Self::mount(config, device)?;
        info!("{path}: {report}");
        Ok(satellite)
    }

    /// Mounts the log that `config` names to look at it; nothing on flash changes.
    pub async fn inspect(config: Config) -> Result<Self, Failure> {
        let device = flash::inspect(config.store.location.path())?;
        let satellite = Self::mount(config, device)?.0;
        // A device may be larger than what the log may use of it.
        satellite.fit().await?;
        Ok(satellite)
    }

    fn mount(config: Config, device: Arc<dyn Device>) -> Result<(Self, MountReport), Failure> {
        let clock: SharedClock = Rc::new(SystemClock::new());
        let metrics = Rc::new(Metrics::default());
        let (store, report) = Store::open(device, Rc::clone(&metrics))?;
        store.verify_every(config.store.verify_interval, Rc::clone(&clock));
        let catalog = Catalog::new(store.clone());
        Ok((Self { config, clock, metrics, board: Board::default(), store, catalog }, report))
    }

    /// Makes held what is desired: in one pass, or in as many as it takes.
    pub async fn sync(&self, once: bool) -> Result<Outcome, Failure> {
        let reconciler = self.reconciler()?;
        reconciler.observe()?;
        loop {
            self.fit().await?;
            let outcome = reconciler.run().await;
            self.store.settle().await?;
            if once || outcome.is_converged() {
                return Ok(outcome);
            }
            self.pause().await;
        }
    }

    /// The state of images and store.
    pub fn observe(&self) -> Result<Report, Failure> {
        self.reconciler()?.observe()?;
        Ok(self.admin().report())
    }

    /// Reads everything that is held; gives the numbers of blobs and of rotten chunks. `each` is
    /// called with the bytes read so far and those there are.
    pub async fn verify(&self, each: impl Fn(u64, u64)) -> Result<(usize, usize), Failure> {
        let digests = self.store.digests();
        let all = self.store.stat().held_bytes;
        let read = Cell::new(0);
        let mut rotten = 0;
        for digest in &digests {
            let count = self.store.check_all(digest, async |bytes| {
                read.set(read.get() + bytes);
                each(read.get(), all);
            });
            rotten += count.await?;
        }
        Ok((digests.len(), rotten))
    }

    /// Serves and reconciles until a signal asks to stop; whatever was acknowledged is durable by
    /// then, so a signal only has to end the loops.
    pub async fn run(self, executor: &Rc<LocalExecutor<'static>>) -> Result<(), Failure> {
        let reconciler = self.reconciler()?;
        reconciler.observe()?;
        self.serve(executor).await?;
        self.serve_admin(executor).await?;
        let mut signals = Signals::new([Signal::Term, Signal::Int])?;
        let work = async {
            loop {
                if let Err(failure) = self.fit().await {
                    error!("{failure}");
                }
                let outcome = reconciler.run().await;
                info!("sync: {} images held, {} not", outcome.held, outcome.failed);
                self.pause().await;
            }
        };
        let stop = async {
            let signal = signals.next().await;
            info!("stopping: {signal:?}");
        };
        let scrubbing = async {
            let (interval, metrics) = (self.config.store.scrub_interval, &self.metrics);
            loop {
                let busy = self.is_busy();
                let ended = scrub::forever(&self.store, interval, random(), metrics, busy).await;
                let Err(error) = ended;
                error!("looking for rot: {error}; tried again in {UPKEEP_PAUSE:?}");
                Timer::after(UPKEEP_PAUSE).await;
            }
        };
        let upkeep = async {
            loop {
                let ended = upkeep::forever(&self.store, &self.clock, self.is_busy()).await;
                let Err(error) = ended;
                error!("keeping the log: {error}; tried again in {UPKEEP_PAUSE:?}");
                Timer::after(UPKEEP_PAUSE).await;
            }
        };
        or(stop, or(work, or(scrubbing, upkeep))).await;
        if self.store.is_writable()
            && let Err(error) = self.store.record_wear().await
        {
            warn!("{error}; some of what was counted of wear is lost");
        }
        self.store.settle().await?;
        Ok(())
    }

    /// Whether anything came over the link since it was last asked, or goes to a client now.
    fn is_busy(&self) -> impl Fn() -> bool {
        let received = Cell::new(0);
        move || {
            let now = self.metrics.link_received_bytes.value();
            received.replace(now) != now || self.metrics.http_sending.value() > 0
        }
    }

    /// Holds the log to the configured size: it may have been made with a larger one.
    async fn fit(&self) -> Result<(), Failure> {
        let Some(size_max) = self.config.store.size_max else { return Ok(()) };
        if !self.store.fit(size_max.0).await? {
            warn!("size_max is {size_max} now, and more is held: it shrinks as images go");
        }
        Ok(())
    }

    /// Waits until the next poll is due.
    async fn pause(&self) {
        Timer::after(jittered(self.config.sync.poll_interval, random())).await;
    }

    async fn serve(&self, executor: &Rc<LocalExecutor<'static>>) -> Result<(), Failure> {
        let serve = &self.config.serve;
        let tls = match &serve.tls {
            Some(tls) => Some(tls::server_config(&tls.cert, &tls.key, tls.client_ca.as_deref())?),
            None => None,
        };
        let registries = self.config.upstreams.iter().map(|up| up.registry.clone()).collect();
        let (store, catalog) = (self.store.clone(), self.catalog.clone());
        let api = Rc::new(Api::new(store, catalog, registries));
        let slots = Slots::new(serve.connections_max);
        for address in &serve.listen {
            let (limits, metrics) = (ServerLimits::default(), Rc::clone(&self.metrics));
            let listener = Listener::bind(*address, tls.clone(), limits, metrics).await?;
            let listener = listener.sharing(&slots);
            info!("serving the OCI read API on {}", listener.local_addr());
            spawn_accept(executor, listener, Rc::clone(&api));
        }
        Ok(())
    }

    async fn serve_admin(&self, executor: &Rc<LocalExecutor<'static>>) -> Result<(), Failure> {
        let Some(address) = self.config.admin.listen else { return Ok(()) };
        // Its own counters: people who look are no load on the read API.
        let metrics = Rc::new(Metrics::default());
        let limits = ServerLimits { connections_max: ADMIN_CONNECTIONS_MAX, ..Default::default() };
        let listener = Listener::bind(address, None, limits, metrics).await?;
        info!("status, metrics and health on {}", listener.local_addr());
        spawn_accept(executor, listener, Rc::new(self.admin()));
        Ok(())
    }

    pub(super) fn admin(&self) -> Admin {
        Admin {
            name: self.config.name.clone(),
            store: self.store.clone(),
            board: self.board.clone(),
            clock: Rc::clone(&self.clock),
            metrics: Rc::clone(&self.metrics),
            cycles_rated: self.config.store.cycles_rated,
        }
    }

    fn reconciler(&self) -> Result<Reconciler, Failure> {
        let mut registries = BTreeMap::new();
        for upstream in &self.config.upstreams {
            let options = registry_options(upstream);
            let registry =
                Registry::new(options, Rc::clone(&self.clock), Rc::clone(&self.metrics))?;
            registries.insert(upstream.registry.clone(), registry);
        }
        let now = self.clock.monotonic();
        let counted = self.metrics.link_received_bytes.value();
        let bucket = self.config.link.rate_max.map(|rate| Bucket::new(rate, now, counted));
        let puller = Puller::new(Parts {
            store: self.store.clone(),
            registries,
            pace: Pace::new(bucket, Rc::clone(&self.clock), Rc::clone(&self.metrics)),
            board: self.board.clone(),
            clock: Rc::clone(&self.clock),
            metrics: Rc::clone(&self.metrics),
            random: Rc::new(random),
        });
        Ok(Reconciler {
            images: self.config.images.clone(),
            store: self.store.clone(),
            catalog: self.catalog.clone(),
            puller: Rc::new(puller),
            board: self.board.clone(),
            clock: Rc::clone(&self.clock),
            metrics: Rc::clone(&self.metrics),
            referrers_asked: RefCell::default(),
        })
    }
}

fn registry_options(upstream: &Upstream) -> registry::Options {
    registry::Options {
        registry: upstream.registry.clone(),
        url: upstream.url.clone(),
        username: upstream.username.clone(),
        password: upstream.password.as_ref().map(|secret| secret.reveal().to_owned()),
        tls: tls::ClientOptions {
            ca_file: upstream.ca_file.clone(),
            client_cert: upstream.client_cert.clone().zip(upstream.client_key.clone()),
        },
    }
}

/// Accepts connections for as long as the process lives; a connection's end is its own affair.
fn spawn_accept<H: Handler + 'static>(
    executor: &Rc<LocalExecutor<'static>>,
    listener: Listener,
    handler: Rc<H>,
) {
    let spawner = Rc::clone(executor);
    executor
        .spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(connection) => {
                        let handler = Rc::clone(&handler);
                        let serving = async move {
                            if let Err(error) = connection.serve(handler.as_ref()).await {
                                log::debug!("{error}");
                            }
                        };
                        spawner.spawn(serving).detach();
                    }
                    Err(error) => {
                        warn!("{error}; accepting again in {ACCEPT_PAUSE:?}");
                        Timer::after(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
        .detach();
}

/// A fleet that was switched on together must not poll in step: up to a tenth less.
fn jittered(interval: Duration, random: u64) -> Duration {
    let tenth = u64::try_from(interval.as_millis() / 10).unwrap_or(u64::MAX).max(1);
    interval.saturating_sub(Duration::from_millis(random % tenth))
}

thread_local! {
    static SEED: Cell<u64> = Cell::new(seed());
}

/// Xorshift64* (Marsaglia 2003, Vigna 2014): good enough to spread retries.
fn random() -> u64 {
    SEED.with(|seed| {
        let mut state = seed.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        seed.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    })
}

fn seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library's hash keys are seeded by the kernel, once a process.
    std::hash::RandomState::new().build_hasher().finish() | 1
}

/// People and a metrics scraper; each may keep a connection or two.
const ADMIN_CONNECTIONS_MAX: u32 = 8;
/// After what is done in the background failed, for want of room for instance.
const UPKEEP_PAUSE: Duration = Duration::from_mins(10);
/// After a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
