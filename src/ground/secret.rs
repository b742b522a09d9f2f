//! Passwords, tokens and secrets.
//!
//! A person's password is hashed by Argon2id, off the server's threads and few at a time, so that a
//! flood of log-ins costs neither memory nor other requests. What the server made up itself has 128
//! bits or more and cannot be guessed: of it a plain SHA-256 is kept. Nothing is kept in the clear.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tokio::sync::Semaphore;

use super::fault::Fault;
use crate::oci::Digest;

/// `bytes` of randomness in hexadecimal.
pub fn random_hex(bytes: usize) -> Result<String, getrandom::Error> {
    let mut buffer = vec![0_u8; bytes];
    getrandom::fill(&mut buffer)?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The same for tokens and secrets: an answer of 500 where there is no randomness.
pub fn random(bytes: usize) -> Result<String, Fault> {
    random_hex(bytes).map_err(|error| Fault::internal("randomness", &error))
}

/// What is kept of a token or a secret.
pub fn hash(secret: &str) -> String {
    Digest::sha256(secret.as_bytes()).to_string().split_off("sha256:".len())
}

/// User and password of an `Authorization: Basic` header.
pub fn basic(header: &str) -> Option<(String, String)> {
    let encoded = after_scheme(header, "basic")?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(header: &str) -> Option<&str> {
    after_scheme(header, "bearer")
}

fn after_scheme<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    let (word, rest) = header.split_once(' ')?;
    word.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// Hashes and verifies people's passwords.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// Too many log-ins at a time.
#[derive(Debug)]
pub struct Busy;

impl From<Busy> for Fault {
    fn from(_: Busy) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many log-ins, try again")
    }
}

impl Passwords {
    pub fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(HASHES_AT_A_TIME_MAX)),
            waiting: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// The hash to keep of a password.
    pub async fn hash(&self, password: String) -> Result<String, Busy> {
        self.work(move || {
            argon2().hash_password(password.as_bytes()).map(|hash: PasswordHash| hash.to_string())
        })
        .await?
        .map_err(|error| {
            tracing::error!("hashing a password: {error}");
            Busy
        })
    }

    /// Whether the password is the one of the hash. An unknown user has no hash, and costs as much.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Busy> {
        self.work(move || {
            let known = hash.is_some();
            let text = hash.as_deref().unwrap_or(UNKNOWN_USER);
            let matches = PasswordHash::new(text)
                .is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok());
            known && matches
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let waiting = Waiting::enter(&self.waiting)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Busy)?;
        drop(waiting);
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        })
        .await
        .map_err(|_| Busy)
    }
}

/// A place in the queue, given back whatever becomes of the request.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn enter(count: &Arc<AtomicUsize>) -> Result<Self, Busy> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(count));
        if before >= HASHES_WAITING_MAX { Err(Busy) } else { Ok(place) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Argon2id with the parameters that Go's Ground Control uses: 19 MiB, two passes, one lane.
fn argon2() -> Argon2<'static> {
    let params = Params::new(19 * 1024, 2, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// What a password must be, by Go's default policy.
pub fn check_password(password: &str) -> Result<(), String> {
    let mut missing = Vec::new();
    if password.chars().count() < PASSWORD_CHARS_MIN {
        missing.push("at least 8 characters");
    }
    if password.len() > PASSWORD_BYTES_MAX {
        missing.push("at most 128 bytes");
    }
    for (what, has) in [
        ("one uppercase letter", password.chars().any(char::is_uppercase)),
        ("one lowercase letter", password.chars().any(char::is_lowercase)),
        ("one number", password.chars().any(|sign| sign.is_ascii_digit())),
    ] {
        if !has {
            missing.push(what);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("password must contain {}", missing.join(", ")))
}

/// A short-lived token for `/v2/`: whose it is and until when, sealed with the server's key.
///
/// Nothing is stored. It names the secret it was given for, so that it ends with that secret.
pub struct PullToken {
    pub satellite_id: i64,
    pub expires: i64,
    /// The first characters of the secret's hash.
    pub secret: String,
}

impl PullToken {
    pub fn seal(&self, key: &[u8; 32]) -> String {
        let claim = format!("{}.{}.{}", self.satellite_id, self.expires, self.secret);
        let seal = blake3::keyed_hash(key, claim.as_bytes());
        format!("{claim}.{}", URL_SAFE_NO_PAD.encode(seal.as_bytes()))
    }

    pub fn open(token: &str, key: &[u8; 32], now: i64) -> Option<Self> {
        let (claim, seal) = token.rsplit_once('.')?;
        let seal: [u8; 32] = URL_SAFE_NO_PAD.decode(seal).ok()?.try_into().ok()?;
        // The comparison of two blake3 hashes takes the same time whatever they are.
        if blake3::keyed_hash(key, claim.as_bytes()) != blake3::Hash::from_bytes(seal) {
            return None;
        }
        let mut parts = claim.split('.');
        let token = Self {
            satellite_id: parts.next()?.parse().ok()?,
            expires: parts.next()?.parse().ok()?,
            secret: parts.next()?.to_owned(),
        };
        (now < token.expires).then_some(token)
    }
}

/// What the user names of satellites begin with, as in Harbor.
pub const ROBOT_PREFIX: &str = "robot$";
const HASHES_AT_A_TIME_MAX: usize = 2;
const HASHES_WAITING_MAX: usize = 32;
const PASSWORD_CHARS_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 128;

/// A hash that no password has, verified for users that do not exist.
const UNKNOWN_USER: &str = "$argon2id$v=19$m=19456,t=2,p=1$bW9vbmxldG1vb25sZXQ$\
    MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords() {
        let passwords = Passwords::new();
        let hash = passwords.hash("Correct1".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("Correct1".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("Correct2".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("Correct1".into(), None).await.unwrap());
        assert!(
            PasswordHash::new(UNKNOWN_USER).is_ok(),
            "an unknown user must cost as much as a known one"
        );
    }

    #[test]
    fn policy() {
        check_password("Abcdefg1").unwrap();
        for bad in ["Abcdef1", "abcdefg1", "ABCDEFG1", "Abcdefgh"] {
            assert!(check_password(bad).is_err(), "{bad}");
        }
        assert!(check_password(&format!("Aa1{}", "x".repeat(200))).is_err());
    }

    #[test]
    fn headers() {
        assert_eq!(basic("basic cm9ib3QkYTpiOmM="), Some(("robot$a".into(), "b:c".into())));
        assert_eq!(bearer("Bearer x"), Some("x"));
        for bad in ["", "Basic", "Basic !", "Basic cm9ib3Q=", "Digest x", "Basic \u{e9}"] {
            assert_eq!(basic(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pull_token_cannot_be_changed_or_kept() {
        let (key, other) = ([7; 32], [8; 32]);
        let token = PullToken { satellite_id: 5, expires: 100, secret: "abcd".into() }.seal(&key);
        let open = PullToken::open(&token, &key, 99).unwrap();
        assert_eq!((open.satellite_id, open.secret.as_str()), (5, "abcd"));
        assert!(PullToken::open(&token, &key, 100).is_none());
        assert!(PullToken::open(&token, &other, 99).is_none());
        assert!(PullToken::open(&token.replacen('5', "6", 1), &key, 99).is_none());
        for bad in ["", ".", "a.b.c.d", "5.100.abcd."] {
            assert!(PullToken::open(bad, &key, 99).is_none(), "{bad}");
        }
    }
}
