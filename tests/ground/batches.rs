//! Enrolment tokens for many devices, and the approval of each.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::cli::Person;
use crate::console::Browser;
use crate::harness::{Answer, Client, Database, Satellite, Server, on_each_store, registered};

const ENROL: &str = "/satellites/ztr";

fn batch(admin: &Client, more: Value) -> String {
    let mut body = json!({ "name": "gate", "devices": 2, "config_name": "c1", "groups": ["g1"] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = admin.expect(201, "POST", "/api/batches", &body.to_string());
    answer.json()["token"].as_str().unwrap().to_owned()
}

fn asked(server: &Server, token: &str, device: &str) -> Answer {
    let facts = json!({ "arch": "linux/arm/v7", "board": "Pi 2", "device": device });
    let body = json!({ "token": token, "facts": facts }).to_string();
    server.anyone().ask("POST", ENROL, &body)
}

fn device(number: u32) -> String {
    format!("{number:032x}").chars().rev().collect()
}

#[test]
fn a_batch_enrols_so_many_devices_and_no_more() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        registered(&admin);
        let token = batch(&admin, json!({ "labels": { "site": "north" } }));
        // Without what distinguishes devices, all of them would be one.
        let go = server.anyone().ask("GET", &format!("{ENROL}/{token}"), "");
        assert_eq!(go.status, 400);
        assert!(go.text().contains("needs the fact device"), "{}", go.text());
        assert_eq!(asked(&server, "0123456789abcdef", &device(1)).status, 400);
        // Asked many times at once, and again because the answer was lost, it is one device.
        let start = Barrier::new(8);
        let statuses = thread::scope(|scope| {
            let ask = || {
                start.wait();
                asked(&server, &token, &device(1)).status
            };
            let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        let list = admin.get("/api/batches").json();
        assert_eq!((&list[0]["devices"], list[0].get("token")), (&json!(1), None));
        let first = Satellite::from_answer(&asked(&server, &token, &device(1)));
        assert_eq!(first.user, "robot$gate-10000000");
        let (_, state) = first.read(&server, &first.state).unwrap();
        assert!(state["states"][0].as_str().unwrap().contains("/g1/"), "{state}");
        let known = admin.get("/api/satellites/gate-10000000").json();
        assert_eq!(
            (&known["Labels"]["site"], &known["Labels"]["board"]),
            (&json!("north"), &json!("Pi_2"))
        );
        assert_eq!((&known["Batch"], &known["Lifecycle"]), (&json!("gate"), &json!("Enrolled")));
        // A client that has the token and the number of a device that has enrolled is not that
        // device.
        let again = asked(&server, &token, &device(1));
        assert_eq!(again.status, 400, "{}", again.text());
        assert!(again.text().contains("has enrolled"), "{}", again.text());
        first.client(&server).expect(200, "POST", "/satellites/sync", "{}");

        assert_eq!(asked(&server, &token, &device(2)).status, 200);
        let full = asked(&server, &token, &device(3));
        assert_eq!(full.status, 403);
        assert!(full.text().contains("all 2 places"), "{}", full.text());
        admin.expect(400, "DELETE", "/api/configs/c1", "");
        admin.expect(204, "DELETE", "/api/batches/gate", "");
        assert_eq!(asked(&server, &token, &device(4)).status, 400);
        // One that had asked and lost the answer is not shut out by that.
        assert_eq!(asked(&server, &token, &device(2)).status, 200);
    });
}

#[test]
fn what_cannot_be_a_batch_is_refused() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let admin = server.admin();
    registered(&admin);
    let good = json!({ "name": "gate", "devices": 2, "config_name": "c1" });
    let long = "a".repeat(49);
    for (field, value, said) in [
        ("name", json!("Gate"), "batch \\\"Gate\\\""),
        ("name", json!(long), "at most 48"),
        ("devices", json!(0), "devices 0"),
        ("devices", json!(100_001), "devices 100001"),
        ("devices", json!("2"), "devices"),
        ("config_name", json!("none"), "config_name"),
        ("groups", json!(["none"]), "group"),
        ("labels", json!({ "a b": "" }), "label"),
        ("expires_in", json!("367d"), "expires_in"),
        ("later", json!(1), "later"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let refused = admin.expect(400, "POST", "/api/batches", &body.to_string());
        assert!(refused.text().contains(said), "{said}: {}", refused.text());
    }
    admin.expect(201, "POST", "/api/batches", &good.to_string());
    admin.expect(409, "POST", "/api/batches", &good.to_string());
}

#[test]
fn a_person_lets_devices_in_or_refuses_them() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        registered(&admin);
        let browser = Browser::log_in(&server);
        assert!(browser.get("/console/waiting").text().contains("No device waits"));
        let token = batch(&admin, json!({ "devices": 5, "approval": true }));
        for number in 1..=4 {
            let waits = asked(&server, &token, &device(number));
            assert_eq!(waits.status, 409, "{}", waits.text());
            let said = waits.text();
            assert!(
                said.contains(&device(number)) && said.contains("waits for approval"),
                "{said}"
            );
            assert!(!said.contains("password") && !said.contains("state"), "{said}");
            asked(&server, &token, &device(number));
        }
        let waiting = admin.get("/api/waiting").json();
        assert_eq!(waiting.as_array().unwrap().len(), 4, "{waiting}");
        assert_eq!(waiting[0]["labels"]["arch"], "linux_arm_v7");
        let events = admin.get("/api/events").json();
        assert_eq!((&events[0]["kind"], events.as_array().unwrap().len()), (&json!("waiting"), 4));
        assert!(browser.get("/console").text().contains("4 devices waiting for approval"));
        let page = browser.get("/console/waiting").text();
        for word in [&device(1), "linux_arm_v7", "Pi_2", "gate-10000000"] {
            assert!(page.contains(word), "{word}: {page}");
        }
        // One by the console, one refused there, and two by the command line.
        let at = |number: u32, action: &str| {
            let path = format!("/console/satellites/gate-{number}0000000/{action}");
            browser.submit("/console/waiting", &path, "").status
        };
        assert_eq!((at(1, "approve"), at(2, "revoke")), (303, 303));
        let person = Person::logged_in(&database, &server);
        let table = person.succeeds(&["satellite", "waiting"]);
        assert!(table.contains(&device(3)) && !table.contains(&device(1)), "{table}");
        let said = person.succeeds(&["satellite", "approve", "--batch", "gate"]);
        assert_eq!(said, "satellite/gate-30000000 approved\nsatellite/gate-40000000 approved\n");
        person.fails(&["satellite", "approve", "gate-30000000"]);
        let refused = asked(&server, &token, &device(2));
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert_eq!(admin.get("/api/satellites/gate-20000000").json()["Lifecycle"], "Revoked");
        // A server that ends between the approval and the next question has forgotten nothing.
        let address = server.address;
        server.kill();
        let server = Server::start_on(&database, address);
        for number in [1, 3, 4] {
            let satellite = Satellite::from_answer(&asked(&server, &token, &device(number)));
            satellite.client(&server).expect(200, "POST", "/satellites/sync", "{}");
        }
        let admin = server.admin();
        let audit = admin.get("/api/audit").text();
        for word in ["satellite.approve", "batch.create", "\"batch gate\""] {
            assert!(audit.contains(word), "{word}: {audit}");
        }
        let viewer = r#"{"username":"vic","password":"Battery-staple-2","role":"viewer"}"#;
        admin.expect(201, "POST", "/api/users", viewer);
        let vic = server.basic("vic", "Battery-staple-2");
        vic.expect(200, "GET", "/api/waiting", "");
        vic.expect(403, "POST", "/api/satellites/gate-10000000/approve", "");
        vic.expect(403, "POST", "/api/batches", "{}");
    });
}

#[test]
fn the_command_line_makes_a_batch() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    registered(&server.admin());
    let person = Person::logged_in(&database, &server);
    let made = person.succeeds(&[
        "batch",
        "add",
        "gate",
        "-n",
        "3",
        "-c",
        "c1",
        "-g",
        "g1",
        "-l",
        "site=north",
        "--approval",
    ]);
    let token = made.split("token = \"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(asked(&server, token, &device(1)).status, 409, "{made}");
    let list = person.succeeds(&["batch", "ls"]);
    assert!(list.contains("gate  1        3   true"), "{list}");
    person.succeeds(&["batch", "rm", "gate"]);
}
