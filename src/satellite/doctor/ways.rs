//! The ways to upstreams and to Ground Control, step by step.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use url::Url;

use super::{Finding, within};
use crate::clock::SharedClock;
use crate::clock::date::Civil;
use crate::config::{GroundControl, State, StatePlace, Upstream};
use crate::kind::Kind;
use crate::net::http::{Client, ClientLimits, ClientRequest, Headers, Method};
use crate::net::{Network, tls};
use crate::registry::{Credentials, Password, Registry};
use crate::satellite::run::registry_options;

/// What ways are gone with.
#[derive(Clone)]
pub struct Ways {
    /// Its meter is of these checks alone.
    pub network: Network,
    pub clock: SharedClock,
}

impl Ways {
    /// An upstream: its name, a connection, TLS, and `/v2/` with the credentials.
    pub async fn upstream(self, upstream: Upstream) -> Vec<Finding> {
        let Self { network, clock } = self;
        let way = Way::new(&upstream.registry, &clock);
        let registry = Registry::new(registry_options(&upstream), network, Rc::clone(&clock));
        let steps = async {
            if !way.reach(registry.client(), registry.base()).await {
                return;
            }
            way.begin("answer");
            match registry.ping().await {
                Ok(()) => {
                    let who = upstream.username.as_deref().unwrap_or("anybody");
                    way.ok(format!("/v2/ answers {who}"));
                }
                Err(error) => {
                    let advice = match (error.kind(), &upstream.username) {
                        (Kind::Denied, Some(_)) => {
                            "check username and password_file: the registry does not take them"
                        }
                        (Kind::Denied, None) => "set its username and password_file",
                        _ => "check url: is a registry there?",
                    };
                    way.fail(error.to_string(), advice);
                }
            }
        };
        way.findings(within(DEADLINE, steps).await)
    }

    /// Ground Control: its name, a connection, TLS, and whether it answers.
    pub async fn ground_control(&self, ground: GroundControl) -> Vec<Finding> {
        let options =
            tls::ClientOptions::new(&ground.ca_file, &ground.client_cert, &ground.client_key);
        let base = ground.url.as_str().trim_end_matches('/');
        let Ok(url) = Url::parse(&format!("{base}/ping")) else { return Vec::new() };
        let advice = "check [ground_control] url: is Ground Control there?";
        self.page("ground control", url, options, Headers::new(), advice).await
    }

    /// The document that says what to hold, where it lies behind a URL.
    pub async fn state(&self, state: State) -> Vec<Finding> {
        let StatePlace::Url(url) = state.place else { return Vec::new() };
        let options =
            tls::ClientOptions::new(&state.ca_file, &state.client_cert, &state.client_key);
        let mut headers = Headers::new();
        // A file that cannot be read is reported by itself.
        if let Some((username, path)) = state.username.zip(state.password_file)
            && let Ok(basic) = Credentials::new(username, Password::File(path)).basic()
        {
            headers.append("authorization", basic);
        }
        let advice = "check [state] url, username and password_file: is the document there?";
        self.page("desired state", url, options, headers, advice).await
    }

    /// The way to a page, and whether it comes.
    async fn page(
        &self,
        name: &str,
        url: Url,
        options: tls::ClientOptions,
        headers: Headers,
        advice: &str,
    ) -> Vec<Finding> {
        let trust = tls::Trust::new(options, Rc::clone(&self.clock));
        let limits = ClientLimits::default();
        let client = Client::new(trust, self.network.clone(), limits);
        let way = Way::new(name, &self.clock);
        let steps = async {
            if !way.reach(&client, &url).await {
                return;
            }
            way.begin("answer");
            let (method, path) = (Method::Get, url.path().to_owned());
            match client.send(ClientRequest { method, url, headers, body: Vec::new() }).await {
                Ok(response) if response.status == 200 => way.ok(format!("{path} answers")),
                Ok(response) => {
                    let seen = format!("{path} answers with status {}", response.status);
                    way.fail(seen, advice);
                }
                Err(error) => way.fail(error.to_string(), advice),
            }
        };
        way.findings(within(DEADLINE, steps).await)
    }
}

/// One way, as far as it was gone.
struct Way {
    name: String,
    clock: SharedClock,
    /// What is looked at now.
    step: Cell<&'static str>,
    found: RefCell<Vec<Finding>>,
}

impl Way {
    fn new(name: &str, clock: &SharedClock) -> Self {
        let (name, clock) = (name.to_owned(), Rc::clone(clock));
        Self { name, clock, step: Cell::new(""), found: RefCell::default() }
    }

    /// The steps up to a connection over which a request can go; whether there is one.
    async fn reach(&self, client: &Client, url: &Url) -> bool {
        self.begin("name");
        let host = match client.resolve(url).await {
            Err(error) => {
                let advice = "check the name servers (/etc/resolv.conf), and the name in url";
                self.fail(error.to_string(), advice);
                return false;
            }
            Ok((host, addresses)) => {
                let shown: Vec<String> =
                    addresses.iter().take(ADDRESSES_SHOWN).map(IpAddr::to_string).collect();
                self.ok(match shown.join(", ") {
                    address if host.trim_matches(['[', ']']) == address => {
                        format!("{host} is an address already")
                    }
                    addresses => format!("{host} is {addresses}"),
                });
                host
            }
        };
        self.begin("connection");
        let connected = match client.connect(url).await {
            Err(error) => {
                let advice = "is the link up, is a firewall on the way, does it need a proxy?";
                self.fail(error.to_string(), advice);
                return false;
            }
            Ok(connected) => {
                let tls = if url.scheme() == "https" { "" } else { ", without TLS" };
                self.ok(format!("to {host}{tls}"));
                connected
            }
        };
        if url.scheme() != "https" {
            return true;
        }
        self.begin("certificate");
        match connected.keep(EXPIRY_WARNED).await {
            Err(error) => {
                let day = Civil::new(self.clock.unix_seconds()).day();
                let advice = format!(
                    "the clock goes by {day}: set it if that is wrong; else have the certificate \
                     renewed there, or name its authority in ca_file"
                );
                self.fail(error.to_string(), &advice);
                return false;
            }
            Ok(None) => {
                let days = EXPIRY_WARNED.as_secs() / 86_400;
                self.ok(format!("is trusted, and good for more than {days} days"));
            }
            Ok(Some(end)) => {
                let seen = format!("is trusted, and ends on {}", Civil::new(end).day());
                self.add(Finding::warn(self.check(), seen, "have it renewed there before"));
            }
        }
        true
    }

    fn begin(&self, step: &'static str) {
        self.step.set(step);
    }

    fn check(&self) -> String {
        format!("{}: {}", self.name, self.step.get())
    }

    fn ok(&self, seen: impl AsRef<str>) {
        self.add(Finding::ok(self.check(), seen));
    }

    fn fail(&self, seen: impl AsRef<str>, advice: &str) {
        self.add(Finding::fail(self.check(), seen, advice));
    }

    fn add(&self, finding: Finding) {
        self.found.borrow_mut().push(finding);
    }

    /// What was found, the deadline included if it has passed.
    fn findings(&self, done: Option<()>) -> Vec<Finding> {
        if done.is_none() {
            let seen = format!("no answer within {} s for all steps", DEADLINE.as_secs());
            let advice = match self.step.get() {
                "name" => "the name servers (/etc/resolv.conf) do not answer",
                _ => "the link is down or very slow, or something on the way drops packets",
            };
            self.fail(seen, advice);
        }
        self.found.take()
    }
}

/// For all steps of one way.
const DEADLINE: Duration = Duration::from_secs(10);
const EXPIRY_WARNED: Duration = Duration::from_hours(14 * 24);
const ADDRESSES_SHOWN: usize = 4;
