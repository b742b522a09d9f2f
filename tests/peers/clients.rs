//! What is held is served to real clients when the registry is gone.

use std::path::{Path, PathBuf};
use std::process::Command;

use moonlet::oci::Digest;

use crate::harness::images::check_copied;
use crate::harness::satellite::Satellite;
use crate::harness::{
    Directory, RunningAsRoot, as_root, missing, outcome, run, text_of, wait_until,
};
use crate::scene::{Scene, digest, manifest};

/// Both images are held, and the registry is gone.
pub fn offline(name: &str) -> (Scene, Satellite) {
    let mut scene = Scene::new(name);
    let satellite = scene.held(&format!("peers-{name}"));
    scene.registry.stop();
    (scene, satellite)
}

#[test]
fn the_read_api_answers_by_every_name() {
    if missing("the_read_api_answers_by_every_name", &["docker-registry", "skopeo"]) {
        return;
    }
    let (scene, satellite) = offline("api");
    let client = satellite.client();
    for path in [
        "demo/app/manifests/1",
        "registry.test/demo/app/manifests/1",
        "demo/app/manifests/1?ns=registry.test",
    ] {
        assert_eq!(digest(&client, path).unwrap(), scene.app.digest(), "{path}");
    }
    let index = manifest(&client, "demo/multi/manifests/1");
    assert_eq!(Digest::sha256(&index.body).to_string(), scene.multi, "not byte for byte");
    assert_eq!(index.header("docker-content-digest"), Some(scene.multi.as_str()));
    assert_eq!(client.ask("POST", "/v2/demo/app/blobs/uploads/", "").status, 405);
    assert_eq!(digest(&client, "demo/none/manifests/1"), Err(404));
}

/// skopeo copies `host/name:tag` to a new directory; returns the manifest's digest.
pub fn skopeo(into: &Path, options: &[&str], from: &str) -> String {
    std::fs::create_dir(into).unwrap();
    let (from, to) = (format!("docker://{from}"), format!("dir:{}", into.display()));
    let copy = ["copy", "--quiet", "--src-tls-verify=false", &from, &to];
    run(Command::new("skopeo").args(options).args(copy));
    check_copied(into)
}

#[test]
fn skopeo_copies_an_image_and_a_platform_of_an_index() {
    let case = "skopeo_copies_an_image_and_a_platform_of_an_index";
    if missing(case, &["docker-registry", "skopeo"]) {
        return;
    }
    let (scene, satellite) = offline("skopeo");
    let from = |image: &str| format!("{}/{image}", satellite.served);
    let whole = skopeo(&satellite.directory.join("whole"), &[], &from("demo/app:1"));
    assert_eq!(whole, scene.app.digest());
    let arm = ["--override-os", "linux", "--override-arch", "arm", "--override-variant", "v7"];
    let arm = skopeo(&satellite.directory.join("arm"), &arm, &from("demo/multi:1"));
    assert_eq!(arm, scene.arm.digest());
}

/// podman with files of its own, as root: it unpacks.
pub struct Podman(Directory);

impl Podman {
    pub fn new(name: &str) -> Self {
        Self(Directory::new(&format!("podman-{name}")))
    }

    pub fn command(&self, environment: &[(&str, &str)]) -> Command {
        let mut command = as_root("env");
        for (name, value) in environment {
            command.arg(format!("{name}={value}"));
        }
        command.args(["podman", "--storage-driver=vfs", "--root"]).arg(self.0.join("root"));
        command.arg("--runroot").arg(self.0.join("run"));
        command
    }

    pub fn pull(&self, image: &str) {
        run(self.command(&[]).args(["pull", "--quiet", "--tls-verify=false", image]));
    }
}

#[test]
fn podman_pulls_an_image() {
    if missing("podman_pulls_an_image", &["docker-registry", "skopeo", "podman", "root"]) {
        return;
    }
    let (scene, satellite) = offline("podman");
    let podman = Podman::new("offline");
    let image = format!("{}/demo/app:1", satellite.served);
    podman.pull(&image);
    let inspect = ["image", "inspect", "--format", "{{.Digest}}", &image];
    assert_eq!(text_of(podman.command(&[]).args(inspect)).trim(), scene.app.digest());
}

/// containerd with files of its own.
pub struct Containerd {
    directory: Directory,
    _daemon: RunningAsRoot,
}

impl Containerd {
    /// It takes images of registry.test from `served`.
    pub fn start(name: &str, served: &str) -> Self {
        let directory = Directory::new(&format!("containerd-{name}"));
        let hosts = directory.join("hosts/registry.test");
        std::fs::create_dir_all(&hosts).unwrap();
        let text = format!(
            "server = \"http://{served}\"\n[host.\"http://{served}\"]\n\
             capabilities = [\"pull\", \"resolve\"]\n"
        );
        std::fs::write(hosts.join("hosts.toml"), text).unwrap();
        let (root, state) = (directory.join("root"), directory.join("state"));
        let (socket, config) = (directory.join("sock"), directory.join("containerd.toml"));
        let text = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = \
             [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {socket:?}\n"
        );
        std::fs::write(&config, text).unwrap();
        let log = directory.join("log");
        let daemon = RunningAsRoot::start(as_root("containerd").arg("-c").arg(config), &log);
        let containerd = Self { directory, _daemon: daemon };
        let answers = || outcome(containerd.ctr().arg("version")).status.success();
        wait_until(answers, || std::fs::read_to_string(&log).unwrap_or_default());
        containerd
    }

    fn ctr(&self) -> Command {
        let mut command = as_root("ctr");
        command.arg("-a").arg(self.directory.join("sock"));
        command
    }

    /// Pulls an image; returns the digest that it has then.
    pub fn pull(&self, image: &str) -> String {
        let hosts: PathBuf = self.directory.join("hosts");
        let mut pull = self.ctr();
        pull.args(["images", "pull", "--hosts-dir"]).arg(hosts);
        run(pull.args(["--snapshotter", "native", "--platform", "linux/amd64", image]));
        let images = text_of(self.ctr().args(["images", "ls"]));
        let line = images.lines().find(|line| line.split_whitespace().next() == Some(image));
        line.unwrap().split_whitespace().nth(2).unwrap().to_owned()
    }
}

#[test]
fn containerd_pulls_an_image() {
    let needed = ["docker-registry", "skopeo", "containerd", "ctr", "root"];
    if missing("containerd_pulls_an_image", &needed) {
        return;
    }
    let (scene, satellite) = offline("containerd");
    let containerd = Containerd::start("offline", &satellite.served);
    assert_eq!(containerd.pull("registry.test/demo/app:1"), scene.app.digest());
}
