//! A satellite without a network gets what it lacks on a disk: Ground Control knows what that is by
//! the last report.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{run, text_of, wait_until};
use crate::harness::{Client, Database, PASSWORD, Server};
use crate::registry::Registry;
use crate::satellite;

fn openssl(words: &[&str]) {
    run(Command::new("openssl").args(words));
}

fn group(admin: &Client, registry: &Registry, artifacts: Value) {
    let group = json!({ "group": "g1", "registry": registry.url(), "platforms": ["linux/amd64"],
        "artifacts": artifacts });
    admin.expect(200, "POST", "/api/groups/sync", &group.to_string());
}

fn image(repository: &str, tag: &str) -> Value {
    json!({ "repository": repository, "tag": [tag] })
}

#[test]
fn a_bundle_has_what_the_last_report_lacks_and_is_imported_without_a_network() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let mut registry = Registry::start(&database);
    let admin = server.admin();
    let body = r#"{"config_name":"c1","config":{"app_config":{
        "heartbeat_interval":"@every 00h00m01s","state_replication_interval":"@every 00h00m01s"}}}"#;
    admin.expect(201, "POST", "/api/configs", body);
    let (one, two) = ("layer one ".repeat(99_999), "layer two ".repeat(99_999));
    registry.push("app", "1", &one);
    group(&admin, &registry, json!([image("app", "1")]));
    let body = r#"{"name":"edge1","groups":["g1"],"config_name":"c1"}"#;
    let token = admin.expect(200, "POST", "/api/satellites", body).json();
    let token = token["token"].as_str().unwrap().to_owned();
    let files = database.directory().to_owned();
    let file = |name: &str| files.join(name).to_str().unwrap().to_owned();
    let (key, public) = (file("bundle.key"), file("bundle.pub"));
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &key]);
    openssl(&["pkey", "-in", &key, "-pubout", "-out", &public]);
    let mut device = satellite::prepare("bundle", |directory| {
        let text = satellite::text(directory, "1s", &[], &[]);
        format!(
            "{text}[import]\nkey_file = {public:?}\n[ground_control]\n\
             url = \"http://{}\"\ntoken = \"{token}\"\n",
            server.address
        )
    });
    device.start_again();
    device.await_held();
    let state = || admin.get("/api/satellites/edge1/state").json();
    wait_until(|| state()["updated"] == "UpToDate", || format!("{}{}", state(), device.log()));

    // The link is gone, and the group goes on.
    device.kill();
    let later = registry.push("app", "2", &two).to_string();
    registry.push("copy", "1", &one);
    group(&admin, &registry, json!([image("app", "1"), image("app", "2"), image("copy", "1")]));
    let login = Command::new(env!("CARGO_BIN_EXE_ground-control"))
        .args(["login", &format!("http://{}", server.address), "--password-file"])
        .arg(password(&files))
        .env("HOME", &files)
        .env_remove("XDG_CONFIG_HOME")
        .output()
        .unwrap();
    assert!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));
    let bundle = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ground-control"));
        command.args(["bundle", "--sign", &key, "--cache", &file("cache")]);
        command.args(["--moonlet", env!("CARGO_BIN_EXE_moonlet")]).args(words);
        let output = command.env("HOME", &files).env_remove("XDG_CONFIG_HOME").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    };
    let (delta, whole) = (file("delta.tar"), file("whole.tar"));
    let (code, said) = bundle(&["--for", "edge1", &delta]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = bundle(&["--for", "edge1", "--sequence", "7", "--whole", &whole]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = bundle(&["--for", "edge2", &file("none.tar")]);
    assert!(code == 2 && said.contains("edge2"), "{code} {said}");
    let size = |path: &str| std::fs::metadata(path).unwrap().len();
    assert!(size(&whole) > 1_900_000 && size(&delta) < 1_100_000, "one layer is there already");
    let listed = text_of(Command::new("tar").arg("-tf").arg(&delta));
    assert!(listed.contains("moonlet-bundle.sig"), "{listed}");

    // No registry, no Ground Control: a disk.
    registry.stop();
    server.kill();
    let said = device.expect(&["image", "import", &delta]);
    assert!(said.contains(&later), "{said}");
    let (code, _, said) = device.run(&["image", "import", &whole]);
    assert!(code != 0 && said.contains("sequence"), "an older one: {code} {said}");
    device.start_again();
    for path in ["/v2/app/manifests/1", "/v2/app/manifests/2", "/v2/copy/manifests/1"] {
        assert_eq!(device.get(path).0, 200, "{path}: {}", device.log());
    }
}

fn password(files: &Path) -> std::path::PathBuf {
    let path = files.join("password");
    std::fs::write(&path, PASSWORD).unwrap();
    path
}
