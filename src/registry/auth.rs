//! Challenges and what answers them: RFC 9110 section 11, and the token flow of the distribution
//! project (`spec/auth/token.md`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use url::Url;

/// Credentials and the tokens they have bought.
pub struct Auth {
    basic: Option<String>,
    /// The registry itself asked for Basic.
    is_basic: Cell<bool>,
    /// By scope: the header's value and when it ends.
    tokens: RefCell<BTreeMap<String, (String, Duration)>>,
}

/// One challenge of a `WWW-Authenticate` line.
#[derive(Debug, PartialEq)]
pub struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Auth {
    /// With credentials or anonymous.
    pub fn new(username: Option<String>, password: Option<String>) -> Self {
        let pair = username.zip(password);
        let basic = pair.map(|(user, password)| {
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        });
        Self { basic, is_basic: Cell::new(false), tokens: RefCell::default() }
    }

    /// The Authorization of a request for `scope`, if one is known to be wanted.
    pub fn header(&self, scope: &str, now: Duration) -> Option<String> {
        if self.is_basic.get() {
            return self.basic.clone();
        }
        let tokens = self.tokens.borrow();
        let (token, end) = tokens.get(scope)?;
        (now < *end).then(|| token.clone())
    }

    /// The credentials themselves.
    pub fn basic(&self) -> Option<String> {
        self.basic.clone()
    }

    /// Uses Basic from now on; false when there are no credentials, or they were refused.
    pub fn use_basic(&self) -> bool {
        !self.is_basic.replace(true) && self.basic.is_some()
    }

    /// A token was refused.
    pub fn forget(&self, scope: &str) {
        self.tokens.borrow_mut().remove(scope);
    }

    /// Takes a token server's answer; none if it has no token.
    pub fn keep(&self, scope: &str, json: &[u8], now: Duration) -> Option<()> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let answer: Answer = serde_json::from_slice(json).ok()?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty())?;
        let life = answer.expires_in.unwrap_or(EXPIRES_DEFAULT).min(EXPIRES_MAX);
        let life = Duration::from_secs(life.saturating_sub(EXPIRES_MARGIN).max(1));
        let mut tokens = self.tokens.borrow_mut();
        tokens.retain(|_, (_, end)| now < *end);
        if tokens.len() >= TOKENS_MAX {
            tokens.pop_first();
        }
        tokens.insert(scope.to_owned(), (format!("Bearer {token}"), now + life));
        Some(())
    }
}

impl Challenge {
    /// Whether it is of this scheme (lower case).
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme == scheme
    }

    /// Where a token for `scope` is to be had.
    pub fn token_url(&self, scope: &str) -> Option<Url> {
        let get = |name: &str| self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let mut url = Url::parse(get("realm")?).ok()?;
        let scope = get("scope").map_or(scope, String::as_str);
        let mut query = url.query_pairs_mut();
        if let Some(service) = get("service") {
            query.append_pair("service", service);
        }
        query.append_pair("scope", scope);
        drop(query);
        Some(url)
    }
}

/// The challenges of one header line; what cannot be read ends the list.
pub fn parse(line: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let word = word.to_ascii_lowercase();
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix('=') {
            let Some((value, after)) = value_of(value.trim_start()) else { break };
            if let Some(last) = challenges.last_mut() {
                last.parameters.push((word, value));
            }
            rest = after;
        } else {
            if !word.is_empty() {
                challenges.push(Challenge { scheme: word, parameters: Vec::new() });
            }
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

/// A token or quoted string, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            other => value.push(other),
        }
    }
}

/// The specification's default, in seconds.
const EXPIRES_DEFAULT: u64 = 60;
const EXPIRES_MAX: u64 = 24 * 3600;
/// A token is not used in its last seconds, when it may end under way.
const EXPIRES_MARGIN: u64 = 10;
/// Scopes are one a repository.
const TOKENS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let found = parse(
            r#"Bearer realm="https://a.example/t?x=1",service="s, \"q\"",scope="repository:a/b:pull", Basic realm=x"#,
        );
        assert_eq!(found.len(), 2);
        assert!(found[0].is("bearer") && found[1].is("basic"));
        let url = found[0].token_url("unused").unwrap();
        let pairs: Vec<_> = url.query_pairs().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(pairs, ["x=1", "service=s, \"q\"", "scope=repository:a/b:pull"]);
        assert!(found[1].token_url("s").is_none());
        assert!(parse("Bearer realm=\"unclosed").iter().all(|c| c.token_url("s").is_none()));
        assert!(parse(",,, ").is_empty());
    }

    #[test]
    fn tokens_end() {
        let auth = Auth::new(None, None);
        let now = Duration::from_secs(5);
        auth.keep("s", br#"{"access_token":"t","expires_in":30}"#, now).unwrap();
        assert_eq!(auth.header("s", now).as_deref(), Some("Bearer t"));
        assert_eq!(auth.header("other", now), None);
        assert_eq!(auth.header("s", now + Duration::from_secs(25)), None);
        assert!(auth.keep("s", b"<html>", now).is_none());
        assert!(auth.keep("s", b"{}", now).is_none());
    }

    #[test]
    fn basic_is_tried_once() {
        let auth = Auth::new(Some("u".to_owned()), Some("p".to_owned()));
        assert_eq!(auth.header("s", Duration::ZERO), None);
        assert!(auth.use_basic());
        assert_eq!(auth.header("s", Duration::ZERO).as_deref(), Some("Basic dTpw"));
        assert!(!auth.use_basic());
    }
}
