//! `pull_through` of an upstream, and what goes with it.

use std::time::Duration;

use super::PullThrough;
use super::table::{Reader, Table};
use crate::oci::Pattern;

impl<'a> Reader<'a> {
    /// What clients may have fetched from an upstream, if that is asked for.
    pub fn pull_through(&mut self, table: &mut Table<'a>) -> Option<PullThrough> {
        let span = table.span_of("pull_through");
        let is_on = self.flag(table, "pull_through").unwrap_or(false);
        if let (true, Some(span)) = (is_on, span) {
            self.check_key(span, "[[upstream]] pull_through", "pull-through");
        }
        let tag_ttl = self.duration(table, "tag_ttl");
        let allow = self.patterns(table, "allow");
        let deny = self.patterns(table, "deny");
        if !is_on && (tag_ttl.is_some() || !allow.is_empty() || !deny.is_empty()) {
            let what =
                "[[upstream]] tag_ttl, allow and deny do nothing without pull_through = true";
            self.warn(table.span.clone(), what);
        }
        is_on.then(|| PullThrough { tag_ttl: tag_ttl.unwrap_or(TAG_TTL), allow, deny })
    }

    /// Patterns over the names of repositories.
    pub fn patterns(&mut self, table: &mut Table<'a>, key: &str) -> Vec<Pattern> {
        let label = format!("{} {key}", table.name);
        let mut patterns = Vec::new();
        for (span, text) in self.texts(table, key) {
            match text.parse::<Pattern>() {
                Ok(pattern) => patterns.push(pattern),
                Err(_) => {
                    let expected =
                        "a repository, or a pattern such as \"library/*\" or \"team/**\"";
                    self.problem(span, &label, &format!("{text:?}"), expected);
                }
            }
        }
        patterns
    }
}

/// Clients that start together cost one question, and a moved tag is seen soon.
const TAG_TTL: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::super::read::parse;
    use super::*;

    #[test]
    fn pulling_through_is_asked_for_and_limited() {
        let text = "[[upstream]]\nregistry = \"up.test\"\nurl = \"http://h\"\n";
        let of = |lines: &str| parse("m.toml", &format!("{text}{lines}")).unwrap().config;
        assert_eq!(of("").upstreams[0].pull_through, None);
        assert_eq!(of("pull_through = false\n").upstreams[0].pull_through, None);
        let plain = of("pull_through = true\n");
        let policy = plain.upstreams[0].pull_through.clone().unwrap();
        assert!(policy.allows("any/thing") && policy.tag_ttl == TAG_TTL);
        let limited = "pull_through = true\ntag_ttl = \"90s\"\nallow = [\"library/*\", \"team/**\"]\n\
                       deny = \"team/secret\"\n";
        let config = of(limited);
        let policy = config.upstreams[0].pull_through.clone().unwrap();
        assert!(policy.allows("library/x") && policy.allows("team/a/b"));
        assert!(!policy.allows("other") && !policy.allows("team/secret"));
        assert_eq!(parse("again", &config.to_string()).unwrap().config, config);
        let warnings = |lines: &str| parse("m.toml", &format!("{text}{lines}")).unwrap().warnings;
        assert!(warnings(limited).is_empty(), "it needs no image");
        let idle = warnings("allow = \"a\"\n[[image]]\nreference = \"up.test/x:1\"\n");
        assert!(idle[0].contains("do nothing without pull_through = true"), "{idle:?}");
        for (line, expected) in [
            (
                "pull_through = \"yes\"",
                "m.toml:4: [[upstream]] pull_through = \"yes\": expected true or false",
            ),
            (
                "pull_through = true\nallow = [\"A\"]",
                "m.toml:5: [[upstream]] allow = \"A\": expected a repository",
            ),
            ("pull_through = true\ntag_ttl = \"0s\"", "tag_ttl = \"0s\": expected a time"),
        ] {
            let all = parse("m.toml", &format!("{text}{line}\n")).map(|_| ()).unwrap_err();
            assert!(all[0].contains(expected), "{all:?}");
        }
    }
}
