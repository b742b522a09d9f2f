//! Real satellites in a fleet of the real server, with images from the real docker-registry.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moonlet::clock::date::rfc3339;
use serde_json::json;

use crate::harness::{Client, Database, Server, on_each_store};
use crate::registry::Registry;
use crate::satellite::{self, Satellite, wait_until};

/// A fleet with a config of short intervals.
pub fn fleet(server: &Server) -> Client {
    let admin = server.admin();
    let config = json!({ "config_name": "c1", "config": { "app_config": {
        "state_replication_interval": "@every 1s", "heartbeat_interval": "@every 1s" } } });
    admin.expect(201, "POST", "/api/configs", &config.to_string());
    admin
}

/// A fleet on SQLite with the group `g1`, which has the image `library/app:1`.
struct Fleet {
    server: Server,
    registry: Registry,
    admin: Client,
    _database: Database,
}

impl Fleet {
    fn start() -> Self {
        let database = Database::sqlite();
        let server = Server::start(&database);
        let registry = Registry::start(&database);
        let admin = fleet(&server);
        registry.push("library/app", "1", "layer one");
        set_group(&admin, &registry.url(), "g1", "library/app", "1");
        Self { server, registry, admin, _database: database }
    }
}

pub fn set_group(admin: &Client, registry: &str, group: &str, repository: &str, tag: &str) {
    let artifact = json!({ "repository": repository, "tag": [tag], "type": "IMAGE" });
    let body = json!({ "group": group, "registry": registry, "artifacts": [artifact] });
    admin.expect(200, "POST", "/api/groups/sync", &body.to_string());
}

pub fn register(admin: &Client, name: &str, groups: &[&str]) -> String {
    let body = json!({ "name": name, "groups": groups, "config_name": "c1" });
    let answer = admin.expect(200, "POST", "/api/satellites", &body.to_string());
    answer.json()["token"].as_str().unwrap().to_owned()
}

pub fn prepare(name: &str, server: &Server, token: &str) -> Satellite {
    prepare_at(name, &format!("http://{}", server.address), token)
}

/// The same at a Ground Control's URL.
pub fn prepare_at(name: &str, url: &str, token: &str) -> Satellite {
    satellite::prepare(name, |directory| {
        let text = satellite::text(directory, "1s", &[], &[]);
        format!("{text}[ground_control]\nurl = \"{url}\"\ntoken = \"{token}\"\n")
    })
}

pub fn await_image(satellite: &Satellite, repository: &str, tag: &str, status: u16) {
    let path = format!("/v2/{repository}/manifests/{tag}");
    wait_until(|| satellite.get(&path).0 == status, || format!("{path}: {}", satellite.log()));
}

#[test]
fn satellites_converge_and_outlive_their_fleet() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let registry = Registry::start(&database);
        let admin = fleet(&server);
        let digest = registry.push("library/app", "1", "layer one");
        set_group(&admin, &registry.url(), "g1", "library/app", "1");
        let names = ["edge1", "edge2"];
        let mut satellites = names.map(|name| {
            let token = register(&admin, name, &["g1"]);
            let mut satellite = prepare(&format!("members-{name}"), &server, &token);
            satellite.start_again();
            satellite
        });
        for satellite in &satellites {
            await_image(satellite, "library/app", "1", 200);
        }
        for name in names {
            let images = || admin.get(&format!("/api/satellites/{name}/images")).text();
            wait_until(|| images().contains(&digest.to_string()), images);
            let status = admin.get(&format!("/api/satellites/{name}/status")).json();
            let state = status["LatestStateDigest"]["String"].as_str().unwrap().to_owned();
            assert!(state.starts_with("sha256:"), "{status}");
        }
        // A tag that moves, a group more, and one less.
        let moved = registry.push("library/app", "1", "layer two");
        registry.push("library/more", "1", "layer three");
        set_group(&admin, &registry.url(), "g2", "library/more", "1");
        let membership = r#"{"satellite":"edge1","group":"g2"}"#;
        admin.expect(200, "POST", "/api/groups/satellite", membership);
        await_image(&satellites[0], "library/more", "1", 200);
        for satellite in &satellites {
            let path = format!("/v2/library/app/manifests/{moved}");
            wait_until(|| satellite.get(&path).0 == 200, || satellite.log());
        }
        assert_eq!(satellites[1].get("/v2/library/more/manifests/1").0, 404);
        admin.expect(200, "DELETE", "/api/groups/satellite", membership);
        await_image(&satellites[0], "library/more", "1", 404);
        // Both gone, and the power too.
        drop(registry);
        server.kill();
        for satellite in &mut satellites {
            satellite.kill();
            satellite.start_again();
            assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
        }
    });
}

/// Killed again and again while it enrols, at steps that differ from time to time: the token is
/// never spent for nothing, and the last start converges.
#[test]
fn power_loss_at_any_step_of_the_enrolment_strands_nothing() {
    let fleet = Fleet::start();
    let Fleet { server, admin, .. } = &fleet;
    let token = register(admin, "edge1", &["g1"]);
    let mut satellite = prepare("members-killed", server, &token);
    let mut log = String::new();
    for step in 0..KILLS {
        satellite.spawn("run");
        std::thread::sleep(Duration::from_millis(10 + 12 * step));
        satellite.kill();
        log += &satellite.log();
        std::fs::remove_file(satellite.directory.join("log")).unwrap();
    }
    satellite.start_again();
    await_image(&satellite, "library/app", "1", 200);
    log += &satellite.log();
    assert!(!log.contains("refused"), "{log}");
    let reported = || admin.get("/api/satellites/edge1/status").text();
    wait_until(|| reported().contains("all images held"), reported);
}

#[test]
fn a_deleted_satellite_serves_on_and_a_new_token_takes_it_back() {
    let fleet = Fleet::start();
    let Fleet { server, registry, admin, .. } = &fleet;
    let mut satellite = prepare("members-deleted", server, &register(admin, "edge1", &["g1"]));
    satellite.start_again();
    await_image(&satellite, "library/app", "1", 200);
    admin.expect(200, "DELETE", "/api/satellites/edge1", "");
    satellite.await_line("a new enrolment token is needed");
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
    let token = register(admin, "edge1", &["g1"]);
    let text = std::fs::read_to_string(satellite.directory.join("moonlet.toml")).unwrap();
    let (before, _) = text.split_once("token = ").unwrap();
    satellite.reload(&format!("{before}token = \"{token}\"\n"));
    satellite.await_line("enrolled at");
    registry.push("library/app", "2", "layer two");
    set_group(admin, &registry.url(), "g1", "library/app", "2");
    await_image(&satellite, "library/app", "2", 200);
}

/// A device that waits has nothing of the fleet, whatever is switched off meanwhile; it goes on by
/// itself when it was let in.
#[test]
fn a_device_waits_until_it_is_let_in() {
    on_each_store(|database| {
        let mut server = Server::start(&database);
        let registry = Registry::start(&database);
        let admin = fleet(&server);
        registry.push("library/app", "1", "layer one");
        set_group(&admin, &registry.url(), "g1", "library/app", "1");
        let batch = json!({ "name": "gate", "devices": 1, "config_name": "c1", "groups": ["g1"],
            "labels": { "site": "north" }, "approval": true });
        let batch = admin.expect(201, "POST", "/api/batches", &batch.to_string()).json();
        let mut satellite = prepare("members-waits", &server, batch["token"].as_str().unwrap());
        let key = satellite.directory.join("device.key");
        std::fs::write(&key, "a key of this device alone, and long enough").unwrap();
        let file = satellite.directory.join("moonlet.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}key_file = {key:?}\n")).unwrap();
        let waiting = |admin: &Client| admin.get("/api/waiting").json();
        for _ in 0..3 {
            satellite.start_again();
            satellite.await_line("waits for approval");
            satellite.kill();
            let address = server.address;
            server.kill();
            server = Server::start_on(&database, address);
        }
        let admin = server.admin();
        let one = waiting(&admin);
        assert_eq!(one.as_array().unwrap().len(), 1, "{one}");
        let name = one[0]["name"].as_str().unwrap();
        let device = one[0]["device"].as_str().unwrap();
        assert!(name.starts_with("gate-") && device.starts_with(&name[5..]), "{one}");
        assert!(satellite.log().contains(device), "the device says which one it is");
        assert_eq!(one[0]["labels"]["site"], "north");
        satellite.start_again();
        satellite.await_line("waits for approval");
        assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 404);
        let path = format!("/api/satellites/{name}/approve");
        admin.expect(200, "POST", &path, "");
        // Power may go between the approval and the device's next question.
        satellite.kill();
        satellite.start_again();
        await_image(&satellite, "library/app", "1", 200);
        admin.expect(409, "POST", &path, "");
        let reported = || admin.get(&format!("/api/satellites/{name}/status")).text();
        wait_until(|| reported().contains("all images held"), reported);
        assert_eq!(waiting(&admin).as_array().unwrap().len(), 0);
    });
}

/// A new tag reaches one satellite, and the other when the first holds it; one that cannot be had is
/// taken back, and what was there before stays.
#[test]
fn a_rollout_reaches_one_satellite_after_the_other() {
    let fleet = Fleet::start();
    let Fleet { server, registry, admin, .. } = &fleet;
    let satellites = ["edge1", "edge2"].map(|name| {
        let token = register(admin, name, &["g1"]);
        let mut satellite = prepare(&format!("members-rollout-{name}"), server, &token);
        satellite.start_again();
        await_image(&satellite, "library/app", "1", 200);
        satellite
    });
    let begin = |name: &str, tag: &str| {
        let artifact = json!({ "repository": "library/app", "tag": [tag], "type": "IMAGE" });
        let state = json!({ "registry": registry.url(), "artifacts": [artifact] });
        let policy = json!({ "sequence": [{ "limit": 1 }], "updateTimeout": "30s" });
        let body = json!({ "name": name, "group": "g1", "state": state, "policy": policy });
        admin.expect(201, "POST", "/api/rollouts", &body.to_string());
    };
    let phase = |name: &str| admin.get(&format!("/api/rollouts/{name}")).json()["phase"].clone();
    // There is no such tag yet.
    begin("r2", "2");
    wait_until(|| phase("r2") == "RolledBack", || phase("r2").to_string());
    for satellite in &satellites {
        await_image(satellite, "library/app", "1", 200);
    }
    assert_eq!(satellites[1].get("/v2/library/app/manifests/2").0, 404);

    registry.push("library/app", "3", "layer three");
    begin("r3", "3");
    await_image(&satellites[0], "library/app", "3", 200);
    await_image(&satellites[1], "library/app", "3", 200);
    wait_until(|| phase("r3") == "Completed", || phase("r3").to_string());
    for satellite in &satellites {
        await_image(satellite, "library/app", "1", 404);
    }
    let counts = admin.get("/api/rollouts/r3").json()["counts"].clone();
    assert_eq!((&counts[0]["updated"], &counts[1]["updated"]), (&json!(1), &json!(1)));
}

/// A staged image is fetched, hidden until its time, and served from then on though Ground Control, the
/// registry and the power went before; what stays the same is not staged. Ground Control completes
/// the rollout when it is back.
#[test]
fn what_is_staged_takes_its_place_without_a_link() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let registry = Registry::start(&database);
        let admin = fleet(&server);
        registry.push("library/same", "1", "layer of both");
        registry.push("library/app", "1", "layer one");
        let state = |tag: &str| {
            let artifacts = [("library/app", tag), ("library/same", "1")]
                .map(|(name, tag)| json!({ "repository": name, "tag": [tag], "type": "IMAGE" }));
            json!({ "group": "g1", "registry": registry.url(), "artifacts": artifacts })
        };
        admin.expect(200, "POST", "/api/groups/sync", &state("1").to_string());
        let token = register(&admin, "edge1", &["g1"]);
        let mut satellite = prepare("members-staged", &server, &token);
        satellite.start_again();
        await_image(&satellite, "library/app", "1", 200);
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        // On a busy machine the time may be over before the image is there: then with more of it.
        let staged = [8, 60, 240].into_iter().find_map(|seconds| {
            let (name, at) = (format!("r{seconds}"), now() + seconds);
            let tag = format!("after-{seconds}");
            let digest = registry.push("library/app", &tag, &format!("layer of {seconds}"));
            let policy = json!({ "activateAt": rfc3339(at), "downloadOnly": true });
            let body = json!({ "name": name, "group": "g1", "state": state(&tag),
                "policy": policy });
            admin.expect(201, "POST", "/api/rollouts", &body.to_string());
            let rollout = || admin.get(&format!("/api/rollouts/{name}")).json();
            let waits = format!("staged, activates at {}", rfc3339(at));
            let is_staged = || rollout()["waits"] == waits;
            let is_ended = || rollout()["phase"] == "Completed";
            wait_until(|| is_staged() || is_ended(), || rollout().to_string());
            if is_staged() && now() + 2 < at {
                return Some((name, tag, digest, at));
            }
            wait_until(is_ended, || rollout().to_string());
            None
        });
        let (name, tag, digest, at) = staged.expect("it is staged in four minutes");
        let address = server.address;
        server.kill();
        drop(registry);
        satellite.kill();
        satellite.start_again();
        let path = format!("/v2/library/app/manifests/{tag}");
        let is_active = || {
            let is_active = satellite.get(&path).0 == 200;
            assert!(!is_active || now() >= at, "before its time: {}", satellite.log());
            is_active
        };
        wait_until(is_active, || satellite.log());
        await_image(&satellite, "library/app", "1", 404);
        await_image(&satellite, "library/same", "1", 200);
        let server = Server::start_on(&database, address);
        let admin = server.admin();
        let rollout = || admin.get(&format!("/api/rollouts/{name}")).json();
        let shown = || admin.get("/api/satellites/edge1/state").json()["images"].clone();
        let is_ended = || rollout()["phase"] == "Completed";
        wait_until(is_ended, || format!("{} {}\n{}", rollout(), shown(), satellite.log()));
        // Its registry is away, so that it cannot say that a tag means the same still.
        // The last report of before may still count.
        let is_known = || {
            let shown = shown();
            shown[0]["digest"] == digest.to_string() && !shown.to_string().contains("staged")
        };
        wait_until(is_known, || shown().to_string());
    });
}

const KILLS: u64 = 25;
