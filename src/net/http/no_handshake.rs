//! In place of `handshake` where a build leaves the server's side of TLS out: a configuration that
//! needs it is refused.

use std::net::SocketAddr;
use std::sync::Arc;

use super::shared::Shared;
use super::slots::Slot;
use super::wire::{Socket, Stream};
use crate::config::lacking;
use crate::kind::Kind;
use crate::net::Error;

pub(super) async fn handshake(
    _: Socket,
    peer: SocketAddr,
    _: &Shared,
    _: &Slot,
    _: Arc<rustls::ServerConfig>,
) -> Result<Stream, Error> {
    Err(Error::new(Kind::Invalid, lacking(&format!("tls with {peer}"), "serve-tls")))
}
