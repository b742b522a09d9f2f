//! Challenges as registries and proxies write them: RFC 9110 section 11, read leniently.

use url::Url;

/// One challenge of a `WWW-Authenticate` line.
#[derive(Clone, Debug, PartialEq)]
pub struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// What a registry that names no challenge is taken to mean.
    pub fn basic() -> Self {
        Self { scheme: "basic".to_owned(), parameters: Vec::new() }
    }

    /// Whether it is of this scheme (lower case).
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme == scheme
    }

    /// Its scheme, for a message.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Where a token for `scope` is to be had; a relative realm is one of the registry at `base`.
    pub fn token_url(&self, base: &Url, scope: &str) -> Option<Url> {
        let get = |name: &str| self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let realm = get("realm").filter(|realm| !realm.is_empty())?;
        let mut url = base.join(realm).ok()?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return None;
        }
        let scope = get("scope").filter(|scope| !scope.is_empty()).map_or(scope, String::as_str);
        let mut query = url.query_pairs_mut();
        if let Some(service) = get("service") {
            query.append_pair("service", service);
        }
        if !scope.is_empty() {
            query.append_pair("scope", scope);
        }
        drop(query);
        Some(url)
    }
}

/// The challenges of one header line; what cannot be read ends the list.
pub fn parse(line: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return challenges;
        }
        let word = word.to_ascii_lowercase();
        let after = after.trim_start_matches([' ', '\t']);
        let Some(value) = after.strip_prefix('=') else {
            if challenges.len() == CHALLENGES_MAX {
                return challenges;
            }
            challenges.push(Challenge { scheme: word, parameters: Vec::new() });
            rest = after;
            continue;
        };
        let Some((value, after)) = value_of(value.trim_start_matches([' ', '\t'])) else {
            return challenges;
        };
        if let Some(last) = challenges.last_mut()
            && last.parameters.len() < PARAMETERS_MAX
        {
            last.parameters.push((word, value));
        }
        rest = after;
    }
}

/// A token or quoted string, and what follows it. Single quotes are no quotes to the specification,
/// and meant as such by those who write them.
fn value_of(text: &str) -> Option<(String, &str)> {
    if let Some((value, rest)) = text.strip_prefix('\'').and_then(|text| text.split_once('\'')) {
        return Some((value.to_owned(), rest));
    }
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
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

/// Challenges of one line.
const CHALLENGES_MAX: usize = 16;
/// Parameters of one challenge.
const PARAMETERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("https://registry.example/prefix").unwrap()
    }

    #[test]
    fn several_in_one_line() {
        let found = parse(
            r#"Bearer realm="https://a.example/t?x=1",service="s, \"q\"",scope="repository:a/b:pull", Basic realm=x"#,
        );
        assert_eq!(found.len(), 2);
        assert!(found[0].is("bearer") && found[1].is("basic"));
        let url = found[0].token_url(&base(), "unused").unwrap();
        let pairs: Vec<_> = url.query_pairs().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(pairs, ["x=1", "service=s, \"q\"", "scope=repository:a/b:pull"]);
        let schemes = |line| parse(line).iter().map(|c| c.scheme().to_owned()).collect::<Vec<_>>();
        assert_eq!(schemes("Negotiate YWJj==, Basic realm=\"x\""), ["negotiate", "basic"]);
        assert_eq!(schemes("Digest realm=\"r\", nonce=\"a,b\", Basic"), ["digest", "basic"]);
        assert!(schemes(",,, ").is_empty() && schemes("=x").is_empty());
        assert!(parse(&"a ".repeat(1000)).len() <= CHALLENGES_MAX);
        assert!(parse("Bearer realm=\"unclosed").iter().all(|c| c.parameters.is_empty()));
    }

    #[test]
    fn odd_quoting_and_relative_realms() {
        let whole = "https://registry.example/token?service=s&scope=x";
        for line in [
            "Bearer\trealm='/token',service='s'",
            "bearer Realm = \"/token\" , Service = \"s\"",
            "Bearer realm=/token,service=s",
            "Bearer realm=\"https://registry.example/token\",service=\"s\",scope=\"\"",
        ] {
            let url = parse(line).first().and_then(|found| found.token_url(&base(), "x")).unwrap();
            assert_eq!(url.as_str(), whole, "{line}");
        }
        for line in ["Bearer", "Bearer realm=\"\"", "Bearer realm=\"file:///etc/passwd\""] {
            assert!(parse(line)[0].token_url(&base(), "x").is_none(), "{line}");
        }
    }
}
