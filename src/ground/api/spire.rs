//! Go's way to register satellites that are attested by SPIRE, answered as Go's Ground Control
//! answers without one: what is asked is checked, and then it is said that there is no SPIRE server.
//!
//! An SVID enrols here without that: add the satellite, and let `--client-ca` name the authority.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, SystemAdmin, check_name};
use crate::fleet::shown;
use crate::ground::fault::Fault;

/// The body of `POST /api/satellites/register`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Registration {
    satellite_name: String,
    selectors: Vec<String>,
    attestation_method: String,
    parent_agent_id: String,
}

impl Registration {
    fn check(&self) -> Result<(), Fault> {
        if self.satellite_name.is_empty() {
            return Err(Fault::bad("satellite_name is required"));
        }
        check_name("satellite_name", &self.satellite_name, &[])?;
        if self.selectors.is_empty() {
            return Err(Fault::bad("selectors is required"));
        }
        if let Some(wrong) = self.selectors.iter().find(|selector| !selector.contains(':')) {
            let wrong = shown(wrong);
            return Err(Fault::bad(format!("invalid selector format {wrong}: must contain ':'")));
        }
        match self.attestation_method.as_str() {
            "join_token" | "x509pop" => Ok(()),
            "sshpop" if self.parent_agent_id.is_empty() => {
                Err(Fault::bad("parent_agent_id is required for sshpop attestation"))
            }
            "sshpop" => Ok(()),
            _ => Err(Fault::bad("attestation_method must be one of: join_token, x509pop, sshpop")),
        }
    }
}

pub async fn register(
    _: SystemAdmin,
    Body(body): Body<Registration>,
) -> Result<Json<Value>, Fault> {
    body.check()?;
    Err(absent())
}

pub async fn status(_: SystemAdmin) -> Json<Value> {
    Json(json!({ "enabled": false, "connected": false }))
}

pub async fn agents(_: SystemAdmin) -> Result<Json<Value>, Fault> {
    Err(absent())
}

fn absent() -> Fault {
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "SPIRE server not configured")
}
