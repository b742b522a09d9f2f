//! What does not work, each part with its reason, for people and for probes.
//!
//! Each attempt of a part reports it as broken or as working; it
//! is logged when that changes. A part that is vital makes `/readyz` answer 503.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use log::{error, info, warn};
use serde::{Deserialize, Serialize};

/// The parts that do not work. Clones share one list.
#[derive(Clone, Default)]
pub struct Health(Rc<RefCell<BTreeMap<String, Problem>>>);

struct Problem {
    reason: String,
    is_vital: bool,
}

/// One part that does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemReport {
    /// Which, such as `listen on 10.0.0.1:8585`.
    pub part: String,
    /// Why, in one line.
    pub reason: String,
    /// Whether the satellite is not ready because of it.
    pub vital: bool,
}

impl Health {
    /// `part` does not work, and with it not all that was configured. It is tried again by the
    /// caller.
    pub fn degraded(&self, part: &str, reason: &str) {
        if self.put(part, reason, false) {
            warn!("{part}: {reason}");
        }
    }

    /// As [`Self::degraded`], for what a satellite is not ready without.
    pub fn failed(&self, part: &str, reason: &str) {
        if self.put(part, reason, true) {
            error!("{part}: {reason}");
        }
    }

    /// `part` works.
    pub fn works(&self, part: &str) {
        if self.forget(part) {
            info!("{part}: works again");
        }
    }

    /// `part` is not wanted any more; says whether it was broken.
    pub fn forget(&self, part: &str) -> bool {
        self.0.borrow_mut().remove(part).is_some()
    }

    /// All problems, by their parts.
    pub fn problems(&self) -> Vec<ProblemReport> {
        let problems = self.0.borrow();
        let report = |(part, problem): (&String, &Problem)| ProblemReport {
            part: part.clone(),
            reason: problem.reason.clone(),
            vital: problem.is_vital,
        };
        problems.iter().map(report).collect()
    }

    /// Says whether this is news.
    fn put(&self, part: &str, reason: &str, is_vital: bool) -> bool {
        let mut problems = self.0.borrow_mut();
        let is_known =
            problems.get(part).is_some_and(|p| p.reason == reason && p.is_vital == is_vital);
        if is_known || problems.len() >= PROBLEMS_MAX && !problems.contains_key(part) {
            return !is_known;
        }
        problems.insert(part.to_owned(), Problem { reason: reason.to_owned(), is_vital });
        true
    }
}

/// A configuration with more addresses and upstreams than this has its others logged only.
const PROBLEMS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_news_once_for_each_reason() {
        let health = Health::default();
        assert!(health.put("store", "worn out", true));
        assert!(!health.put("store", "worn out", true));
        assert!(health.put("store", "gone", true));
        assert_eq!(health.problems().len(), 1);
        assert_eq!(health.problems()[0].reason, "gone");
        assert!(health.forget("store") && !health.forget("store"));
        assert!(health.problems().is_empty());
        for part in 0..2 * PROBLEMS_MAX {
            health.put(&part.to_string(), "down", false);
        }
        assert_eq!(health.problems().len(), PROBLEMS_MAX);
    }
}
