//! Accepts connections and serves them until the program is asked to stop.
//!
//! A loop of our own and not `axum::serve`, for the limits: connections are counted, a head must
//! arrive in time, and TLS is spoken where it is configured. At SIGTERM or SIGINT no connection is
//! accepted any more, and answers under way get [`STOP_TIMEOUT`].

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::app::App;
use super::limit::Peer;
use super::publisher::Publisher;
use super::settings::{Database, Settings};
use super::store::Store;
use super::tls::{Certified, Identity};
use super::{lock, rollout, router, tags, watch};

/// Serves until SIGTERM or SIGINT.
pub fn run(settings: Settings) -> Result<(), String> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting threads: {error}"))?
        .block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<(), String> {
    let tls = settings.tls.map(Identity::open).transpose()?.map(Arc::new);
    let failed = |error: std::io::Error| format!("listen {}: {error}", settings.listen);
    let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = settings.url.unwrap_or_else(|| format!("{scheme}://{address}"));
    let _held = match &settings.database {
        Database::Directory(directory) => {
            std::fs::create_dir_all(directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
            Some(lock::shared(directory)?)
        }
        Database::Postgres(_) => None,
    };
    let store = Store::open(&settings.database).await?;
    let show = |password: &str| {
        let mut out = std::io::stdout();
        writeln!(out, "user admin, password {password} (shown this once)")?;
        out.flush()
    };
    let (timeout, password) = (settings.request_timeout, settings.admin_password);
    let publisher = settings.publish.map(Publisher::new).transpose()?.map(Arc::new);
    let made = publisher.clone();
    let app = App::prepare(store.clone(), url.clone(), timeout, made, password, show).await?;
    tracing::info!("serving {url} on {address}");
    let watch = tokio::spawn(watch::run(Arc::clone(&app)));
    let rollouts = tokio::spawn(rollout::run(Arc::clone(&app)));
    warn_of_strays(&app).await?;
    let tags = tokio::spawn(tags::run(Arc::clone(&app), settings.tag_interval));
    let publishing = publisher.map(|publisher| tokio::spawn(publisher.run(Arc::clone(&app))));
    let webhook = match settings.webhook {
        Some(webhook) => {
            let prepared = webhook.prepare(&app).await;
            prepared.map_err(|fault| format!("preparing the webhook: {}", fault.message))?;
            Some(tokio::spawn(webhook.run(Arc::clone(&app))))
        }
        None => None,
    };
    let result = accept(listener, tls, &app).await;
    watch.abort();
    rollouts.abort();
    tags.abort();
    if let Some(publishing) = publishing {
        publishing.abort();
    }
    if let Some(webhook) = webhook {
        webhook.abort();
    }
    store.close().await;
    tracing::info!("stopped");
    result
}

/// Satellites read their state where they enrolled: elsewhere they get nothing new.
async fn warn_of_strays(app: &App) -> Result<(), String> {
    let count = async { app.store.read().await?.rows().count_homed_elsewhere(app.home()).await };
    let count = count.await.map_err(|error: sqlx::Error| format!("database: {error}"))?;
    if count > 0 {
        tracing::warn!(
            "{count} satellites read their state in a registry that nothing is published to any \
             more: expected it in the settings, or a new token for each of them"
        );
    }
    Ok(())
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<Identity>>,
    app: &Arc<App>,
) -> Result<(), String> {
    let router = router::router(Arc::clone(app));
    let failed = |error: std::io::Error| format!("waiting for signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    // Without TLS there is nothing to read again; the signal does not end the server either.
    let hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let watched = tls.clone().map(|tls| tokio::spawn(async move { tls.watch(hangup).await }));
    let places = Arc::new(Semaphore::new(connections_max()));
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &places) => accepted,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let Some((stream, address, place)) = accepted else { continue };
        let (tls, router, watcher) = (tls.clone(), router.clone(), connections.watcher());
        tokio::spawn(async move {
            let peer = Peer(address.ip());
            match tls {
                None => speak(stream, (peer, None), router, watcher).await,
                Some(tls) => {
                    let handshake = tls.acceptor().accept(stream);
                    // A handshake that fails or takes too long is the other side's affair.
                    if let Ok(Ok(stream)) = timeout(HEAD_TIMEOUT, handshake).await {
                        let shown = stream.get_ref().1.peer_certificates();
                        let certified = shown.and_then(<[_]>::first).and_then(Certified::of);
                        speak(stream, (peer, certified), router, watcher).await;
                    }
                }
            }
            drop(place);
        });
    }
    drop(listener);
    app.stopping.send_replace(true);
    if let Some(watched) = watched {
        watched.abort();
    }
    // What is not answered by then is cut off.
    let _ = timeout(STOP_TIMEOUT, connections.shutdown()).await;
    Ok(())
}

async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => {
            // What is answered to a peer that does not read is not kept for ever.
            match set_tcp_user_timeout(&stream, UNREAD_TIMEOUT_MS) {
                Ok(()) => Some((stream, address, place)),
                Err(error) => {
                    tracing::debug!("connection from {}: {error}", address.ip());
                    None
                }
            }
        }
        Err(error) => {
            // Out of file descriptors, mostly: it passes when connections end.
            tracing::warn!("accepting a connection: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Connections at a time, so that descriptors are left for the database.
fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    files.map_or(CONNECTIONS_MAX, |files| {
        files.saturating_sub(FILES_RESERVED).clamp(1, CONNECTIONS_MAX)
    })
}

/// Speaks HTTP/1.1 on a connection until it ends.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (peer, certified): (Peer, Option<Certified>),
    router: Router,
    watcher: Watcher,
) {
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if let Some(certified) = &certified {
            request.extensions_mut().insert(certified.clone());
        }
        let answer = router.call(request);
        async move { answer.await as Result<Response<Body>, Infallible> }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!("connection from {}: {error}", peer.0);
    }
}

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 4096;
/// Descriptors for the database, its log and its index, for the listener and the log.
const FILES_RESERVED: usize = 64;
/// For what was sent and is not acknowledged, and for a peer that takes nothing more.
const UNREAD_TIMEOUT_MS: u32 = 60_000;
/// For a request's head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(65);
const HEAD_BYTES_MAX: usize = 16 << 10;
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
