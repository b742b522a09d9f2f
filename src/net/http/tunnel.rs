//! The bytes of others, to and fro between a client and a host of its choice.
//!
//! They are counted as all bytes of the uplink are, and ask before each piece, in either direction,
//! whether they may go. A tunnel ends when both sides have ended, one of them fails, nothing has moved
//! for [`IDLE`], or its bytes may not go any more.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::time::Duration;

use smol::future::{or, try_zip, yield_now};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::wire::Socket;
use crate::clock::Clock;
use crate::net::Error;
use crate::net::gate::Link;

/// A tunnel that is about to be used.
pub struct Tunnel {
    /// Where it leads.
    pub far: FarEnd,
    /// Is asked before each piece.
    pub leave: Leave,
}

/// Says when a piece of a tunnel may go, or that it may not.
pub type Leave = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Error>>>>>;

/// The connection to a host, and the account of what is sent to it.
pub struct FarEnd {
    pub(super) socket: Socket,
    pub(super) sent: Link,
}

impl Tunnel {
    /// Moves bytes until the tunnel ends.
    pub(super) async fn relay(self, client: Socket, clock: &dyn Clock) -> io::Result<()> {
        let Self { far: FarEnd { mut socket, sent: mut account }, leave } = self;
        let ((near, _), (far, mut link)) = (client.parts(), socket.parts_mut());
        let moved = Cell::new(clock.monotonic());
        let down = async {
            let (mut reader, mut writer, mut buffer) = (far, near, vec![0; PIECE_BYTES]);
            loop {
                leave().await.map_err(io::Error::other)?;
                if let Some(link) = &mut link {
                    link.admit(0, u64::MAX).await.map_err(io::Error::other)?;
                }
                let bytes = reader.read(&mut buffer).await?;
                match &mut link {
                    Some(link) if bytes == 0 => link.ended(false),
                    Some(link) => link.received(bytes),
                    None => {}
                }
                if bytes == 0 {
                    return near.get_ref().shutdown(Shutdown::Write);
                }
                moved.set(clock.monotonic());
                writer.write_all(buffer.get(..bytes).unwrap_or_default()).await?;
                moved.set(clock.monotonic());
                yield_now().await;
            }
        };
        let up = async {
            let (mut reader, mut writer, mut buffer) = (near, far, vec![0; PIECE_BYTES]);
            loop {
                let bytes = reader.read(&mut buffer).await?;
                if bytes == 0 {
                    return far.get_ref().shutdown(Shutdown::Write);
                }
                moved.set(clock.monotonic());
                leave().await.map_err(io::Error::other)?;
                account.admit(bytes as u64, 0).await.map_err(io::Error::other)?;
                account.sent(bytes);
                writer.write_all(buffer.get(..bytes).unwrap_or_default()).await?;
                account.release();
                moved.set(clock.monotonic());
                yield_now().await;
            }
        };
        let idle = async {
            loop {
                let end = moved.get() + IDLE;
                if end <= clock.monotonic() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                clock.alarm(end).await;
            }
        };
        or(async { try_zip(down, up).await.map(drop) }, idle).await
    }
}

/// What is moved at a time.
const PIECE_BYTES: usize = 8 << 10;
/// Nothing has moved for so long: the peers have forgotten it, or one of them is gone.
const IDLE: Duration = Duration::from_mins(5);
