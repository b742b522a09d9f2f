//! The API's own description, held against the server that it is of.

use serde_json::Value;

use crate::harness::{Server, enrolled, on_each_store};

/// The operations of the document: method, path, and what it says of each.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(|(method, said)| (method.to_uppercase(), path.clone(), said.clone()))
    });
    of_path.collect()
}

#[test]
fn every_documented_path_answers_as_documented() {
    on_each_store(|database| {
        let server = Server::start(&database);
        let (_, satellite) = enrolled(&server);
        // One that a body or a password cannot end.
        let admin = server.admin();
        let token = r#"{"name":"fuzz","role":"system_admin"}"#;
        let token = admin.expect(201, "POST", "/api/tokens", token).json();
        let bearer = server.with(&format!("Bearer {}", token["token"].as_str().unwrap()));
        let answer = server.anyone().expect(200, "GET", "/api/openapi.json", "");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let document = answer.json();
        assert_eq!(document["info"]["title"], "Ground Control");
        let operations = operations(&document);
        assert!(operations.len() > 50, "{}", operations.len());
        let twice = bearer.expect(400, "GET", "/api/satellites?limit=1&limit=2", "");
        assert!(twice.json()["message"].as_str().unwrap().contains("limit"), "{}", twice.text());
        // What removes something comes last, or the others would find nothing.
        let (last, first): (Vec<_>, Vec<_>) =
            operations.into_iter().partition(|(method, ..)| method == "DELETE");
        for (method, path, said) in first.into_iter().chain(last) {
            let names = [
                ("{group}", "g1"),
                ("{config}", "c1"),
                ("{satellite}", "edge1"),
                ("{username}", "admin"),
                ("{rollout}", "r1"),
                ("{action}", "pause"),
                ("{token}", "none"),
                ("{batch}", "none"),
            ];
            let named = names.iter().fold(path.clone(), |path, (from, to)| path.replace(from, to));
            assert!(!named.contains('{'), "{named}");
            let schemes = said["security"].as_array().cloned().unwrap_or_default();
            let of_person = schemes.iter().any(|scheme| scheme.get("bearer").is_some());
            let asks = match (schemes.is_empty(), of_person) {
                (true, _) => server.anyone(),
                (false, true) => bearer.clone(),
                (false, false) => satellite.client(&server),
            };
            for body in ["", "{}", "[]", "{\"a\":"] {
                let answer = asks.ask(&method, &named, body);
                let text = answer.text();
                let status = answer.status.to_string();
                assert!(
                    said["responses"].get(&status).is_some(),
                    "{method} {named} {body}: {status} {text}: {}",
                    said["responses"]
                );
                let is_unknown = text.contains("\"message\":\"not found\"") || status == "405";
                assert!(!is_unknown && status != "500", "{method} {named}: {text}");
            }
            if !schemes.is_empty() {
                assert_eq!(
                    server.anyone().ask(&method, &named, "{}").status,
                    401,
                    "{method} {named}"
                );
            }
        }
    });
}
