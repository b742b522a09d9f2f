//! Which requests go through a proxy: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` as curl reads
//! them, in capitals too, or the one proxy that the configuration names.
//!
//! The proxy is spoken to in plain HTTP: requests to `http` carry the whole URL, `https` goes
//! through a tunnel (CONNECT), so that only the registry sees what is inside. Loopback is no
//! exception unless `NO_PROXY` makes it one. The password of a proxy goes to the proxy and nowhere
//! else: it is in no message, and the types here show nothing of it.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use log::warn;
use percent_encoding::percent_decode_str;
use url::Url;

/// The proxies in use; by default none.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exempt: Vec<Exempt>,
}

/// One proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub host: String,
    pub port: u16,
    /// The value of Proxy-Authorization.
    pub authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Proxies {
    /// What the process's environment says, of which `configured` takes the place for both schemes.
    pub fn from_environment(configured: Option<&Url>) -> Self {
        Self::new(configured, |name| std::env::var(name).ok())
    }

    fn new(configured: Option<&Url>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| {
            let names = [name.to_owned(), name.to_ascii_uppercase()];
            let found = names.into_iter().find_map(|name| variable(&name).map(|text| (name, text)));
            found.filter(|(_, text)| !text.trim().is_empty())
        };
        let named = |name: &str| match configured {
            Some(url) => proxy(url),
            None => {
                let (name, text) = variable(name)?;
                let found = parse(text.trim());
                if found.is_none() {
                    warn!("{name}: passed over, expected a proxy such as http://host:port");
                }
                found
            }
        };
        let (http, https) = (named("http_proxy"), named("https_proxy"));
        let exempt = variable("no_proxy").map(|(_, text)| exemptions(&text)).unwrap_or_default();
        Self { http, https, exempt }
    }

    /// The proxy for requests to a host; `host` is as in a URL.
    pub(super) fn find(&self, is_tls: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if is_tls { self.https.as_ref() } else { self.http.as_ref() }?;
        let is_exempt = self.exempt.iter().any(|exempt| exempt.covers(host, port));
        (!is_exempt).then_some(proxy)
    }
}

fn parse(text: &str) -> Option<Proxy> {
    let has_scheme = text.contains("://");
    let text = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    proxy(&Url::parse(&text).ok()?)
}

fn proxy(url: &Url) -> Option<Proxy> {
    let host = url.host_str().filter(|_| url.scheme() == "http")?.to_owned();
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let authorization = (!url.username().is_empty() || url.password().is_some()).then(|| {
        let password = decoded(url.password().unwrap_or_default());
        let pair = [decoded(url.username()), b":".to_vec(), password].concat();
        format!("Basic {}", STANDARD.encode(pair))
    });
    Some(Proxy { host, port: url.port_or_known_default()?, authorization })
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exempt {
    whom: Whom,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    All,
    /// Addresses that begin with these bits.
    Net(IpAddr, u32),
    /// This name and all below it.
    Domain(String),
}

impl Exempt {
    fn covers(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        let host = host.trim_matches(['[', ']']).trim_end_matches('.');
        match &self.whom {
            Whom::All => true,
            Whom::Net(net, bits) => {
                host.parse::<IpAddr>().is_ok_and(|address| is_within(address, *net, *bits))
            }
            Whom::Domain(domain) => {
                let host = host.to_ascii_lowercase();
                host.strip_suffix(domain.as_str())
                    .is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
        }
    }
}

/// Entries are separated by commas or blanks; what cannot be read covers nothing.
fn exemptions(text: &str) -> Vec<Exempt> {
    let entries = text.split(|letter: char| letter == ',' || letter.is_ascii_whitespace());
    entries.filter(|entry| !entry.is_empty()).take(EXEMPT_MAX).filter_map(exemption).collect()
}

fn exemption(entry: &str) -> Option<Exempt> {
    if let Some((net, bits)) = entry.split_once('/') {
        let net: IpAddr = net.parse().ok()?;
        let width = if net.is_ipv4() { 32 } else { 128 };
        let bits = bits.parse().ok().filter(|bits| *bits <= width)?;
        return Some(Exempt { whom: Whom::Net(net, bits), port: None });
    }
    let whole = |address: IpAddr| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Whom::Net(address, bits)
    };
    if let Ok(address) = entry.trim_matches(['[', ']']).parse() {
        return Some(Exempt { whom: whole(address), port: None });
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    let bare = host.trim_matches(['[', ']']);
    let whom = match bare.parse() {
        Ok(address) => whole(address),
        Err(_) if host == "*" => Whom::All,
        Err(_) => {
            let domain = host.strip_prefix('*').unwrap_or(host).trim_matches('.');
            Whom::Domain(domain.to_ascii_lowercase())
        }
    };
    Some(Exempt { whom, port }).filter(|exempt| exempt.whom != Whom::Domain(String::new()))
}

fn is_within(address: IpAddr, net: IpAddr, bits: u32) -> bool {
    let (one, other, width) = match (address, net) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (u128::from(one.to_bits()), u128::from(other.to_bits()), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    (one ^ other).checked_shr(width - bits).unwrap_or(0) == 0
}

/// Entries of `NO_PROXY`.
const EXEMPT_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(lines: &[(&str, &str)]) -> Proxies {
        Proxies::new(None, |name| {
            lines.iter().find(|(held, _)| *held == name).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_environment_is_read_as_curl_does() {
        let found = proxies(&[("HTTPS_PROXY", "http://u%40x:p%3Aw@proxy:3128/"), ("no_proxy", "")]);
        let proxy = found.find(true, "a.example", 443).unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy", 3128));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dUB4OnA6dw=="));
        assert!(!format!("{found:?}").contains("dUB4"));
        assert!(found.find(false, "a.example", 80).is_none());
        let found = proxies(&[("http_proxy", "proxy"), ("HTTP_PROXY", "other")]);
        assert_eq!(format!("{:?}", found.find(false, "a", 80)), "Some(proxy:80)");
        assert!(proxies(&[("http_proxy", "socks5://a")]).find(false, "a", 80).is_none());
        let url = Url::parse("http://ours:8080").unwrap();
        let configured = Proxies::new(Some(&url), |_| Some("theirs:1".to_owned()));
        assert_eq!(format!("{:?}", configured.find(true, "a", 80)), "Some(ours:8080)");
    }

    #[test]
    fn exceptions() {
        let list = "localhost, .corp.example *.lab,10.0.0.0/8 ::1,host:5000,[fd00::]:1,fe80::/10,\
                    192.168.1.7,:8,1.2.3.4/99,";
        let found = proxies(&[("http_proxy", "p"), ("NO_PROXY", list)]);
        let goes_direct = |host: &str, port| found.find(false, host, port).is_none();
        for (host, port) in [
            ("localhost", 80),
            ("LOCALHOST.", 80),
            ("a.corp.example", 80),
            ("corp.example", 80),
            ("x.lab", 1),
            ("10.255.0.1", 80),
            ("[::1]", 80),
            ("host", 5000),
            ("[fd00::]", 1),
            ("[febf::1]", 80),
            ("192.168.1.7", 5000),
        ] {
            assert!(goes_direct(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("notlocalhost", 80),
            ("11.0.0.1", 80),
            ("host", 80),
            ("[fd00::]", 2),
            ("[::2]", 80),
            ("127.0.0.1", 80),
            ("1.2.3.4", 80),
            ("192.168.1.70", 80),
        ] {
            assert!(!goes_direct(host, port), "{host}:{port}");
        }
        assert!(proxies(&[("http_proxy", "p"), ("no_proxy", "*")]).find(false, "a", 1).is_none());
    }
}
