//! The Go programs of Harbor Satellite in one fleet with ours, where `MOONLET_TEST_GO_FLEET` names
//! a directory with them (`scripts/go-fleet` builds them there). Elsewhere nothing of this runs.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Directory, Running, free_port};
use crate::harbor::{Harbor, SECRET, USER};
use crate::harness::{Client, Database, Server};
use crate::members::{await_image, prepare_at};
use crate::registry::Registry;
use crate::satellite::wait_until;

/// A Go program, killed at the end of the test, in a directory of its own.
struct Program {
    _running: Running,
    log: PathBuf,
}

impl Program {
    fn start(command: &mut Command, files: &Directory) -> Self {
        let log = files.join("log");
        Self { _running: Running::start(command, &log), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn programs(test: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("MOONLET_TEST_GO_FLEET").map(PathBuf::from);
    if directory.is_none() {
        // Not captured, so that it is not taken for a test that passed.
        let line = format!("{test}: skipped, MOONLET_TEST_GO_FLEET names no Go programs\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    directory
}

fn harbor(database: &Database) -> Harbor {
    let harbor = Harbor::start(Registry::start(database));
    harbor.state.lock().unwrap().projects.insert("library".into(), false);
    harbor.state.lock().unwrap().policies.push("g1".into());
    harbor.registry.push("library/app", "1", "layer one");
    harbor
}

fn config(url: &str) -> Value {
    json!({ "config_name": "c1", "config": { "app_config": {
        "ground_control_url": url, "log_level": "info", "use_unsecure": true,
        "state_replication_interval": "@every 00h00m01s",
        "register_satellite_interval": "@every 00h00m01s",
        "heartbeat_interval": "@every 00h00m01s",
        "metrics": { "collect_cpu": true, "collect_memory": true, "collect_storage": true } },
        "zot_config": { "distSpecVersion": "1.1.0", "storage": { "rootDirectory": "./zot" },
            "http": { "address": "127.0.0.1", "port": "8585" }, "log": { "level": "info" } } } })
}

fn group(registry: &str, tags: &[&str]) -> String {
    let artifact = json!({ "repository": "library/app", "tag": tags, "type": "IMAGE" });
    json!({ "group": "g1", "registry": registry, "artifacts": [artifact] }).to_string()
}

/// Go's satellite enrols here, reads its state and its images from Harbor by its robot, replicates
/// into a registry of its own, follows a change, and reports.
#[test]
fn a_go_satellite_joins_our_fleet() {
    let Some(programs) = programs("a_go_satellite_joins_our_fleet") else { return };
    let database = Database::sqlite();
    let harbor = harbor(&database);
    let url = harbor.url();
    let settings = [
        ("PUBLISH", "harbor"),
        ("PUBLISH_URL", url.as_str()),
        ("PUBLISH_USERNAME", USER),
        ("PUBLISH_PASSWORD", SECRET),
    ];
    let server = Server::start_with(&database, "127.0.0.1:0".parse().unwrap(), &settings);
    let own_url = format!("http://{}", server.address);
    let admin = server.admin();
    let files = Directory::new("go-satellite");
    let own = Registry::named(&database, "copies");
    // A remote configuration takes the place of all that its arguments said.
    let mut config = config(&own_url);
    config["config"]["app_config"]["bring_own_registry"] = json!(true);
    config["config"]["app_config"]["local_registry"] = json!({ "url": own.url() });
    admin.expect(201, "POST", "/api/configs", &config.to_string());
    admin.expect(200, "POST", "/api/groups/sync", &group(&url, &["1"]));
    let body = r#"{"name":"edge1","groups":["g1"],"config_name":"c1"}"#;
    let token = admin.expect(200, "POST", "/api/satellites", body).json();
    let mut command = Command::new(programs.join("harbor-satellite"));
    command
        .args(["--ground-control-url", &own_url, "--token", token["token"].as_str().unwrap()])
        .args(["--use-unsecure", "--no-registry-fallback", "--harbor-registry-url", &url])
        .args(["--byo-registry", "--registry-url", &own.url()])
        .arg("--config-dir")
        .arg(files.join("config"))
        .current_dir(files.path());
    let satellite = Program::start(&mut command, &files);
    let holds = |tag: &str| {
        let path = format!("/v2/library/app/manifests/{tag}");
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json\r\n";
        Client::at(own.address).ask_with("HEAD", &path, accept, "").status == 200
    };
    wait_until(|| holds("1"), || satellite.log());
    let status = || admin.get("/api/satellites/edge1/status");
    wait_until(|| status().status == 200, || satellite.log());
    harbor.registry.push("library/app", "2", "layer two");
    admin.expect(200, "POST", "/api/groups/sync", &group(&url, &["1", "2"]));
    wait_until(|| holds("2"), || satellite.log());
    let state = || admin.get("/api/satellites/edge1/state").text();
    wait_until(|| state().contains("\"connection\":\"Online\""), || satellite.log());
}

/// Our satellite in a fleet of Go's Ground Control, which needs PostgreSQL.
#[test]
fn our_satellite_joins_a_go_fleet() {
    let Some(programs) = programs("our_satellite_joins_a_go_fleet") else { return };
    let Ok(postgres) = std::env::var("MOONLET_TEST_POSTGRES") else { return };
    let database = Database::postgres(&postgres);
    let harbor = harbor(&database);
    let files = Directory::new("go-ground");
    let at = url::Url::parse(database.url().unwrap()).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(programs.join("ground-control"));
    command
        // Its migrations are found there.
        .current_dir(&programs)
        .env("PORT", address.port().to_string())
        .env("ADMIN_PASSWORD", crate::harness::PASSWORD)
        .env("HARBOR_URL", harbor.url())
        .env("HARBOR_USERNAME", USER)
        .env("HARBOR_PASSWORD", SECRET)
        .env("DB_HOST", at.host_str().unwrap())
        .env("DB_PORT", at.port().unwrap().to_string())
        .env("DB_DATABASE", at.path().trim_start_matches('/'))
        .env("DB_USERNAME", at.username())
        .env("DB_PASSWORD", "none");
    let ground = Program::start(&mut command, &files);
    wait_until(|| TcpStream::connect(address).is_ok(), || ground.log());
    let anyone = Client::at(address);
    let login = format!(r#"{{"username":"admin","password":"{}"}}"#, crate::harness::PASSWORD);
    let session = anyone.expect(200, "POST", "/login", &login).json();
    let admin = anyone.with(&format!("Bearer {}", session["token"].as_str().unwrap()));
    let own_url = format!("http://{address}");
    admin.expect(201, "POST", "/api/configs", &config(&own_url).to_string());
    admin.expect(200, "POST", "/api/groups/sync", &group(&harbor.url(), &["1"]));
    let body = r#"{"name":"edge1","groups":["g1"],"config_name":"c1"}"#;
    let token = admin.expect(200, "POST", "/api/satellites", body).json();
    let token = token["token"].as_str().unwrap();
    let mut satellite = prepare_at("go-fleet", &own_url, token);
    satellite.start_again();
    await_image(&satellite, "library/app", "1", 200);
    let status = || admin.get("/api/satellites/edge1/status").text();
    wait_until(|| status().contains("\"ImageCount\":{\"Int32\":1"), status);
}
