//! A fleet as Go 0.0.4 runs it, at work with the real satellite: its Ground Control (the earlier
//! dialect: the token in the path, spent at once; an empty answer to a report) and a registry with
//! the state, behind Basic. What the satellite makes of what they say, also when that is nonsense.

mod staged;
mod trial;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use moonlet::fleet::report::Report;
use moonlet::oci::Digest;
use serde_json::{Value, json};

use crate::fn_registry::{Asked, FnRegistry, Reply, reply};
use crate::satellite::{self, Satellite, get, wait_until};

/// What the fleet has and has heard.
#[derive(Default)]
struct World {
    /// Tokens that are not spent.
    tokens: Vec<String>,
    /// What opens the registry and takes reports.
    secret: String,
    /// Manifests, by `repository:tag` and `repository:digest`.
    manifests: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    reports: Vec<Report>,
    /// Ground Control and the registry answer nothing but 503.
    is_away: bool,
    /// Repositories that answer 503.
    broken: Vec<String>,
    /// Ground Control alone does.
    ground_is_away: bool,
    /// The next report is answered with a wish for new credentials.
    wants_refresh: bool,
}

#[derive(Clone)]
struct Fleet(Arc<Mutex<World>>);

impl Fleet {
    fn start() -> (Self, FnRegistry) {
        let fleet = Self(Arc::default());
        fleet.with(|world| {
            world.tokens = vec!["first-token".to_owned()];
            world.secret = "Secret-of-edge1".to_owned();
        });
        let answering = fleet.clone();
        let registry = FnRegistry::start(move |asked| answering.with(|world| world.answer(asked)));
        (fleet, registry)
    }

    fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    /// Publishes a state artifact of this text.
    fn publish(&self, repository: &str, text: &str) {
        self.publish_layer(repository, &gzip(&tar(text.as_bytes())));
    }

    fn publish_layer(&self, repository: &str, layer: &[u8]) {
        let digest = Digest::sha256(layer).to_string();
        self.with(|world| world.blobs.insert(digest.clone(), layer.to_vec()));
        let layers = json!([{ "digest": digest, "size": layer.len() }]);
        self.publish_manifest(repository, &json!({ "schemaVersion": 2, "layers": layers }));
    }

    fn publish_manifest(&self, repository: &str, manifest: &Value) {
        let bytes = manifest.to_string().into_bytes();
        self.with(|world| {
            let digest = Digest::sha256(&bytes);
            world.manifests.insert(format!("{repository}:{digest}"), bytes.clone());
            world.manifests.insert(format!("{repository}:latest"), bytes);
        });
    }

    /// Puts an image of one layer under a tag.
    fn push(&self, repository: &str, tag: &str, layer: &[u8]) {
        let config = br#"{"os":"linux","architecture":"amd64"}"#;
        let mut descriptors = [layer, config].into_iter().map(|bytes| {
            let digest = Digest::sha256(bytes).to_string();
            self.with(|world| world.blobs.insert(digest.clone(), bytes.to_vec()));
            json!({ "mediaType": "application/octet-stream", "digest": digest, "size": bytes.len() })
        });
        let (layer, config) = (descriptors.next().unwrap(), descriptors.next().unwrap());
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
            "layers": [layer] });
        let bytes = manifest.to_string().into_bytes();
        self.with(|world| {
            let digest = Digest::sha256(&bytes);
            world.manifests.insert(format!("{repository}:{digest}"), bytes.clone());
            world.manifests.insert(format!("{repository}:{tag}"), bytes);
        });
    }

    /// The satellite-state: these groups, and the config.
    fn set_groups(&self, base: &str, groups: &[&str]) {
        let groups = groups.iter().map(|group| format!("{base}/{}:latest", group_state(group)));
        let groups: Vec<String> = groups.collect();
        let config = format!("{base}/satellite/config-state/c1/state:latest");
        self.publish(SATELLITE, &json!({ "states": groups, "config": config }).to_string());
    }

    fn set_group(&self, group: &str, repository: &str, tag: &str) {
        let artifact = json!({ "repository": repository, "tag": [tag], "type": "IMAGE" });
        let text = json!({ "group": group, "artifacts": [artifact] });
        self.publish(&group_state(group), &text.to_string());
    }
}

impl World {
    fn answer(&mut self, asked: &Asked) -> Reply {
        let is_ground = asked.path.starts_with("/sat");
        if self.is_away || is_ground && self.ground_is_away {
            return reply(503, "away");
        }
        let base = format!("http://{}", asked.line("host").unwrap());
        if let Some(token) = asked.path.strip_prefix("/satellites/ztr/") {
            let Some(index) = self.tokens.iter().position(|known| known == token) else {
                return reply(400, r#"{"message":"Error: Invalid Token","code":400}"#);
            };
            self.tokens.remove(index);
            let auth = json!({ "url": base, "username": USER, "password": self.secret });
            let state = format!("{base}/{SATELLITE}:latest");
            return reply(200, json!({ "auth": auth, "state": state }).to_string());
        }
        let is_known = asked.authorization() == basic(&self.secret);
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/satellites/ztr") => reply(404, "404 page not found\n"),
            ("POST", _) if !is_known => reply(401, r#"{"message":"Unauthorized","code":401}"#),
            ("POST", "/satellites/sync") => {
                self.reports.push(serde_json::from_slice(&asked.body).unwrap());
                match std::mem::take(&mut self.wants_refresh) {
                    true => reply(200, r#"{"actions":["refresh_credentials"]}"#),
                    false => reply(200, ""),
                }
            }
            ("POST", "/sat/refresh") => {
                self.secret = "Another-secret".to_owned();
                reply(200, json!({ "secret": self.secret }).to_string())
            }
            (_, path) if path.starts_with("/v2/") => match is_known {
                true => self.read(path),
                false => reply(401, "").with("WWW-Authenticate: Basic realm=\"harbor\""),
            },
            _ => reply(404, ""),
        }
    }

    fn read(&self, path: &str) -> Reply {
        let path = path.strip_prefix("/v2/").unwrap();
        if let Some((repository, reference)) = path.split_once("/manifests/") {
            if self.broken.iter().any(|broken| broken == repository) {
                return reply(503, "");
            }
            let Some(bytes) = self.manifests.get(&format!("{repository}:{reference}")) else {
                return reply(404, "");
            };
            let digest = format!("Docker-Content-Digest: {}", Digest::sha256(bytes));
            return reply(200, bytes).with(digest).with(format!("Content-Type: {MANIFEST}"));
        }
        let blob = path.split_once("/blobs/").and_then(|(_, digest)| self.blobs.get(digest));
        blob.map_or_else(|| reply(404, ""), |bytes| reply(200, bytes))
    }
}

fn basic(secret: &str) -> String {
    use base64::Engine as _;
    let pair = format!("{USER}:{secret}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

fn group_state(group: &str) -> String {
    format!("satellite/group-state/{group}/state")
}

fn tar(text: &[u8]) -> Vec<u8> {
    tar_of("artifacts.json", text)
}

fn tar_of(name: &str, text: &[u8]) -> Vec<u8> {
    let mut archive = vec![0; 512];
    archive[..name.len()].copy_from_slice(name.as_bytes());
    archive[124..135].copy_from_slice(format!("{:011o}", text.len()).as_bytes());
    archive[156] = b'0';
    archive[148..156].fill(b' ');
    let sum: u32 = archive.iter().map(|byte| u32::from(*byte)).sum();
    archive[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    archive[154] = 0;
    archive.extend_from_slice(text);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    packed.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    packed.extend([0; 8]);
    packed
}

fn config(directory: &std::path::Path, base: &str, token: &str) -> String {
    let text = satellite::text(directory, "1s", &[], &[]);
    format!("{text}[ground_control]\nurl = \"{base}\"\ntoken = \"{token}\"\n")
}

/// A fleet whose satellite has the group `g1` with the image `app:1`, and the satellite, converged.
fn converged(name: &str) -> (Fleet, FnRegistry, Satellite) {
    let (fleet, registry) = Fleet::start();
    let base = registry.url();
    let seconds = json!({ "heartbeat_interval": "@every 1s",
        "state_replication_interval": "@every 1s" });
    fleet.publish("satellite/config-state/c1/state", &json!({ "app_config": seconds }).to_string());
    fleet.push("library/app", "1", b"layer one");
    fleet.set_group("g1", "library/app", "1");
    fleet.set_groups(&base, &["g1"]);
    let mut satellite =
        satellite::prepare(name, |directory| config(directory, &base, "first-token"));
    satellite.start_again();
    await_image(&satellite, "library/app", "1", 200);
    (fleet, registry, satellite)
}

fn await_image(satellite: &Satellite, repository: &str, tag: &str, status: u16) {
    let path = format!("/v2/{repository}/manifests/{tag}");
    wait_until(|| satellite.get(&path).0 == status, || format!("{path}: {}", satellite.log()));
}

fn await_layer(satellite: &Satellite, layer: &[u8]) {
    let path = format!("/v2/library/app/blobs/{}", Digest::sha256(layer));
    wait_until(|| satellite.get(&path).0 == 200, || format!("{path}: {}", satellite.log()));
}

/// What the satellite says of itself.
fn seen(satellite: &Satellite) -> Value {
    let admin = satellite.log();
    let line = admin.lines().rfind(|line| line.contains("status, metrics and health on")).unwrap();
    let (status, body) = get(line.rsplit(' ').next().unwrap(), "/status", "");
    assert_eq!(status, 200);
    serde_json::from_slice(&body).unwrap()
}

fn await_problem(satellite: &Satellite, part: &str) {
    let problems = || seen(satellite)["problems"].to_string();
    wait_until(|| problems().contains(part), || format!("{part}: {}", problems()));
}

#[test]
fn a_go_fleet_is_joined_and_obeyed_and_told_what_is_held() {
    let (fleet, registry, mut satellite) = converged("fleet-joined");
    assert_eq!(registry.count("GET", "/satellites/ztr/first-token"), 1);
    wait_until(
        || fleet.with(|world| world.reports.iter().any(|r| r.image_count == 1)),
        || satellite.log(),
    );
    let report = fleet.with(|world| world.reports.last().cloned().unwrap());
    report.check().unwrap();
    assert_eq!(
        (report.name.as_str(), report.state_report_interval.as_str()),
        ("edge1", "@every 00h00m01s")
    );
    let state =
        fleet.with(|world| Digest::sha256(&world.manifests[&format!("{SATELLITE}:latest")]));
    assert_eq!(report.latest_state_digest, state.to_string());
    let image = &report.cached_images[0];
    let name = format!("{}/library/app:1@sha256:", "127.0.0.1:0");
    assert!(image.reference.starts_with(&name), "{}", image.reference);
    let details = report.moonlet.unwrap();
    assert_eq!(
        (details.images[0].state.as_str(), details.images[0].held_bytes > 0),
        ("held", true)
    );
    // Another group, another tag, and a group that goes.
    fleet.push("library/app", "2", b"layer two");
    fleet.push("library/more", "1", b"layer three");
    fleet.set_group("g1", "library/app", "2");
    fleet.set_group("g2", "library/more", "1");
    fleet.set_groups(&registry.url(), &["g1", "g2"]);
    await_image(&satellite, "library/app", "2", 200);
    await_image(&satellite, "library/more", "1", 200);
    await_image(&satellite, "library/app", "1", 404);
    fleet.set_groups(&registry.url(), &["g1"]);
    await_image(&satellite, "library/more", "1", 404);
    // All away, and the power too: what was desired and held is served.
    fleet.with(|world| world.is_away = true);
    satellite.kill();
    satellite.start_again();
    await_problem(&satellite, "desired state");
    assert_eq!(satellite.get("/v2/library/app/manifests/2").0, 200);
    assert_eq!(seen(&satellite)["images"].as_array().unwrap().len(), 1);
    assert_eq!(registry.count("GET", "/satellites/ztr/"), 1, "a token is used once");
}

#[test]
fn what_is_spent_of_the_data_plan_is_reported() {
    let (_fleet, registry, satellite) = converged("fleet-plan");
    let plan = || {
        let reports = registry.asked();
        let report = reports.iter().rfind(|asked| asked.path == "/satellites/sync")?;
        let report: Value = serde_json::from_slice(&report.body).unwrap();
        report["moonlet"].get("plan_day").cloned()
    };
    assert_eq!(plan(), None, "there is none");
    let limited = config(&satellite.directory, &registry.url(), "first-token");
    satellite.reload(&format!("{limited}[link]\nday_max = \"64MiB\"\n"));
    wait_until(|| plan().is_some(), || satellite.log());
    let plan = plan().unwrap();
    assert_eq!(plan["max_bytes"], 64 << 20);
    assert!(plan["until"].as_u64().unwrap() > 1_700_000_000, "{plan}");
}

#[test]
fn an_unchanged_state_costs_no_body_and_no_write() {
    let (_fleet, registry, satellite) = converged("fleet-unchanged");
    let polls = || registry.count("HEAD", SATELLITE);
    let start = polls();
    wait_until(|| polls() > start + 2, || satellite.log());
    let written = || seen(&satellite)["store"]["programmed_bytes"].as_u64().unwrap();
    let (before, gets) = (written(), registry.count("GET", "satellite/"));
    let start = polls();
    wait_until(|| polls() > start + 4, || satellite.log());
    assert_eq!((written(), registry.count("GET", "satellite/")), (before, gets));
}

#[test]
fn state_that_makes_no_sense_leaves_what_was_known() {
    let (fleet, registry, satellite) = converged("fleet-nonsense");
    let group = group_state("g1");
    let bomb = gzip(&tar_of("zeros", &vec![0; 16 << 20]));
    let good = r#"{"group":"g1","artifacts":[{"repository":"library/app","tag":["1"]}]}"#;
    let long = format!("{good}{}", " ".repeat(1 << 20));
    let bad: [(&str, &dyn Fn()); 8] = [
        ("expected lower-case", &|| {
            fleet.publish(&group, r#"{"group":"g1","artifacts":[{"repository":"A","tag":["1"]}]}"#);
        }),
        ("artifacts.json", &|| fleet.publish(&group, "<html>")),
        ("expected at most", &|| fleet.publish(&group, &long)),
        ("a tar cut short", &|| fleet.publish_layer(&group, &bomb)),
        ("a layer without", &|| fleet.publish_layer(&group, &gzip(&[0; 1024]))),
        ("0 layers", &|| fleet.publish_manifest(&group, &json!({ "layers": [] }))),
        ("expected a digest", &|| {
            let layers = json!([{ "digest": "sha256:1", "size": 5 }]);
            fleet.publish_manifest(&group, &json!({ "layers": layers }));
        }),
        ("came as something else", &|| {
            let digest = Digest::sha256(b"wanted").to_string();
            fleet.with(|world| world.blobs.insert(digest.clone(), b"others".to_vec()));
            let layers = json!([{ "digest": digest, "size": 6 }]);
            fleet.publish_manifest(&group, &json!({ "layers": layers }));
        }),
    ];
    for (expected, publish) in bad {
        publish();
        await_problem(&satellite, expected);
        assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200, "{expected}");
        let (polls, gets) = (registry.count("HEAD", &group), registry.count("GET", &group));
        wait_until(|| registry.count("HEAD", &group) > polls + 1, || satellite.log());
        assert_eq!(registry.count("GET", &group), gets, "{expected}: it is not fetched again");
    }
    // A group that cannot be read holds up neither the list of groups nor the others.
    fleet.push("library/more", "1", b"layer three");
    fleet.set_group("g2", "library/more", "1");
    fleet.set_groups(&registry.url(), &["g1", "g2", "never"]);
    await_image(&satellite, "library/more", "1", 200);
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
    fleet.set_group("g1", "library/app", "1");
    fleet.set_groups(&registry.url(), &["g1", "g2"]);
    let problems = || seen(&satellite)["problems"].clone();
    wait_until(|| problems() == json!([]), || problems().to_string());
}

#[test]
fn credentials_are_renewed_and_never_lie_open_on_flash() {
    let (fleet, registry, satellite) = converged("fleet-renewed");
    fleet.with(|world| world.wants_refresh = true);
    wait_until(|| registry.count("POST", "/sat/refresh") == 1, || satellite.log());
    let count = fleet.with(|world| world.reports.len());
    wait_until(|| fleet.with(|world| world.reports.len() > count + 1), || satellite.log());
    // The registry knows the new ones only, for state and images, and nothing desired has changed.
    fleet.push("library/app", "1", b"layer of the third");
    await_layer(&satellite, b"layer of the third");
    let log = std::fs::read(satellite.directory.join("store/log")).unwrap();
    let holds = |text: &[u8]| log.windows(text.len()).any(|part| part == text);
    assert!(holds(b"layer of the third"), "this is the log");
    assert!(!holds(b"Secret-of-edge1") && !holds(b"Another-secret") && !holds(b"robot$edge1"));
    let said = satellite.log();
    assert!(!said.contains("secret") && !said.contains("Secret-of"), "{said}");
}

#[test]
fn a_revoked_satellite_serves_on_and_enrols_again_with_a_new_token() {
    let (fleet, registry, satellite) = converged("fleet-revoked");
    fleet.with(|world| world.secret = "not the satellite's any more".to_owned());
    await_problem(&satellite, "a new enrolment token is needed");
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
    fleet.with(|world| world.tokens.push("second-token".to_owned()));
    satellite.reload(&config(&satellite.directory, &registry.url(), "second-token"));
    wait_until(|| registry.count("GET", "/satellites/ztr/second-token") == 1, || satellite.log());
    fleet.push("library/app", "1", b"layer two");
    await_layer(&satellite, b"layer two");
}

/// What cannot be read yet may be what takes the place of a group.
#[test]
fn a_list_of_groups_counts_once_all_of_it_was_read() {
    let (fleet, registry, satellite) = converged("fleet-moved");
    fleet.set_group("moved", "library/app", "1");
    fleet.with(|world| world.broken.push(group_state("moved")));
    // Nor does one that is not there, which may be a matter of rights.
    fleet.set_groups(&registry.url(), &["absent"]);
    wait_until(|| registry.count("HEAD", &group_state("absent")) > 2, || satellite.log());
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
    fleet.set_groups(&registry.url(), &["moved"]);
    let asked = || registry.count("HEAD", &group_state("moved"));
    wait_until(|| asked() > 2, || satellite.log());
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
    fleet.push("library/more", "1", b"layer three");
    fleet.set_group("moved", "library/more", "1");
    fleet.with(|world| world.broken.clear());
    await_image(&satellite, "library/more", "1", 200);
    await_image(&satellite, "library/app", "1", 404);
}

/// The key of the seal is another one, as after an exchange of the board: nothing is known of what
/// is desired until Ground Control is back.
#[test]
fn nothing_is_removed_while_it_is_not_known_what_is_desired() {
    let (fleet, registry) = Fleet::start();
    fleet.push("library/app", "1", b"layer one");
    fleet.set_group("g1", "library/app", "1");
    fleet.set_groups(&registry.url(), &["g1"]);
    fleet.publish("satellite/config-state/c1/state", "{}");
    let mut satellite = satellite::prepare("fleet-unknown", |directory| {
        let key = directory.join("key");
        std::fs::write(&key, "the first key of this board").unwrap();
        format!("{}key_file = {key:?}\n", config(directory, &registry.url(), "first-token"))
    });
    satellite.start_again();
    await_image(&satellite, "library/app", "1", 200);
    satellite.kill();
    std::fs::write(satellite.directory.join("key"), "the key of another board").unwrap();
    fleet.with(|world| world.is_away = true);
    satellite.start_again();
    let sealed = "kept enrolment: sealed with key_file, which is another one now";
    assert!(satellite.log().contains(sealed), "{}", satellite.log());
    for _ in 0..3 {
        satellite.await_line("INFO  sync: ");
    }
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
    let cached = seen(&satellite)["store"]["cached_bytes"].as_u64().unwrap();
    assert_eq!(cached, 0, "nothing may be evicted");
    // It has enrolled, and its token is spent: what was sealed cannot be had again without another.
    fleet.with(|world| {
        world.is_away = false;
        world.tokens.push("first-token".to_owned());
    });
    wait_until(|| seen(&satellite)["problems"] == json!([]), || satellite.log());
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
}

/// An image that cannot be had does not cost the one that it is to replace.
#[test]
fn an_image_is_served_until_the_one_that_replaces_it_is_held() {
    let (fleet, _registry, satellite) = converged("fleet-replaced");
    fleet.set_group("g1", "library/app", "2");
    wait_until(
        || seen(&satellite)["images"][0]["reference"].to_string().contains("library/app:2"),
        || seen(&satellite).to_string(),
    );
    for _ in 0..3 {
        satellite.await_line("INFO  sync: ");
    }
    await_image(&satellite, "library/app", "2", 404);
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200, "{}", satellite.log());
    let layer = format!("/v2/library/app/blobs/{}", Digest::sha256(b"layer one"));
    assert_eq!(satellite.get(&layer), (200, b"layer one".to_vec()));
    fleet.push("library/app", "2", b"layer two");
    await_image(&satellite, "library/app", "2", 200);
    await_image(&satellite, "library/app", "1", 404);
}

#[test]
fn another_ground_control_gets_no_credentials_of_the_one_before() {
    let (_fleet, _registry, satellite) = converged("fleet-other");
    let other = FnRegistry::start(|_| reply(404, ""));
    satellite.reload(&config(&satellite.directory, &other.url(), "second-token"));
    await_problem(&satellite, "no Ground Control answers here");
    wait_until(|| other.count("POST", "/satellites/ztr") > 0, || satellite.log());
    satellite.await_line("INFO  sync: ");
    assert!(other.asked().iter().all(|asked| asked.authorization().is_empty()));
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
    assert!(!satellite.log().contains("second-token"), "{}", satellite.log());
}

#[test]
fn credentials_go_to_the_registry_they_are_for() {
    let (fleet, registry, satellite) = converged("fleet-elsewhere");
    let elsewhere =
        FnRegistry::start(|_| reply(401, "").with("WWW-Authenticate: Basic realm=\"x\""));
    let states = [
        format!("{}/{}:latest", registry.url(), group_state("g1")),
        format!("{}/{}:latest", elsewhere.url(), group_state("g2")),
    ];
    fleet.publish(SATELLITE, &json!({ "states": states }).to_string());
    wait_until(|| elsewhere.count("HEAD", "g2") > 1, || satellite.log());
    assert!(elsewhere.asked().iter().all(|asked| asked.authorization().is_empty()));
    assert_eq!(satellite.get("/v2/library/app/manifests/1").0, 200);
}

/// A registry that denies for a while must not need Ground Control to be asked again.
#[test]
fn what_was_denied_is_asked_for_again() {
    let (fleet, registry, satellite) = converged("fleet-denied");
    let secret = fleet.with(|world| {
        world.ground_is_away = true;
        std::mem::replace(&mut world.secret, "another".to_owned())
    });
    await_problem(&satellite, "a new enrolment token is needed");
    // A token that is no good yet changes nothing of that.
    satellite.reload(&config(&satellite.directory, &registry.url(), "another-token"));
    await_problem(&satellite, "status 503");
    fleet.with(|world| world.secret = secret);
    fleet.push("library/app", "2", b"layer two");
    fleet.set_group("g1", "library/app", "2");
    await_image(&satellite, "library/app", "2", 200);
}

#[test]
fn a_refused_token_is_reported_and_the_rest_goes_on() {
    let (_fleet, registry) = Fleet::start();
    let mut satellite = satellite::prepare("fleet-refused", |directory| {
        config(directory, &registry.url(), "wrong")
    });
    satellite.start_again();
    await_problem(&satellite, "the enrolment token is refused");
    await_problem(&satellite, "Invalid Token");
    assert_eq!(satellite.get("/v2/").0, 200);
    assert!(satellite.lives());
    let (code, said) = {
        satellite.kill();
        satellite.sync()
    };
    assert!(said.contains("the enrolment token is refused"), "{said}");
    assert_eq!(code, 1, "{said}");
}

const USER: &str = "robot$edge1";
const SATELLITE: &str = "satellite/satellite-state/edge1/state";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
