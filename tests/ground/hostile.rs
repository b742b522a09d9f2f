//! What no client of good will sends.

use std::process::Stdio;

use crate::harness::{Answer, Client, Database, PASSWORD, Satellite, Server, on_each_store};

fn still_works(server: &Server, admin: &Client) {
    server.anyone().expect(200, "GET", "/health", "");
    admin.expect(200, "GET", "/api/groups", "");
}

#[test]
fn names_that_look_like_something_else() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let config = r#"{"config_name":"c1","config":{}}"#;
        admin.expect(201, "POST", "/api/configs", config);
        for name in [
            "",
            "a'; DROP TABLE satellites; --",
            "a\\\" OR 1=1",
            "../../etc/passwd",
            "%2e%2e",
            "a/b",
            "a b",
            "A",
            "<script>",
            "\\u0000",
            "active",
            "sync/../x",
            "a..b",
        ] {
            let group =
                format!(r#"{{"group":"{name}","artifacts":[{{"repository":"a","tag":["1"]}}]}}"#);
            let satellite = format!(r#"{{"name":"{name}","config_name":"c1"}}"#);
            let user = format!(r#"{{"username":"{name}","password":"Battery-staple-2"}}"#);
            if name != "active" {
                admin.expect(400, "POST", "/api/groups/sync", &group);
                admin.expect(400, "POST", "/api/configs", &config.replace("c1", name));
                admin.expect(400, "POST", "/api/users", &user);
            }
            let refused = admin.expect(400, "POST", "/api/satellites", &satellite).json();
            let message = refused["message"].as_str().unwrap();
            let expected = if name == "active" { "another name" } else { "lower-case letters" };
            assert!(message.starts_with("satellite \""), "{message}");
            assert!(message.contains(&format!("expected {expected}")), "{message}");
            let member = format!(r#"{{"satellite":"{name}","group":"{name}"}}"#);
            admin.expect(400, "POST", "/api/groups/satellite", &member);
        }
        for path in ["/api/groups/'%20OR%201=1", "/api/groups/%00", "/api/groups/%ff%fe"] {
            let status = admin.ask("GET", path, "").status;
            assert!([400, 404].contains(&status), "{path}: {status}");
        }
        for path in ["/satellites/ztr/'%20OR%20''='", "/satellites/ztr/%00"] {
            server.anyone().expect(400, "GET", path, "");
        }
        assert_eq!(admin.get("/api/satellites").json(), serde_json::json!([]));
        still_works(&server, &admin);
    });
}

#[test]
fn bodies_that_are_none() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        admin.expect(201, "POST", "/api/configs", r#"{"config_name":"c1","config":{}}"#);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in ["", "{", "null", "[]", "\"x\"", "{\"group\":5}", "\u{feff}{}", &deep] {
            admin.expect(400, "POST", "/api/groups/sync", body);
            admin.expect(400, "POST", "/api/satellites", body);
            let status = if body.len() > 4096 { 413 } else { 400 };
            server.anyone().expect(status, "POST", "/login", body);
        }
        let answer = server.anyone().ask("POST", "/satellites/ztr", "{\"token\":null}");
        assert_eq!(answer.status, 400);
        let long = format!(r#"{{"token":"{}"}}"#, "a".repeat(5000));
        server.anyone().expect(413, "POST", "/satellites/ztr", &long);
        let long = format!("username=admin&password={}", "a".repeat(5000));
        assert_eq!(form(&server.anyone(), "/console/login", &long).status, 413);
        let long = format!(r#"{{"group":"{}"}}"#, "a".repeat(2 << 20));
        admin.expect(413, "POST", "/api/groups/sync", &long);

        // The error says nothing of the body: it may hold a password.
        let body = r#"{"username":"admin","password":"hunter2hunter2"#;
        let answer = server.anyone().expect(400, "POST", "/login", body);
        assert!(!answer.text().contains("hunter2"));
        still_works(&server, &admin);
    });
}

fn form(client: &Client, path: &str, body: &str) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(head.as_bytes())
}

#[test]
fn bodies_that_do_not_come() {
    let database = Database::sqlite();
    let mut child = Server::command(&database, "127.0.0.1:0".parse().unwrap())
        .args(["--request-seconds", "1"])
        .env("GROUND_CONTROL_ADMIN_PASSWORD", PASSWORD)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let address = Server::address_of(&mut child);
    let server = Server { child, address };
    for path in ["/console/login", "/login", "/satellites/ztr"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: 4000\r\n\r\nusername="
        );
        // The answer comes, and the connection ends, though the client waits.
        assert_eq!(server.anyone().send(head.as_bytes()).status, 408, "{path}");
    }
    still_works(&server, &server.admin());
}

#[test]
fn one_address_that_guesses_is_slowed_down() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let limited = (0..1000).find(|number| {
        let wrong = server.basic(&format!("user{number}"), "Wrong-password-1");
        wrong.ask("GET", "/api/groups", "").status == 429
    });
    assert!(limited.is_some_and(|number| number >= 60), "{limited:?}");
}

#[test]
fn reports_that_are_too_much() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        admin.expect(201, "POST", "/api/configs", r#"{"config_name":"c1","config":{}}"#);
        let body = r#"{"name":"edge1","config_name":"c1"}"#;
        let token = admin.expect(200, "POST", "/api/satellites", body).json();
        let path = format!("/satellites/ztr/{}", token["token"].as_str().unwrap());
        let satellite = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        let robot = satellite.client(&server);
        let image = |text: &str| format!(r#"{{"cached_images":[{{"reference":"{text}"}}]}}"#);
        for (status, body) in [
            (400, String::new()),
            (200, "{\"activity\":\"\\u0000\"}".to_owned()),
            (400, r#"{"state_report_interval":"5m"}"#.to_owned()),
            (400, r#"{"state_report_interval":"@every 1500ms"}"#.to_owned()),
            (400, r#"{"request_created_time":"yesterday"}"#.to_owned()),
            (400, r#"{"memory_used_bytes":-1}"#.to_owned()),
            (400, format!(r#"{{"activity":"{}"}}"#, "a".repeat(256))),
            (400, image(&"a".repeat(513))),
            (413, image(&"a".repeat(2 << 20))),
            (200, image(&"a".repeat(512))),
            // The credentials count, not the name.
            (200, r#"{"name":"another","activity":"'; DROP TABLE statuses; --"}"#.to_owned()),
        ] {
            robot.expect(status, "POST", "/satellites/sync", &body);
        }
        let answer = robot.ask("POST", "/satellites/sync", r#"{"state_report_interval":"5m"}"#);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("interval \"5m\": expected \"@every"), "{message}");
        let status = admin.get("/api/satellites/edge1/status").json();
        assert_eq!(status["Activity"], "'; DROP TABLE statuses; --");

        // One satellite that reports too often is slowed down, and no other.
        let mut answers = (0..60).map(|_| robot.ask("POST", "/satellites/sync", "{}"));
        let limited = answers.find(|answer| answer.status == 429).unwrap();
        assert!(limited.text().contains(r#"{"error":"Too Many Requests"}"#));
        still_works(&server, &admin);
    });
}

#[test]
fn requests_that_are_no_http() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
        for bytes in [
            b"GET / HTTP/9\r\n\r\n".as_slice(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            long.as_bytes(),
        ] {
            let answer = server.anyone().send(bytes);
            assert!((400..500).contains(&answer.status), "{}", answer.head);
        }
        let body = b"POST /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
            Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert!(server.anyone().send(body).status >= 400);
        for header in ["Basic", "Basic !!!", "Bearer", "Basic Og==", "Negotiate x"] {
            server.with(header).expect(401, "GET", "/api/groups", "");
            server.with(header).expect(401, "GET", "/v2/", "");
        }
        still_works(&server, &admin);
    });
}
