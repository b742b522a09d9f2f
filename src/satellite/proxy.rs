//! The forward proxy of a satellite, and its certificate authority.
//!
//! The authority is made when the proxy is first configured and kept in the log, sealed as what Ground
//! Control gave is: there is a log on every kind of store, and a card that is read elsewhere shows no
//! key that others trust.

use std::path::Path;
use std::process::ExitCode;

use log::{error, info};

use super::run::Satellite;
use super::{Failure, show};
use crate::config::Config;
use crate::control::Seal;
use crate::net::Authority;
use crate::net::http::{ServerRequest, ServerResponse};
use crate::proxy::{AUTHORITY_PATH, Registries};
use crate::serve::Api;

impl Registries for Api {
    fn answers_for(&self, registry: &str) -> bool {
        self.serves(registry)
    }

    async fn admit(&self, credentials: Option<&str>) -> Result<(), ServerResponse> {
        Api::admit(self, credentials).await
    }

    async fn answer(&self, request: &ServerRequest) -> ServerResponse {
        Api::answer(self, request).await
    }
}

/// The authority that is kept, or one that is from now on.
pub async fn authority(satellite: &Satellite) -> Result<Authority, String> {
    let seal = seal(&satellite.config());
    match kept(satellite, &seal) {
        Ok(Some(authority)) => return Ok(authority),
        Ok(None) => {}
        Err(why) => {
            error!("{PART}: {why}; another one is made, which clients have to trust anew");
        }
    }
    let made = Authority::generate(&satellite.config().name).map_err(|error| error.to_string())?;
    let sealed = seal.seal(&made.to_bytes()).map_err(|error| error.to_string())?;
    let set = satellite.store.set_document(DOCUMENT, &sealed).await;
    set.map_err(|error| error.to_string())?;
    info!("{PART}: {:?} is made; moonlet proxy ca prints it", made.name());
    Ok(made)
}

/// Prints the authority's certificate, which a satellite that runs is asked for.
pub async fn print_authority(config: Config) -> Result<ExitCode, Failure> {
    for address in config.proxy.iter().flat_map(|proxy| &proxy.listen) {
        if let Some(pem) = show::answer(&format!("http://{address}{AUTHORITY_PATH}")).await {
            show::print(&String::from_utf8_lossy(&pem))?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let satellite = Satellite::inspect(config).await?;
    match kept(&satellite, &seal(&satellite.config())) {
        Ok(Some(authority)) => {
            show::print(&authority.pem())?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(None) => {
            let what = "there is none yet: moonlet run makes it where [proxy] is configured";
            Err(Failure(format!("{PART}: {what}")))
        }
        Err(why) => Err(Failure(format!("{PART}: {why}"))),
    }
}

fn kept(satellite: &Satellite, seal: &Seal) -> Result<Option<Authority>, String> {
    let Some(sealed) = satellite.store.document(DOCUMENT) else { return Ok(None) };
    let bytes = seal.open(&sealed).map_err(|error| error.to_string())?;
    Authority::from_bytes(&bytes).map(Some).map_err(|error| error.to_string())
}

fn seal(config: &Config) -> Seal {
    let key_file = config.ground_control.as_ref().and_then(|ground| ground.key_file.clone());
    Seal::new(Path::new("/"), key_file)
}

/// As status names it.
pub const PART: &str = "certificate authority of the proxy";
/// What the log calls it.
const DOCUMENT: &str = "proxy-authority";
