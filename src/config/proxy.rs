//! `[proxy]`: where a forward proxy listens, and what besides registries it leads to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::str::FromStr;

use super::table::{Reader, Table};
use super::{Proxy, ProxyUrl, Upstream};
use crate::oci::valid_registry;

/// Hosts, and the port on them: `host`, `*.domain` or `*`, each with `:port` where that is not 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// Whether it means that host, in lower case.
    pub fn fits(&self, host: &str, port: u16) -> bool {
        let (pattern, only) = self.parts();
        let fits = match pattern.strip_prefix('*') {
            // All of them, or those with a name before it.
            Some(end) => host.strip_suffix(end).is_some_and(|name| !name.is_empty()),
            None => host == pattern,
        };
        fits && port == only
    }

    fn parts(&self) -> (&str, u16) {
        let parts =
            self.0.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        parts.unwrap_or((&self.0, PORT))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostPattern {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // What stands after the star is a host by itself.
        let rest = match text.strip_prefix('*') {
            None => text.to_owned(),
            Some(rest) => match rest.strip_prefix('.') {
                Some(domain) => domain.to_owned(),
                None if rest.is_empty() || rest.starts_with(':') => format!("any{rest}"),
                None => return Err(()),
            },
        };
        if valid_registry(&rest) { Ok(Self(text.to_ascii_lowercase())) } else { Err(()) }
    }
}

impl<'a> Reader<'a> {
    /// What `[proxy]` says, and where in the text its addresses stand.
    pub(super) fn forward_proxy(
        &mut self,
        mut table: Table<'a>,
    ) -> (Proxy, Vec<(Range<usize>, SocketAddr)>) {
        let mut listen = self.addresses(&mut table);
        if listen.is_empty() {
            listen.push((table.span.clone(), SocketAddr::from(([127, 0, 0, 1], LISTEN_PORT))));
        }
        let mut allow = Vec::new();
        for (span, text) in self.texts(&mut table, "allow") {
            match text.parse::<HostPattern>() {
                Ok(pattern) => allow.push(pattern),
                Err(()) => {
                    let expected = "a host such as \"example.com\", \"*.example.com\" or \"*\", \
                                    with its port if that is not 443";
                    self.problem(span, "[proxy] allow", &format!("{text:?}"), expected);
                }
            }
        }
        let private = self.flag(&mut table, "private").unwrap_or(false);
        if private && allow.is_empty() {
            self.warn(table.span.clone(), "[proxy] private does nothing without allow");
        }
        let insecure = self.flag(&mut table, "insecure").unwrap_or(false);
        if !insecure {
            self.check_proxy_loopback(&listen);
        }
        self.finish(table, &KEYS);
        let addresses = listen.iter().map(|(_, address)| *address).collect();
        (Proxy { listen: addresses, allow, private, insecure }, listen)
    }

    /// There is something to answer for, and what is answered here is led nowhere else.
    pub(super) fn check_proxy(
        &mut self,
        proxy: &Proxy,
        listen: &[(Range<usize>, SocketAddr)],
        upstreams: &[Upstream],
        others_may_come: bool,
    ) {
        let span = listen.first().map_or(0..0, |(span, _)| span.clone());
        if upstreams.is_empty() && !others_may_come {
            let what = "[proxy]: there is no registry to answer for: expected [[upstream]] or \
                        [[image]]";
            self.warn(span.clone(), what);
        }
        for pattern in &proxy.allow {
            let named = |up: &&Upstream| up.registry == pattern.0;
            if let Some(upstream) = upstreams.iter().find(named) {
                let what = format!(
                    "[proxy] allow {}: is answered here, as [[upstream]] says",
                    upstream.registry
                );
                self.warn(span.clone(), &what);
            }
        }
    }

    /// A proxy is spoken to in clear, its passwords too.
    fn check_proxy_loopback(&mut self, listen: &[(Range<usize>, SocketAddr)]) {
        for (span, address) in listen.iter().filter(|(_, address)| !address.ip().is_loopback()) {
            let expected = "a loopback address, or insecure = true to let a network use it";
            self.problem(span.clone(), "[proxy] listen", &format!("\"{address}\""), expected);
        }
    }
}

/// Whether a proxy is at one of these addresses of this device.
pub(super) fn leads_to(proxy: &ProxyUrl, listen: &[SocketAddr]) -> bool {
    let url = proxy.url();
    let port = url.port_or_known_default();
    listen.iter().any(|address| {
        let is_host = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" && address.ip().is_loopback(),
            Some(url::Host::Ipv4(ip)) => address.ip() == IpAddr::V4(ip),
            Some(url::Host::Ipv6(ip)) => address.ip() == IpAddr::V6(ip),
            None => false,
        };
        is_host && port == Some(address.port())
    })
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listen, allow, private, insecure } = self;
        let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
        writeln!(f, "\n[proxy]\nlisten = {listen:?}")?;
        let allow: Vec<String> = allow.iter().map(ToString::to_string).collect();
        writeln!(f, "allow = {allow:?}\nprivate = {private}")?;
        if *insecure { writeln!(f, "insecure = true") } else { Ok(()) }
    }
}

const KEYS: [&str; 4] = ["listen", "allow", "private", "insecure"];
const LISTEN_PORT: u16 = 8587;
/// Where a pattern names none: that of https.
const PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::super::read::parse;
    use super::*;

    #[test]
    fn patterns_mean_hosts_and_ports() {
        let fits = |pattern: &str, host: &str, port| {
            pattern.parse::<HostPattern>().unwrap().fits(host, port)
        };
        for (pattern, host, port) in [
            ("Example.com", "example.com", 443),
            ("*.example.com", "a.b.example.com", 443),
            ("*", "anything.test", 443),
            ("*:8443", "192.0.2.1", 8443),
            ("[2001:db8::1]:8443", "[2001:db8::1]", 8443),
            ("[2001:db8::1]", "[2001:db8::1]", 443),
        ] {
            assert!(fits(pattern, host, port), "{pattern}");
        }
        for (pattern, host, port) in [
            ("example.com", "an.example.com", 443),
            ("example.com", "example.com", 22),
            ("*.example.com", "example.com", 443),
            ("*.example.com", "badexample.com", 443),
            ("*.example.com", ".example.com", 443),
            ("*", "anything.test", 22),
            ("*:8443", "anything.test", 443),
        ] {
            assert!(!fits(pattern, host, port), "{pattern}");
        }
        for text in ["", "https://a", "a/b", "*a.com", "a.*.com", "**", "*:0", "*:", "a:b", "a b"] {
            assert_eq!(text.parse::<HostPattern>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_proxy_is_asked_for_and_stays_on_this_device() {
        assert_eq!(parse("m.toml", "").unwrap().config.proxy, None);
        let loaded = parse("m.toml", "[proxy]\n").unwrap();
        let proxy = loaded.config.proxy.clone().unwrap();
        assert_eq!(proxy.listen, ["127.0.0.1:8587".parse().unwrap()]);
        assert!(proxy.allow.is_empty() && !proxy.private);
        assert!(loaded.warnings.iter().any(|line| line.contains("no registry")), "{loaded:?}");
        let open = "[proxy]\nlisten = \"0.0.0.0:3128\"\nallow = [\"*.example.com\", \"a:1\"]\n\
                    private = true\ninsecure = true\n[[image]]\nreference = \"up.test/a:1\"\n";
        let loaded = parse("m.toml", open).unwrap();
        assert_eq!(loaded.warnings, <[&str; 0]>::default());
        assert_eq!(parse("again", &loaded.config.to_string()).unwrap().config, loaded.config);
        for (lines, expected) in [
            (
                "listen = \"0.0.0.0:3128\"",
                "m.toml:2: [proxy] listen = \"0.0.0.0:3128\": expected a loopback address, or \
                 insecure = true",
            ),
            ("listen = \"3128\"", "m.toml:2: [proxy] listen = \"3128\": expected an address"),
            ("listen = \"127.0.0.1:8585\"", "expected an address that 127.0.0.1:8585 does not"),
            ("allow = \"http://a\"", "m.toml:2: [proxy] allow = \"http://a\": expected a host"),
            ("alow = \"a\"", "alow: an unknown key; did you mean allow?"),
            ("private = 1", "[proxy] private = 1: expected true or false"),
        ] {
            let problems = parse("m.toml", &format!("[proxy]\n{lines}\n")).unwrap_err();
            assert!(problems[0].contains(expected), "{problems:?}");
        }
        for (lines, expected) in [
            (
                "[serve]\nlisten = \"0.0.0.0:8585\"\ntls_cert = \"c\"\ntls_key = \"k\"\n\
                 client_ca = \"a\"",
                "[proxy] = without passwords: expected [serve] htpasswd beside client_ca",
            ),
            (
                "[link]\nproxy = \"http://127.0.0.1:8587\"",
                "[link] proxy = an address of [proxy] listen: expected another proxy",
            ),
            ("[link]\nproxy = \"http://localhost:8587\"", "expected another proxy"),
        ] {
            let problems = parse("m.toml", &format!("[proxy]\n{lines}\n")).unwrap_err();
            assert!(problems.iter().any(|line| line.contains(expected)), "{problems:?}");
        }
        parse("m.toml", "[proxy]\n[link]\nproxy = \"http://127.0.0.1:3128\"\n").unwrap();
        let warnings = |lines: &str| {
            let text = format!("[proxy]\n{lines}\n[[image]]\nreference = \"up.test/a:1\"\n");
            parse("m.toml", &text).unwrap().warnings.join("\n")
        };
        assert!(warnings("private = true").contains("does nothing without allow"));
        assert!(warnings("allow = \"up.test\"").contains("up.test: is answered here"));
    }
}
