//! `moonlet run`: serves, reconciles and looks after the log until a signal asks to stop, and takes
//! up a changed configuration on SIGHUP.
//!
//! No part that fails ends another: an address, a certificate, an upstream or a configuration that
//! is not good is reported and tried again, and what is held is served all the while.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use log::{error, info, warn};
use smol::channel::{Receiver, Sender};
use smol::future::or;
use smol::{LocalExecutor, Task};

use super::fleet::Member;
use super::identity::{self, Certificate};
use super::notify::Notifier;
use super::proxy::{self, Forward};
use super::random::random;
use super::run::{Satellite, spawner};
use super::service::{Place, Service, service};
use super::stop::in_time;
use super::user::User;
use super::{Failure, scrub, upkeep};
use crate::config::{self, Config, Loaded, Location};
use crate::reconcile::{Patience, Reconciler};
use crate::serve::Api;
use crate::status::{Admin, Health, STORE};

/// The signals that are answered. Installed before anything else, so that none of them ends the
/// process while the log is being mounted.
pub fn signals() -> Result<Signals, Failure> {
    Ok(Signals::new([Signal::Term, Signal::Int, Signal::Hup])?)
}

/// A satellite that runs.
pub struct Daemon {
    satellite: Satellite,
    /// Where its configuration is.
    path: PathBuf,
    reconciler: Reconciler,
    executor: Rc<LocalExecutor<'static>>,
    serve: Service<Api>,
    proxy: Forward,
    admin: Service<Admin>,
    certificate: RefCell<Option<(Rc<Certificate>, Task<()>)>>,
    /// Asks for a pass at once.
    wake: (Sender<()>, Receiver<()>),
    member: Member,
    /// Asks to look at once what the fleet's side is to do.
    member_wake: (Sender<()>, Receiver<()>),
}

impl Daemon {
    /// What `satellite` does, about to begin.
    pub fn new(satellite: Satellite, path: PathBuf, executor: Rc<LocalExecutor<'static>>) -> Self {
        let reconciler = satellite.reconciler(spawner(&executor));
        let (store, catalog) = (satellite.store.clone(), satellite.catalog.clone());
        let api = Api::new(store, catalog, satellite.served_registries())
            .pulling(Rc::clone(reconciler.puller()));
        let api = Rc::new(api);
        let proxy = proxy::forward(&satellite, &api, &executor);
        let served = Rc::clone(&satellite.metrics);
        let serve = service("serving the OCI read API", api, served, &satellite, &executor);
        // Its own counters: people who look are no load on the read API.
        let (admin, looks) = (Rc::new(satellite.admin()), Rc::default());
        let admin = service("status, metrics and health", admin, looks, &satellite, &executor);
        let certificate = RefCell::default();
        let (wake, member_wake) = (smol::channel::bounded(1), smol::channel::bounded(1));
        let member = Member::new();
        Self {
            satellite,
            path,
            reconciler,
            executor,
            serve,
            proxy,
            admin,
            certificate,
            wake,
            member,
            member_wake,
        }
    }

    /// Goes on until a signal asks to stop. Downloads are suspended then, so that nothing of them
    /// is fetched again, and left where they are if that takes too long; whatever was acknowledged
    /// is durable by itself.
    ///
    /// `user` is who this process becomes when it has opened all that it takes root for.
    pub async fn run(
        self,
        mut signals: Signals,
        notifier: &Notifier,
        user: Option<&User>,
    ) -> Result<(), Failure> {
        if let Some(user) = user {
            user.check_files(&self.satellite.config(), &self.path)?;
        }
        if let Err(error) = self.reconciler.observe() {
            error!("{error}; what is held is looked at again in the first pass");
        }
        self.look_at_users();
        proxy::configure(&self.satellite, &self.proxy).await;
        self.listen().await;
        if let Some(user) = user {
            user.become_it()?;
        }
        notifier.ready();
        let stopping = self.satellite.wait_for_stop(&mut signals, async || self.reload().await);
        let repairing = async {
            let never = self.reconciler.keep_repaired().await;
            match never {}
        };
        let obeying =
            self.member.obey(&self.satellite, &self.member_wake.1, async || self.apply().await);
        let background = or(repairing, or(self.scrub(), or(self.keep(), self.remount())));
        let background = or(background, obeying);
        let work = or(or(self.reconcile(), stopping), background);
        let ended = in_time(work, self.satellite.stop(), &self.satellite.clock).await;
        ended.unwrap_or_else(|| {
            warn!("flash is slow: downloads go on from where they were recorded last");
            Ok(())
        })?;
        notifier.stopping();
        self.satellite.gate.flush().await;
        Ok(upkeep::finish(&self.satellite.store, &self.satellite.clock).await?)
    }

    /// Pass after pass, until a stop is asked for.
    async fn reconcile(&self) -> Result<(), Failure> {
        let clock = &self.satellite.clock;
        loop {
            if let Err(failure) = self.satellite.resize().await {
                error!("{failure}");
            }
            self.satellite.open_upstreams();
            self.look_at_users();
            proxy::configure(&self.satellite, &self.proxy).await;
            let (began, before) = (clock.monotonic(), self.reconciler.held_digests());
            let outcome =
                self.reconciler.run(self.satellite.poll_interval(), Patience::UntilDue).await;
            let changed = before != self.reconciler.held_digests();
            let took = clock.monotonic().saturating_sub(began);
            self.member.passed(&self.satellite, took, changed);
            let _ = self.member_wake.0.try_send(());
            if self.satellite.is_stopping() {
                // Those that clients wait for are suspended as well.
                self.reconciler.puller().landed().await;
                return Ok(());
            }
            info!("sync: {outcome}");
            let due = self.reconciler.pause();
            let woken = async {
                // It is not closed while this runs.
                let _ = self.wake.1.recv().await;
            };
            or(due, woken).await;
        }
    }

    async fn scrub<T>(&self) -> T {
        let Satellite { store, clock, metrics, .. } = &self.satellite;
        loop {
            let busy = self.satellite.is_busy();
            let interval = || self.satellite.config().store.scrub_interval;
            let Err(error) = scrub::forever(store, clock, interval, random(), metrics, busy).await;
            error!("looking for bit rot: {error}; tried again in {UPKEEP_PAUSE:?}");
            clock.sleep(UPKEEP_PAUSE).await;
        }
    }

    async fn keep<T>(&self) -> T {
        let Satellite { store, clock, .. } = &self.satellite;
        loop {
            let Err(error) = upkeep::forever(store, clock, self.satellite.is_busy()).await;
            error!("keeping the log: {error}; tried again in {UPKEEP_PAUSE:?}");
            clock.sleep(UPKEEP_PAUSE).await;
        }
    }

    /// Mounts the log again when an error has ended writing; what waited for that is tried at once.
    async fn remount<T>(&self) -> T {
        let Satellite { store, clock, health, .. } = &self.satellite;
        loop {
            upkeep::remount(store, clock, |why| {
                health.failed(STORE, &format!("{why}; what is held is served, mounted again soon"));
            })
            .await;
            health.works(STORE);
            self.reconciler.poll_now();
            let _ = self.wake.0.try_send(());
        }
    }

    /// Reads the configuration again and puts it into effect; one that is not good changes nothing.
    async fn reload(&self) {
        let Self { path, .. } = self;
        let Some(mut config) = reload(path, &self.satellite.health) else { return };
        let before = self.satellite.config();
        restartable(&mut config, &before);
        self.satellite.set_config(config);
        self.apply().await;
        let images = self.satellite.config().images.len();
        info!("{}: reloaded, {images} images", path.display());
        self.member.hurry();
        let _ = self.member_wake.0.try_send(());
    }

    /// Puts into effect what the configuration says by now.
    async fn apply(&self) {
        let config = self.satellite.config();
        if let Err(error) = self.reconciler.set_images(self.satellite.desired()) {
            error!("{error}; the images are looked at again in the next pass");
        }
        self.serve.handler.set_registries(self.satellite.served_registries());
        self.look_at_users();
        proxy::configure(&self.satellite, &self.proxy).await;
        self.admin.handler.name.replace(config.name.clone());
        self.admin.handler.cycles_rated.set(config.store.cycles_rated);
        self.listen().await;
        // One that is there already will do.
        let _ = self.wake.0.try_send(());
    }

    /// Puts the users of the read API and what they may read into effect; what is wrong with their
    /// file is reported.
    fn look_at_users(&self) {
        let config = self.satellite.config();
        self.serve.handler.set_rules(&config.serve.rules);
        let key = || std::array::from_fn(|_| random().to_le_bytes()[0]);
        match self.serve.handler.set_users(config.serve.htpasswd.as_ref(), key) {
            None => self.satellite.health.works(USERS),
            Some(problem) => {
                let reason = format!("{problem}; clients are answered 503 until it is good");
                self.satellite.health.failed(USERS, &reason);
            }
        }
    }

    /// Listens where the configuration says.
    async fn listen(&self) {
        let config = self.satellite.config();
        let Config { serve, admin, proxy, .. } = &*config;
        let proxy = proxy.as_ref().map_or(&[][..], |proxy| &proxy.listen);
        let all = serve.listen.iter().chain(&admin.listen).chain(proxy);
        let ipv4_ports: Vec<u16> =
            all.filter(|address| address.is_ipv4()).map(|address| address.port()).collect();
        let certificate = self.certificate(&config);
        // Moving an address from one service to the other needs it to be free.
        let admin_place = Place {
            addresses: admin.listen.into_iter().collect(),
            ipv4_ports: ipv4_ports.clone(),
            connections_max: ADMIN_CONNECTIONS_MAX,
            certificate: None,
        };
        let proxy_place = Place {
            addresses: proxy.to_vec(),
            ipv4_ports: ipv4_ports.clone(),
            connections_max: PROXY_CONNECTIONS_MAX,
            certificate: None,
        };
        let serve_place = Place {
            addresses: serve.listen.clone(),
            ipv4_ports,
            connections_max: serve.connections_max,
            certificate,
        };
        self.serve.leave(&serve_place).await;
        self.proxy.leave(&proxy_place).await;
        self.admin.leave(&admin_place).await;
        self.serve.listen(&serve_place);
        self.proxy.listen(&proxy_place);
        self.admin.listen(&admin_place);
    }

    /// The certificate of the read API, watched from here on; the one before, read again, if it is
    /// from the same files.
    fn certificate(&self, config: &Config) -> Option<Rc<Certificate>> {
        let files = config.serve.tls.as_ref();
        let before = self.certificate.take();
        let kept = before.filter(|(certificate, _)| Some(certificate.files()) == files);
        match &kept {
            Some((certificate, _)) => certificate.read(),
            // What was wrong with another one does not matter any more.
            None => drop(self.satellite.health.forget(identity::PART)),
        }
        let watched = kept.or_else(|| {
            let certificate =
                Rc::new(Certificate::new(files?.clone(), self.satellite.health.clone()));
            let watching = Rc::clone(&certificate);
            let clock = Rc::clone(&self.satellite.clock);
            let task = self.executor.spawn(async move { watching.watch(&clock).await });
            Some((certificate, task))
        });
        let certificate = watched.as_ref().map(|(certificate, _)| Rc::clone(certificate));
        self.certificate.replace(watched);
        certificate
    }
}

/// The configuration at `path` as it is now. One that is not good is reported and changes nothing.
pub(super) fn reload(path: &Path, health: &Health) -> Option<Config> {
    match config::load(path) {
        Ok(Loaded { config, warnings }) => {
            health.works(CONFIGURATION);
            warnings.iter().for_each(|warning| warn!("{warning}"));
            Some(config)
        }
        Err(errors) => {
            let errors = errors.to_string().replace('\n', "; ");
            let reason = format!("{errors}; refused, the one before stays in effect");
            health.degraded(CONFIGURATION, &reason);
            None
        }
    }
}

/// Keeps what only a start can change as it was `before`, and says so.
fn restartable(config: &mut Config, before: &Config) {
    if config.user != before.user {
        warn!("user has changed: in effect at the next start");
        config.user.clone_from(&before.user);
    }
    if config.store.location != before.store.location {
        warn!("[store] path or device has changed: in effect at the next start");
        config.store.location = before.store.location.clone();
        config.store.size_max = before.store.size_max;
    }
    if matches!(config.store.location, Location::Directory(_))
        && config.store.size_max > before.store.size_max
    {
        warn!("[store] size_max is larger: the log grows at the next start");
    }
}

/// As status names it.
const CONFIGURATION: &str = "configuration";
/// As status names it.
const USERS: &str = "users of the read API";
/// People and a metrics scraper; each may keep a connection or two.
pub(super) const ADMIN_CONNECTIONS_MAX: u32 = 8;
/// Runtimes, and tunnels: half of these at most.
const PROXY_CONNECTIONS_MAX: u32 = 64;
/// After what is done in the background failed, for want of room for instance.
const UPKEEP_PAUSE: Duration = Duration::from_mins(10);
