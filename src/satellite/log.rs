//! Log lines on standard error: one an event, with journald's priorities where journald reads.

use std::io::Write as _;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Lines {
    /// The reader is journald: it wants `<N>` and adds the time itself.
    journal: bool,
}

static LINES: OnceLock<Lines> = OnceLock::new();

/// Logs to standard error from here on.
pub fn install(level: LevelFilter) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // A second call has no effect, and there is none.
    let logger = LINES.get_or_init(|| Lines { journal });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("moonlet")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(record.level(), &record.args().to_string(), self.journal);
            // A closed standard error must not end the process.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
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
