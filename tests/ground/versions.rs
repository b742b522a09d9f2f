//! Two people change the same thing: neither undoes what the other did unseen.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use serde_json::json;

use crate::cli::Person;
use crate::console::Browser;
use crate::harness::{Answer, Client, Server, on_each_store, registered};

fn tag(answer: &Answer) -> String {
    let tag = answer.header("etag").unwrap_or_else(|| panic!("no ETag: {}", answer.head));
    format!("If-Match: {tag}\r\n")
}

fn group(images: &str) -> String {
    format!(r#"{{"group":"g1","artifacts":[{{"repository":"a","tag":["{images}"]}}]}}"#)
}

/// A method, a path, where it is read, its body for a value, and the part that changes.
type Change<'a> = (&'a str, &'a str, &'a str, &'a dyn Fn(&str) -> String, &'a str);

#[test]
fn a_stale_version_changes_nothing() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        registered(&admin);
        admin.expect(
            201,
            "POST",
            "/api/users",
            r#"{"username":"eve","password":"Battery-staple-2"}"#,
        );
        let labels = |value: &str| format!(r#"{{"labels":{{"ring":"{value}"}}}}"#);
        let level = |value: &str| format!(r#"{{"app_config":{{"log_level":"{value}"}}}}"#);
        let password = |value: &str| format!(r#"{{"new_password":"Battery-staple-{value}"}}"#);
        let rollout =
            r#"{"name":"r1","group":"g1","state":{"artifacts":[{"repository":"b","tag":["2"]}]}}"#;
        let changes: [Change<'_>; 4] = [
            ("POST", "/api/groups/sync", "/api/groups/g1", &group, "images"),
            ("PATCH", "/api/configs/c1", "/api/configs/c1", &level, "values"),
            ("PATCH", "/api/satellites/edge1", "/api/satellites/edge1", &labels, "labels"),
            ("PATCH", "/api/users/eve/password", "/api/users/eve", &password, "password"),
        ];
        for (method, path, read, body, part) in changes {
            let first = admin.get(read);
            let seen = tag(&first);
            assert_eq!(tag(&admin.get(read)), seen, "{read}: it has not changed");
            let body = |value: &str| match path {
                "/api/configs/c1" => body(if value == "3" { "warn" } else { "error" }),
                _ => body(value),
            };
            assert!(admin.ask_with(method, path, &seen, &body("3")).status < 300, "{path}");
            let refused = admin.ask_with(method, path, &seen, &body("4"));
            let text = refused.text();
            assert_eq!(refused.status, 412, "{path}: {text}");
            let name = read.rsplit('/').next().unwrap();
            for word in [format!("{name} has changed"), format!("({part}"), "by admin".to_owned()] {
                assert!(text.contains(&word), "{word}: {text}");
            }
            assert_eq!(admin.ask_with("DELETE", read, &seen, "").status, 412, "{read}");
            // What stands is what the first one made of it, and its version is good.
            let now = tag(&admin.get(read));
            assert_ne!(now, seen);
            assert!(admin.ask_with(method, path, &now, &body("5")).status < 300, "{path}");
            // Without a version it goes as it always went, and with any that is there too.
            admin.ask_with(method, path, "If-Match: *\r\n", &body("6"));
            assert!(admin.ask(method, path, &body("7")).status < 300, "{path}");
            for bad in ["If-Match: x\r\n", "If-Match:\r\n"] {
                assert_eq!(admin.ask_with(method, path, bad, &body("8")).status, 400, "{bad}");
            }
            assert_eq!(
                admin.ask_with(method, path, "If-Match: W/\"x\"\r\n", &body("8")).status,
                412
            );
        }
        let started = admin.expect(201, "POST", "/api/rollouts", rollout);
        let seen = tag(&started);
        let paused = admin.ask_with(
            "POST",
            "/api/rollouts/r1/pause",
            &tag(&admin.get("/api/rollouts/r1")),
            "",
        );
        assert!([200, 412].contains(&paused.status), "{}", paused.text());
        admin.ask("POST", "/api/rollouts/r1/pause", "");
        let stale = admin.ask_with("POST", "/api/rollouts/r1/resume", &seen, "");
        assert_eq!(stale.status, 412, "{}", stale.text());
        assert!(stale.text().contains("phase"), "{}", stale.text());
        let now = tag(&admin.get("/api/rollouts/r1"));
        assert_eq!(admin.ask_with("POST", "/api/rollouts/r1/resume", &now, "").status, 200);
    });
}

#[test]
fn what_is_to_be_new_takes_the_place_of_nothing() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let new = "If-None-Match: *\r\n";
        assert_eq!(admin.ask_with("POST", "/api/groups/sync", new, &group("1")).status, 200);
        let taken = admin.ask_with("POST", "/api/groups/sync", new, &group("2"));
        assert_eq!(taken.status, 412);
        assert!(taken.text().contains("g1 exists"), "{}", taken.text());
        // One that was deleted and made again is not the one that was read.
        let seen = tag(&admin.get("/api/groups/g1"));
        admin.expect(200, "DELETE", "/api/groups/g1", "");
        let gone = admin.ask_with("POST", "/api/groups/sync", &seen, &group("2"));
        assert_eq!(gone.status, 412, "{}", gone.text());
        admin.expect(200, "POST", "/api/groups/sync", &group("1"));
        assert_eq!(admin.ask_with("POST", "/api/groups/sync", &seen, &group("2")).status, 412);
        // A list has the same versions.
        let list = admin.get("/api/groups").json();
        let one = admin.get("/api/groups/g1");
        assert_eq!(list[0]["ETag"].as_str(), one.header("etag"));
    });
}

/// Of two who read the same and write at the same time one is refused, every time.
#[test]
fn of_two_who_race_one_wins() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        registered(&admin);
        admin.expect(200, "POST", "/api/groups/sync", &group("0"));
        for round in 0..20 {
            let seen = tag(&admin.get("/api/groups/g1"));
            let start = Barrier::new(2);
            let write = |who: u8, client: Client| {
                start.wait();
                let body = group(&format!("{round}-{who}"));
                (client.ask_with("POST", "/api/groups/sync", &seen, &body).status, who)
            };
            let results = thread::scope(|scope| {
                let one = scope.spawn(|| write(1, admin.clone()));
                let other = scope.spawn(|| write(2, admin.clone()));
                [one.join().unwrap(), other.join().unwrap()]
            });
            let winners: Vec<u8> = results
                .iter()
                .filter_map(|(status, who)| (*status == 200).then_some(*who))
                .collect();
            let [winner] = winners[..] else { panic!("round {round}: {results:?}") };
            assert!(results.iter().any(|(status, _)| *status == 412), "{results:?}");
            let images = admin.get("/api/groups/g1").json()["Artifacts"][0]["tag"].clone();
            assert_eq!(images, json!([format!("{round}-{winner}")]));
        }
    });
}

#[test]
fn the_console_saves_what_it_showed() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        registered(&admin);
        let browser = Browser::log_in(&server);
        let page = "/console/groups/g1";
        let shown = browser.get(page).text();
        admin.expect(200, "POST", "/api/groups/sync", &group("9"));
        let late = browser.send(&shown, page, "registry=&platforms=&images=mine%3A1");
        let text = late.text();
        assert_eq!(late.status, 412, "{text}");
        assert!(text.contains("has changed since it was read (images, registry)"), "{text}");
        assert!(text.contains("mine:1</textarea>"), "what was typed is kept: {text}");
        assert_eq!(admin.get("/api/groups/g1").json()["Artifacts"][0]["repository"], "a");
        // A group that somebody else made meanwhile is not the new one.
        let new = browser.get("/console/groups/g2").text();
        admin.expect(200, "POST", "/api/groups/sync", &group("9").replace("g1", "g2"));
        let late = browser.send(&new, "/console/groups/g2", "registry=&platforms=&images=mine%3A1");
        assert_eq!(late.status, 412, "{}", late.text());
        // A satellite's groups are one thing and its labels another.
        let page = "/console/satellites/edge1";
        let shown = browser.get(page).text();
        admin.expect(200, "PATCH", "/api/satellites/edge1", r#"{"labels":{"ring":"1"}}"#);
        let labels = browser.send(&shown, &format!("{page}/labels"), "labels=site%3Dnorth");
        assert_eq!(labels.status, 412, "{}", labels.text());
        let groups = browser.send(&shown, &format!("{page}/groups"), "groups=g2");
        assert_eq!(groups.status, 303, "{}", groups.text());
        let satellite = admin.get("/api/satellites/edge1").json();
        assert_eq!(
            (&satellite["Labels"], &satellite["Groups"]),
            (&json!({"ring":"1"}), &json!(["g2"]))
        );
    });
}

/// The command line reads before it writes, and what it read is what it changes.
#[test]
fn the_command_line_changes_what_it_read() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let quick = |tag: u32| group(&tag.to_string()).replace("g1", "web");
        admin.expect(200, "POST", "/api/groups/sync", &quick(0));
        // Somebody is quicker each time: between the two requests of the command.
        let (count, rival) = (Arc::new(AtomicU32::new(1)), admin.clone());
        let counted = Arc::clone(&count);
        let between = move || {
            let count = counted.load(Ordering::Relaxed);
            if count > 0 {
                counted.store(count + 1, Ordering::Relaxed);
                rival.expect(200, "POST", "/api/groups/sync", &quick(count));
            }
        };
        let mut person = Person::new(&database, &server);
        person.server = format!("http://{}", interrupted(server.address, between));
        let url = person.server.clone();
        person.succeeds(&["login", &url, "--password-file", "password"]);
        let error = person.fails(&["group", "set", "web", "c:1"]);
        assert!(error.contains("web has changed since it was read (images)"), "{error}");
        let error = person.fails(&["apply", "-f", "fleet.yaml"]);
        assert!(error.contains("group/web: group web has changed"), "{error}");
        assert!(count.load(Ordering::Relaxed) >= 3);
        assert_eq!(admin.get("/api/groups/web").json()["Artifacts"][0]["repository"], "a");
        // Without another in between it works.
        count.store(0, Ordering::Relaxed);
        person.succeeds(&["group", "set", "web", "c:1"]);
        person.succeeds(&["apply", "-f", "fleet.yaml"]);
    });
}

/// Hands on what is said to a server, and calls `between` before each change of a group.
fn interrupted(server: SocketAddr, between: impl Fn() + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let between = Arc::new(between);
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut there = TcpStream::connect(server).unwrap();
            let (mut back, mut out) = (there.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || drop(std::io::copy(&mut back, &mut out)));
            let between = Arc::clone(&between);
            thread::spawn(move || {
                let mut bytes = vec![0; 64 << 10];
                while let Ok(count @ 1..) = client.read(&mut bytes) {
                    if bytes.starts_with(b"POST /api/groups/sync ") {
                        between();
                    }
                    if there.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                let _ = there.shutdown(Shutdown::Both);
            });
        }
    });
    address
}
