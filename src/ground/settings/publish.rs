//! The registry that artifacts are put into, as the settings have it.

use std::path::PathBuf;

use serde::Deserialize;

use super::base;

/// Where artifacts are put, in the file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    pub to: Option<String>,
    pub url: Option<String>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub token_key: Option<PathBuf>,
    pub token_cert: Option<PathBuf>,
}

/// Where artifacts are put, by the settings.
#[derive(Clone)]
pub struct Target {
    pub is_harbor: bool,
    /// Scheme and host, without a slash at the end.
    pub url: String,
    pub credentials: Option<(String, String)>,
    pub ca_file: Option<PathBuf>,
    /// Key and certificate of the tokens that the registry takes, if it asks this server for them.
    pub token: Option<(PathBuf, PathBuf)>,
}

impl std::fmt::Debug for Target {
    /// Leaves the credentials out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Publish {
    /// Checks them; nothing where nothing is to be put anywhere.
    pub fn target(self) -> Result<Option<Target>, String> {
        let is_harbor = match self.to.as_deref() {
            None if self.url.is_none() => return Ok(None),
            None => return Err("publish: expected harbor or registry with publish_url".to_owned()),
            Some("harbor") => true,
            Some("registry") => false,
            Some(other) => {
                return Err(format!("publish {other:?}: expected harbor or registry"));
            }
        };
        let url = self.url.unwrap_or_default();
        let url = base(&url).ok_or_else(|| {
            // It may hold a password.
            "publish_url: expected https://host or http://host:port".to_owned()
        })?;
        let credentials = match (self.username, self.password) {
            (Some(name), Some(_)) if name.is_empty() || name.contains(':') => {
                return Err(format!("publish_username {name:?}: expected a name without a colon"));
            }
            (Some(name), Some(password)) => Some((name, password)),
            (None, None) if !is_harbor => None,
            (None, None) => {
                return Err("publish harbor: expected publish_username and a password".to_owned());
            }
            _ => {
                return Err(
                    "publish_username and its password: expected both or neither".to_owned()
                );
            }
        };
        let token = match (self.token_key, self.token_cert) {
            (None, None) => None,
            (Some(_), Some(_)) if is_harbor => {
                return Err(
                    "publish_token_key: expected publish registry: Harbor has accounts of \
                            its own"
                        .to_owned(),
                );
            }
            (Some(_), Some(_)) if credentials.is_none() => {
                return Err("publish_token_key: expected publish_username and a password, which \
                            this server shows itself to push"
                    .to_owned());
            }
            (Some(key), Some(certificate)) => Some((key, certificate)),
            _ => {
                return Err(
                    "publish_token_key and publish_token_cert: expected both or neither".to_owned()
                );
            }
        };
        Ok(Some(Target { is_harbor, url, credentials, ca_file: self.ca_file, token }))
    }
}
