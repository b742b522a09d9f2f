//! Registries that ask who is there: docker-registry behind TLS with Basic credentials, then with
//! Bearer tokens from a token service that wants credentials too.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::harness::images::{Image, Layout};
use crate::harness::nginx::Nginx;
use crate::harness::registry::DockerRegistry;
use crate::harness::satellite::{Satellite, prepare, wait_until};
use crate::harness::{Directory, missing, run, text_of};
use crate::scene::{digest, text};

const PASSWORD: &str = "not-to-be-seen-anywhere";

/// Makes a key and a certificate for it, signed by itself.
fn self_signed(files: &Directory, name: &str) {
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"];
    let mut openssl = Command::new("openssl");
    openssl.args(request).arg(format!("/CN={name}"));
    openssl.arg("-keyout").arg(files.join(&format!("{name}.key")));
    run(openssl.arg("-out").arg(files.join(&format!("{name}.pem"))));
}

/// An authority, and a certificate of it for the loopback address.
pub fn certificates(files: &Directory) {
    self_signed(files, "authority");
    let text = "subjectAltName = IP:127.0.0.1\n";
    std::fs::write(files.join("tls.ext"), text).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.current_dir(files.path());
    run(openssl.args(
        "req -newkey rsa:2048 -nodes -subj /CN=registry -keyout tls.key -out tls.csr".split(' '),
    ));
    let mut openssl = Command::new("openssl");
    openssl.current_dir(files.path());
    run(openssl.args(
        "x509 -req -in tls.csr -CA authority.pem -CAkey authority.key -days 2 -CAcreateserial \
         -extfile tls.ext -out tls.pem"
            .split_whitespace(),
    ));
}

/// Pushes an image as demo/app:1, past all credentials.
fn push(registry: &DockerRegistry, layout: &Layout, tag: &str) {
    let open = registry.beside(&format!("open-{tag}"));
    layout.push(tag, &format!("{}/demo/app:1", open.address));
}

/// A satellite that is to hold demo/app:1 with a password.
fn satellite(name: &str, url: &str, password: &str, line: &str) -> Satellite {
    prepare(&format!("peers-{name}"), |directory| {
        let file = directory.join("password");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let lines = format!("username = \"edge\"\npassword_file = {file:?}\n{line}");
        text(directory, url, &lines, &["demo/app:1"]).replace("platforms = ", "# platforms = ")
    })
}

/// What `moonlet doctor` finds: one line begins so, and has `part` in it.
pub fn doctor_says(satellite: &Satellite, result: &str, check: &str, part: &str) {
    let (code, output, said) = satellite.run(&["doctor"]);
    let all = format!("{output}{said}");
    assert!(code <= 1, "doctor: {code} {all}");
    let mut lines = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let begins = format!("{result} {check}");
    let is_said = lines.any(|line| line.starts_with(&begins) && line.contains(part));
    assert!(is_said, "no {begins} ... {part} in {all}");
    assert!(!all.contains(PASSWORD), "doctor shows the password: {all}");
}

#[test]
fn basic_credentials_over_tls() {
    let needed = ["docker-registry", "skopeo", "openssl", "htpasswd"];
    if missing("basic_credentials_over_tls", &needed) {
        return;
    }
    let files = Directory::new("peers-basic-files");
    certificates(&files);
    let mut layout = Layout::new("basic");
    let image = layout.image("app", "amd64", &[1000]);
    let mut registry = DockerRegistry::start("basic");
    push(&registry, &layout, "app");
    let users = text_of(Command::new("htpasswd").args(["-Bbn", "edge", PASSWORD]));
    std::fs::write(files.join("htpasswd"), users).unwrap();
    registry.configure(&format!(
        "  tls:\n    certificate: {:?}\n    key: {:?}\nauth:\n  htpasswd:\n    realm: test\n    \
         path: {:?}\n",
        files.join("tls.pem"),
        files.join("tls.key"),
        files.join("htpasswd"),
    ));
    let url = format!("https://{}", registry.address);
    let ca = format!("ca_file = {:?}", files.join("authority.pem"));

    let good = satellite("basic", &url, PASSWORD, &ca);
    let (code, said) = good.sync();
    let held = format!("held at {}", &image.digest()["sha256:".len()..][..12]);
    assert!(code == 0 && said.contains(&held), "{code} {said}");
    doctor_says(&good, "ok", "registry.test: answer", "");

    let wrong = satellite("basic-wrong", &url, "wrong", &ca);
    let (code, said) = wrong.sync();
    let mut errors = said.lines().filter(|line| line.contains("ERROR"));
    assert!(code != 0 && errors.any(|line| line.contains("credentials")), "{code} {said}");
    doctor_says(&wrong, "FAIL", "registry.test: answer", "401");

    let untrusting = satellite("basic-ca", &url, PASSWORD, "");
    let (code, said) = untrusting.sync();
    let unknown = "signed by an unknown ca";
    let mut errors = said.lines().filter(|line| line.contains("ERROR"));
    assert!(code != 0 && errors.any(|line| line.contains(unknown)), "{code} {said}");
    doctor_says(&untrusting, "FAIL", "registry.test: certificate", unknown);
}

/// nginx, which hands out one token to who knows the password.
struct TokenService {
    files: Directory,
    nginx: Nginx,
}

impl TokenService {
    fn start() -> Self {
        let files = Directory::new("peers-tokens");
        std::fs::create_dir_all(files.join("www")).unwrap();
        new_token(&files);
        // nginx knows no bcrypt.
        let users = text_of(Command::new("htpasswd").args(["-sbn", "edge", PASSWORD]));
        std::fs::write(files.join("htpasswd"), users).unwrap();
        let place = files.path().display();
        let location = format!(
            "location /token {{ auth_basic test; auth_basic_user_file {place}/htpasswd; }}"
        );
        let nginx = Nginx::start(files.path(), "", &location);
        Self { files, nginx }
    }

    /// Its part of docker-registry's configuration.
    fn section(&self) -> String {
        format!(
            "auth:\n  token:\n    realm: http://127.0.0.1:{}/token\n    service: registry\n    \
             issuer: issuer\n    rootcertbundle: {:?}\n",
            self.nginx.port,
            self.files.join("token service.pem"),
        )
    }

    fn handed_out(&self) -> usize {
        let log = std::fs::read_to_string(self.files.join("access.log")).unwrap_or_default();
        let scope = "scope=repository%3Ademo%2Fapp%3Apull";
        let asked = |line: &&str| line.contains("\"GET /token?") && line.contains(scope);
        log.lines().filter(asked).filter(|line| line.contains(" 200 ")).count()
    }
}

/// A key of the token service, and a token for demo/app signed with it: JWT (RFC 7519) as the
/// distribution project's spec/auth/jwt.md has it.
fn new_token(files: &Directory) {
    self_signed(files, "token service");
    let certificate = files.join("token service.pem");
    let der =
        run(Command::new("openssl").args(["x509", "-outform", "der", "-in"]).arg(certificate));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let head = json!({ "typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(der)] });
    let access = json!([{ "type": "repository", "name": "demo/app", "actions": ["pull"] }]);
    let claims = json!({ "iss": "issuer", "sub": "edge", "aud": "registry", "exp": now + 3600,
        "nbf": now - 60, "iat": now, "jti": "1", "access": access });
    let encoded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encoded(&head), encoded(&claims));
    std::fs::write(files.join("signed"), &signed).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-binary", "-sign"]).arg(files.join("token service.key"));
    let signature = URL_SAFE_NO_PAD.encode(run(openssl.arg(files.join("signed"))));
    let answer = json!({ "token": format!("{signed}.{signature}"), "expires_in": 3600 });
    std::fs::write(files.join("www/token"), answer.to_string()).unwrap();
}

#[test]
fn one_bearer_token_serves_until_it_is_refused() {
    let needed = ["docker-registry", "skopeo", "openssl", "htpasswd", "nginx"];
    if missing("one_bearer_token_serves_until_it_is_refused", &needed) {
        return;
    }
    let service = TokenService::start();
    let mut layout = Layout::new("bearer");
    let first = layout.image("first", "amd64", &[1000]);
    let second = layout.image("second", "amd64", &[2000]);
    let mut registry = DockerRegistry::start("bearer");
    push(&registry, &layout, "first");
    registry.configure(&service.section());
    let mut satellite = satellite("bearer", &registry.url(), PASSWORD, "");
    satellite.start_again();
    let await_held = |satellite: &Satellite, image: &Image| {
        let held = || digest(&satellite.client(), "demo/app/manifests/1");
        wait_until(|| held().as_deref() == Ok(image.digest()), || satellite.log());
    };
    await_held(&satellite, &first);
    satellite.await_held();
    assert_eq!(service.handed_out(), 1, "one for all requests of a repository");

    // Another key: the token that is kept is refused from here on.
    registry.stop();
    new_token(&service.files);
    push(&registry, &layout, "second");
    registry.configure(&service.section());
    await_held(&satellite, &second);
    assert_eq!(service.handed_out(), 2, "the refused one is replaced, once");
    let (code, output, said) = satellite.run(&["check"]);
    assert_eq!(code, 0, "{output}{said}");
    for text in [output, said, satellite.log()] {
        assert!(!text.contains(PASSWORD), "the password is shown: {text}");
    }
    satellite.kill();
}
