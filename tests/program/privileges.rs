//! Started by root, it is a user of its own as soon as it has opened what takes root, and stays
//! that.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use moonlet::oci::Digest;

use crate::harness::{find_program, outcome};
use crate::many_images::ManyImages;
use crate::registry::Image;
use crate::satellite::{Satellite, prepare, text, wait_until};

/// The user nobody of every Linux, by numbers: its group has other names elsewhere.
const USER: &str = "65534:65534";
const NOBODY: u32 = 65534;

/// Whether a case cannot be run: by who is not root, say.
fn is_left_out(case: &str, why: Option<&str>) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let why = if is_root { why } else { Some("needs to be run by root") };
    if let Some(why) = why {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED {case}: {why}");
    }
    why.is_some()
}

/// A satellite whose files are the user's, and that is to become it.
fn owned(name: &str, registry: &ManyImages, lines: &str, more: &str) -> Satellite {
    prepare(name, |directory| {
        chown(directory, Some(NOBODY), Some(NOBODY)).unwrap();
        config(directory, registry, lines, more)
    })
}

fn config(directory: &Path, registry: &ManyImages, lines: &str, more: &str) -> String {
    let upstream = format!("url = \"{}\"", registry.url());
    let text = text(directory, "1s", &[("registry.test", &upstream)], &["registry.test/app:1"]);
    format!("user = {USER:?}\n{}", text.replacen("[serve]\n", &format!("[serve]\n{lines}"), 1))
        + more
}

/// What a line of the status of each of its threads says.
fn said_by_threads(satellite: &Satellite, key: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", satellite.process())).unwrap();
    let said = threads.filter_map(|thread| {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    said.collect()
}

fn has_nothing_of_root(satellite: &Satellite) {
    for (key, expected) in [
        ("Uid:", "65534 65534 65534 65534"),
        ("Gid:", "65534 65534 65534 65534"),
        ("Groups:", ""),
        ("CapInh:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapEff:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
    ] {
        let said = said_by_threads(satellite, key);
        assert!(said.len() > 1, "{said:?}");
        assert!(said.iter().all(|line| line == expected), "{key} {said:?}");
    }
}

#[test]
fn root_is_left_when_devices_and_ports_are_open() {
    if is_left_out("root_is_left_when_devices_and_ports_are_open", None) {
        return;
    }
    let registry = ManyImages::start();
    // Groups of root's, which this thread hands on.
    let groups = [0, 4].map(rustix::process::Gid::from_raw);
    rustix::thread::set_thread_groups(&groups).unwrap();
    let (first, second) = (Image::new(1, 300_000), Image::new(2, 300_000));
    registry.push("1", &first);
    // A port that takes root.
    let port = (600..1024).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    let mut satellite = owned("user", &registry, "", "");
    let listen = |text: String| text.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    let path = satellite.directory.join("moonlet.toml");
    std::fs::write(&path, listen(config(&satellite.directory, &registry, "", ""))).unwrap();
    satellite.start_again();
    satellite.await_line("runs as 65534:65534, user 65534 and group 65534");
    let serves =
        |image: &Image| satellite.get("/v2/app/manifests/1") == (200, image.manifest.clone());
    wait_until(|| serves(&first), || satellite.log());
    has_nothing_of_root(&satellite);
    for file in std::fs::read_dir(satellite.directory.join("store")).unwrap() {
        let metadata = file.unwrap().metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY));
    }
    // What is done later needs no root: another image, another configuration.
    registry.push("1", &second);
    wait_until(|| serves(&second), || satellite.log());
    let more = "[[image]]\nreference = \"registry.test/app:2\"\n";
    registry.push("2", &first);
    satellite.reload(&listen(config(&satellite.directory, &registry, "", more)));
    satellite.await_line(": reloaded, 2 images");
    wait_until(|| satellite.get("/v2/app/manifests/2").0 == 200, || satellite.log());
    has_nothing_of_root(&satellite);
    satellite.kill();
    // Commands run by root leave no files of root behind.
    let (code, said) = satellite.sync();
    assert_eq!(code, 0, "{said}");
    let log = satellite.directory.join("store/log").metadata().unwrap();
    assert_eq!(log.uid(), NOBODY);
    // It comes back, as itself.
    satellite.start_again();
    wait_until(|| satellite.get("/v2/app/manifests/2").0 == 200, || satellite.log());
    has_nothing_of_root(&satellite);
}

#[test]
fn a_device_of_root_is_opened_before() {
    let needs = ["losetup"].into_iter().find(|name| find_program(name).is_none());
    if is_left_out("a_device_of_root_is_opened_before", needs.map(|_| "needs losetup")) {
        return;
    }
    let registry = ManyImages::start();
    let image = Image::new(1, 300_000);
    registry.push("1", &image);
    let mut satellite = owned("user-device", &registry, "", "");
    let disk = satellite.directory.join("disk");
    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let attached = outcome(Command::new("losetup").args(["--find", "--show"]).arg(&disk));
    let Some(device) = Loop::of(&attached) else {
        is_left_out("a_device_of_root_is_opened_before", Some("needs loop devices"));
        return;
    };
    let store = format!("path = {:?}\nsize_max = \"32MiB\"", satellite.directory.join("store"));
    let text = config(&satellite.directory, &registry, "", "");
    let text = text.replacen(&store, &format!("device = {:?}", device.0), 1);
    std::fs::write(satellite.directory.join("moonlet.toml"), text).unwrap();
    satellite.start_again();
    let layer = format!("/v2/app/blobs/{}", Digest::sha256(&image.layer));
    wait_until(|| satellite.get(&layer) == (200, image.layer.clone()), || satellite.log());
    has_nothing_of_root(&satellite);
    assert_eq!(satellite.stop(rustix::process::Signal::TERM), Some(0), "{}", satellite.log());
}

/// A loop device, detached with its test.
struct Loop(String);

impl Loop {
    fn of(attached: &std::process::Output) -> Option<Self> {
        let name = String::from_utf8_lossy(&attached.stdout).trim().to_owned();
        attached.status.success().then_some(Self(name))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn what_the_user_could_not_open_later_is_refused_at_once() {
    if is_left_out("what_the_user_could_not_open_later_is_refused_at_once", None) {
        return;
    }
    let registry = ManyImages::start();
    let refused = |satellite: &Satellite, expected: &str| {
        let (code, _, said) = satellite.run(&["run"]);
        assert!(code == 2 && said.contains(expected), "{code} {said}, expected {expected}");
    };
    let other = |satellite: &Satellite, user: &str| {
        let path = satellite.directory.join("moonlet.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen(USER, user, 1)).unwrap();
    };
    for (user, expected) in [
        ("nosuchuser", "user = \"nosuchuser\": expected a user of /etc/passwd, or numbers such as"),
        ("root", "user = \"root\": expected another user than root"),
        ("0:0", "expected another user than root"),
    ] {
        let satellite = owned("user-unknown", &registry, "", "");
        other(&satellite, user);
        refused(&satellite, expected);
    }
    let secret = |satellite: &Satellite, name: &str| {
        let path = satellite.directory.join(name);
        std::fs::write(&path, "secret\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let satellite = owned("user-files", &registry, "htpasswd = \"HERE/users\"\n", "");
    let path = satellite.directory.join("moonlet.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let here = satellite.directory.to_str().unwrap();
    std::fs::write(&path, text.replace("HERE", here)).unwrap();
    secret(&satellite, "users");
    refused(&satellite, &format!("[serve] htpasswd = \"{here}/users\": Permission denied"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    refused(&satellite, "moonlet.toml: Permission denied (os error 13); it is read again");
    // A store of root's.
    let satellite = owned("user-store", &registry, "", "");
    std::fs::create_dir(satellite.directory.join("store")).unwrap();
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(satellite.directory.join("store"), mode).unwrap();
    refused(&satellite, "Permission denied");
    // Who is not root can become nobody, and needs not to.
    let mut satellite = owned("user-already", &registry, "", "");
    satellite.is_nobody = true;
    registry.push("1", &Image::new(1, 10));
    satellite.start_again();
    wait_until(|| satellite.get("/v2/app/manifests/1").0 == 200, || satellite.log());
    satellite.kill();
    other(&satellite, "1:1");
    refused(
        &satellite,
        "user = \"1:1\": this is user 65534: expected to be started by root, or by 1",
    );
}

#[test]
fn nobody_is_answered_before_root_is_left() {
    if is_left_out("nobody_is_answered_before_root_is_left", None) {
        return;
    }
    let registry = ManyImages::start();
    let mut satellite = owned("user-waits", &registry, "", "");
    let path = satellite.directory.join("moonlet.toml");
    let there = std::fs::read_to_string(&path).unwrap();
    let missing = there.replacen("path = ", "device = ", 1).replacen("size_max", "# size_max", 1);
    std::fs::write(&path, missing).unwrap();
    satellite.spawn("run");
    let line = satellite.await_line("tried again until it is there");
    assert!(line.contains("store"), "{line}");
    satellite.reload(&there);
    satellite.await_line("runs as 65534:65534");
    assert!(!satellite.log().contains("health, while there is no store"), "{}", satellite.log());
    has_nothing_of_root(&satellite);
}
