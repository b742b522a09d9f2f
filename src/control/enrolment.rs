//! Letting Ground Control know this satellite, and reporting to it: the token, and what was
//! answered for it.

use std::rc::Rc;

use log::{info, warn};

use super::error::Error;
use super::source::{Fleet, Source};
use super::{Control, Enrolment, left, seal};
use crate::config::{self, Token, is_token};
use crate::fleet::enrol::{DEVICE, REFRESH_CREDENTIALS, Request};
use crate::fleet::report::Report;
use crate::kind::Kind;

impl Control {
    /// Enrols, unless that is done; again where the credentials are refused and there is another
    /// token than the one they were given for. What the answer says is durable before it is used.
    ///
    /// # Errors
    /// [`Kind::Denied`] when Ground Control refuses the token, [`Kind::Invalid`] when there is
    /// none.
    pub async fn enrol(&self) -> Result<(), Error> {
        let fleet = self.fleet()?;
        let Source::Ground(config, ground) = &fleet.source else { return Ok(()) };
        let url = config.url.as_str();
        let known = self.enrolled().ok();
        if known.is_some() && !self.is_refused.get() {
            return Ok(());
        }
        let token = match (token(config), &known) {
            (Ok(token), _) => token,
            // A certificate that names this satellite is as good as a token.
            (Err(_), _) if config.is_certified() => String::new(),
            // A token that is spent need not be there any more.
            (Err(_), Some(_)) => return Ok(()),
            (Err(error), None) => return Err(error),
        };
        let token_hash = blake3::hash(token.as_bytes()).to_hex().to_string();
        // Nothing of a certificate is spent.
        if !token.is_empty() && known.is_some_and(|known| known.token_hash == token_hash) {
            // A registry that denies now may grant later.
            return Ok(());
        }
        // The answer may be the only one: what would lose it is found out before.
        self.check_keeping(&fleet)?;
        let mut facts = self.parts.facts.clone();
        // A seal that cannot be read was an error already.
        if let Ok(Some(device)) = fleet.seal.device() {
            facts.insert(DEVICE.to_owned(), device);
        }
        let request = Request { token, facts };
        let answer = ground.enrol(&request).await?;
        let enrolment = Enrolment {
            ground_control: url.to_owned(),
            state: answer.state,
            auth: answer.auth,
            token_hash,
        };
        self.keep_enrolment(&fleet, enrolment).await?;
        self.is_refused.set(false);
        info!("enrolled at {url} as {}", self.name().unwrap_or_default());
        Ok(())
    }

    /// Whether something could be sealed and recorded now.
    fn check_keeping(&self, fleet: &Fleet) -> Result<(), Error> {
        if let Err(error) = fleet.seal.seal(b"") {
            return Err(Error::from(error).about("enrolment waits"));
        }
        if !self.parts.store.is_writable() {
            let what = "enrolment waits: the store takes no writes";
            return Err(Error::new(Kind::Retry, what));
        }
        Ok(())
    }

    /// Sends a report, and fetches new credentials if Ground Control asks for that.
    ///
    /// # Errors
    /// Those of the report; a refusal of new credentials is logged, and asked for again by the
    /// answer to the next.
    pub async fn report(&self, report: &Report) -> Result<(), Error> {
        let fleet = self.fleet()?;
        let enrolment = self.enrolled()?;
        let actions = fleet.ground()?.1.report(&enrolment.auth, report).await;
        self.note(actions.as_ref().err());
        self.trial.reported(actions.as_ref().map(drop));
        if actions.map_err(refused)?.iter().any(|action| action == REFRESH_CREDENTIALS)
            && let Err(error) = self.refresh(&fleet, enrolment).await
        {
            warn!("{error}; the credentials in use stay");
        }
        Ok(())
    }

    async fn refresh(&self, fleet: &Rc<Fleet>, mut enrolment: Enrolment) -> Result<(), Error> {
        let (config, ground) = fleet.ground()?;
        enrolment.auth.password = ground.refresh(&enrolment.auth).await?;
        self.keep_enrolment(fleet, enrolment).await?;
        info!("{}: new credentials", config.url);
        Ok(())
    }

    /// Notes whether the credentials were refused.
    pub(super) fn note(&self, error: Option<&Error>) {
        match error.map(Error::kind) {
            None => self.is_refused.set(false),
            Some(Kind::Denied) => self.is_refused.set(true),
            Some(_) => {}
        }
    }

    /// The enrolment, if it is with the Ground Control that is configured.
    pub(super) fn enrolled(&self) -> Result<Enrolment, Error> {
        let url = self.fleet()?.ground()?.0.url.to_string();
        let enrolment = self.enrolment.borrow().clone();
        let enrolment = enrolment.filter(|enrolment| enrolment.ground_control == url);
        enrolment.ok_or_else(|| Error::new(Kind::Retry, "not enrolled yet"))
    }

    pub(super) async fn keep_enrolment(
        &self,
        fleet: &Rc<Fleet>,
        enrolment: Enrolment,
    ) -> Result<(), Error> {
        let text = serde_json::to_vec(&enrolment)
            .map_err(|error| Error::new(Kind::Invalid, format!("enrolment: {error}")))?;
        self.keep(fleet, ENROLMENT, &text).await?;
        if !self.is_current(fleet) {
            return Err(left());
        }
        self.enrolment.replace(Some(enrolment));
        self.is_changed.set(true);
        Ok(())
    }
}

/// The enrolment token, read where the configuration has it.
fn token(config: &config::GroundControl) -> Result<String, Error> {
    let (text, place) = match &config.token {
        Token::Text(secret) => (secret.0.clone(), "token".to_owned()),
        Token::File(path) => {
            let place = format!("token_file {}", path.display());
            let bytes = seal::read(path)
                .map_err(|error| Error::new(Kind::Invalid, format!("{place}: {error}")))?;
            (String::from_utf8_lossy(&bytes).into_owned(), place)
        }
        Token::KernelCommandLine => {
            let line = std::fs::read_to_string(KERNEL_COMMAND_LINE).unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let token = words.find_map(|word| word.strip_prefix(KERNEL_WORD));
            let none = || {
                let places = "token, token_file, or moonlet.token= on the kernel's command line";
                Error::new(Kind::Invalid, format!("no enrolment token: expected {places}"))
            };
            (token.ok_or_else(none)?.to_owned(), KERNEL_WORD.to_owned())
        }
    };
    let token = text.trim();
    if !is_token(token) {
        let expected = "expected 1 to 256 letters, digits, . _ -";
        return Err(Error::new(Kind::Invalid, format!("{place}: {expected}")));
    }
    Ok(token.to_owned())
}

/// Says what to do where credentials are refused.
pub fn refused(error: Error) -> Error {
    match error.kind() {
        Kind::Denied => {
            let hint = "if this satellite was revoked, a new enrolment token is needed";
            error.hinting(hint)
        }
        _ => error,
    }
}

/// The document in the log.
pub const ENROLMENT: &str = "enrolment";
const KERNEL_COMMAND_LINE: &str = "/proc/cmdline";
const KERNEL_WORD: &str = "moonlet.token=";
