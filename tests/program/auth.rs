//! Who gets credentials, when, and what is said when they are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use moonlet::kind::Kind;
use moonlet::oci::Digest;
use moonlet::registry::Password;
use smol::block_on;

use crate::fn_registry::{Asked, FnRegistry, Reply, TestFile, client, client_with_password, reply};
use crate::registry::{Image, MANIFEST};
use crate::satellite::start;

fn manifest() -> Reply {
    reply(200, Image::new(1, 10).manifest).with(format!("Content-Type: {MANIFEST}"))
}

fn password() -> Password {
    Password::Text("pw".to_owned())
}

/// `edge:pw`
const BASIC: &str = "Basic ZWRnZTpwdw==";

#[test]
fn a_redirects_target_gets_no_credentials_and_changes_nothing() {
    for scheme in ["Bearer realm=\"/token\"", "Basic realm=\"cdn\""] {
        let storage = FnRegistry::start(move |asked| match asked.path.as_str() {
            "/token" => reply(200, r#"{"token":"x"}"#),
            _ => reply(401, "").with(format!("WWW-Authenticate: {scheme}")),
        });
        let elsewhere = format!("Location: http://localhost:{}/cdn", storage.address.port());
        let registry = FnRegistry::start(move |asked| match asked.authorization() {
            _ if asked.path.starts_with("/token") => reply(200, r#"{"token":"good"}"#),
            "Bearer good" if asked.path.contains("/blobs/") => reply(307, "").with(&elsewhere),
            "Bearer good" => manifest(),
            _ => reply(401, "").with("WWW-Authenticate: Bearer realm=\"/token\",service=\"s\""),
        });
        let ours = client_with_password(&registry.url(), password());
        block_on(async {
            ours.open_manifest("app", "1").await.unwrap();
            let error = ours.blob("app", &Digest::sha256(b""), 0, 9, Some(10)).await.err().unwrap();
            assert_eq!(error.kind(), Kind::Denied);
            let text = error.to_string();
            assert!(text.contains("redirected to http://localhost:"), "{text}");
            ours.open_manifest("app", "1").await.unwrap();
        });
        assert_eq!(storage.asked().len(), 1);
        assert!(storage.asked().iter().all(|asked| asked.authorization().is_empty()));
        assert_eq!(registry.count("GET", "/token"), 1, "the token is good still");
        let is_basic = |asked: &Asked| asked.authorization().starts_with("Basic");
        assert!(registry.asked().iter().all(|a| !is_basic(a) || a.path.starts_with("/token")));
    }
}

#[test]
fn a_target_of_an_open_registry_gets_no_credentials_either() {
    for scheme in ["Bearer realm=\"/token\"", "Basic realm=\"cdn\""] {
        for status in [401, 403, 404] {
            let storage = FnRegistry::start(move |asked| match asked.path.as_str() {
                "/token" => reply(200, r#"{"token":"x"}"#),
                _ => reply(status, "").with(format!("WWW-Authenticate: {scheme}")),
            });
            let line = format!("Location: http://localhost:{}/cdn", storage.address.port());
            let registry = FnRegistry::start(move |_| reply(307, "").with(&line));
            let ours = client_with_password(&registry.url(), password());
            block_on(ours.blob("app", &Digest::sha256(b""), 0, 9, Some(10))).err().unwrap();
            assert_eq!(storage.asked().len(), 1, "{status}");
            for asked in [storage.asked(), registry.asked()].concat() {
                assert!(asked.authorization().is_empty(), "{asked:?}");
            }
        }
    }
}

/// As a real Harbor does: a token is given to all who ask, with or without access; a token that is
/// refused is answered with a Basic challenge.
fn harbor(asked: &Asked) -> Reply {
    if let Some((_, query)) = asked.path.split_once("/service/token?") {
        let token = if query.contains("secret") { "no access" } else { "access" };
        return reply(200, format!("{{\"token\":\"{token}\",\"expires_in\":1800}}"));
    }
    match asked.authorization() {
        "Bearer access" if asked.path.contains("/app/") => manifest().with(format!(
            "Docker-Content-Digest: {}",
            Digest::sha256(&Image::new(1, 10).manifest)
        )),
        "" => {
            reply(401, "").with("WWW-Authenticate: Bearer realm=\"/service/token\",service=\"h\"")
        }
        _ => {
            let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized to access repository: secret, action: pull"}]}"#;
            reply(401, body).with("WWW-Authenticate: Basic realm=\"harbor\"")
        }
    }
}

#[test]
fn one_refused_repository_blocks_no_other() {
    for secret in [None, Some(password())] {
        let registry = FnRegistry::start(harbor);
        let (ours, who) = match secret {
            None => (client(&registry.url()), "without credentials"),
            Some(password) => (
                client_with_password(&registry.url(), password),
                "with the credentials of user \"edge\"",
            ),
        };
        block_on(async {
            ours.open_manifest("app", "1").await.unwrap();
            ours.head_manifest("secret", "1").await.unwrap_err();
            for _ in 0..3 {
                let error = ours.open_manifest("secret", "1").await.map(drop).unwrap_err();
                assert_eq!(error.kind(), Kind::Denied);
                let text = error.to_string();
                let what = format!("repository secret is refused {who}");
                assert!(text.contains(&what), "{text}");
                assert!(text.contains("unauthorized to access repository: secret"), "{text}");
                assert!(ours.head_manifest("app", "1").await.unwrap().digest.is_some());
            }
        });
        assert_eq!(registry.count("GET", "/service/token"), 2, "one a repository");
        assert_eq!(registry.count("GET", "/secret/manifests"), 1, "a refusal is remembered");
        let is_basic = |asked: &Asked| asked.authorization().starts_with("Basic");
        assert!(registry.asked().iter().all(|a| !is_basic(a) || a.path.contains("/token")));
    }
}

#[test]
fn a_token_that_ended_early_is_replaced() {
    for status in [401, 403] {
        replaced(status);
    }
}

fn replaced(status: u16) {
    let given = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&given);
    let registry = FnRegistry::start(move |asked| {
        if asked.path.starts_with("/token") {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            return reply(200, format!("{{\"token\":\"{number}\"}}"));
        }
        // The first is good for what is below /a, the second for the rest.
        let good = if asked.path.contains("manifests/a") { "Bearer 1" } else { "Bearer 2" };
        match asked.authorization() {
            "" => reply(401, "").with("WWW-Authenticate: Bearer realm=\"/token\""),
            token if token == good => manifest(),
            _ => reply(status, "").with("WWW-Authenticate: Basic realm=\"x\""),
        }
    });
    let ours = client_with_password(&registry.url(), password());
    block_on(async {
        ours.open_manifest("app", "a").await.unwrap();
        ours.open_manifest("app", "b").await.unwrap();
        ours.open_manifest("app", "b").await.unwrap();
    });
    assert_eq!(given.load(Ordering::SeqCst), 2);
}

#[test]
fn credentials_are_tried_on_what_is_hidden() {
    let hides = |challenge: Option<&'static str>, status| {
        move |asked: &Asked| match (asked.authorization(), challenge) {
            _ if asked.path.starts_with("/token") => reply(200, r#"{"token":"good"}"#),
            (BASIC, None) | ("Bearer good", Some(_)) if asked.path.contains("manifests/1") => {
                manifest()
            }
            ("", Some(challenge)) if asked.path == "/v2/" => {
                reply(401, "").with(format!("WWW-Authenticate: {challenge}"))
            }
            _ => reply(status, ""),
        }
    };
    for status in [403, 404] {
        for challenge in [None, Some("Bearer realm=\"/token\"")] {
            let registry = FnRegistry::start(hides(challenge, status));
            let ours = client_with_password(&registry.url(), password());
            block_on(async {
                ours.open_manifest("app", "1").await.unwrap();
                assert!(ours.open_manifest("app", "2").await.is_err());
                assert!(ours.open_manifest("other", "2").await.is_err());
            });
            assert_eq!(registry.count("GET", "/v2/other"), 2);
            let asked = registry.asked();
            assert_eq!(asked.iter().filter(|asked| asked.path == "/v2/").count(), 1);
            // Without credentials there is nothing to try.
            let registry = FnRegistry::start(hides(challenge, status));
            assert!(block_on(client(&registry.url()).open_manifest("app", "1")).is_err());
            assert_eq!(registry.asked().len(), 1);
        }
    }
}

#[test]
fn credentials_are_not_sent_in_clear_on_the_way_to_https() {
    let registry = FnRegistry::start(|asked| {
        let line = format!("Location: https://127.0.0.1:1{}", asked.path);
        reply(308, "").with(line)
    });
    let ours = client_with_password(&registry.url(), password());
    let text = block_on(ours.open_manifest("app", "1")).map(drop).unwrap_err().to_string();
    assert!(text.contains("a redirect to https://127.0.0.1:1/v2/app/manifests/1; write https://"));
    assert!(registry.asked().iter().all(|asked| asked.authorization().is_empty()));
}

#[test]
fn what_is_missing_is_said() {
    let cases = [
        ("", None, "status 401 unauthorized, without a challenge"),
        ("Basic realm=\"x\"", None, "asks for credentials (basic), expected username"),
        ("Negotiate", Some(password()), "asks for negotiate, expected bearer or basic"),
        (
            "Basic realm=\"x\"",
            Some(password()),
            "repository app is refused with the credentials of user \"edge\" (no)",
        ),
    ];
    for (challenge, secret, expected) in cases {
        let registry = FnRegistry::start(move |_| match challenge {
            "" => reply(401, "no"),
            _ => reply(401, "no").with(format!("WWW-Authenticate: {challenge}")),
        });
        let ours = match secret {
            None => client(&registry.url()),
            Some(password) => client_with_password(&registry.url(), password),
        };
        let error = block_on(ours.open_manifest("app", "1")).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let registry = FnRegistry::start(|asked| match asked.path.starts_with("/token") {
        true => reply(401, r#"{"details":"incorrect username or password"}"#),
        false => reply(401, "").with("WWW-Authenticate: Bearer realm=\"/token\""),
    });
    let ours = client_with_password(&registry.url(), password());
    for _ in 0..2 {
        let error = block_on(ours.open_manifest("app", "1")).map(drop).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("token service http://127.0.0.1:"), "{text}");
        assert!(text.contains("(incorrect username or password)"), "{text}");
    }
    assert_eq!(registry.count("GET", "/token"), 1);
}

#[test]
fn a_password_is_read_when_it_is_used() {
    let file = TestFile::new("rotated");
    let registry = FnRegistry::start(|asked| match asked.authorization() {
        BASIC => manifest(),
        _ => reply(401, "").with("WWW-Authenticate: Basic realm=\"x\""),
    });
    let ours = client_with_password(&registry.url(), Password::File(file.0.clone()));
    block_on(async {
        let error = ours.open_manifest("app", "1").await.map(drop).unwrap_err();
        assert!(error.to_string().contains("password_file"), "{error}");
        file.write("old\n");
        ours.open_manifest("other", "1").await.map(drop).unwrap_err();
        file.write("pw\n");
        ours.open_manifest("app", "1").await.unwrap();
    });
}

#[test]
fn a_missing_secret_is_its_upstreams_own_affair() {
    let image = Image::new(5, 1000);
    let show = crate::registry::Show { image, fault: crate::registry::Fault::None, tls: None };
    let good = crate::registry::Registry::start(show);
    let private = FnRegistry::start(|_| reply(401, "").with("WWW-Authenticate: Basic realm=\"x\""));
    let file = TestFile::new("missing");
    let lines = format!(
        "[[upstream]]\nregistry = \"private.test\"\nurl = \"{}\"\nusername = \"edge\"\n\
         password_file = {:?}\n[[upstream]]\nregistry = \"tls.test\"\n\
         url = \"https://127.0.0.1:1\"\nca_file = {:?}\n[[image]]\n\
         reference = \"private.test/app:1\"\n[[image]]\nreference = \"tls.test/app:1\"",
        private.url(),
        file.0,
        file.0,
    );
    let satellite = start("secret", &format!("http://{}", good.address), &lines);
    // It is reported once, and the others at each poll.
    satellite.await_line("held at");
    let line = satellite.await_error("private.test/app");
    assert!(line.contains("password_file") && line.contains("no such file"), "{line}");
    satellite.await_error("tls.test/app");
}
