//! A satellite that is to hold nothing, and fetches on demand what clients ask for.

use crate::clients::{Containerd, Podman, skopeo};
use crate::harness::satellite::{Satellite, prepare};
use crate::harness::{free_port, missing, wait_until};
use crate::scene::{Scene, digest, manifest, text};

const PEERS: [&str; 2] = ["docker-registry", "skopeo"];

pub fn through(name: &str) -> (Scene, Satellite) {
    let scene = Scene::new(name);
    let mut satellite = prepare(&format!("peers-{name}"), |directory| {
        let lines = "pull_through = true\ntag_ttl = \"1s\"\nallow = [\"demo/*\"]";
        let text = text(directory, &scene.registry.url(), lines, &[]);
        // Which the command asks for its authority, too.
        format!("{text}[proxy]\nlisten = \"127.0.0.1:{}\"\n", free_port())
    });
    satellite.start_again();
    (scene, satellite)
}

#[test]
fn four_clients_at_once_cost_one_download_that_outlives_the_registry() {
    let case = "four_clients_at_once_cost_one_download_that_outlives_the_registry";
    if missing(case, &PEERS) {
        return;
    }
    let (mut scene, satellite) = through("four");
    let before = scene.registry.sent_bytes();
    std::thread::scope(|scope| {
        let copy = |number: u32| {
            let into = satellite.directory.join(format!("copy-{number}"));
            let copied = skopeo(&into, &[], &format!("{}/demo/app:1", satellite.served));
            assert_eq!(copied, scene.app.digest());
        };
        let clients: Vec<_> = (0..4).map(|number| scope.spawn(move || copy(number))).collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let sent = scene.registry.sent_bytes() - before;
    let once = (7 << 20)..(7 << 20) + (256 << 10);
    assert!(once.contains(&sent), "four clients cost {sent} bytes, expected 7 MiB");

    // The tag is not asked for again for as long as it was found just now.
    scene.registry.stop();
    let is_stale = || {
        let answer = manifest(&satellite.client(), "demo/app/manifests/1");
        answer.status == 200 && answer.header("warning").is_some_and(|w| w.starts_with("110 "))
    };
    wait_until(is_stale, || "it is not said to be stale".to_owned());
    let copied = skopeo(
        &satellite.directory.join("after"),
        &[],
        &format!("{}/demo/app:1", satellite.served),
    );
    assert_eq!(copied, scene.app.digest());
    assert_eq!(digest(&satellite.client(), "demo/none/manifests/1"), Err(503));
}

#[test]
fn podman_pulls_from_an_index_that_is_fetched_on_demand() {
    let case = "podman_pulls_from_an_index_that_is_fetched_on_demand";
    if missing(case, &["docker-registry", "skopeo", "podman", "root"]) {
        return;
    }
    let (_scene, satellite) = through("through-podman");
    Podman::new("through").pull(&format!("{}/registry.test/demo/multi:1", satellite.served));
}

/// By `?ns=`.
#[test]
fn containerd_pulls_what_is_fetched_on_demand() {
    let needed = ["docker-registry", "skopeo", "containerd", "ctr", "root"];
    if missing("containerd_pulls_what_is_fetched_on_demand", &needed) {
        return;
    }
    let (scene, satellite) = through("through-containerd");
    let containerd = Containerd::start("through", &satellite.served);
    assert_eq!(containerd.pull("registry.test/demo/app:1"), scene.app.digest());
}
