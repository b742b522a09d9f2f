//! Labels of satellites.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sqlx::{Result, Row as _};

use super::Rows;
use crate::ground::labels::{LABELS_MAX, Labels, Selector};

/// A label of a satellite.
pub struct Label {
    pub label: String,
    pub value: String,
    /// A fact of the device made it; it goes with the next enrolment.
    pub is_fact: bool,
}

impl Rows<'_> {
    /// A satellite's labels, in their order.
    pub async fn labels(&mut self, satellite_id: i64) -> Result<Vec<Label>> {
        let query = sqlx::query(
            "SELECT label, value, is_fact FROM satellite_labels WHERE satellite_id = $1 \
             ORDER BY label",
        );
        let rows = query.bind(satellite_id).fetch_all(&mut *self.0).await?;
        let label = |row: &sqlx::any::AnyRow| {
            let is_fact: i64 = row.try_get("is_fact")?;
            Ok(Label {
                label: row.try_get("label")?,
                value: row.try_get("value")?,
                is_fact: is_fact != 0,
            })
        };
        rows.iter().map(label).collect()
    }

    /// The labels of the satellites with names from `first` to `last`, by the satellites' ids.
    pub async fn labels_between(
        &mut self,
        first: &str,
        last: &str,
    ) -> Result<BTreeMap<i64, Labels>> {
        let query = sqlx::query(
            "SELECT satellite_id, label, value FROM satellite_labels JOIN satellites \
             ON satellites.id = satellite_id WHERE name >= $1 AND name <= $2",
        );
        let mut labels: BTreeMap<i64, Labels> = BTreeMap::new();
        for row in query.bind(first).bind(last).fetch_all(&mut *self.0).await? {
            let own = labels.entry(row.try_get("satellite_id")?).or_default();
            own.insert(row.try_get("label")?, row.try_get("value")?);
        }
        Ok(labels)
    }

    /// Sets a label of a satellite.
    pub async fn set_label(&mut self, satellite_id: i64, label: &str, value: &str) -> Result<()> {
        let query = sqlx::query(
            "INSERT INTO satellite_labels (satellite_id, label, value, is_fact) \
             VALUES ($1, $2, $3, 0) ON CONFLICT (satellite_id, label) DO UPDATE SET \
             value = excluded.value, is_fact = 0",
        );
        let query = query.bind(satellite_id).bind(label).bind(value);
        query.execute(&mut *self.0).await.map(drop)
    }

    pub async fn remove_label(&mut self, satellite_id: i64, label: &str) -> Result<()> {
        let query =
            sqlx::query("DELETE FROM satellite_labels WHERE satellite_id = $1 AND label = $2");
        query.bind(satellite_id).bind(label).execute(&mut *self.0).await.map(drop)
    }

    /// Puts the labels that a device's facts make in the place of those of the device before.
    /// Labels that people set stay, and what is more than a satellite may have is left out.
    pub async fn set_facts(&mut self, satellite_id: i64, facts: &Labels) -> Result<()> {
        let query =
            sqlx::query("DELETE FROM satellite_labels WHERE satellite_id = $1 AND is_fact = 1");
        query.bind(satellite_id).execute(&mut *self.0).await?;
        let given = self.labels(satellite_id).await?;
        let mut count = given.len();
        for (label, value) in facts {
            if count >= LABELS_MAX || given.iter().any(|given| given.label == *label) {
                continue;
            }
            count += 1;
            let query = sqlx::query(
                "INSERT INTO satellite_labels (satellite_id, label, value, is_fact) \
                 VALUES ($1, $2, $3, 1)",
            );
            let query = query.bind(satellite_id).bind(label).bind(value);
            query.execute(&mut *self.0).await?;
        }
        Ok(())
    }
}

/// The conditions of a selector on a row of `satellites`, and the values they are bound to, from
/// the place `$first` on.
pub fn conditions(selector: &Selector, first: usize) -> (String, Vec<&str>) {
    let (mut text, mut values) = (String::new(), Vec::new());
    for term in &selector.0 {
        let not = if term.wanted { "" } else { "NOT " };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            " AND {not}EXISTS (SELECT 1 FROM satellite_labels \
             WHERE satellite_labels.satellite_id = satellites.id AND label = ${}",
            first + values.len()
        );
        values.push(term.label.as_str());
        if let Some(value) = &term.value {
            let _ = write!(text, " AND value = ${}", first + values.len());
            values.push(value);
        }
        text.push(')');
    }
    (text, values)
}
