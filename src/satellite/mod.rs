//! Wiring: the only place on the device that reads arguments, spawns tasks and prints.

#[cfg(feature = "airgap")]
mod archives;
pub mod args;
#[cfg(feature = "boards")]
mod board;
mod check;
mod daemon;
#[cfg(feature = "doctor")]
mod doctor;
mod facts;
mod fleet;
mod identity;
mod images;
pub mod log;
#[cfg(feature = "status")]
mod look;
mod mount;
mod notify;
#[cfg(feature = "proxy")]
mod proxy;
mod random;
mod run;
mod scrub;
mod service;
mod show;
mod stop;
#[cfg(test)]
mod tests;
mod unmounted;
mod upkeep;
mod user;
mod without;
mod zone;

use std::fmt;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use smol::LocalExecutor;
use smol::future::or;

use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, Config};
use args::{Args, Command};
use daemon::Daemon;
use notify::Notifier;
use run::Satellite;
use user::User;
#[cfg(not(feature = "airgap"))]
use without::archives;
#[cfg(not(feature = "boards"))]
use without::board;
#[cfg(not(feature = "doctor"))]
use without::doctor;
#[cfg(not(feature = "status"))]
use without::look;
#[cfg(not(feature = "proxy"))]
use without::proxy;

/// The program `moonlet`: 0 done, 1 not converged or something found wrong, 2 error.
pub fn main() -> ExitCode {
    limit_threads();
    let args = match Args::from_env() {
        Ok(args) => args,
        Err(code) => return code,
    };
    log::install(args.log_level);
    let done = act(&args);
    log::end();
    match done {
        Ok(code) => code,
        Err(failure) => {
            show::complain(&failure.to_string());
            ExitCode::from(EXIT_ERROR)
        }
    }
}

fn act(args: &Args) -> Result<ExitCode, Failure> {
    let load = || config::load(&args.config);
    let config = || load().map(|loaded| loaded.config);
    let warned = || {
        let loaded = load()?;
        loaded.warnings.iter().for_each(|warning| ::log::warn!("{warning}"));
        Ok::<_, Failure>(loaded.config)
    };
    let executor = Rc::new(LocalExecutor::new());
    let spawner = Rc::clone(&executor);
    // On the heap: they are large, and would be moved through the stack of each caller.
    let work: Pin<Box<dyn Future<Output = Result<ExitCode, Failure>> + '_>> = match &args.command {
        Command::Run => {
            let config = warned()?;
            // Before there is a second thread.
            let user = User::prepare(&config)?;
            Box::pin(run(config, user, args.config.clone(), spawner))
        }
        Command::Check => return check::check(&load()?),
        Command::Doctor { json } => Box::pin(doctor::doctor(&args.config, *json, &spawner)),
        Command::Sync { once } => Box::pin(sync(warned()?, *once, &spawner)),
        Command::Status { json } => Box::pin(look::status(config()?, *json)),
        Command::ImageLs { cached: true, json } => Box::pin(look::cached(config()?, *json)),
        Command::ImageLs { cached: false, json } => Box::pin(look::images(config()?, *json)),
        Command::ImagePin { name } => Box::pin(images::pin(config()?, name)),
        Command::ImageImport { file, wish } => Box::pin(archives::import(config()?, file, wish)),
        Command::ImageExport(order) => Box::pin(archives::export(config()?, order)),
        Command::ImageRm { name } => Box::pin(images::remove(config()?, name)),
        Command::ProxyCa { new: false } => Box::pin(proxy::print_authority(config()?)),
        Command::ProxyCa { new: true } => Box::pin(proxy::renew_authority(config()?)),
        Command::StoreStat { json } => Box::pin(look::store(config()?, *json)),
        Command::StoreScrub { json } => Box::pin(look::scrub(config()?, *json)),
        Command::StoreVerify => Box::pin(verify(config()?)),
        Command::BoardLs => return board::list(),
        Command::BoardShow { name, json } => return board::show(name, *json),
        Command::BoardConfig { name } => return board::config(name),
    };
    drive(&executor, work)
}

/// Runs all tasks until `work` is done, on this thread, which waits for sockets as well: that of
/// `smol::future::block_on` is woken by another one each time.
///
/// Sockets are asked for after every few tasks. `LocalExecutor::run` would do so after 200, by when
/// the reactor's own thread assumes that no thread asks, and takes one event after the other from
/// this one.
fn drive<T>(executor: &LocalExecutor<'_>, work: impl Future<Output = T> + Unpin) -> T {
    let turns = async {
        loop {
            for _ in 0..TASKS_PER_TURN {
                executor.tick().await;
            }
            smol::future::yield_now().await;
        }
    };
    smol::block_on(or(when_woken(work), turns))
}

/// Polls `work` only when something that it waits for has happened, and not at each turn: it waits
/// for signals among others, which is a call of the kernel.
async fn when_woken<T>(mut work: impl Future<Output = T> + Unpin) -> T {
    struct Woken {
        is_set: AtomicBool,
        waker: Waker,
    }
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.is_set.store(true, Ordering::SeqCst);
            self.waker.wake_by_ref();
        }
    }
    let mut woken = None;
    poll_fn(|cx| {
        // The caller polls with one waker for as long as this runs.
        let woken = woken.get_or_insert_with(|| {
            Arc::new(Woken { is_set: AtomicBool::new(true), waker: cx.waker().clone() })
        });
        if !woken.is_set.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut work).poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
    })
    .await
}

/// Replicates and serves until a signal ends it.
async fn run(
    config: Config,
    user: Option<User>,
    path: PathBuf,
    executor: Rc<LocalExecutor<'static>>,
) -> Result<ExitCode, Failure> {
    let mut signals = daemon::signals()?;
    let notifier = Rc::new(Notifier::from_env());
    let clock: SharedClock = Rc::new(SystemClock::new());
    executor.spawn(Rc::clone(&notifier).keep_alive(Rc::clone(&clock))).detach();
    let config = (config, user.as_ref());
    match mount::mount(config, &path, &clock, &executor, &mut signals, &notifier).await? {
        None => {}
        Some(satellite) => {
            let daemon = Daemon::new(satellite, path, executor);
            daemon.run(signals, &notifier, user.as_ref()).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Caps the pool of threads for blocking calls. Each costs a device some ten KiB of memory, while
/// it is there. What changes flash takes one at a time; syncs take one for each download (one on a
/// limited link, else three, and up to four for what clients ask for) and one for records. The rest
/// is left for reads: they wait for a sync only while clients have several downloads under way.
#[allow(unsafe_code)]
fn limit_threads() {
    // SAFETY: this is the first thing the process does; there is no other thread to read or
    // write the environment meanwhile.
    unsafe { std::env::set_var("BLOCKING_MAX_THREADS", BLOCKING_THREADS_MAX) };
}

/// Reconciles, with the progress on screen.
async fn sync(
    config: Config,
    once: bool,
    executor: &Rc<LocalExecutor<'static>>,
) -> Result<ExitCode, Failure> {
    let satellite = Rc::new(Satellite::open(config)?);
    let watched = Rc::clone(&satellite);
    let drawing = executor.spawn(async move { show::progress(&watched).await });
    let outcome = satellite.sync(once, run::spawner(executor)).await;
    drawing.cancel().await;
    let outcome = outcome?;
    show::print(&format!("{outcome}\n"))?;
    if !outcome.is_obeyed {
        show::complain("what is desired could not be looked at: see the warnings above");
    }
    Ok(if outcome.is_converged() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_CONVERGED) })
}

/// Reads everything that is held and says what is corrupt.
async fn verify(config: Config) -> Result<ExitCode, Failure> {
    let satellite = Satellite::open(config)?;
    let (blobs, corrupt) = satellite.verify(show::share).await?;
    show::share_end();
    show::print(&format!("{blobs} blobs verified, {corrupt} corrupt chunks\n"))?;
    Ok(if corrupt == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_CONVERGED) })
}

/// What ends the program, in one line for a person.
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A few hundred microseconds.
const TASKS_PER_TURN: usize = 16;
const BLOCKING_THREADS_MAX: &str = "8";
const EXIT_NOT_CONVERGED: u8 = 1;
const EXIT_ERROR: u8 = 2;
