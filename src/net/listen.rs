//! Sockets that listen, and who they say they are.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::ServerConfig;

use super::Error;
use crate::kind::Kind;

/// Listens on `address`. `ipv6_only` leaves IPv4 to another socket, which may then listen on the
/// same port: left alone the kernel binds `[::]` to both.
///
/// # Errors
/// [`Kind::Retry`] when the address cannot be had: it may not be up yet, or be in use still.
pub fn listen(address: SocketAddr, ipv6_only: bool) -> Result<TcpListener, Error> {
    let failed = |error: rustix::io::Errno| {
        Error::io(Kind::Retry, format_args!("listen on {address}"), error.into())
    };
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
    // A restart must not wait for the connections of the process before.
    sockopt::set_socket_reuseaddr(&socket, true).map_err(failed)?;
    if address.is_ipv6() && ipv6_only {
        sockopt::set_ipv6_v6only(&socket, true).map_err(failed)?;
    }
    rustix::net::bind(&socket, &address).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
    Ok(TcpListener::from(socket))
}

/// The certificate that a server shows, which may be renewed while it runs: connections that are
/// open keep the one they began with.
#[derive(Clone)]
pub struct Identity(Rc<RefCell<Arc<ServerConfig>>>);

impl Identity {
    /// What is shown first.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(Rc::new(RefCell::new(config)))
    }

    /// What is shown now.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.borrow())
    }

    /// Shows `config` from now on.
    pub fn renew(&self, config: Arc<ServerConfig>) {
        self.0.replace(config);
    }
}

/// Connections that the kernel holds until they are accepted; it caps it by net.core.somaxconn.
const BACKLOG: i32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_and_ipv6_share_a_port() {
        // Somebody else may have the port that was free for IPv6.
        let mut tried = Vec::new();
        for _ in 0..20 {
            let Ok(six) = listen("[::]:0".parse().unwrap(), true) else {
                return; // A machine without IPv6.
            };
            let port = six.local_addr().unwrap().port();
            let four = SocketAddr::from(([0, 0, 0, 0], port));
            match listen(four, false) {
                Ok(_) => return,
                Err(error) => tried.push((six, error)),
            }
        }
        panic!("{tried:?}");
    }

    #[test]
    fn an_address_that_is_not_there_may_come_later() {
        let error = listen("203.0.113.7:8585".parse().unwrap(), false).unwrap_err();
        assert_eq!(error.kind(), Kind::Retry);
        assert!(error.to_string().starts_with("listen on 203.0.113.7:8585: "), "{error}");
    }
}
