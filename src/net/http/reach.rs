//! The way to a server in single steps, for those who want to know how far it goes.

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use url::Url;

use super::client::{Client, HEAD_BYTES_MAX, peer};
use super::pool::Peer;
use super::wire::{Socket, Stream, Wire};
use crate::net::{Error, dial};

/// A connection that nothing was sent over yet.
pub struct Connected<'a> {
    client: &'a Client,
    peer: Peer,
    socket: Socket,
}

impl Client {
    /// The host that requests for `url` are sent to, which may be a proxy, and its addresses.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn resolve(&self, url: &Url) -> Result<(String, Vec<IpAddr>), Error> {
        let peer = peer(url)?;
        let (host, port) = match self.proxy(&peer) {
            Some(proxy) => (proxy.host.clone(), proxy.port),
            None => (peer.host, peer.port),
        };
        let found = dial::resolve(&host, port, &self.network.resolver, &**self.clock()).await?;
        Ok((host, found.into_iter().map(|address| address.ip()).collect()))
    }

    /// Opens a connection for requests for `url`, through its proxy where it has one.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn connect(&self, url: &Url) -> Result<Connected<'_>, Error> {
        let peer = peer(url)?;
        let socket = self.reach(&peer, false).await?;
        Ok(Connected { client: self, peer, socket })
    }
}

impl Connected<'_> {
    /// Shakes hands where the URL wants TLS, and keeps the connection for the next request. Returns
    /// the moment at which the server's certificate ends, in seconds since 1970, if that is within
    /// `span` from now.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn keep(self, span: Duration) -> Result<Option<u64>, Error> {
        let Self { client, peer, socket } = self;
        let stream = client.secure(socket, &peer).await?;
        let end = match &stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => {
                let name = ServerName::try_from(peer.bare_host());
                let chain = stream.get_ref().1.peer_certificates();
                name.ok()
                    .zip(chain)
                    .and_then(|(name, chain)| client.trust.end_within(chain, &name, span))
            }
        };
        client.pool.put(&peer, Wire::new(stream, HEAD_BYTES_MAX, client.clock()));
        Ok(end)
    }
}
