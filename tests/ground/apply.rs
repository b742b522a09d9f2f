//! `ground-control apply`: a fleet in a file.

use crate::cli::{FLEET, Person};
use crate::harness::{Database, Satellite, Server, on_each_store};
use serde_json::json;
use std::fs;

#[test]
fn a_fleet_is_applied_and_stays() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let person = Person::logged_in(&database, &server);
        let admin = server.admin();
        // A dry run says all and does nothing.
        let dry = person.succeeds(&["apply", "-f", "fleet.yaml", "--dry-run"]);
        for part in [
            "config/default would be created",
            "group/base would be created",
            "  + library/busybox:1.37",
            "satellite/gateway-17 would be created",
            "  holds + registry.example/library/nginx:1.27",
            "  label site: nothing -> \"north\"",
        ] {
            assert!(dry.contains(part), "{part}: {dry}");
        }
        assert!(!dry.contains("hidden-secret"), "{dry}");
        for list in ["/api/configs", "/api/groups", "/api/satellites"] {
            assert_eq!(admin.get(list).json(), json!([]), "{list}");
        }

        let applied = person.succeeds(&["apply", "-f", "fleet.yaml"]);
        assert_eq!(applied.matches(" created\n").count(), 4, "{applied}");
        let group = admin.get("/api/groups/web").json();
        assert_eq!(group["Registry"], "https://registry.example");
        let again = person.succeeds(&["apply", "-f", "fleet.yaml"]);
        assert_eq!(again.matches(" unchanged\n").count(), 4, "{again}");
        assert_eq!(again.lines().count(), 4, "{again}");

        // The secret reaches the satellite and no person.
        let token = person.json(&["satellite", "token", "gateway-17"]);
        let path = format!("/satellites/ztr/{}", token["token"].as_str().unwrap());
        let satellite = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        let (_, state) = satellite.read(&server, &satellite.state).unwrap();
        let (_, config) = satellite.read(&server, state["config"].as_str().unwrap()).unwrap();
        assert_eq!(config["moonlet"]["registries"][0]["password"], "hidden-secret");
        assert!(!person.succeeds(&["config", "show", "default", "-o", "yaml"]).contains("hidden"));

        // A changed file is shown, then applied; what is listed can be applied again.
        let changed = FLEET.replace("1.27", "1.28").replace("[web, base]", "[web]");
        fs::write(person.home.join("changed.yaml"), &changed).unwrap();
        let diff = person.run(&["group", "diff", "-f", "changed.yaml"]);
        assert_eq!(diff.code, 1);
        assert_eq!(
            diff.out,
            "group/web would be changed\n  - library/nginx:1.27\n  + library/nginx:1.28\n"
        );
        let diff = person.run(&["satellite", "diff", "gateway-17", "-f", "changed.yaml"]);
        assert_eq!(diff.code, 1);
        assert_eq!(
            diff.out,
            "- library/busybox:1.36\n- library/busybox:1.37\n\
             - registry.example/library/nginx:1.27\n+ registry.example/library/nginx:1.28\n"
        );
        let applied = person.succeeds(&["apply", "-f", "changed.yaml"]);
        for part in ["group/web changed", "satellite/gateway-17 changed", "base unchanged"] {
            assert!(applied.contains(part), "{part}: {applied}");
        }
        assert_eq!(admin.get("/api/satellites/gateway-17").json()["Groups"], json!(["web"]));
        assert_eq!(person.run(&["group", "diff", "-f", "changed.yaml"]).code, 0);
        let mut all = String::new();
        for noun in ["config", "group", "satellite"] {
            all += &format!("---\n{}", person.succeeds(&[noun, "ls", "-o", "yaml"]));
        }
        fs::write(person.home.join("all.yaml"), &all).unwrap();
        let applied = person.succeeds(&["apply", "-f", "all.yaml"]);
        assert_eq!(applied.matches(" unchanged\n").count(), 4, "{all}{applied}");

        // What no document names goes only when it is asked for, and only of the same kinds.
        let only = changed.split("---\n").nth(1).unwrap();
        fs::write(person.home.join("only.yaml"), only).unwrap();
        person.succeeds(&["apply", "-f", "only.yaml"]);
        admin.expect(200, "GET", "/api/groups/base", "");
        let pruned = person.succeeds(&["apply", "-f", "only.yaml", "--prune"]);
        assert_eq!(pruned, "group/web unchanged\ngroup/base removed\n");
        admin.expect(404, "GET", "/api/groups/base", "");
        admin.expect(200, "GET", "/api/satellites/gateway-17", "");
    });
}

#[test]
fn a_satellite_changes_its_groups_at_once() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let person = Person::logged_in(&database, &server);
        let admin = server.admin();
        person.succeeds(&["apply", "-f", "fleet.yaml"]);
        let moved =
            FLEET.replace("[web, base]", "[base, zeta]").replace("site: north", "site: south")
                + "---\napiVersion: moonlet/v1\nkind: Group\nmetadata: {name: zeta}\n\
               spec: {artifacts: [{repository: z, tag: ['1']}]}\n";
        fs::write(person.home.join("moved.yaml"), moved).unwrap();
        person.succeeds(&["apply", "-f", "moved.yaml"]);
        let row = admin.get("/api/satellites").json()[0].clone();
        assert_eq!(
            (&row["Groups"], &row["ConfigName"]),
            (&json!(["base", "zeta"]), &json!("default"))
        );
        assert_eq!(row["Labels"], json!({ "site": "south" }));
        let log = admin.get("/api/audit").json();
        let groups = log.as_array().unwrap().iter();
        let groups: Vec<_> = groups.filter(|entry| entry["action"] == "satellite.groups").collect();
        assert_eq!(groups.len(), 1, "in between it would want neither: {log}");
        assert_eq!(
            (&groups[0]["before"], &groups[0]["after"]),
            (&json!(["web"]), &json!(["zeta"]))
        );

        // All of one request or nothing.
        let path = "/api/satellites/gateway-17";
        let change = r#"{"labels":{"site":"west"},"groups":["web","none"]}"#;
        let answer = admin.expect(400, "PATCH", path, change);
        assert!(answer.text().contains("none"), "{}", answer.text());
        assert_eq!(admin.get(path).json()["Labels"], json!({ "site": "south" }));
        admin.expect(200, "PATCH", path, r#"{"groups":[]}"#);
        let row = admin.get("/api/satellites").json()[0].clone();
        assert_eq!((&row["Groups"], &row["Labels"]["site"]), (&json!([]), &json!("south")));
    });
}

#[test]
fn nothing_is_pruned_that_is_needed_or_after_a_failure() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::logged_in(&database, &server);
    let admin = server.admin();
    person.succeeds(&["apply", "-f", "fleet.yaml"]);
    // A satellite's document names a group that no document has: it would lose it.
    let documents: Vec<&str> = FLEET.split("---\n").collect();
    fs::write(person.home.join("less.yaml"), documents[..2].join("---\n")).unwrap();
    person.succeeds(&["apply", "-f", "less.yaml", "--dry-run"]);
    let error = person.fails(&["apply", "-f", "less.yaml", "--prune"]);
    assert!(error.contains(r#"spec.groups "base": --prune removes that group"#), "{error}");
    admin.expect(200, "GET", "/api/groups/base", "");
    // Who would lose a group is shown.
    fs::write(person.home.join("web.yaml"), documents[1]).unwrap();
    let dry = person.succeeds(&["apply", "-f", "web.yaml", "--prune", "--dry-run"]);
    assert!(dry.ends_with("group/base would be removed\n  from satellite gateway-17\n"), "{dry}");

    // A password that is a mask is one of no new configuration.
    let broken = "apiVersion: moonlet/v1\nkind: Config\nmetadata: {name: broken}\nspec: {moonlet: \
        {registries: [{url: 'https://r.example', username: u, password: '********'}]}}\n---\n";
    fs::write(person.home.join("broken.yaml"), format!("{broken}{}", documents[1])).unwrap();
    let ran = person.run(&["apply", "-f", "broken.yaml", "--prune"]);
    assert_eq!(ran.code, 2, "{}{}", ran.out, ran.error);
    assert!(ran.error.contains("config/broken: "), "{}", ran.error);
    assert!(ran.error.contains("nothing was removed"), "{}", ran.error);
    admin.expect(200, "GET", "/api/groups/base", "");
}

#[test]
fn documents_with_mistakes_change_nothing() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::logged_in(&database, &server);
    let bad = FLEET
        .replace("[\"1.27\"]", "[1.27]")
        .replace("heartbeat_interval:", "heartbeat:")
        .replace("tag: [\"1.36\"", "tags: [\"1.36\"");
    fs::create_dir(person.home.join("fleet")).unwrap();
    fs::write(person.home.join("fleet/one.yaml"), bad).unwrap();
    fs::write(person.home.join("fleet/two.yml"), "kind: [\n").unwrap();
    fs::write(person.home.join("edge.secret"), "x").unwrap();
    fs::copy(person.home.join("edge.secret"), person.home.join("fleet/edge.secret")).unwrap();
    let error = person.fails(&["apply", "-f", "fleet"]);
    for part in [
        "fleet/one.yaml: document 2, Group \"web\": spec.artifacts[0].tag[0]: ",
        "fleet/one.yaml: document 3, Group \"base\": spec.artifacts.0.tags: an unknown field",
        "fleet/one.yaml: document 4, Config \"default\": spec.app_config.heartbeat: an unknown",
        "fleet/two.yml: ",
        "nothing was changed",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // A name that leads nowhere is found before the first change as well.
    fs::write(person.home.join("fleet.yaml"), FLEET.replace("[web, base]", "[web, bsae]")).unwrap();
    let error = person.fails(&["apply", "-f", "fleet.yaml"]);
    let part = "document 1, Satellite \"gateway-17\": spec.groups \"bsae\": no such group";
    assert!(error.contains(part), "{error}");
    let admin = server.admin();
    for list in ["/api/configs", "/api/groups", "/api/satellites"] {
        assert_eq!(admin.get(list).json(), json!([]), "{list}");
    }
    assert!(person.fails(&["aply"]).contains("apply"));
}
