//! What answers about satellites are made of: the rows of a page, and a row as Go answers it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{null_string, null_time};
use crate::fleet::shown;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::labels::{Labels, Selector};
use crate::ground::store::{Rows, Satellite, Summary, Wanted};

/// What a list of satellites is asked for. Without a limit all are answered, as Go does.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Listing {
    selector: String,
    after: String,
    limit: String,
}

impl Listing {
    /// The satellites of a page, each with its last report in short and its labels.
    pub async fn read(
        &self,
        rows: &mut Rows<'_>,
        connections: &str,
        group: &str,
        now: i64,
    ) -> Result<Vec<(Satellite, Option<Summary>, Labels)>, Fault> {
        let selector = Selector::parse(&self.selector)?;
        let wanted = Wanted {
            after: &self.after,
            part: "",
            connections,
            group,
            selector: &selector,
            rows_max: limit(&self.limit)?.unwrap_or(i64::MAX),
        };
        let page = rows.page(&wanted, now).await?;
        let (Some((first, _)), Some((last, _))) = (page.first(), page.last()) else {
            return Ok(Vec::new());
        };
        let mut labels = rows.labels_between(&first.name, &last.name).await?;
        let with_labels = page.into_iter().map(|(satellite, last)| {
            let labels = labels.remove(&satellite.id).unwrap_or_default();
            (satellite, last, labels)
        });
        Ok(with_labels.collect())
    }
}

/// The satellite of that name.
pub async fn find(rows: &mut Rows<'_>, name: &str) -> Result<Satellite, Fault> {
    rows.satellite(name).await?.ok_or_else(|| Fault::missing("satellite not found"))
}

/// A row as Go answers it.
pub fn row(satellite: &Satellite) -> Value {
    json!({
        "ID": satellite.id,
        "Name": satellite.name,
        "CreatedAt": clock::rfc3339(satellite.created_at),
        "UpdatedAt": clock::rfc3339(satellite.updated_at),
        "LastSeen": null_time(satellite.last_seen),
        "HeartbeatInterval": null_string(satellite.heartbeat_interval.as_deref()),
    })
}

pub async fn labels_of(rows: &mut Rows<'_>, satellite: &Satellite) -> Result<Labels, Fault> {
    let labels = rows.labels(satellite.id).await?;
    Ok(labels.into_iter().map(|label| (label.label, label.value)).collect())
}

/// What Go does not answer, beside what it does.
pub fn with<const N: usize>(mut row: Value, more: [(&str, Value); N]) -> Value {
    if let Value::Object(fields) = &mut row {
        fields.extend(more.map(|(key, value)| (key.to_owned(), value)));
    }
    row
}

/// The limit of a page; none when nothing is said.
pub fn limit(text: &str) -> Result<Option<i64>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(limit) if (1..=PAGE_ROWS_MAX).contains(&limit) => Ok(Some(limit)),
        _ => Err(Fault::bad(format!(
            "limit {}: expected a number from 1 to {PAGE_ROWS_MAX}",
            shown(text)
        ))),
    }
}

/// A row as Go answers it in the list of a group's satellites.
pub fn brief(satellite: &Satellite) -> Value {
    json!({
        "ID": satellite.id,
        "Name": satellite.name,
        "CreatedAt": clock::rfc3339(satellite.created_at),
        "UpdatedAt": clock::rfc3339(satellite.updated_at),
    })
}

/// Rows of one page.
pub const PAGE_ROWS_MAX: i64 = 1000;
