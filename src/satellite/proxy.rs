//! The forward proxy of a satellite, and its certificate authority.
//!
//! The authority is made when the proxy is first configured and kept in the log, sealed as what
//! Ground Control issued is: there is a log on every kind of store, and a card that is read
//! elsewhere shows no key that others trust.

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use log::info;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use smol::LocalExecutor;

use super::run::Satellite;
use super::service::{Service, service};
use super::{Failure, show};
use crate::config::Config;
use crate::control::Seal;
use crate::net::Authority;
use crate::net::http::{ServerRequest, ServerResponse};
use crate::oci::Digest;
use crate::proxy::{AUTHORITY_PATH, Proxy, Registries};
use crate::serve::{Api, Caller};

impl Registries for Api {
    fn answers_for(&self, registry: &str) -> bool {
        self.serves(registry)
    }

    type Caller = Caller;

    async fn admit(
        &self,
        request: &ServerRequest,
        credentials: Option<&str>,
    ) -> Result<Caller, ServerResponse> {
        Api::admit(self, request, credentials).await
    }

    async fn answer(&self, request: &ServerRequest, caller: &Caller) -> ServerResponse {
        Api::answer(self, request, caller).await
    }
}

/// The service.
pub type Forward = Service<Proxy<Api>>;

/// The proxy before `api`, which does not listen yet.
pub fn forward(
    satellite: &Satellite,
    api: &Rc<Api>,
    executor: &Rc<LocalExecutor<'static>>,
) -> Forward {
    let rules = satellite.config().proxy.clone().unwrap_or_default();
    let handler = Proxy::new(Rc::clone(api), satellite.client(), satellite.client_terms(), rules);
    let served = Rc::clone(&satellite.metrics);
    service("forward proxy", Rc::new(handler), served, satellite, executor)
}

/// Puts the proxy's rules into effect, and has its authority made once; where that cannot be kept,
/// clients would have to trust another one after each start.
pub async fn configure(satellite: &Satellite, forward: &Forward) {
    let handler = &forward.handler;
    let rules = satellite.config().proxy.clone();
    let is_wanted = rules.is_some();
    handler.configure(satellite.client(), rules.unwrap_or_default());
    if !is_wanted || handler.has_authority() {
        satellite.health.works(PART);
        return;
    }
    match authority(satellite).await {
        Ok(authority) => {
            handler.set_authority(authority);
            satellite.health.works(PART);
        }
        Err(why) => {
            let reason = format!("{why}; registries are answered 503, tried again");
            satellite.health.failed(PART, &reason);
        }
    }
}

/// The authority that is kept, or one that is from now on.
///
/// # Errors
/// Why there is none. One that is kept and cannot be opened is not replaced: what it was sealed
/// with may come back, and clients trust it.
async fn authority(satellite: &Satellite) -> Result<Authority, String> {
    let seal = seal(&satellite.config());
    let renewing = "moonlet proxy ca --new makes another, which clients have to trust anew";
    let kept = kept(satellite, &seal).map_err(|why| format!("{why}; {renewing}"))?;
    let authority = match kept {
        Some(authority) => authority,
        None => make(satellite, &seal).await?,
    };
    info!("{PART}: {:?}, SHA-256 {}", authority.name(), fingerprint(&authority.pem())?);
    Ok(authority)
}

async fn make(satellite: &Satellite, seal: &Seal) -> Result<Authority, String> {
    let made = Authority::generate(&satellite.config().name).map_err(|error| error.to_string())?;
    let sealed = seal.seal(&made.to_bytes()).map_err(|error| error.to_string())?;
    let set = satellite.store.set_document(DOCUMENT, &sealed).await;
    set.map(|()| made).map_err(|error| error.to_string())
}

/// Prints the authority's certificate; of a satellite that runs what its proxy says, which another
/// program in its place could say too, hence the fingerprint.
pub async fn print_authority(config: Config) -> Result<ExitCode, Failure> {
    let listen = config.proxy.as_ref().map_or(Vec::new(), |proxy| proxy.listen.clone());
    let pem = match Satellite::inspect(config).await {
        Ok(satellite) => match kept(&satellite, &seal(&satellite.config())).map_err(failure)? {
            Some(authority) => authority.pem(),
            None => {
                let what = "there is none yet: moonlet run makes it where [proxy] is configured";
                return Err(failure(what.to_owned()));
            }
        },
        Err(in_use) => {
            let mut found = None;
            for address in listen {
                let url = format!("http://{address}{AUTHORITY_PATH}");
                found = found.or(show::answer(&url).await);
            }
            String::from_utf8_lossy(&found.ok_or(in_use)?).into_owned()
        }
    };
    let fingerprint = fingerprint(&pem).map_err(failure)?;
    show::complain(&format!("SHA-256 {fingerprint}: expected as the satellite's log has it"));
    show::print(&pem)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes another authority in place of the one that is kept, and prints its certificate.
pub async fn renew_authority(config: Config) -> Result<ExitCode, Failure> {
    let satellite = Satellite::open(config)?;
    let made = make(&satellite, &seal(&satellite.config())).await.map_err(failure)?;
    show::print(&made.pem())?;
    Ok(ExitCode::SUCCESS)
}

/// The SHA-256 of a certificate, in hexadecimal digits.
fn fingerprint(pem: &str) -> Result<String, String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes());
    let der = der.map_err(|_| "what answers is no certificate in PEM".to_owned())?;
    let digest = Digest::sha256(&der).to_string();
    Ok(digest.trim_start_matches("sha256:").to_owned())
}

fn failure(what: String) -> Failure {
    Failure(format!("{PART}: {what}"))
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
const PART: &str = "certificate authority of the proxy";
/// What the log calls it.
const DOCUMENT: &str = "proxy-authority";
