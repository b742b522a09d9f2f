//! Who changed what, and what happened to satellites.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::console::Browser;
use crate::harness::{Client, GROUP, PASSWORD, REPORT, Server, enrolled, on_each_store};

fn kinds(admin: &Client) -> Vec<String> {
    let events = admin.expect(200, "GET", "/api/events?after=0", "").json();
    let kinds = events.as_array().unwrap().iter();
    kinds.map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_change_has_an_author() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, _) = enrolled(&server);
        let user = r#"{"username":"eve","password":"Battery-staple-2"}"#;
        admin.expect(201, "POST", "/api/users", user);
        let eve = server.basic("eve", "Battery-staple-2");
        eve.expect(200, "POST", "/api/groups/sync", &GROUP.replace("1.25", "1.26"));
        let patch = r#"{"app_config":{"log_level":"debug"},"moonlet":{"registries":[
            {"url":"https://r","username":"u","password":"hunter2"}]}}"#;
        eve.expect(200, "PATCH", "/api/configs/c1", patch);
        eve.expect(200, "PATCH", "/api/satellites/edge1", r#"{"labels":{"site":"north"}}"#);
        let member = r#"{"satellite":"edge1","group":"g1"}"#;
        eve.expect(200, "DELETE", "/api/groups/satellite", member);
        // What failed changed nothing, and is no change.
        eve.expect(400, "DELETE", "/api/groups/satellite", member);
        let own = r#"{"current_password":"Battery-staple-2","new_password":"Battery-staple-3"}"#;
        eve.expect(204, "PATCH", "/api/users/password", own);
        admin.expect(200, "POST", "/api/satellites/edge1/token", "");
        admin.expect(200, "POST", "/api/satellites/edge1/revoke", "");
        admin.expect(200, "DELETE", "/api/satellites/edge1", "");
        admin.expect(200, "DELETE", "/api/groups/g1", "");
        admin.expect(200, "DELETE", "/api/configs/c1", "");
        admin.expect(204, "DELETE", "/api/users/eve", "");

        let answer = admin.expect(200, "GET", "/api/audit?after=0", "");
        for secret in ["hunter2", "staple", "argon2"] {
            assert!(!answer.text().contains(secret), "{secret}");
        }
        let log = answer.json();
        let said: Vec<String> = log
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let text = |key: &str| entry[key].as_str().unwrap().to_owned();
                format!("{} {} {}", text("actor"), text("action"), text("object"))
            })
            .collect();
        assert_eq!(
            said,
            [
                "admin config.create c1",
                "admin group.put g1",
                "admin satellite.create edge1",
                "admin user.create eve",
                "eve group.put g1",
                "eve config.update c1",
                "eve satellite.labels edge1",
                "eve satellite.groups edge1",
                "eve user.password eve",
                "admin satellite.token edge1",
                "admin satellite.revoke edge1",
                "admin satellite.delete edge1",
                "admin group.delete g1",
                "admin config.delete c1",
                "admin user.delete eve",
            ]
        );
        let changed = |place: usize| (log[place]["before"].clone(), log[place]["after"].clone());
        assert_eq!(changed(0).0, Value::Null);
        let tag = |(_, group): &(Value, Value)| group["artifacts"][0]["tag"].clone();
        assert_eq!(tag(&changed(4)), json!(["1.26"]));
        let (before, after) = changed(5);
        assert_eq!(before, json!({ "app_config": { "log_level": "info" } }));
        assert_eq!(after["moonlet"]["registries"][0]["password"], "********");
        assert_eq!(changed(6), (json!({}), json!({ "site": "north" })));
        assert_eq!(changed(7), (json!(["g1"]), json!([])));

        // The newest first, page by page.
        let ids = |query: &str| -> Vec<i64> {
            let log = admin.expect(200, "GET", &format!("/api/audit?{query}"), "").json();
            log.as_array().unwrap().iter().map(|entry| entry["id"].as_i64().unwrap()).collect()
        };
        assert_eq!(ids("limit=2"), [15, 14]);
        assert_eq!(ids("limit=2&before=14"), [13, 12]);
        assert_eq!(ids("after=13"), [14, 15]);
        admin.expect(400, "GET", "/api/audit?before=x", "");
        let page = Browser::log_in(&server).get("/console/audit").text();
        assert!(page.contains("satellite.revoke") && page.contains("********"), "{page}");
    });
}

/// What changes nothing is no change.
#[test]
fn a_write_of_the_same_is_not_written_down() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, _) = enrolled(&server);
        admin.expect(200, "PATCH", "/api/satellites/edge1", r#"{"labels":{"a":"1"}}"#);
        let times = || {
            ["/api/groups/g1", "/api/configs/c1", "/api/satellites/edge1"]
                .map(|path| admin.get(path).json()["UpdatedAt"].clone())
        };
        let count = || admin.get("/api/audit").json().as_array().unwrap().len();
        let before = (times(), count());
        admin.expect(200, "POST", "/api/groups/sync", GROUP);
        let patch = r#"{"app_config":{"log_level":"info"}}"#;
        admin.expect(200, "PATCH", "/api/configs/c1", patch);
        let assign = r#"{"satellite":"edge1","config_name":"c1"}"#;
        admin.expect(200, "POST", "/api/configs/satellite", assign);
        let member = r#"{"satellite":"edge1","group":"g1"}"#;
        admin.expect(200, "POST", "/api/groups/satellite", member);
        admin.expect(200, "PATCH", "/api/satellites/edge1", r#"{"labels":{"a":"1"}}"#);
        assert_eq!((times(), count()), before);
        admin.expect(200, "POST", "/api/satellites/edge1/token", "");
        assert_eq!(count(), before.1 + 1, "what is not shown may have changed");
    });
}

#[test]
fn images_that_fail_together_are_one_event() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let robot = satellite.client(&server);
        let send = |failed: &[&str]| {
            let images: Vec<String> = ["a", "b", "c", "d"]
                .iter()
                .map(|name| {
                    let state = if failed.contains(name) { "failed" } else { "held" };
                    format!(
                        r#"{{"reference":"h/{name}:1","state":"{state}","reason":"no {name}"}}"#
                    )
                })
                .collect();
            let report = format!(r#"{{"moonlet":{{"images":[{}]}}}}"#, images.join(","));
            robot.expect(200, "POST", "/satellites/sync", &report);
            let events = admin.get("/api/events?after=0").json();
            let failed = events.as_array().unwrap().iter();
            let failed = failed.filter(|event| event["kind"] == "image_failed");
            let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
            failed
                .map(|event| text(event, "object") + ": " + &text(event, "message"))
                .collect::<Vec<String>>()
        };
        let first = "h/a:1: no a, and 2 more".to_owned();
        assert_eq!(send(&["a", "b", "c"]), std::slice::from_ref(&first));
        // Of those that failed before nothing new is said.
        let second = "h/d:1: no d".to_owned();
        assert_eq!(send(&["a", "b", "c", "d"]), [first.clone(), second.clone()]);
        assert_eq!(send(&[]).len(), 2);
        assert_eq!(send(&["a", "d"]), [first, second], "within the hour");
    });
}

#[test]
fn what_happens_to_satellites_is_said_once() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let robot = satellite.client(&server);
        let send = |storage: u64, state: &str, flash: f64| {
            let report = format!(
                r#"{{"state_report_interval":"@every 1s","storage_used_bytes":{storage},
                "moonlet":{{"storage_size_bytes":1000,"flash_used_percent":{flash},"images":[
                {{"reference":"r.example/a:1","state":"{state}","reason":"no space\u0000"}}]}}}}"#
            );
            robot.expect(200, "POST", "/satellites/sync", &report);
        };
        assert_eq!(kinds(&admin), <[&str; 0]>::default(), "it has not used its credentials");
        send(10, "syncing", 1.0);
        assert_eq!(kinds(&admin), ["enrolled"]);
        send(10, "failed", 1.0);
        send(10, "failed", 1.0);
        send(960, "syncing", 95.0);
        send(960, "failed", 95.0);
        let expected = ["enrolled", "image_failed", "flash_worn", "storage_nearly_full"];
        assert_eq!(kinds(&admin), expected);
        let events = admin.get("/api/events?satellite=edge1&limit=3").json();
        assert_eq!(events[2]["object"], "r.example/a:1");
        assert_eq!(events[2]["message"], "no space");
        assert_eq!(admin.get("/api/events?satellite=other").json(), json!([]));

        // Ten seconds without a report.
        let deadline = Instant::now() + Duration::from_secs(60);
        while kinds(&admin).last().unwrap() != "offline" {
            assert!(Instant::now() < deadline, "{:?}", kinds(&admin));
            std::thread::sleep(Duration::from_millis(200));
        }
        let state = admin.get("/api/satellites/edge1/state").json();
        assert_eq!(state["connection"], "Offline");
        assert!(state["reason"].as_str().unwrap().starts_with("no report for "), "{state}");
        assert_eq!(admin.get("/api/satellites/stale").json()[0]["Name"], "edge1");
        send(960, "failed", 95.0);
        admin.expect(200, "POST", "/api/satellites/edge1/revoke", "");
        admin.expect(200, "DELETE", "/api/satellites/edge1", "");
        assert_eq!(kinds(&admin)[4..], ["offline", "back", "revoked", "decommissioned"]);
        let page = Browser::log_in(&server).get("/console/events").text();
        assert!(page.contains("storage_nearly_full") && page.contains("no space"), "{page}");
    });
}

/// Takes one request, answers it, and returns its head and its body.
fn take(listener: &TcpListener, status: &str) -> (String, Vec<u8>) {
    let (mut socket, _): (TcpStream, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = socket.read(&mut part).unwrap();
        assert!(count > 0, "the request is not whole");
        bytes.extend_from_slice(&part[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let (_, length) = head.split_once("Content-Length: ").unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if bytes.len() == end + 4 + length {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            socket.write_all(answer.as_bytes()).unwrap();
            return (head, bytes[end + 4..].to_vec());
        }
    }
}

#[test]
fn events_are_sent_to_a_webhook() {
    on_each_store(|database| {
        // What happened before there was a webhook is not sent.
        let server = Server::start(&database);
        let (_, satellite) = enrolled(&server);
        satellite.client(&server).expect(200, "POST", "/satellites/sync", REPORT);
        let listen = server.address;
        assert!(server.stop());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let start = || {
            let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
            let mut child = Server::command(&database, listen)
                .args(["--webhook-url", &url])
                .env("GROUND_CONTROL_WEBHOOK_SECRET", "0123456789abcdef")
                .env("GROUND_CONTROL_ADMIN_PASSWORD", PASSWORD)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let address = Server::address_of(&mut child);
            Server { child, address }
        };
        let server = start();
        let admin = server.admin();
        admin.expect(200, "POST", "/api/satellites/edge1/revoke", "");
        let (head, first) = take(&listener, "503 Service Unavailable");
        assert!(head.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{head}");
        // It comes again after a restart, and what follows a refusal comes too.
        server.kill();
        let server = start();
        let (head, body) = take(&listener, "400 Bad Request");
        assert_eq!(body, first);
        let event: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&event["kind"], &event["satellite"]), (&json!("revoked"), &json!("edge1")));
        let signed = format!("X-Ground-Control-Signature: sha256={}", hmac(&body));
        assert!(head.ends_with(&signed), "{head}");
        server.admin().expect(200, "DELETE", "/api/satellites/edge1", "");
        let (head, _) = take(&listener, "204 No Content");
        assert!(head.contains("X-Ground-Control-Event: decommissioned\r\n"), "{head}");
    });
}

/// HMAC-SHA256 by another program.
fn hmac(body: &[u8]) -> String {
    let mut child = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", "0123456789abcdef"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(body).unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    text.trim().rsplit(' ').next().unwrap().to_owned()
}
