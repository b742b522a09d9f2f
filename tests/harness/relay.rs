//! A TCP relay to another address, which counts what goes through it, and breaks on request.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::sockopt::set_socket_send_buffer_size;

pub struct Relay {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    bytes: AtomicU64,
    /// Bytes after which each connection is cut; 0 for never.
    cut_after: AtomicU64,
    /// Connections that were.
    cut: AtomicU64,
}

impl Relay {
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                // What it holds has not been sent, and would be counted.
                set_socket_send_buffer_size(&near, 4096).unwrap();
                // Who is not there hangs up.
                let Ok(far) = TcpStream::connect(to) else { continue };
                let carried = Arc::new(AtomicU64::new(0));
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (shared, carried) = (Arc::clone(&accepting), Arc::clone(&carried));
                    std::thread::spawn(move || carry(from, to, &shared, &carried));
                }
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes so far, in both directions.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// From now on cuts every connection after so many bytes; 0 for no more.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.cut_after.store(bytes, Ordering::Relaxed);
    }

    /// Connections that were cut so far.
    pub fn cut(&self) -> u64 {
        self.shared.cut.load(Ordering::Relaxed)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, shared: &Shared, carried: &AtomicU64) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        shared.bytes.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        let sum = carried.fetch_add(length as u64, Ordering::Relaxed) + length as u64;
        let limit = shared.cut_after.load(Ordering::Relaxed);
        if limit > 0 && sum > limit {
            shared.cut.fetch_add(1, Ordering::Relaxed);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
