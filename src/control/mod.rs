//! The satellite's side of the fleet: enrolment, desired state, reports.
//!
//! Ground Control may be Moonlet's or Go's: the contract is `fleet`. What it answered is written to
//! the log, sealed, before it is used, so that power loss spends no enrolment token for nothing.
//! The desired state is kept there too, as it was last read and found good, and holds after a
//! restart with no network at all. An artifact that cannot be read or makes no sense leaves what
//! was known of it in effect, and is reported; it holds up none of the others.
//!
//! A remote configuration that changes where the satellite listens, how it reaches the link or whom
//! it obeys is on trial first, so that no mistake in it can cut a satellite off.
//!
//! | file | holds |
//! |---|---|
//! | `client` | Ground Control's API |
//! | `artifact` | reading a state artifact from a registry |
//! | `documents` | reading the state where a file or a URL says it, and no Ground Control |
//! | `enrolment` | letting Ground Control know this satellite, and reporting to it |
//! | `desired` | the state as it is kept; what it adds to the configuration, `desired/wanted` |
//! | `source` | who says what to hold, and the ways there |
//! | `trial` | what a remote configuration that changes a way has to show before it stays |
//! | `seal` | what keeps credentials unreadable on flash |

mod artifact;
mod client;
mod desired;
mod documents;
mod enrolment;
mod error;
mod poll;
mod seal;
mod source;
mod trial;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::blob::Store;
use crate::blob::format::DOCUMENT_BYTES_MAX;
use crate::clock::SharedClock;
use crate::config;
use crate::fleet::enrol::Credentials;
use crate::fleet::state::Url;
use crate::kind::Kind;
use crate::net::http::{Client, ClientLimits};
use crate::net::{Network, tls};
use crate::oci::Digest;
use crate::registry::{self, Password, Registry};
use client::GroundControl;
use desired::Desired;
use desired::wanted::Own;
pub use desired::wanted::Wanted;
use documents::Documents;
use enrolment::ENROLMENT;
pub use error::Error;
use seal::SEAL_BYTES;
pub use seal::Seal;
use source::{Fleet, Source, tls_options};
use trial::Trial;

/// What the fleet's side works with.
pub struct Parts {
    /// Where enrolment and desired state are kept.
    pub store: Store,
    /// For certificates and timeouts.
    pub clock: SharedClock,
    /// What the device says of itself when it enrols.
    pub facts: BTreeMap<String, String>,
}

/// The fleet's side of a satellite that may or may not be part of one.
pub struct Control {
    parts: Parts,
    fleet: RefCell<Option<Rc<Fleet>>>,
    enrolment: RefCell<Option<Enrolment>>,
    desired: RefCell<Rc<Desired>>,
    /// What was read and could not be kept: it is not fetched again for that.
    unkept: RefCell<Option<Desired>>,
    /// What the configuration is made of is another thing than when that was last taken.
    is_changed: Cell<bool>,
    /// The credentials were refused since they were last good.
    is_refused: Cell<bool>,
    trial: Trial,
}

/// What Ground Control answered, as it is kept.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Enrolment {
    /// Where it came from.
    ground_control: String,
    /// The satellite-state artifact.
    state: String,
    auth: Credentials,
    /// The hash of the token that it was given for.
    token_hash: String,
}

/// What is kept for the fleet and cannot be read; each is fetched again.
#[derive(Debug, Default)]
pub struct Lost {
    /// The enrolment.
    pub enrolment: Option<Error>,
    /// The desired state.
    pub desired: Option<Error>,
}

impl Control {
    /// Part of no fleet yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            fleet: RefCell::default(),
            enrolment: RefCell::default(),
            desired: RefCell::default(),
            unkept: RefCell::default(),
            is_changed: Cell::new(false),
            is_refused: Cell::new(false),
            trial: Trial::default(),
        }
    }

    /// Puts `[ground_control]` or `[state]` into effect, or the absence of both: reads what is kept
    /// for it.
    pub fn configure(
        &self,
        ground: Option<&config::GroundControl>,
        state: Option<&config::State>,
        network: &Network,
    ) -> Lost {
        self.is_refused.set(false);
        self.unkept.replace(None);
        self.trial.restart(None);
        self.fleet.replace(self.reach(ground, state, network));
        let Ok(fleet) = self.fleet() else {
            self.enrolment.replace(None);
            self.desired.replace(Rc::default());
            return Lost::default();
        };
        let enrolment = self.load(&fleet, ENROLMENT, |text| serde_json::from_slice(text).ok());
        let desired = self.load(&fleet, DESIRED, |bytes| {
            let (version, bytes) = bytes.split_first()?;
            let is_known = *version == DESIRED_VERSION;
            // What another version wrote is fetched again.
            Some(if is_known { postcard::from_bytes(bytes).ok()? } else { Desired::default() })
        });
        let (enrolment, no_enrolment) = kept_or_lost(enrolment);
        self.enrolment.replace(enrolment);
        let (desired, no_desired) = kept_or_lost(desired);
        self.desired.replace(Rc::new(desired.unwrap_or_default()));
        fleet.follow(&self.desired.borrow());
        Lost { enrolment: no_enrolment, desired: no_desired }
    }

    /// Every way leads through another network from here on.
    pub fn reroute(&self, network: &Network) {
        let Ok(fleet) = self.fleet() else { return };
        let (ground, state) = match &fleet.source {
            Source::Ground(config, _) => (Some(config), None),
            Source::Documents(documents) => (None, Some(&documents.config)),
        };
        let fleet = self.reach(ground, state, network);
        fleet.iter().for_each(|fleet| fleet.follow(&self.desired.borrow()));
        self.fleet.replace(fleet);
    }

    /// Who says what to hold, without connections yet.
    fn reach(
        &self,
        ground: Option<&config::GroundControl>,
        state: Option<&config::State>,
        network: &Network,
    ) -> Option<Rc<Fleet>> {
        let client = |tls| {
            let trust = tls::Trust::new(tls, Rc::clone(&self.parts.clock));
            let limits = ClientLimits::default();
            Client::new(trust, network.clone(), limits)
        };
        let source = match (ground, state) {
            (Some(config), _) => {
                let api = GroundControl::new(client(tls_options(config)), config.url.clone());
                Source::Ground(config.clone(), api)
            }
            (None, Some(state)) => {
                let client = client(documents::tls_options(state));
                Source::Documents(Documents::new(state.clone(), client))
            }
            (None, None) => return None,
        };
        let key_file = ground.and_then(|ground| ground.key_file.clone());
        let (seal, network) = (Seal::new(Path::new("/"), key_file), network.clone());
        let (registries, unusable, whole) = Default::default();
        Some(Rc::new(Fleet { source, network, seal, registries, unusable, whole }))
    }

    /// Whether anybody but the configuration says what to hold.
    pub fn is_configured(&self) -> bool {
        self.fleet.borrow().is_some()
    }

    /// Whether all that is desired is known: an image that is not in the desired state may be
    /// removed then.
    pub fn is_known(&self) -> bool {
        !self.is_configured() || self.desired.borrow().is_whole()
    }

    /// Whether what is desired can be looked at, or was given once: it is asked for at its pace.
    pub fn is_settled(&self) -> bool {
        match self.fleet().as_deref() {
            Ok(Fleet { source: Source::Documents(_), .. }) => self.is_known(),
            _ => self.name().is_some(),
        }
    }

    /// Whether it is Ground Control who says what to hold, and has to let this satellite in first.
    pub fn needs_enrolment(&self) -> bool {
        self.fleet().is_ok_and(|fleet| matches!(fleet.source, Source::Ground(..)))
            && self.name().is_none()
    }

    /// Whether what the configuration is made of has changed since this was last asked.
    pub fn take_changed(&self) -> bool {
        self.is_changed.replace(false)
    }

    /// Whether credentials are kept on flash with a key that anybody could make.
    pub fn is_unsealed(&self) -> bool {
        self.fleet.borrow().as_ref().is_some_and(|fleet| fleet.seal.is_open())
    }

    /// The name under which Ground Control knows this satellite.
    pub fn name(&self) -> Option<String> {
        let url = Url::parse(&self.enrolled().ok()?.state).ok()?;
        let name = url.repository.strip_prefix("satellite/satellite-state/")?;
        Some(name.strip_suffix("/state")?.to_owned())
    }

    /// What the desired state adds to the configuration. After `url` has changed it is still that
    /// of the Ground Control before, until the new one has said another.
    pub fn wanted(&self) -> Wanted {
        let enrolment = self.enrolment.borrow().clone().unwrap_or_default();
        let fleet = self.fleet.borrow();
        let tls = fleet.as_ref().map(|fleet| fleet.tls()).unwrap_or_default();
        let state = fleet.as_ref().map(|fleet| fleet.state_of(&enrolment)).unwrap_or_default();
        self.desired.borrow().wanted(&enrolment.own(&state, tls))
    }

    /// The time between two looks at the desired state, if it says one.
    pub fn poll_interval(&self) -> Option<Duration> {
        self.trial_pause().or_else(|| self.desired.borrow().poll_interval())
    }

    /// The time between two reports.
    pub fn report_interval(&self) -> Duration {
        let said = || self.desired.borrow().report_interval();
        self.trial_pause().or_else(said).unwrap_or(REPORT_INTERVAL)
    }

    /// The digests of the satellite-state and of the config that are in effect; empty for none.
    pub fn digests(&self) -> (String, String) {
        let desired = self.desired.borrow();
        let text =
            |digest: Option<Digest>| digest.map(|digest| digest.to_string()).unwrap_or_default();
        (text(desired.digest), text(desired.config.as_ref().and_then(|config| config.digest)))
    }

    /// Whether `fleet` is the one to obey; a reload may have come meanwhile.
    fn is_current(&self, fleet: &Rc<Fleet>) -> bool {
        self.fleet.borrow().as_ref().is_some_and(|current| Rc::ptr_eq(current, fleet))
    }

    fn fleet(&self) -> Result<Rc<Fleet>, Error> {
        let none = || Error::new(Kind::Invalid, "no [ground_control] and no [state] is configured");
        self.fleet.borrow().clone().ok_or_else(none)
    }

    /// The registry at `base`. It gets credentials and certificates only if they are for it.
    fn registry(
        &self,
        fleet: &Fleet,
        enrolment: &Enrolment,
        base: &str,
    ) -> Result<Registry, Error> {
        let own = enrolment.own(&fleet.state_of(enrolment), fleet.tls());
        let own = Some(own).filter(|own| own.is_at(base));
        let secret = own.as_ref().map(|own| own.auth.password.clone()).unwrap_or_default();
        let mut registries = fleet.registries.borrow_mut();
        if let Some((known, registry)) = registries.get(base)
            && *known == secret
        {
            return Ok(registry.clone());
        }
        let url: url::Url = base
            .parse()
            .map_err(|error| Error::new(Kind::Invalid, format!("{base:?}: {error}")))?;
        let options = registry::Options {
            registry: url.host_str().unwrap_or_default().to_owned(),
            url,
            username: own.as_ref().map(|own| own.auth.username.clone()),
            password: own.as_ref().map(|own| Password::Text(own.auth.password.clone())),
            tls: own.map(|own| own.tls).unwrap_or_default(),
        };
        let clock = Rc::clone(&self.parts.clock);
        let registry = Registry::new(options, fleet.network.clone(), clock);
        if registries.len() >= REGISTRIES_MAX {
            registries.clear();
        }
        registries.insert(base.to_owned(), (secret, registry.clone()));
        Ok(registry)
    }

    /// What is kept as `name`, opened and parsed.
    fn load<T>(
        &self,
        fleet: &Fleet,
        name: &str,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(sealed) = self.parts.store.document(name) else { return Ok(None) };
        let about = format!("kept {name}");
        let text = fleet.seal.open(&sealed).map_err(|error| Error::from(error).about(&about))?;
        let malformed = || Error::new(Kind::Invalid, "malformed").about(&about);
        let value = parse(&text).ok_or_else(malformed)?;
        Ok(Some(value))
    }

    async fn keep(&self, fleet: &Fleet, name: &str, text: &[u8]) -> Result<(), Error> {
        let sealed = fleet.seal.seal(text).map_err(|error| Error::from(error).about(name))?;
        Ok(self.parts.store.set_document(name, &sealed).await?)
    }
}

impl Enrolment {
    /// What it opens, when the satellite-state is at `state`.
    fn own(&self, state: &str, tls: tls::ClientOptions) -> Own {
        let state = Url::parse(state).map(|url| url.base).unwrap_or_default();
        Own { auth: self.auth.clone(), state, tls }
    }
}

fn left() -> Error {
    Error::new(Kind::Retry, "another configuration is in effect by now")
}

/// What was kept, if anything was, and why it cannot be read.
fn kept_or_lost<T>(kept: Result<Option<T>, Error>) -> (Option<T>, Option<Error>) {
    match kept {
        Ok(value) => (value, None),
        Err(error) => (None, Some(error)),
    }
}

/// A document in the log, as that of the enrolment is.
const DESIRED: &str = "desired";
const DESIRED_VERSION: u8 = 3;
/// A document's, less what the seal adds.
const DESIRED_BYTES_MAX: usize = DOCUMENT_BYTES_MAX - SEAL_BYTES;
/// As Go's, whose configs say another one; a fleet of Moonlets does not need it more often.
const REPORT_INTERVAL: Duration = Duration::from_mins(5);
/// Registries of state that are kept open: there is one, and two while a fleet moves.
const REGISTRIES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::{Secret, Token};
    use crate::flash::{Geometry, sim};

    fn control(store: &Store) -> Control {
        Control::new(Parts {
            store: store.clone(),
            clock: Rc::new(SystemClock::new()),
            facts: BTreeMap::new(),
        })
    }

    #[test]
    fn a_desired_state_that_is_lost_takes_no_credentials_with_it() {
        let geometry =
            Geometry { segment_count: 9, segment_bytes: 65536, program_bytes: 64, reprogram: true };
        let device = Arc::new(sim::Device::new(geometry));
        let (store, _) = Store::open(device, Rc::default()).unwrap();
        let config = config::GroundControl {
            url: "https://ground.test".parse().unwrap(),
            token: Token::Text(Secret("t".to_owned())),
            ca_file: None,
            client_cert: None,
            client_key: None,
            key_file: None,
        };
        let first = control(&store);
        first.configure(Some(&config), None, &Network::default());
        assert!(first.name().is_none() && !first.is_known());
        let enrolment = Enrolment {
            ground_control: config.url.to_string(),
            state: "https://ground.test/satellite/satellite-state/edge1/state:latest".to_owned(),
            ..Enrolment::default()
        };
        smol::block_on(async {
            let fleet = first.fleet().unwrap();
            first.keep_enrolment(&fleet, enrolment).await.unwrap();
            store.set_document(DESIRED, b"not sealed here").await.unwrap();
        });
        let second = control(&store);
        let lost = second.configure(Some(&config), None, &Network::default());
        let error = lost.desired.unwrap().to_string();
        assert!(error.starts_with("kept desired: ") && lost.enrolment.is_none(), "{error}");
        assert_eq!(second.name().as_deref(), Some("edge1"));
        assert!(!second.is_known(), "nothing is removed until it is known again");
    }
}
