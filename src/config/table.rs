//! Tables of a configuration: keys are taken as they are read, and what is left is refused.
//!
//! Problems and warnings gather here, each with its line.

use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{MASK, nearest};
use crate::units::parse_duration;

/// What is read, and what was found wrong with it.
pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    /// What makes the configuration unusable.
    pub problems: Vec<String>,
    /// What works, and hardly does what was meant.
    pub warnings: Vec<String>,
}

/// One table, from which keys are taken as they are read.
pub(super) struct Table<'a> {
    /// `[serve]`, or empty for the top.
    pub name: String,
    keys: Vec<(String, Spanned<DeValue<'a>>)>,
    /// Where it stands.
    pub span: Range<usize>,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, problems: Vec::new(), warnings: Vec::new() }
    }

    pub fn section(&mut self, top: &mut Table<'a>, name: &str) -> Table<'a> {
        let label = format!("[{name}]");
        match top.take(name) {
            None => table(label, DeTable::new(), 0..0),
            Some(value) => self.table(label, value),
        }
    }

    /// As [`Self::section`], where none is another thing than an empty one.
    pub fn optional_section(&mut self, top: &mut Table<'a>, name: &str) -> Option<Table<'a>> {
        let value = top.take(name)?;
        Some(self.table(format!("[{name}]"), value))
    }

    pub fn list(&mut self, top: &mut Table<'a>, name: &str) -> Vec<Table<'a>> {
        let within = top.name.trim_matches(['[', ']']);
        let label = match within {
            "" => format!("[[{name}]]"),
            within => format!("[[{within}.{name}]]"),
        };
        let Some(value) = top.take(name) else { return Vec::new() };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(items) => {
                items.into_iter().map(|item| self.table(label.clone(), item)).collect()
            }
            _ => {
                self.problem(span, &label, "something else", "tables");
                Vec::new()
            }
        }
    }

    fn table(&mut self, label: String, value: Spanned<DeValue<'a>>) -> Table<'a> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(keys) => table(label, keys, span),
            _ => {
                self.problem(span, &label, "a value", "a table");
                table(label, DeTable::new(), 0..0)
            }
        }
    }

    pub fn text(&mut self, table: &mut Table<'a>, key: &str) -> Option<String> {
        self.spanned(table, key).map(|(_, text)| text)
    }

    pub fn spanned(&mut self, table: &mut Table<'a>, key: &str) -> Option<(Range<usize>, String)> {
        let value = table.take(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::String(text) => Some((span, text.into_owned())),
            _ => {
                let shown = self.text.get(span.clone()).unwrap_or("").to_owned();
                self.problem(span, &table.key(key), &shown, "text in quotes");
                None
            }
        }
    }

    pub fn texts(&mut self, table: &mut Table<'a>, key: &str) -> Vec<(Range<usize>, String)> {
        let Some(value) = table.take(key) else { return Vec::new() };
        let span = value.span();
        let items = match value.into_inner() {
            DeValue::Array(items) => items,
            // One is as good as a list of one.
            DeValue::String(text) => return vec![(span, text.into_owned())],
            _ => {
                let shown = self.text.get(span.clone()).unwrap_or("").to_owned();
                self.problem(span, &table.key(key), &shown, "text in quotes, or a list of it");
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for item in items {
            let span = item.span();
            match item.into_inner() {
                DeValue::String(text) => texts.push((span, text.into_owned())),
                _ => {
                    let shown = self.text.get(span.clone()).unwrap_or("").to_owned();
                    self.problem(span, &table.key(key), &shown, "text in quotes");
                }
            }
        }
        texts
    }

    /// Refuses an empty list where none at all means any.
    pub fn check_some(&mut self, table: &Table<'a>, key: &str) {
        let value = table.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        if let Some(value) = value
            && let DeValue::Array(items) = value.get_ref()
            && items.is_empty()
        {
            let expected = "at least one; left out, it is any";
            self.problem(value.span(), &table.key(key), "[]", expected);
        }
    }

    pub fn parsed<T: FromStr>(
        &mut self,
        table: &mut Table<'a>,
        key: &str,
        expected: &str,
    ) -> Option<T> {
        let (span, text) = self.spanned(table, key)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.problem(span, &table.key(key), &format!("{text:?}"), expected);
        }
        value
    }

    pub fn duration(&mut self, table: &mut Table<'a>, key: &str) -> Option<Duration> {
        let (span, text) = self.spanned(table, key)?;
        match parse_duration(&text) {
            Ok(duration) if !duration.is_zero() => Some(duration),
            _ => {
                let expected = "a time such as \"5m\" or \"1h\"";
                self.problem(span, &table.key(key), &format!("{text:?}"), expected);
                None
            }
        }
    }

    pub fn flag(&mut self, table: &mut Table<'a>, key: &str) -> Option<bool> {
        let value = table.take(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::Boolean(flag) => Some(flag),
            _ => {
                let shown = self.text.get(span.clone()).unwrap_or("").to_owned();
                self.problem(span, &table.key(key), &shown, "true or false");
                None
            }
        }
    }

    pub fn count(&mut self, table: &mut Table<'a>, key: &str) -> Option<u32> {
        let value = table.take(key)?;
        let span = value.span();
        let shown = self.text.get(span.clone()).unwrap_or("").to_owned();
        match shown.parse::<u32>() {
            Ok(count) if count > 0 => Some(count),
            _ => {
                self.problem(span, &table.key(key), &shown, "a whole number above 0");
                None
            }
        }
    }

    /// Refuses whatever was not taken.
    pub fn finish(&mut self, table: Table<'a>, known: &[&str]) {
        let Table { name, keys, .. } = table;
        for (key, value) in keys {
            let at = self.line(value.span());
            let place =
                format!("{}:{at}: {name}{}", self.file, if name.is_empty() { "" } else { " " });
            let nearest = nearest(&key, known);
            self.problems.push(format!("{place}{key}: an unknown key; did you mean {nearest}?"));
        }
    }

    pub fn wrong(&mut self, table: &Table<'a>, what: &str, expected: &str) {
        let span = table.span.clone();
        let line = self.line(span);
        let (file, name) = (self.file, &table.name);
        self.problems.push(format!("{file}:{line}: {name} {what}: expected {expected}"));
    }

    pub fn problem(&mut self, span: Range<usize>, key: &str, value: &str, expected: &str) {
        let (file, line) = (self.file, self.line(span));
        self.problems.push(format!("{file}:{line}: {key} = {value}: expected {expected}"));
    }

    /// For what this program cannot do.
    pub fn refuse(&mut self, span: Range<usize>, what: &str) {
        let (file, line) = (self.file, self.line(span));
        self.problems.push(format!("{file}:{line}: {what}"));
    }

    /// For what works and hardly does what was meant.
    pub fn warn(&mut self, span: Range<usize>, what: &str) {
        let (file, line) = (self.file, self.line(span));
        self.warnings.push(format!("{file}:{line}: {what}"));
    }

    pub fn line(&self, span: Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or("");
        before.matches('\n').count() + 1
    }
}

impl<'a> Table<'a> {
    fn take(&mut self, key: &str) -> Option<Spanned<DeValue<'a>>> {
        let index = self.keys.iter().position(|(name, _)| name == key)?;
        Some(self.keys.swap_remove(index).1)
    }

    /// Whether a key is there and was not taken.
    pub fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|(name, _)| name == key)
    }

    /// Where the value of a key stands that was not taken.
    pub fn span_of(&self, key: &str) -> Option<Range<usize>> {
        self.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.span())
    }

    fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{} {key}", self.name) }
    }
}

pub(super) fn table(name: String, keys: DeTable<'_>, span: Range<usize>) -> Table<'_> {
    let keys = keys.into_iter().map(|(key, value)| (key.into_inner().into_owned(), value));
    Table { name, keys: keys.collect(), span }
}

/// What was written for an address, without what may be a secret in it: credentials and a query.
pub fn masked(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let is_digest = |rest: &str| rest.starts_with("sha256:") || rest.starts_with("sha512:");
    match text.rsplit_once('@') {
        // Behind an image's name there may be a digest.
        Some((before, rest)) if is_digest(rest) && !before.contains("://") => {
            format!("{}@{rest}", masked(before))
        }
        Some((before, rest)) => {
            let scheme = before.find("://").map_or(0, |at| at + 3);
            format!("{}{MASK}@{rest}", before.get(..scheme).unwrap_or_default())
        }
        None => text.to_owned(),
    }
}
