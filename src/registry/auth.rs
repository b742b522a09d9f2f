//! What is known of who may read what: by repository, for that is how registries grant it.
//!
//! A token is kept for as long as its server says (the token flow of the distribution project,
//! `spec/auth/token.md`). A repository that was refused says nothing of the others: a registry may
//! answer a refused token with a Basic challenge, so only what it asks of a request *without*
//! credentials counts, and for that repository alone. A refusal is remembered for a while, or one
//! image that may not be read would cost a token for each of its parts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::credentials::Credentials;
use crate::oci::challenge::Challenge;

/// Credentials and what they have brought.
pub struct Auth {
    credentials: Option<Credentials>,
    scopes: RefCell<BTreeMap<String, Scope>>,
    /// What `/v2/` asks for, and until when that is taken to be so.
    offered: RefCell<Option<(Vec<Challenge>, Duration)>>,
}

/// What is known of one repository.
#[derive(Default)]
struct Scope {
    access: Option<Access>,
    /// Something of it was read.
    works: bool,
    /// Access was asked for once: what it has may be hidden from those who have none.
    wants_access: bool,
    /// Why it was refused, and until when it is not asked again.
    refused: Option<(String, Duration)>,
}

struct Access {
    /// The value of Authorization.
    header: String,
    since: Duration,
    end: Duration,
    /// Something was read with it.
    works: bool,
}

impl Auth {
    /// With credentials or anonymous.
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, scopes: RefCell::default(), offered: RefCell::default() }
    }

    /// Whether there are credentials.
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// As whom we ask, for a message.
    pub fn who(&self) -> String {
        match &self.credentials {
            Some(credentials) => {
                format!("with the credentials of user {:?}", credentials.username())
            }
            None => "without credentials".to_owned(),
        }
    }

    /// The credentials themselves, if there are any; the error names their file.
    pub fn basic(&self) -> Result<Option<String>, String> {
        self.credentials.as_ref().map(Credentials::basic).transpose()
    }

    /// The Authorization of a request for `scope`, if one is known to be wanted.
    pub fn header(&self, scope: &str, now: Duration) -> Option<String> {
        let scopes = self.scopes.borrow();
        let access = scopes.get(scope)?.access.as_ref()?;
        (now < access.end).then(|| access.header.clone())
    }

    /// Whether what [`Auth::header`] returns is so new that another would not be better: it was
    /// never good for anything, and did not have the time to end.
    pub fn is_fresh(&self, scope: &str, now: Duration) -> bool {
        let scopes = self.scopes.borrow();
        let access = scopes.get(scope).and_then(|scope| scope.access.as_ref());
        access.is_some_and(|access| !access.works && now.saturating_sub(access.since) < FRESH_FOR)
    }

    /// Uses the credentials themselves for `scope` from now on.
    pub fn use_basic(&self, scope: &str, header: &str, now: Duration) {
        self.set(scope, header.to_owned(), now, Duration::MAX);
    }

    /// What was used for `scope` was refused.
    pub fn forget(&self, scope: &str) {
        if let Some(scope) = self.scopes.borrow_mut().get_mut(scope) {
            scope.access = None;
        }
    }

    /// Something of `scope` was read.
    pub fn worked(&self, scope: &str) {
        let mut scopes = self.scopes.borrow_mut();
        let scope = entry(&mut scopes, scope);
        scope.works = true;
        scope.refused = None;
        if let Some(access) = &mut scope.access {
            access.works = true;
        }
    }

    /// Whether something of `scope` was read.
    pub fn works(&self, scope: &str) -> bool {
        self.scopes.borrow().get(scope).is_some_and(|scope| scope.works)
    }

    /// Whether a refusal without a challenge may only mean that `scope` is hidden from anonymous
    /// clients: nothing of it was read yet, or only by those who had access.
    pub fn may_be_hidden(&self, scope: &str) -> bool {
        let scopes = self.scopes.borrow();
        let is_open = scopes.get(scope).is_some_and(|scope| scope.works && !scope.wants_access);
        self.has_credentials() && !is_open
    }

    /// Remembers why `scope` was refused.
    pub fn refuse(&self, scope: &str, why: &str, now: Duration) {
        let mut scopes = self.scopes.borrow_mut();
        entry(&mut scopes, scope).refused = Some((why.to_owned(), now + REFUSED_FOR));
    }

    /// Why `scope` is not worth asking for now.
    pub fn refusal(&self, scope: &str, now: Duration) -> Option<String> {
        let scopes = self.scopes.borrow();
        let (why, end) = scopes.get(scope)?.refused.as_ref()?;
        (now < *end).then(|| why.clone())
    }

    /// What `/v2/` asked for.
    pub fn offered(&self, now: Duration) -> Option<Vec<Challenge>> {
        let offered = self.offered.borrow();
        let (challenges, end) = offered.as_ref()?;
        (now < *end).then(|| challenges.clone())
    }

    /// Remembers what `/v2/` asked for.
    pub fn offer(&self, challenges: &[Challenge], now: Duration) {
        *self.offered.borrow_mut() = Some((challenges.to_vec(), now + OFFERED_FOR));
    }

    /// Takes a token server's answer and returns the header; none if it has no token.
    pub fn keep(&self, scope: &str, json: &[u8], now: Duration) -> Option<String> {
        let answer: Answer = serde_json::from_slice(json).ok()?;
        let token = text(&answer.token).or_else(|| text(&answer.access_token))?;
        let life = Duration::from_secs(life_seconds(&answer.expires_in));
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let header = format!("Bearer {token}");
        self.set(scope, header.clone(), now, now + life);
        Some(header)
    }

    fn set(&self, scope: &str, header: String, since: Duration, end: Duration) {
        let mut scopes = self.scopes.borrow_mut();
        let scope = entry(&mut scopes, scope);
        scope.access = Some(Access { header, since, end, works: false });
        scope.wants_access = true;
    }
}

fn entry<'a>(scopes: &'a mut BTreeMap<String, Scope>, scope: &str) -> &'a mut Scope {
    if scopes.len() >= SCOPES_MAX && !scopes.contains_key(scope) {
        scopes.pop_first();
    }
    scopes.entry(scope.to_owned()).or_default()
}

/// What token servers answer: any of it may be missing, null, or of another type.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Value,
    #[serde(default)]
    access_token: Value,
    #[serde(default)]
    expires_in: Value,
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().map(str::trim).filter(|text| !text.is_empty())
}

/// For how long a token is used: numbers may be written as text, with a fraction, or be nonsense.
fn life_seconds(value: &Value) -> u64 {
    let seconds =
        |said| Duration::try_from_secs_f64(said).map_or(EXPIRES_MAX, |said| said.as_secs());
    let said = match text(value) {
        // What the standard library reads fractions with has 12 KB of tables.
        Some(text) => text.split('.').next().and_then(|whole| whole.parse().ok()),
        None => value.as_f64().filter(|said| *said > 0.0).map(seconds),
    };
    // Zero says nothing.
    let said = said.filter(|said| *said > 0).unwrap_or(EXPIRES_DEFAULT).min(EXPIRES_MAX);
    said.saturating_sub(EXPIRES_MARGIN).max(1)
}

/// The specification's default, in seconds.
const EXPIRES_DEFAULT: u64 = 60;
const EXPIRES_MAX: u64 = 24 * 3600;
/// A token is not used in its last seconds, when it may end under way.
const EXPIRES_MARGIN: u64 = 10;
/// A token that is kept for a scope. Those of registries have one to five kilobytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Scopes are one a repository.
const SCOPES_MAX: usize = 256;
/// What was got so recently was refused for another reason than its age.
const FRESH_FOR: Duration = Duration::from_secs(10);
/// Longer than a pass over what one image needs, shorter than the time to the next.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// How a registry authenticates changes with its configuration.
const OFFERED_FOR: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::super::credentials::Password;
    use super::*;

    const NOW: Duration = Duration::from_secs(5);

    #[test]
    fn tokens_end() {
        let auth = Auth::new(None);
        auth.keep("s", br#"{"access_token":"t","expires_in":30}"#, NOW).unwrap();
        assert_eq!(auth.header("s", NOW).as_deref(), Some("Bearer t"));
        assert_eq!(auth.header("other", NOW), None);
        assert_eq!(auth.header("s", NOW + Duration::from_secs(25)), None);
        assert!(auth.is_fresh("s", NOW) && !auth.is_fresh("s", NOW + FRESH_FOR));
        auth.forget("s");
        assert_eq!(auth.header("s", NOW), None);
    }

    #[test]
    fn token_answers_as_they_come() {
        let auth = Auth::new(None);
        let life = |json: &str| {
            let kept = auth.keep("s", json.as_bytes(), NOW);
            assert_eq!(kept.as_deref(), Some("Bearer t"), "{json}");
            let scopes = auth.scopes.borrow();
            (scopes["s"].access.as_ref().unwrap().end - NOW).as_secs()
        };
        assert_eq!(life(r#"{"token":"t","access_token":"u"}"#), 50);
        assert_eq!(life(r#"{"token":"","access_token":" t\n","expires_in":300}"#), 290);
        assert_eq!(life(r#"{"token":null,"access_token":"t","expires_in":null}"#), 50);
        assert_eq!(life(r#"{"token":"t","expires_in":"300","issued_at":5}"#), 290);
        assert_eq!(life(r#"{"token":"t","expires_in":300.5}"#), 290);
        assert_eq!(life(r#"{"token":"t","expires_in":"300.5"}"#), 290);
        assert_eq!(life(r#"{"token":"t","expires_in":-1}"#), 50);
        assert_eq!(life(r#"{"token":"t","expires_in":"-1"}"#), 50);
        let much = r#"{"token":"t","expires_in":"9999999999"}"#;
        assert_eq!(life(much), EXPIRES_MAX - EXPIRES_MARGIN);
        assert_eq!(life(r#"{"token":"t","expires_in":"never"}"#), 50);
        assert_eq!(life(r#"{"token":"t","expires_in":1e300}"#), EXPIRES_MAX - EXPIRES_MARGIN);
        assert_eq!(life(r#"{"token":"t","expires_in":3}"#), 1);
        for nothing in ["<html>", "{}", "[]", "null", r#"{"token":""}"#, r#"{"token":5}"#] {
            assert!(auth.keep("s", nothing.as_bytes(), NOW).is_none(), "{nothing}");
        }
    }

    #[test]
    fn what_is_known_of_one_repository_is_of_no_other() {
        let password = Password::Text("p".to_owned());
        let auth = Auth::new(Some(Credentials::new("u".to_owned(), password)));
        let basic = auth.basic().unwrap().unwrap();
        auth.use_basic("a", &basic, NOW);
        assert_eq!(auth.header("a", NOW).as_deref(), Some("Basic dTpw"));
        auth.refuse("b", "no", NOW);
        assert_eq!((auth.header("b", NOW), auth.refusal("a", NOW)), (None, None));
        assert_eq!(auth.refusal("b", NOW).as_deref(), Some("no"));
        assert_eq!(auth.refusal("b", NOW + REFUSED_FOR), None);
        auth.worked("b");
        assert!(auth.works("b") && !auth.works("a") && auth.refusal("b", NOW).is_none());
        for number in 0..2 * SCOPES_MAX {
            auth.refuse(&number.to_string(), "no", NOW);
        }
        assert_eq!(auth.scopes.borrow().len(), SCOPES_MAX);
    }

    #[test]
    fn what_needed_access_once_may_be_hidden_again() {
        let auth = Auth::new(None);
        assert!(!auth.may_be_hidden("a"), "there is nothing to try");
        let password = crate::registry::Password::Text("p".to_owned());
        let auth = Auth::new(Some(Credentials::new("edge".to_owned(), password)));
        assert!(auth.may_be_hidden("a"));
        auth.worked("a");
        assert!(!auth.may_be_hidden("a"), "anonymous clients may read it");
        auth.keep("a", br#"{"token":"t","expires_in":60}"#, NOW).unwrap();
        auth.worked("a");
        assert!(auth.may_be_hidden("a"), "the token has an end");
        let long = format!(r#"{{"token":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX + 1));
        assert!(auth.keep("a", long.as_bytes(), NOW).is_none());
    }
}
