//! Log lines on standard error: one an event, with journald's priorities where journald reads.
//! What repeats is counted by `fold`, unless the level is debug or trace.

mod fold;

use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::clock::Stopwatch;
use fold::Folds;

struct Lines {
    /// The reader is journald: it wants `<N>` and adds the time itself.
    journal: bool,
    start: Stopwatch,
    folds: Mutex<Folds>,
}

static LINES: OnceLock<Lines> = OnceLock::new();

/// Logs to standard error from here on.
pub fn install(level: LevelFilter) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // A second call has no effect, and there is none.
    let folds = Mutex::new(Folds::new());
    let logger = LINES.get_or_init(|| Lines { journal, start: Stopwatch::start(), folds });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

/// Prints how often lines were repeated in the hours that are over.
pub fn print_counts() {
    if let Some(lines) = LINES.get() {
        lines.print(lines.folded(|folds| folds.due(lines.start.elapsed())));
    }
}

/// Prints how often lines were repeated, because nothing more is logged.
pub fn end() {
    log::logger().flush();
}

impl Lines {
    fn folded<T>(&self, fold: impl FnOnce(&mut Folds) -> T) -> T {
        fold(&mut self.folds.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn print(&self, lines: impl IntoIterator<Item = (Level, String)>) {
        for (level, text) in lines {
            let line = line(level, &text, self.journal);
            // A closed standard error must not end the process.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("moonlet")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, text) = (record.level(), record.args().to_string());
        // At these levels somebody looks closer, and wants all of it.
        if log::max_level() > LevelFilter::Info {
            return self.print([(level, text)]);
        }
        self.print(self.folded(|folds| folds.add(self.start.elapsed(), level, &text)));
    }

    fn flush(&self) {
        self.print(self.folded(|folds| folds.rest(self.start.elapsed())));
    }
}

fn line(level: Level, text: &str, journal: bool) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if !journal {
        return format!("{level:<5} {text}\n");
    }
    // sd-daemon(3): the priorities of syslog(3).
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    format!("<{priority}>{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_event() {
        assert_eq!(line(Level::Warn, "a\nb", false), "WARN  a b\n");
        assert_eq!(line(Level::Error, "a\nb", true), "<3>a b\n");
    }
}
