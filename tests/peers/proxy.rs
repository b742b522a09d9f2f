//! Clients that know nothing but a proxy, and whom to trust: there is no host registry.test.

use std::process::Command;

use moonlet::oci::Digest;

use crate::clients::Podman;
use crate::harness::images::check_copied;
use crate::harness::{missing, outcome, run, text_of};
use crate::through::through;

#[test]
fn curl_and_skopeo_pull_by_the_proxy() {
    let needed = ["docker-registry", "skopeo", "curl", "openssl"];
    if missing("curl_and_skopeo_pull_by_the_proxy", &needed) {
        return;
    }
    let (scene, satellite) = through("proxy");
    let proxy = format!("http://{}", satellite.address_of("forward proxy"));
    let ca = satellite.directory.join("ca.pem");
    std::fs::write(&ca, satellite.expect(&["proxy", "ca"])).unwrap();
    let read = ["x509", "-noout", "-checkend", "0", "-in"];
    run(Command::new("openssl").args(read).arg(&ca));

    for host in ["https://registry.test", "http://registry.test"] {
        let url = format!("{host}/v2/demo/app/manifests/1");
        let mut curl = Command::new("curl");
        let body = run(curl.args(["-sSf", "--proxy", &proxy, "--cacert"]).arg(&ca).arg(url));
        assert_eq!(Digest::sha256(&body).to_string(), scene.app.digest(), "{host}");
    }
    let into = satellite.directory.join("copied");
    std::fs::create_dir(&into).unwrap();
    let mut skopeo = Command::new("skopeo");
    skopeo.env("HTTP_PROXY", &proxy).env("HTTPS_PROXY", &proxy).env("NO_PROXY", "");
    skopeo.env("SSL_CERT_FILE", &ca).args(["copy", "--quiet", "docker://registry.test/demo/app:1"]);
    run(skopeo.arg(format!("dir:{}", into.display())));
    assert_eq!(check_copied(&into), scene.app.digest());

    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_connect}", "--proxy", &proxy]);
    let refused = outcome(curl.arg("https://other.test/"));
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "403", "what is no registry is refused");
}

#[test]
fn podman_pulls_by_the_proxy() {
    if missing("podman_pulls_by_the_proxy", &["docker-registry", "skopeo", "podman", "root"]) {
        return;
    }
    let (scene, satellite) = through("proxy-podman");
    let proxy = format!("http://{}", satellite.address_of("forward proxy"));
    let ca = satellite.directory.join("ca.pem");
    std::fs::write(&ca, satellite.expect(&["proxy", "ca"])).unwrap();
    let podman = Podman::new("proxy");
    let ca = ca.to_str().unwrap();
    let environment = [("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", ""), ("SSL_CERT_FILE", ca)];
    let image = "registry.test/demo/app:1";
    run(podman.command(&environment).args(["pull", "--quiet", image]));
    run(podman.command(&environment).args(["pull", "--quiet", "registry.test/demo/multi:1"]));
    let inspect = ["image", "inspect", "--format", "{{.Digest}}", image];
    assert_eq!(text_of(podman.command(&[]).args(inspect)).trim(), scene.app.digest());
}
