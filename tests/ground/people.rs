//! Users, log-ins and who may do what.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::console::Browser;
use crate::harness::{Database, PASSWORD, Server, on_each_store};

#[test]
fn the_first_password_is_shown_once() {
    let database = Database::sqlite();
    let any = "127.0.0.1:0".parse().unwrap();
    let mut first = Server::command(&database, any).stdout(Stdio::piped()).spawn().unwrap();
    let address = Server::address_of(&mut first);
    let mut shown = vec![0; 200];
    let count = first.stdout.take().unwrap().read(&mut shown).unwrap();
    let line = String::from_utf8(shown[..count].to_vec()).unwrap();
    let password = line.split(' ').nth(3).unwrap();
    let body = format!(r#"{{"username":"admin","password":"{password}"}}"#);
    first.kill().unwrap();
    first.wait().unwrap();

    // Another password in the environment does not replace one that exists.
    let server = Server::start_on(&database, address);
    server.anyone().expect(200, "POST", "/login", &body);
    server.anyone().expect(401, "POST", "/login", &body.replace(password, PASSWORD));
    use std::os::unix::fs::PermissionsExt as _;
    let file = database.directory().join("ground-control.db");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_first_password_that_cannot_be_shown_does_not_count() {
    let database = Database::sqlite();
    let any = "127.0.0.1:0".parse().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = Server::command(&database, any).stdout(full).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let wanted = |line: &String| line.contains(" on 127.0.0.1:") || line.contains("showing");
    let line = lines.find(wanted).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("showing the first password"), "{line}");
    Server::start(&database).admin();
}

#[test]
fn tls_is_spoken() {
    let database = Database::sqlite();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::create_dir_all(database.directory()).unwrap();
    let file = |name: &str, text: String| {
        let path = database.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let cert = file("cert.pem", made.cert.pem());
    let key = file("key.pem", made.signing_key.serialize_pem());
    let mut child = Server::command(&database, "127.0.0.1:0".parse().unwrap())
        .arg("--tls-cert")
        .arg(&cert)
        .arg("--tls-key")
        .arg(&key)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let address = Server::address_of(&mut child);
    let curl = |url: String| {
        let output =
            Command::new("curl").arg("-si").arg("--cacert").arg(&cert).arg(url).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let answer = curl(format!("https://{address}/v2/"));
    let realm = format!("Bearer realm=\"https://{address}/service/token\"");
    assert!(answer.contains(&realm), "{answer}");
    assert_eq!(curl(format!("http://{address}/ping")), "", "plain HTTP is not answered");
    child.kill().unwrap();
    child.wait().unwrap();

    // Half of the pair, or a file that is none, is an error before anything is served.
    for arguments in [&["--tls-cert"][..], &["--tls-key", "/dev/null", "--tls-cert"][..]] {
        let mut command = Server::command(&database, "127.0.0.1:0".parse().unwrap());
        let output = command.args(arguments).arg(&cert).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("tls_key"), "{text}");
    }
}

#[test]
fn users_and_their_rights() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let body = r#"{"username":"eve","password":"Battery-staple-2"}"#;
        let created = admin.expect(201, "POST", "/api/users", body).json();
        assert_eq!((&created["username"], &created["role"]), (&json!("eve"), &json!("admin")));
        admin.expect(409, "POST", "/api/users", body);
        admin.expect(400, "POST", "/api/users", &body.replace("Battery-staple-2", "short"));
        admin.expect(400, "DELETE", "/api/users/admin", "");

        let eve = server.basic("eve", "Battery-staple-2");
        let group = r#"{"group":"g1","artifacts":[{"repository":"a","tag":["1"]}]}"#;
        eve.expect(200, "POST", "/api/groups/sync", group);
        eve.expect(403, "DELETE", "/api/groups/g1", "");
        eve.expect(403, "POST", "/api/users", body);
        let own = r#"{"current_password":"Battery-staple-2","new_password":"Battery-staple-3"}"#;
        eve.expect(401, "PATCH", "/api/users/password", &own.replacen("staple-2", "x", 1));
        let login = server.anyone().expect(200, "POST", "/login", body).json();
        let session = server.with(&format!("Bearer {}", login["token"].as_str().unwrap()));
        session.expect(200, "GET", "/api/users/eve", "");
        eve.expect(204, "PATCH", "/api/users/password", own);
        session.expect(401, "GET", "/api/users/eve", "");
        admin.expect(
            204,
            "PATCH",
            "/api/users/eve/password",
            r#"{"new_password":"Battery-staple-4"}"#,
        );
        server.basic("eve", "Battery-staple-4").expect(200, "GET", "/api/groups", "");
        admin.expect(204, "DELETE", "/api/users/eve", "");
        server.basic("eve", "Battery-staple-4").expect(401, "GET", "/api/groups", "");
        admin.expect(204, "POST", "/api/logout", "");
        admin.expect(401, "GET", "/api/users", "");
    });
}

/// Every request that changes something.
const CHANGES: [(&str, &str); 20] = [
    ("POST", "/api/users"),
    ("DELETE", "/api/users/eve"),
    ("PATCH", "/api/users/eve/password"),
    ("POST", "/api/groups/sync"),
    ("POST", "/api/groups/satellite"),
    ("DELETE", "/api/groups/satellite"),
    ("DELETE", "/api/groups/g1"),
    ("POST", "/api/configs"),
    ("PATCH", "/api/configs/c1"),
    ("DELETE", "/api/configs/c1"),
    ("POST", "/api/configs/satellite"),
    ("POST", "/api/satellites"),
    ("PATCH", "/api/satellites/edge1"),
    ("DELETE", "/api/satellites/edge1"),
    ("POST", "/api/satellites/edge1/token"),
    ("POST", "/api/satellites/edge1/revoke"),
    ("POST", "/api/tokens"),
    ("DELETE", "/api/tokens/look"),
    ("POST", "/api/rollouts"),
    ("POST", "/api/rollouts/web-2/abort"),
];

#[test]
fn who_only_reads_changes_nothing() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let made = admin.expect(201, "POST", "/api/tokens", r#"{"name":"look"}"#).json();
        assert_eq!(made["role"], "viewer");
        let body = r#"{"username":"eve","password":"Battery-staple-2","role":"viewer"}"#;
        admin.expect(201, "POST", "/api/users", body);
        admin.expect(400, "POST", "/api/users", &body.replace("viewer", "system_admin"));
        let token = server.with(&format!("Bearer {}", made["token"].as_str().unwrap()));
        for viewer in [token, server.basic("eve", "Battery-staple-2")] {
            for path in ["/api/groups", "/api/configs", "/api/satellites", "/api/audit"] {
                viewer.expect(200, "GET", path, "");
            }
            for (method, path) in CHANGES {
                viewer.expect(403, method, path, "{}");
            }
        }
        let login = "username=eve&password=Battery-staple-2";
        let browser = Browser::log_in_as(&server, login);
        for (path, fields) in [
            ("/console/groups/g1", "registry=&images=a%3A1"),
            ("/console/satellites", "name=edge2&config_name=c1"),
            ("/console/satellites/edge1/groups", "groups=g1"),
            ("/console/satellites/edge1/labels", "labels=a%3D1"),
            ("/console/satellites/edge1/token", ""),
            ("/console/satellites/edge1/revoke", ""),
            ("/console/rollouts", "name=r&group=g1"),
            ("/console/rollouts/r/abort", ""),
        ] {
            let forbidden = browser.submit("/console/groups/g1", path, fields);
            assert_eq!(forbidden.status, 403, "{path}: {}", forbidden.text());
        }
        assert_eq!(browser.submit("/console", "/console/logout", "").status, 303);
    });
}

#[test]
fn tokens_are_shown_once_and_end() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let body = r#"{"name":"ci","role":"admin","expires_in":"30d"}"#;
        let made = admin.expect(201, "POST", "/api/tokens", body).json();
        let text = made["token"].as_str().unwrap();
        assert!(text.starts_with("gct_") && text.len() > 60, "{text}");
        let answer = admin.expect(409, "POST", "/api/tokens", body);
        assert!(answer.text().contains(r#"token \"ci\""#), "{}", answer.text());
        let ci = server.with(&format!("Bearer {text}"));
        let group = r#"{"group":"g1","artifacts":[{"repository":"a","tag":["1"]}]}"#;
        ci.expect(200, "POST", "/api/groups/sync", group);
        ci.expect(403, "DELETE", "/api/groups/g1", "");
        ci.expect(403, "POST", "/api/tokens", r#"{"name":"more"}"#);
        let own = format!(r#"{{"current_password":"{PASSWORD}","new_password":"Other-horse-2"}}"#);
        ci.expect(403, "PATCH", "/api/users/password", &own);
        let log = admin.get("/api/audit?limit=1").json();
        assert_eq!(log[0]["actor"], "admin (token ci)");

        let listed = admin.expect(200, "GET", "/api/tokens", "");
        assert!(!listed.text().contains(text), "{}", listed.text());
        assert!(listed.json()[0]["used_at"].is_string());
        assert!(!admin.get("/api/audit").text().contains(text));
        for (body, part) in [
            (r#"{"name":"A"}"#, "token"),
            (r#"{"name":"a","role":"king"}"#, "role"),
            (r#"{"name":"a","expires_in":5}"#, "expires_in"),
            (r#"{"name":"a","expires_in":"400d"}"#, "expires_in"),
            (r#"{"name":"a","expires_in":"soon"}"#, "expires_in"),
        ] {
            let answer = admin.expect(400, "POST", "/api/tokens", body).json();
            assert!(answer["message"].as_str().unwrap().starts_with(part), "{answer}");
        }

        // No one makes one that may do more than they, and it ends with its user.
        let user = r#"{"username":"eve","password":"Battery-staple-2"}"#;
        admin.expect(201, "POST", "/api/users", user);
        let eve = server.basic("eve", "Battery-staple-2");
        eve.expect(403, "POST", "/api/tokens", r#"{"name":"b","role":"system_admin"}"#);
        eve.expect(403, "DELETE", "/api/tokens/ci", "");
        let made = eve.expect(201, "POST", "/api/tokens", r#"{"name":"b","expires_in":3600}"#);
        let own = server.with(&format!("Bearer {}", made.json()["token"].as_str().unwrap()));
        own.expect(200, "GET", "/api/groups", "");
        admin.expect(204, "DELETE", "/api/users/eve", "");
        own.expect(401, "GET", "/api/groups", "");
        admin.expect(204, "DELETE", "/api/tokens/ci", "");
        ci.expect(401, "GET", "/api/groups", "");
        admin.expect(404, "DELETE", "/api/tokens/ci", "");
        server.with("Bearer gct_0").expect(401, "GET", "/api/groups", "");
    });
}

/// What a stolen token made would outlive it.
#[test]
fn no_token_opens_another_way_in() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let eve = r#"{"username":"eve","password":"Battery-staple-2"}"#;
        admin.expect(201, "POST", "/api/users", eve);
        let body = r#"{"name":"all","role":"system_admin"}"#;
        let made = admin.expect(201, "POST", "/api/tokens", body).json();
        let token = server.with(&format!("Bearer {}", made["token"].as_str().unwrap()));
        token.expect(403, "POST", "/api/users", &eve.replace("eve", "bob"));
        let password = r#"{"new_password":"Battery-staple-3"}"#;
        for user in ["eve", "admin"] {
            token.expect(403, "PATCH", &format!("/api/users/{user}/password"), password);
        }
        // It has no session that could end.
        let answer = token.expect(400, "POST", "/api/logout", "");
        assert!(answer.text().contains("token"), "{}", answer.text());
        token.expect(200, "GET", "/api/users/eve", "");
        admin.expect(404, "GET", "/api/users/bob", "");

        // A new password ends what was made with the old one.
        let own = server.basic("eve", "Battery-staple-2");
        let made = own.expect(201, "POST", "/api/tokens", r#"{"name":"ci"}"#).json();
        let ci = server.with(&format!("Bearer {}", made["token"].as_str().unwrap()));
        ci.expect(200, "GET", "/api/groups", "");
        admin.expect(204, "PATCH", "/api/users/eve/password", password);
        ci.expect(401, "GET", "/api/groups", "");
        token.expect(200, "GET", "/api/groups", "");
    });
}

#[test]
fn basic_does_not_bypass_the_lock() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let admin = server.admin();
        let wrong = server.basic("admin", "Wrong-password-1");
        for _ in 0..5 {
            let answer = wrong.expect(401, "GET", "/api/groups", "");
            assert_eq!(answer.json(), json!({ "message": "Invalid credentials", "code": 401 }));
        }
        server.basic("admin", PASSWORD).expect(401, "GET", "/api/groups", "");
        let body = format!(r#"{{"username":"admin","password":"{PASSWORD}"}}"#);
        server.anyone().expect(401, "POST", "/login", &body);
        // A user who is in stays in, and others are not concerned.
        admin.expect(200, "GET", "/api/groups", "");
        let metrics = server.anyone().get("/metrics").text();
        assert!(metrics.contains("ground_control_logins_failed_total 5\n"), "{metrics}");
    });
}

#[test]
fn nothing_of_the_api_is_open() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    for (method, path) in [
        ("GET", "/api/groups"),
        ("GET", "/api/users"),
        ("GET", "/api/configs"),
        ("GET", "/api/satellites"),
        ("GET", "/api/satellites/edge1/status"),
        ("GET", "/api/satellites/edge1/state"),
        ("GET", "/api/images"),
        ("GET", "/api/audit"),
        ("GET", "/api/events"),
        ("GET", "/api/tokens"),
        ("PATCH", "/api/users/password"),
        ("POST", "/api/logout"),
    ]
    .into_iter()
    .chain(CHANGES)
    {
        let answer = server.anyone().expect(401, method, path, "{}");
        assert_eq!(answer.json(), json!({ "message": "Unauthorized", "code": 401 }), "{path}");
    }
    for path in ["/satellites/sync", "/sat/refresh"] {
        server.anyone().expect(401, "POST", path, "{}");
    }
    assert_eq!(server.anyone().expect(200, "GET", "/ping", "").text(), "pong");
    let health = server.anyone().expect(200, "GET", "/health", "");
    assert_eq!(health.json(), json!({ "status": "healthy" }));
    server.anyone().expect(404, "GET", "/api/nothing", "");
}
