//! Go's API for satellites that SPIRE attests, where there is no SPIRE server.

use serde_json::json;

use crate::harness::{Database, Server};

/// What Go's Ground Control answers where no SPIRE server is configured.
#[test]
fn spire_is_asked_for_and_there_is_none() {
    let database = Database::sqlite();
    let server = Server::start(&database);
    let admin = server.admin();
    let status = admin.expect(200, "GET", "/api/spire/status", "").json();
    assert_eq!(status, json!({ "enabled": false, "connected": false }));
    let none = json!({ "message": "SPIRE server not configured", "code": 503 });
    let agents = admin.expect(503, "GET", "/api/spire/agents?attestation_type=x509pop", "");
    assert_eq!(agents.json(), none);
    let register = "/api/satellites/register";
    let good = r#"{"satellite_name":"edge9","region":"north","selectors":["unix:uid:1000"],
        "attestation_method":"join_token","ttl_seconds":600}"#;
    assert_eq!(admin.expect(503, "POST", register, good).json(), none);
    for (body, part) in [
        ("{}".to_owned(), "satellite_name is required"),
        (good.replace("edge9", "Edge 9"), "satellite_name \"Edge 9\": expected"),
        (good.replace(r#"["unix:uid:1000"]"#, "[]"), "selectors is required"),
        (good.replace("unix:uid:1000", "uid"), "invalid selector format \"uid\""),
        (good.replace("join_token", "password"), "must be one of: join_token, x509pop, sshpop"),
        (good.replace("join_token", "sshpop"), "parent_agent_id is required"),
    ] {
        let answer = admin.expect(400, "POST", register, &body).json();
        assert!(answer["message"].as_str().unwrap().contains(part), "{body}: {answer}");
    }
    admin.expect(404, "GET", "/api/satellites/edge9", "");
    server.anyone().expect(401, "GET", "/api/spire/status", "");
}
