//! The network: dialling, listening, TLS, and HTTP/1.1. Nobody else in the package opens a socket.
//!
//! Every wait has a deadline and every buffer a limit, because both ends are strangers: the far
//! side of a bad link, and whoever reaches the port that serves a LAN.

mod date;
pub mod dial;
mod error;
pub mod http;
mod listen;
pub mod tls;

pub use date::parse_http_date;
pub use error::Error;
pub use listen::{Identity, listen};
