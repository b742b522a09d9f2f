//! The command line of `ground-control`, against a server as people have one.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Database, PASSWORD, Satellite, Server};

/// A fleet as people write it into a file.
pub const FLEET: &str = r#"
apiVersion: moonlet/v1
kind: Satellite
metadata: {name: gateway-17}
spec: {config: default, groups: [web, base], labels: {site: north}}
---
apiVersion: moonlet/v1
kind: Group
metadata: {name: web}
spec:
  registry: https://registry.example/
  platforms: [linux/arm/v7]
  artifacts:
    - {repository: library/nginx, tag: ["1.27"]}
---
apiVersion: moonlet/v1
kind: Group
metadata: {name: base}
spec: {artifacts: [{repository: library/busybox, tag: ["1.36", "1.37"]}]}
---
apiVersion: moonlet/v1
kind: Config
metadata: {name: default}
spec:
  app_config: {heartbeat_interval: "@every 00h00m30s"}
  zot_config: {log: {level: null}}
  moonlet:
    registries:
      - {url: "https://registry.example", username: edge, passwordFile: edge.secret}
"#;

/// A person at a terminal: a home directory, and what the last command left there.
pub struct Person {
    pub home: PathBuf,
    pub server: String,
}

/// What a command printed, and its exit code.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub error: String,
}

impl Person {
    pub fn new(database: &Database, server: &Server) -> Self {
        let home = database.directory().with_extension("home");
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("password"), format!("{PASSWORD}\n")).unwrap();
        fs::write(home.join("edge.secret"), "hidden-secret\n").unwrap();
        fs::write(home.join("fleet.yaml"), FLEET).unwrap();
        Self { home, server: format!("http://{}", server.address) }
    }

    pub fn logged_in(database: &Database, server: &Server) -> Self {
        let person = Self::new(database, server);
        let url = person.server.clone();
        person.succeeds(&["login", &url, "--password-file", "password"]);
        person
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ground-control"));
        command.args(arguments).current_dir(&self.home).env_clear().stdin(Stdio::null());
        command.env("XDG_CONFIG_HOME", self.home.join("config"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            error: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.out, ran.error);
        ran.out
    }

    pub fn fails(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}{}", ran.out, ran.error);
        assert!(ran.error.starts_with("ground-control: ") || ran.error.starts_with("error: "));
        ran.error
    }

    pub fn login_file(&self) -> PathBuf {
        self.home.join("config/ground-control/login.toml")
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["-o", "json"]].concat();
        serde_json::from_str(&self.succeeds(&arguments)).unwrap()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

#[test]
fn a_login_is_remembered_and_goes_nowhere_else() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::new(&database, &server);
    assert!(person.fails(&["group", "ls"]).contains("ground-control login URL"));
    fs::write(person.home.join("wrong"), "Wrong-horse-1").unwrap();
    let url = person.server.clone();
    let error = person.fails(&["login", &url, "--password-file", "wrong"]);
    assert!(error.contains("wrong user or password"), "{error}");
    assert!(!person.login_file().exists());

    person.succeeds(&["login", &url, "--password-file", "password"]);
    let mode = fs::metadata(person.login_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(person.succeeds(&["user", "ls"]).contains("admin  system_admin"));
    // The session is of that server: another one does not get it.
    let other = Server::start(&Database::sqlite());
    let elsewhere = format!("http://{}", other.address);
    let error = person.fails(&["user", "ls", "--server", &elsewhere]);
    assert!(error.contains(&format!("no session at {elsewhere}")), "{error}");
    // For scripts there is the environment.
    let text = fs::read_to_string(person.login_file()).unwrap();
    let token = text.lines().find_map(|line| line.strip_prefix("token = \"")).unwrap();
    let token = token.trim_end_matches('"');
    fs::remove_file(person.login_file()).unwrap();
    let mut scripted = person.command(&["user", "ls"]);
    scripted.env("GROUND_CONTROL_SERVER", &url).env("GROUND_CONTROL_TOKEN", token);
    assert!(scripted.output().unwrap().status.success());

    // Without a URL it is the last server; a session that has ended says so.
    fs::write(person.login_file(), &text).unwrap();
    server.with(&format!("Bearer {token}")).expect(204, "POST", "/api/logout", "");
    let error = person.fails(&["user", "ls"]);
    assert!(error.contains("has ended: expected ground-control login http"), "{error}");
    person.succeeds(&["login", "--password-file", "password"]);
    // A token of the environment is not what is remembered, and no session.
    let made = person.succeeds(&["token", "add", "ci"]);
    let mut scripted = person.command(&["logout"]);
    let scripted = scripted.env("GROUND_CONTROL_TOKEN", made.trim()).output().unwrap();
    assert_eq!(scripted.status.code(), Some(2));
    let error = String::from_utf8(scripted.stderr).unwrap();
    assert!(error.contains("a token"), "{error}");
    assert!(person.login_file().exists());
    person.succeeds(&["user", "ls"]);
    person.succeeds(&["logout"]);
    assert!(!person.login_file().exists());
}

#[test]
fn a_watch_outlasts_the_server() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::logged_in(&database, &server);
    person.succeeds(&["config", "set", "default", "app_config.log_level=info"]);
    let added = person.json(&["satellite", "add", "gateway-17", "--config", "default"]);
    let body = json!({ "token": added["token"] }).to_string();
    let answer = server.anyone().expect(200, "POST", "/satellites/ztr", &body);
    let satellite = Satellite::from_answer(&answer);
    let mut watch = person.command(&["satellite", "show", "gateway-17", "--watch"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.starts_with("Unknown"), "{line}");
    let address = server.address;
    server.kill();
    let mut errors = BufReader::new(watch.stderr.take().unwrap()).lines();
    let error = errors.next().unwrap().unwrap();
    assert!(error.contains("still watching"), "{error}");
    let server = Server::start_on(&database, address);
    satellite.client(&server).expect(200, "POST", "/satellites/sync", "{}");
    assert!(watch.wait().unwrap().success());
    // What is not there any more is not waited for.
    server.admin().expect(200, "DELETE", "/api/satellites/gateway-17", "");
    person.fails(&["satellite", "show", "gateway-17", "--watch"]);
}

#[test]
fn tls_is_verified_by_the_authority_that_is_named() {
    let database = Database::sqlite();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::create_dir_all(database.directory()).unwrap();
    let (cert, key) = (database.directory().join("c.pem"), database.directory().join("k.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut command = Server::command(&database, "127.0.0.1:0".parse().unwrap());
    command.arg("--tls-cert").arg(&cert).arg("--tls-key").arg(&key);
    command.env("GROUND_CONTROL_ADMIN_PASSWORD", PASSWORD).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let address = Server::address_of(&mut child);
    let server = Server { child, address };
    let person = Person::new(&database, &server);
    let url = format!("https://{address}");
    let login = ["login", &url, "--password-file", "password"];
    let error = person.fails(&login);
    assert!(error.contains("--ca-file"), "{error}");
    person.succeeds(&[&login[..], &["--ca-file", cert.to_str().unwrap()]].concat());
    // The authority is remembered with the session.
    person.succeeds(&["group", "ls"]);
}

#[test]
fn a_satellite_is_added_shown_and_decommissioned() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::logged_in(&database, &server);
    person.succeeds(&["config", "set", "default", "app_config.log_level=info"]);
    person.succeeds(&["group", "set", "web", "library/nginx:1.27", "library/redis:8"]);
    let error = person.fails(&["satellite", "add", "gateway-17", "-c", "default", "-g", "wbe"]);
    assert!(error.contains(r#"group "wbe": not found; did you mean "web"?"#), "{error}");
    let add = ["satellite", "add", "gateway-17", "-c", "default", "-g", "web", "-l", "site=north"];
    let added = person.succeeds(&add);
    let lines: Vec<&str> = added.lines().collect();
    let [.., "[ground_control]", url, token] = lines[..] else { panic!("{added}") };
    assert_eq!(url, format!("url = {:?}", person.server));
    let token = token.split('"').nth(1).unwrap();

    // The token is a good one, and what the satellite then reports is seen.
    let body = json!({ "token": token }).to_string();
    let answer = server.anyone().expect(200, "POST", "/satellites/ztr", &body);
    let robot = Satellite::from_answer(&answer).client(&server);
    let report = |image: &str| {
        json!({
            "state_report_interval": "@every 10s",
            "activity": "x\u{1b}[2J",
            "cached_images": [
                {"reference": "127.0.0.1:8585/library/nginx:1.27@sha256:0a", "size_bytes": 2048},
                {"reference": format!("127.0.0.1:8585/{image}@sha256:0b"), "size_bytes": 4096},
            ],
        })
        .to_string()
    };
    robot.expect(200, "POST", "/satellites/sync", &report("library/redis:7"));
    let shown = person.succeeds(&["satellite", "show", "gateway-17"]);
    for part in ["Online", "last seen", "1 of 2 held", "library/redis:8", "site=north", "web"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let watch = ["satellite", "show", "gateway-17", "--watch"];
    let late = person.run(&[&watch[..], &["--timeout", "0"]].concat());
    assert_eq!((late.code, late.out.contains("1 of 2 held")), (1, true), "{}", late.out);
    let mut watched = person.command(&watch).stdout(Stdio::piped()).spawn().unwrap();
    robot.expect(200, "POST", "/satellites/sync", &report("library/redis:8"));
    assert!(watched.wait().unwrap().success(), "it ends when all is held");

    let listed = person.succeeds(&["satellite", "ls", "-l", "site=north", "-o", "wide"]);
    assert!(listed.contains("gateway-17") && listed.contains("UpToDate"), "{listed}");
    assert!(!person.succeeds(&["satellite", "ls", "-l", "site!=north"]).contains("gateway"));
    person.succeeds(&["satellite", "label", "gateway-17", "site-", "ring=1"]);
    let document = person.json(&["satellite", "show", "gateway-17"]);
    assert_eq!(document["spec"]["labels"], json!({ "ring": "1" }));
    let error = person.fails(&["satellite", "show", "gateway-71"]);
    assert!(error.contains(r#"did you mean "gateway-17"?"#), "{error}");
    let again = person.json(&["satellite", "token", "gateway-17"]);
    assert_ne!(again["token"], token);
    let events = person.succeeds(&["event", "ls", "--satellite", "gateway-17"]);
    assert!(events.contains("gateway-17  -"), "{events}");
    person.succeeds(&["satellite", "revoke", "gateway-17"]);
    robot.expect(401, "POST", "/satellites/sync", "{}");
    let listed = person.succeeds(&["satellite", "ls"]);
    let row = listed.lines().find(|line| line.starts_with("gateway-17")).unwrap();
    assert!(row.contains("  Revoked ") && !row.contains("Online"), "{listed}");
    assert!(person.succeeds(&["satellite", "show", "gateway-17"]).contains("Revoked"));
    person.succeeds(&["satellite", "decommission", "gateway-17"]);
    assert!(!person.succeeds(&["satellite", "ls"]).contains("gateway"));
}

#[test]
fn a_device_is_given_the_public_url() {
    let database = Database::sqlite();
    let mut command = Server::command(&database, "127.0.0.1:0".parse().unwrap());
    command.args(["--url", "https://ground.example"]).stdout(Stdio::null());
    let mut child = command.env("GROUND_CONTROL_ADMIN_PASSWORD", PASSWORD).spawn().unwrap();
    let address = Server::address_of(&mut child);
    let server = Server { child, address };
    let person = Person::logged_in(&database, &server);
    person.succeeds(&["config", "set", "default", "app_config.log_level=info"]);
    let added = person.json(&["satellite", "add", "gateway-17", "--config", "default"]);
    assert_eq!(added["url"], "https://ground.example");
}

#[test]
fn a_copy_made_while_serving_comes_back() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::logged_in(&database, &server);
    person.succeeds(&["apply", "-f", "fleet.yaml"]);
    let data = database.directory().to_str().unwrap();
    person.succeeds(&["backup", "--data", data, "copy.db"]);
    let copy = person.home.join("copy.db");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(person.fails(&["backup", "--data", data, "copy.db"]).contains("exists"));
    person.succeeds(&["satellite", "decommission", "gateway-17"]);
    let restore = ["restore", "--data", data, "copy.db"];
    // Not under a server, and not over data.
    let error = person.fails(&[&restore[..], &["--force"]].concat());
    assert!(error.contains("a server uses it"), "{error}");
    let address = server.address;
    assert!(server.stop());
    assert!(person.fails(&restore).contains("--force"));
    let restored = person.succeeds(&[&restore[..], &["--force"]].concat());
    assert!(restored.contains("before-restore"), "{restored}");
    assert!(database.directory().join("before-restore/ground-control.db").exists());
    assert!(!database.directory().join("restore.partial").exists());
    // Another restore leaves what the first one kept.
    let before = |number: &str| {
        fs::read(database.directory().join(format!("before-restore{number}/ground-control.db")))
    };
    let first = before("").unwrap();
    let second = fs::read(database.directory().join("ground-control.db")).unwrap();
    assert_ne!(first, second);
    let restored = person.succeeds(&[&restore[..], &["--force"]].concat());
    assert!(restored.contains("before-restore-2"), "{restored}");
    assert_eq!((before("").unwrap(), before("-2").unwrap()), (first, second));
    // A log beside the file: it is no copy, and what the log has is not in it.
    fs::write(person.home.join("copy.db-wal"), "x").unwrap();
    let error = person.fails(&[&restore[..], &["--force"]].concat());
    assert!(error.contains("copy.db-wal"), "{error}");
    fs::remove_file(person.home.join("copy.db-wal")).unwrap();

    // The session is of then too.
    let server = Server::start_on(&database, address);
    assert!(person.succeeds(&["satellite", "ls"]).contains("gateway-17"));
    drop(server);
    let fresh = Database::sqlite();
    person.succeeds(&["restore", "--data", fresh.directory().to_str().unwrap(), "copy.db"]);
    Server::start(&fresh).admin().expect(200, "GET", "/api/satellites/gateway-17", "");
}

#[test]
fn what_is_no_copy_is_not_restored() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::logged_in(&database, &server);
    let data = database.directory().to_str().unwrap();
    person.succeeds(&["backup", "--data", data, "copy.db"]);
    let fresh = Database::sqlite();
    let target = fresh.directory().to_str().unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        fs::write(person.home.join(name), bytes).unwrap();
        let error = person.fails(&["restore", "--data", target, name]);
        assert!(error.contains(name), "{error}");
        assert!(!Path::new(target).join("ground-control.db").exists(), "{name}");
    };
    refused("empty", b"");
    refused("text", b"apiVersion: moonlet/v1");
    let mut bytes = fs::read(person.home.join("copy.db")).unwrap();
    bytes[8192..].fill(0x5a);
    refused("corrupt", &bytes);
    let url = "postgres://u:secret@h/n";
    let error = person.fails(&["backup", "--database", url, "x"]);
    assert!(error.contains("pg_dump") && !error.contains("secret"), "{error}");
    assert!(person.fails(&["restore", "--database", url, "x"]).contains("pg_restore"));
}

#[test]
fn a_list_is_set_as_a_whole() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::logged_in(&database, &server);
    person.succeeds(&["apply", "-f", "fleet.yaml"]);
    let error = person.fails(&["config", "set", "default", "moonlet.registries.0.username=other"]);
    assert!(error.contains("moonlet.registries is a list"), "{error}");
    let spec = person.json(&["config", "show", "default"])["spec"].clone();
    assert_eq!(spec["moonlet"]["registries"][0]["username"], "edge");
    let list = r#"moonlet.registries=[{"url":"https://r.example","username":"u","password":"p"}]"#;
    person.succeeds(&["config", "set", "default", list]);
}

#[test]
fn a_rollout_is_started_watched_and_approved() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::logged_in(&database, &server);
    person.succeeds(&["apply", "-f", "fleet.yaml"]);
    let start = [
        "rollout",
        "start",
        "web-2",
        "--group",
        "web",
        "--add",
        "library/nginx:1.28",
        "--remove",
        "library/nginx:1.27",
        "--batch",
        "1 site=north",
        "--batch",
        "25%",
        "--manual",
        "--budget-by",
        "site",
        "--max-unavailable",
        "1",
    ];
    assert!(person.fails(&[&start[..], &["--batch", "x"]].concat()).contains("limit \"x\""));
    let error = person.fails(&[&start[..], &["--activate-at", "noon"]].concat());
    assert!(error.contains("activateAt \"noon\": expected a time such as 2026"), "{error}");
    let time = "2099-01-01T00:00:00Z";
    let start = [&start[..], &["--download-only", "--activate-at", time]].concat();
    let error = person.fails(&["rollout", "start", "r", "--group", "wep", "a:1"]);
    assert!(error.contains("did you mean \"web\""), "{error}");
    person.succeeds(&start);
    assert!(person.fails(&["rollout", "pause", "web-3"]).contains("did you mean \"web-2\""));
    let written = person.json(&["rollout", "show", "web-2"]);
    assert_eq!(written["spec"]["state"]["artifacts"][0]["tag"], json!(["1.28"]));
    assert_eq!(written["spec"]["policy"]["sequence"][1]["limit"], "25%");
    // What is printed is a document that starts nothing twice.
    fs::write(person.home.join("again.json"), written.to_string()).unwrap();
    let applied = person.succeeds(&["apply", "-f", "again.json"]);
    assert!(applied.contains("rollout/web-2 unchanged"), "{applied}");
    let other = written.to_string().replace("1.28", "1.29");
    fs::write(person.home.join("again.json"), other).unwrap();
    let error = person.fails(&["apply", "-f", "again.json"]);
    assert!(error.contains("it has begun and cannot change"), "{error}");

    // The satellite is of no device: it is away, and nothing is proven.
    let mut watch = person.command(&["rollout", "watch", "web-2"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("1 offline")).unwrap();
    assert!(line.contains("all 1 of batch 1 are offline"), "{line}");
    let shown = person.succeeds(&["rollout", "show", "web-2"]);
    assert!(shown.contains("gateway-17") && shown.contains("successThreshold 90%"), "{shown}");
    assert!(shown.contains(&format!("downloadOnly true, activateAt {time}")), "{shown}");
    assert!(person.succeeds(&["rollout", "ls"]).contains("web-2  web    Running"));
    person.succeeds(&["rollout", "pause", "web-2"]);
    assert!(person.fails(&["rollout", "approve", "web-2"]).contains("expected AwaitingApproval"));
    person.succeeds(&["rollout", "resume", "web-2"]);
    person.succeeds(&["rollout", "abort", "web-2"]);
    assert_eq!(watch.wait().unwrap().code(), Some(1));

    let rollout = "apiVersion: moonlet/v1\nkind: Rollout\nmetadata: {name: base-2}\nspec:\n  \
        group: base\n  state: {artifacts: [{repository: library/busybox, tag: ['1.38']}]}\n  \
        policy: {activateAt: 2099-01-01T00:00:00Z}\n";
    fs::write(person.home.join("rollout.yaml"), rollout).unwrap();
    let dry = person.succeeds(&["apply", "-f", "rollout.yaml", "--dry-run"]);
    assert!(dry.contains("rollout/base-2 would be created\n  - library/busybox:1.36"), "{dry}");
    person.succeeds(&["apply", "-f", "rollout.yaml"]);
    let shown = person.succeeds(&["rollout", "show", "base-2"]);
    assert!(shown.contains("activateAt 2099"), "{shown}");
    let bad = rollout.replace("group: base", "group: none").replace("tag:", "tags:");
    fs::write(person.home.join("rollout.yaml"), bad).unwrap();
    let error = person.fails(&["apply", "-f", "rollout.yaml"]);
    assert!(error.contains("spec.state.artifacts.0.tags: an unknown field"), "{error}");
}

#[test]
fn shells_complete_what_there_is() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::new(&database, &server);
    for shell in ["bash", "zsh", "fish"] {
        let script = person.succeeds(&["completion", shell]);
        for word in ["decommission", "dry-run", "selector"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    // bash takes it, and completes by it.
    fs::write(person.home.join("script"), person.succeeds(&["completion", "bash"])).unwrap();
    for (words, completed) in [("satellite dec", "decommission"), ("group add", "add-satellite")] {
        let (noun, verb) = words.split_once(' ').unwrap();
        let ask = format!(
            ". ./script; COMP_WORDS=(ground-control {noun} {verb}); COMP_CWORD=2; \
             _ground__control ground-control {verb} {noun}; echo ${{COMPREPLY[@]}}"
        );
        let bash = Command::new("bash").args(["-c", &ask]).current_dir(&person.home).output();
        let bash = bash.unwrap();
        assert_eq!(String::from_utf8(bash.stdout).unwrap(), format!("{completed}\n"));
    }
}

#[test]
fn people_are_added_and_given_passwords() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let person = Person::logged_in(&database, &server);
    fs::write(person.home.join("eve"), "Battery-staple-2").unwrap();
    person.succeeds(&["user", "add", "eve", "--password-file", "eve"]);
    let url = person.server.clone();
    let eve = Person::new(&Database::sqlite(), &server);
    fs::copy(person.home.join("eve"), eve.home.join("eve")).unwrap();
    eve.succeeds(&["login", &url, "--user", "eve", "--password-file", "eve"]);
    eve.succeeds(&["group", "set", "web", "a:1"]);
    assert!(eve.fails(&["group", "rm", "web"]).contains("your role does not allow this"));
    person.succeeds(&["user", "password", "eve", "--password-file", "password"]);
    assert!(eve.fails(&["group", "ls"]).contains("has ended"));
    assert!(person.fails(&["user", "rm", "evee"]).contains(r#"did you mean "eve"?"#));
    person.succeeds(&["user", "rm", "eve"]);
    // Programs have tokens; a viewer's changes nothing.
    let token = person.succeeds(&["token", "add", "ci", "--expires-in", "30d"]);
    let program = |arguments: &[&str]| {
        let mut command = eve.command(arguments);
        command.env("GROUND_CONTROL_SERVER", &url).env("GROUND_CONTROL_TOKEN", token.trim());
        command.output().unwrap().status.code()
    };
    assert_eq!(program(&["group", "ls"]), Some(0));
    assert_eq!(program(&["group", "set", "web", "a:2"]), Some(2));
    assert!(person.succeeds(&["token", "ls"]).contains("ci    viewer  admin"));
    person.succeeds(&["token", "rm", "ci"]);
    assert_eq!(program(&["group", "ls"]), Some(2));
    // Who did what is written down.
    let audit = person.json(&["audit", "ls", "--limit", "1"]);
    assert_eq!(audit.as_array().unwrap().len(), 1);
    assert_eq!((&audit[0]["actor"], &audit[0]["object"]), (&json!("admin"), &json!("ci")));
    // Without a terminal no question is asked, and the password of a login is for no one else.
    let mut add = person.command(&["user", "add", "bob"]);
    let add = add.env("GROUND_CONTROL_PASSWORD", "Battery-staple-9").output().unwrap();
    assert!(String::from_utf8(add.stderr).unwrap().contains("--password-file"));
    assert!(!person.succeeds(&["user", "add", "--help"]).contains("GROUND_CONTROL_PASSWORD"));
    assert!(person.succeeds(&["login", "--help"]).contains("GROUND_CONTROL_PASSWORD"));
}
