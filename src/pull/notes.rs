//! What could not be had of what accompanies an image, in a few lines for people.

/// Lines about what is missing: the first [`NOTES_MAX`] and the number of the others, so that
/// neither a log nor a status grows with what a registry sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    lines: Vec<String>,
    others: usize,
}

impl Notes {
    /// Notes one thing; its text is cut at [`NOTE_CHARS_MAX`].
    pub fn add(&mut self, text: impl AsRef<str>) {
        if self.lines.len() < NOTES_MAX {
            self.lines.push(text.as_ref().chars().take(NOTE_CHARS_MAX).collect());
        } else {
            self.others += 1;
        }
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines, the last of which counts what has none of its own.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.clone();
        if self.others > 0 {
            lines.push(format!("and {} more", self.others));
        }
        lines
    }
}

/// Lines about one image.
const NOTES_MAX: usize = 8;
/// Characters of a line.
const NOTE_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded() {
        let mut notes = Notes::default();
        assert!(notes.is_empty() && notes.lines().is_empty());
        for _ in 0..1_000 {
            notes.add("x".repeat(5_000));
        }
        let lines = notes.lines();
        assert_eq!(lines.len(), NOTES_MAX + 1);
        assert_eq!(lines[0].len(), NOTE_CHARS_MAX);
        assert_eq!(lines[NOTES_MAX], "and 992 more");
    }
}
