//! What a satellite is made of, put together from one configuration.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use log::{info, warn};
use smol::Timer;

use super::Failure;
use super::random::{jittered, random};
use crate::blob::{MountReport, Store};
use crate::catalog::Catalog;
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Link, Location, Upstream};
use crate::fetch::Pace;
use crate::flash::{self, Device};
use crate::link::rate::Bucket;
use crate::metrics::Metrics;
use crate::net::tls;
use crate::pull::board::Board;
use crate::pull::{Parts, Puller, Registries};
use crate::reconcile::{Outcome, Reconciler};
use crate::registry::{self, Registry};
use crate::status::{Admin, Health, Report, STORE};

/// Everything below the services.
pub struct Satellite {
    config: RefCell<Rc<Config>>,
    pub(super) clock: SharedClock,
    pub(super) metrics: Rc<Metrics>,
    pub(super) health: Health,
    board: Board,
    pub(super) store: Store,
    pub(super) catalog: Catalog,
    registries: Registries,
    pace: Pace,
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
        let read_only = device.read_only().map(str::to_owned);
        let path = location.path().display().to_string();
        let (satellite, report) = Self::mount(config, device)?;
        info!("{path}: {report}");
        if let Some(why) = read_only {
            let reason = format!("{why}; what is held is served, nothing can be added");
            satellite.health.failed(STORE, &reason);
        }
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
        if let Some(recorded) = store.recorded_time() {
            clock.raise_floor(recorded);
        }
        let catalog = Catalog::new(store.clone());
        let satellite = Self {
            pace: Pace::new(None, Rc::clone(&clock), Rc::clone(&metrics)),
            config: RefCell::new(Rc::new(config)),
            clock,
            metrics,
            health: Health::default(),
            board: Board::default(),
            store,
            catalog,
            registries: Registries::default(),
        };
        Ok((satellite, report))
    }

    /// The configuration that is in effect.
    pub(super) fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    /// Puts `config` into effect as far as this goes: upstreams and the link's rate. What an
    /// upstream was asked is forgotten only where it changed.
    pub(super) fn set_config(&self, config: Config) {
        let before = self.config.replace(Rc::new(config));
        let config = self.config();
        self.registries.borrow_mut().retain(|name, _| {
            let mut kept = config.upstreams.iter().filter(|upstream| upstream.registry == *name);
            kept.any(|upstream| before.upstreams.contains(upstream))
        });
        for upstream in &before.upstreams {
            self.health.forget(&part(upstream));
        }
        self.open_upstreams();
        if config.link != before.link {
            self.set_pace(&config.link);
        }
    }

    /// Opens the upstreams that are not open: a file that one needs may have been missing before.
    pub(super) fn open_upstreams(&self) {
        let mut registries = self.registries.borrow_mut();
        for upstream in &self.config().upstreams {
            if registries.contains_key(&upstream.registry) {
                continue;
            }
            let (clock, metrics) = (Rc::clone(&self.clock), Rc::clone(&self.metrics));
            match registry(upstream, clock, metrics) {
                Ok(registry) => {
                    registries.insert(upstream.registry.clone(), registry);
                    self.health.works(&part(upstream));
                }
                Err(error) => {
                    let reason = format!("{error}; tried again at the next poll");
                    self.health.degraded(&part(upstream), &reason);
                }
            }
        }
    }

    fn set_pace(&self, link: &Link) {
        let now = self.clock.monotonic();
        let counted = self.metrics.link_received_bytes.value();
        self.pace.set_bucket(link.rate_max.map(|rate| Bucket::new(rate, now, counted)));
    }

    /// Makes held what is desired: in one pass, or in as many as it takes.
    pub async fn sync(&self, once: bool) -> Result<Outcome, Failure> {
        let reconciler = self.reconciler();
        reconciler.observe()?;
        loop {
            self.fit().await?;
            self.open_upstreams();
            let outcome = reconciler.run().await;
            self.store.settle().await?;
            if once || outcome.is_converged() {
                return Ok(outcome);
            }
            Timer::after(jittered(self.config().sync.poll_interval, random())).await;
        }
    }

    /// The state of images and store.
    pub fn observe(&self) -> Result<Report, Failure> {
        self.reconciler().observe()?;
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

    /// Whether anything came over the link since it was last asked, or goes to a client now.
    pub(super) fn is_busy(&self) -> impl Fn() -> bool {
        let received = Cell::new(0);
        move || {
            let now = self.metrics.link_received_bytes.value();
            received.replace(now) != now || self.metrics.http_sending.value() > 0
        }
    }

    /// Holds the log to the configured size: it may have been made with a larger one.
    pub(super) async fn fit(&self) -> Result<(), Failure> {
        let Some(size_max) = self.config().store.size_max else { return Ok(()) };
        if !self.store.fit(size_max.0).await? {
            warn!("size_max is {size_max} now, and more is held: it shrinks as images go");
        }
        Ok(())
    }

    pub(super) fn admin(&self) -> Admin {
        Admin {
            name: RefCell::new(self.config().name.clone()),
            store: self.store.clone(),
            board: self.board.clone(),
            clock: Rc::clone(&self.clock),
            metrics: Rc::clone(&self.metrics),
            cycles_rated: Cell::new(self.config().store.cycles_rated),
            health: self.health.clone(),
        }
    }

    /// A reconciler over the upstreams as they are, and as they are changed.
    pub(super) fn reconciler(&self) -> Reconciler {
        self.set_pace(&self.config().link);
        self.open_upstreams();
        let puller = Puller::new(Parts {
            store: self.store.clone(),
            registries: Rc::clone(&self.registries),
            pace: self.pace.clone(),
            board: self.board.clone(),
            clock: Rc::clone(&self.clock),
            metrics: Rc::clone(&self.metrics),
            random: Rc::new(random),
        });
        Reconciler {
            images: RefCell::new(self.config().images.clone()),
            store: self.store.clone(),
            catalog: self.catalog.clone(),
            puller: Rc::new(puller),
            board: self.board.clone(),
            clock: Rc::clone(&self.clock),
            metrics: Rc::clone(&self.metrics),
            referrers_asked: RefCell::default(),
        }
    }
}

fn part(upstream: &Upstream) -> String {
    format!("upstream {}", upstream.registry)
}

/// A client of `upstream`, or why there can be none now.
fn registry(
    upstream: &Upstream,
    clock: SharedClock,
    metrics: Rc<Metrics>,
) -> Result<Registry, String> {
    let password = match &upstream.password_file {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
            Some(text.trim_end_matches(['\n', '\r']).to_owned())
        }
    };
    let options = registry::Options {
        registry: upstream.registry.clone(),
        url: upstream.url.clone(),
        username: upstream.username.clone(),
        password,
        tls: tls::ClientOptions {
            ca_file: upstream.ca_file.clone(),
            client_cert: upstream.client_cert.clone().zip(upstream.client_key.clone()),
        },
    };
    Registry::new(options, clock, metrics).map_err(|error| {
        let error = error.to_string();
        let name = format!("{}: ", upstream.registry);
        error.strip_prefix(&name).unwrap_or(&error).to_owned()
    })
}
