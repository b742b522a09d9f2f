//! Counters of the server in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::model::Connection;

/// What the server counts.
#[derive(Default)]
pub struct Metrics {
    answers: [AtomicU64; 5],
    pub reports: Counter,
    pub enrolments: Counter,
    pub logins_failed: Counter,
    pub published: Counter,
    pub publish_failures: Counter,
}

/// How publishing to another registry goes.
pub struct Unpublished {
    pub waiting: i64,
    pub is_failing: bool,
}

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts an answer by the first digit of its status.
    pub fn answered(&self, status: u16) {
        let class = usize::from((status / 100).saturating_sub(1));
        if let Some(count) = self.answers.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All numbers; `satellites` are counted in the order of [`Connection::ALL`], `rollouts` by the
    /// words of their phases.
    pub fn render(
        &self,
        satellites: &[i64; 4],
        rollouts: &[(String, i64)],
        publishing: Option<&Unpublished>,
    ) -> String {
        let mut text = String::new();
        text.push_str("# HELP ground_control_answers_total Answered requests by status.\n");
        text.push_str("# TYPE ground_control_answers_total counter\n");
        for (class, count) in (1..).zip(&self.answers) {
            let count = count.load(Ordering::Relaxed);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "ground_control_answers_total{{status=\"{class}xx\"}} {count}");
        }
        for (name, help, counter) in [
            ("reports", "Status reports taken.", &self.reports),
            ("enrolments", "Credentials given for enrolment tokens.", &self.enrolments),
            ("logins_failed", "Wrong passwords.", &self.logins_failed),
            ("published", "Artifacts put into another registry.", &self.published),
            ("publish_failures", "Rounds of publishing that failed.", &self.publish_failures),
        ] {
            let count = counter.0.load(Ordering::Relaxed);
            let _ = write!(
                text,
                "# HELP ground_control_{name}_total {help}\n\
                 # TYPE ground_control_{name}_total counter\n\
                 ground_control_{name}_total {count}\n"
            );
        }
        text.push_str("# HELP ground_control_satellites Satellites by connection.\n");
        text.push_str("# TYPE ground_control_satellites gauge\n");
        for (connection, count) in Connection::ALL.iter().zip(satellites) {
            let word = connection.word().to_lowercase();
            let _ = writeln!(text, "ground_control_satellites{{connection=\"{word}\"}} {count}");
        }
        text.push_str("# HELP ground_control_rollouts Rollouts that are kept, by phase.\n");
        text.push_str("# TYPE ground_control_rollouts gauge\n");
        for (phase, count) in rollouts {
            let phase = phase.to_lowercase();
            let _ = writeln!(text, "ground_control_rollouts{{phase=\"{phase}\"}} {count}");
        }
        if let Some(Unpublished { waiting, is_failing }) = publishing {
            let failing = i32::from(*is_failing);
            let _ = write!(
                text,
                "# HELP ground_control_publish_waiting Artifacts that the registry lacks.\n\
                 # TYPE ground_control_publish_waiting gauge\n\
                 ground_control_publish_waiting {waiting}\n\
                 # HELP ground_control_publish_failing Whether publishing fails.\n\
                 # TYPE ground_control_publish_failing gauge\n\
                 ground_control_publish_failing {failing}\n"
            );
        }
        text
    }
}
