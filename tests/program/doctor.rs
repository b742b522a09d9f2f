//! `moonlet doctor` before devices with one thing wrong each: that is found, and all else is looked
//! at as well.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use moonlet::clock::date::date_of;
use moonlet::oci::Digest;

use crate::fn_registry::{Asked, FnRegistry, Reply, reply};
use crate::harness::free_port;
use crate::registry::{Image, MANIFEST};
use crate::satellite::{Satellite, prepare};
use crate::trust::Own;

/// What doctor says, as JSON.
struct Checkup {
    code: i32,
    text: String,
    json: serde_json::Value,
}

impl Checkup {
    fn of(satellite: &Satellite) -> Self {
        let (code, text, _) = satellite.run(&["doctor", "--json"]);
        let json: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let failed = json["checks"].as_array().unwrap().iter().any(|one| one["result"] == "fail");
        assert_eq!(code, i32::from(failed), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        Self { code, text, json }
    }

    /// Result and sight of one check.
    #[track_caller]
    fn check(&self, name: &str) -> (String, String) {
        let checks = self.json["checks"].as_array().unwrap();
        let found = checks.iter().find(|one| one["check"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name:?} in {}", self.text));
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        assert_eq!(text("do").is_empty(), text("result") == "ok", "{found}");
        (text("result"), text("seen"))
    }

    #[track_caller]
    fn expect(&self, name: &str, result: &str, part: &str) {
        let (found, seen) = self.check(name);
        assert!(found == result && seen.contains(part), "{name}: {found}, {seen}");
    }
}

/// A configuration with addresses that can be asked, and `more`.
fn text(directory: &Path, more: &str) -> String {
    let (store, password) = (directory.join("store"), directory.join("password"));
    std::fs::write(&password, "s3cret\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let more = more.replace("PASSWORD", password.to_str().unwrap());
    format!(
        "[serve]\nlisten = [\"127.0.0.1:{}\"]\n[store]\npath = {store:?}\nsize_max = \"32MiB\"\n\
         [sync]\npoll_interval = \"1h\"\n{more}\n",
        free_port(),
    )
}

fn upstream(url: &str, more: &str) -> String {
    format!(
        "[[upstream]]\nregistry = \"registry.test\"\nurl = \"{url}\"\n{more}\n\
         [[image]]\nreference = \"registry.test/app:1\"\n"
    )
}

const CREDENTIALS: &str = "username = \"edge\"\npassword_file = \"PASSWORD\"";

/// A registry that wants the password `s3cret` of `edge`, and has one image.
fn registry() -> FnRegistry {
    let image = Image::new(3, 5000);
    FnRegistry::start(move |asked: &Asked| -> Reply {
        // edge:s3cret
        if asked.authorization() != "Basic ZWRnZTpzM2NyZXQ=" {
            return reply(401, "").with("WWW-Authenticate: Basic realm=\"x\"");
        }
        let digest = asked.path.rsplit('/').next().unwrap();
        let parts = [&image.config, &image.layer];
        match parts.into_iter().find(|part| Digest::sha256(part).to_string() == digest) {
            Some(part) => reply(200, part),
            None if asked.path == "/v2/" => reply(200, "{}"),
            None if asked.path.contains("/manifests/1") => {
                reply(200, &image.manifest).with(format!("Content-Type: {MANIFEST}"))
            }
            None => reply(404, ""),
        }
    })
}

#[test]
fn nothing_is_wrong() {
    let registry = registry();
    let admin = format!("[admin]\nlisten = \"127.0.0.1:{}\"\n", free_port());
    let plan = "[link]\nday_max = \"100MiB\"\n";
    let mut satellite = prepare("well", |directory| {
        text(directory, &(admin + plan + &upstream(&registry.url(), CREDENTIALS)))
    });
    // Not made yet, and nothing runs.
    let said = Checkup::of(&satellite);
    assert_eq!(said.code, 1, "nothing is served");
    said.expect("satellite", "warn", "none answers at http://127.0.0.1:");
    said.expect("store", "ok", "there is none yet");
    said.expect("registry.test: answer", "ok", "/v2/ answers edge");

    satellite.start_again();
    satellite.await_line("1 images held, 0 not");
    let before = registry.asked().len();
    let said = Checkup::of(&satellite);
    assert_eq!(said.code, 0, "{}", said.text);
    for (check, part) in [
        ("configuration", "moonlet.toml"),
        ("files", "can be read"),
        ("clock", "20"),
        ("satellite", "moonlet 0."),
        ("store: room", "needed"),
        ("store: wear", "erases"),
        ("link: day", "used, until"),
        ("registry.test: name", "127.0.0.1"),
        ("registry.test: connection", "without TLS"),
        ("registry.test: answer", "/v2/ answers edge"),
    ] {
        said.expect(check, "ok", part);
    }
    let served = format!("serve {}", satellite.served);
    said.expect(&served, "ok", "answers");
    said.expect("data plan", "warn", "went over the link");
    assert!(registry.asked().len() - before <= 2, "a question, and one with the password");
    let spent = said.json["link_bytes"].as_u64().unwrap();
    assert!((100..4096).contains(&spent), "{spent} bytes");

    // The store by itself, when the satellite has ended.
    satellite.kill();
    let said = Checkup::of(&satellite);
    said.expect("store", "ok", "segments of");
    said.expect(&served, "fail", "connection refused");
    let (code, table, _) = satellite.run(&["doctor"]);
    assert_eq!(code, 1);
    assert!(table.contains("FAIL  serve 127.0.0.1:") && table.contains("-> start moonlet"));
}

#[test]
fn a_password_that_is_wrong_or_cannot_be_read() {
    let registry = registry();
    let lines = upstream(&registry.url(), CREDENTIALS);
    let satellite = prepare("password", |directory| text(directory, &lines));
    let password = satellite.directory.join("password");
    std::fs::write(&password, "another").unwrap();
    let said = Checkup::of(&satellite);
    said.expect("files", "ok", "");
    said.expect("registry.test: answer", "fail", "credentials of user \"edge\"");
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o644)).unwrap();
    Checkup::of(&satellite).expect("files", "warn", "others can read it (mode 644)");
    std::fs::remove_file(&password).unwrap();
    let said = Checkup::of(&satellite);
    said.expect("files", "fail", "password_file");
    said.expect("registry.test: answer", "fail", "password_file");

    let anonymous = upstream(&registry.url(), "");
    let satellite = prepare("anonymous", |directory| text(directory, &anonymous));
    Checkup::of(&satellite).expect("registry.test: answer", "fail", "asks for credentials");
}

#[test]
fn certificates_against_the_clock() {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (year, month, day) = date_of(i64::try_from(seconds / 86_400).unwrap() + 5);
    let soon = (i32::try_from(year).unwrap(), month, day);
    let soon_text = format!("ends on {year:04}-{month:02}-{day:02}");
    for (name, first, last, result, part) in [
        ("good", (2020, 1, 1), (2199, 1, 1), "ok", "more than 14 days"),
        ("soon", (2020, 1, 1), soon, "warn", soon_text.as_str()),
        ("late", (2020, 1, 1), (2021, 1, 1), "fail", "expired on 2021-01-01"),
        ("early", (2190, 1, 1), (2199, 1, 1), "fail", "is valid from 2190-01-01 on, but the clock"),
    ] {
        let own = Own::between("127.0.0.1", first, last);
        let odd = FnRegistry::with_tls(Arc::clone(&own.server), |_| reply(200, ""));
        let lines = upstream(&format!("https://{}", odd.address), "ca_file = \"CA\"");
        let satellite = prepare(&format!("certificate-{name}"), |directory| {
            let ca = directory.join("ca");
            std::fs::write(&ca, &own.pem).unwrap();
            text(directory, &lines.replace("CA", ca.to_str().unwrap()))
        });
        let said = Checkup::of(&satellite);
        said.expect("registry.test: connection", "ok", "to 127.0.0.1");
        said.expect("registry.test: certificate", result, part);
        assert_eq!(odd.count("GET", "/v2/"), usize::from(result != "fail"), "{name}");
    }
    let own = Own::between("127.0.0.1", (2020, 1, 1), (2199, 1, 1));
    let odd = FnRegistry::with_tls(Arc::clone(&own.server), |_| reply(200, ""));
    let lines = upstream(&format!("https://{}", odd.address), "");
    let satellite = prepare("certificate-foreign", |directory| text(directory, &lines));
    Checkup::of(&satellite).expect("registry.test: certificate", "fail", "is signed by itself");
}

#[test]
fn what_one_way_lacks_stops_no_other() {
    let registry = registry();
    // It takes connections, and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("https://{}", mute.local_addr().unwrap());
    let lines = format!(
        "{}[[upstream]]\nregistry = \"gone.test\"\nurl = \"http://registry.invalid\"\n\
         [[upstream]]\nregistry = \"mute.test\"\nurl = \"{mute}\"\n\
         [[upstream]]\nregistry = \"shut.test\"\nurl = \"http://127.0.0.1:1\"\n\
         [ground_control]\nurl = \"{}\"\ntoken = \"s3cret-token\"\n",
        upstream(&registry.url(), CREDENTIALS),
        FnRegistry::start(|asked| reply(if asked.path == "/ping" { 200 } else { 500 }, "pong"))
            .url(),
    );
    let satellite = prepare("ways", |directory| text(directory, &lines));
    let begin = Instant::now();
    let said = Checkup::of(&satellite);
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    said.expect("gone.test: name", "fail", "resolve registry.invalid");
    said.expect("mute.test: certificate", "fail", "no answer within 10 s");
    said.expect("shut.test: connection", "fail", "connection refused");
    said.expect("registry.test: answer", "ok", "/v2/");
    said.expect("ground control: answer", "ok", "/ping answers");

    let no_ground = FnRegistry::start(|_| crate::fn_registry::reply(404, ""));
    let lines = format!("[ground_control]\nurl = \"{}/\"\ntoken = \"s3cret\"\n", no_ground.url());
    let satellite = prepare("no-ground", |directory| text(directory, &lines));
    Checkup::of(&satellite).expect("ground control: answer", "fail", "status 404");
}

/// Name servers that swallow questions: a file system of its own has them. Without the right to make
/// one there is nothing to see.
#[test]
fn a_name_server_that_is_dead() {
    let Ok(dead) = std::net::UdpSocket::bind("127.0.0.89:53") else { return };
    let may = Command::new("unshare").args(["--mount", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return;
    }
    let satellite = prepare("name-server", |directory| {
        std::fs::write(directory.join("resolv.conf"), "nameserver 127.0.0.89\n").unwrap();
        text(directory, &upstream("http://registry.example", ""))
    });
    let directory = &satellite.directory;
    let script = format!(
        "mount --bind '{0}/resolv.conf' /etc/resolv.conf || exit 77\n\
         exec '{1}' doctor --json -c '{0}/moonlet.toml'",
        directory.display(),
        env!("CARGO_BIN_EXE_moonlet")
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output();
    let output = output.unwrap();
    if output.status.code() == Some(77) {
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    drop(dead);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = json["checks"].as_array().unwrap();
    let found = checks.iter().find(|one| one["check"] == "registry.test: name").unwrap();
    assert_eq!(found["result"], "fail");
    assert!(found["do"].as_str().unwrap().contains("/etc/resolv.conf"), "{found}");
}

#[test]
fn a_store_that_another_has() {
    let mut satellite = prepare("locked", |directory| text(directory, ""));
    satellite.start_again();
    let said = Checkup::of(&satellite);
    said.expect("satellite", "warn", "no [admin] listen");
    said.expect("store", "warn", "in use by another moonlet");
    said.expect(&format!("serve {}", satellite.served), "ok", "answers");
    assert_eq!(said.code, 0, "{}", said.text);
}

#[test]
fn a_configuration_that_cannot_be_used() {
    let satellite = prepare("unusable", |directory| {
        text(directory, "[link]\nrate_max = \"fast\"\nday_max = 7\n")
    });
    let said = Checkup::of(&satellite);
    let checks = said.json["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|one| one["check"] == "configuration");
    assert_eq!(failed.count(), 2, "each mistake is a line: {}", said.text);
    said.check("clock");
}
