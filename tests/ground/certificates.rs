//! TLS with files that change, and satellites that show certificates; openssl makes them, and curl
//! shows them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::relay::Relay;
use crate::common::{free_port, wait_until};
use crate::harness::{Database, PASSWORD, Server};
use crate::satellite;

/// Runs openssl in a directory.
fn openssl(directory: &Path, arguments: &str, more: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).args(more).current_dir(directory);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments} {more:?}: {said}");
}

/// An authority of its own: NAME.pem and NAME.key.
fn authority(directory: &Path, name: &str) {
    let files = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 \
        -keyout {name}.key -out {name}.pem"
    );
    openssl(directory, &files, &["-subj", &format!("/CN={name}")]);
}

/// A certificate NAME.pem with its key, by an authority.
fn certificate(directory: &Path, by: &str, name: &str, subject: &str, alternative: &str) {
    let request = format!(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr"
    );
    openssl(directory, &request, &["-subj", subject]);
    let extensions = match alternative {
        "" => "basicConstraints=CA:FALSE".to_owned(),
        names => format!("basicConstraints=CA:FALSE\nsubjectAltName={names}"),
    };
    std::fs::write(directory.join("extensions"), extensions).unwrap();
    let sign = format!(
        "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -CAcreateserial -days 9 \
         -extfile extensions -out {name}.pem"
    );
    openssl(directory, &sign, &[]);
}

/// A server with TLS, and what it said after its start.
struct Secured {
    child: Child,
    base: String,
    files: PathBuf,
}

impl Secured {
    fn start(database: &Database) -> Self {
        Self::start_on(database, "127.0.0.1:0".parse().unwrap(), &[])
    }

    fn start_on(database: &Database, listen: SocketAddr, more: &[&str]) -> Self {
        let files = database.directory().to_owned();
        let mut child = Server::command(database, listen)
            .args(more)
            .env("GROUND_CONTROL_ADMIN_PASSWORD", PASSWORD)
            .arg("--tls-cert")
            .arg(files.join("server.pem"))
            .arg("--tls-key")
            .arg(files.join("server.key"))
            .arg("--client-ca")
            .arg(files.join("fleet.pem"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let address = Server::address_of(&mut child);
        Self { child, base: format!("https://{address}"), files }
    }

    /// The status and the body of an answer.
    fn curl(&self, path: &str, arguments: &[&str]) -> (u16, String) {
        let mut command = Command::new("curl");
        command.args(["-s", "-w", "\n%{http_code}", "--cacert", "roots.pem"]).args(arguments);
        let output = command.arg(format!("{}{path}", self.base)).current_dir(&self.files).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    fn as_admin(&self, method: &str, path: &str, body: &str) -> String {
        let user = format!("admin:{PASSWORD}");
        let (status, body) = self.curl(path, &["-u", &user, "-X", method, "-d", body]);
        assert!(status < 300, "{method} {path}: {status} {body}");
        body
    }

    /// The common name of what is shown.
    fn shown(&self) -> String {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "openssl s_client -connect {} </dev/null 2>/dev/null | openssl x509 -noout -subject",
                self.base.trim_start_matches("https://")
            ))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().rsplit(' ').next().unwrap().to_owned()
    }

    fn await_shown(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.shown().ends_with(name) {
            assert!(Instant::now() < deadline, "{} is shown, not {name}", self.shown());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn hangup(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn prepared() -> Database {
    let database = Database::sqlite();
    let files = database.directory();
    std::fs::create_dir_all(files).unwrap();
    for name in ["site", "fleet", "stranger"] {
        authority(files, name);
    }
    std::fs::copy(files.join("site.pem"), files.join("roots.pem")).unwrap();
    certificate(files, "site", "server", "/CN=first", "IP:127.0.0.1");
    database
}

#[test]
fn a_renewed_certificate_is_taken_up_and_a_bad_one_is_not() {
    let database = prepared();
    let server = Secured::start(&database);
    let files = database.directory();
    assert!(server.shown().ends_with("first"));
    // By itself, when both files are new; a bad one leaves the one before in use.
    certificate(files, "site", "server", "/CN=second", "IP:127.0.0.1");
    server.await_shown("second");
    let good = std::fs::read(files.join("server.pem")).unwrap();
    for bad in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(files.join("server.pem"), bad).unwrap();
        server.hangup();
        std::thread::sleep(Duration::from_millis(300));
        assert!(server.shown().ends_with("second"), "{bad:?}");
        assert_eq!(server.curl("/ping", &[]), (200, "pong".to_owned()));
    }
    // A certificate of another key is as bad, however it comes about.
    certificate(files, "site", "other", "/CN=third", "IP:127.0.0.1");
    std::fs::copy(files.join("other.pem"), files.join("server.pem")).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    assert!(server.shown().ends_with("second"));
    std::fs::copy(files.join("other.key"), files.join("server.key")).unwrap();
    server.await_shown("third");
    std::fs::write(files.join("server.pem"), good).unwrap();
}

#[test]
fn a_certificate_is_as_good_as_a_token() {
    let database = prepared();
    let files = database.directory();
    let spiffe = "URI:spiffe://td/satellite/region/north/edge1";
    certificate(files, "fleet", "edge1", "/CN=ignored", spiffe);
    certificate(files, "fleet", "edge2", "/CN=edge2", "");
    certificate(files, "fleet", "edge3", "/CN=edge3", "");
    certificate(files, "fleet", "person", "/CN=edge1", "URI:spiffe://td/user/edge1");
    certificate(files, "stranger", "forged", "/CN=edge1", spiffe);
    let server = Secured::start(&database);
    let as_one = |name: &str, path: &str, more: &[&str]| {
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        server.curl(path, &[&["--cert", &cert, "--key", &key], more].concat())
    };
    server.as_admin("POST", "/api/configs", r#"{"config_name":"c1","config":{}}"#);
    for name in ["edge1", "edge2"] {
        let body = format!(r#"{{"name":"{name}","config_name":"c1"}}"#);
        server.as_admin("POST", "/api/satellites", &body);
    }
    let enrol = "/satellites/spiffe-ztr";
    let (status, body) = as_one("edge1", enrol, &[]);
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["auth"]["username"], "robot$edge1");
    let user = format!("robot$edge1:{}", answer["auth"]["password"].as_str().unwrap());
    assert_eq!(server.curl("/satellites/sync", &["-u", &user, "-d", "{}"]).0, 200);
    let known: Value =
        serde_json::from_str(&server.as_admin("GET", "/api/satellites/edge1", "")).unwrap();
    assert_eq!(
        (&known["Lifecycle"], &known["Labels"]["region"]),
        (&"Enrolled".into(), &"north".into())
    );
    // A common name where there is no SPIFFE id, and a body without a token as Moonlet sends it.
    let body = r#"{"token":"","facts":{"arch":"linux/arm/v7"}}"#;
    assert_eq!(as_one("edge2", "/satellites/ztr", &["-d", body]).0, 200);
    assert_eq!(as_one("edge2", "/satellites/sync", &["-d", "{}"]).0, 200, "by the certificate");
    // None of these is a satellite of the fleet.
    assert_eq!(as_one("edge3", enrol, &[]).0, 403);
    assert_eq!(as_one("person", enrol, &[]).0, 401);
    assert_eq!(as_one("forged", enrol, &[]).0, 0, "the handshake fails");
    assert_eq!(server.curl(enrol, &[]).0, 401);
    assert_eq!(server.curl("/satellites/ztr", &["-d", body]).0, 400);
    assert_eq!(as_one("edge1", "/api/groups", &[]).0, 401, "it is no person");
    // Revoked is revoked, whatever authority vouches for it.
    server.as_admin("POST", "/api/satellites/edge2/revoke", "");
    assert_eq!(as_one("edge2", enrol, &[]).0, 403);
    assert_eq!(as_one("edge2", "/satellites/sync", &["-d", "{}"]).0, 401);
    // Another authority takes the place of the one before.
    std::fs::copy(files.join("stranger.pem"), files.join("fleet.pem")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while as_one("forged", enrol, &[]).0 != 200 {
        assert!(Instant::now() < deadline, "the new authority is not taken up");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(as_one("edge1", enrol, &[]).0, 0);
}

/// As spiffe-helper renews an SVID: the files change, without a signal to the satellite.
#[test]
fn a_satellite_shows_the_certificate_that_its_files_have_now() {
    let database = prepared();
    let files = database.directory();
    let spiffe = "URI:spiffe://td/satellite/region/north/edge1";
    certificate(files, "fleet", "edge1", "/CN=ignored", spiffe);
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let relay = Relay::start(listen);
    let url = format!("https://{}", relay.address);
    let server = Secured::start_on(&database, listen, &["--url", &url]);
    let every = r#"{"config_name":"c1","config":{"app_config":{
        "heartbeat_interval":"@every 00h00m01s","state_replication_interval":"@every 00h00m01s"}}}"#;
    server.as_admin("POST", "/api/configs", every);
    server.as_admin("POST", "/api/satellites", r#"{"name":"edge1","config_name":"c1"}"#);
    let mut device = satellite::prepare("svid", |directory| {
        let file = |name: &str| files.join(name);
        format!(
            "{}[ground_control]\nurl = \"{url}\"\nca_file = {:?}\nclient_cert = {:?}\n\
             client_key = {:?}\n",
            satellite::text(directory, "1s", &[], &[]),
            file("roots.pem"),
            file("edge1.pem"),
            file("edge1.key"),
        )
    });
    device.start_again();
    // There is no token: the certificate says who it is.
    let shown = || {
        let text = server.as_admin("GET", "/api/satellites/edge1/state", "");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    wait_until(|| shown()["connection"] == "Online", || format!("{}{}", shown(), device.log()));
    // What an unchanged poll costs with TLS, without the reports.
    let config = |heartbeat: &str| {
        let patch = format!(r#"{{"app_config":{{"heartbeat_interval":"@every {heartbeat}"}}}}"#);
        server.as_admin("PATCH", "/api/configs/c1", &patch);
    };
    config("12h00m00s");
    let is_taken = || shown()["config_digest"]["desired"] == shown()["config_digest"]["reported"];
    wait_until(is_taken, || shown().to_string());
    let polls = || device.log().matches("/v2/satellite/satellite-state/edge1/state").count();
    let start = polls();
    wait_until(|| polls() > start + 2, || device.log());
    let (before, bytes) = (polls(), relay.bytes());
    wait_until(|| polls() > before + 10, || device.log());
    let each = (relay.bytes() - bytes) / u64::try_from(polls() - before).unwrap();
    println!("an unchanged poll: {each} bytes on the wire, TLS");
    assert!(each > 0 && each <= 1024, "{each} bytes for an unchanged poll");
    config("00h00m01s");
    let problems = || {
        let admin = device.admin().expect(200, "GET", "/status", "").json();
        admin["problems"].to_string()
    };
    // Another authority vouches for the fleet from here on.
    std::fs::copy(files.join("stranger.pem"), files.join("fleet.pem")).unwrap();
    let refuses = || server.curl("/ping", &["--cert", "edge1.pem", "--key", "edge1.key"]).0 == 0;
    wait_until(refuses, || "the authority before is trusted still".to_owned());
    relay.cut_after(1);
    wait_until(|| problems().contains("ground control"), problems);
    relay.cut_after(0);
    wait_until(|| problems().contains("tls") || problems().contains("alert"), problems);
    certificate(files, "stranger", "edge1", "/CN=ignored", spiffe);
    wait_until(|| problems() == "[]", problems);
    assert!(device.lives());
}
