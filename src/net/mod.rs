//! The network: dialling, listening, TLS, and HTTP/1.1. Nothing else on the device opens a socket
//! but `satellite::notify`, which writes to the service manager's.
//!
//! Every wait has a deadline and every buffer a limit, because both ends are untrusted: the far
//! side of a bad link, and every client that reaches the port that serves a LAN.

mod authority;
mod der;
pub mod dial;
mod error;
mod gate;
pub mod http;
mod listen;
mod meter;
mod proxy;
mod resolve;
pub mod tls;

use std::rc::Rc;

pub use authority::Authority;
pub use error::Error;
pub use gate::{Admission, Gate};
pub use listen::{Identity, listen};
pub use meter::Meter;
pub use proxy::Proxies;
pub use resolve::Resolver;

/// The ways to a host. By default without proxies; clones share what was looked up.
#[derive(Clone, Default)]
pub struct Network {
    /// Names into addresses.
    pub resolver: Resolver,
    /// What stands between.
    pub proxies: Proxies,
    /// What says whether bytes may go; without one all may.
    pub gate: Option<Rc<dyn Gate>>,
    /// Where it is counted.
    pub meter: Rc<Meter>,
}
