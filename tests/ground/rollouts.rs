//! Rollouts: batch after batch, by rule, and whatever is interrupted goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{CONFIG, Client, Database, Psql, Satellite, Server, on_each_store};

/// A fleet of the group `web`, which has `app:1`, and satellites with the label `ring`.
struct Fleet {
    server: Server,
    admin: Client,
    satellites: Vec<(String, Satellite)>,
}

fn state(tag: &str) -> Value {
    json!({ "registry": "http://127.0.0.1:5000",
        "artifacts": [{ "repository": "app", "tag": [tag], "type": "IMAGE" }] })
}

impl Fleet {
    fn start(database: &Database, names: &[&str]) -> Self {
        let server = Server::start(database);
        let admin = server.admin();
        admin.expect(201, "POST", "/api/configs", CONFIG);
        let mut group = state("1");
        group["group"] = json!("web");
        admin.expect(200, "POST", "/api/groups/sync", &group.to_string());
        let mut fleet = Self { server, admin, satellites: Vec::new() };
        for name in names {
            fleet.add(name);
        }
        fleet
    }

    fn add(&mut self, name: &str) {
        let ring = name.split('-').next().unwrap();
        let body = json!({ "name": name, "groups": ["web"], "config_name": "c1",
            "labels": { "ring": ring, "site": "north" } });
        let answer = self.admin.expect(200, "POST", "/api/satellites", &body.to_string());
        let body = json!({ "token": answer.json()["token"] }).to_string();
        let answer = self.server.anyone().expect(200, "POST", "/satellites/ztr", &body);
        self.satellites.push((name.to_owned(), Satellite::from_answer(&answer)));
        self.report(name, "1", "held");
    }

    fn satellite(&self, name: &str) -> &Satellite {
        &self.satellites.iter().find(|(known, _)| known == name).unwrap().1
    }

    /// The URL of the group's state that a satellite is given, and the tag that is there.
    fn given(&self, name: &str) -> (String, String) {
        let satellite = self.satellite(name);
        let (_, own) = satellite.read(&self.server, &satellite.state).unwrap();
        let url = own["states"][0].as_str().unwrap().to_owned();
        let (_, group) = satellite.read(&self.server, &url).unwrap();
        (url, group["artifacts"][0]["tag"][0].as_str().unwrap().to_owned())
    }

    /// A Moonlet's report: it has applied what is published, and this is its image.
    fn report(&self, name: &str, tag: &str, word: &str) {
        self.report_images(name, &[(tag, word)]);
    }

    fn report_images(&self, name: &str, images: &[(&str, &str)]) {
        let satellite = self.satellite(name);
        let (digest, _) = satellite.read(&self.server, &satellite.state).unwrap();
        let images = images.iter().map(|(tag, word)| {
            json!({ "reference": format!("127.0.0.1:5000/app:{tag}"), "state": word,
                "reason": if *word == "failed" { "no such image" } else { "" } })
        });
        let report = json!({
            "state_report_interval": "@every 00h10m00s", "latest_state_digest": digest,
            "moonlet": { "version": "9.9", "images": images.collect::<Value>() },
        });
        satellite.client(&self.server).expect(200, "POST", "/satellites/sync", &report.to_string());
    }

    fn begin(&self, name: &str, tag: &str, policy: &Value) {
        let body = json!({ "name": name, "group": "web", "state": state(tag), "policy": policy });
        self.admin.expect(201, "POST", "/api/rollouts", &body.to_string());
    }

    fn rollout(&self, name: &str) -> Value {
        self.admin.get(&format!("/api/rollouts/{name}")).json()
    }

    fn act(&self, status: u16, name: &str, action: &str) -> Value {
        let path = format!("/api/rollouts/{name}/{action}");
        self.admin.expect(status, "POST", &path, "").json()
    }

    fn await_that(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let rollout = self.rollout(name);
            if is_so(&rollout) {
                return rollout;
            }
            assert!(Instant::now() < deadline, "{rollout}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn await_phase(&self, name: &str, phase: &str) -> Value {
        self.await_that(name, |rollout| rollout["phase"] == phase)
    }

    /// Waits until this many of a batch have the new state.
    fn await_released(&self, name: &str, batch: usize, count: u64) {
        self.await_that(name, |rollout| {
            let counts = &rollout["counts"][batch - 1];
            let sum = ["offline", "updating", "updated", "failed"].iter();
            let sum: u64 = sum.map(|word| counts[*word].as_u64().unwrap_or(0)).sum();
            rollout["batch"] == batch && sum == count && counts["waiting"] == 0
        });
    }

    fn events(&self, kind: &str) -> usize {
        let events = self.admin.get("/api/events?limit=1000").json();
        events.as_array().unwrap().iter().filter(|event| event["kind"] == kind).count()
    }
}

#[test]
fn a_state_reaches_batch_after_batch() {
    on_each_store(|database| {
        let names = ["canary-1", "rest-1", "rest-2"];
        let fleet = Fleet::start(&database, &names);
        let (old, _) = fleet.given("canary-1");
        fleet.begin("web-2", "2", &json!({ "sequence": [{ "selector": "ring=canary" }] }));
        fleet.await_released("web-2", 1, 1);
        assert_eq!(fleet.given("canary-1").1, "2");
        assert_ne!(fleet.given("canary-1").0, old);
        for name in ["rest-1", "rest-2"] {
            assert_eq!(fleet.given(name), (old.clone(), "1".to_owned()));
        }
        // What is desired is compared with the version that each is on.
        let row = |name: &str| {
            let state = fleet.admin.get(&format!("/api/satellites/{name}/state")).json();
            (state["updated"].clone(), state["images"][0]["reference"].clone())
        };
        assert_eq!(row("canary-1"), (json!("OutOfDate"), json!("127.0.0.1:5000/app:2")));
        assert_eq!(row("rest-1"), (json!("UpToDate"), json!("127.0.0.1:5000/app:1")));
        // The group is the rollout's.
        let mut group = state("3");
        group["group"] = json!("web");
        let refused = fleet.admin.expect(409, "POST", "/api/groups/sync", &group.to_string());
        assert!(refused.text().contains("web-2"), "{}", refused.text());
        fleet.admin.expect(409, "DELETE", "/api/groups/web", "");
        let body = json!({ "name": "web-3", "group": "web", "state": state("3") }).to_string();
        fleet.admin.expect(409, "POST", "/api/rollouts", &body);

        fleet.report("canary-1", "2", "syncing");
        assert_eq!(fleet.rollout("web-2")["counts"][0]["updating"], 1);
        fleet.report("canary-1", "2", "held");
        fleet.await_released("web-2", 2, 2);
        assert_eq!(fleet.given("rest-1").1, "2");
        fleet.report("rest-1", "2", "held");
        fleet.report("rest-2", "2", "held");
        let rollout = fleet.await_phase("web-2", "Completed");
        assert_eq!(rollout["counts"][1]["updated"], 2);
        let shown = fleet.admin.get("/api/groups/web").json();
        assert_eq!(shown["Artifacts"][0]["tag"], json!(["2"]));
        // Who holds it needs not read it again, and a change of it goes on where it is.
        let (url, _) = fleet.given("rest-1");
        assert_eq!(row("rest-1").0, "UpToDate");
        fleet.admin.expect(200, "POST", "/api/groups/sync", &group.to_string());
        assert_eq!(fleet.given("rest-1"), (url, "3".to_owned()));
        assert_eq!(fleet.events("rollout_completed"), 1);
        assert_eq!(fleet.events("rollout_batch"), 2);
        let metrics = fleet.admin.get("/metrics").text();
        assert!(metrics.contains("ground_control_rollouts{phase=\"completed\"} 1"), "{metrics}");
        fleet.admin.expect(200, "DELETE", "/api/groups/web", "");
        fleet.admin.expect(404, "GET", "/api/rollouts/web-2", "");
    });
}

#[test]
fn what_fails_is_taken_back() {
    on_each_store(|database| {
        let fleet = Fleet::start(&database, &["canary-1", "canary-2", "rest-1"]);
        let (old, _) = fleet.given("canary-1");
        let policy = json!({ "sequence": [{ "selector": "ring=canary" }], "updateTimeout": "10s" });
        fleet.begin("web-2", "2", &policy);
        fleet.await_released("web-2", 1, 2);
        fleet.report("canary-1", "2", "failed");
        let rollout = fleet.await_phase("web-2", "RolledBack");
        let reason = "batch 1: 1 of 2 failed, which reaches 50%";
        assert_eq!(rollout["reason"], reason);
        for name in ["canary-1", "canary-2", "rest-1"] {
            assert_eq!(fleet.given(name), (old.clone(), "1".to_owned()), "{name}");
        }
        // One that lists what was taken back is not yet done.
        fleet.report("canary-1", "2", "held");
        let state = fleet.admin.get("/api/satellites/canary-1/state").json();
        assert_ne!(state["updated"], "UpToDate", "{state}");
        let members = fleet.admin.get("/api/rollouts/web-2/satellites").json();
        assert_eq!(members[0]["satellite"], "canary-1");
        assert!(members[0]["reason"].as_str().unwrap().contains("no such image"), "{members}");
        assert_eq!((fleet.events("rollout_failed"), fleet.events("rollout_withdrawn")), (1, 1));
        // The way is free for the next.
        fleet.begin("web-3", "3", &json!({}));
        fleet.await_released("web-3", 1, 3);
        fleet.act(409, "web-3", "approve");
        fleet.act(200, "web-3", "abort");
        fleet.await_phase("web-3", "Aborted");
        assert_eq!(fleet.given("rest-1"), (old, "1".to_owned()));
    });
}

#[test]
fn what_is_staged_waits_on_all_for_its_time() {
    on_each_store(|database| {
        let fleet = Fleet::start(&database, &["canary-1", "rest-1"]);
        let (old, _) = fleet.given("canary-1");
        let staged = |name: &str| {
            let (url, tag) = fleet.given(name);
            let (_, group) = fleet.satellite(name).read(&fleet.server, &url).unwrap();
            (tag, group["staged"].clone())
        };
        let at = "2099-01-01T00:00:00Z";
        let sequence = json!([{ "selector": "ring=canary" }]);
        fleet.begin("web-2", "2", &json!({ "sequence": sequence, "activateAt": at }));
        fleet.await_released("web-2", 1, 1);
        let (tag, next) = staged("canary-1");
        assert_eq!((tag.as_str(), &next["activateAt"]), ("1", &json!(at)));
        assert_eq!(next["artifacts"][0]["tag"], json!(["2"]));
        assert_eq!(fleet.given("rest-1").0, old);
        // Held under its tag it would be there too early; what was before has to be held as well.
        fleet.report_images("canary-1", &[("1", "held")]);
        let state = fleet.admin.get("/api/satellites/canary-1/state").json();
        assert_ne!(state["updated"], "UpToDate", "{state}");
        fleet.report_images("canary-1", &[("1", "held"), ("2", "staged")]);
        let state = fleet.admin.get("/api/satellites/canary-1/state").json();
        assert_eq!(state["updated"], "UpToDate", "{state}");
        fleet.await_released("web-2", 2, 1);
        fleet.report_images("rest-1", &[("1", "held"), ("2", "staged")]);
        let waits = format!("staged, activates at {at}");
        let rollout = fleet.await_that("web-2", |rollout| rollout["waits"] == waits);
        assert_eq!(rollout["phase"], "Running");
        fleet.act(200, "web-2", "abort");
        fleet.await_phase("web-2", "Aborted");
        assert_eq!(fleet.given("canary-1"), (old, "1".to_owned()));

        fleet.begin("web-3", "2", &json!({ "downloadOnly": true }));
        fleet.await_released("web-3", 1, 2);
        assert_eq!(staged("rest-1").1.get("activateAt"), None);
        for name in ["canary-1", "rest-1"] {
            fleet.report_images(name, &[("1", "held"), ("2", "staged")]);
        }
        let rollout = fleet.await_phase("web-3", "AwaitingApproval");
        let reason = "the new images are staged: approval activates them";
        assert_eq!(rollout["reason"], reason);
        fleet.act(200, "web-3", "approve");
        fleet.await_phase("web-3", "Completed");
        assert_eq!(staged("rest-1"), ("2".to_owned(), Value::Null));
        // A time that has passed is none to wait for.
        let past = json!({ "activateAt": "2020-01-01T00:00:00Z" });
        fleet.begin("web-4", "4", &past);
        fleet.await_released("web-4", 1, 2);
        assert_eq!(staged("rest-1"), ("4".to_owned(), Value::Null));
    });
}

#[test]
fn people_pause_approve_and_decide() {
    on_each_store(|database| {
        let fleet = Fleet::start(&database, &["canary-1", "rest-1", "rest-2"]);
        let policy = json!({ "sequence": [{ "limit": 1 }], "approval": "manual",
            "errorThreshold": "100%", "updateTimeout": "10s" });
        fleet.begin("web-2", "2", &policy);
        fleet.await_released("web-2", 1, 1);
        fleet.act(200, "web-2", "pause");
        fleet.report("canary-1", "2", "held");
        assert_eq!(fleet.rollout("web-2")["waits"], "it is paused");
        fleet.act(409, "web-2", "approve");
        fleet.act(200, "web-2", "resume");
        let waiting = fleet.await_phase("web-2", "AwaitingApproval");
        assert_eq!(waiting["reason"], "batch 1 is complete: batch 2 waits for approval");
        assert_eq!(fleet.given("rest-1").1, "1");
        fleet.act(200, "web-2", "approve");
        fleet.await_released("web-2", 2, 2);
        // Half of it is not nine in ten, and no error's threshold either.
        fleet.report("rest-1", "2", "failed");
        fleet.report("rest-2", "2", "held");
        let waiting = fleet.await_phase("web-2", "AwaitingApproval");
        let reason = "batch 2: 1 of 2 updated, 0 offline: expected 90%";
        assert_eq!(waiting["reason"], reason);
        fleet.act(200, "web-2", "approve");
        fleet.await_phase("web-2", "Completed");
        let audit = fleet.admin.get("/api/audit").json();
        let actions = audit.as_array().unwrap().iter().map(|entry| entry["action"].as_str());
        let actions: Vec<&str> = actions.map(Option::unwrap).take(6).collect();
        let expected = [
            "group.put",
            "rollout.approve",
            "rollout.approve",
            "rollout.resume",
            "rollout.pause",
            "rollout.start",
        ];
        assert_eq!(actions, expected);
        assert_eq!(audit[0]["actor"], "rollout/web-2");
    });
}

/// A satellite that never enrolled its device, and one that is silent, hold up none of the others,
/// and are shown.
#[test]
fn those_that_are_away_are_carried_over() {
    on_each_store(|database| {
        let mut fleet = Fleet::start(&database, &["rest-1", "rest-2"]);
        let body = r#"{"name":"never","groups":["web"],"config_name":"c1"}"#;
        let answer = fleet.admin.expect(200, "POST", "/api/satellites", body).json();
        fleet.begin("web-2", "2", &json!({}));
        fleet.await_released("web-2", 1, 3);
        fleet.report("rest-1", "2", "held");
        assert_eq!(fleet.rollout("web-2")["phase"], "Running");
        fleet.report("rest-2", "2", "held");
        let done = fleet.await_phase("web-2", "Completed");
        let counts = &done["counts"][0];
        assert_eq!((&counts["updated"], &counts["offline"]), (&json!(2), &json!(1)));
        let members = fleet.admin.get("/api/rollouts/web-2/satellites").json();
        assert_eq!(
            (&members[0]["satellite"], &members[0]["state"]),
            (&json!("never"), &json!("Offline"))
        );
        // It catches up when it is there.
        let path = format!("/satellites/ztr/{}", answer["token"].as_str().unwrap());
        let enrolled = Satellite::from_answer(&fleet.server.anyone().expect(200, "GET", &path, ""));
        fleet.satellites.push(("never".to_owned(), enrolled));
        assert_eq!(fleet.given("never").1, "2");
        fleet.report("never", "2", "held");
        assert_eq!(fleet.rollout("web-2")["counts"][0]["updated"], 3);
    });
}

#[test]
fn a_site_keeps_its_budget() {
    let database = Database::sqlite();
    let names = ["a-1", "a-2", "a-3"];
    let fleet = Fleet::start(&database, &names);
    let budget = json!({ "groupBy": ["site"], "maxUnavailable": 1 });
    fleet.begin("web-2", "2", &json!({ "disruptionBudget": budget }));
    let released =
        || -> Vec<&str> { names.into_iter().filter(|name| fleet.given(name).1 == "2").collect() };
    for count in 1..=3 {
        let waits = "wait for the disruption budget";
        fleet.await_that("web-2", |rollout| {
            count == 3 || rollout["waits"].as_str().unwrap().contains(waits)
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        while released().len() < count {
            assert!(Instant::now() < deadline, "{:?}", released());
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(released().len(), count);
        fleet.report(names[count - 1], "2", "held");
    }
    fleet.await_phase("web-2", "Completed");
}

/// Nothing is kept in memory: the server ends at any moment, and two run at a time.
#[test]
fn a_rollout_outlives_its_server() {
    on_each_store(|database| {
        let mut fleet = Fleet::start(&database, &["canary-1", "rest-1"]);
        let address = fleet.server.address;
        fleet.begin("web-2", "2", &json!({ "sequence": [{ "limit": 1 }] }));
        let again = |fleet: Fleet| {
            let Fleet { server, satellites, .. } = fleet;
            server.kill();
            let server = Server::start_on(&database, address);
            Fleet { admin: server.admin(), server, satellites }
        };
        fleet = again(fleet);
        let other = database.url().is_some().then(|| Server::start(&database));
        fleet.await_released("web-2", 1, 1);
        fleet.report("canary-1", "2", "held");
        fleet = again(fleet);
        fleet.await_released("web-2", 2, 1);
        fleet = again(fleet);
        fleet.report("rest-1", "2", "held");
        fleet.await_phase("web-2", "Completed");
        assert_eq!((fleet.events("rollout_batch"), fleet.events("rollout_completed")), (2, 1));
        drop(other);
    });
}

/// A report and a release lock a satellite's rows in the same order.
#[test]
fn a_release_waits_before_it_holds_anything() {
    on_each_store(|database| {
        let Some(url) = database.url() else { return };
        let fleet = Fleet::start(&database, &["canary-1"]);
        let mut other = Psql::open(url);
        let lock = "BEGIN; SELECT name FROM satellites FOR NO KEY UPDATE";
        assert_eq!(other.ask(lock), "canary-1");
        fleet.begin("web-2", "2", &json!({}));
        other.await_waiting(|| true);
        let free = other.ask("SELECT outcome FROM rollout_satellites FOR UPDATE NOWAIT");
        other.ask("COMMIT");
        assert_eq!(free, "Unseen");
        fleet.await_released("web-2", 1, 1);
    });
}

#[test]
fn satellites_come_and_go_meanwhile() {
    on_each_store(|database| {
        let mut fleet = Fleet::start(&database, &["canary-1", "canary-2", "rest-1"]);
        fleet.begin("web-2", "2", &json!({ "sequence": [{ "selector": "ring=canary" }] }));
        fleet.await_released("web-2", 1, 2);
        let leave = r#"{"satellite":"canary-2","group":"web"}"#;
        fleet.admin.expect(200, "DELETE", "/api/groups/satellite", leave);
        fleet.report("canary-1", "2", "held");
        fleet.await_released("web-2", 2, 1);
        // It joins when all batches are chosen.
        fleet.add("late-1");
        assert_eq!(fleet.given("late-1").1, "1");
        fleet.report("rest-1", "2", "held");
        fleet.await_released("web-2", 2, 2);
        fleet.report("late-1", "2", "held");
        fleet.await_phase("web-2", "Completed");
        fleet.admin.expect(200, "DELETE", "/api/satellites/late-1", "");
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let database = Database::sqlite();
    let fleet = Fleet::start(&database, &[]);
    for (body, part) in [
        (json!({ "name": "r", "group": "none", "state": state("2") }), "group \"none\""),
        (json!({ "name": "R R", "group": "web", "state": state("2") }), "R R"),
        (json!({ "name": "r", "group": "web", "state": state("1") }), "expected a change"),
        (json!({ "name": "r", "group": "web", "state": state("a b") }), "tag"),
        (json!({ "name": "r", "group": "web", "state": { "group": "x" } }), "state.group"),
        (json!({ "name": "r", "group": "web", "state": state("2"), "x": 1 }), "x"),
        (
            json!({ "name": "r", "group": "web", "state": state("2"),
                "policy": { "successThreshold": "200%" } }),
            "200%",
        ),
        (
            json!({ "name": "r", "group": "web", "state": state("2"),
                "policy": { "activateAt": "tomorrow" } }),
            "activateAt \"tomorrow\": expected a time such as",
        ),
        (
            json!({ "name": "r", "group": "web", "state": { "staged": state("2") } }),
            "state.staged: expected downloadOnly or activateAt in the policy",
        ),
    ] {
        let answer = fleet.admin.ask("POST", "/api/rollouts", &body.to_string());
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{body}: {message}");
    }
    fleet.admin.expect(404, "GET", "/api/rollouts/r", "");
    fleet.admin.expect(404, "POST", "/api/rollouts/r/pause", "");
    // Without satellites there is nothing to wait for.
    fleet.begin("r", "2", &json!({}));
    fleet.await_phase("r", "Completed");
    fleet.act(409, "r", "abort");
    assert_eq!(fleet.admin.get("/api/rollouts").json()[0]["name"], "r");
    let body = json!({ "name": "r", "group": "web", "state": state("3") }).to_string();
    fleet.admin.expect(409, "POST", "/api/rollouts", &body);
    fleet.admin.expect(404, "POST", "/api/rollouts/r/dance", "");
}

/// A satellite that comes to the group while it is staged switches when the others do.
#[test]
fn who_joins_what_is_staged_gets_it_at_once() {
    on_each_store(|database| {
        let mut fleet = Fleet::start(&database, &["canary-1"]);
        let staged = |fleet: &Fleet, name: &str| {
            let (url, _) = fleet.given(name);
            let (_, group) = fleet.satellite(name).read(&fleet.server, &url).unwrap();
            group["staged"].clone()
        };
        fleet.begin("web-2", "2", &json!({ "downloadOnly": true }));
        fleet.await_released("web-2", 1, 1);
        fleet.report_images("canary-1", &[("1", "held"), ("2", "staged")]);
        fleet.await_phase("web-2", "AwaitingApproval");
        fleet.add("late-1");
        assert_eq!(staged(&fleet, "late-1")["artifacts"][0]["tag"], json!(["2"]), "at once");
        // The same by its groups, and back again.
        let groups = |groups: &[&str]| {
            let body = json!({ "groups": groups }).to_string();
            fleet.admin.expect(200, "PATCH", "/api/satellites/late-1", &body);
        };
        let members = || {
            let members = fleet.admin.get("/api/rollouts/web-2/satellites").json();
            members.as_array().unwrap().len()
        };
        assert_eq!(members(), 2);
        groups(&[]);
        assert_eq!(members(), 1);
        groups(&["web"]);
        assert_eq!((members(), staged(&fleet, "late-1")["artifacts"].is_array()), (2, true));
        fleet.report_images("late-1", &[("1", "held"), ("2", "staged")]);
        fleet.act(200, "web-2", "approve");
        fleet.await_phase("web-2", "Completed");
        assert_eq!(fleet.given("late-1").1, "2");
        assert_eq!(staged(&fleet, "late-1"), Value::Null);

        // While a rollout is paused no satellite gets anything; then the new one is the next.
        fleet.begin("web-3", "3", &json!({ "downloadOnly": true }));
        fleet.await_released("web-3", 1, 2);
        fleet.act(200, "web-3", "pause");
        fleet.add("late-2");
        assert_eq!(staged(&fleet, "late-2"), Value::Null);
        fleet.act(200, "web-3", "resume");
        fleet.await_released("web-3", 1, 3);
        assert_eq!(staged(&fleet, "late-2")["artifacts"][0]["tag"], json!(["3"]));
        // What is taken back is taken back from it as well.
        fleet.act(200, "web-3", "abort");
        fleet.await_phase("web-3", "Aborted");
        assert_eq!(staged(&fleet, "late-2"), Value::Null);
    });
}
