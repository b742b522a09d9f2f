//! A real satellite of this fleet: what it makes of a configuration that would cut it off.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::common::relay::Relay;
use crate::common::{free_port, wait_until};
use crate::harness::{Client, Database, Server};
use crate::registry::Registry;
use crate::satellite::{self, Satellite};

/// Makes the config `c1` of this beside short intervals.
fn config(app: Value, moonlet: Value) -> String {
    let mut settings = json!({ "heartbeat_interval": "@every 00h00m01s",
        "state_replication_interval": "@every 00h00m01s" });
    settings.as_object_mut().unwrap().extend(app.as_object().unwrap().clone());
    let config = json!({ "app_config": settings, "moonlet": moonlet });
    json!({ "config_name": "c1", "config": config }).to_string()
}

/// A satellite `edge1` that has enrolled and holds what its group has.
fn joined(name: &str, admin: &Client, url: &str, registry: &Registry) -> Satellite {
    registry.push("app", "1", "layer one");
    admin.expect(201, "POST", "/api/configs", &config(json!({}), json!({})));
    let group = json!({ "group": "g1", "registry": registry.url(), "platforms": ["linux/amd64"],
        "artifacts": [{ "repository": "app", "tag": ["1"] }] });
    admin.expect(200, "POST", "/api/groups/sync", &group.to_string());
    let body = r#"{"name":"edge1","groups":["g1"],"config_name":"c1"}"#;
    let answer = admin.expect(200, "POST", "/api/satellites", body).json();
    let token = answer["token"].as_str().unwrap();
    let mut device = satellite::prepare(name, |directory| {
        let text = satellite::text(directory, "1s", &[], &[]);
        format!("{text}[ground_control]\nurl = \"{url}\"\ntoken = \"{token}\"\n")
    });
    device.start_again();
    device.await_held();
    device
}

fn await_state(admin: &Client, device: &Satellite, is_so: impl Fn(&Value) -> bool) -> Value {
    let state = || admin.get("/api/satellites/edge1/state").json();
    wait_until(|| is_so(&state()), || format!("{}\n{}", state(), device.log()));
    state()
}

#[test]
fn a_config_that_leads_to_a_dead_link_rolls_back_and_ground_control_shows_why() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let registry = Registry::start(&database);
    let (admin, url) = (server.admin(), format!("http://{}", server.address));
    let mut device = joined("dead-link", &admin, &url, &registry);
    await_state(&admin, &device, |state| state["updated"] == "UpToDate");
    let change = |app: Value, moonlet: Value| {
        let body: Value = serde_json::from_str(&config(app, moonlet)).unwrap();
        admin.expect(200, "PATCH", "/api/configs/c1", &body["config"].to_string());
    };
    let proxy = format!("http://127.0.0.1:{}", free_port());
    change(json!({}), json!({ "proxy": proxy, "rollback_after": "@every 00h00m03s" }));
    let state = await_state(&admin, &device, |state| {
        state.to_string().contains("was rolled back: after 3s, the state could not be read")
    });
    assert!(state.to_string().contains("connection refused"), "{state}");
    assert_eq!(state["health"], "Degraded", "{state}");
    assert_eq!(device.get("/v2/app/manifests/1").0, 200);
    // It works on without that configuration: a new image comes, also after a restart.
    device.kill();
    device.start_again();
    registry.push("app", "1", "layer two");
    let digest = registry.push("app", "1", "layer two").to_string();
    await_state(&admin, &device, |state| {
        state["images"][0]["digest"] == digest.as_str() && state.to_string().contains("rolled back")
    });
    // Corrected, it is taken.
    change(json!({}), json!({ "proxy": null, "rollback_after": null }));
    await_state(&admin, &device, |state| {
        state["updated"] == "UpToDate" && state["health"] == "Healthy"
    });
}

/// The state is read through a relay that counts, as it lies on a metered link.
#[test]
fn an_unchanged_poll_costs_one_kibibyte_at_most() {
    let database = Database::sqlite();
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let relay = Relay::start(listen);
    let server = Server::start_with(&database, listen, &[("URL", &relay.url())]);
    let registry = Registry::start(&database);
    let admin = server.admin();
    let device = joined("wire", &admin, &relay.url(), &registry);
    // Reports cost what they say; polls are what is counted here.
    let rarely = json!({ "app_config": { "heartbeat_interval": "@every 12h00m00s" } });
    admin.expect(200, "PATCH", "/api/configs/c1", &rarely.to_string());
    await_state(&admin, &device, |state| {
        state["config_digest"]["desired"] == state["config_digest"]["reported"]
    });
    let state = format!("HEAD {}/v2/satellite/satellite-state/edge1/state", relay.url());
    let asked = |part: &str| device.log().matches(part).count();
    let polls = || asked(&state);
    let start = polls();
    wait_until(|| polls() > start + 2, || device.log());
    let (before, bytes) = (polls(), relay.bytes());
    wait_until(|| polls() > before + 10, || device.log());
    let each = (relay.bytes() - bytes) / u64::try_from(polls() - before).unwrap();
    println!("an unchanged poll: {each} bytes on the wire, HTTP without TLS");
    assert!(each > 0 && each <= 1024, "{each} bytes for an unchanged poll\n{}", device.log());

    // One look says that all is as it was, and is not fooled by what is changed below it.
    registry.push("app", "2", "layer two");
    let group = json!({ "group": "g1", "registry": registry.url(), "platforms": ["linux/amd64"],
        "artifacts": [{ "repository": "app", "tag": ["2"] }] });
    admin.expect(200, "POST", "/api/groups/sync", &group.to_string());
    wait_until(|| device.get("/v2/app/manifests/2").0 == 200, || device.log());
}
