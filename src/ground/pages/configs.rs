//! Configurations of satellites, as JSON. Secrets in them are masked; a mask that is saved keeps what
//! it stands for.

use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde_json::Value;

use super::view::{at, page, token, version};
use super::{Visitor, forms};
use crate::ground::api::{Expected, Version, put_config, remove_config};
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::mask;
use crate::ground::store::Config;

pub async fn list(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Markup, Fault> {
    let configs = app.store.read().await?.rows().configs().await?;
    let form = forms::Config { config: NEW.to_owned(), ..forms::Config::default() };
    let content = html! {
        h1 { "Configurations" }
        @if configs.is_empty() {
            p.notice {
                "No configuration yet. Every satellite has one: how often it looks and reports, and \
                 passwords of registries."
            }
        } @else {
            table {
                thead { tr { th { "Configuration" } th { "Changed" } } }
                tbody { @for config in &configs { tr {
                    td { a href={ "/console/configs/" (config.name) } { (config.name) } }
                    td { (at(config.updated_at)) }
                } } }
            }
        }
        h2 { "New configuration" }
        (editor(&visitor, "/console/configs", &form, true))
    };
    Ok(page(Some(&visitor), "Configurations", &content))
}

pub async fn show(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Markup, Fault> {
    let config = app.store.read().await?.rows().config(&name).await?;
    let config = config.ok_or_else(|| Fault::missing("config not found"))?;
    let form = forms::Config {
        version: Version::of_config(&app, &config).tag(),
        config: shown(&config)?,
        ..forms::Config::default()
    };
    let path = format!("/console/configs/{name}");
    let content = html! {
        h1 { "Configuration " (name) }
        (editor(&visitor, &path, &form, false))
        form method="post" action={ (path) "/remove" } {
            (token(&visitor)) (version(&form.version))
            button.plain { "Remove it" }
        }
        p.muted { "A configuration that a satellite has cannot be removed." }
    };
    Ok(page(Some(&visitor), &name, &content))
}

fn editor(visitor: &Visitor, path: &str, form: &forms::Config, is_new: bool) -> Markup {
    html! {
        form method="post" action=(path) {
            (token(visitor)) (version(&form.version))
            @if is_new {
                label {
                    "Name"
                    input name="name" value=(form.name) required pattern="[a-z0-9][a-z0-9._\\-]*";
                }
            }
            label {
                "JSON; " (mask::MASK) " stands for a secret that is kept"
                textarea name="config" spellcheck="false" { (form.config) }
            }
            button { "Save" }
        }
    }
}

pub async fn create(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(form): Form<forms::Config>,
) -> Result<Response, Fault> {
    let name = form.name.trim().to_owned();
    save_as(&app, &visitor, &name, ("/console/configs", &Expected::Absent), &form).await
}

pub async fn save(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Config>,
) -> Result<Response, Fault> {
    let path = format!("/console/configs/{name}");
    save_as(&app, &visitor, &name, (&path, &Expected::shown(&form.version)), &form).await
}

async fn save_as(
    app: &App,
    visitor: &Visitor,
    name: &str,
    (path, expected): (&str, &Expected),
    form: &forms::Config,
) -> Result<Response, Fault> {
    visitor.check_editor(&form.form_token)?;
    let read = serde_json::from_str::<Value>(&form.config);
    let saved = match read {
        Ok(value) => put_config(app, visitor.actor(), expected, name, value).await,
        // The parser's own words quote nothing of the text.
        Err(error) => Err(Fault::bad(format!(
            "line {}, column {}: expected JSON",
            error.line(),
            error.column()
        ))),
    };
    match saved {
        Ok(()) => Ok(Redirect::to(&format!("/console/configs/{name}")).into_response()),
        // What was typed is not lost.
        Err(fault) if KEPT.contains(&fault.status) => {
            let content = html! {
                h1 { "Configuration " (name) }
                p.problem role="alert" { (fault.message) }
                (editor(visitor, path, form, path == "/console/configs"))
            };
            Ok((fault.status, page(Some(visitor), "Configuration", &content)).into_response())
        }
        Err(fault) => Err(fault),
    }
}

pub async fn remove(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Act>,
) -> Result<Redirect, Fault> {
    visitor.check_editor(&form.form_token)?;
    remove_config(&app, visitor.actor(), &Expected::shown(&form.version), &name).await?;
    Ok(Redirect::to("/console/configs"))
}

/// As people may see it.
fn shown(config: &Config) -> Result<String, Fault> {
    let failed = |error: serde_json::Error| Fault::internal("a stored config", &error);
    let mut value: Value = serde_json::from_str(&config.config).map_err(failed)?;
    mask::hide(&mut value);
    serde_json::to_string_pretty(&value).map_err(failed)
}

const KEPT: [StatusCode; 3] =
    [StatusCode::BAD_REQUEST, StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED];
/// To begin with.
const NEW: &str = r#"{
  "app_config": {
    "state_replication_interval": "@every 00h05m00s",
    "heartbeat_interval": "@every 00h05m00s"
  }
}"#;
