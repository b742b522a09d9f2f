//! A remote configuration that changes a way: it stays when all is seen to work, and goes by itself
//! when not. What is held is served all the while.

use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::{Fleet, await_problem, converged, seen};
use crate::fn_registry::FnRegistry;
use crate::harness::free_port;
use crate::satellite::{Satellite, get, wait_until};

const CONFIG: &str = "satellite/config-state/c1/state";
const APP: &str = "/v2/library/app/manifests/1";

/// Publishes a config with this beside its intervals.
fn publish(fleet: &Fleet, app: Value, moonlet: Value) {
    let mut settings = json!({ "heartbeat_interval": "@every 1s",
        "state_replication_interval": "@every 1s" });
    settings.as_object_mut().unwrap().extend(app.as_object().unwrap().clone());
    let text = json!({ "app_config": settings, "moonlet": moonlet });
    fleet.publish(CONFIG, &text.to_string());
}

/// The digest of the config that the last report names, and its problems.
fn reported(fleet: &Fleet) -> (String, String) {
    fleet.with(|world| {
        let report = world.reports.last().unwrap();
        let problems = report.moonlet.as_ref().unwrap().problems.join("\n");
        (report.latest_config_digest.clone(), problems)
    })
}

fn await_reported(fleet: &Fleet, satellite: &Satellite, part: &str) {
    let is_said = || reported(fleet).1.contains(part);
    wait_until(is_said, || format!("{part}: {:?}\n{}", reported(fleet), satellite.log()));
}

fn await_adopted(fleet: &Fleet, satellite: &Satellite, before: &str) {
    satellite.await_line("the configuration that came works, and stays");
    let is_named = || reported(fleet).0 != before && reported(fleet).1.is_empty();
    wait_until(is_named, || format!("{:?}\n{}", reported(fleet), satellite.log()));
}

#[test]
fn an_address_that_cannot_be_had_is_given_up_and_one_that_can_is_kept() {
    let (fleet, registry, mut satellite) = converged("trial-listen");
    wait_until(|| fleet.with(|world| !world.reports.is_empty()), || satellite.log());
    let good = reported(&fleet).0;
    // The port is the registry's.
    let taken = registry.address.to_string();
    let listen = json!({ "listen": [taken], "rollback_after": "@every 2s" });
    publish(&fleet, json!({}), listen.clone());
    satellite.await_line("is on trial for 2s");
    assert_eq!(satellite.get(APP).0, 200, "the address before is kept meanwhile");
    let why = format!("was rolled back: after 2s, listen on {taken}: address already in use");
    await_reported(&fleet, &satellite, &why);
    assert_eq!(reported(&fleet).0, good, "this is what is in effect");
    assert_eq!(satellite.get(APP).0, 200);

    // It is known for what it is, without a body and after a restart, for as long as it stays so.
    let (heads, gets) = (registry.count("HEAD", CONFIG), registry.count("GET", CONFIG));
    wait_until(|| registry.count("HEAD", CONFIG) > heads + 2, || satellite.log());
    assert_eq!(registry.count("GET", CONFIG), gets);
    satellite.kill();
    satellite.start_again();
    let begun = satellite.log().len();
    let heads = registry.count("HEAD", CONFIG);
    wait_until(|| registry.count("HEAD", CONFIG) > heads + 2, || satellite.log());
    await_problem(&satellite, &why);
    assert!(!satellite.log()[begun..].contains("on trial"), "{}", satellite.log());

    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = json!({ "listen": [free], "rollback_after": "@every 00h10m00s" });
    publish(&fleet, json!({}), listen);
    await_adopted(&fleet, &satellite, &good);
    assert_eq!(get(&free.to_string(), APP, "").0, 200);
    let is_left = || TcpStream::connect(&satellite.served).is_err();
    wait_until(is_left, || format!("{} is listened on still", satellite.served));
    satellite.kill();
    satellite.spawn("run");
    wait_until(|| TcpStream::connect(free).is_ok(), || satellite.log());

    // A network is faced by leave of the satellite's own file only.
    let wide = format!("0.0.0.0:{}", free_port());
    publish(&fleet, json!({}), json!({ "listen": [wide], "rollback_after": "@every 1s" }));
    await_reported(&fleet, &satellite, &format!("listen on {wide}: expected a loopback address"));
}

#[test]
fn ground_control_moves_only_to_where_it_answers() {
    let (fleet, registry, satellite) = converged("trial-moved");
    wait_until(|| fleet.with(|world| !world.reports.is_empty()), || satellite.log());
    let good = reported(&fleet).0;
    let dead = format!("http://127.0.0.1:{}", free_port());
    let soon = json!({ "rollback_after": "@every 3s" });
    publish(&fleet, json!({ "ground_control_url": dead }), soon);
    await_reported(&fleet, &satellite, "was rolled back: after 3s, the state could not be read");
    await_reported(&fleet, &satellite, "connection refused");
    assert_eq!(reported(&fleet).0, good);
    // The same address, written in another way, is no change.
    publish(&fleet, json!({ "ground_control_url": format!("{}/", registry.url()) }), json!({}));
    wait_until(|| reported(&fleet).0 != good, || satellite.log());
    assert_eq!(satellite.log().matches("is on trial").count(), 1, "{}", satellite.log());

    let answering = fleet.clone();
    let moved = FnRegistry::start(move |asked| answering.with(|world| world.answer(asked)));
    let before = reported(&fleet).0;
    publish(&fleet, json!({ "ground_control_url": moved.url() }), json!({}));
    await_adopted(&fleet, &satellite, &before);
    let count = registry.count("POST", "/satellites/sync");
    let moved_to = || moved.count("POST", "/satellites/sync");
    let start = moved_to();
    wait_until(|| moved_to() > start + 2, || satellite.log());
    assert_eq!(registry.count("POST", "/satellites/sync"), count);
    assert!(moved.count("HEAD", "satellite-state") > 0);
}

#[test]
fn a_trial_goes_on_after_power_was_lost() {
    let (fleet, _registry, mut satellite) = converged("trial-power");
    wait_until(|| fleet.with(|world| !world.reports.is_empty()), || satellite.log());
    let good = reported(&fleet).0;
    let proxy = format!("http://127.0.0.1:{}", free_port());
    let dead = |after: &str| json!({ "proxy": proxy, "rollback_after": after });
    publish(&fleet, json!({}), dead("@every 4s"));
    satellite.await_line("is on trial for 4s");
    satellite.kill();
    satellite.start_again();
    satellite.await_line("is on trial for 4s");
    await_reported(&fleet, &satellite, "was rolled back: after 4s, the state could not be read");
    assert_eq!(reported(&fleet).0, good);
    assert_eq!(satellite.get(APP).0, 200);

    // One that ends the program each time would never come to its end.
    publish(&fleet, json!({}), dead("@every 01h00m00s"));
    for _ in 0..3 {
        satellite.await_line("is on trial for 3600s");
        satellite.kill();
        satellite.start_again();
    }
    await_reported(&fleet, &satellite, "was rolled back: 3 starts and no end of its trial");
    assert_eq!(seen(&satellite)["images"].as_array().unwrap().len(), 1);
}
