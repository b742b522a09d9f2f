//! Labels of satellites and the selectors that choose by them, in Kubernetes' grammar.

use std::collections::BTreeMap;

use super::fault::Fault;
use crate::fleet::shown;

/// What is known of a satellite under names that people choose.
pub type Labels = BTreeMap<String, String>;

/// Holds labels to their grammar and their number.
pub fn check(labels: &Labels) -> Result<(), Fault> {
    check_count(labels.len())?;
    labels.iter().try_for_each(|(label, value)| check_label(label, value))
}

/// Holds one label to its grammar.
pub fn check_label(label: &str, value: &str) -> Result<(), Fault> {
    if !valid_label(label) {
        return Err(Fault::bad(format!(
            "label {}: expected at most {WORD_BYTES_MAX} letters, digits, - _ . between, and at \
             most a domain with / before",
            shown(label)
        )));
    }
    if !value.is_empty() && !valid_word(value) {
        return Err(Fault::bad(format!(
            "value {} of label {label}: expected at most {WORD_BYTES_MAX} letters, digits, and \
             - _ . between",
            shown(value)
        )));
    }
    Ok(())
}

/// Holds the number of a satellite's labels to its limit.
pub fn check_count(count: usize) -> Result<(), Fault> {
    if count > LABELS_MAX {
        return Err(Fault::bad(format!("{count} labels: expected at most {LABELS_MAX}")));
    }
    Ok(())
}

/// The labels that a device's facts make. What a label cannot say is replaced, such as the slashes
/// of `linux/arm/v7`.
pub fn from_facts(facts: &Labels) -> Labels {
    let facts = facts.iter().filter(|(name, _)| valid_word(name));
    facts.map(|(name, value)| (name.clone(), to_value(value))).collect()
}

fn to_value(text: &str) -> String {
    let plain = |sign: char| sign.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&sign);
    let text = text.chars().map(|sign| if plain(sign) { sign } else { '_' });
    let text: String = text.skip_while(|sign| !sign.is_ascii_alphanumeric()).collect();
    let text: String = text.chars().take(WORD_BYTES_MAX).collect();
    text.trim_end_matches(|sign: char| !sign.is_ascii_alphanumeric()).to_owned()
}

/// One condition on a satellite's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub label: String,
    /// None where any value will do.
    pub value: Option<String>,
    /// The satellite has it; or must not.
    pub wanted: bool,
}

/// Conditions that all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Term>);

impl Selector {
    /// Reads `key=value,key2!=x,key3,!key4`. As in Kubernetes, `key2!=x` also chooses what has no
    /// such label. An empty text chooses all.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut terms = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if terms.len() == TERMS_MAX {
                return Err(Fault::bad(format!(
                    "selector {}: expected at most {TERMS_MAX} conditions",
                    shown(text)
                )));
            }
            terms.push(term(part)?);
        }
        Ok(Self(terms))
    }
}

fn term(part: &str) -> Result<Term, Fault> {
    let (label, value, wanted) = if let Some((label, value)) = part.split_once("!=") {
        (label, Some(value), false)
    } else if let Some((label, value)) = part.split_once('=') {
        (label, Some(value.strip_prefix('=').unwrap_or(value)), true)
    } else if let Some(label) = part.strip_prefix('!') {
        (label, None, false)
    } else {
        (part, None, true)
    };
    let (label, value) = (label.trim(), value.map(str::trim));
    check_label(label, value.unwrap_or_default()).map_err(|fault| {
        let part = shown(part);
        Fault::bad(format!("selector {part}: {}, as in key=value or key!=value", fault.message))
    })?;
    Ok(Term { label: label.to_owned(), value: value.map(str::to_owned), wanted })
}

fn valid_label(label: &str) -> bool {
    match label.split_once('/') {
        None => valid_word(label),
        Some((domain, word)) => {
            let valid_part = |part: &str| {
                valid_word(part)
                    && part.bytes().all(|byte| !byte.is_ascii_uppercase() && byte != b'_')
            };
            domain.len() <= DOMAIN_BYTES_MAX
                && domain.split('.').all(valid_part)
                && valid_word(word)
        }
    }
}

/// Letters and digits, with `- _ .` only between.
fn valid_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    word.len() <= WORD_BYTES_MAX
        && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Labels of one satellite, those that its facts made among them.
pub const LABELS_MAX: usize = 32;
const WORD_BYTES_MAX: usize = 63;
const DOMAIN_BYTES_MAX: usize = 253;
const TERMS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_kubernetes_grammar() {
        let long = "a".repeat(WORD_BYTES_MAX);
        for (label, value) in
            [("a", ""), ("Site", "north-1_b.c"), ("example.com/site", "1"), (&long, &long)]
        {
            check_label(label, value).unwrap();
        }
        let longer = "a".repeat(WORD_BYTES_MAX + 1);
        for (label, value) in [
            ("", "a"),
            ("-a", "a"),
            ("a", "a-"),
            ("a b", "a"),
            ("a", "a b"),
            ("a/", "a"),
            ("/a", "a"),
            ("a/b/c", "a"),
            ("A.com/b", "a"),
            (".com/b", "a"),
            ("a", "\u{e9}"),
            (&longer, ""),
            ("a", &longer),
        ] {
            let fault = check_label(label, value).unwrap_err();
            assert!(fault.message.contains("expected"), "{label}={value}");
        }
        let many = (0..=LABELS_MAX).map(|number| (format!("a{number}"), String::new())).collect();
        assert_eq!(check(&many).unwrap_err().message, "33 labels: expected at most 32");
    }

    #[test]
    fn facts_become_labels() {
        let facts = [("platform", "linux/arm/v7"), ("model", " (x) "), ("a", &"b/".repeat(60))];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let labels = from_facts(&facts.into());
        check(&labels).unwrap();
        assert_eq!((&*labels["platform"], &*labels["model"]), ("linux_arm_v7", "x"));
    }

    #[test]
    fn selectors() {
        let read = |text: &str| {
            let terms = Selector::parse(text).unwrap().0.into_iter();
            terms.map(|term| (term.label, term.value, term.wanted)).collect::<Vec<_>>()
        };
        let one = |label: &str, value: Option<&str>, wanted| {
            (label.to_owned(), value.map(str::to_owned), wanted)
        };
        assert_eq!(
            read("site=north, rack!=3,b==c,gpu,!old,e="),
            [
                one("site", Some("north"), true),
                one("rack", Some("3"), false),
                one("b", Some("c"), true),
                one("gpu", None, true),
                one("old", None, false),
                one("e", Some(""), true),
            ]
        );
        assert!(read("").is_empty() && read(" , ").is_empty());
        for bad in ["=a", "a=b=c", "a in (b)", "a!=b!=c", "a='b'", "!", &"a,".repeat(17)] {
            assert!(Selector::parse(bad).unwrap_err().message.starts_with("selector "), "{bad}");
        }
    }
}
