//! What satellites are to hold against what they say they hold.

use serde_json::{Value, json};

use crate::console::Browser;
use crate::harness::{Client, GROUP, REPORT, Server, enrolled, on_each_store};

/// The digest in [`GROUP`].
const DIGEST: &str = "sha256:3e38f337856c3763a9ffe3a11da3bf216616964dcc7454c918229773c6d8a56a";

fn report(state: &str, digest: &str, more: &str) -> String {
    format!(
        r#"{{"state_report_interval":"@every 10s","storage_used_bytes":1000,"moonlet":{{
        "version":"9.9","platform":"linux/arm/v7","storage_size_bytes":100000,
        "flash_written_bytes":5000000,"received_bytes":7,{more}
        "images":[{{"reference":"127.0.0.1:5000/library/nginx:1.25","state":"{state}",
        "reason":"<why>","digest":"{digest}","held_bytes":5,"total_bytes":10}}]}}}}"#
    )
}

fn state(admin: &Client) -> Value {
    admin.expect(200, "GET", "/api/satellites/edge1/state", "").json()
}

fn axes(admin: &Client) -> Vec<String> {
    let state = state(admin);
    let words = ["connection", "updated", "health", "lifecycle"].map(|axis| state[axis].clone());
    let listed = &admin.get("/api/satellites").json()[0];
    // The list and the satellite say the same.
    let columns = ["Connection", "Updated", "Health", "Lifecycle"].map(|name| listed[name].clone());
    assert_eq!(words, columns);
    words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn desired_is_shown_against_reported() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        assert_eq!(axes(&admin), ["Unknown", "Unknown", "Unknown", "Registered"]);
        let robot = satellite.client(&server);
        let send = |report: &str| robot.expect(200, "POST", "/satellites/sync", report);
        send(&report("syncing", "", ""));
        assert_eq!(axes(&admin), ["Online", "Updating", "Healthy", "Enrolled"]);
        send(&report("failed", "", r#""problems":["no clock"],"#));
        assert_eq!(axes(&admin), ["Online", "OutOfDate", "Error", "Enrolled"]);
        let failed = state(&admin);
        assert_eq!(failed["reason"], "127.0.0.1:5000/library/nginx:1.25: failed: <why>");
        assert_eq!(failed["problems"], json!(["no clock"]));
        assert_eq!(failed["images"][0]["in_sync_since"], Value::Null);

        let more = r#""flash_used_percent":12.5,
            "plan_day":{"used_bytes":3000,"max_bytes":4000,"until":1000000000},"#;
        send(&report("held", DIGEST, more));
        assert_eq!(axes(&admin), ["Online", "UpToDate", "Healthy", "Enrolled"]);
        let held = state(&admin);
        let image = &held["images"][0];
        let since = image["in_sync_since"].as_str().unwrap();
        for (key, value) in [
            ("group", json!("g1")),
            ("desired_digest", json!(DIGEST)),
            ("digest", json!(DIGEST)),
            ("in_sync", json!(true)),
            ("held_bytes", json!(5)),
            ("total_bytes", json!(10)),
            ("reason", json!("<why>")),
        ] {
            assert_eq!(image[key], value, "{key}");
        }
        assert_eq!((&held["flash_used_percent"], &held["version"]), (&json!(12.5), &json!("9.9")));
        assert_eq!(
            (&held["plan_day"]["used_bytes"], &held["plan_month"]),
            (&json!(3000), &json!(null))
        );
        assert!(held["state_digest"]["desired"].as_str().unwrap().starts_with("sha256:"));
        // A second report of the same does not begin a new time.
        send(&report("held", DIGEST, more));
        assert_eq!(state(&admin)["images"][0]["in_sync_since"], since);

        let page = Browser::log_in(&server).get("/console/satellites/edge1").text();
        let plan = "2.9 KiB of 3.9 KiB, until 2001-09-09T01:46:40Z";
        for part in
            ["Healthy", "UpToDate", "&lt;why&gt;", "linux/arm/v7", "in sync: 1", "4.7 MiB", plan]
        {
            assert!(page.contains(part), "{part}");
        }
        let fleet = Browser::log_in(&server).get("/console").text();
        assert!(fleet.contains("UpToDate") && fleet.contains("Healthy"), "{fleet}");

        // A change of what is desired is not hidden by a report from before it.
        admin.expect(200, "POST", "/api/groups/sync", GROUP);
        assert_eq!(axes(&admin)[1], "UpToDate", "nothing changed");
        admin.expect(200, "POST", "/api/groups/sync", &GROUP.replace("3e38", "4e38"));
        assert_eq!(axes(&admin)[1], "OutOfDate");
        send(&report("held", DIGEST, ""));
        assert_eq!(axes(&admin)[1], "OutOfDate");
        assert_eq!(state(&admin)["images"][0]["in_sync"], false);
        let member = r#"{"satellite":"edge1","group":"g1"}"#;
        admin.expect(200, "DELETE", "/api/groups/satellite", member);
        assert_eq!(axes(&admin)[1], "OutOfDate", "it has not said that it removed the images");
        send("{}");
        assert_eq!(axes(&admin)[1], "UpToDate");
    });
}

/// A wait for a change does not end by the report before it.
#[test]
fn what_is_not_applied_yet_is_not_up_to_date() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let robot = satellite.client(&server);
        let published = |name: &str| {
            let digest = state(&admin)[name]["desired"].clone();
            digest.as_str().unwrap().to_owned()
        };
        let send = |digests: &(String, String), images: &str| {
            let (state, config) = digests;
            let report = format!(
                r#"{{"latest_state_digest":"{state}","latest_config_digest":"{config}",
                "moonlet":{{"version":"9.9","images":[{images}]}}}}"#
            );
            robot.expect(200, "POST", "/satellites/sync", &report);
            let updated = axes(&admin)[1].clone();
            (updated, state_reason(&admin))
        };
        let own = r#"{"reference":"127.0.0.1:5000/own:1","state":"held","digest":"sha256:0a"}"#;
        let image = |tag: &str, digest: &str| {
            format!(
                r#"{{"reference":"127.0.0.1:5000/library/nginx:{tag}","state":"held",
                "digest":"{digest}"}},{own}"#
            )
        };
        let current = || (published("state_digest"), published("config_digest"));
        let first = current();
        // An image of the device's own configuration is no group's business.
        let (updated, reason) = send(&first, &image("1.25", DIGEST));
        assert_eq!(updated, "UpToDate", "{reason}");

        // The satellite's state is the same, and the group's is another.
        let without = r#"{"group":"g1","registry":"http://127.0.0.1:5000"}"#;
        admin.expect(200, "POST", "/api/groups/sync", without);
        let (updated, reason) = send(&first, &image("1.25", DIGEST));
        assert_eq!(updated, "Updating", "{reason}");
        assert!(reason.contains("library/nginx:1.25: held: no group wants it"), "{reason}");
        assert_eq!(send(&first, own).0, "UpToDate");

        let patch = r#"{"app_config":{"log_level":"debug"}}"#;
        admin.expect(200, "PATCH", "/api/configs/c1", patch);
        assert_eq!(axes(&admin)[1], "OutOfDate", "another configuration");
        let (updated, reason) = send(&first, own);
        assert_eq!(updated, "Updating", "{reason}");
        assert!(reason.contains("configuration"), "{reason}");
        let second = current();
        assert_ne!(first, second);
        assert_eq!(send(&second, own).0, "UpToDate");

        let member = r#"{"satellite":"edge1","group":"g1"}"#;
        admin.expect(200, "DELETE", "/api/groups/satellite", member);
        assert_eq!(axes(&admin)[1], "OutOfDate");
        assert_eq!(send(&second, own).0, "Updating");
        assert_eq!(send(&current(), own).0, "UpToDate");
        // One that does not say what it applied is judged by its images.
        assert_eq!(send(&(String::new(), String::new()), own).0, "UpToDate");
    });
}

fn state_reason(admin: &Client) -> String {
    let reason = state(admin)["reason"].as_str().unwrap().to_owned();
    assert_eq!(admin.get("/api/satellites").json()[0]["Reason"], reason);
    reason
}

#[test]
fn a_list_of_images_has_a_limit() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let images: Vec<String> = (0..1001)
            .map(|n| format!(r#"{{"reference":"h:1/a:{n}@sha256:{n:04}","size_bytes":1}}"#))
            .collect();
        let report = format!(r#"{{"cached_images":[{}]}}"#, images.join(","));
        satellite.client(&server).expect(200, "POST", "/satellites/sync", &report);
        let page = admin.get("/api/images").json();
        assert_eq!(page.as_array().unwrap().len(), 1000);
        let path = "/api/images?after=sha256:0999";
        assert_eq!(admin.get(path).json()[0]["digest"], "sha256:1000");
    });
}

#[test]
fn a_digest_leads_to_its_holders() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (admin, satellite) = enrolled(&server);
        let robot = satellite.client(&server);
        robot.expect(200, "POST", "/satellites/sync", &report("held", DIGEST, ""));
        let path = format!("/api/images?digest={DIGEST}");
        let holders = admin.expect(200, "GET", &path, "").json();
        assert_eq!(holders[0]["satellite"], "edge1");
        assert_eq!(holders[0]["image"], "library/nginx:1.25");
        let all = admin.get("/api/images").json();
        assert_eq!((&all[0]["digest"], &all[0]["satellites"]), (&json!(DIGEST), &json!(1)));
        assert_eq!(admin.get(&format!("{path}&after=edge1")).json(), json!([]));
        admin.expect(400, "GET", "/api/images?digest=sha256:1", "");
        let browser = Browser::log_in(&server);
        let page = browser.get(&format!("/console/images?digest={DIGEST}")).text();
        assert!(page.contains("/console/satellites/edge1"));
        assert!(browser.get("/console/images").text().contains("3e38f337856c"));
        assert_eq!(browser.get("/console/images?digest=%3Cx%3E").status, 400);
        // What it does not hold any more is not found.
        robot.expect(200, "POST", "/satellites/sync", REPORT);
        assert_eq!(admin.get(&path).json(), json!([]));
        admin.expect(200, "DELETE", "/api/satellites/edge1", "");
        assert_eq!(admin.get("/api/images").json(), json!([]));
    });
}
