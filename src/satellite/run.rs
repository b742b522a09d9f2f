//! What a satellite is made of, put together from one configuration.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use log::{info, warn};
use smol::LocalExecutor;
use smol::future::or;
use smol::stream::StreamExt as _;

use super::random::{jittered, random};
use super::unmounted::Unmounted;
use super::user::AsUser;
use super::{Failure, facts, zone};
use crate::blob::{MountReport, Store};
use crate::catalog::{Catalog, Imports};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Location, ProxyUrl, Upstream};
use crate::control::{self, Control, Wanted};
use crate::fetch::{Gate, Latch, Terms};
use crate::flash::{self, Device};
use crate::link::Urgency;
use crate::link::zone::Zone;
use crate::metrics::Metrics;
use crate::net::http::{Client, ClientLimits};
use crate::net::{Network, Proxies, Resolver, tls};
use crate::pull::progress::Progress;
use crate::pull::{Parts, Policies, Puller, Registries, Rules, Spawner};
use crate::reconcile::{self, Desired, Outcome, Patience, Reconciler};
use crate::registry::{self, Password, Registry};
use crate::status::{Admin, Health, Report, STORE};

/// Everything below the services.
pub struct Satellite {
    /// As the file has it.
    local: RefCell<Config>,
    /// With what Ground Control adds to it.
    config: RefCell<Rc<Config>>,
    /// The fleet's side.
    pub(super) control: Control,
    pub(super) clock: SharedClock,
    pub(super) metrics: Rc<Metrics>,
    pub(super) health: Health,
    progress: Progress,
    pub(super) store: Store,
    pub(super) catalog: Catalog,
    registries: Registries,
    policies: Policies,
    /// Which images must be signed.
    verify: Rules,
    /// Looks up the names that clients of the proxy choose.
    client_resolver: Resolver,
    network: RefCell<Network>,
    /// The proxy that it leads through, as the file has it or Ground Control.
    routed: RefCell<Option<ProxyUrl>>,
    terms: Terms,
    pub(super) gate: Gate,
    /// Opened when a signal asks to stop.
    stop: Latch,
}

impl Satellite {
    /// Mounts the log that `config` names, or begins it.
    pub fn open(config: Config) -> Result<Self, Unmounted> {
        let location = &config.store.location;
        let device = match location {
            // Its size is ours to say; a device has one, within which `fit` keeps the log.
            Location::Directory(path) => {
                let _as_user = AsUser::of(&config)?;
                flash::open(path, config.store.size_max.map(|size| size.0))?
            }
            Location::Device(path) => flash::open(path, None)?,
        };
        let read_only = device.read_only().map(str::to_owned);
        let path = location.path().display().to_string();
        let as_user = AsUser::of(&config)?;
        let (satellite, report) = Self::mount(config, device, system_clock())?;
        drop(as_user);
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
        let satellite = Self::mount(config, device, system_clock())?.0;
        // A device may be larger than what the log may use of it.
        satellite.resize().await?;
        Ok(satellite)
    }

    /// Mounts the log on `device`; all that waits does so by `clock`.
    pub(super) fn mount(
        config: Config,
        device: Arc<dyn Device>,
        clock: SharedClock,
    ) -> Result<(Self, MountReport), Unmounted> {
        let metrics = Rc::new(Metrics::default());
        let (store, report) = Store::open(device, Rc::clone(&metrics))?;
        store.verify_every(config.store.verify_interval, Rc::clone(&clock));
        if let Some(recorded) = store.recorded_time() {
            clock.raise_floor(recorded);
        }
        let catalog = Catalog::new(store.clone());
        let gate = Gate::new(store.clone(), Rc::clone(&clock), Rc::clone(&metrics));
        let stop = Latch::default();
        let control = Control::new(control::Parts {
            store: store.clone(),
            clock: Rc::clone(&clock),
            facts: facts::facts(),
        });
        let satellite = Self {
            terms: Terms::new(gate.clone(), stop.clone(), Rc::clone(&metrics)),
            stop,
            clock,
            metrics,
            health: Health::default(),
            progress: Progress::default(),
            store,
            catalog,
            registries: Registries::default(),
            policies: Policies::default(),
            verify: Rules::default(),
            client_resolver: Resolver::default(),
            network: RefCell::new(network(&config, &gate)),
            routed: RefCell::new(config.link.proxy.clone()),
            gate,
            config: RefCell::new(Rc::new(config.clone())),
            local: RefCell::new(config),
            control,
        };
        satellite.set_limits();
        satellite.join_fleet();
        satellite.refresh();
        Ok((satellite, report))
    }

    /// The configuration that is in effect.
    pub(super) fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    /// Puts the configuration of the file into effect, as far as this goes: upstreams, the link's
    /// rate, and whom to obey.
    pub(super) fn set_config(&self, config: Config) {
        let before = self.local.replace(config.clone());
        let was_metered = self.gate.is_metered();
        self.set_limits();
        // Connections of a link without a data plan have receive buffers of any size.
        let is_rerouted =
            config.link.proxy != before.link.proxy || !was_metered && self.gate.is_metered();
        if is_rerouted {
            self.reroute(&config);
        }
        if is_rerouted
            || config.ground_control != before.ground_control
            || config.state != before.state
        {
            for part in [ENROLMENT, GROUND_CONTROL, DESIRED_STATE] {
                self.health.forget(part);
            }
            self.join_fleet();
        }
        self.refresh();
    }

    /// Every way leads elsewhere now.
    fn reroute(&self, config: &Config) {
        self.network.replace(network(config, &self.gate));
        self.routed.replace(config.link.proxy.clone());
        self.registries.borrow_mut().clear();
    }

    /// Reads what is kept for the Ground Control, or the state, that the file names.
    fn join_fleet(&self) {
        let local = self.local.borrow();
        let (ground, state) = (local.ground_control.as_ref(), local.state.as_ref());
        let lost = self.control.configure(ground, state, &self.network.borrow());
        let next = "it is fetched again, and nothing is removed until it is known what is desired";
        let parts = [(ENROLMENT, lost.enrolment), (DESIRED_STATE, lost.desired)];
        for (part, error) in parts {
            if let Some(error) = error {
                self.health.degraded(part, &format!("{error}; {next}"));
            }
        }
        if self.control.is_unsealed() {
            let expected = "expected [ground_control] key_file, a serial number or a machine id";
            warn!("credentials are kept on flash as good as open: {expected}");
        }
    }

    /// Puts the configuration and what Ground Control adds to it into effect. What an upstream was
    /// asked is forgotten only where it changed.
    pub(super) fn refresh(&self) {
        let mut config = self.local.borrow().clone();
        let Wanted { images, upstreams, listen, proxy, .. } = self.control.wanted();
        config.extend(images, upstreams);
        config.serve.listen_at(listen);
        if let Some(proxy) = proxy {
            config.link.proxy = Some(proxy.into());
        }
        if config.link.proxy != *self.routed.borrow() {
            self.reroute(&config);
            self.control.reroute(&self.network.borrow());
        }
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
        let every = config.store.verify_interval;
        self.store.verify_every(every, Rc::clone(&self.clock));
    }

    /// Opens the upstreams that are not open, and reports those whose files are missing.
    pub(super) fn open_upstreams(&self) {
        let config = self.config();
        let policy = |up: &Upstream| Some((up.registry.clone(), up.pull_through.clone()?));
        self.policies.replace(config.upstreams.iter().filter_map(policy).collect());
        self.verify.replace(config.verify.clone());
        let mut registries = self.registries.borrow_mut();
        for upstream in &config.upstreams {
            registries.entry(upstream.registry.clone()).or_insert_with(|| {
                let network = self.network.borrow().clone();
                Registry::new(registry_options(upstream), network, Rc::clone(&self.clock))
            });
            match unreadable_file(upstream) {
                None => self.health.works(&part(upstream)),
                Some(problem) => {
                    let reason = format!("{problem}; tried again at the next poll");
                    self.health.degraded(&part(upstream), &reason);
                }
            }
        }
    }

    /// Puts the rate, the data plan and the time windows into effect, by the local time as it is
    /// kept now.
    fn set_limits(&self) {
        let zone = match zone::read() {
            Ok(zone) => {
                self.health.works(zone::PART);
                zone
            }
            Err(problem) => {
                self.health.degraded(zone::PART, &format!("{problem}; UTC is used"));
                Zone::utc()
            }
        };
        self.gate.configure(&self.local.borrow().link, zone);
    }

    /// Makes held what is desired: in one pass, or in as many as it takes, or until a signal asks
    /// to stop.
    pub async fn sync(&self, once: bool, spawn: Spawner) -> Result<Outcome, Failure> {
        let reconciler = self.reconciler(spawn);
        reconciler.observe()?;
        let work = async {
            loop {
                self.resize().await?;
                let mut is_obeyed = true;
                if self.control.is_configured() {
                    let looked = self.stop.unless_opened(self.look_at_fleet()).await;
                    is_obeyed = looked == Some(true) && self.control.is_known();
                    reconciler.set_images(self.desired())?;
                }
                self.open_upstreams();
                let outcome = Outcome {
                    is_obeyed,
                    ..reconciler.run(self.poll_interval(), Patience::Endless).await
                };
                self.store.flush().await?;
                if once || outcome.is_converged() || self.stop.is_open() {
                    return Ok(outcome);
                }
                reconciler.pause().await;
            }
        };
        let mut signals = Signals::new([Signal::Term, Signal::Int])?;
        let outcome = or(work, self.wait_for_stop(&mut signals, async || {})).await;
        self.gate.flush().await;
        outcome
    }

    /// Opens `stop` at the first signal that asks for it, upon which whatever is under way ends by
    /// itself; fails at the second. SIGHUP calls `reload`.
    pub(super) async fn wait_for_stop<T>(
        &self,
        signals: &mut Signals,
        reload: impl AsyncFn(),
    ) -> Result<T, Failure> {
        loop {
            match signals.next().await {
                Some(Ok(Signal::Hup)) if !self.stop.is_open() => reload().await,
                Some(Ok(Signal::Hup)) => {}
                _ if self.stop.is_open() => {
                    return Err(Failure("stopped by a second signal".to_owned()));
                }
                _ => {
                    info!("stopping, as a signal asks for");
                    self.stop.open();
                }
            }
        }
    }

    /// What opens connections for others.
    pub(super) fn client(&self) -> Client {
        let trust = tls::Trust::new(tls::ClientOptions::default(), Rc::clone(&self.clock));
        // Names of a client's choice must not stand in the way of a registry's.
        let resolver = self.client_resolver.clone();
        let network = Network { resolver, ..self.network.borrow().clone() };
        Client::new(trust, network, ClientLimits::default())
    }

    /// The pace of what clients ask for.
    pub(super) fn client_terms(&self) -> Terms {
        self.terms.of(Urgency::Client)
    }

    /// The sign to stop.
    pub(super) fn stop(&self) -> &Latch {
        &self.stop
    }

    /// The registries whose images are served: those of upstreams in the configuration's order,
    /// then those of images that came from files or whose desired state is not known.
    pub(super) fn served_registries(&self) -> Vec<String> {
        let config = self.config();
        let mut registries: Vec<String> =
            config.upstreams.iter().map(|upstream| upstream.registry.clone()).collect();
        let imported = Imports::of(&self.store);
        let mut others: Vec<String> =
            imported.names().iter().map(|name| name.registry.clone()).collect();
        if !self.control.is_known() {
            // What is held is served by its name although it is not known who desires it.
            others.extend(self.store.tags().into_iter().map(|(key, _)| key.registry));
        }
        for registry in others {
            if !registries.contains(&registry) {
                registries.push(registry);
            }
        }
        registries
    }

    /// Whether a signal has asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_open()
    }

    /// How long to wait for the next poll.
    pub(super) fn poll_interval(&self) -> Duration {
        jittered(self.config().sync.poll_interval, random())
    }

    /// The state of images and store.
    pub fn observe(&self) -> Result<Report, Failure> {
        // Who only looks downloads nothing.
        self.reconciler(Rc::new(drop)).observe()?;
        Ok(self.admin().report())
    }

    /// Reads everything that is held; returns the numbers of blobs and of corrupt chunks. `each` is
    /// called with the bytes read so far and those there are.
    pub async fn verify(&self, each: impl Fn(u64, u64)) -> Result<(usize, usize), Failure> {
        let digests = self.store.digests();
        let all = self.store.stat().held_bytes;
        let read = Cell::new(0);
        let mut corrupt = 0;
        for digest in &digests {
            let count = self.store.check_all(digest, async |bytes| {
                read.set(read.get() + bytes);
                each(read.get(), all);
            });
            corrupt += count.await?;
        }
        Ok((digests.len(), corrupt))
    }

    /// Whether anything came over the link since it was last asked, or goes to a client now.
    pub(super) fn is_busy(&self) -> impl Fn() -> bool {
        let received = Cell::new(0);
        move || {
            let now = self.gate.meter().received();
            received.replace(now) != now || self.metrics.http_sending.value() > 0
        }
    }

    /// Holds the log to the configured size: it may have been made with a larger one.
    pub(super) async fn resize(&self) -> Result<(), Failure> {
        let Some(size_max) = self.config().store.size_max else { return Ok(()) };
        // What is copied so far stays copied.
        let fits = self.stop.unless_opened(self.store.resize(size_max.0)).await;
        if let Some(false) = fits.transpose()? {
            warn!("size_max is {size_max} now, and more is held: it shrinks as images go");
        }
        Ok(())
    }

    pub(super) fn admin(&self) -> Admin {
        Admin {
            name: RefCell::new(self.config().name.clone()),
            store: self.store.clone(),
            catalog: self.catalog.clone(),
            progress: self.progress.clone(),
            clock: Rc::clone(&self.clock),
            metrics: Rc::clone(&self.metrics),
            cycles_rated: Cell::new(self.config().store.cycles_rated),
            gate: self.gate.clone(),
            health: self.health.clone(),
        }
    }

    /// A reconciler over the upstreams as they are, and as they are changed; `spawn` starts its
    /// downloads.
    pub(super) fn reconciler(&self, spawn: Spawner) -> Reconciler {
        self.open_upstreams();
        let puller = Puller::new(Parts {
            store: self.store.clone(),
            registries: Rc::clone(&self.registries),
            policies: Rc::clone(&self.policies),
            verify: Rc::clone(&self.verify),
            spawn,
            terms: self.terms.clone(),
            progress: self.progress.clone(),
            clock: Rc::clone(&self.clock),
            metrics: Rc::clone(&self.metrics),
            random: Rc::new(random),
        });
        let parts = reconcile::Parts {
            store: self.store.clone(),
            catalog: self.catalog.clone(),
            puller: Rc::new(puller),
            progress: self.progress.clone(),
            clock: Rc::clone(&self.clock),
            metrics: Rc::clone(&self.metrics),
        };
        Reconciler::new(parts, self.desired())
    }

    /// What is to be held.
    pub(super) fn desired(&self) -> Desired {
        Desired { images: self.config().images.clone(), is_whole: self.control.is_known() }
    }
}

/// Starts downloads on `executor`.
pub(super) fn spawner(executor: &Rc<LocalExecutor<'static>>) -> Spawner {
    let executor = Rc::clone(executor);
    Rc::new(move |download| executor.spawn(download).detach())
}

fn system_clock() -> SharedClock {
    Rc::new(SystemClock::new())
}

fn network(config: &Config, gate: &Gate) -> Network {
    let proxies = Proxies::from_environment(config.link.proxy.as_ref().map(ProxyUrl::url));
    let meter = Rc::clone(gate.meter());
    Network { resolver: Resolver::default(), proxies, gate: Some(gate.into()), meter }
}

fn part(upstream: &Upstream) -> String {
    format!("upstream {}", upstream.registry)
}

/// What describes `upstream` and its files, which are read when they are used.
pub(super) fn registry_options(upstream: &Upstream) -> registry::Options {
    registry::Options {
        registry: upstream.registry.clone(),
        url: upstream.url.clone(),
        username: upstream.username.clone(),
        password: match &upstream.password {
            Some(secret) => Some(Password::Text(secret.0.clone())),
            None => upstream.password_file.clone().map(Password::File),
        },
        tls: tls_options(upstream),
    }
}

/// How an upstream's TLS is to be trusted.
pub(super) fn tls_options(upstream: &Upstream) -> tls::ClientOptions {
    tls::ClientOptions::new(&upstream.ca_file, &upstream.client_cert, &upstream.client_key)
}

/// Why one of an upstream's files cannot be read now.
fn unreadable_file(upstream: &Upstream) -> Option<String> {
    let mut problems = upstream.files().filter_map(|(_, path, _)| {
        let error = std::fs::File::open(path).err()?;
        Some(format!("{}: {error}", path.display()))
    });
    problems.next()
}

/// As status names it: enrolment.
pub(super) const ENROLMENT: &str = "enrolment";
/// As status names it: reports.
pub(super) const GROUND_CONTROL: &str = "ground control";
/// As status names it.
pub(super) const DESIRED_STATE: &str = "desired state";
