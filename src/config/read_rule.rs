//! `[[serve.rule]]`: who may read which repositories.
//!
//! The first rule that covers both the client and the repository decides, and where there are rules,
//! what none of them covers may not be read. A kind of client that a rule leaves out is any.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::str::FromStr;

use super::table::{Reader, Table};
use super::{Config, Upstream, nearest};
use crate::oci::Pattern;

/// One `[[serve.rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRule {
    /// Users of `[serve] htpasswd`.
    pub users: Vec<String>,
    /// Names in certificates of clients.
    pub certificates: Vec<String>,
    /// Where clients are.
    pub addresses: Vec<AddressRange>,
    /// The registry's name in references; any, if there is none here.
    pub registry: Option<String>,
    /// Repositories; all of them, if there are none here.
    pub repositories: Vec<Pattern>,
    /// Whether what it covers may be read.
    pub allow: bool,
}

/// Who asks, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct ReadClient<'a> {
    /// The user whose password was shown.
    pub user: Option<&'a str>,
    /// The names of the certificate that was shown.
    pub certificate: &'a [String],
    /// Where it is.
    pub address: IpAddr,
}

/// Whether the rules let a client read a repository of a registry.
pub fn may_read(
    rules: &[ReadRule],
    client: ReadClient<'_>,
    registry: &str,
    repository: &str,
) -> bool {
    let covers = |rule: &&ReadRule| rule.is_about(client) && rule.covers(registry, repository);
    rules.is_empty() || rules.iter().find(covers).is_some_and(|rule| rule.allow)
}

/// Whether they let it read whatever there is.
pub fn may_read_all(rules: &[ReadRule], client: ReadClient<'_>) -> bool {
    let mut about = rules.iter().filter(|rule| rule.is_about(client));
    // One that refuses something comes before any that would allow it.
    let decides = |rule: &&ReadRule| !rule.allow || rule.covers_all();
    rules.is_empty() || about.find(decides).is_some_and(|rule| rule.allow)
}

impl ReadRule {
    fn is_about(&self, client: ReadClient<'_>) -> bool {
        let Self { users, certificates, addresses, .. } = self;
        let has_user = || client.user.is_some_and(|user| users.iter().any(|one| one == user));
        let is_same =
            |name: &String| certificates.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
        (users.is_empty() || has_user())
            && (certificates.is_empty() || client.certificate.iter().any(is_same))
            && (addresses.is_empty() || addresses.iter().any(|range| range.has(client.address)))
    }

    fn covers(&self, registry: &str, repository: &str) -> bool {
        let is_named = || self.repositories.iter().any(|pattern| pattern.fits(repository));
        self.registry.as_ref().is_none_or(|name| name == registry)
            && (self.repositories.is_empty() || is_named())
    }

    fn covers_all(&self) -> bool {
        self.registry.is_none() && self.repositories.is_empty()
    }

    fn is_about_anyone(&self) -> bool {
        self.users.is_empty() && self.certificates.is_empty() && self.addresses.is_empty()
    }
}

/// Addresses that begin alike: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    bits: u32,
}

impl AddressRange {
    fn has(self, address: IpAddr) -> bool {
        // A listener on [::] shows IPv4 in the clothes of IPv6.
        let address = address.to_canonical();
        let differing = bits_of(self.first) ^ bits_of(address);
        address.is_ipv4() == self.first.is_ipv4() && differing.leading_zeros() >= self.bits
    }
}

/// The bits of an address, those of IPv4 first.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for AddressRange {
    type Err = ();

    /// Bits behind the range are a mistake in one of the two, and which is not known.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let first: IpAddr = first.parse().map_err(|_| ())?;
        let all = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), str::parse).map_err(|_| ())?;
        let behind = bits_of(first).checked_shl(bits).unwrap_or_default();
        (bits <= all && behind == 0).then_some(Self { first, bits }).ok_or(())
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl<'a> Reader<'a> {
    /// The rules, and where each stands.
    pub fn read_rules(&mut self, serve: &mut Table<'a>) -> Vec<(Range<usize>, ReadRule)> {
        let tables = self.list(serve, "rule");
        if let Some(table) = tables.get(RULES_MAX) {
            let expected = format!("at most {RULES_MAX} of them");
            self.problem(table.span.clone(), &table.name, "too many", &expected);
        }
        tables.into_iter().map(|table| (table.span.clone(), self.read_rule(table))).collect()
    }

    fn read_rule(&mut self, mut table: Table<'a>) -> ReadRule {
        for key in ["users", "certificates", "addresses", "repositories"] {
            self.check_some(&table, key);
        }
        let users = self.names(&mut table, "users", "a user of [serve] htpasswd");
        let certificates =
            self.names(&mut table, "certificates", "a name that a certificate of a client has");
        let label = format!("{} addresses", table.name);
        let mut addresses = Vec::new();
        for (span, text) in self.texts(&mut table, "addresses") {
            match text.parse() {
                Ok(range) => addresses.push(range),
                Err(()) => {
                    let expected = "an address, or a range such as \"10.0.0.0/8\" or \"fd00::/8\", \
                                    without bits behind it";
                    self.problem(span, &label, &format!("{text:?}"), expected);
                }
            }
        }
        let is_named = table.has("registry");
        let registry = if is_named { self.registry(&mut table) } else { None };
        let repositories = self.patterns(&mut table, "repositories");
        let allow = self.flag(&mut table, "allow").unwrap_or(true);
        self.finish(table, &KEYS);
        ReadRule { users, certificates, addresses, registry, repositories, allow }
    }

    fn names(&mut self, table: &mut Table<'a>, key: &str, expected: &str) -> Vec<String> {
        let label = format!("{} {key}", table.name);
        let mut names = Vec::new();
        for (span, text) in self.texts(table, key) {
            if text.trim() != text || text.is_empty() {
                self.problem(span, &label, &format!("{text:?}"), expected);
            }
            names.push(text);
        }
        names
    }

    /// What a rule names must be there to be shown, and a rule of which nothing comes is a mistake.
    pub fn check_read_rules(&mut self, spans: &[Range<usize>], config: &Config) {
        let tls = config.serve.tls.as_ref();
        let has_certificates = tls.is_some_and(|tls| tls.client_ca.is_some());
        let names: Vec<&str> = config.upstreams.iter().map(|up: &Upstream| &*up.registry).collect();
        for (index, (span, rule)) in spans.iter().zip(&config.serve.rules).enumerate() {
            if !rule.users.is_empty() && config.serve.htpasswd.is_none() {
                let expected = "[serve] htpasswd beside it: no client shows a password";
                self.problem(span.clone(), "[[serve.rule]] users", "named", expected);
            }
            if !rule.certificates.is_empty() && !has_certificates {
                let expected = "[serve] client_ca beside it: no client shows a certificate";
                self.problem(span.clone(), "[[serve.rule]] certificates", "named", expected);
            }
            let unknown = rule.registry.as_deref().filter(|name| !names.contains(name));
            if let Some(name) = unknown.filter(|_| config.ground_control.is_none()) {
                let hint = match nearest(name, &names) {
                    "" => String::new(),
                    meant => format!("; did you mean {meant}?"),
                };
                self.warn(
                    span.clone(),
                    &format!("[[serve.rule]] {name}: no image is from it{hint}"),
                );
            }
            let decides = |other: &ReadRule| other.is_about_anyone() && other.covers_all();
            let before = config.serve.rules.iter().position(decides);
            if let Some(before) = before.filter(|before| *before < index) {
                let before = spans.get(before).cloned().unwrap_or_default();
                let line = self.line(before);
                let what = format!("[[serve.rule]] does nothing: line {line} decides for anyone");
                self.warn(span.clone(), &what);
            }
        }
    }
}

impl fmt::Display for ReadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, certificates, addresses, registry, repositories, allow } = self;
        writeln!(f, "\n[[serve.rule]]")?;
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let patterns: Vec<&str> = repositories.iter().map(Pattern::as_str).collect();
        for (key, texts) in
            [("users", users), ("certificates", certificates), ("addresses", &addresses)]
        {
            if !texts.is_empty() {
                writeln!(f, "{key} = {texts:?}")?;
            }
        }
        if let Some(registry) = registry {
            writeln!(f, "registry = {registry:?}")?;
        }
        if !patterns.is_empty() {
            writeln!(f, "repositories = {patterns:?}")?;
        }
        if *allow { Ok(()) } else { writeln!(f, "allow = false") }
    }
}

const KEYS: [&str; 6] = ["users", "certificates", "addresses", "registry", "repositories", "allow"];
/// Each is looked at for each request.
const RULES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::super::read::parse;
    use super::*;

    fn rules(text: &str) -> Vec<ReadRule> {
        let text = format!(
            "[serve]\ntls_cert = \"c\"\ntls_key = \"k\"\nclient_ca = \"a\"\nhtpasswd = \"h\"\n{text}"
        );
        let loaded = parse("m.toml", &text).unwrap();
        let again = parse("again", &loaded.config.to_string()).unwrap();
        assert_eq!(again.config, loaded.config);
        loaded.config.serve.rules
    }

    /// User, certificate and address.
    type Who<'a> = (&'a str, &'a str, &'a str);

    fn ask<T>(who: Who<'_>, question: impl Fn(ReadClient<'_>) -> T) -> T {
        let (user, certificate, address) = who;
        let names: Vec<String> = certificate.split_whitespace().map(str::to_owned).collect();
        let user = Some(user).filter(|user| !user.is_empty());
        question(ReadClient { user, certificate: &names, address: address.parse().unwrap() })
    }

    #[test]
    fn the_first_rule_about_client_and_repository_decides() {
        let text = "[[serve.rule]]\nusers = \"ci\"\nregistry = \"hub.test\"\n\
                    repositories = [\"team/secret\", \"team/keys/**\"]\n\
                    [[serve.rule]]\nrepositories = [\"team/secret\", \"team/keys/**\"]\n\
                    allow = false\n\
                    [[serve.rule]]\ncertificates = [\"edge-1\", \"Edge-2.test\"]\n\
                    repositories = \"team/**\"\n\
                    [[serve.rule]]\naddresses = [\"10.1.0.0/16\", \"fd00::/8\", \"192.0.2.7\"]\n\
                    users = [\"ci\", \"ops\"]\n\
                    [[serve.rule]]\nregistry = \"docker.io\"\nrepositories = \"library/*\"\n";
        let rules = rules(text);
        let far = "203.0.113.1";
        for (who, registry, repository, expected) in [
            // What is behind a rule that refuses is refused, whatever clients a later one names.
            (("ci", "", far), "hub.test", "team/secret", true),
            (("ci", "", far), "hub.test", "team/keys/a/b", true),
            (("ci", "", far), "other.test", "team/secret", false),
            (("ci", "", "10.1.0.1"), "other.test", "team/secret", false),
            (("ops", "", "10.1.0.1"), "hub.test", "team/secret", false),
            (("", "edge-1", far), "hub.test", "team/secret", false),
            (("", "edge-1", far), "hub.test", "team/app", true),
            (("", "x EDGE-2.test", far), "any.test", "team/app", true),
            (("", "edge-3", far), "hub.test", "team/app", false),
            (("", "edge-1", far), "hub.test", "apps/app", false),
            // All kinds that a rule names count.
            (("ops", "", "10.1.255.1"), "hub.test", "apps/app", true),
            (("ops", "", "::ffff:10.1.2.3"), "hub.test", "apps/app", true),
            (("ops", "", "fdff::1"), "hub.test", "apps/app", true),
            (("ops", "", "192.0.2.7"), "hub.test", "apps/app", true),
            (("ops", "", "192.0.2.6"), "hub.test", "apps/app", false),
            (("ops", "", "10.2.0.1"), "hub.test", "apps/app", false),
            (("", "", "10.1.0.1"), "hub.test", "apps/app", false),
            (("other", "", "10.1.0.1"), "hub.test", "apps/app", false),
            // Anyone.
            (("", "", far), "docker.io", "library/busybox", true),
            (("other", "", far), "docker.io", "library/busybox", true),
            (("", "", far), "docker.io", "library/a/b", false),
            (("", "", far), "quay.io", "library/busybox", false),
        ] {
            let found = ask(who, |client| may_read(&rules, client, registry, repository));
            assert_eq!(found, expected, "{who:?} {registry}/{repository}");
        }
        for who in [("ci", "edge-1", far), ("ops", "", "10.1.0.1"), ("", "", far)] {
            assert!(!ask(who, |client| may_read_all(&rules, client)), "{who:?}");
        }
    }

    #[test]
    fn who_may_read_all_needs_no_question() {
        let all = |text: &str, who| ask(who, |client| may_read_all(&rules(text), client));
        let (local, far) = (("", "", "127.0.0.1"), ("", "", "203.0.113.1"));
        assert!(all("", far), "there are no rules");
        let text = "[[serve.rule]]\naddresses = \"127.0.0.0/8\"\n[[serve.rule]]\nusers = \"ci\"\n\
                    repositories = \"a\"\nallow = false\n[[serve.rule]]\nusers = [\"ci\", \"ops\"]\n";
        assert!(all(text, local) && !all(text, far));
        assert!(all(text, ("ops", "", "203.0.113.1")));
        assert!(!all(text, ("ci", "", "203.0.113.1")), "something is refused before");
        let none = "[[serve.rule]]\nallow = false\n";
        assert!(!all(none, local));
        assert!(!ask(local, |client| may_read(&rules(none), client, "a", "b")));
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_line() {
        for (lines, expected) in [
            ("user = \"ci\"", "m.toml:4: [[serve.rule]] user: an unknown key; did you mean users?"),
            ("users = []", "m.toml:4: [[serve.rule]] users = []: expected at least one"),
            ("users = \"\"", "m.toml:4: [[serve.rule]] users = \"\": expected a user"),
            ("repositories = []", "expected at least one"),
            ("repositories = \"A\"", "m.toml:4: [[serve.rule]] repositories = \"A\": expected a"),
            ("registry = \"a b\"", "m.toml:4: [[serve.rule]] registry = \"a b\": expected a host"),
            ("addresses = \"10.0.0.1/8\"", "= \"10.0.0.1/8\": expected an address, or a range"),
            ("addresses = \"10.0.0.0/33\"", "expected an address, or a range"),
            ("addresses = \"fd00::/129\"", "expected an address, or a range"),
            ("addresses = \"edge.test\"", "expected an address, or a range"),
            ("allow = \"no\"", "m.toml:4: [[serve.rule]] allow = \"no\": expected true or false"),
            ("users = \"ci\"", "m.toml:3: [[serve.rule]] users = named: expected [serve] htpasswd"),
            ("certificates = \"a\"", "certificates = named: expected [serve] client_ca"),
        ] {
            let text = format!("name = \"x\"\n[serve]\n[[serve.rule]]\n{lines}\n");
            let problems = parse("m.toml", &text).unwrap_err();
            assert!(problems.iter().any(|line| line.contains(expected)), "{lines}: {problems:?}");
        }
        let problems = parse("m.toml", "[serve]\nrule = 1\n").unwrap_err();
        assert!(problems[0].starts_with("m.toml:2: [[serve.rule]] = "), "{problems:?}");
        let many = "[[serve.rule]]\n".repeat(RULES_MAX + 1);
        let problems = parse("m.toml", &many).unwrap_err();
        assert!(problems[0].contains("m.toml:257: [[serve.rule]] = too many"), "{problems:?}");
        let warnings = |lines: &str| {
            let image = "[[image]]\nreference = \"hub.test/app:1\"\n";
            parse("m.toml", &format!("{lines}{image}")).unwrap().warnings.join("\n")
        };
        let typo = warnings("[[serve.rule]]\nregistry = \"hub.tests\"\n");
        assert!(typo.contains("m.toml:1: [[serve.rule]] hub.tests: no image is from it; did"));
        let second = warnings("[[serve.rule]]\n[[serve.rule]]\nregistry = \"hub.test\"\n");
        assert!(second.contains("does nothing: line 1 decides for anyone"), "{second}");
    }
}
