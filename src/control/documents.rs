//! Documents of a desired state that lie in files or behind URLs: `[state]`, for satellites of no
//! Ground Control.
//!
//! A file is read each time; it is small, and on this device. A URL is asked with the validator that
//! came with the answer before (ETag, else Last-Modified), so that what is unchanged costs no body.
//! The digest of a document is over its place as well as its bytes: the same list elsewhere leads to
//! other documents. Credentials go to the origin that the configuration names, and to no other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use url::Url;

use super::Error;
use crate::config::{State, StatePlace};
use crate::fleet::Invalid;
use crate::fleet::state::{FILE_BYTES_MAX, GROUPS_MAX};
use crate::kind::Kind;
use crate::net::http::{Client, ClientRequest, Headers, Method};
use crate::net::{self, tls};
use crate::oci::Digest;
use crate::registry::{Credentials, Password};

/// Where the state lies, and what is known of its documents.
pub struct Documents {
    pub(super) config: State,
    client: Client,
    credentials: Option<Credentials>,
    /// By URL.
    known: RefCell<BTreeMap<String, Known>>,
}

/// A document as it came last.
struct Known {
    /// The line that asks for a later one.
    validator: (&'static str, String),
    digest: Digest,
    /// Why it is of no use, if it is not.
    problem: Option<String>,
}

impl Documents {
    /// Reads nothing yet.
    pub fn new(config: State, client: Client) -> Self {
        let credentials = config.username.clone().zip(config.password_file.clone());
        let credentials =
            credentials.map(|(username, path)| Credentials::new(username, Password::File(path)));
        Self { config, client, credentials, known: RefCell::default() }
    }

    /// The document that leads to the others.
    pub fn first(&self) -> String {
        match &self.config.place {
            StatePlace::File(path) => path.display().to_string(),
            StatePlace::Url(url) => url.to_string(),
        }
    }

    /// What `text` means in the first document: a place beside it, unless it is a whole one.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is none.
    pub fn place(&self, text: &str) -> Result<String, Error> {
        let wrong = || {
            let expected = "expected the path or the URL of a document";
            let first = self.first();
            Error::new(Kind::Invalid, format!("{first}: {}: {expected}", crate::fleet::shown(text)))
        };
        if text.is_empty() || text.len() > PLACE_BYTES_MAX {
            return Err(wrong());
        }
        match &self.config.place {
            _ if text.contains("://") => Url::parse(text).map(String::from).map_err(|_| wrong()),
            StatePlace::Url(url) => url.join(text).map(String::from).map_err(|_| wrong()),
            StatePlace::File(path) => {
                let beside = path.parent().unwrap_or(Path::new("")).join(text);
                Ok(beside.display().to_string())
            }
        }
    }

    /// The document at `place` is of no use while it is `digest`, for this reason.
    pub fn refuse(&self, place: &str, digest: Digest, why: &str) {
        let mut all = self.known.borrow_mut();
        if let Some(last) = all.get_mut(place).filter(|last| last.digest == digest) {
            last.problem = Some(why.to_owned());
        }
    }

    /// Reads the document at `place`, unless it is still `known`: its digest and what it says.
    ///
    /// # Errors
    /// [`Kind::Missing`] when there is none, [`Kind::Invalid`] when it makes no sense.
    pub async fn read<T>(
        &self,
        place: &str,
        known: Option<&Digest>,
        parse: impl FnOnce(&[u8]) -> Result<T, Invalid>,
    ) -> Result<Option<(Digest, T)>, Error> {
        let (bytes, validator) = match Url::parse(place) {
            Ok(url) => match self.fetch(&url, place, known).await? {
                Some(fetched) => fetched,
                None => return Ok(None),
            },
            Err(_) => (read_file(place)?, None),
        };
        let digest = Digest::sha256(&[place.as_bytes(), b"\n", &bytes].concat());
        let is_known = known == Some(&digest);
        let parsed = match is_known {
            true => Ok(None),
            false => parse(&bytes).map(Some),
        };
        let problem = parsed.as_ref().err().map(|error| format!("{place}: {error}"));
        if let Some(validator) = validator {
            let mut all = self.known.borrow_mut();
            if all.len() >= KNOWN_MAX {
                all.clear();
            }
            all.insert(place.to_owned(), Known { validator, digest, problem: problem.clone() });
        }
        match (parsed, problem) {
            (Ok(value), _) => Ok(value.map(|value| (digest, value))),
            (Err(_), problem) => Err(Error::new(Kind::Invalid, problem.unwrap_or_default())),
        }
    }

    /// The bytes behind a URL, and the line that asks for later ones; none where they are `known`.
    async fn fetch(
        &self,
        first: &Url,
        place: &str,
        known: Option<&Digest>,
    ) -> Result<Option<(Vec<u8>, Option<(&'static str, String)>)>, Error> {
        // What is neither in effect nor refused has to come again.
        let validator = self.known.borrow().get(place).and_then(|last| {
            let is_of_use = last.problem.is_some() || known == Some(&last.digest);
            is_of_use.then(|| last.validator.clone())
        });
        let mut url = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = Headers::new();
            headers.append("user-agent", concat!("moonlet/", env!("CARGO_PKG_VERSION")));
            headers.append("accept-encoding", "identity");
            if let Some((name, value)) = &validator {
                headers.append(name, value);
            }
            if let (StatePlace::Url(own), Some(credentials)) =
                (&self.config.place, &self.credentials)
                && own.origin() == url.origin()
            {
                let basic = credentials.basic();
                let basic = basic.map_err(|why| Error::new(Kind::Invalid, why))?;
                headers.append("authorization", basic);
            }
            let (method, body) = (Method::Get, Vec::new());
            let request = ClientRequest { method, url: url.clone(), headers, body };
            let response = self.client.send(request).await?;
            let kind = match response.status {
                200 => {
                    let line = |name| response.headers.get(name).map(str::to_owned);
                    let validator = line("etag")
                        .map(|tag| ("if-none-match", tag))
                        .or_else(|| Some(("if-modified-since", line("last-modified")?)));
                    let bytes = response.body.bytes(FILE_BYTES_MAX as u64).await?;
                    return Ok(Some((bytes, validator)));
                }
                304 if validator.is_some() => {
                    let all = self.known.borrow();
                    return match all.get(place).and_then(|last| last.problem.clone()) {
                        Some(problem) => Err(Error::new(Kind::Invalid, problem)),
                        None => Ok(None),
                    };
                }
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.headers.get("location").unwrap_or_default();
                    let next = url.join(location).ok();
                    let next =
                        next.filter(|next| next.scheme() == "https" || url.scheme() != "https");
                    url = next.ok_or_else(|| {
                        let expected = "expected one to https";
                        let what = format!("{place}: a redirect to {location:?}, {expected}");
                        Error::new(Kind::Invalid, what)
                    })?;
                    continue;
                }
                401 | 403 => Kind::Denied,
                404 | 410 => Kind::Missing,
                408 | 429 | 500.. => Kind::Retry,
                _ => Kind::Invalid,
            };
            let what = format!("{place}: status {}, expected a document", response.status);
            return Err(Error::new(kind, what));
        }
        Err(Error::new(Kind::Invalid, format!("{place}: more than {REDIRECTS_MAX} redirects")))
    }

    /// How TLS is spoken where the state lies.
    pub fn tls(&self) -> tls::ClientOptions {
        tls_options(&self.config)
    }
}

/// How TLS is spoken where a state lies.
pub fn tls_options(config: &State) -> tls::ClientOptions {
    tls::ClientOptions::new(&config.ca_file, &config.client_cert, &config.client_key)
}

fn read_file(path: &str) -> Result<Vec<u8>, Error> {
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::Missing,
            _ => Kind::Retry,
        };
        let error = net::Error::io(kind, path, error);
        Error::new(kind, format!("{error}; expected a document of the state"))
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        let what = format!("{path}: expected at most {FILE_BYTES_MAX} bytes");
        return Err(Error::new(Kind::Invalid, what));
    }
    Ok(bytes)
}

/// Documents of one state: itself, its groups, its config, and as many again that were left.
const KNOWN_MAX: usize = 2 * (GROUPS_MAX + 2);
const PLACE_BYTES_MAX: usize = 1024;
const REDIRECTS_MAX: usize = 3;
