//! What the connections of a listener share.

use std::cell::RefCell;
use std::rc::Rc;

use super::answer::DateLine;
use super::limits::ServerLimits;
use crate::clock::SharedClock;
use crate::metrics::Metrics;
use crate::net::Identity;

/// A listener's part of each connection.
pub(super) struct Shared {
    pub tls: Option<Identity>,
    pub limits: ServerLimits,
    pub metrics: Rc<Metrics>,
    pub clock: SharedClock,
    pub date: DateLine,
    /// What is read of a file passes through here on its way to where it is encrypted.
    pub block: RefCell<Vec<u8>>,
}
