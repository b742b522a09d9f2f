//! What every request handler has: the database, the limits, the keys; and the first start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::fault::Fault;
use super::limit::Limit;
use super::metrics::Metrics;
use super::publisher::Publisher;
use super::secret::{self, Passwords};
use super::store::{Role, Store};
use super::{clock, publish};

/// What handlers share.
pub struct App {
    pub store: Store,
    /// The public URL, without a slash at the end.
    pub url: String,
    pub passwords: Passwords,
    pub limits: Limits,
    pub metrics: Metrics,
    /// Where artifacts are put beside here, if anywhere.
    pub publisher: Option<Arc<Publisher>>,
    /// Seals the tokens of `/v2/` and the console's forms; the same on every replica.
    pub seal_key: [u8; 32],
    /// The longest that a request may take, its body included.
    pub request_timeout: Duration,
    /// Places for pages that are watched.
    pub streams: Arc<Semaphore>,
    /// True when the server is asked to stop: streams end.
    pub stopping: watch::Sender<bool>,
}

/// Requests a principal may make.
pub struct Limits {
    /// Reports and refreshes of one satellite.
    pub reports: Limit,
    /// Reads of `/v2/` by one satellite.
    pub reads: Limit,
    /// Enrolments with one token.
    pub enrolments: Limit,
    /// Wrong passwords of one user from one address.
    pub logins: Limit,
    /// Wrong passwords of all users from one address.
    pub addresses: Limit,
}

impl App {
    /// Prepares a database for serving; `show` shows the first password of `admin` where it was
    /// made up.
    pub async fn prepare(
        store: Store,
        url: String,
        request_timeout: Duration,
        publisher: Option<Arc<Publisher>>,
        admin_password: Option<String>,
        show: impl FnOnce(&str) -> std::io::Result<()>,
    ) -> Result<Arc<Self>, String> {
        let passwords = Passwords::new();
        let fault = |fault: Fault| format!("preparing the database: {}", fault.message);
        first_user(&store, &passwords, admin_password, show).await?;
        let seal_key = seal_key(&store).await.map_err(fault)?;
        republish(&store, &url).await.map_err(fault)?;
        let limits = Limits {
            reports: Limit::new(30, 60),
            reads: Limit::new(600, 600),
            enrolments: Limit::new(20, 20),
            logins: Limit::new(20, 20),
            addresses: Limit::new(60, 60),
        };
        let metrics = Metrics::default();
        Ok(Arc::new(Self {
            store,
            url,
            passwords,
            limits,
            metrics,
            publisher,
            seal_key,
            request_timeout,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            stopping: watch::Sender::new(false),
        }))
    }

    /// Where satellites that enrol read their state, if not here; nothing otherwise.
    pub fn home(&self) -> &str {
        self.publisher.as_ref().map_or("", |publisher| &publisher.url)
    }
}

/// Makes the user `admin` in a database that has no users.
async fn first_user(
    store: &Store,
    passwords: &Passwords,
    given: Option<String>,
    show: impl FnOnce(&str) -> std::io::Result<()>,
) -> Result<(), String> {
    let failed = |error: sqlx::Error| format!("preparing the database: {error}");
    let mut read = store.read().await.map_err(failed)?;
    if !read.rows().users().await.map_err(failed)?.is_empty() {
        return Ok(());
    }
    drop(read);
    let (password, shown) = match given {
        Some(password) => {
            secret::check_password(&password)
                .map_err(|error| format!("GROUND_CONTROL_ADMIN_PASSWORD: {error}"))?;
            (password, None)
        }
        None => {
            let random = secret::random_hex(12).map_err(|error| format!("randomness: {error}"))?;
            let password = format!("Moon-{random}-1");
            (password.clone(), Some(password))
        }
    };
    let hash = passwords.hash(password).await.map_err(|_| "hashing a password failed")?;
    let mut write = store.change_at_start().await.map_err(failed)?;
    // Another replica may have been quicker.
    if !write.rows().users().await.map_err(failed)?.is_empty() {
        return Ok(());
    }
    let mut rows = write.rows();
    rows.add_user("admin", &hash, Role::SystemAdmin, clock::now()).await.map_err(failed)?;
    // A password that no one saw would lock all out: where it cannot be shown, it does not count.
    if let Some(password) = shown {
        show(&password).map_err(|error| format!("showing the first password: {error}"))?;
    }
    write.commit().await.map_err(failed)
}

async fn seal_key(store: &Store) -> Result<[u8; 32], Fault> {
    const NAME: &str = "pull_key";
    let mut write = store.change_at_start().await?;
    let text = match write.rows().setting(NAME).await? {
        Some(text) => text,
        None => {
            let text = secret::random(32)?;
            write.rows().set_setting(NAME, &text).await?;
            text
        }
    };
    write.commit().await?;
    Ok(blake3::derive_key("moonlet ground control pull tokens v1", text.as_bytes()))
}

/// Publishes all again where what stands was written by another version or for another URL.
async fn republish(store: &Store, url: &str) -> Result<(), Fault> {
    const NAME: &str = "published_by";
    let wanted = format!("{} {url}", env!("CARGO_PKG_VERSION"));
    let mut write = store.change_at_start().await?;
    if write.rows().setting(NAME).await?.as_ref() != Some(&wanted) {
        publish::all(&mut write.rows(), url).await?;
        write.rows().set_setting(NAME, &wanted).await?;
    }
    write.commit().await?;
    Ok(())
}

/// Pages that are watched at a time, at one server.
const STREAMS_MAX: usize = 64;
