//! How a group's new state reaches its satellites, in the field's names and defaults.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fleet::shown;
use crate::fleet::state::{GroupState, Staged, activation_text, parse_time};
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::labels::{Selector, check_label};
use crate::units::{exact_duration, parse_duration};

/// The rules of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    /// The batches; all satellites that none of them has are one more, the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sequence: Vec<Batch>,
    /// The share of a batch that must hold the new state before the next one gets it.
    pub success_threshold: Percent,
    /// The share of a batch that takes the new state back from all when it fails.
    pub error_threshold: Percent,
    /// A satellite that reports and does not hold the new state after this has failed.
    pub update_timeout: Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<Budget>,
    /// Who begins each batch but the first.
    pub approval: Approval,
    /// The new images are fetched and kept; without `activateAt` they take their place when a person
    /// approves it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub download_only: bool,
    /// When they take their place on all satellites, as RFC 3339 has it; empty for at once.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub activate_at: String,
}

/// Some satellites of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Batch {
    /// Conditions on labels, as in lists; all satellites when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// At most so many of them that no batch before has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Count(u32),
    /// Of all satellites of the group that the selector chooses.
    Percent(Percent),
}

/// From 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(u8);

/// A span of time in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub u64);

/// How many satellites with the same values of some labels may be without what they are to hold, or
/// offline, at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Budget {
    /// Labels; the whole group is one when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_available: Option<u32>,
}

/// Who begins a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approval {
    #[default]
    Automatic,
    Manual,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            sequence: Vec::new(),
            success_threshold: Percent(90),
            error_threshold: Percent(50),
            update_timeout: Span(24 * 3600),
            disruption_budget: None,
            approval: Approval::default(),
            download_only: false,
            activate_at: String::new(),
        }
    }
}

impl Policy {
    /// Holds selectors and labels to their grammar, and lists to their limits.
    pub fn check(&self) -> Result<(), Fault> {
        let count = self.sequence.len();
        if count > BATCHES_MAX {
            return Err(Fault::bad(format!("{count} batches: expected at most {BATCHES_MAX}")));
        }
        for batch in &self.sequence {
            Selector::parse(&batch.selector)?;
        }
        if !self.activate_at.is_empty() {
            parse_time("activateAt", &self.activate_at)?;
        }
        let Some(budget) = &self.disruption_budget else { return Ok(()) };
        let count = budget.group_by.len();
        if count > GROUP_BY_MAX {
            return Err(Fault::bad(format!("{count} labels: expected at most {GROUP_BY_MAX}")));
        }
        if budget.max_unavailable == Some(0) {
            return Err(Fault::bad("maxUnavailable 0: expected 1 or more, or nothing begins"));
        }
        if budget.max_unavailable.is_none() && budget.min_available.is_none() {
            return Err(Fault::bad("disruptionBudget: expected maxUnavailable or minAvailable"));
        }
        budget.group_by.iter().try_for_each(|label| check_label(label, ""))
    }

    /// What keeps the new images from taking their place at `now`; nothing where they may.
    pub fn is_staged(&self, now: i64) -> Option<String> {
        match self.activates_at() {
            Some(at) => {
                let micros = i64::try_from(at).unwrap_or(i64::MAX).saturating_mul(clock::SECOND);
                (now < micros).then(|| activation_text(Some(at)))
            }
            None => self.awaits_approval().then(|| activation_text(None)),
        }
    }

    /// Whether a person says when the new images take their place.
    pub fn awaits_approval(&self) -> bool {
        self.download_only && self.activate_at.is_empty()
    }

    /// When the new images take their place, if that is said.
    fn activates_at(&self) -> Option<u64> {
        parse_time("", &self.activate_at).ok()
    }

    /// What a satellite is to be that this got to, at `now`: the group as it is with the new one
    /// staged, or the new one.
    pub fn bring(&self, group: &GroupState, new: &GroupState, now: i64) -> GroupState {
        if self.is_staged(now).is_none() {
            return new.clone();
        }
        let GroupState { registry, artifacts, platforms, .. } = new.clone();
        let activate_at = self.activate_at.clone();
        let staged = Some(Staged { activate_at, registry, artifacts, platforms });
        GroupState { staged, ..group.clone() }
    }

    /// The time that a satellite has, in microseconds.
    pub fn timeout(&self) -> i64 {
        i64::try_from(self.update_timeout.0).unwrap_or(i64::MAX).saturating_mul(clock::SECOND)
    }

    /// How many batches there are, the last among them.
    pub fn batches(&self) -> usize {
        self.sequence.len() + 1
    }

    /// A batch by its number, from 1; the last one has all that is left.
    pub fn batch(&self, number: usize) -> Batch {
        let named = number.checked_sub(1).and_then(|place| self.sequence.get(place));
        named.cloned().unwrap_or_default()
    }
}

impl Limit {
    /// Of `all` how many, at least one.
    pub fn of(self, all: u64) -> u64 {
        match self {
            Self::Count(count) => u64::from(count),
            Self::Percent(Percent(percent)) => (all * u64::from(percent)).div_ceil(100).max(1),
        }
    }
}

impl Percent {
    /// Whether a part of a whole is at least this share of it.
    pub fn is_reached(self, part: usize, whole: usize) -> bool {
        part.saturating_mul(100) >= whole.saturating_mul(usize::from(self.0))
    }
}

/// As commands and forms have it: `10% ring=canary`, `1`, `all site=north`.
impl std::str::FromStr for Batch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (limit, selector) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let limit = if limit == "all" { None } else { Some(limit.parse()?) };
        let selector = selector.trim().to_owned();
        Selector::parse(&selector).map_err(|fault| fault.message)?;
        Ok(Self { selector, limit })
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            None => f.write_str("all")?,
            Some(Limit::Count(count)) => write!(f, "{count}")?,
            Some(Limit::Percent(percent)) => write!(f, "{percent}")?,
        }
        if self.selector.is_empty() { Ok(()) } else { write!(f, " {}", self.selector) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&exact_duration(Duration::from_secs(self.0)))
    }
}

/// Numbers may be written as such or as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl std::str::FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim().parse();
        match number {
            Ok(percent @ 1..=100) => Ok(Self(percent)),
            _ => Err(format!("share {}: expected 1% to 100%", shown(text))),
        }
    }
}

impl std::str::FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with('%') {
            return text.parse().map(Self::Percent);
        }
        match text.parse() {
            Ok(count @ 1..) => Ok(Self::Count(count)),
            _ => Err(format!("limit {}: expected a number or a share, as 5 or 10%", shown(text))),
        }
    }
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = parse_duration(text).map(|span| span.as_secs());
        match seconds {
            Ok(seconds @ 1..=SPAN_SECONDS_MAX) => Ok(Self(seconds)),
            _ => Err(format!("span {}: expected 1s to 365d, such as 24h", shown(text))),
        }
    }
}

fn read<'de, D: Deserializer<'de>, T: std::str::FromStr<Err = String>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = match Written::deserialize(deserializer)? {
        Written::Number(number) => number.to_string(),
        Written::Text(text) => text,
    };
    text.parse().map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(percent) => serializer.collect_str(percent),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Batches of one rollout.
const BATCHES_MAX: usize = 50;
/// Labels that a disruption budget counts by.
const GROUP_BY_MAX: usize = 4;
const SPAN_SECONDS_MAX: u64 = 365 * 24 * 3600;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(value: serde_json::Value) -> Result<Policy, String> {
        let policy: Policy = serde_json::from_value(value).map_err(|error| error.to_string())?;
        policy.check().map_err(|fault| fault.message)?;
        Ok(policy)
    }

    #[test]
    fn what_is_not_said_has_the_fields_defaults() {
        let policy = policy(json!({})).unwrap();
        assert_eq!(policy, Policy::default());
        let written = json!({"successThreshold": "90%", "errorThreshold": "50%",
            "updateTimeout": "1d", "approval": "automatic"});
        assert_eq!(serde_json::to_value(&policy).unwrap(), written);
        assert_eq!(policy.batches(), 1);
    }

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        let value = json!({
            "sequence": [{"selector": "ring=canary", "limit": 1}, {"limit": "25%"}],
            "successThreshold": 80, "updateTimeout": "10m", "approval": "manual",
            "disruptionBudget": {"groupBy": ["site"], "maxUnavailable": 2},
        });
        let read = policy(value).unwrap();
        assert_eq!(read.batch(1).limit, Some(Limit::Count(1)));
        assert_eq!(read.batch(2).limit.unwrap().of(10), 3);
        assert_eq!(read.batch(2).limit.unwrap().of(0), 1);
        assert_eq!(read.batch(3), Batch::default());
        assert!(read.success_threshold.is_reached(4, 5));
        assert!(!read.success_threshold.is_reached(3, 4));
        assert_eq!(policy(serde_json::to_value(&read).unwrap()), Ok(read));
    }

    #[test]
    fn a_batch_is_a_line() {
        for text in ["1", "10% ring=canary", "all site=north,!old"] {
            assert_eq!(text.parse::<Batch>().unwrap().to_string(), text);
        }
        for bad in ["", "ring=canary", "0", "10% a b"] {
            assert!(bad.parse::<Batch>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_can_never_work_is_named() {
        for (value, part) in [
            (json!({"sequence": [{"limit": 0}]}), "limit \"0\""),
            (json!({"sequence": [{"limit": "200%"}]}), "share \"200%\""),
            (json!({"sequence": [{"selector": "a b"}]}), "selector"),
            (json!({"sequence": vec![json!({}); 51]}), "51 batches"),
            (json!({"successThreshold": "x"}), "share \"x\""),
            (json!({"updateTimeout": "0s"}), "span \"0s\""),
            (json!({"updateTimeout": "1y2z"}), "span"),
            (json!({"approval": "maybe"}), "maybe"),
            (json!({"disruptionBudget": {}}), "maxUnavailable or minAvailable"),
            (json!({"disruptionBudget": {"maxUnavailable": 0}}), "maxUnavailable 0"),
            (json!({"disruptionBudget": {"groupBy": ["a b"], "minAvailable": 1}}), "label"),
            (json!({"successTreshold": 1}), "successTreshold"),
        ] {
            let error = policy(value.clone()).unwrap_err();
            assert!(error.contains(part), "{value}: {error}");
        }
    }
}
