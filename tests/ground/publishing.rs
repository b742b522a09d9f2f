//! Artifacts in another registry: the real docker-registry, and a stand-in for Harbor before one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Directory, free_port, missing, run};
use crate::console::Browser;
use crate::harbor::{Harbor, SECRET, USER};
use crate::harness::{
    Answer, Client, Database, GROUP, REPORT, Satellite, Server, on_each_store, registered,
};
use crate::members::{await_image, fleet, prepare, register, set_group};
use crate::registry::Registry;
use crate::satellite::wait_until;

const G1: &str = "satellite/group-state/g1/state";
const C1: &str = "satellite/config-state/c1/state";
const EDGE1: &str = "satellite/satellite-state/edge1/state";

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn to_registry(database: &Database, listen: SocketAddr, url: &str) -> Server {
    let settings = [
        ("PUBLISH", "registry"),
        ("PUBLISH_URL", url),
        ("PUBLISH_USERNAME", "publisher"),
        ("PUBLISH_PASSWORD", "push"),
    ];
    Server::start_with(database, listen, &settings)
}

fn to_harbor(database: &Database, url: &str) -> Server {
    let settings = [
        ("PUBLISH", "harbor"),
        ("PUBLISH_URL", url),
        ("PUBLISH_USERNAME", USER),
        ("PUBLISH_PASSWORD", SECRET),
    ];
    Server::start_with(database, any(), &settings)
}

fn publishing(admin: &Client) -> Value {
    admin.expect(200, "GET", "/api/publishing", "").json()
}

fn await_published(admin: &Client) {
    let is_done = || {
        let how = publishing(admin);
        how["waiting"] == 0 && how["problem"] == "" && how["good_at"] != Value::Null
    };
    wait_until(is_done, || publishing(admin).to_string());
}

/// The digest that this server serves under its own `/v2/`.
fn own_digest(server: &Server, satellite: &Satellite, repository: &str) -> String {
    let path = format!("/v2/{repository}/manifests/latest");
    let answer: Answer = satellite.client(server).expect(200, "HEAD", &path, "");
    answer.header("docker-content-digest").unwrap().to_owned()
}

/// With and without passwords: what is there is what Ground Control serves itself, and what nothing
/// wants any more goes.
#[test]
fn a_registry_gets_what_changed() {
    on_each_store(|database| {
        for registry in [Registry::start(&database), Registry::start_guarded(&database)] {
            let server = to_registry(&database, any(), &registry.url());
            let admin = server.admin();
            let token = registered(&admin);
            await_published(&admin);
            let enrolled =
                server.anyone().expect(200, "GET", &format!("/satellites/ztr/{token}"), "");
            let satellite = Satellite::from_answer(&enrolled);
            assert_eq!(satellite.state, format!("{}/{EDGE1}:latest", registry.url()));
            assert_eq!(enrolled.json()["auth"]["url"], registry.url());
            await_published(&admin);
            for repository in [G1, C1, EDGE1] {
                let own = own_digest(&server, &satellite, repository);
                assert_eq!(registry.latest_digest(repository), Some(own), "{repository}");
            }
            let before = [C1, EDGE1].map(|repository| registry.latest_digest(repository));
            let group = registry.latest_digest(G1);
            admin.expect(200, "POST", "/api/groups/sync", &GROUP.replace("1.25", "1.26"));
            wait_until(|| registry.latest_digest(G1) != group, || publishing(&admin).to_string());
            assert_eq!([C1, EDGE1].map(|repository| registry.latest_digest(repository)), before);
            admin.expect(200, "DELETE", "/api/satellites/edge1", "");
            wait_until(
                || registry.latest_digest(EDGE1).is_none(),
                || publishing(&admin).to_string(),
            );
            admin.expect(200, "DELETE", "/api/groups/g1", "");
            admin.expect(200, "DELETE", "/api/configs/c1", "");
            let metrics = || server.anyone().get("/metrics").text();
            wait_until(|| metrics().contains("ground_control_publish_waiting 0\n"), metrics);
        }
    });
}

/// Killed between commit and publishing, and while it publishes: what was answered gets there.
#[test]
fn a_killed_server_publishes_what_it_committed() {
    on_each_store(|database| {
        let mut registry = Registry::start(&database);
        let url = registry.url();
        let mut server = to_registry(&database, any(), &url);
        let listen = server.address;
        registered(&server.admin());
        await_published(&server.admin());
        registry.stop();
        server.admin().expect(200, "POST", "/api/groups/sync", &GROUP.replace("1.25", "1.26"));
        server.kill();
        registry.start_again();
        let before = registry.latest_digest(G1);
        server = to_registry(&database, listen, &url);
        wait_until(
            || registry.latest_digest(G1) != before,
            || publishing(&server.admin()).to_string(),
        );
        for step in 0..KILLS {
            let admin = server.admin();
            let tag = format!("2.{step}");
            admin.expect(200, "POST", "/api/groups/sync", &GROUP.replace("1.25", &tag));
            std::thread::sleep(std::time::Duration::from_millis(150 * step));
            server.kill();
            server = to_registry(&database, listen, &url);
        }
        let admin = server.admin();
        await_published(&admin);
        let last = admin.get("/api/groups/g1").json();
        assert_eq!(last["Artifacts"][0]["tag"][0], format!("2.{}", KILLS - 1));
        let manifest = registry.latest(G1, "GET").json();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        let path = format!("/v2/{G1}/blobs/{layer}");
        let layer = Client::at(registry.address).expect(200, "GET", &path, "").body;
        let mut tar = String::new();
        let mut gzip = flate2::read::GzDecoder::new(&*layer);
        std::io::Read::read_to_string(&mut gzip, &mut tar).unwrap();
        assert!(tar.contains(&format!("2.{}", KILLS - 1)), "{tar}");
    });
}

/// Nothing of the API waits for a registry that is away; it is said once, and over when it is back.
#[test]
fn a_registry_that_is_away_holds_up_nothing() {
    on_each_store(|database| {
        let mut registry = Registry::start(&database);
        registry.stop();
        let server = to_registry(&database, any(), &registry.url());
        let admin = server.admin();
        let token = registered(&admin);
        server.anyone().expect(200, "GET", &format!("/satellites/ztr/{token}"), "");
        wait_until(|| publishing(&admin)["problem"] != "", || publishing(&admin).to_string());
        let how = publishing(&admin);
        assert!(how["problem"].as_str().unwrap().contains(&registry.address.to_string()), "{how}");
        assert_eq!(how["waiting"], 3);
        let metrics = server.anyone().get("/metrics").text();
        assert!(metrics.contains("ground_control_publish_failing 1\n"), "{metrics}");
        assert!(metrics.contains("ground_control_publish_waiting 3\n"), "{metrics}");
        let page = Browser::log_in(&server).get("/console").text();
        assert!(page.contains("Publishing to") && page.contains("3 artifacts wait"), "{page}");
        registry.start_again();
        await_published(&admin);
        let kinds = || {
            let events = admin.get("/api/events?after=0").json();
            let events = events.as_array().unwrap().clone();
            let kinds = events.iter().map(|event| event["kind"].as_str().unwrap().to_owned());
            kinds.filter(|kind| kind.starts_with("publish")).collect::<Vec<_>>()
        };
        assert_eq!(kinds(), ["publish_failed", "publish_restored"]);
    });
}

/// One of two servers publishes, and the other when that is killed.
#[test]
fn the_other_replica_takes_over() {
    on_each_store(|database| {
        let registry = Registry::start(&database);
        let one = to_registry(&database, any(), &registry.url());
        let two = to_registry(&database, any(), &registry.url());
        registered(&one.admin());
        await_published(&one.admin());
        let published = |server: &Server| {
            let metrics = server.anyone().get("/metrics").text();
            let line = metrics
                .lines()
                .find_map(|line| line.strip_prefix("ground_control_published_total "));
            line.unwrap().parse::<u64>().unwrap()
        };
        wait_until(|| published(&one) == 3, || publishing(&one.admin()).to_string());
        let change = |tag: &str| {
            let before = registry.latest_digest(G1);
            // It comes by the one that does not publish.
            two.admin().expect(200, "POST", "/api/groups/sync", &GROUP.replace("1.25", tag));
            let is_there = || registry.latest_digest(G1) != before;
            wait_until(is_there, || publishing(&two.admin()).to_string());
        };
        change("1.26");
        assert_eq!(published(&two), 0);
        one.kill();
        change("1.27");
        wait_until(|| published(&two) == 1, || publishing(&two.admin()).to_string());
    });
}

/// A satellite that enrolled here goes on reading here, until a device enrols anew.
#[test]
fn a_fleet_moves_to_a_registry_and_strands_nobody() {
    on_each_store(|database| {
        let registry = Registry::start(&database);
        let server = Server::start(&database);
        let listen = server.address;
        let token = registered(&server.admin());
        let answer = server.anyone().expect(200, "GET", &format!("/satellites/ztr/{token}"), "");
        let old = Satellite::from_answer(&answer);
        old.read(&server, &old.state).unwrap();
        assert!(server.stop());
        let server = to_registry(&database, listen, &registry.url());
        let admin = server.admin();
        await_published(&admin);
        let (_, state) = old.read(&server, &old.state).unwrap();
        assert!(
            state["config"].as_str().unwrap().starts_with(&format!("http://{listen}/")),
            "{state}"
        );
        assert_eq!(registry.latest_digest(EDGE1), None, "it is read from elsewhere");
        let answer = admin.expect(200, "POST", "/api/satellites/edge1/token", "").json();
        let path = format!("/satellites/ztr/{}", answer["token"].as_str().unwrap());
        let new = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        assert!(new.state.starts_with(&registry.url()));
        wait_until(|| registry.latest_digest(EDGE1).is_some(), || publishing(&admin).to_string());
        new.client(&server).expect(200, "POST", "/satellites/sync", REPORT);
    });
}

/// Harbor: private project, robots that may pull and no more, secrets that it and Ground Control
/// know to be the same, and an end of both together.
#[test]
fn harbor_gets_robots_of_least_rights() {
    on_each_store(|database| {
        let harbor = Harbor::start(Registry::start(&database));
        harbor.state.lock().unwrap().projects.insert("library".into(), false);
        let server = to_harbor(&database, &harbor.url());
        let admin = server.admin();
        admin.expect(200, "POST", "/api/groups/sync", &GROUP.replace("http://127.0.0.1:5000", ""));
        let token = registered(&admin);
        admin.expect(200, "POST", "/api/groups/sync", &GROUP.replace("http://127.0.0.1:5000", ""));
        await_published(&admin);
        assert!(!harbor.state.lock().unwrap().projects["satellite"], "private");
        let projects = |wanted: &[&str]| {
            wait_until(
                || harbor.projects_of("edge1") == wanted,
                || format!("{:?} {}", harbor.projects_of("edge1"), publishing(&admin)),
            );
        };
        projects(&["library", "satellite"]);
        let path = format!("/satellites/ztr/{token}");
        let satellite = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        assert_eq!(satellite.state, format!("{}/{EDGE1}:latest", harbor.url()));
        let robot = harbor.robot("edge1").unwrap();
        assert_eq!((satellite.user.as_str(), &robot.secret), ("robot$edge1", &satellite.secret));
        let robot = || satellite.client(&server);
        assert!(robot().expect(200, "POST", "/satellites/sync", REPORT).body.is_empty());

        // Secrets are changed together. If the answer is lost, the satellite asks again.
        let lost = robot().expect(200, "POST", "/sat/refresh", "").json();
        assert_eq!(lost["secret"], harbor.robot("edge1").unwrap().secret);
        let asked = robot().expect(200, "POST", "/satellites/sync", REPORT).json();
        assert_eq!(asked["actions"], json!(["refresh_credentials"]));
        harbor.state.lock().unwrap().refuses = Some(503);
        robot().expect(503, "POST", "/sat/refresh", "");
        harbor.state.lock().unwrap().refuses = None;
        let next = robot().expect(200, "POST", "/sat/refresh", "").json();
        let secret = next["secret"].as_str().unwrap();
        assert_eq!(secret, harbor.robot("edge1").unwrap().secret);
        let next = server.basic("robot$edge1", secret);
        assert!(next.expect(200, "POST", "/satellites/sync", REPORT).body.is_empty());

        // A project more with a group; one that is not there yet holds up nothing.
        let more = json!({ "group": "g2", "artifacts": [
            { "repository": "late/app", "tag": ["1"] }, { "repository": "library/app", "tag": ["1"] }] });
        admin.expect(200, "POST", "/api/groups/sync", &more.to_string());
        let member = r#"{"satellite":"edge1","group":"g2"}"#;
        admin.expect(200, "POST", "/api/groups/satellite", member);
        await_published(&admin);
        projects(&["library", "satellite"]);
        // A month is given again before the robot ends.
        {
            let mut state = harbor.state.lock().unwrap();
            state.projects.insert("late".into(), false);
            assert!(!state.asked.iter().any(|line| line.starts_with("DELETE")));
        }
        let member = r#"{"satellite":"edge1","group":"g1"}"#;
        admin.expect(200, "DELETE", "/api/groups/satellite", member);
        admin.expect(200, "POST", "/api/satellites/edge1/revoke", "");
        wait_until(|| harbor.robot("edge1").is_none(), || "the robot stays".to_owned());
        next.expect(401, "POST", "/satellites/sync", REPORT);
    });
}

/// A month passes: a robot account is given another before its own is over, its secret is changed,
/// and the satellite goes on as if nothing were.
#[test]
fn a_robot_is_renewed_before_it_ends() {
    if missing("a_robot_is_renewed_before_it_ends", &["sqlite3"]) {
        return;
    }
    on_each_store(|database| {
        let harbor = Harbor::start(Registry::start(&database));
        harbor.state.lock().unwrap().projects.insert("library".into(), false);
        harbor.registry.push("library/app", "1", "layer one");
        let server = to_harbor(&database, &harbor.url());
        let admin = fleet(&server);
        set_group(&admin, "", "g1", "library/app", "1");
        // Harbor says that the account was made 25 days ago: 5 of its 30 are left.
        harbor.state.lock().unwrap().days = -25;
        let token = register(&admin, "edge1", &["g1"]);
        let mut satellite = prepare("publish-month", &server, &token);
        satellite.start_again();
        await_image(&satellite, "library/app", "1", 200);
        harbor.state.lock().unwrap().days = 0;
        let days_left = || {
            let end = harbor.robot("edge1").unwrap().body["expires_at"].as_i64().unwrap();
            (end - harbor.state.lock().unwrap().now()) / 86_400
        };
        assert!(days_left() < 6, "{}", days_left());
        let secret = || harbor.robot("edge1").unwrap().secret;
        let first = secret();
        // What was asked of Harbor a moment ago is not asked again; and the secret is three weeks
        // old.
        database.execute("UPDATE robots SET updated_at = 0;");
        wait_until(|| days_left() > 25, || format!("{} {}", days_left(), publishing(&admin)));
        assert_eq!(secret(), first, "more time is no other secret");
        database.execute("UPDATE satellites SET secret_at = secret_at - 1814400000000;");
        wait_until(|| secret() != first, || satellite.log());

        // The day on which the account would have ended, and a week more.
        harbor.state.lock().unwrap().days = 12;
        harbor.registry.push("library/app", "2", "layer two");
        set_group(&admin, "", "g1", "library/app", "2");
        await_image(&satellite, "library/app", "2", 200);
        // Without Ground Control it would end: the stand-in holds robots to their time.
        drop(server);
        harbor.state.lock().unwrap().days = 60;
        let basic = base64(&format!("robot$edge1:{}", secret()));
        let path = format!("/service/token?scope=repository:{EDGE1}:pull");
        let line = format!("Authorization: Basic {basic}\r\n");
        let client = Client::at(harbor.address);
        let token = client.ask_with("GET", &path, &line, "").json();
        let line = format!("Authorization: Bearer {}\r\n", token["token"].as_str().unwrap());
        let path = format!("/v2/{EDGE1}/manifests/latest");
        assert_eq!(client.ask_with("GET", &path, &line, "").status, 401);
    });
}

/// Somebody else's robot of the same name is left alone, and holds up no other satellite.
#[test]
fn a_robot_of_others_is_left_alone() {
    let database = Database::sqlite();
    let harbor = Harbor::start(Registry::start(&database));
    let server = to_harbor(&database, &harbor.url());
    let admin = server.admin();
    let body = json!({ "name": "edge1", "level": "system", "duration": 30, "permissions": [],
        "description": "the backup" });
    let basic = Client::at(harbor.address);
    let line = format!("Authorization: Basic {}\r\n", base64(&format!("{USER}:{SECRET}")));
    let made = basic.ask_with("POST", "/api/v2.0/robots", &line, &body.to_string());
    assert_eq!(made.status, 201);
    let token = registered(&admin);
    admin.expect(200, "POST", "/api/satellites", r#"{"name":"edge2","config_name":"c1"}"#);
    wait_until(|| harbor.robot("edge2").is_some(), || publishing(&admin).to_string());
    wait_until(
        || publishing(&admin)["problem"].as_str().unwrap().contains("not Ground Control's"),
        || publishing(&admin).to_string(),
    );
    server.anyone().expect(503, "GET", &format!("/satellites/ztr/{token}"), "");
    assert_eq!(harbor.robot("edge1").unwrap().body["description"], "the backup");
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A real satellite: its state from the registry it was assigned, its images from the same with
/// Harbor.
#[test]
fn satellites_converge_by_what_was_published() {
    let database = Database::sqlite();
    let harbor = Harbor::start(Registry::start(&database));
    harbor.state.lock().unwrap().projects.insert("library".into(), false);
    harbor.registry.push("library/app", "1", "layer one");
    let server = to_harbor(&database, &harbor.url());
    let admin = fleet(&server);
    set_group(&admin, "", "g1", "library/app", "1");
    let token = register(&admin, "edge1", &["g1"]);
    let mut satellite = prepare("publish-harbor", &server, &token);
    satellite.start_again();
    await_image(&satellite, "library/app", "1", 200);
    // A refresh in between, and what comes after it.
    harbor.registry.push("library/app", "2", "layer two");
    set_group(&admin, "", "g1", "library/app", "2");
    await_image(&satellite, "library/app", "2", 200);
    let images = || admin.get("/api/satellites/edge1/state").text();
    wait_until(|| images().contains("\"updated\":\"UpToDate\""), images);
    drop(satellite);

    // A plain registry that anyone may read.
    let database = Database::sqlite();
    let registry = Registry::start(&database);
    registry.push("library/app", "1", "layer one");
    let server = to_registry(&database, any(), &registry.url());
    let admin = fleet(&server);
    set_group(&admin, &registry.url(), "g1", "library/app", "1");
    let mut satellite = prepare("publish-plain", &server, &register(&admin, "edge1", &["g1"]));
    satellite.start_again();
    await_image(&satellite, "library/app", "1", 200);
}

/// A registry with passwords asks this server who may do what: a satellite reads its own state and
/// its groups' images with the credentials of its enrolment, and can write nothing.
#[test]
fn a_registry_that_takes_tokens_is_read_by_satellites_alone() {
    if missing("a_registry_that_takes_tokens_is_read_by_satellites_alone", &["openssl"]) {
        return;
    }
    on_each_store(|database| {
        let mut registry = Registry::start(&database);
        registry.push("library/app", "1", "layer one");
        registry.push("library/other", "1", "layer two");
        let files = Directory::new("token-key");
        let (key, certificate) = make_key(&files, "key");
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
        registry.take_tokens(&format!("http://{listen}/service/token"), &certificate);
        let url = registry.url();
        let settings = [
            ("PUBLISH", "registry"),
            ("PUBLISH_URL", url.as_str()),
            ("PUBLISH_USERNAME", "publisher"),
            ("PUBLISH_PASSWORD", "push"),
            ("PUBLISH_TOKEN_KEY", key.to_str().unwrap()),
            ("PUBLISH_TOKEN_CERT", certificate.to_str().unwrap()),
        ];
        let server = Server::start_with(&database, listen, &settings);
        let admin = fleet(&server);
        set_group(&admin, &url, "g1", "library/app", "1");
        let token = register(&admin, "edge1", &["g1"]);
        register(&admin, "edge2", &["g1"]);
        await_published(&admin);
        // A real satellite, with a configuration that knows of no registry.
        let mut satellite = prepare("publish-token", &server, &token);
        satellite.start_again();
        await_image(&satellite, "library/app", "1", 200);
        let state = || admin.get("/api/satellites/edge1/state").json();
        wait_until(|| state()["updated"] == "UpToDate", || state().to_string());

        // What each may: the answer of the registry itself to a token that was asked for it all.
        let other = admin.expect(200, "POST", "/api/satellites/edge2/token", "").json();
        let path = format!("/satellites/ztr/{}", other["token"].as_str().unwrap());
        let other = Satellite::from_answer(&server.anyone().expect(200, "GET", &path, ""));
        assert_eq!(other.state, format!("{url}/satellite/satellite-state/edge2/state:latest"));
        let viewer = r#"{"username":"vic","password":"Correct-horse-2","role":"viewer"}"#;
        admin.expect(201, "POST", "/api/users", viewer);
        let edge2 = "satellite/satellite-state/edge2/state";
        let may = |user: &str, password: &str, method: &str, repository: &str| {
            let scope = format!("repository:{repository}:pull,push,delete");
            let path = format!("/service/token?service=ground-control-registry&scope={scope}");
            let token = server.basic(user, password).get(&path);
            if token.status != 200 {
                return token.status;
            }
            let line =
                format!("Authorization: Bearer {}\r\n", token.json()["token"].as_str().unwrap());
            let path = match method {
                "POST" => format!("/v2/{repository}/blobs/uploads/"),
                _ => format!("/v2/{repository}/tags/list"),
            };
            Client::at(registry.address).ask_with(method, &path, &line, "").status
        };
        let robot = (other.user.as_str(), other.secret.as_str());
        let person = ("admin", crate::harness::PASSWORD);
        for ((user, password), method, repository, status) in [
            (robot, "GET", edge2, 200),
            (robot, "GET", "library/app", 200),
            (robot, "GET", C1, 200),
            (robot, "GET", EDGE1, 401),
            (robot, "GET", "library/other", 401),
            (robot, "POST", edge2, 401),
            (robot, "POST", "library/app", 401),
            (("publisher", "push"), "POST", EDGE1, 202),
            (("publisher", "push"), "GET", "library/other", 200),
            (("publisher", "push"), "POST", "library/app", 401),
            (person, "POST", "library/app", 202),
            (person, "GET", EDGE1, 401),
            (("vic", "Correct-horse-2"), "GET", "library/other", 200),
            (("vic", "Correct-horse-2"), "POST", "library/app", 401),
            (("robot$edge2", "wrong"), "GET", edge2, 401),
            (("publisher", "wrong"), "GET", "library/app", 401),
        ] {
            let found = may(user, password, method, repository);
            assert_eq!(found, status, "{user} {method} {repository}");
        }
        let anyone = server.anyone().get("/service/token?service=ground-control-registry");
        assert_eq!(anyone.status, 401);
        // Its end is the end of that, too.
        admin.expect(200, "POST", "/api/satellites/edge2/revoke", "");
        assert_eq!(may(robot.0, robot.1, "GET", edge2), 401);
        // Go on after a change, and with a refreshed secret.
        set_group(&admin, &url, "g1", "library/other", "1");
        await_image(&satellite, "library/other", "1", 200);

        // A key and a certificate that do not belong together are said at the start.
        let (_, wrong) = make_key(&files, "wrong");
        let mut command = Server::command(&database, any());
        command.args(["--publish", "registry", "--publish-url", &url]);
        command.args(["--publish-username", "publisher", "--publish-token-key"]).arg(&key);
        command.arg("--publish-token-cert").arg(wrong).env("GROUND_CONTROL_PUBLISH_PASSWORD", "p");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("another key"), "{said}");
    });
}

/// A key of P-256 and its certificate, as the README makes them.
fn make_key(files: &Directory, name: &str) -> (PathBuf, PathBuf) {
    let (key, certificate) =
        (files.join(&format!("{name}.pem")), files.join(&format!("{name}-cert.pem")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-nodes", "-days", "3650", "-subj", "/CN=ground-control", "-keyout"]);
    run(openssl.arg(&key).arg("-out").arg(&certificate));
    (key, certificate)
}

const KILLS: u64 = 6;
