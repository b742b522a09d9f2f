//! Labels of satellites, and what is chosen by them.

use serde_json::{Value, json};

use crate::console::Browser;
use crate::harness::{CONFIG, Client, GROUP, Server, on_each_store, registered};

fn names(answer: &Value) -> Vec<&str> {
    answer.as_array().unwrap().iter().map(|row| row["Name"].as_str().unwrap()).collect()
}

fn chosen(admin: &Client, query: &str) -> Vec<String> {
    let answer = admin.expect(200, "GET", &format!("/api/satellites?{query}"), "").json();
    names(&answer).into_iter().map(str::to_owned).collect()
}

#[test]
fn satellites_are_chosen_by_labels() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        admin.expect(201, "POST", "/api/configs", CONFIG);
        for (name, labels) in [
            ("a", r#"{"site":"north","rack":"1"}"#),
            ("b", r#"{"site":"north","rack":"2","gpu":""}"#),
            ("c", r#"{"site":"south","example.com/tier":"1"}"#),
            ("d", "null"),
        ] {
            let body = format!(r#"{{"name":"{name}","config_name":"c1","labels":{labels}}}"#);
            admin.expect(200, "POST", "/api/satellites", &body);
        }
        for (query, expected) in [
            ("", "abcd"),
            ("selector=site%3Dnorth", "ab"),
            ("selector=site%3Dnorth%2Crack!%3D2", "a"),
            ("selector=rack!%3D2", "acd"),
            ("selector=gpu", "b"),
            ("selector=!site", "d"),
            ("selector=example.com%2Ftier%3D%3D1", "c"),
            ("limit=2", "ab"),
            ("limit=2&after=b", "cd"),
            ("limit=1&after=a&selector=site", "b"),
            ("after=d", ""),
        ] {
            assert_eq!(chosen(&admin, query).concat(), expected, "{query}");
        }
        for bad in ["selector=%27", "selector=a%3Db%3Dc", "limit=0", "limit=x", "limit=1001"] {
            let answer = admin.expect(400, "GET", &format!("/api/satellites?{bad}"), "").json();
            assert!(answer["message"].as_str().unwrap().contains("expected"), "{answer}");
        }

        let change = r#"{"labels":{"site":"west","rack":null,"new":"1"}}"#;
        let answer = admin.expect(200, "PATCH", "/api/satellites/a", change).json();
        assert_eq!(answer["Labels"], json!({ "site": "west", "new": "1" }));
        let list = admin.get("/api/satellites").json();
        assert_eq!(list[0]["Labels"], answer["Labels"]);
        assert_eq!(list[3]["Labels"], json!({}));
        let many: Vec<String> = (0..33).map(|number| format!(r#""l{number}":"1""#)).collect();
        let many = format!(r#"{{"labels":{{{}}}}}"#, many.join(","));
        for bad in [r#"{"labels":{"a b":"1"}}"#, r#"{"labels":{"a":"b c"}}"#, r#"{"x":1}"#, &many] {
            admin.expect(400, "PATCH", "/api/satellites/a", bad);
        }
        assert_eq!(admin.get("/api/satellites/a").json()["Labels"], answer["Labels"]);
        admin.expect(404, "PATCH", "/api/satellites/none", change);

        let browser = Browser::log_in(&server);
        let page = browser.get("/console?selector=site%3Dnorth").text();
        assert!(
            page.contains("/console/satellites/b\"") && !page.contains("/console/satellites/a\"")
        );
        let bad = browser.get("/console?selector=a%3Db%3Dc");
        assert!(bad.status == 400 && bad.text().contains("selector"), "{}", bad.text());
        let path = "/console/satellites/b";
        let saved = browser.submit(path, &format!("{path}/labels"), "labels=site%3Deast+gpu%3D1");
        assert_eq!(saved.status, 303, "{}", saved.text());
        let labels = admin.get("/api/satellites/b").json()["Labels"].clone();
        assert_eq!(labels, json!({ "site": "east", "gpu": "1" }));
    });
}

#[test]
fn facts_become_labels_unless_given() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let token = registered(&server.admin());
        let admin = server.admin();
        admin.expect(200, "PATCH", "/api/satellites/edge1", r#"{"labels":{"arch":"mine"}}"#);
        let enrol = |facts: &str, status| {
            let body = format!(r#"{{"token":"{token}","facts":{facts}}}"#);
            server.anyone().expect(status, "POST", "/satellites/ztr", &body);
            admin.get("/api/satellites/edge1").json()["Labels"].clone()
        };
        let labels = enrol(r#"{"arch":"arm","platform":"linux/arm/v7","version":"1.0"}"#, 200);
        let expected = json!({ "arch": "mine", "platform": "linux_arm_v7", "version": "1.0" });
        assert_eq!(labels, expected);
        // The device that enrols next has other facts.
        assert_eq!(enrol(r#"{"version":"2.0"}"#, 200), json!({ "arch": "mine", "version": "2.0" }));
        enrol(r#"{"Version":"2.0"}"#, 400);
        let many: Vec<String> = (0..17).map(|number| format!(r#""f{number}":"1""#)).collect();
        let labels = enrol(&format!("{{{}}}", many.join(",")), 400);
        assert_eq!(labels, json!({ "arch": "mine", "version": "2.0" }));
    });
}

#[test]
fn lists_of_a_group_and_of_who_reports_have_pages() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        admin.expect(201, "POST", "/api/configs", CONFIG);
        admin.expect(200, "POST", "/api/groups/sync", GROUP);
        for name in ["a", "b", "c"] {
            let body = format!(r#"{{"name":"{name}","groups":["g1"],"config_name":"c1"}}"#);
            let token = admin.expect(200, "POST", "/api/satellites", &body).json();
            let path = format!("/satellites/ztr/{}", token["token"].as_str().unwrap());
            let answer = server.anyone().expect(200, "GET", &path, "");
            let robot = crate::harness::Satellite::from_answer(&answer).client(&server);
            robot.expect(200, "POST", "/satellites/sync", "{}");
        }
        let body = r#"{"name":"other","config_name":"c1"}"#;
        admin.expect(200, "POST", "/api/satellites", body);
        for path in ["/api/groups/g1/satellites", "/api/satellites/active"] {
            assert_eq!(names(&admin.get(path).json()), ["a", "b", "c"], "{path}");
            let page = admin.expect(200, "GET", &format!("{path}?after=a&limit=1"), "").json();
            assert_eq!(names(&page), ["b"], "{path}");
        }
    });
}
