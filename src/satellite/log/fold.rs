//! Lines that repeat, counted instead of printed: a log is kept on flash too, and a registry that is
//! away for a week, asked twice a minute, would wear it for nothing.
//!
//! The first line of a kind is printed at once; those that follow within an hour are counted, and
//! at its end one line has the latest text and their number. A kind goes on being counted, with a
//! line an hour, until an hour brings none. Two warnings or errors are of one kind if they differ in
//! quantities only, numbers with a unit such as a pause or a size: a name, an address, a digest, a
//! status or the number of a segment makes another kind, so that nothing hides behind what only sounds alike. What is said for
//! information is of one kind only if it is the same.
//!
//! What a line is about stands before its first colon. When another line about the same has come in
//! between, a repetition is news (it broke again), and is printed, some times an hour.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use log::Level;

/// The kinds of which a line was printed less than an hour ago, the oldest first.
pub struct Folds {
    folds: VecDeque<Fold>,
}

struct Fold {
    kind: u64,
    /// What it is about.
    subject: u64,
    level: Level,
    /// Lines printed since then because something else was said of the subject before each.
    again: u32,
    /// Something else was said of the subject since the last line.
    is_news: bool,
    /// From when on lines are counted.
    since: Duration,
    /// Lines since then.
    more: u32,
    /// The last of them.
    text: String,
}

impl Folds {
    /// Nothing was logged yet.
    pub const fn new() -> Self {
        Self { folds: VecDeque::new() }
    }

    /// What is to be printed when `text` is logged at `now`: the line itself unless it is counted,
    /// after the counts that are due.
    pub fn add(&mut self, now: Duration, level: Level, text: &str) -> Vec<(Level, String)> {
        let mut lines = self.due(now);
        let (kind, subject) = (kind(level, text), hash(subject(text)));
        let others = self.folds.iter_mut().filter(|fold| fold.subject == subject);
        others.filter(|fold| fold.kind != kind).for_each(|fold| fold.is_news = true);
        if let Some(fold) = self.folds.iter_mut().find(|fold| fold.kind == kind) {
            if std::mem::take(&mut fold.is_news) && fold.again < AGAIN_MAX {
                fold.again += 1;
                lines.push((level, text.to_owned()));
                return lines;
            }
            fold.more = fold.more.saturating_add(1);
            fold.text = text.chars().take(TEXT_CHARS_MAX).collect();
            return lines;
        }
        if self.folds.len() >= FOLDS_MAX {
            lines.extend(self.folds.pop_front().and_then(|fold| fold.count(now)));
        }
        self.folds.push_back(Fold::new(kind, subject, level, now));
        lines.push((level, text.to_owned()));
        lines
    }

    /// The counts of hours that are over. What was counted goes on being counted.
    pub fn due(&mut self, now: Duration) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        while let Some(fold) = self.folds.front()
            && now.saturating_sub(fold.since) >= WINDOW
            && let Some(fold) = self.folds.pop_front()
        {
            if let Some(line) = fold.count(now) {
                lines.push(line);
                self.folds.push_back(Fold::new(fold.kind, fold.subject, fold.level, now));
            }
        }
        lines
    }

    /// All counts, because the process ends.
    pub fn rest(&mut self, now: Duration) -> Vec<(Level, String)> {
        self.folds.drain(..).filter_map(|fold| fold.count(now)).collect()
    }
}

impl Fold {
    fn new(kind: u64, subject: u64, level: Level, since: Duration) -> Self {
        let (again, is_news, more, text) = (0, false, 0, String::new());
        Self { kind, subject, level, again, is_news, since, more, text }
    }

    /// The line for what was counted, if anything was.
    fn count(&self, now: Duration) -> Option<(Level, String)> {
        let Self { level, since, more, text, .. } = self;
        let times = if *more == 1 { "time" } else { "times" };
        let minutes = now.saturating_sub(*since).as_secs().div_ceil(60).max(1);
        let line = format!("{text} ({more} more {times} in the last {minutes} min)");
        (*more > 0).then_some((*level, line))
    }
}

fn subject(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(subject, _)| subject)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// What lines of one kind have in common: the level, and all words that are no quantities.
fn kind(level: Level, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    level.hash(&mut hasher);
    if level > Level::Warn {
        text.hash(&mut hasher);
        return hasher.finish();
    }
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        let next = words.peek().copied().unwrap_or_default();
        if is_quantity(word, next) { "#" } else { word }.hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether a word is a number with a unit, which may be the `next` word: `300ms`, `1m30s,`, `1.5 MiB`,
/// `12 of`. A number without one may be a name: a status, a segment, a part of an address.
fn is_quantity(word: &str, next: &str) -> bool {
    let is_mark = |letter: char| matches!(letter, '(' | ')' | ',' | ';' | ':');
    let mut rest = word.trim_matches(is_mark);
    let is_number = |letter: char| letter.is_ascii_digit() || letter == '.';
    let next = next.trim_matches(is_mark);
    if rest.starts_with(|letter: char| letter.is_ascii_digit()) && rest.chars().all(is_number) {
        return rest.matches('.').count() <= 1 && (UNITS.contains(&next) || next == "of");
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(is_number);
        let end = unit.find(is_number).unwrap_or(unit.len());
        let (unit, more) = unit.split_at(end);
        if unit.len() + more.len() == rest.len() || !UNITS.contains(&unit) {
            return false;
        }
        rest = more;
    }
    !word.is_empty()
}

/// In which repetitions are counted.
const WINDOW: Duration = Duration::from_hours(1);
/// Kinds that are counted at once; of one more the oldest has its count printed before.
const FOLDS_MAX: usize = 64;
/// Lines of a kind that are printed in an hour because something else was said in between.
const AGAIN_MAX: u32 = 8;
/// Of a line that is counted.
const TEXT_CHARS_MAX: usize = 400;
/// Of what is counted or measured.
const UNITS: [&str; 15] = [
    "ms", "s", "m", "h", "d", "min", "B", "KiB", "MiB", "GiB", "bytes", "times", "images", "blobs",
    "more",
];

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn texts(lines: Vec<(Level, String)>) -> Vec<String> {
        lines.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_storm_is_its_first_line_and_a_count_an_hour() {
        let mut folds = Folds::new();
        let mut printed = Vec::new();
        for second in 0..2 * 3600 + 60 {
            let now = Duration::from_secs(second);
            let text = format!("r.test/app:1: no answer; trying again in {} s", second % 9);
            printed.extend(texts(folds.add(now, Level::Warn, &text)));
        }
        assert_eq!(
            printed,
            [
                "r.test/app:1: no answer; trying again in 0 s",
                "r.test/app:1: no answer; trying again in 8 s (3599 more times in the last 60 min)",
                "r.test/app:1: no answer; trying again in 8 s (3600 more times in the last 60 min)",
            ]
        );
        let rest = texts(folds.rest(Duration::from_secs(2 * 3600 + 60)));
        assert_eq!(
            rest,
            ["r.test/app:1: no answer; trying again in 5 s (60 more times in the last 1 min)"]
        );
        assert!(folds.rest(MINUTE).is_empty(), "said once");
    }

    #[test]
    fn what_is_about_something_else_is_printed() {
        let mut folds = Folds::new();
        for (line, next) in [
            ("r.test/app:1: no answer", "r.test/app:2: no answer"),
            ("accept on 10.0.0.1: x", "accept on 10.0.0.2: x"),
            ("r.test/app: status 401 unauthorized", "r.test/app: status 403 unauthorized"),
            ("sha256:12: corrupt", "sha256:13: corrupt"),
            ("moonlet 1.2.3 is new", "moonlet 1.2.4 is new"),
            ("write: segment 12 is bad", "write: segment 13 is bad"),
            ("write at 0x10: io", "write at 0x20: io"),
        ] {
            for text in [line, next] {
                assert_eq!(texts(folds.add(MINUTE, Level::Warn, text)), [text]);
                assert!(folds.add(MINUTE, Level::Warn, text).is_empty());
            }
            assert_eq!(texts(folds.add(MINUTE, Level::Error, line)), [line], "another level");
        }
        // Quantities are no names.
        for text in ["a: 12 of 1.5 MiB in 1m30s, or (300ms)", "a: 7 of 99.2 MiB in 2s, or (1ms)"] {
            folds.add(MINUTE, Level::Warn, text);
        }
        assert_eq!(texts(folds.rest(MINUTE)).last().map(|line| &line[..9]), Some("a: 7 of 9"));
    }

    #[test]
    fn what_comes_and_goes_is_printed_a_few_times() {
        let mut folds = Folds::new();
        let mut printed = 0;
        for flap in 0..100 {
            let now = Duration::from_secs(flap);
            for (level, text) in [
                (Level::Warn, "upstream r.test: no answer in 5 s"),
                (Level::Warn, "upstream r.test: no answer in 6 s"),
                (Level::Warn, "upstream other: no answer"),
                (Level::Info, "upstream r.test: works again"),
            ] {
                let lines = folds.add(now, level, text);
                printed += lines.len();
                if flap == 1 {
                    let is_news = !text.contains("6 s") && !text.contains("other");
                    assert_eq!(lines.len(), usize::from(is_news), "{text}");
                }
            }
        }
        assert_eq!(printed, 3 + 2 * AGAIN_MAX as usize);
        // A count that has changed is no repetition, and coming back to it is news.
        for (held, lines) in [(3, 1), (2, 1), (2, 0), (3, 1), (3, 0)] {
            let text = format!("sync: {held} images held");
            assert_eq!(folds.add(MINUTE, Level::Info, &text).len(), lines, "{text}");
        }
    }

    #[test]
    fn what_is_over_is_forgotten_and_the_table_is_bounded() {
        let mut folds = Folds::new();
        folds.add(MINUTE, Level::Warn, "old");
        assert_eq!(
            texts(folds.add(62 * MINUTE, Level::Warn, "old")),
            ["old"],
            "after a quiet hour"
        );
        folds.add(62 * MINUTE, Level::Warn, "old");
        for number in 0..FOLDS_MAX + 5 {
            let text = format!("image-{number}: gone");
            let printed = texts(folds.add(63 * MINUTE, Level::Warn, &text));
            assert_eq!(printed.last(), Some(&text));
            let is_counted = printed.iter().any(|l| l == "old (1 more time in the last 1 min)");
            assert_eq!(is_counted, number == FOLDS_MAX - 1, "{printed:?}");
            assert!(folds.folds.len() <= FOLDS_MAX);
        }
    }
}
