//! Read rules as real clients meet them: with a password, with another one, and without.

use std::process::Command;

use crate::clients::{Containerd, Podman, skopeo};
use crate::harness::satellite::{Satellite, prepare};
use crate::harness::{missing, outcome, run, text_of};
use crate::scene::{Scene, text};

/// Anyone may read `demo/app`, and only ci `demo/multi`.
fn scene(name: &str) -> (Scene, Satellite) {
    let scene = Scene::new(name);
    let mut satellite = prepare(&format!("peers-{name}"), |directory| {
        let users = directory.join("users");
        let made = ["ci", "ops"].map(|user| {
            let password = format!("{user}-password");
            text_of(Command::new("htpasswd").args(["-Bbn", "-C", "4", user, &password]))
        });
        std::fs::write(&users, made.concat()).unwrap();
        let text = text(directory, &scene.registry.url(), "pull_through = true", &[]);
        let text = text.replacen("[serve]\n", &format!("[serve]\nhtpasswd = {users:?}\n"), 1);
        text + "[[serve.rule]]\nrepositories = \"demo/app\"\n\
                [[serve.rule]]\nusers = \"ci\"\nrepositories = \"demo/multi\"\n"
    });
    satellite.start_again();
    (scene, satellite)
}

#[test]
fn skopeo_reads_what_its_user_may() {
    let needed = ["docker-registry", "skopeo", "htpasswd"];
    if missing("skopeo_reads_what_its_user_may", &needed) {
        return;
    }
    let (scene, satellite) = scene("readers-skopeo");
    let (app, multi) =
        (format!("{}/demo/app:1", satellite.served), format!("{}/demo/multi:1", satellite.served));
    let into = |name: &str| satellite.directory.join(name);
    let refused = |options: &[&str], image: &str| {
        let inspect = ["inspect", "--raw", "--tls-verify=false"];
        let mut skopeo = Command::new("skopeo");
        let output = outcome(skopeo.args(inspect).args(options).arg(format!("docker://{image}")));
        assert!(!output.status.success(), "{options:?} {image}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(skopeo(&into("anyone"), &["--debug"], &app), scene.app.digest());
    let anyone = refused(&[], &multi);
    assert!(anyone.contains("unauthorized: credentials are needed"), "{anyone}");
    let ops = refused(&["--creds", "ops:ops-password"], &multi);
    assert!(ops.contains("denied"), "{ops}");
    let wrong = refused(&["--creds", "ci:wrong"], &app);
    assert!(wrong.contains("unauthorized") || wrong.contains("401"), "{wrong}");
    let inspect = ["inspect", "--raw", "--tls-verify=false", "--creds", "ci:ci-password"];
    let index = run(Command::new("skopeo").args(inspect).arg(format!("docker://{multi}")));
    assert_eq!(moonlet::oci::Digest::sha256(&index).to_string(), scene.multi);
    let log = satellite.log();
    assert!(!log.contains("-password"), "{log}");
}

#[test]
fn podman_and_containerd_read_what_they_may() {
    let needed = ["docker-registry", "skopeo", "htpasswd", "podman", "containerd", "ctr", "root"];
    if missing("podman_and_containerd_read_what_they_may", &needed) {
        return;
    }
    let (scene, satellite) = scene("readers-podman");
    let podman = Podman::new("readers");
    let pull = |words: &[&str], image: &str| {
        let image = format!("{}/registry.test/{image}", satellite.served);
        let mut podman = podman.command(&[]);
        let output =
            outcome(podman.args(["pull", "--quiet", "--tls-verify=false"]).args(words).arg(image));
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (is_pulled, said) = pull(&[], "demo/app:1");
    assert!(is_pulled, "{said}");
    assert!(
        !pull(&[], "demo/multi:1").0 && !pull(&["--creds", "ops:ops-password"], "demo/multi:1").0
    );
    let (is_pulled, said) = pull(&["--creds", "ci:ci-password"], "demo/multi:1");
    assert!(is_pulled, "{said}");
    // Which asks no `/v2/`, and so reads what anyone may.
    let containerd = Containerd::start("readers", &satellite.served);
    assert_eq!(containerd.pull("registry.test/demo/app:1"), scene.app.digest());
}
