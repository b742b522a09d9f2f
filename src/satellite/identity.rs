//! The certificate of the read API, taken up when its files change.
//!
//! Certificates are renewed on disk, hourly by some, and a satellite must not be restarted for it.
//! Certificate and key are replaced one after the other: files are read once they are the same at
//! two looks. What cannot be used is reported, and the last that could be is shown on.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use log::info;

use crate::clock::SharedClock;
use crate::config::{ServerTls, Stamp, stamp};
use crate::net::{Identity, tls};
use crate::status::Health;

/// A certificate and its key, in files.
pub struct Certificate {
    files: ServerTls,
    identity: RefCell<Option<Identity>>,
    /// The files that were read last.
    read: Cell<Stamps>,
    health: Health,
}

type Stamps = [Option<Stamp>; 3];

impl Certificate {
    /// Reads `files`; what is wrong with them is reported.
    pub fn new(files: ServerTls, health: Health) -> Self {
        let read = Cell::new(stamps(&files));
        let certificate = Self { files, identity: RefCell::default(), read, health };
        certificate.read();
        certificate
    }

    /// The files it is from.
    pub fn files(&self) -> &ServerTls {
        &self.files
    }

    /// What is to be shown; none before files were good once.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.borrow().clone()
    }

    /// Reads the files now.
    pub fn read(&self) {
        self.read.set(stamps(&self.files));
        let ServerTls { cert, key, client_ca } = &self.files;
        match tls::server_config(cert, key, client_ca.as_deref()) {
            Ok(config) => {
                match self.identity() {
                    Some(identity) => {
                        identity.renew(config);
                        info!("{PART}: {} is shown from now on", cert.display());
                    }
                    None => drop(self.identity.replace(Some(Identity::new(config)))),
                }
                self.health.works(PART);
            }
            Err(error) if self.identity.borrow().is_none() => {
                self.health.failed(PART, &format!("{error}; nothing is served until it is good"));
            }
            Err(error) => {
                self.health.degraded(PART, &format!("{error}; the one before is still shown"));
            }
        }
    }

    /// Reads the files whenever they have changed, without end.
    pub async fn watch(&self, clock: &SharedClock) {
        let mut last = self.read.get();
        loop {
            clock.sleep(LOOK_PAUSE).await;
            let now = stamps(&self.files);
            if now == last && now != self.read.get() {
                self.read();
            }
            last = now;
        }
    }
}

fn stamps(files: &ServerTls) -> Stamps {
    let client_ca = files.client_ca.as_deref().and_then(stamp);
    [stamp(&files.cert), stamp(&files.key), client_ca]
}

/// As status names it.
pub const PART: &str = "certificate of the read API";
/// Three looks at metadata that the kernel has in memory.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
