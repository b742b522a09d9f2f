//! What is staged: fetched and kept, invisible until its time, and switched to without a link.

use std::time::{SystemTime, UNIX_EPOCH};

use moonlet::clock::date::rfc3339;
use moonlet::oci::Digest;
use serde_json::{Value, json};

use super::{Fleet, await_problem, converged, group_state, seen};
use crate::satellite::{Satellite, wait_until};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The group `g1` with the image before, and the one after from this time on.
fn stage(fleet: &Fleet, before: &Value, after: &Value, at: &str) {
    let text = json!({ "group": "g1", "artifacts": before,
        "staged": { "activateAt": at, "artifacts": after } });
    fleet.publish(&group_state("g1"), &text.to_string());
}

fn image(repository: &str, tag: &str) -> Value {
    json!({ "repository": repository, "tag": [tag] })
}

/// An image under the digest that its tag has now.
fn pinned(fleet: &Fleet, repository: &str, tag: &str) -> (Value, String) {
    let name = format!("{repository}:{tag}");
    let digest = fleet.with(|world| Digest::sha256(&world.manifests[&name])).to_string();
    (json!({ "repository": repository, "tag": [tag], "digest": digest }), digest)
}

fn state_of(satellite: &Satellite, part: &str) -> Option<Value> {
    let images = seen(satellite)["images"].as_array().unwrap().clone();
    images.into_iter().find(|image| image["reference"].as_str().unwrap().contains(part))
}

fn await_staged(satellite: &Satellite, part: &str, reason: &str) {
    let is_staged = || {
        state_of(satellite, part).is_some_and(|image| {
            image["state"] == "staged" && image["error"].as_str().unwrap().contains(reason)
        })
    };
    wait_until(is_staged, || format!("{part}: {}\n{}", seen(satellite), satellite.log()));
}

fn digest_of(satellite: &Satellite, path: &str) -> Option<String> {
    let (status, body) = satellite.get(path);
    (status == 200).then(|| Digest::sha256(&body).to_string())
}

#[test]
fn what_is_staged_is_hidden_and_kept_until_its_time_and_needs_no_link_then() {
    let (fleet, _registry, mut satellite) = converged("fleet-staged");
    let (one, two) = ("/v2/library/app/manifests/1", "/v2/library/app/manifests/2");
    fleet.push("library/app", "2", b"layer two");
    let (before, after) = (json!([image("library/app", "1")]), json!([image("library/app", "2")]));
    stage(&fleet, &before, &after, "");
    await_staged(&satellite, "app:2", "waits for its activation");
    stage(&fleet, &before, &after, "2099-01-01T00:00:00Z");
    await_staged(&satellite, "app:2", "activates at 2099-01-01T00:00:00Z");
    let hidden = |satellite: &Satellite| {
        assert_eq!((satellite.get(one).0, satellite.get(two).0), (200, 404));
        for tag in ["staged:2", "staged%3A2"] {
            let path = format!("/v2/library/app/manifests/{tag}");
            assert_eq!(satellite.get(&path).0, 400, "{path}");
        }
        let (_, tags) = satellite.get("/v2/library/app/tags/list");
        let tags: Value = serde_json::from_slice(&tags).unwrap();
        assert_eq!(tags["tags"], json!(["1"]));
        let layer = Digest::sha256(b"layer two");
        assert_eq!(satellite.get(&format!("/v2/library/app/blobs/{layer}")).0, 200, "it is held");
        assert_eq!(seen(satellite)["store"]["cached_bytes"], 0, "neither may be evicted");
    };
    hidden(&satellite);
    let reported = || {
        let report = fleet.with(|world| world.reports.last().cloned().unwrap());
        let images = report.moonlet.unwrap().images;
        let staged = images.iter().any(|image| image.state == "staged" && !image.digest.is_empty());
        staged && report.cached_images.len() == 1
    };
    wait_until(reported, || satellite.log());
    // No power, and no network any more.
    fleet.with(|world| world.is_away = true);
    satellite.kill();
    satellite.start_again();
    await_problem(&satellite, "desired state");
    hidden(&satellite);
    // The time is set, and the network goes again before it has come.
    fleet.with(|world| world.is_away = false);
    let at = now() + 5;
    stage(&fleet, &before, &after, &rfc3339(at));
    let is_known = || {
        let known = state_of(&satellite, "app:2").unwrap_or_default();
        known["state"] == "held" || known.to_string().contains(&rfc3339(at))
    };
    wait_until(is_known, || satellite.log());
    fleet.with(|world| world.is_away = true);
    satellite.kill();
    satellite.start_again();
    let is_active = || {
        let is_active = satellite.get(two).0 == 200;
        assert!(!is_active || now() >= at, "before its time");
        is_active
    };
    wait_until(is_active, || satellite.log());
    let is_gone = || satellite.get(one).0 == 404;
    wait_until(is_gone, || format!("the old image goes afterwards: {}", satellite.log()));
    satellite.kill();
    satellite.start_again();
    assert_eq!(satellite.get(two).0, 200);
    // Power may go before the removal is durable.
    let is_gone = || satellite.get(one).0 == 404;
    wait_until(is_gone, || format!("it goes again: {}", satellite.log()));
    await_problem(&satellite, "desired state");
    assert_eq!((satellite.get(one).0, satellite.get(two).0), (404, 200));
}

#[test]
fn power_may_go_at_every_step_of_a_switch() {
    let (fleet, _registry, mut satellite) = converged("fleet-switch");
    for round in 0..2 {
        let (before, old) = pinned(&fleet, "library/app", "1");
        fleet.push("library/app", "1", format!("layer of round {round}").as_bytes());
        let (after, new) = pinned(&fleet, "library/app", "1");
        stage(&fleet, &json!([before]), &json!([after]), "");
        await_staged(&satellite, &new, "waits for its activation");
        let path = "/v2/library/app/manifests/1";
        assert_eq!(digest_of(&satellite, path), Some(old));
        stage(&fleet, &json!([before]), &json!([after]), &rfc3339(now() - 1));
        let is_new = || digest_of(&satellite, path).as_ref() == Some(&new);
        match round {
            0 => drop(satellite.await_line("what was staged is desired now")),
            // The switch, or a pass that was under way then, moves the tag.
            _ => wait_until(is_new, || satellite.log()),
        }
        fleet.with(|world| world.is_away = true);
        satellite.kill();
        satellite.start_again();
        let is_new = || digest_of(&satellite, path).as_ref() == Some(&new);
        wait_until(is_new, || satellite.log());
        fleet.with(|world| world.is_away = false);
        // What Ground Control says when it has caught up changes nothing.
        let text = json!({ "group": "g1", "artifacts": [after] });
        fleet.publish(&group_state("g1"), &text.to_string());
        let is_held = || state_of(&satellite, &new).is_some_and(|image| image["state"] == "held");
        wait_until(is_held, || satellite.log());
        assert_eq!(digest_of(&satellite, path), Some(new.clone()));
    }
}

#[test]
fn what_is_staged_no_more_goes() {
    let (fleet, _registry, satellite) = converged("fleet-unstaged");
    fleet.push("library/app", "2", b"layer two");
    let (before, after) = (json!([image("library/app", "1")]), json!([image("library/app", "2")]));
    stage(&fleet, &before, &after, "2099-01-01T00:00:00Z");
    await_staged(&satellite, "app:2", "2099");
    fleet.set_group("g1", "library/app", "1");
    wait_until(|| state_of(&satellite, "app:2").is_none(), || satellite.log());
    let cached = || seen(&satellite)["store"]["cached_bytes"].as_u64().unwrap();
    wait_until(|| cached() > 0, || format!("it may be evicted: {}", satellite.log()));
    // A time that is none leaves what was known.
    stage(&fleet, &before, &after, "tomorrow");
    await_problem(&satellite, "expected a time such as 2026");
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
}
