//! TLS of a connection that was accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_rustls::{TlsAcceptor, TlsStream};
use smol::future::or;

use super::shared::Shared;
use super::slots::{Phase, Slot};
use super::wire::{Socket, Stream};
use crate::net::{Error, tls};

/// Greets the peer, with a deadline.
pub(super) async fn handshake(
    socket: Socket,
    peer: SocketAddr,
    shared: &Shared,
    slot: &Slot,
    config: Arc<rustls::ServerConfig>,
) -> Result<Stream, Error> {
    slot.set(Phase::Greeting);
    let acceptor = TlsAcceptor::from(config);
    // What is written before it is sent is a block, whose size is ours to choose.
    let accepting = acceptor.accept_with(socket, |connection| connection.set_buffer_limit(None));
    let deadline = async {
        shared.clock.sleep(shared.limits.head_deadline).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let stream = or(accepting, deadline).await.map_err(|error| {
        shared.metrics.http_refused.add(1);
        tls::failure("tls handshake with", &peer.to_string(), error)
    })?;
    slot.set(Phase::Idle);
    Ok(Stream::Tls(Box::new(TlsStream::from(stream))))
}
