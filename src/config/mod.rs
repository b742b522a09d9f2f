//! The configuration file: parsed, then resolved into an immutable [`Config`].
//!
//! Every problem is reported, not only the first, each with file, line, key, value and what was
//! expected. A key that this program does not know is refused, with the nearest one it knows: on a
//! device that is out of reach, a misspelt limit must not mean no limit. What can be used and
//! hardly does what was meant (an upstream of which there is no image) is a warning.
//!
//! Nothing but the text is looked at: a file that it names may come later, and is read when it is
//! used. [`file_problems`] looks at those for a person who asks.

mod features;
mod files;
mod ground_control;
mod link;
mod proxy;
mod read;
mod read_rule;
mod rules;
mod show;
mod state;
mod table;
mod through;
mod upstream;
mod verify;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::oci::{Pattern, Platform, Reference};
use crate::units::{ByteCount, ByteRate};
pub use features::{FEATURES, lacking};
pub use files::{FileProblem, Stamp, exposed_mode, file_problems, stamp};
pub use ground_control::is_token;
pub use link::Window;
pub use proxy::HostPattern;
pub use read_rule::{AddressRange, ReadClient, ReadRule, may_read, may_read_all};
pub use verify::Verify;

/// Everything the operator decided; defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What this satellite calls itself.
    pub name: String,
    /// What `run` becomes when devices and ports are open, by name or by numbers.
    pub user: Option<String>,
    /// The read API.
    pub serve: Serve,
    /// Status, metrics and health.
    pub admin: Admin,
    /// Where blobs are kept.
    pub store: Store,
    /// What clients may use as a proxy, if anything.
    pub proxy: Option<Proxy>,
    /// When registries are asked.
    pub sync: Sync,
    /// What the link allows.
    pub link: Link,
    /// What may come from files.
    pub import: Import,
    /// Who says what to hold besides this file, if anybody does.
    pub ground_control: Option<GroundControl>,
    /// Where that is said instead, if it is.
    pub state: Option<State>,
    /// Registries that images come from; those that images imply included.
    pub upstreams: Vec<Upstream>,
    /// Which images must be signed; the first rule that covers one counts.
    pub verify: Vec<Verify>,
    /// What to hold.
    pub images: Vec<Image>,
}

/// `[serve]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// Where the read API listens.
    pub listen: Vec<SocketAddr>,
    /// Connections open at once.
    pub connections_max: u32,
    /// With TLS, if a certificate was given.
    pub tls: Option<ServerTls>,
    /// Only its users may read, where it is given.
    pub htpasswd: Option<PathBuf>,
    /// A network may be faced without TLS.
    pub insecure: bool,
    /// Which of them may read what; all may read all, if there are none.
    pub rules: Vec<ReadRule>,
}

/// `tls_cert`, `tls_key` and `client_ca` of `[serve]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM certificate chain.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// Clients must show a certificate of this authority.
    pub client_ca: Option<PathBuf>,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens; nowhere when not given.
    pub listen: Option<SocketAddr>,
}

/// `[proxy]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// What besides registries it leads to.
    pub allow: Vec<HostPattern>,
    /// Whether that may be on this device or its network.
    pub private: bool,
    /// A network may be faced.
    pub insecure: bool,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// On what.
    pub location: Location,
    /// Never more bytes than this; a device is used whole where none is given, a directory has a
    /// default.
    pub size_max: Option<ByteCount>,
    /// In how long everything that is held is read once, to find bit rot.
    pub scrub_interval: Duration,
    /// For how long a chunk that was checked is sent before it is checked again.
    pub verify_interval: Duration,
    /// Erases that the medium is rated for: what a forecast of its life goes by.
    pub cycles_rated: u32,
}

/// What the log lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Files in a directory: `path`.
    Directory(PathBuf),
    /// A partition, an MTD device or a UBI volume: `device`.
    Device(PathBuf),
}

impl Location {
    /// Where it is, whatever it is.
    pub fn path(&self) -> &Path {
        let (Self::Directory(path) | Self::Device(path)) = self;
        path
    }
}

/// `[sync]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Time between two looks at the registries.
    pub poll_interval: Duration,
}

/// `[link]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Bytes per second on the wire.
    pub rate_max: Option<ByteRate>,
    /// What stands between this device and every registry that `NO_PROXY` does not name.
    pub proxy: Option<ProxyUrl>,
    /// Bytes in both directions from midnight to midnight, local time.
    pub day_max: Option<ByteCount>,
    /// The same from one `month_day` to the next.
    pub month_max: Option<ByteCount>,
    /// The day on which the month of the data plan begins: 1 to 28.
    pub month_day: u8,
    /// When images may be fetched; at any time if there are none.
    pub windows: Vec<Window>,
    /// Whether what a client waits for may be fetched outside the windows.
    pub urgent: bool,
}

/// `[import]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Public keys, PEM: only bundles signed with one of them are imported; anything, if not given.
    pub key_file: Option<PathBuf>,
}

/// `[ground_control]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroundControl {
    /// Where it answers.
    pub url: Url,
    /// The enrolment token.
    pub token: Token,
    /// An extra certificate authority, PEM; also for the registry that holds the desired state.
    pub ca_file: Option<PathBuf>,
    /// A client certificate, PEM.
    pub client_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key: Option<PathBuf>,
    /// What credentials are sealed with on flash, in place of the device's serial number.
    pub key_file: Option<PathBuf>,
}

impl GroundControl {
    /// Whether a certificate is shown, and nothing said of a token.
    pub fn is_certified(&self) -> bool {
        self.client_cert.is_some() && self.token == Token::KernelCommandLine
    }
}

/// `[state]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where it lies.
    pub place: StatePlace,
    /// What opens the URL.
    pub username: Option<String>,
    /// Where the password is: it is read when it is used.
    pub password_file: Option<PathBuf>,
    /// An extra certificate authority, PEM.
    pub ca_file: Option<PathBuf>,
    /// A client certificate, PEM.
    pub client_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key: Option<PathBuf>,
}

/// Where a desired state lies without a Ground Control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatePlace {
    /// `file`
    File(PathBuf),
    /// `url`
    Url(Url),
}

/// Where the enrolment token is: it is read when it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// `token`
    Text(Secret),
    /// `token_file`
    File(PathBuf),
    /// The kernel's command line: `moonlet.token=`.
    KernelCommandLine,
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MASK:?}")
    }
}

/// One `[[upstream]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The registry's name in references.
    pub registry: String,
    /// Where it answers.
    pub url: Url,
    /// For authentication.
    pub username: Option<String>,
    /// Where the password is: it is read when it is used.
    pub password_file: Option<PathBuf>,
    /// The password that came with the desired state; no file has it.
    pub password: Option<Secret>,
    /// An extra certificate authority, PEM.
    pub ca_file: Option<PathBuf>,
    /// A client certificate, PEM.
    pub client_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key: Option<PathBuf>,
    /// What clients may have fetched from it, if `pull_through` is set.
    pub pull_through: Option<PullThrough>,
}

/// `pull_through = true` of an `[[upstream]]`, with what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullThrough {
    /// For how long what a tag means is believed before the registry is asked again.
    pub tag_ttl: Duration,
    /// Repositories that may be fetched; all if there are none.
    pub allow: Vec<Pattern>,
    /// Those of them that may not.
    pub deny: Vec<Pattern>,
}

impl PullThrough {
    /// Whether a repository may be fetched.
    pub fn allows(&self, repository: &str) -> bool {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.fits(repository));
        (self.allow.is_empty() || fits(&self.allow)) && !fits(&self.deny)
    }
}

/// One `[[image]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Which.
    pub reference: Reference,
    /// For which platforms.
    pub platforms: Vec<Platform>,
    /// When its tag is to mean it.
    pub activation: Activation,
}

/// When the tag of an image is to mean it. Until then it is fetched and kept under none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// As soon as it is held.
    #[default]
    Now,
    /// Not before this, in seconds since 1970.
    At(u64),
    /// That is not decided yet.
    Undecided,
}

impl Image {
    /// Whether it is only to be kept for later.
    pub fn is_staged(&self) -> bool {
        self.activation != Activation::Now
    }
}

/// Where a proxy is; its password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl From<Url> for ProxyUrl {
    fn from(url: Url) -> Self {
        Self(url)
    }
}

impl ProxyUrl {
    /// The whole.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
            return f.write_str(MASK);
        }
        url.fmt(f)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What of it hardly does what was meant, a line each.
    pub warnings: Vec<String>,
}

/// All that is wrong with a configuration, one problem a line.
#[derive(Debug)]
pub struct Errors(Vec<String>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Errors {}

impl Config {
    /// Adds what somebody else wants held. What this file says of an image or an upstream counts,
    /// and an upstream that it only implies does not.
    pub fn extend(&mut self, images: Vec<Image>, upstreams: Vec<Upstream>) {
        for upstream in upstreams {
            let same = self.upstreams.iter_mut().find(|own| own.registry == upstream.registry);
            match same {
                Some(own) if upstream::implied(&own.registry).as_ref() == Some(own) => {
                    *own = upstream
                }
                // One that only says how to get there is opened with what was given for it.
                Some(own)
                    if own.username.is_none() && own.url.origin() == upstream.url.origin() =>
                {
                    own.username = upstream.username;
                    own.password = upstream.password;
                }
                Some(_) => {}
                None => self.upstreams.push(upstream),
            }
        }
        let own_count = self.images.len();
        for image in images {
            if image.is_staged() {
                let own = self.images.iter().take(own_count);
                let is_own = |own: &Image| own.reference.is_same_tag(&image.reference);
                if !own.into_iter().any(is_own) {
                    self.images.push(image);
                }
                continue;
            }
            match self.images.iter_mut().find(|own| own.reference.is_same_tag(&image.reference)) {
                Some(own) => {
                    let new = image.platforms.into_iter();
                    let new: Vec<_> = new.filter(|one| !own.platforms.contains(one)).collect();
                    own.platforms.extend(new);
                }
                None => self.images.push(image),
            }
        }
    }
}

impl Serve {
    /// Listens at the first of `lists`, and at the others beside it; an empty one stands for what
    /// is listened on now. What faces a network without leave is left out.
    pub fn listen_at(&mut self, lists: Vec<Vec<SocketAddr>>) {
        let may_face = self.tls.is_some() || self.insecure;
        let own = std::mem::take(&mut self.listen);
        for list in if lists.is_empty() { vec![Vec::new()] } else { lists } {
            let is_own = list.is_empty();
            for address in if is_own { own.clone() } else { list } {
                let may = is_own || may_face || address.ip().is_loopback();
                if may && !self.listen.contains(&address) {
                    self.listen.push(address);
                }
            }
        }
    }
}

/// Reads and resolves a configuration file.
///
/// # Errors
/// Every problem that was found.
pub fn load(path: &Path) -> Result<Loaded, Errors> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Errors(vec![format!("{}: {error}; expected a configuration in TOML", path.display())])
    })?;
    read::parse(&path.display().to_string(), &text).map_err(Errors)
}

/// The one of `known` that a mistyped `word` is most like; empty when none is known.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> &'a str {
    known.iter().min_by_key(|known| distance(known, word)).map_or("", |nearest| nearest)
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut next = vec![index + 1];
        for (at, with) in other.iter().enumerate() {
            let replaced = row.get(at).map_or(0, |cost| cost + usize::from(letter != *with));
            let removed = row.get(at + 1).map_or(0, |cost| cost + 1);
            let added = next.last().map_or(0, |cost| cost + 1);
            next.push(replaced.min(removed).min(added));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// Stands for a secret.
const MASK: &str = "********";
