//! In place of `users` where a build leaves passwords out: a configuration with `htpasswd` is refused,
//! so that there are none.

use std::path::PathBuf;

use super::access::refusal;
use crate::config::lacking;
use crate::net::http::{ClientAddress, ServerResponse};

pub struct Users;

impl Users {
    pub fn new(_: PathBuf, _: [u8; 32]) -> Self {
        Self
    }

    pub fn problem(&self) -> Option<String> {
        Some(lacking("[serve] htpasswd", "htpasswd"))
    }

    pub async fn admit(&self, _: Option<&str>, _: ClientAddress) -> Result<String, ServerResponse> {
        Err(refusal("no password is known here"))
    }
}
