//! Tags that are resolved for the fleet, at real registries and at odd ones.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::cli::Person;
use crate::console::Browser;
use crate::harness::{Client, Database, Satellite as Device, Server, on_each_store};
use crate::members::{await_image, fleet, prepare, register, set_group};
use crate::registry::Registry;
use crate::satellite::wait_until;

fn start(database: &Database) -> Server {
    Server::start_with(database, "127.0.0.1:0".parse().unwrap(), &[("TAG_SECONDS", "1")])
}

/// As a program does that changes nothing else.
fn set_mode(admin: &Client, mode: &str) {
    let group = admin.get("/api/groups/g1").json();
    let body = json!({ "group": "g1", "registry": group["Registry"],
        "artifacts": group["Artifacts"], "tags": mode });
    let answer = admin.expect(200, "POST", "/api/groups/sync", &body.to_string()).json();
    assert_eq!(answer["Tags"], mode);
    assert_ne!(answer["ETag"], group["ETag"], "the version covers the mode");
}

fn tag(admin: &Client) -> Value {
    admin.expect(200, "GET", "/api/groups/g1/tags", "").json()["tags"][0].clone()
}

fn await_tag(admin: &Client, key: &str, value: &str) {
    wait_until(|| tag(admin)[key] == value, || tag(admin).to_string());
}

fn moves(admin: &Client) -> usize {
    let events = admin.get("/api/events?after=0").json();
    events.as_array().unwrap().iter().filter(|event| event["kind"] == "tag_moved").count()
}

/// The fleet gets digests, and moves when the tag does; a registry that is away changes nothing.
#[test]
fn a_tag_is_followed_by_the_whole_fleet() {
    on_each_store(|database| {
        let server = start(&database);
        let mut registry = Registry::start(&database);
        let admin = fleet(&server);
        let first = registry.push("library/app", "1", "layer one").to_string();
        set_group(&admin, &registry.url(), "g1", "library/app", "1");
        set_mode(&admin, "follow");
        await_tag(&admin, "digest", &first);
        let token = register(&admin, "edge1", &["g1"]);
        let mut satellite = prepare("tags", &server, &token);
        satellite.start_again();
        await_image(&satellite, "library/app", "1", 200);
        let state = || admin.get("/api/satellites/edge1/state").json();
        wait_until(|| state()["updated"] == "UpToDate", || state().to_string());
        assert_eq!(state()["images"][0]["desired_digest"], first.as_str());
        assert_eq!(moves(&admin), 0);

        let second = registry.push("library/app", "1", "layer two").to_string();
        await_tag(&admin, "digest", &second);
        let path = format!("/v2/library/app/manifests/{second}");
        wait_until(|| satellite.get(&path).0 == 200, || satellite.log());
        assert_eq!(moves(&admin), 1);

        let address = registry.address;
        registry.stop();
        let is_shown = || tag(&admin)["problem"].as_str().unwrap().contains(&address.to_string());
        wait_until(is_shown, || tag(&admin).to_string());
        assert_eq!(tag(&admin)["digest"], second.as_str());
        let page = Browser::log_in(&server).get("/console/groups/g1").text();
        assert!(page.contains(&second) && page.contains(&address.to_string()), "{page}");
        registry.start_again();
        let third = registry.push("library/app", "1", "layer three").to_string();
        await_tag(&admin, "digest", &third);
        set_mode(&admin, "off");
        wait_until(|| state()["images"][0]["desired_digest"] == "", || state().to_string());
        assert_eq!(admin.get("/api/groups/g1/tags").json(), json!({ "mode": "off", "tags": [] }));
        let wrong = r#"{"group":"g1","tags":"sometimes"}"#;
        let refusal = admin.expect(400, "POST", "/api/groups/sync", wrong).text();
        assert!(refusal.contains("sometimes") && refusal.contains("follow or pin"), "{refusal}");
        admin.expect(404, "POST", "/api/groups/none/tags/approve", r#"{"tags":{}}"#);
    });
}

/// What was resolved first counts until a person approves another.
#[test]
fn a_pinned_tag_moves_when_it_is_approved() {
    on_each_store(|database| {
        let server = start(&database);
        let registry = Registry::start(&database);
        let admin = fleet(&server);
        let first = registry.push("library/app", "1", "layer one").to_string();
        set_group(&admin, &registry.url(), "g1", "library/app", "1");
        set_mode(&admin, "pin");
        await_tag(&admin, "digest", &first);
        let second = registry.push("library/app", "1", "layer two").to_string();
        await_tag(&admin, "seen", &second);
        assert_eq!((tag(&admin)["digest"].clone(), moves(&admin)), (json!(first), 1));
        let page = Browser::log_in(&server).get("/console/groups/g1").text();
        assert!(page.contains("waits for approval"), "{page}");
        // Who sends the images alone leaves the mode and what is pinned.
        set_group(&admin, &registry.url(), "g1", "library/app", "1");
        assert_eq!(tag(&admin)["digest"], first.as_str());
        let approve = |status, what: &str, digest: &str| {
            let body = json!({ "tags": { what: digest } }).to_string();
            admin.expect(status, "POST", "/api/groups/g1/tags/approve", &body)
        };
        // What is approved is what was looked at, and nothing that came later.
        let late = approve(409, "library/app:1", &first).text();
        assert!(late.contains(&format!("library/app:1 is {second} by now")), "{late}");
        let unknown = approve(400, "library/app:9", &second).text();
        assert!(unknown.contains("library/app:9"), "{unknown}");
        let bare = admin.ask("POST", "/api/groups/g1/tags/approve", "{}");
        assert!([400, 422].contains(&bare.status), "{}", bare.text());
        assert_eq!(tag(&admin)["digest"], first.as_str());
        let approved = approve(200, "library/app:1", &second).json();
        assert_eq!(approved["approved"], json!({ "library/app:1": second }));
        let again = approve(200, "library/app:1", &second).json();
        assert_eq!(again["approved"], json!({}));
        assert_eq!(tag(&admin)["digest"], second.as_str());
        let log = admin.get("/api/audit").json();
        assert_eq!(log[0]["action"], "group.approve");
        assert_eq!(log[0]["after"], json!({ "library/app:1": second }));
        // What another registry said does not count at a new one.
        let other = Registry::named(&database, "other");
        let third = other.push("library/app", "1", "layer three").to_string();
        set_group(&admin, &other.url(), "g1", "library/app", "1");
        await_tag(&admin, "digest", &third);
        server.anyone().expect(401, "POST", "/api/groups/g1/tags/approve", "");
    });
}

/// The same in the console: the mode, what waits, and an approval of what was shown.
#[test]
fn people_set_the_mode_and_approve_in_the_console() {
    on_each_store(|database| {
        let server = start(&database);
        let registry = Registry::start(&database);
        let admin = fleet(&server);
        let first = registry.push("library/app", "1", "layer one").to_string();
        let browser = Browser::log_in(&server);
        let page = "/console/groups/g1";
        let url = registry.url().replace(':', "%3A").replace('/', "%2F");
        let save = |mode: &str| {
            let fields = format!("registry={url}&images=library%2Fapp%3A1&tags={mode}");
            browser.submit(page, page, &fields)
        };
        let wrong = save("sometimes");
        let text = wrong.text();
        assert!(wrong.status == 400 && text.contains("expected off, follow or pin"), "{text}");
        assert!(text.contains("library/app:1</textarea>"), "what was typed is kept: {text}");
        assert_eq!(save("pin").status, 303);
        assert_eq!(admin.get("/api/groups/g1").json()["Tags"], "pin");
        await_tag(&admin, "digest", &first);
        assert!(browser.get(page).text().contains("<option value=\"pin\" selected>"));
        assert!(browser.get("/console/waiting").text().contains("No device waits"));

        let second = registry.push("library/app", "1", "layer two").to_string();
        await_tag(&admin, "seen", &second);
        assert!(browser.get("/console").text().contains("1 tags waiting for approval"));
        let approve = "/console/groups/g1/approve";
        let (old_group, old_list) =
            (browser.get(page).text(), browser.get("/console/waiting").text());
        for shown in [&old_group, &old_list] {
            assert!(shown.contains(&first) || shown.contains("satellites get"), "{shown}");
            assert!(shown.contains(&second), "{shown}");
        }
        // A newer one comes while a person looks.
        let third = registry.push("library/app", "1", "layer three").to_string();
        await_tag(&admin, "seen", &third);
        for shown in [&old_group, &old_list] {
            let answer = browser.send(shown, approve, "");
            let text = answer.text();
            assert!(
                answer.status == 409 && text.contains("by now") && text.contains(&third),
                "{text}"
            );
        }
        assert_eq!(tag(&admin)["digest"], first.as_str());
        let approved = browser.submit("/console/waiting", approve, "");
        assert_eq!(approved.header("location"), Some("/console/waiting"), "{}", approved.text());
        assert_eq!(tag(&admin)["digest"], third.as_str());
        assert!(!browser.get("/console/waiting").text().contains("library/app"));
        // Who only reads sees it and has no button.
        let viewer = r#"{"username":"vic","password":"Correct-horse-2","role":"viewer"}"#;
        admin.expect(201, "POST", "/api/users", viewer);
        registry.push("library/app", "1", "layer four");
        wait_until(|| tag(&admin)["seen"] != third.as_str(), || tag(&admin).to_string());
        let vic = Browser::log_in_as(&server, "username=vic&password=Correct-horse-2");
        let shown = vic.get("/console/waiting").text();
        assert!(shown.contains("library/app:1") && !shown.contains(approve), "{shown}");
        let form = browser.get("/console/waiting").text();
        assert_eq!(vic.send(&form, approve, "").status, 403);
    });
}

/// A registry that takes connections and answers nothing has a turn of its own.
#[test]
fn a_dead_registry_delays_no_other() {
    let database = Database::sqlite();
    let server = start(&database);
    let registry = Registry::start(&database);
    let admin = fleet(&server);
    registry.push("library/app", "1", "layer 0");
    let (dead, open) = answer_nothing();
    // It comes first, whatever the order is.
    let artifact = json!({ "repository": "library/app", "tag": ["1"], "type": "IMAGE" });
    for (name, host) in [("a", "127.0.0.1"), ("b", "127.0.0.2"), ("z", "127.0.0.3")] {
        let url = format!("http://{host}:{}", dead.port());
        let body = json!({ "group": name, "registry": url, "artifacts": [artifact],
            "tags": "follow" });
        admin.expect(200, "POST", "/api/groups/sync", &body.to_string());
    }
    set_group(&admin, &registry.url(), "g1", "library/app", "1");
    set_mode(&admin, "follow");
    // The tag moves and is followed while the same requests wait for their answer: a machine that is
    // too busy for that is given several chances, for each of them may end meanwhile.
    let was_followed = (1..4).any(|move_| {
        wait_until(|| open.count() == 3, || format!("{} requests wait", open.count()));
        let ended = open.ended();
        let moved = registry.push("library/app", "1", &format!("layer {move_}")).to_string();
        await_tag(&admin, "digest", &moved);
        open.ended() == ended
    });
    assert!(was_followed, "each time a registry that does not answer came first");
    let problem = || admin.get("/api/groups/a/tags").json()["tags"][0]["problem"].clone();
    wait_until(
        || problem().as_str().is_some_and(|text| !text.is_empty()),
        || problem().to_string(),
    );
}

/// Connections that wait for an answer.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<(usize, usize)>>);

impl Open {
    fn count(&self) -> usize {
        let counts = self.0.lock().unwrap();
        counts.0 - counts.1
    }

    fn ended(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

/// A server that reads what comes and says nothing, at every address of this machine.
fn answer_nothing() -> (SocketAddr, Open) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = listener.local_addr().unwrap();
    let open = Open::default();
    let kept = open.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, open) = (stream.unwrap(), kept.clone());
            open.0.lock().unwrap().0 += 1;
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
                open.0.lock().unwrap().1 += 1;
            });
        }
    });
    (address, open)
}

/// Of what is staged the tags are as they are; what is current keeps the digests that were resolved.
#[test]
fn what_is_pinned_stays_beside_what_is_staged() {
    on_each_store(|database| {
        let server = start(&database);
        let registry = Registry::start(&database);
        let admin = fleet(&server);
        let first = registry.push("library/app", "1", "layer one").to_string();
        set_group(&admin, &registry.url(), "g1", "library/app", "1");
        set_mode(&admin, "pin");
        await_tag(&admin, "digest", &first);
        let token = json!({ "token": register(&admin, "edge1", &["g1"]) }).to_string();
        let answer = server.anyone().expect(200, "POST", "/satellites/ztr", &token);
        let device = Device::from_answer(&answer);
        let artifact = json!({ "repository": "library/app", "tag": ["2"], "type": "IMAGE" });
        let rollout = json!({ "name": "r1", "group": "g1",
            "state": { "registry": registry.url(), "artifacts": [artifact] },
            "policy": { "downloadOnly": true } });
        admin.expect(201, "POST", "/api/rollouts", &rollout.to_string());
        let given = || {
            let (_, own) = device.read(&server, &device.state).unwrap();
            device.read(&server, own["states"][0].as_str().unwrap()).unwrap().1
        };
        wait_until(|| given()["staged"] != Value::Null, || given().to_string());
        assert_eq!(given()["artifacts"][0]["digest"], first.as_str());
        let staged = &given()["staged"]["artifacts"][0];
        assert_eq!((&staged["tag"], staged.get("digest")), (&json!(["2"]), None), "{staged}");
        let images = admin.get("/api/satellites/edge1/state").json()["images"].clone();
        assert_eq!(images[0]["desired_digest"], first.as_str(), "{images}");
    });
}

/// By the command line and by documents: set, shown, written, compared, approved.
#[test]
fn people_set_the_mode_and_approve_by_the_command_line() {
    let database = Database::sqlite();
    let server = start(&database);
    let registry = Registry::start(&database);
    let admin = fleet(&server);
    let first = registry.push("library/app", "1", "layer one").to_string();
    let person = Person::logged_in(&database, &server);
    let url = registry.url();
    let set = ["group", "set", "g1", "--registry", &url, "library/app:1", "--tags", "pin"];
    assert_eq!(person.succeeds(&set), "group/g1 created\n");
    await_tag(&admin, "digest", &first);
    let second = registry.push("library/app", "1", "layer two").to_string();
    await_tag(&admin, "seen", &second);
    let shown = person.succeeds(&["group", "tags", "g1"]);
    assert!(shown.contains(&first) && shown.contains(&second), "{shown}");
    let approved = person.succeeds(&["group", "approve", "g1"]);
    assert_eq!(approved, format!("library/app:1 {second}\ngroup/g1 approved, 1 changed\n"));
    assert_eq!(tag(&admin)["digest"], second.as_str());
    assert!(person.fails(&["group", "approve", "g2"]).contains("g2"));
    let named = format!("library/app:1@{first}");
    let late = person.fails(&["group", "approve", "g1", &named]);
    assert!(late.contains(&second) && late.contains("by now"), "{late}");
    let wrong = person.fails(&["group", "approve", "g1", "library/app:1"]);
    assert!(wrong.contains("REPOSITORY:TAG@DIGEST"), "{wrong}");
    let named = format!("library/app:1@{second}");
    let again = person.succeeds(&["group", "approve", "g1", &named]);
    assert_eq!(again, "group/g1 approved, 0 changed\n");
    assert!(person.fails(&["group", "set", "g1", "--tags", "on"]).contains("follow or pin"));

    // What is written is the same when it is applied; a document that says no mode leaves it.
    let file = person.home.join("groups.yaml");
    let text = person.succeeds(&["group", "ls", "-o", "yaml"]);
    assert!(text.contains("tags: pin"), "{text}");
    let apply = ["apply", "-f", "groups.yaml"];
    for (text, said) in [
        (text.clone(), "group/g1 unchanged\n"),
        (text.replace("tags: pin", ""), "group/g1 unchanged\n"),
        (text.replace("tags: pin", "tags: follow"), "group/g1 changed\n"),
    ] {
        std::fs::write(&file, &text).unwrap();
        assert_eq!(person.succeeds(&apply), said, "{text}");
    }
    assert_eq!(admin.get("/api/groups/g1").json()["Tags"], "follow");
    std::fs::write(&file, text.replace("tags: pin", "tags: some")).unwrap();
    assert!(person.fails(&apply).contains("spec.tags \"some\": expected off, follow or pin"));
    assert_eq!(person.succeeds(&["group", "set", "g1", "--tags", "off"]), "group/g1 changed\n");
}

/// Where a registry leads elsewhere, its credentials do not go along.
#[test]
fn a_redirect_takes_no_credentials_along() {
    let database = Database::sqlite();
    let server = start(&database);
    let digest = format!("sha256:{}", "ab".repeat(32));
    let (there, got_there) = answer_all({
        let digest = digest.clone();
        move |_| format!("HTTP/1.1 200 OK\r\nDocker-Content-Digest: {digest}\r\n")
    });
    let (here, got_here) = answer_all(move |authorization| match authorization {
        Some(_) => format!("HTTP/1.1 307 x\r\nLocation: http://{there}/elsewhere\r\n"),
        None => "HTTP/1.1 401 x\r\nWww-Authenticate: Basic realm=\"r\"\r\n".to_owned(),
    });
    let admin = server.admin();
    let url = format!("http://{here}");
    let config = json!({ "config_name": "c1", "config": { "moonlet": { "registries": [
        { "url": url, "username": "u", "password": "hunter2" }] } } });
    admin.expect(201, "POST", "/api/configs", &config.to_string());
    set_group(&admin, &url, "g1", "library/app", "1");
    set_mode(&admin, "follow");
    await_tag(&admin, "digest", &digest);
    let basic = "Basic dTpodW50ZXIy".to_owned();
    assert!(got_here.lock().unwrap().contains(&Some(basic)));
    let there = got_there.lock().unwrap();
    assert!(!there.is_empty() && there.iter().all(Option::is_none), "{there:?}");
    assert!(!admin.get("/api/groups/g1/tags").text().contains("hunter2"));
}

type Seen = Arc<Mutex<Vec<Option<String>>>>;

/// A server whose answers have no body and depend on the authorization, which it remembers.
fn answer_all(answer: impl Fn(Option<&str>) -> String + Send + 'static) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Seen = Arc::default();
    let kept = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let lines: Vec<String> =
                lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let authorization = lines.iter().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
            });
            let head = answer(authorization.as_deref());
            kept.lock().unwrap().push(authorization);
            let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(format!("{head}{end}").as_bytes());
        }
    });
    (address, seen)
}
