//! Who says what to hold, Ground Control or documents, and the ways there.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::artifact::Unusable;
use super::client::GroundControl;
use super::desired::Desired;
use super::desired::wanted::is_same;
use super::documents::Documents;
use super::{Enrolment, Error, Seal};
use crate::config;
use crate::fleet::config::Taken;
use crate::fleet::state::Url;
use crate::kind::Kind;
use crate::net::{Network, tls};
use crate::oci::Digest;
use crate::registry::Registry;

/// Whom to obey, and the ways there.
pub(super) struct Fleet {
    pub source: Source,
    pub network: Network,
    pub seal: Seal,
    /// Registries that hold state, by URL, with the secret that each was opened with.
    pub registries: RefCell<BTreeMap<String, (String, Registry)>>,
    /// Artifacts that make no sense, by URL: what they are is known without their body.
    pub unusable: Unusable,
    /// What stood for the whole state when all of it was read and found good.
    pub whole: RefCell<Option<String>>,
}

/// Who says what to hold.
pub(super) enum Source {
    Ground(config::GroundControl, GroundControl),
    /// Documents only: there is no server that takes reports.
    Documents(Documents),
}

impl Fleet {
    /// Ground Control, and how it is asked.
    pub fn ground(&self) -> Result<(&config::GroundControl, &GroundControl), Error> {
        match &self.source {
            Source::Ground(config, ground) => Ok((config, ground)),
            Source::Documents(_) => {
                Err(Error::new(Kind::Invalid, "no [ground_control] is configured"))
            }
        }
    }

    /// Asks Ground Control where the desired state says that it answers.
    pub fn follow(&self, desired: &Desired) {
        let Source::Ground(config, ground) = &self.source else { return };
        let said = desired.config.as_ref().map(|remote| remote.ways.ground_control.as_str());
        let moved = said.and_then(|url| url.parse().ok());
        ground.moves(moved.unwrap_or_else(|| config.url.clone()));
    }

    /// What a config says, without what the file says already.
    pub fn plain(&self, mut taken: Taken) -> Taken {
        let url = &mut taken.app_config.ground_control_url;
        if self.ground().is_ok_and(|(config, _)| url.parse() == Ok(config.url.clone())) {
            url.clear();
        }
        taken
    }

    /// Where the satellite-state is: with Ground Control, if it was there when it enrolled.
    pub fn state_of(&self, enrolment: &Enrolment) -> String {
        if let Source::Ground(config, ground) = &self.source
            && let Ok(url) = Url::parse(&enrolment.state)
            && is_same(&url.base, config.url.as_str())
        {
            let base = ground.base().origin().ascii_serialization();
            return format!("{base}/{}:{}", url.repository, url.tag);
        }
        enrolment.state.clone()
    }

    /// An artifact or a document is of no use while it is `digest`, for this reason.
    pub fn refuse(&self, place: &str, digest: Digest, why: &str) {
        match (&self.source, Url::parse(place)) {
            (Source::Documents(documents), _) => documents.refuse(place, digest, why),
            (Source::Ground(..), Ok(url)) => self.unusable.refuse(&url, digest, why),
            (Source::Ground(..), Err(_)) => {}
        }
    }

    /// How TLS is spoken with who says what to hold.
    pub fn tls(&self) -> tls::ClientOptions {
        match &self.source {
            Source::Ground(config, _) => tls_options(config),
            Source::Documents(documents) => documents.tls(),
        }
    }
}

pub(super) fn tls_options(config: &config::GroundControl) -> tls::ClientOptions {
    tls::ClientOptions::new(&config.ca_file, &config.client_cert, &config.client_key)
}
