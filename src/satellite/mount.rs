//! Mounting the log at the start of `moonlet run`: again and again for as long as it may still
//! succeed, while the admin address says what is waited for.
//!
//! A disk may be attached after the satellite started, with no way to log in and start it again.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use log::info;
use smol::LocalExecutor;
use smol::future::or;
use smol::stream::StreamExt as _;

use super::Failure;
use super::daemon::{ADMIN_CONNECTIONS_MAX, reload};
use super::notify::Notifier;
use super::run::Satellite;
use super::service::{Place, Service};
use super::user::User;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::status::{Health, STORE, Waiting};

/// The satellite over the log that the configuration at `path` names, which said `config`; `None`
/// when a signal asked to stop meanwhile. While that is waited for the admin address says so,
/// unless this is root, about to become `user`: no request is answered before.
pub async fn mount(
    (mut config, user): (Config, Option<&User>),
    path: &Path,
    clock: &SharedClock,
    executor: &Rc<LocalExecutor<'static>>,
    signals: &mut Signals,
    notifier: &Notifier,
) -> Result<Option<Satellite>, Failure> {
    let health = Health::default();
    let admin = Service {
        what: "health, while there is no store,",
        executor: Rc::clone(executor),
        handler: Rc::new(Waiting(health.clone())),
        metrics: Rc::new(Metrics::default()),
        clock: Rc::clone(clock),
        health: health.clone(),
        sockets: RefCell::default(),
        slots: RefCell::default(),
    };
    let satellite = loop {
        match Satellite::open(config.clone()) {
            Ok(satellite) => break satellite,
            Err(error) if error.may_pass() => {
                health.failed(STORE, &format!("{error}; tried again until it is there"));
            }
            Err(error) => return Err(error.into()),
        }
        let place = place(&config);
        admin.leave(&place).await;
        if user.is_none() {
            admin.listen(&place);
        }
        notifier.ready();
        let due = async {
            clock.sleep(PAUSE).await;
            None
        };
        match or(due, async { Some(signals.next().await) }).await {
            None => {}
            Some(Some(Ok(Signal::Hup))) => {
                // Who this process is about to become is decided.
                let user = config.user.clone();
                config = Config { user, ..reload(path, &health).unwrap_or(config) };
            }
            Some(_) => {
                info!("stopping, as a signal asks for");
                return Ok(None);
            }
        }
    };
    let nowhere = Place { addresses: Vec::new(), ..place(&config) };
    admin.leave(&nowhere).await;
    Ok(Some(satellite))
}

fn place(config: &Config) -> Place {
    Place {
        addresses: config.admin.listen.into_iter().collect(),
        ipv4_ports: Vec::new(),
        connections_max: ADMIN_CONNECTIONS_MAX,
        certificate: None,
    }
}

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(5);
