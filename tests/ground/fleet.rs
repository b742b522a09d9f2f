//! A fleet from its first satellite to the deletion of it.

use std::process::Command;

use serde_json::{Value, json};

use crate::console::Browser;
use crate::harness::{
    CONFIG, Database, GROUP, Psql, REPORT, Satellite, Server, enrolled, on_each_store, registered,
};

#[test]
fn a_satellite_enrols_reads_and_reports() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        assert_eq!(satellite.user, "robot$edge1");
        let base = format!("http://{}", server.address);
        assert_eq!(satellite.state, format!("{base}/satellite/satellite-state/edge1/state:latest"));

        let (_, state) = satellite.read(&server, &satellite.state).unwrap();
        let group_url = format!("{base}/satellite/group-state/g1/state:latest");
        let config_url = format!("{base}/satellite/config-state/c1/state:latest");
        assert_eq!(state, json!({ "states": [group_url], "config": config_url }));
        let (_, group) = satellite.read(&server, &group_url).unwrap();
        assert_eq!(group["registry"], "http://127.0.0.1:5000");
        assert_eq!(group["artifacts"][0]["repository"], "library/nginx");
        assert_eq!(group["artifacts"][0].get("labels"), None);
        let (_, config) = satellite.read(&server, &config_url).unwrap();
        assert_eq!(config["zot_config"]["http"]["port"], "8585");
        assert_eq!(config["state_config"], json!({ "auth": {} }));

        let robot = satellite.client(&server);
        let poll = "/v2/satellite/satellite-state/edge1/state/manifests/latest";
        let head = robot.expect(200, "HEAD", poll, "").head;
        assert!(head.len() < 512, "an unchanged poll is answered with {} bytes", head.len());
        let answer = robot.expect(200, "POST", "/satellites/sync", REPORT);
        assert!(answer.body.is_empty(), "Go expects an empty body");
        let status = admin.get("/api/satellites/edge1/status").json();
        assert_eq!(status["ReportedAt"], "2026-11-26T00:51:53.041531Z");
        assert_eq!(status["CpuPercent"], json!({ "String": "25.40", "Valid": true }));
        let recorded: Value =
            serde_json::from_str(include_str!("../data/fleet/status.json")).unwrap();
        assert_eq!(keys(&status), keys(&recorded), "the fields are Go's");
        let images = admin.expect(200, "GET", "/api/satellites/edge1/images", "").json();
        assert_eq!(images[0]["Reference"], "127.0.0.1:8585/t/docker:1@sha256:0c");
        let active = admin.get("/api/satellites/active").json();
        let recorded: Value =
            serde_json::from_str(include_str!("../data/fleet/active.json")).unwrap();
        assert_eq!(keys(&active[0]), keys(&recorded[0]));
        assert_eq!(active[0]["HeartbeatInterval"]["String"], "@every 00h00m10s");
        let busy = r#"{"activity":"pulls\u0000 nginx","image_count":7}"#;
        robot.expect(200, "POST", "/satellites/sync", busy);
        let active = admin.get("/api/satellites/active").json();
        assert_eq!(active[0]["LastActivity"], "pulls nginx");
        let status = admin.get("/api/satellites/edge1/status").json();
        assert_eq!(status["Activity"], "pulls\0 nginx");
        assert_eq!(status["ImageCount"]["Int32"], 7);
        assert_eq!(admin.get("/api/satellites/stale").json(), json!([]));
        let metrics = server.anyone().get("/metrics").text();
        assert!(
            metrics.contains("ground_control_satellites{connection=\"online\"} 1\n"),
            "{metrics}"
        );
        assert!(server.stop());
    });
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

#[test]
fn a_token_is_good_until_its_credentials_were_used() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let token = registered(&server.admin());
        // The answer was lost twice; in both dialects it can be asked again.
        let path = format!("/satellites/ztr/{token}");
        let lost = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        let body = format!(r#"{{"token":"{token}"}}"#);
        let answer = server.anyone().expect(200, "POST", "/satellites/ztr", &body);
        let satellite = Satellite::from_answer(&answer);
        assert_ne!(lost.secret, satellite.secret);
        satellite.read(&server, &satellite.state).unwrap();
        // Now it is spent, as in Go's.
        let spent = server.anyone().expect(400, "GET", &path, "");
        assert_eq!(spent.json(), json!({ "message": "Error: Invalid Token", "code": 400 }));
        lost.client(&server).expect(401, "POST", "/satellites/sync", "{}");
        satellite.client(&server).expect(200, "POST", "/satellites/sync", "{}");
    });
}

#[test]
fn a_killed_server_has_lost_nothing_it_answered() {
    on_each_store(|database| {
        let mut server = Server::start(&database);
        let listen = server.address;
        let again = |server: Server| {
            server.kill();
            Server::start_on(&database, listen)
        };
        let token = registered(&server.admin());
        server = again(server);
        let path = format!("/satellites/ztr/{token}");
        let satellite = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        server = again(server);
        let (before, _) = satellite.read(&server, &satellite.state).unwrap();
        server = again(server);
        satellite.client(&server).expect(200, "POST", "/satellites/sync", REPORT);
        server = again(server);
        let admin = server.admin();
        assert_eq!(admin.get("/api/satellites/edge1/status").json()["ImageCount"]["Int32"], 2);
        admin.expect(
            200,
            "DELETE",
            "/api/groups/satellite",
            r#"{"satellite":"edge1","group":"g1"}"#,
        );
        server = again(server);
        let (after, state) = satellite.read(&server, &satellite.state).unwrap();
        assert_ne!(before, after);
        assert_eq!(state.get("states"), None);
        // Sessions outlive the process as well.
        admin.expect(200, "GET", "/api/groups", "");
        server.anyone().expect(400, "GET", &path, "");
    });
}

#[test]
fn only_what_changed_is_published() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let url = satellite.state.replace("satellite-state/edge1", "group-state/g1");
        let (state, _) = satellite.read(&server, &satellite.state).unwrap();
        let (first, _) = satellite.read(&server, &url).unwrap();
        admin.expect(200, "POST", "/api/groups/sync", GROUP);
        assert_eq!(satellite.read(&server, &url).unwrap().0, first, "the same says the same");
        let moved = GROUP.replace("1.25", "1.26");
        admin.expect(200, "POST", "/api/groups/sync", &moved);
        assert_ne!(satellite.read(&server, &url).unwrap().0, first);
        // A client that read the manifest just before still finds it, and what it names.
        satellite.read(&server, &url.replace(":latest", &format!(":{first}"))).unwrap_err();
        let path = format!("/v2/satellite/group-state/g1/state/manifests/{first}");
        satellite.client(&server).expect(200, "GET", &path, "");
        admin.expect(200, "POST", "/api/groups/sync", GROUP);
        assert_eq!(
            satellite.read(&server, &url).unwrap().0,
            first,
            "the same state, the same digest"
        );
        assert_eq!(satellite.read(&server, &satellite.state).unwrap().0, state);
    });
}

#[test]
fn a_satellite_reads_its_own_only() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        admin.expect(200, "POST", "/api/groups/sync", &GROUP.replace("g1", "g2"));
        admin.expect(201, "POST", "/api/configs", &CONFIG.replace("c1", "c2"));
        let body = r#"{"name":"edge2","config_name":"c2"}"#;
        admin.expect(200, "POST", "/api/satellites", body);
        for (from, to) in [
            ("satellite-state/edge1", "satellite-state/edge2"),
            ("satellite-state/edge1", "group-state/g2"),
            ("satellite-state/edge1", "config-state/c2"),
            ("satellite-state/edge1", "satellite-state/none"),
        ] {
            let url = satellite.state.replace(from, to);
            assert_eq!(satellite.read(&server, &url).unwrap_err(), 403, "{to}");
        }
        // People's credentials open the API and not the artifacts, and the other way round.
        let path = "/v2/satellite/satellite-state/edge1/state/manifests/latest";
        admin.expect(401, "GET", path, "");
        satellite.client(&server).expect(401, "GET", "/api/groups", "");
        satellite.client(&server).expect(405, "PUT", path, "{}");
    });
}

#[test]
fn groups_come_and_go() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let member = r#"{"satellite":"edge1","group":"g1"}"#;
        admin.expect(200, "POST", "/api/groups/sync", &GROUP.replace("g1", "g2"));
        admin.expect(200, "POST", "/api/groups/satellite", &member.replace("g1", "g2"));
        let states = |satellite: &Satellite| {
            let (_, state) = satellite.read(&server, &satellite.state).unwrap();
            state["states"].as_array().map_or(0, Vec::len)
        };
        assert_eq!(states(&satellite), 2);
        admin.expect(200, "DELETE", "/api/groups/satellite", member);
        assert_eq!(states(&satellite), 1);
        admin.expect(400, "DELETE", "/api/groups/satellite", member);
        let url = satellite.state.replace("satellite-state/edge1", "group-state/g1");
        assert_eq!(satellite.read(&server, &url).unwrap_err(), 403, "it left that group");
        assert_eq!(admin.get("/api/groups/g1/satellites").json(), json!([]));
        let of_two = admin.get("/api/groups/g2/satellites").json();
        assert_eq!(of_two[0]["Name"], "edge1");
        // The last group's removal has effect, here by its deletion.
        admin.expect(200, "DELETE", "/api/groups/g2", "");
        assert_eq!(states(&satellite), 0);
        admin.expect(404, "GET", "/api/groups/g2", "");
        admin.expect(200, "GET", "/api/groups/g1", "");
    });
}

#[test]
fn credentials_are_refreshed_and_end() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, mut satellite) = enrolled(&server);
        satellite.client(&server).expect(200, "POST", "/satellites/sync", REPORT);
        let old = satellite.client(&server);
        let answer = old.expect(200, "POST", "/sat/refresh", "");
        satellite.secret = answer.json()["secret"].as_str().unwrap().to_owned();
        // The answer may have been lost: the old secret is good until the new one was used.
        old.expect(200, "POST", "/satellites/sync", REPORT);
        satellite.client(&server).expect(200, "POST", "/satellites/sync", REPORT);
        old.expect(401, "POST", "/satellites/sync", REPORT);

        let token = satellite.client(&server).get("/service/token").json();
        let bearer = server.with(&format!("Bearer {}", token["token"].as_str().unwrap()));
        bearer.expect(200, "GET", "/v2/", "");
        admin.expect(200, "DELETE", "/api/satellites/edge1", "");
        bearer.expect(401, "GET", "/v2/", "");
        satellite.client(&server).expect(401, "POST", "/satellites/sync", REPORT);
        // A new satellite of that name is another one.
        let body = r#"{"name":"edge1","groups":["g1"],"config_name":"c1"}"#;
        admin.expect(200, "POST", "/api/satellites", body);
        bearer.expect(401, "GET", "/v2/", "");
        satellite.client(&server).expect(401, "POST", "/satellites/sync", REPORT);
    });
}

#[test]
fn a_revoked_satellite_is_out_until_it_enrols_again() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let robot = satellite.client(&server);
        robot.expect(200, "POST", "/satellites/sync", REPORT);
        let offered = robot.expect(200, "POST", "/sat/refresh", "").json();
        let token = robot.get("/service/token").json();
        let bearer = server.with(&format!("Bearer {}", token["token"].as_str().unwrap()));
        bearer.expect(200, "GET", "/v2/", "");
        let renewed = admin.expect(200, "POST", "/api/satellites/edge1/token", "").json();
        let browser = Browser::log_in(&server);
        let page = "/console/satellites/edge1";
        assert_eq!(browser.submit(page, &format!("{page}/revoke"), "").status, 303);
        // Everything that was good is not: the secret, the one that was offered, both tokens.
        bearer.expect(401, "GET", "/v2/", "");
        robot.expect(401, "POST", "/satellites/sync", REPORT);
        let offered = server.basic(&satellite.user, offered["secret"].as_str().unwrap());
        offered.expect(401, "POST", "/satellites/sync", REPORT);
        let path = format!("/satellites/ztr/{}", renewed["token"].as_str().unwrap());
        server.anyone().expect(400, "GET", &path, "");
        let state = admin.get("/api/satellites/edge1/state").json();
        assert_eq!(state["lifecycle"], "Revoked");
        assert!(state["reason"].as_str().unwrap().starts_with("its credentials were revoked"));
        assert_eq!(admin.get("/api/satellites/edge1").json()["Groups"], json!(["g1"]));
        assert!(browser.get(page).text().contains("Revoked: "));

        let shown = browser.submit(page, &format!("{page}/token"), "").text();
        let (_, token) = shown.split_once("<code>").unwrap();
        let path = format!("/satellites/ztr/{}", token.split('<').next().unwrap());
        let again = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        assert_eq!(admin.get("/api/satellites/edge1/state").json()["lifecycle"], "Revoked");
        again.client(&server).expect(200, "POST", "/satellites/sync", REPORT);
        assert_eq!(admin.get("/api/satellites/edge1/state").json()["lifecycle"], "Enrolled");
        admin.expect(200, "POST", "/api/satellites/edge1/revoke", "");
        again.client(&server).expect(401, "POST", "/satellites/sync", REPORT);
        admin.expect(404, "POST", "/api/satellites/none/revoke", "");
    });
}

#[test]
fn a_replaced_device_enrols_again() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        satellite.client(&server).expect(200, "POST", "/satellites/sync", REPORT);
        let answer = satellite.client(&server).expect(200, "POST", "/sat/refresh", "");
        let unused = answer.json()["secret"].as_str().unwrap().to_owned();
        let token = admin.expect(200, "POST", "/api/satellites/edge1/token", "").json();
        // What the old device was offered and what it asks for does not spend the token.
        server.basic(&satellite.user, &unused).expect(401, "POST", "/satellites/sync", REPORT);
        satellite.client(&server).expect(409, "POST", "/sat/refresh", "");
        let path = format!("/satellites/ztr/{}", token["token"].as_str().unwrap());
        let replaced = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        satellite.client(&server).expect(409, "POST", "/sat/refresh", "");
        satellite.client(&server).expect(200, "POST", "/satellites/sync", REPORT);
        replaced.client(&server).expect(200, "POST", "/satellites/sync", REPORT);
        satellite.client(&server).expect(401, "POST", "/satellites/sync", REPORT);
        replaced.client(&server).expect(200, "POST", "/sat/refresh", "");
    });
}

#[test]
fn a_new_secret_may_be_used_many_times_at_once() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, mut satellite) = enrolled(&server);
        for _ in 0..5 {
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    let robot = satellite.client(&server);
                    scope.spawn(move || robot.expect(200, "GET", "/service/token", ""));
                }
            });
            let token = admin.expect(200, "POST", "/api/satellites/edge1/token", "").json();
            let path = format!("/satellites/ztr/{}", token["token"].as_str().unwrap());
            satellite = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        }
    });
}

/// Another replica that hangs in a change.
#[test]
fn a_change_waits_for_another_replica_and_readers_do_not() {
    on_each_store(|database| {
        let Some(url) = database.url() else { return };
        let server = Server::start(&database);
        let admin = server.admin();
        let mut other = Psql::open(url);
        other.ask("BEGIN; SELECT pg_advisory_xact_lock(30803296846112116)");
        std::thread::scope(|scope| {
            let (admin, answered) = (&admin, std::sync::mpsc::channel());
            for _ in 0..12 {
                let answered = answered.0.clone();
                scope.spawn(move || {
                    answered.send(admin.ask("POST", "/api/groups/sync", GROUP).status).unwrap();
                });
            }
            for _ in 0..8 {
                admin.expect(200, "GET", "/api/groups", "");
            }
            assert!(answered.1.try_recv().is_err(), "readers waited until a change gave up");
            assert_eq!(answered.1.recv().unwrap(), 503, "one gives up");
            other.ask("COMMIT");
            for _ in 1..12 {
                let status = answered.1.recv().unwrap();
                assert!([200, 503].contains(&status), "{status}");
            }
        });
        admin.expect(200, "POST", "/api/groups/sync", GROUP);
    });
}

/// A report and a change of the same satellite lock its rows in the same order, the satellite first:
/// otherwise each could wait for the other.
#[test]
fn a_report_waits_before_it_holds_anything() {
    on_each_store(|database| {
        let Some(url) = database.url() else { return };
        let server = Server::start(&database);
        let (_, satellite) = enrolled(&server);
        let robot = satellite.client(&server);
        robot.expect(200, "POST", "/satellites/sync", REPORT);
        let mut other = Psql::open(url);
        assert_eq!(other.ask("BEGIN; SELECT name FROM satellites FOR UPDATE"), "edge1");
        std::thread::scope(|scope| {
            let report = scope.spawn(|| robot.ask("POST", "/satellites/sync", REPORT).status);
            other.await_waiting(|| !report.is_finished());
            let free = other.ask("SELECT number FROM statuses FOR UPDATE NOWAIT");
            other.ask("COMMIT");
            assert_eq!((free.as_str(), report.join().unwrap()), ("1", 200));
        });
    });
}

#[test]
fn configs_are_patched_and_kept_while_used() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        admin.expect(409, "POST", "/api/configs", CONFIG);
        let patch = r#"{"app_config":{"log_level":"debug","heartbeat_interval":null}}"#;
        let patched = admin.expect(200, "PATCH", "/api/configs/c1", patch).json();
        assert_eq!(patched["Config"]["app_config"]["log_level"], "debug");
        assert_eq!(patched["Config"]["app_config"].get("heartbeat_interval"), None);
        let url = satellite.state.replace("satellite-state/edge1", "config-state/c1");
        let (_, config) = satellite.read(&server, &url).unwrap();
        assert_eq!(config, patched["Config"]);
        let bad = r#"{"app_config":{"heartbeat_interval":"5m"}}"#;
        admin.expect(400, "PATCH", "/api/configs/c1", bad);
        admin.expect(400, "DELETE", "/api/configs/c1", "");
        admin.expect(201, "POST", "/api/configs", &CONFIG.replace("c1", "c2"));
        let assign = r#"{"satellite":"edge1","config_name":"c2"}"#;
        admin.expect(200, "POST", "/api/configs/satellite", assign);
        assert_eq!(satellite.read(&server, &url).unwrap_err(), 403);
        admin.expect(200, "DELETE", "/api/configs/c1", "");
        assert_eq!(admin.get("/api/configs").json().as_array().unwrap().len(), 1);
    });
}

#[test]
fn secrets_of_a_config_are_for_its_satellites_only() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let patch = r#"{"app_config":{"local_registry":{"url":"http://l","password":"hunter1"}},
            "moonlet":{"registries":[{"url":"https://r","username":"u","password":"hunter2"}]}}"#;
        let patched = admin.expect(200, "PATCH", "/api/configs/c1", patch);
        let url = satellite.state.replace("satellite-state/edge1", "config-state/c1");
        let passwords = || {
            let (_, config) = satellite.read(&server, &url).unwrap();
            let own = config["app_config"]["local_registry"]["password"].clone();
            (own, config["moonlet"]["registries"][0]["password"].clone())
        };
        assert_eq!(passwords(), (json!("hunter1"), json!("hunter2")));
        let shown = admin.get("/api/configs/c1");
        for answer in [&patched, &shown, &admin.get("/api/configs")] {
            assert!(!answer.text().contains("hunter"), "{}", answer.text());
        }
        // What was shown is sent back, with one change.
        let mut back = shown.json()["Config"].clone();
        assert_eq!(back["moonlet"]["registries"][0]["password"], "********");
        back["moonlet"]["registries"][0]["username"] = json!("v");
        admin.expect(200, "PATCH", "/api/configs/c1", &back.to_string());
        assert_eq!(passwords(), (json!("hunter1"), json!("hunter2")));
        back["moonlet"]["registries"][0]["url"] = json!("https://other");
        admin.expect(400, "PATCH", "/api/configs/c1", &back.to_string());
        let new = json!({ "config_name": "c2", "config": back }).to_string();
        admin.expect(400, "POST", "/api/configs", &new);
    });
}

#[test]
fn another_url_is_published_again() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (_, satellite) = enrolled(&server);
        satellite.read(&server, &satellite.state).unwrap();
        assert!(server.stop());
        let server = Server::start(&database);
        let state =
            format!("http://{}/satellite/satellite-state/edge1/state:latest", server.address);
        let (_, content) = satellite.read(&server, &state).unwrap();
        let group = content["states"][0].as_str().unwrap();
        assert!(group.starts_with(&format!("http://{}/", server.address)), "{group}");
    });
}

#[test]
fn changes_at_the_same_time_lose_nothing() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let names: Vec<String> = (0..12).map(|number| format!("at-once-{number:02}")).collect();
        for name in &names {
            admin.expect(200, "POST", "/api/groups/sync", &GROUP.replace("g1", name));
        }
        std::thread::scope(|scope| {
            for name in &names {
                let admin = &admin;
                let body = format!(r#"{{"satellite":"edge1","group":"{name}"}}"#);
                scope.spawn(move || admin.expect(200, "POST", "/api/groups/satellite", &body));
            }
        });
        let (_, state) = satellite.read(&server, &satellite.state).unwrap();
        assert_eq!(state["states"].as_array().unwrap().len(), 13);
    });
}

/// A client of others' making goes through challenge, token, manifest, config and layer.
#[test]
fn skopeo_copies_the_state() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let (_, satellite) = enrolled(&server);
    let source = satellite.state.replace("http://", "docker://");
    let copy = |credentials: String| {
        Command::new("skopeo")
            .args(["copy", "--quiet", "--src-tls-verify=false", "--src-creds"])
            .args([credentials.as_str(), source.as_str()])
            .arg(format!("dir:{}/copy", database.directory().display()))
            .output()
            .unwrap()
    };
    let good = copy(format!("{}:{}", satellite.user, satellite.secret));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(!copy(format!("{}:wrong", satellite.user)).status.success());
}
