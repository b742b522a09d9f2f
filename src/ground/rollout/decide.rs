//! What is to be done next in a rollout. Pure: rows in, a step out.

use std::collections::BTreeMap;

use crate::ground::clock;
use crate::ground::model::{Approval, Connection, Member, Outcome, Phase, Policy};

/// Where a satellite is in its batch, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The disruption budget, or its turn, comes first.
    Waiting,
    /// It has not reported since its release, and is not there to: it is not waited for.
    Offline,
    Updating,
    Updated,
    Failed,
}

impl Standing {
    /// Its name in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Offline => "Offline",
            Self::Updating => "Updating",
            Self::Updated => "Updated",
            Self::Failed => "Failed",
        }
    }
}

impl Member {
    pub fn standing(&self, policy: &Policy, now: i64) -> Standing {
        let Some(released_at) = self.released_at else {
            // What it said before the new state was taken back from it.
            return match self.outcome {
                Outcome::Unseen => Standing::Waiting,
                Outcome::Updating => Standing::Updating,
                Outcome::Updated => Standing::Updated,
                Outcome::Failed => Standing::Failed,
            };
        };
        let timeout = policy.timeout();
        let is_late = now.saturating_sub(released_at) > timeout;
        // A registry that is away for a minute condemns no release.
        let grace = (timeout / FAILURE_PART).min(FAILURE_MICROS_MAX);
        let has_failed = self.failed_at.is_some_and(|at| now.saturating_sub(at) >= grace);
        match self.outcome {
            Outcome::Unseen if self.is_away() || is_late => Standing::Offline,
            Outcome::Updated => Standing::Updated,
            _ if is_late || has_failed => Standing::Failed,
            _ => Standing::Updating,
        }
    }

    fn is_away(&self) -> bool {
        matches!(self.connection, Connection::Offline | Connection::Unknown)
    }
}

/// How many satellites of a batch are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub waiting: usize,
    pub offline: usize,
    pub updating: usize,
    pub updated: usize,
    pub failed: usize,
}

impl Counts {
    pub fn add(&mut self, standing: Standing) {
        let count = match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::Offline => &mut self.offline,
            Standing::Updating => &mut self.updating,
            Standing::Updated => &mut self.updated,
            Standing::Failed => &mut self.failed,
        };
        *count += 1;
    }

    /// Those that are waited for or have answered.
    fn expected(&self) -> usize {
        self.waiting + self.updating + self.updated + self.failed
    }
}

/// Satellites of the whole group with the same values of the budget's labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub all: u32,
    /// Offline, or without what they are to hold.
    pub unavailable: u32,
}

/// What counts against a disruption budget.
#[derive(Debug, Default)]
pub struct Budgeted {
    /// By the values of the labels.
    pub usage: BTreeMap<String, Usage>,
    /// The values of each satellite of the batch that waits.
    pub key_of: BTreeMap<i64, String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing now, and why.
    Wait(String),
    /// The satellites of a batch are to be chosen.
    Begin(usize),
    /// These get the new state.
    Release(Vec<i64>),
    /// A person is to be asked, and why.
    Ask(String),
    /// The new state is to be taken back from all, and why.
    RollBack(String),
    /// Satellites that have the new state are to get the old one.
    Withdraw,
    /// The new state is the group's.
    Complete,
}

/// Decides. `batch` is the number of the current batch, 0 before the first; `approved` the number of
/// the last batch that a person let begin, where `batches() + 1` is the end.
pub fn decide(
    policy: &Policy,
    phase: Phase,
    (batch, approved): (usize, usize),
    members: &[Member],
    budgeted: &Budgeted,
    now: i64,
) -> Step {
    match phase {
        Phase::Running => {}
        Phase::AwaitingApproval => return Step::Wait("it waits for approval".to_owned()),
        Phase::Paused => return Step::Wait("it is paused".to_owned()),
        Phase::RollingBack | Phase::Aborting => return Step::Withdraw,
        Phase::Completed | Phase::RolledBack | Phase::Aborted => return Step::Wait(String::new()),
    }
    if batch == 0 {
        return Step::Begin(1);
    }
    let mut counts = Counts::default();
    for member in members {
        counts.add(member.standing(policy, now));
    }
    let Counts { waiting, offline, updating, updated, failed } = counts;
    let expected = counts.expected();
    if failed > 0 && policy.error_threshold.is_reached(failed, expected) {
        return Step::RollBack(format!(
            "batch {batch}: {failed} of {expected} failed, which reaches {}",
            policy.error_threshold
        ));
    }
    if waiting > 0 {
        let released = within_budget(policy, members, budgeted);
        if released.is_empty() {
            return Step::Wait(format!("{waiting} wait for the disruption budget"));
        }
        return Step::Release(released);
    }
    let is_reached = policy.success_threshold.is_reached(updated, expected);
    let is_proven = updated > 0 || members.is_empty();
    if is_reached && is_proven {
        return next(policy, batch, approved, now);
    }
    if updating > 0 {
        return Step::Wait(format!("{updating} of {} are updating", members.len()));
    }
    // Those that are away prove nothing: a person may know better.
    if expected == 0 {
        let begun = members.iter().filter_map(|member| member.released_at).max().unwrap_or(now);
        if now.saturating_sub(begun) <= policy.timeout() {
            return Step::Wait(format!("all {offline} of batch {batch} are offline"));
        }
    }
    if approved > batch {
        return next(policy, batch, approved, now);
    }
    let is_staged = batch >= policy.batches() && policy.awaits_approval();
    Step::Ask(format!(
        "batch {batch}: {updated} of {expected} updated, {offline} offline: expected {}{}",
        policy.success_threshold,
        if is_staged { "; approval activates what is staged" } else { "" }
    ))
}

/// What comes after a batch that is complete.
fn next(policy: &Policy, batch: usize, approved: usize, now: i64) -> Step {
    if batch >= policy.batches() {
        return match policy.is_staged(now) {
            Some(_) if policy.awaits_approval() && approved > batch => Step::Complete,
            Some(_) if policy.awaits_approval() => Step::Ask(STAGED.to_owned()),
            Some(why) => Step::Wait(format!("staged, {why}")),
            None => Step::Complete,
        };
    }
    if policy.approval == Approval::Manual && approved <= batch {
        let next = batch + 1;
        return Step::Ask(format!("batch {batch} is complete: batch {next} waits for approval"));
    }
    Step::Begin(batch + 1)
}

/// Those that wait and may be released now. One that is away is none the worse for it.
fn within_budget(policy: &Policy, members: &[Member], budgeted: &Budgeted) -> Vec<i64> {
    let mut usage = budgeted.usage.clone();
    let mut released = Vec::new();
    for member in members.iter().filter(|member| member.released_at.is_none()) {
        if released.len() >= RELEASES_MAX {
            break;
        }
        if let Some(budget) = policy.disruption_budget.as_ref().filter(|_| !member.is_away()) {
            let key = budgeted.key_of.get(&member.satellite_id).cloned().unwrap_or_default();
            let usage = usage.entry(key).or_default();
            let unavailable = usage.unavailable.saturating_add(1);
            let is_free = budget.max_unavailable.is_none_or(|max| unavailable <= max)
                && budget.min_available.is_none_or(|min| {
                    usage.all.checked_sub(unavailable).is_some_and(|available| available >= min)
                });
            if !is_free {
                continue;
            }
            usage.unavailable = unavailable;
        }
        released.push(member.satellite_id);
    }
    released
}

const STAGED: &str = "the new images are staged: approval activates them";
/// A satellite has failed when an image of it fails for this part of the update's time, and at the
/// longest for ten minutes.
const FAILURE_PART: i64 = 10;
const FAILURE_MICROS_MAX: i64 = 600 * clock::SECOND;
/// Satellites released, or taken back, in one transaction.
pub const RELEASES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_000_000 * clock::SECOND;

    fn policy(value: Value) -> Policy {
        serde_json::from_value(value).unwrap()
    }

    /// A letter for each: `w`aiting, waiting and `W` offline, `o`ffline, u`n`seen, updating `g`,
    /// `u`pdated, `f`ailed, failing only `j`ust now, `l`ate.
    fn members(letters: &str) -> Vec<Member> {
        let member = |(satellite_id, letter)| {
            let (released_at, outcome, connection) = match letter {
                'w' => (None, Outcome::Unseen, Connection::Online),
                'W' => (None, Outcome::Unseen, Connection::Offline),
                'o' => (Some(NOW), Outcome::Unseen, Connection::Offline),
                'n' => (Some(NOW), Outcome::Unseen, Connection::Stale),
                'g' => (Some(NOW), Outcome::Updating, Connection::Online),
                'u' => (Some(NOW), Outcome::Updated, Connection::Offline),
                'f' | 'j' => (Some(NOW), Outcome::Failed, Connection::Online),
                'l' => (Some(0), Outcome::Updating, Connection::Offline),
                _ => panic!("{letter}"),
            };
            let failed_at = match letter {
                'f' => Some(NOW - FAILURE_MICROS_MAX),
                'j' => Some(NOW),
                _ => None,
            };
            Member { satellite_id, released_at, outcome, failed_at, connection }
        };
        (1..).zip(letters.chars()).map(member).collect()
    }

    fn step(value: Value, at: (usize, usize), letters: &str) -> Step {
        decide(&policy(value), Phase::Running, at, &members(letters), &Budgeted::default(), NOW)
    }

    fn word(step: &Step) -> &'static str {
        match step {
            Step::Wait(_) => "wait",
            Step::Begin(_) => "begin",
            Step::Release(_) => "release",
            Step::Ask(_) => "ask",
            Step::RollBack(_) => "back",
            Step::Withdraw => "withdraw",
            Step::Complete => "complete",
        }
    }

    #[test]
    fn batches_follow_each_other_by_rule() {
        let two = json!({"sequence": [{"limit": 1}]});
        for (at, letters, expected) in [
            ((0, 0), "", "begin"),
            // The first batch.
            ((1, 0), "", "begin"),
            ((1, 0), "ww", "release"),
            ((1, 0), "wu", "release"),
            ((1, 0), "g", "wait"),
            ((1, 0), "n", "wait"),
            ((1, 0), "u", "begin"),
            // Nine in ten are enough, and those that are away do not count.
            ((1, 0), "uuuuuuuuug", "begin"),
            ((1, 0), "uuuuuuuugg", "wait"),
            ((1, 0), "uooooooooo", "begin"),
            ((1, 0), "ooo", "wait"),
            // A failure alone is half, two in ten are not.
            ((1, 0), "f", "back"),
            ((1, 0), "l", "back"),
            ((1, 0), "j", "wait"),
            ((1, 0), "fo", "back"),
            ((1, 0), "fg", "back"),
            ((1, 0), "fgg", "wait"),
            ((1, 0), "fww", "release"),
            ((1, 0), "uuuuuuuuff", "ask"),
            ((1, 2), "uuuuuuuuff", "begin"),
            ((1, 0), "uuuuuuuugf", "wait"),
            // The last.
            ((2, 0), "uo", "complete"),
            ((2, 0), "", "complete"),
            ((2, 0), "uuf", "ask"),
            ((2, 3), "uuf", "complete"),
        ] {
            let step = step(two.clone(), at, letters);
            assert_eq!(word(&step), expected, "{at:?} {letters}: {step:?}");
        }
        // What is staged waits for its time, or for a person.
        let at = |text: &str| json!({ "activateAt": text, "downloadOnly": true });
        let waits = Step::Wait("staged, activates at 1970-01-12T13:46:41Z".to_owned());
        assert_eq!(step(at("1970-01-12T13:46:41Z"), (1, 0), "u"), waits);
        assert_eq!(step(at("1970-01-12T13:46:40Z"), (1, 0), "u"), Step::Complete);
        // Approval of a batch with too few is no time's coming.
        assert_eq!(step(at("1970-01-12T13:46:41Z"), (1, 2), "uuf"), waits);
        let kept = json!({ "downloadOnly": true });
        assert_eq!(step(kept.clone(), (1, 0), "u"), Step::Ask(STAGED.to_owned()));
        assert_eq!(step(kept.clone(), (1, 2), "u"), Step::Complete);
        let reason = "batch 1: 2 of 3 updated, 0 offline: expected 90%; approval activates what is \
            staged";
        assert_eq!(step(kept, (1, 0), "uuf"), Step::Ask(reason.to_owned()));
        // No batch but the last is held up.
        let two_staged = json!({ "sequence": [{ "limit": 1 }], "downloadOnly": true });
        assert_eq!(step(two_staged, (1, 0), "u"), Step::Begin(2));
        assert_eq!(step(two.clone(), (1, 0), "u"), Step::Begin(2));
        assert_eq!(step(two, (1, 0), "uuw"), Step::Release(vec![3]));
    }

    #[test]
    fn a_batch_that_is_away_is_not_waited_for_without_end() {
        let mut away = members("oo");
        let decide = |away: &[Member]| {
            let none = Budgeted::default();
            decide(&Policy::default(), Phase::Running, (1, 0), away, &none, NOW)
        };
        assert_eq!(decide(&away), Step::Wait("all 2 of batch 1 are offline".to_owned()));
        for member in &mut away {
            member.released_at = Some(NOW - 25 * 3600 * clock::SECOND);
        }
        let Step::Ask(reason) = decide(&away) else { panic!() };
        assert_eq!(reason, "batch 1: 0 of 0 updated, 2 offline: expected 90%");
    }

    #[test]
    fn a_person_is_asked_before_each_batch_but_the_first() {
        let manual = json!({"sequence": [{"limit": 1}], "approval": "manual"});
        assert_eq!(step(manual.clone(), (0, 0), ""), Step::Begin(1));
        assert_eq!(word(&step(manual.clone(), (1, 0), "u")), "ask");
        assert_eq!(step(manual.clone(), (1, 2), "u"), Step::Begin(2));
        assert_eq!(step(manual, (2, 2), "u"), Step::Complete);
    }

    #[test]
    fn only_what_runs_goes_on() {
        for (phase, expected) in [
            (Phase::Paused, "wait"),
            (Phase::AwaitingApproval, "wait"),
            (Phase::RollingBack, "withdraw"),
            (Phase::Aborting, "withdraw"),
            (Phase::Completed, "wait"),
            (Phase::RolledBack, "wait"),
            (Phase::Aborted, "wait"),
        ] {
            let members = members("uwf");
            let none = Budgeted::default();
            let step = decide(&Policy::default(), phase, (1, 0), &members, &none, NOW);
            assert_eq!(word(&step), expected, "{phase:?}");
            assert_eq!(Phase::parse(phase.word()), Some(phase));
        }
    }

    #[test]
    fn a_site_keeps_what_its_budget_says() {
        const NONE: [i64; 0] = [];
        let budget = |value: Value, all, unavailable, letters| {
            let policy = policy(json!({ "disruptionBudget": value }));
            let usage = [("north", Usage { all, unavailable }), ("south", Usage::default())];
            let usage = usage.map(|(key, usage)| (key.to_owned(), usage)).into();
            let members = members(letters);
            let key_of = members.iter().map(|member| (member.satellite_id, "north".to_owned()));
            let budgeted = Budgeted { usage, key_of: key_of.collect() };
            match decide(&policy, Phase::Running, (1, 0), &members, &budgeted, NOW) {
                Step::Release(released) => released,
                Step::Wait(reason) => {
                    assert!(reason.contains("budget"), "{reason}");
                    Vec::new()
                }
                step => panic!("{step:?}"),
            }
        };
        let max = json!({"groupBy": ["site"], "maxUnavailable": 2});
        assert_eq!(budget(max.clone(), 9, 0, "www"), [1, 2]);
        assert_eq!(budget(max.clone(), 9, 1, "www"), [1]);
        assert_eq!(budget(max.clone(), 9, 2, "www"), NONE);
        // One that is away is counted already.
        assert_eq!(budget(max, 9, 2, "wWw"), [2]);
        let min = json!({"groupBy": ["site"], "minAvailable": 7});
        assert_eq!(budget(min.clone(), 9, 0, "www"), [1, 2]);
        assert_eq!(budget(min.clone(), 9, 2, "www"), NONE);
        assert_eq!(budget(min, 3, 0, "www"), NONE);
    }

    #[test]
    fn a_transaction_releases_no_more_than_its_limit() {
        let Step::Release(released) = step(json!({}), (1, 0), &"w".repeat(500)) else { panic!() };
        assert_eq!(released.len(), RELEASES_MAX);
    }
}
