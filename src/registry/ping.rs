//! Whether a registry answers, and takes who we are.

use super::{Error, Registry};
use crate::net::http::{Client, Headers, Method};
use url::Url;

impl Registry {
    /// Asks `/v2/`, with the credentials if the registry wants them.
    ///
    /// # Errors
    /// [`crate::kind::Kind::Denied`] when it does not take them, or wants some and there are none;
    /// whatever else goes wrong with a request.
    pub async fn ping(&self) -> Result<(), Error> {
        let response = self.request(Method::Get, "", "", Headers::new()).await?;
        self.expect(response, "", "").await?;
        Ok(())
    }

    /// What sends the requests, for those who look how far the way goes.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Where the registry answers.
    pub fn base(&self) -> &Url {
        &self.0.base
    }
}
