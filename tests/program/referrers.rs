//! What accompanies an image (referrers, attestations, foreign layers, other platforms) never decides
//! over it, and what an upstream sends is bounded.

use moonlet::oci::{Digest, Platform, media_type};

use crate::satellite::{Satellite, start};
use crate::scripted::{Answer, ScriptedRegistry, child, descriptor, image, index, layer};

/// The architecture that is wanted, as the satellite's device is this one.
fn here() -> String {
    Platform::device().architecture
}

fn status(satellite: &Satellite, path: &str) -> u16 {
    satellite.get(path).0
}

/// More images to hold: their repositories, and the platforms of the last.
fn images(repositories: &[&str]) -> String {
    let tables = repositories
        .iter()
        .map(|repository| format!("[[image]]\nreference = \"registry.test/{repository}:1\"\n"));
    tables.collect()
}

#[test]
fn referrers_that_are_refused() {
    let scripted = ScriptedRegistry::start();
    let refused = [("app", 503), ("b", 429), ("c", 401), ("d", 403), ("e", 500)];
    for (repository, status) in refused {
        let digest = scripted.image(repository, "1", repository, "");
        let answer = Answer::new(status, "no").with("Retry-After", "600");
        scripted.set(&format!("{repository}/referrers/{digest}"), answer);
    }
    let satellite = start("refused", &scripted.url(), &images(&["b", "c", "d", "e"]));
    satellite.await_line("sync: 5 images held, 0 not");
    for (repository, _) in refused {
        assert_eq!(status(&satellite, &format!("/v2/{repository}/manifests/1")), 200);
    }
    let log = std::fs::read_to_string(satellite.directory.join("log")).unwrap();
    for (repository, _) in refused {
        let line = log
            .lines()
            .find(|line| line.contains(&format!("registry.test/{repository}:1: held without")));
        assert!(line.unwrap().contains(&format!("{repository}/referrers/sha256:")), "{line:?}");
    }
}

#[test]
fn referrers_in_pages() {
    let scripted = ScriptedRegistry::start();
    let image = scripted.image("app", "1", "image", "");
    let subject = format!(r#","subject":{}"#, descriptor(media_type::OCI_MANIFEST, &image, 1, ""));
    let signatures = ["x", "y", "z"].map(|name| scripted.image("app", "", name, &subject));
    let path = format!("app/referrers/{image}");
    for (page, signature) in signatures.iter().enumerate() {
        let query = if page == 0 { String::new() } else { format!("?page={page}") };
        let list = index(&[descriptor(media_type::OCI_MANIFEST, signature, 1, "")]);
        let mut answer = Answer::new(200, list).with("Content-Type", media_type::OCI_INDEX);
        if page < 2 {
            // Of an address on another host nothing but the query counts.
            let next = format!("<http://192.0.2.1/v2/{path}?page={}>; rel=\"next\"", page + 1);
            answer = answer.with("Link", next);
        }
        scripted.set(&format!("{path}{query}"), answer);
    }
    let satellite = start("pages", &scripted.url(), "");
    satellite.await_line("held at");
    for signature in signatures {
        assert_eq!(status(&satellite, &format!("/v2/app/manifests/{signature}")), 200);
    }
}

#[test]
fn parts_that_are_gone() {
    let scripted = ScriptedRegistry::start();
    let arch = here();
    // The image itself has a foreign layer that the registry lacks.
    let config = scripted.blob("app", b"config");
    let own = scripted.blob("app", layer("image").as_bytes());
    let foreign = Digest::sha256(b"foreign");
    let foreign_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let urls = format!(r#","urls":["{}/v2/elsewhere"]"#, scripted.url());
    let layers = format!("{},{own}", descriptor(foreign_type, &foreign, 7, &urls));
    let chosen = scripted.manifest("app", "", &image(&config, &layers, ""));
    let other = scripted.image("app", "", "other", "");
    let gone = Digest::sha256(b"gone");
    let attests = format!(r#","annotations":{{"vnd.docker.reference.digest":"{chosen}"}}"#);
    let root = scripted.manifest(
        "app",
        "1",
        &index(&[
            child(&chosen, "linux", &arch, ""),
            child(&other, "linux", "s390x", ""),
            child(&gone, "linux", "mips", ""),
            child(&Digest::sha256(b"attestation"), "unknown", "unknown", &attests),
        ]),
    );
    // Two signatures: the blob of one is gone.
    let subject = format!(r#","subject":{}"#, descriptor(media_type::OCI_MANIFEST, &root, 1, ""));
    let whole = scripted.image("app", "", "whole", &subject);
    let broken = scripted.image("app", "", "broken", &subject);
    scripted.remove(&format!("app/blobs/{}", Digest::sha256(layer("broken").as_bytes())));
    let list = [whole, broken].map(|d| descriptor(media_type::OCI_MANIFEST, &d, 1, ""));
    let list = Answer::new(200, index(&list)).with("Content-Type", media_type::OCI_INDEX);
    scripted.set(&format!("app/referrers/{root}"), list);

    let satellite = start("gone", &scripted.url(), "");
    let line = satellite.await_line("held without what accompanies it: ");
    for missing in [foreign, gone, Digest::sha256(layer("broken").as_bytes())] {
        assert!(line.contains(&missing.to_string()), "{missing} {line}");
    }
    satellite.await_line("sync: 1 images held, 0 not");
    let manifest = |digest: &Digest| status(&satellite, &format!("/v2/app/manifests/{digest}"));
    for held in [root, chosen, other, whole] {
        assert_eq!(manifest(&held), 200, "{held}");
    }
    // A signature without its blob proves nothing, and is not listed.
    for left_out in [broken, gone] {
        assert_eq!(manifest(&left_out), 404, "{left_out}");
    }
    let blob = |text: &str| {
        status(&satellite, &format!("/v2/app/blobs/{}", Digest::sha256(text.as_bytes())))
    };
    assert_eq!((blob("config of other"), blob("layer of other")), (200, 404));
    assert_eq!((blob("layer of image"), blob("layer of whole")), (200, 200));
    assert_eq!(scripted.asked("elsewhere"), 0);
    // All of it is held, as far as it can be: nothing is asked for again at each poll.
    satellite.await_line("sync: 1 images held, 0 not");
    let asked = scripted.asked(&format!("GET /v2/app/blobs/{foreign}"));
    satellite.await_line("sync: 1 images held, 0 not");
    satellite.await_line("sync: 1 images held, 0 not");
    assert_eq!(scripted.asked(&format!("GET /v2/app/blobs/{foreign}")), asked);
}

#[test]
fn all_platforms() {
    let scripted = ScriptedRegistry::start();
    let names = ["amd64", "arm64", "s390x"];
    for repository in ["app", "b"] {
        let children = names.map(|name| {
            child(
                &scripted.image(repository, "", &format!("{repository} {name}"), ""),
                "linux",
                name,
                "",
            )
        });
        scripted.manifest(repository, "1", &index(&children));
    }
    let all = format!("{}platforms = [\"all\"]\n", images(&["b"]));
    let satellite = start("all", &scripted.url(), &all);
    satellite.await_line("sync: 2 images held, 0 not");
    let held = |repository: &str| {
        let layers = names.map(|name| layer(&format!("{repository} {name}")));
        let layers = layers.map(|text| Digest::sha256(text.as_bytes()));
        let get = |digest: &Digest| status(&satellite, &format!("/v2/{repository}/blobs/{digest}"));
        layers.into_iter().filter(|digest| get(digest) == 200).count()
    };
    assert_eq!((held("app"), held("b")), (1, 3));
}

#[test]
fn a_manifest_by_tag_only() {
    let scripted = ScriptedRegistry::start();
    let digest = scripted.image("app", "1", "image", "");
    scripted.remove(&format!("app/manifests/{digest}"));
    let satellite = start("by-tag", &scripted.url(), "");
    satellite.await_line("held at");
    assert_eq!(status(&satellite, &format!("/v2/app/manifests/{digest}")), 200);
}

#[test]
fn a_long_manifest_is_invisible_until_its_image_is_whole() {
    let scripted = ScriptedRegistry::start();
    let notes: Vec<String> = (0..20_000).map(|n| format!(r#""{n:08}":"""#)).collect();
    let rest = format!(r#","annotations":{{{}}}"#, notes.join(","));
    let digest = scripted.image("app", "1", "image", &rest);
    let blob = format!("app/blobs/{}", Digest::sha256(layer("image").as_bytes()));
    scripted.remove(&blob);
    let satellite = start("long", &scripted.url(), "");
    satellite.await_error("status 404");
    satellite.await_error("status 404");
    let path = format!("/v2/app/manifests/{digest}");
    assert_eq!(status(&satellite, &path), 404);
    scripted.set(&blob, Answer::new(200, layer("image")));
    satellite.await_line("held at");
    let (status, bytes) = satellite.get(&path);
    assert_eq!((status, Digest::sha256(&bytes)), (200, digest));
    assert_eq!(
        scripted.asked(&format!("GET /v2/app/manifests/{digest}")),
        1,
        "what was written stays"
    );
}

#[test]
fn what_an_index_shares_is_fetched_once() {
    let scripted = ScriptedRegistry::start();
    let shared = scripted.image("app", "", "shared", "");
    let shared_child = child(&shared, "linux", &here(), "");
    let indexes: Vec<String> = (0..50)
        .map(|n| {
            let other = child(&Digest::sha256(format!("{n}").as_bytes()), "plan9", "mips", "");
            let inner = scripted.manifest("app", "", &index(&[shared_child.clone(), other]));
            descriptor(media_type::OCI_INDEX, &inner, 1, "")
        })
        .collect();
    scripted.manifest("app", "1", &index(&indexes));
    let satellite = start("shared", &scripted.url(), "");
    satellite.await_line("sync: 1 images held, 0 not");
    assert_eq!(scripted.asked(&format!("GET /v2/app/manifests/{shared}")), 1);
}

#[test]
fn a_flood_of_referrers() {
    let scripted = ScriptedRegistry::start();
    let image = scripted.image("app", "1", "image", "");
    let flood: Vec<String> = (0..5_000)
        .map(|n| {
            let digest = Digest::sha256(format!("{n}").as_bytes());
            descriptor(media_type::OCI_MANIFEST, &digest, 1, "")
        })
        .collect();
    let list = Answer::new(200, index(&flood)).with("Content-Type", media_type::OCI_INDEX);
    scripted.set(&format!("app/referrers/{image}"), list);
    let satellite = start("flood", &scripted.url(), "");
    satellite.await_line("sync: 1 images held, 0 not");
    assert!(scripted.asked("/v2/") < 300, "{}", scripted.asked("/v2/"));
    let log = std::fs::read_to_string(satellite.directory.join("log")).unwrap();
    let lines = log.lines().filter(|line| !line.starts_with("DEBUG "));
    assert!(lines.map(str::len).sum::<usize>() < 10_000, "{log}");
    assert!(log.contains("referrers, of which 256 manifests are asked for at most"), "{log}");
}

#[test]
fn counts_beyond_reason_are_refused() {
    let scripted = ScriptedRegistry::start();
    let config = scripted.blob("b", b"config");
    let layers = vec![config.clone(); 3_000].join(",");
    scripted.manifest("b", "1", &image(&config, &layers, ""));
    let children: Vec<String> = (0..2_000)
        .map(|n| child(&Digest::sha256(format!("{n}").as_bytes()), "linux", &here(), ""))
        .collect();
    scripted.manifest("app", "1", &index(&children));
    // Without a length it cannot be written as it comes.
    let endless = format!("[{}", " ".repeat(2 << 20));
    let chunked = format!("{:x}\r\n{endless}\r\n0\r\n\r\n", endless.len());
    let answer = Answer::new(200, chunked)
        .with("Content-Type", media_type::OCI_MANIFEST)
        .with("Transfer-Encoding", "chunked");
    scripted.set("c/manifests/1", answer);
    let satellite = start("counts", &scripted.url(), &images(&["b", "c"]));
    satellite.await_line("sync: 0 images held, 3 not");
    let log = std::fs::read_to_string(satellite.directory.join("log")).unwrap();
    for expected in [
        "more than 1024 manifests in one index",
        "more than 2048 layers in one image",
        "body is over 1048576 bytes",
    ] {
        assert!(
            log.lines().any(|line| line.starts_with("ERROR") && line.contains(expected)),
            "{log}"
        );
    }
}
