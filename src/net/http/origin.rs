//! Whom a request is for, when it comes to a proxy.

use std::fmt;

use crate::oci::valid_registry;

/// The host and port that a client means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// A name in lower case, or an address, of IPv6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether the request came through a tunnel that ends here.
    pub is_tunnelled: bool,
}

impl Origin {
    /// Reads `host:port`; without a port it is `default`, if there is one.
    pub(super) fn parse(text: &str, default: Option<u16>) -> Option<Self> {
        if !valid_registry(text) {
            return None;
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (text, default?),
        };
        Some(Self { host: host.to_ascii_lowercase(), port, is_tunnelled: false })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where a URL has none.
pub const HTTP_PORT: u16 = 80;
/// The same for https, and for a CONNECT.
pub const HTTPS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_ports_or_the_usual_one() {
        for (text, expected) in [
            ("Docker.io:443", "docker.io:443"),
            ("docker.io", "docker.io:80"),
            ("[2001:DB8::1]:5000", "[2001:db8::1]:5000"),
            ("[::1]", "[::1]:80"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(Origin::parse(text, Some(80)).unwrap().to_string(), expected);
        }
        for text in
            ["", ":443", "a:0", "a:65536", "a:b", "a b:1", "u@a:1", "a:1/", "::1:443", "a_b"]
        {
            assert_eq!(Origin::parse(text, Some(80)), None, "{text}");
        }
        assert_eq!(Origin::parse("docker.io", None), None);
    }
}
