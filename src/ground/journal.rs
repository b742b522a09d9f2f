//! What is written down of changes and of the fleet: who changed what, and what happened to which
//! satellite.
//!
//! Both are rows of the transaction that they are about, kept for 30 days and bounded in number.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::fault::Fault;
use super::store::{Entry, Event, Rows, Satellite};
use super::{assess, clock, mask};
use crate::fleet::report::Report;
use crate::units::ByteCount;

/// What happens to satellites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A device used the credentials of its enrolment.
    Enrolled,
    /// A device asks to be let in by a person.
    Waiting,
    /// A person let it in.
    Approved,
    /// Ten reports in a row are missing.
    Offline,
    /// A report came from a satellite that was offline.
    Back,
    /// An image cannot be had.
    ImageFailed,
    /// Little of the flash's rated life is left.
    FlashWorn,
    /// Little of the store is left.
    StorageNearlyFull,
    Revoked,
    Decommissioned,
    /// Of a rollout, which is the event's object; it is of no satellite.
    RolloutStarted,
    /// A batch begins.
    RolloutBatch,
    /// A person is asked.
    RolloutWaiting,
    /// Too many failed: the new state is being taken back.
    RolloutFailed,
    /// It was taken back from all.
    RolloutWithdrawn,
    RolloutCompleted,
    /// Artifacts cannot be put into the registry, which is the event's object.
    PublishFailed,
    /// They can again.
    PublishRestored,
    /// A tag of a group, which is the event's object, means another image.
    TagMoved,
}

impl Kind {
    /// Its name in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Offline => "offline",
            Self::Back => "back",
            Self::ImageFailed => "image_failed",
            Self::FlashWorn => "flash_worn",
            Self::StorageNearlyFull => "storage_nearly_full",
            Self::Revoked => "revoked",
            Self::Decommissioned => "decommissioned",
            Self::RolloutStarted => "rollout_started",
            Self::RolloutBatch => "rollout_batch",
            Self::RolloutWaiting => "rollout_waiting",
            Self::RolloutFailed => "rollout_failed",
            Self::RolloutWithdrawn => "rollout_withdrawn",
            Self::RolloutCompleted => "rollout_completed",
            Self::PublishFailed => "publish_failed",
            Self::PublishRestored => "publish_restored",
            Self::TagMoved => "tag_moved",
        }
    }
}

/// Writes down a change that `actor` made: `action` is such as `group.put`, `object` what it was
/// made to. Of `before` and `after` only what differs is kept, and no secret. Where nothing differs
/// there was no change; what may not be shown, such as a password, is null on both sides and is one.
pub async fn audit(
    rows: &mut Rows<'_>,
    actor: &str,
    (action, object): (&str, &str),
    before: &impl Serialize,
    after: &impl Serialize,
) -> Result<(), Fault> {
    let value = |value: Result<Value, _>| {
        value.map_err(|error: serde_json::Error| Fault::internal("writing JSON", &error))
    };
    let before = value(serde_json::to_value(before))?;
    let after = value(serde_json::to_value(after))?;
    if before == after && !before.is_null() {
        return Ok(());
    }
    let (before, after) = differences(&before, &after);
    let entry = Entry {
        id: 0,
        at: clock::now(),
        actor: actor.to_owned(),
        action: action.to_owned(),
        object: object.to_owned(),
        before: summary(before),
        after: summary(after),
    };
    rows.add_audit(&entry).await?;
    Ok(())
}

/// An event of now; `object` is what of the satellite it is about.
pub fn event(kind: Kind, satellite: &str, object: &str, message: &str) -> Event {
    // PostgreSQL keeps no NUL in a text.
    let text = |text: &str| text.replace('\0', "");
    Event {
        id: 0,
        at: clock::now(),
        kind: kind.word().to_owned(),
        satellite: satellite.to_owned(),
        object: text(object),
        message: text(message),
    }
}

/// Writes down what a report says that the one before did not: images that failed, memory that is
/// worn, a store that fills. What comes and goes is said once an hour, and images that fail together
/// are one event.
pub async fn of_report(
    rows: &mut Rows<'_>,
    satellite: &Satellite,
    before: Option<&Report>,
    report: &Report,
) -> Result<(), Fault> {
    let mut events = Vec::new();
    let name = satellite.name.as_str();
    if satellite.is_offline {
        events.push(event(Kind::Back, name, "", "it reports again"));
    }
    let failed = |report: &Report| {
        let images = report.moonlet.iter().flat_map(|details| details.images.clone());
        let failed = images.filter(assess::is_failed);
        failed.map(|image| (image.reference, image.reason)).collect::<BTreeMap<_, _>>()
    };
    let failed_before = before.map(failed).unwrap_or_default();
    let mut new: Vec<(String, String)> = failed(report).into_iter().collect();
    new.retain(|(image, _)| !failed_before.contains_key(image));
    let more = new.len().saturating_sub(1);
    for (image, reason) in new.iter().take(FAILURES_MAX) {
        let failed = event(Kind::ImageFailed, name, image, &with_more(reason, more));
        if !is_said(rows, &failed).await? {
            events.push(failed);
            break;
        }
    }
    let is_worn = |report: &Report| report.moonlet.as_ref().is_some_and(assess::is_flash_worn);
    if is_worn(report) && !before.is_some_and(is_worn) {
        let percent = report.moonlet.as_ref().and_then(|details| details.flash_used_percent);
        let message = format!("{:.0} % of its rated life is used", percent.unwrap_or_default());
        events.push(event(Kind::FlashWorn, name, "", &message));
    }
    let is_full = assess::is_storage_nearly_full;
    if is_full(report) && !before.is_some_and(is_full) {
        let message = format!("{} are in use", ByteCount(assess::storage_needed_bytes(report)));
        events.push(event(Kind::StorageNearlyFull, name, "", &message));
    }
    for event in events {
        let is_back = event.kind == Kind::Back.word();
        if is_back || !is_said(rows, &event).await? {
            rows.add_event(&event).await?;
        }
    }
    Ok(())
}

/// Whether the same was said within the hour.
async fn is_said(rows: &mut Rows<'_>, event: &Event) -> Result<bool, Fault> {
    Ok(rows.has_event(event, event.at - QUIET_SECONDS * clock::SECOND).await?)
}

/// Why an image failed, and how many others did.
fn with_more(reason: &str, more: usize) -> String {
    let reason = if reason.is_empty() { "failed" } else { reason };
    if more == 0 { reason.to_owned() } else { format!("{reason}, and {more} more") }
}

/// The parts of two values that are not in the other.
fn differences(before: &Value, after: &Value) -> (Value, Value) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let (mut was, mut is) = (Map::new(), Map::new());
            for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
                let (one, other) = match (old.get(key), new.get(key)) {
                    (Some(one), Some(other)) if one == other => continue,
                    (Some(one), Some(other)) => differences(one, other),
                    (one, other) => (one.cloned().into(), other.cloned().into()),
                };
                if !one.is_null() {
                    was.insert(key.clone(), one);
                }
                if !other.is_null() {
                    is.insert(key.clone(), other);
                }
            }
            (Value::Object(was), Value::Object(is))
        }
        (Value::Array(old), Value::Array(new)) => (only_in(old, new), only_in(new, old)),
        _ => (before.clone(), after.clone()),
    }
}

/// The elements of one list that another lacks.
fn only_in(list: &[Value], other: &[Value]) -> Value {
    let mut own = list.iter().filter(|value| !other.contains(value));
    let mut shown: Vec<Value> = own.by_ref().take(ELEMENTS_MAX).cloned().collect();
    let more = own.count();
    if more > 0 {
        shown.push(json!(format!("and {more} more")));
    }
    Value::Array(shown)
}

/// JSON of a limited length without secrets; empty for nothing.
fn summary(mut value: Value) -> String {
    mask::hide(&mut value);
    if value.is_null() {
        return String::new();
    }
    let text = value.to_string();
    if text.len() > SUMMARY_BYTES_MAX {
        let bytes = text.len();
        return json!(format!("{bytes} bytes, of which at most {SUMMARY_BYTES_MAX} are kept"))
            .to_string();
    }
    text
}

/// Images of one report of which is asked whether they were said to have failed.
const FAILURES_MAX: usize = 20;
const QUIET_SECONDS: i64 = 3600;
const ELEMENTS_MAX: usize = 50;
const SUMMARY_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_kept() {
        let before = json!({"a": 1, "b": {"c": 2, "password": "x"}, "l": [1, 2], "gone": 5});
        let after = json!({"a": 1, "b": {"c": 3, "password": "y"}, "l": [2, 3], "new": null});
        let (was, is) = differences(&before, &after);
        assert_eq!(summary(was), r#"{"b":{"c":2,"password":"********"},"gone":5,"l":[1]}"#);
        assert_eq!(summary(is), r#"{"b":{"c":3,"password":"********"},"l":[3]}"#);
        let (was, is) = differences(&Value::Null, &json!({"a": 1}));
        assert_eq!((summary(was), summary(is)), (String::new(), r#"{"a":1}"#.to_owned()));
    }

    #[test]
    fn a_summary_is_short() {
        let many: Vec<u32> = (0..1000).collect();
        let Value::Array(kept) = only_in(json!(many).as_array().unwrap(), &[]) else { panic!() };
        assert_eq!(kept.len(), ELEMENTS_MAX + 1);
        assert_eq!(kept.last().unwrap(), "and 950 more");
        assert!(summary(json!("x".repeat(1 << 20))).len() < 100);
    }
}
