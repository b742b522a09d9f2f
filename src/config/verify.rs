//! `[[verify]]`: which images must be signed, and by whom.

use std::ops::Range;
use std::path::PathBuf;

use super::table::{Reader, Table};
use super::{Upstream, nearest};
use crate::oci::Pattern;

/// One `[[verify]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// The registry's name in references.
    pub registry: String,
    /// Its repositories that are meant; all of them, if there are none here.
    pub repositories: Vec<Pattern>,
    /// Public keys, PEM: an image must be signed by one of them.
    pub key_file: PathBuf,
}

impl Verify {
    /// Whether it is about the images of a repository.
    pub fn covers(&self, registry: &str, repository: &str) -> bool {
        let is_named = || self.repositories.iter().any(|pattern| pattern.fits(repository));
        self.registry == registry && (self.repositories.is_empty() || is_named())
    }
}

impl<'a> Reader<'a> {
    /// One rule, and where it stands; none where something that it needs is not good.
    pub fn verify(&mut self, mut table: Table<'a>) -> Option<(Range<usize>, Verify)> {
        let span = table.span.clone();
        let registry = self.registry(&mut table);
        let repositories = self.patterns(&mut table, "repositories");
        let key_file = self.text(&mut table, "key_file").map(PathBuf::from);
        if key_file.is_none() {
            self.wrong(&table, "key_file", "a file of public keys, such as cosign.pub");
        }
        self.finish(table, &["registry", "repositories", "key_file"]);
        Some((span, Verify { registry: registry?, repositories, key_file: key_file? }))
    }

    /// A rule is about a registry that images come from, and not all of it is another's before it.
    pub fn check_verify(
        &mut self,
        rules: &[(Range<usize>, Verify)],
        upstreams: &[Upstream],
        others_may_come: bool,
    ) {
        let names: Vec<&str> = upstreams.iter().map(|up| up.registry.as_str()).collect();
        for (index, (span, rule)) in rules.iter().enumerate() {
            let name = rule.registry.as_str();
            if !others_may_come && !names.contains(&name) {
                let hint = match nearest(name, &names) {
                    "" => String::new(),
                    meant => format!("; did you mean {meant}?"),
                };
                self.warn(span.clone(), &format!("[[verify]] {name}: no image is from it{hint}"));
            }
            let covers_all =
                |(_, other): &&(_, Verify)| other.registry == name && other.repositories.is_empty();
            if let Some((before, _)) = rules.iter().take(index).find(covers_all) {
                let line = self.line(before.clone());
                let what = format!("does nothing: line {line} covers all of it");
                self.warn(span.clone(), &format!("[[verify]] {name}: {what}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::parse;

    #[test]
    fn a_rule_names_a_registry_some_repositories_and_a_key() {
        let read = |text: &str| parse("m.toml", text).map(|loaded| loaded.config);
        let config = read(
            "[[verify]]\nregistry = \"hub.test\"\nrepositories = \"prod/**\"\n\
             key_file = \"/k/prod.pub\"\n\
             [[verify]]\nregistry = \"docker.io\"\nkey_file = \"/k/hub.pub\"\n",
        )
        .unwrap();
        let covers = |registry: &str, repository: &str| {
            let rule = config.verify.iter().find(|rule| rule.covers(registry, repository));
            rule.map(|rule| rule.key_file.to_str().unwrap())
        };
        assert_eq!(covers("hub.test", "prod/a/b"), Some("/k/prod.pub"));
        assert_eq!(covers("hub.test", "dev/a"), None);
        assert_eq!(covers("docker.io", "library/x"), Some("/k/hub.pub"));
        assert_eq!(read(&config.to_string()).unwrap(), config);
        for (lines, expected) in [
            ("registry = \"hub.test\"", "m.toml:1: [[verify]] key_file: expected a file of"),
            ("key_file = \"/k\"", "m.toml:1: [[verify]] registry: expected a host"),
            (
                "registry = \"hub.test\"\nkey_file = \"/k\"\nrepositories = [\"A\"]",
                "m.toml:4: [[verify]] repositories = \"A\": expected a repository",
            ),
            ("registry = \"h\"\nkey = \"/k\"", "key_file"),
        ] {
            let problems = read(&format!("[[verify]]\n{lines}\n")).unwrap_err();
            assert!(problems.iter().any(|line| line.contains(expected)), "{problems:?}");
        }
        let warnings = |registry: &str, more: &str| {
            let rule = "registry = \"hub.test\"\nkey_file = \"/k\"\n";
            let text =
                format!("[[verify]]\n{rule}{more}[[image]]\nreference = \"{registry}/app:1\"\n");
            parse("m.toml", &text).unwrap().warnings.join("\n")
        };
        assert!(!warnings("hub.test", "").contains("verify"));
        let typo = warnings("hub.tests", "");
        assert!(typo.contains("[[verify]] hub.test: no image is from it; did you mean hub.tests?"));
        let second = "[[verify]]\nregistry = \"hub.test\"\nkey_file = \"/l\"\n";
        let shadowed = warnings("hub.test", second);
        assert!(shadowed.contains("does nothing: line 1 covers all of it"), "{shadowed}");
    }
}
