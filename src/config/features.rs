//! What a build may leave out, and what a configuration says that needs it.

use std::ops::Range;

use super::table::{Reader, Table};

/// The capabilities that a build may leave out, as Cargo.toml calls them, and whether this one has
/// them.
pub const FEATURES: [(&str, bool); 14] = [
    ("airgap", cfg!(feature = "airgap")),
    ("boards", cfg!(feature = "boards")),
    ("client-certs", cfg!(feature = "client-certs")),
    ("doctor", cfg!(feature = "doctor")),
    ("embedded-roots", cfg!(feature = "embedded-roots")),
    ("htpasswd", cfg!(feature = "htpasswd")),
    ("proxy", cfg!(feature = "proxy")),
    ("pull-through", cfg!(feature = "pull-through")),
    ("raw-flash", cfg!(feature = "raw-flash")),
    ("serve-tls", cfg!(feature = "serve-tls")),
    ("sha512", cfg!(feature = "sha512")),
    ("status", cfg!(feature = "status")),
    ("tls12", cfg!(feature = "tls12")),
    ("verify", cfg!(feature = "verify")),
];

/// What is said of something that this build leaves out.
pub fn lacking(what: &str, feature: &str) -> String {
    format!("{what} needs a moonlet built with the feature `{feature}`")
}

impl<'a> Reader<'a> {
    /// Refuses the sections that this build can make nothing of: an image that is to be signed, say,
    /// must not be taken unsigned.
    pub(super) fn check_sections(&mut self, top: &Table<'a>) {
        for (section, label, feature) in SECTIONS {
            if let Some(span) = top.span_of(section) {
                self.needs(span, label, feature, &FEATURES);
            }
        }
    }

    /// The same of a key, which stands at `span`.
    pub(super) fn check_key(&mut self, span: Range<usize>, label: &str, feature: &str) {
        self.needs(span, label, feature, &FEATURES);
    }

    fn needs(&mut self, span: Range<usize>, label: &str, feature: &str, has: &[(&str, bool)]) {
        if !has.contains(&(feature, true)) {
            let what = lacking(label, feature);
            self.refuse(span, &what);
        }
    }
}

/// Sections, as messages name them, and what they need.
const SECTIONS: [(&str, &str, &str); 3] = [
    ("import", "[import]", "airgap"),
    ("proxy", "[proxy]", "proxy"),
    ("verify", "[[verify]]", "verify"),
];

#[cfg(test)]
mod tests {
    use super::super::read::parse;
    use super::*;

    #[test]
    fn what_is_left_out_is_named() {
        let mut reader = Reader::new("m.toml", "a = 1\n[proxy]\n");
        reader.needs(6..7, "[proxy]", "proxy", &[("proxy", true)]);
        assert!(reader.problems.is_empty());
        reader.needs(6..7, "[proxy]", "proxy", &[("proxy", false), ("verify", true)]);
        let expected = "m.toml:2: [proxy] needs a moonlet built with the feature `proxy`";
        assert_eq!(reader.problems, [expected]);
    }

    /// Holds for the whole program, and for one without any capability.
    #[test]
    fn a_section_is_refused_where_its_feature_is_left_out() {
        let upstream = "registry = \"up.test\"\nurl = \"http://h\"\n";
        let rule = "registry = \"up.test\"\nkey_file = \"/k\"\n";
        for (feature, label, text) in [
            ("proxy", "[proxy]", "[proxy]\n".to_owned()),
            ("airgap", "[import]", "[import]\nkey_file = \"/k\"\n".to_owned()),
            ("verify", "[[verify]]", format!("[[verify]]\n{rule}")),
            (
                "pull-through",
                "[[upstream]] pull_through",
                format!("[[upstream]]\n{upstream}pull_through = true\n"),
            ),
            (
                "client-certs",
                "[[upstream]] client_cert",
                format!("[[upstream]]\n{upstream}client_cert = \"/c\"\nclient_key = \"/k\"\n"),
            ),
            ("htpasswd", "[serve] htpasswd", "[serve]\nhtpasswd = \"/users\"\n".to_owned()),
            (
                "serve-tls",
                "[serve] tls_cert",
                "[serve]\ntls_cert = \"/c\"\ntls_key = \"/k\"\n".to_owned(),
            ),
        ] {
            let problems = parse("m.toml", &text).map(|_| ()).err().unwrap_or_default();
            let line = match feature {
                "client-certs" | "pull-through" => 4,
                "htpasswd" | "serve-tls" => 2,
                _ => 1,
            };
            let expected = format!("m.toml:{line}: {}", lacking(label, feature));
            let is_there = FEATURES.contains(&(feature, true));
            assert_eq!(problems.contains(&expected), !is_there, "{text}: {problems:?}");
        }
        let off = format!("[[upstream]]\n{upstream}pull_through = false\n");
        assert!(parse("m.toml", &off).is_ok(), "what is off needs nothing");
    }

    /// Holds for both as well.
    #[test]
    fn an_image_by_sha512_is_refused_where_that_is_left_out() {
        let digest = format!("sha512:{}", "0a".repeat(64));
        let text = format!(
            "[[upstream]]\nregistry = \"up.test\"\nurl = \"http://h\"\n[[image]]\n\
             reference = \"up.test/app@{digest}\"\n"
        );
        let problems = parse("m.toml", &text).map(|_| ()).err().unwrap_or_default();
        let names_it = |line: &String| line.contains("built with the feature `sha512`");
        let is_there = FEATURES.contains(&("sha512", true));
        assert_eq!(problems.iter().any(names_it), !is_there, "{problems:?}");
        assert_eq!(problems.is_empty(), is_there, "{problems:?}");
    }
}
