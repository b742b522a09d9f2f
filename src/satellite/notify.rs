//! What a service manager wants to hear: that the satellite is ready, alive, and stopping.
//!
//! The protocol of `sd_notify(3)`: a datagram of `NAME=value` lines to the Unix socket that
//! `NOTIFY_SOCKET` names. Without that variable nothing is sent. The watchdog is fed from the
//! executor that serves, so that a satellite that is stuck gets restarted.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;

use log::warn;

use crate::clock::SharedClock;

/// A way to the service manager, if there is one.
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// `WATCHDOG_USEC`: how long the manager waits for a sign of life.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says. A socket that cannot be used is logged and passed over: serving
    /// matters more than being watched.
    pub fn from_env() -> Self {
        let usec = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        // Meant for another process, if it names one: sd_watchdog_enabled(3).
        let is_ours =
            std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let watchdog = usec.filter(|usec| *usec > 0 && is_ours).map(Duration::from_micros);
        let manager = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            connect(&name)
                .map_err(|error| warn!("NOTIFY_SOCKET={}: {error}", name.to_string_lossy()))
                .ok()
        });
        Self { manager, watchdog }
    }

    /// Everything that serves does.
    pub fn ready(&self) {
        self.send("READY=1\n");
    }

    /// A stop was asked for, and is under way.
    pub fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    /// Says that the executor still runs, for as long as it does, if the manager wants to hear it.
    pub async fn keep_alive(self: Rc<Self>, clock: SharedClock) {
        let Some(interval) = self.alive_interval() else { return };
        loop {
            self.send("WATCHDOG=1\n");
            clock.sleep(interval).await;
        }
    }

    /// Twice as often as the manager asks for, as its documentation recommends.
    fn alive_interval(&self) -> Option<Duration> {
        self.manager.as_ref().and(self.watchdog).map(|watchdog| watchdog / 2)
    }

    fn send(&self, state: &str) {
        let Some((socket, address)) = &self.manager else { return };
        // A manager that went away does not stop its services.
        let _ = socket.send_to_addr(state.as_bytes(), address);
    }
}

fn connect(name: &OsString) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop us either.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_what_is_sent() {
        let path = std::env::temp_dir().join(format!("moonlet-notify-{}", std::process::id()));
        let listening = UnixDatagram::bind(&path).unwrap();
        let name = path.clone().into_os_string();
        let notifier = Notifier {
            manager: Some(connect(&name).unwrap()),
            watchdog: Some(Duration::from_secs(60)),
        };
        assert_eq!(notifier.alive_interval(), Some(Duration::from_secs(30)));
        notifier.ready();
        notifier.stopping();
        let mut buffer = [0; 64];
        for expected in ["READY=1\n", "STOPPING=1\n"] {
            let length = listening.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected.as_bytes());
        }
        std::fs::remove_file(path).unwrap();
        // Nothing listens any more.
        notifier.ready();
        let silent = Notifier { manager: None, watchdog: Some(Duration::from_secs(60)) };
        assert_eq!(silent.alive_interval(), None);
    }

    #[test]
    fn abstract_names_begin_with_an_at_sign() {
        let name = format!("moonlet-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listening = UnixDatagram::bind_addr(&address).unwrap();
        let (socket, to) = connect(&OsString::from(format!("@{name}"))).unwrap();
        socket.send_to_addr(b"READY=1\n", &to).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(listening.recv(&mut buffer).unwrap(), 8);
    }
}
