//! Opening a TCP connection to a named host.
//!
//! IPv6 and IPv4 are raced as RFC 8305 asks: families interleaved, the next attempt begins when the
//! one before has failed or after 250 ms, the first to connect wins and the rest are dropped. One
//! deadline covers it all, for a name server that does not answer costs as much as a host that does
//! not. The socket is built here and not by std, because a receive buffer must be set before the
//! handshake fixes the window's scale.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use smol::Async;

use super::{Error, Resolver};
use crate::clock::{Alarm, Clock};
use crate::kind::Kind;

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time for resolving and connecting together.
    pub deadline: Duration,
    /// Size of the kernel's receive buffer in bytes; `None` leaves it to the kernel. It bounds
    /// what a cut link can lose, and with it the rate: buffer / round trip.
    pub receive_buffer_bytes: Option<u32>,
    /// Only addresses of the internet are dialled: the host is of a client's choice.
    pub public_only: bool,
}

/// Connects to `host` (a name, or an address with or without brackets) on `port`.
///
/// `Kind::Retry` for everything a link can do; the message names the host.
pub async fn connect(
    host: &str,
    port: u16,
    resolver: &Resolver,
    options: &Options,
    clock: &dyn Clock,
) -> Result<Async<TcpStream>, Error> {
    let attempt = async {
        let mut addresses = resolve(host, port, resolver, clock).await?;
        if options.public_only {
            addresses.retain(|address| is_public(address.ip()));
            if addresses.is_empty() {
                let what = format!("connect to {host}:{port}: {NOT_PUBLIC}");
                return Err(Error::new(Kind::Denied, what));
            }
        }
        let socket =
            race(addresses, options.receive_buffer_bytes, clock).await.map_err(|error| {
                // The host may have moved.
                resolver.forget(host);
                Error::io(Kind::Retry, format_args!("connect to {host}:{port}"), error)
            })?;
        // A public address may be the device's own.
        if options.public_only && is_own(socket.get_ref()) {
            let what = format!("connect to {host}:{port}: it is this device");
            return Err(Error::new(Kind::Denied, what));
        }
        Ok(socket)
    };
    smol::future::or(attempt, async {
        clock.sleep(options.deadline).await;
        resolver.forget(host);
        let seconds = options.deadline.as_secs();
        let message = format!("connect to {host}:{port}: no answer within {seconds} s");
        Err(Error::new(Kind::Retry, message))
    })
    .await
}

/// Addresses of a host in the order in which they should be tried, at least one.
pub(super) async fn resolve(
    host: &str,
    port: u16,
    resolver: &Resolver,
    clock: &dyn Clock,
) -> Result<Vec<SocketAddr>, Error> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = resolver.addresses(host, clock.monotonic()).await;
    let found =
        found.map_err(|error| Error::io(Kind::Retry, format_args!("resolve {host}"), error))?;
    if found.is_empty() {
        return Err(Error::new(Kind::Retry, format!("resolve {host}: the name has no address")));
    }
    Ok(interleave(found.into_iter().map(|address| SocketAddr::new(address, port)).collect()))
}

/// Families in turn, beginning with the one that the resolver put first.
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::new();
    while turns.len() < ADDRESSES_MAX {
        let before = turns.len();
        turns.extend(first.next());
        turns.extend(second.next());
        if turns.len() == before {
            break;
        }
    }
    turns.truncate(ADDRESSES_MAX);
    turns
}

/// Whether an address is one of the internet: not of this device, its network or a special use (RFC
/// 6890), in whatever way it is written.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            let is_special = match (first, second) {
                (0 | 10 | 127 | 224.., _) | (169, 254) | (192, 168) | (198, 18 | 19) => true,
                (100, second) => second & 0xc0 == 64,
                (172, second) => second & 0xf0 == 16,
                (192, 0) => third == 0 || third == 2,
                (198, 51) => third == 100,
                (203, 0) => third == 113,
                _ => false,
            };
            !is_special
        }
        IpAddr::V6(address) => match address.segments() {
            // IPv4 in the clothes of IPv6: mapped, and by NAT64.
            [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
                let [.., a, b, c, d] = address.octets();
                is_public(IpAddr::from([a, b, c, d]))
            }
            // Of what is given out (2000::/3) not Teredo, documentation, 6to4.
            [0x2001, 0 | 0xdb8, ..] | [0x2002 | 0x3fff, ..] => false,
            [first, ..] => first & 0xe000 == 0x2000,
        },
    }
}

/// Whether both ends of a connection are on one address, and so on this device.
fn is_own(socket: &TcpStream) -> bool {
    let ends = socket.local_addr().and_then(|local| Ok((local.ip(), socket.peer_addr()?.ip())));
    ends.is_ok_and(|(local, peer)| local == peer)
}

/// Why a host is not dialled for a client.
pub(super) const NOT_PUBLIC: &str = "it has no address but private ones";

type Attempt = Pin<Box<dyn Future<Output = io::Result<Async<TcpStream>>>>>;

/// The first of the addresses to connect; else the last error.
async fn race(
    addresses: Vec<SocketAddr>,
    receive_buffer_bytes: Option<u32>,
    clock: &dyn Clock,
) -> Attempted {
    let mut waiting = addresses.into_iter();
    let mut running: Vec<Attempt> = Vec::new();
    let mut stagger = Alarm::never();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut start_next = true;
    poll_fn(|cx| {
        loop {
            if start_next && let Some(address) = waiting.next() {
                running.push(Box::pin(open(address, receive_buffer_bytes)));
                stagger = clock.sleep(STAGGER);
            }
            start_next = false;
            let mut index = 0;
            while let Some(attempt) = running.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        drop(running.swap_remove(index));
                        last = error;
                        start_next = true;
                    }
                    Poll::Pending => index += 1,
                }
            }
            if waiting.len() > 0 {
                if !start_next {
                    start_next = Pin::new(&mut stagger).poll(cx).is_ready();
                }
                if start_next {
                    continue;
                }
            } else if running.is_empty() {
                let error = std::mem::replace(&mut last, io::ErrorKind::Other.into());
                return Poll::Ready(Err(error));
            }
            return Poll::Pending;
        }
    })
    .await
}

type Attempted = io::Result<Async<TcpStream>>;

/// One connection to one address, its options set.
async fn open(address: SocketAddr, receive_buffer_bytes: Option<u32>) -> Attempted {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if let Some(bytes) = receive_buffer_bytes {
        // The kernel doubles the value to make room for its own bookkeeping.
        sockopt::set_socket_recv_buffer_size(&socket, usize::try_from(bytes / 2).unwrap_or(0))?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = Async::new_nonblocking(TcpStream::from(socket))?;
    stream.writable().await?;
    if let Some(error) = stream.get_ref().take_error()? {
        return Err(error);
    }
    tune(stream.get_ref())?;
    Ok(stream)
}

/// What every connection wants, dialled or accepted: small answers at once (without TCP_NODELAY one
/// costs 40 ms), and the death of a silent peer noticed.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

/// Addresses of one host that are tried at most.
const ADDRESSES_MAX: usize = 8;
/// RFC 8305, "Connection Attempt Delay".
const STAGGER: Duration = Duration::from_millis(250);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_PROBES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::clock::sim::SimulatedClock;
    use std::net::TcpListener;

    const OPTIONS: Options = Options {
        deadline: Duration::from_secs(5),
        receive_buffer_bytes: Some(128 << 10),
        public_only: false,
    };

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let found: Vec<_> = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]
            .into_iter()
            .map(address)
            .collect();
        let turns = interleave(found);
        let text: Vec<_> = turns.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        let many = (0..40).map(|port| SocketAddr::from(([1, 1, 1, 1], port))).collect();
        assert_eq!(interleave(many).len(), ADDRESSES_MAX);
    }

    #[test]
    fn clients_reach_the_internet_only() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.0.1",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_own(&own));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = Options { public_only: true, ..OPTIONS };
        for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
            let resolver = Resolver::default();
            let error =
                smol::block_on(connect(host, port, &resolver, &options, &SystemClock::new()))
                    .unwrap_err();
            assert_eq!(error.kind(), Kind::Denied, "{error}");
        }
    }

    #[test]
    fn the_second_address_wins_when_the_first_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let refused = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        // Its time stands still: nothing that waits for the stagger would ever end.
        let clock = SimulatedClock::new(0);
        let stream = smol::block_on(race(vec![refused, good], None, &clock)).unwrap();
        assert_eq!(stream.get_ref().peer_addr().unwrap(), good);
        assert!(stream.get_ref().nodelay().unwrap());
    }

    #[test]
    fn a_refusal_names_the_host() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = smol::block_on(connect(
            "127.0.0.1",
            port,
            &Resolver::default(),
            &OPTIONS,
            &SystemClock::new(),
        ))
        .unwrap_err();
        assert_eq!(error.kind(), Kind::Retry);
        assert_eq!(error.to_string(), format!("connect to 127.0.0.1:{port}: connection refused"));
    }

    #[test]
    fn names_are_resolved_and_buffers_set() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = smol::block_on(connect(
            "localhost",
            port,
            &Resolver::default(),
            &OPTIONS,
            &SystemClock::new(),
        ))
        .unwrap();
        let bytes = sockopt::socket_recv_buffer_size(stream.get_ref()).unwrap();
        assert!(bytes <= 128 << 10, "{bytes}");
    }
}
