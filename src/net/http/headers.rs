//! Header lines: an ordered multimap.
//!
//! All text lies in one string and lines are ranges of it, so that the lines of a request cost two
//! allocations instead of two each. Names are kept in lower case; lines of one name keep their
//! order. A line that is removed leaves its text behind until the whole is dropped.

/// Header lines in their order.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    text: String,
    lines: Vec<Line>,
}

impl Headers {
    /// No lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line after those that are there.
    pub fn append(&mut self, name: &str, value: impl AsRef<str>) {
        if self.lines.is_empty() {
            self.text.reserve(TEXT_BYTES);
            self.lines.reserve(LINES);
        }
        let start = self.text.len();
        self.text.push_str(name);
        if let Some(name) = self.text.get_mut(start..) {
            name.make_ascii_lowercase();
        }
        let middle = self.text.len();
        self.text.push_str(value.as_ref());
        self.lines.push(Line { start, middle, end: self.text.len() });
    }

    /// Replaces all lines of this name by one.
    pub fn set(&mut self, name: &str, value: impl AsRef<str>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Takes all lines of this name away.
    pub fn remove(&mut self, name: &str) {
        let text = &self.text;
        self.lines.retain(|line| !line.name(text).eq_ignore_ascii_case(name));
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All values of this name, line by line.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All lines as (name, value).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().map(|line| (line.name(&self.text), line.value(&self.text)))
    }

    /// Whether a list-valued header has this word in any of its lines.
    pub(super) fn has_word(&self, name: &str, word: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim_matches([' ', '\t']).eq_ignore_ascii_case(word))
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

/// Where a line lies in the text: its name up to `middle`, its value from there.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: usize,
    middle: usize,
    end: usize,
}

impl Line {
    fn name(self, text: &str) -> &str {
        text.get(self.start..self.middle).unwrap_or_default()
    }

    fn value(self, text: &str) -> &str {
        text.get(self.middle..self.end).unwrap_or_default()
    }
}

/// Room for the text and lines of a customary head.
const TEXT_BYTES: usize = 256;
const LINES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_an_ordered_multimap() {
        let mut headers = Headers::new();
        headers.append("Accept", "a");
        headers.append("Host", "h");
        headers.append("ACCEPT", "b, Close");
        assert_eq!(headers.get("accept"), Some("a"));
        assert_eq!(headers.all("Accept").collect::<Vec<_>>(), ["a", "b, Close"]);
        assert!(headers.has_word("accept", "close"));
        headers.set("accept", "c");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("host", "h"), ("accept", "c")]);
    }

    #[test]
    fn equality_ignores_what_was_removed() {
        let (mut one, mut two) = (Headers::new(), Headers::new());
        one.append("a", "1");
        one.set("a", "2");
        two.append("A", "2");
        assert_eq!(one, two);
    }
}
