//! Remote configurations.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::etag::{Expected, Version};
use super::extract::{Body, Editor, Person, check_name};
use crate::fleet::config::{self, Named};
use crate::fleet::state::config_repository;
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::store::{Config, NewConfig, Rows, Satellite, is_duplicate};
use crate::ground::{clock, journal, mask, publish};

#[derive(Deserialize)]
pub struct Assignment {
    satellite: String,
    config_name: String,
}

pub async fn list(State(app): State<Arc<App>>, _: Person) -> Result<Json<Value>, Fault> {
    let configs = app.store.read().await?.rows().configs().await?;
    configs.iter().map(|config| answer(&app, config)).collect::<Result<_, _>>().map(Json)
}

pub async fn show(
    State(app): State<Arc<App>>,
    _: Person,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    let config = app.store.read().await?.rows().config(&name).await?;
    let config = config.ok_or_else(|| Fault::missing("config not found"))?;
    versioned(&app, &config)
}

pub async fn create(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    Body(body): Body<Named>,
) -> Result<StatusCode, Fault> {
    add_config(&app, &person.actor, &body.config_name, &body.config).await?;
    Ok(StatusCode::CREATED)
}

async fn add_config(
    app: &App,
    actor: &str,
    name: &str,
    config: &config::Config,
) -> Result<(), Fault> {
    check_name("config_name", name, &["satellite"])?;
    config.check()?;
    let text = publish::to_json(config)?;
    mask::restore(&mut value(&text)?, &Value::Null)?;
    let new = NewConfig { name, registry: &app.url, config: &text };
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let added = rows.add_config(&new, clock::now()).await;
    if added.as_ref().is_err_and(is_duplicate) {
        return Err(Fault::new(StatusCode::CONFLICT, "error: config already exists"));
    }
    added?;
    publish::config(&mut rows, name, &text).await?;
    journal::audit(&mut rows, actor, ("config.create", name), &(), config).await?;
    write.commit().await.map_err(Fault::from)
}

/// Makes a configuration where none is expected, or replaces the whole text of one.
pub async fn put_config(
    app: &App,
    actor: &str,
    expected: &Expected,
    name: &str,
    mut wanted: Value,
) -> Result<(), Fault> {
    let read = |wanted: Value| -> Result<config::Config, Fault> {
        serde_json::from_value(wanted).map_err(|error| Fault::bad(format!("config: {error}")))
    };
    if !wanted.is_object() {
        return Err(Fault::bad("config: expected a JSON object"));
    }
    if matches!(expected, Expected::Absent) {
        return add_config(app, actor, name, &read(wanted)?).await;
    }
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let found = rows.config(name).await?;
    let found = found.ok_or_else(|| Fault::missing("error: config not found"))?;
    expected.check(&mut rows, &Version::of_config(app, &found)).await?;
    mask::restore(&mut wanted, &value(&found.config)?)?;
    let wanted = read(wanted)?;
    if change(&mut rows, actor, &found, &wanted).await?.is_some() {
        write.commit().await?;
    }
    Ok(())
}

/// Changes values of a configuration; None where they are the same.
async fn change(
    rows: &mut Rows<'_>,
    actor: &str,
    found: &Config,
    wanted: &config::Config,
) -> Result<Option<Config>, Fault> {
    wanted.check()?;
    let (kept, text) = (value(&found.config)?, publish::to_json(wanted)?);
    if value(&text)? == kept {
        return Ok(None);
    }
    let updated = rows.update_config(found.id, &text, clock::now()).await?;
    publish::config(rows, &found.name, &text).await?;
    let change = ("config.update", found.name.as_str());
    journal::audit(rows, actor, change, &kept, &value(&text)?).await?;
    Ok(Some(updated))
}

/// Merges a patch into a configuration (RFC 7396): null takes a value away.
pub async fn update(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Path(name): Path<String>,
    Body(patch): Body<Map<String, Value>>,
) -> Result<Response, Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let found = rows.config(&name).await?;
    let found = found.ok_or_else(|| Fault::missing("error: config not found"))?;
    expected.check(&mut rows, &Version::of_config(&app, &found)).await?;
    let kept = value(&found.config)?;
    let mut merged = kept.clone();
    merge(&mut merged, Value::Object(patch));
    mask::restore(&mut merged, &kept)?;
    let merged: config::Config = serde_json::from_value(merged)
        .map_err(|error| Fault::bad(format!("error: unable to apply patch: {error}")))?;
    match change(&mut rows, &person.actor, &found, &merged).await? {
        None => versioned(&app, &found),
        Some(updated) => {
            write.commit().await?;
            versioned(&app, &updated)
        }
    }
}

pub async fn remove(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Path(name): Path<String>,
) -> Result<Json<Value>, Fault> {
    remove_config(&app, &person.actor, &expected, &name).await?;
    Ok(Json(json!({})))
}

/// Removes a configuration that no satellite has.
pub async fn remove_config(
    app: &App,
    actor: &str,
    expected: &Expected,
    name: &str,
) -> Result<(), Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let found = rows.config(name).await?;
    let found = found.ok_or_else(|| Fault::missing("error: config not found"))?;
    expected.check(&mut rows, &Version::of_config(app, &found)).await?;
    if rows.config_users(found.id).await? > 0 {
        return Err(Fault::bad("error: config is in use"));
    }
    rows.delete_config(found.id).await?;
    rows.unpublish(&config_repository(name)).await?;
    let change = ("config.delete", name);
    journal::audit(&mut rows, actor, change, &value(&found.config)?, &()).await?;
    write.commit().await?;
    Ok(())
}

/// Assigns a configuration to a satellite.
pub async fn assign(
    State(app): State<Arc<App>>,
    Editor(person): Editor,
    expected: Expected,
    Body(body): Body<Assignment>,
) -> Result<Json<Value>, Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let satellite = rows.satellite(&body.satellite).await?;
    let satellite = satellite.ok_or_else(|| Fault::bad("Error: Satellite Not Found"))?;
    let version = Version::read_satellite(&app, &mut rows, &satellite).await?;
    expected.check(&mut rows, &version).await?;
    assign_config(&mut rows, &person.actor, &satellite, &body.config_name).await?;
    publish::satellite(&mut rows, &app.url, &satellite).await?;
    write.commit().await?;
    Ok(Json(json!({})))
}

/// Assigns another configuration to a satellite; its state is yet to be published.
pub async fn assign_config(
    rows: &mut Rows<'_>,
    actor: &str,
    satellite: &Satellite,
    name: &str,
) -> Result<(), Fault> {
    let found = rows.config(name).await?;
    let found = found.ok_or_else(|| Fault::bad("Error: Config Not Found"))?;
    let before = rows.satellite_config(satellite.id).await?;
    if before == found.name {
        return Ok(());
    }
    rows.set_satellite_config(satellite.id, found.id, clock::now()).await?;
    let change = ("satellite.config", satellite.name.as_str());
    journal::audit(rows, actor, change, &before, &found.name).await
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn value(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::internal("a stored config", &error))
}

fn versioned(app: &App, config: &Config) -> Result<Response, Fault> {
    Ok(Version::of_config(app, config).with(Json(answer(app, config)?)))
}

/// A row as Go answers it, but for secrets.
fn answer(app: &App, config: &Config) -> Result<Value, Fault> {
    let mut shown = value(&config.config)?;
    mask::hide(&mut shown);
    Ok(json!({
        "ID": config.id,
        "ConfigName": config.name,
        "RegistryUrl": config.registry,
        "Config": shown,
        "ETag": Version::of_config(app, config).tag(),
        "CreatedAt": clock::rfc3339(config.created_at),
        "UpdatedAt": clock::rfc3339(config.updated_at),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_merged() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut value, json!({"a": {"b": null, "e": {"f": null}}, "d": {"g": 1}}));
        assert_eq!(value, json!({"a": {"c": 2, "e": {}}, "d": {"g": 1}}));
    }
}
