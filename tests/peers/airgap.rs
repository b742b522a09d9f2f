//! Images by file: what skopeo and podman write is imported, what is exported is read by them, and
//! bundles are signed and checked by openssl as well. Nothing is asked of a network.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::clients::Podman;
use crate::harness::images::{Image, Layout, check_copied};
use crate::harness::satellite::{Satellite, prepare};
use crate::harness::{Directory, missing, run, text_of};

const NAME: &str = "registry.test/app:1";

/// A satellite that is never started, with a store of its own.
fn store(name: &str, more: &str) -> Satellite {
    prepare(&format!("airgap-{name}"), |directory| {
        let store = directory.join("store");
        format!("[store]\npath = {store:?}\nsize_max = \"64MiB\"\n{more}\n")
    })
}

/// An image in files, and room for more files.
fn image(name: &str) -> (Directory, Layout, Image) {
    let mut layout = Layout::new(&format!("airgap-{name}"));
    // As podman calls it, which loads only what it could run.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let image = layout.image("1", architecture, &[3_000_000]);
    (Directory::new(&format!("airgap-files-{name}")), layout, image)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// skopeo writes the image to a file of this kind.
fn write(layout: &Layout, kind: &str, file: &Path) {
    let source = format!("oci:{}:1", layout.path().display());
    let to = format!("{kind}:{}:{NAME}", file.display());
    run(Command::new("skopeo").args(["copy", "-q", &source, &to]));
}

fn import(satellite: &Satellite, file: &Path) -> String {
    satellite.expect(&["image", "import", path(file)])
}

#[test]
fn a_layout_and_skopeos_archive_are_imported() {
    if missing("a_layout_and_skopeos_archive_are_imported", &["skopeo"]) {
        return;
    }
    let (files, layout, image) = image("layout");
    let one = store("layout", "");
    let said = one.expect(&["image", "import", path(layout.path()), "--name", NAME]);
    assert!(said.contains(image.digest()), "{said}");
    let archive = files.join("oci.tar");
    write(&layout, "oci-archive", &archive);
    let said = import(&store("archive", ""), &archive);
    assert!(said.contains(&format!("{NAME}: {}", image.digest())), "{said}");
}

#[test]
fn skopeos_docker_archive_is_imported_plain_and_compressed() {
    let case = "skopeos_docker_archive_is_imported_plain_and_compressed";
    if missing(case, &["skopeo", "gzip"]) {
        return;
    }
    let (files, layout, image) = image("docker");
    let plain = files.join("docker.tar");
    write(&layout, "docker-archive", &plain);
    run(Command::new("gzip").arg("-k").arg(&plain));
    for file in ["docker.tar", "docker.tar.gz"] {
        let satellite = store(file, "");
        import(&satellite, &files.join(file));
        let exported = files.join(&format!("{file}.oci.tar"));
        satellite.expect(&["image", "export", NAME, path(&exported)]);
        let source = format!("oci-archive:{}", exported.display());
        let config = run(Command::new("skopeo").args(["inspect", "--config", &source]));
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], image.diff_ids[0].as_str(), "{file}");
    }
}

#[test]
fn podmans_archives_are_imported() {
    if missing("podmans_archives_are_imported", &["skopeo", "podman", "root"]) {
        return;
    }
    let (files, layout, _) = image("podman");
    let archive = files.join("docker.tar");
    write(&layout, "docker-archive", &archive);
    let podman = Podman::new("airgap-import");
    run(podman.command(&[]).args(["load", "-q", "-i"]).arg(&archive));
    for (file, format) in [("podman.tar", "docker-archive"), ("podman-oci.tar", "oci-archive")] {
        let saved = files.join(file);
        let save = ["save", "-q", "--format", format, "-o", path(&saved), NAME];
        run(podman.command(&[]).args(save));
        let said = import(&store(file, ""), &saved);
        assert!(said.contains(&format!("{NAME}: sha256:")), "{said}");
    }
}

/// Holds the image, as it was in files.
fn held(name: &str, layout: &Layout) -> Satellite {
    let satellite = store(name, "");
    satellite.expect(&["image", "import", path(layout.path()), "--name", NAME]);
    satellite
}

#[test]
fn what_is_exported_is_read_by_skopeo_and_podman() {
    let case = "what_is_exported_is_read_by_skopeo_and_podman";
    if missing(case, &["skopeo", "podman", "root"]) {
        return;
    }
    let (files, layout, image) = image("export");
    let satellite = held("export", &layout);
    let (directory, tar) = (files.join("export"), files.join("export.tar"));
    satellite.expect(&["image", "export", NAME, path(&directory)]);
    satellite.expect(&["image", "export", "--all", path(&tar)]);
    let of = |kind: &str, place: &Path| format!("{kind}:{}", place.display());
    let sources = [
        of("oci", &directory),
        format!("{}:{NAME}", of("oci", &directory)),
        of("oci-archive", &tar),
    ];
    for source in sources {
        let found = run(Command::new("skopeo").args(["inspect", &source]));
        let found: Value = serde_json::from_slice(&found).unwrap();
        assert_eq!(found["Digest"], image.digest(), "{source}");
    }
    let copied = files.join("copied");
    std::fs::create_dir(&copied).unwrap();
    let (from, to) = (of("oci-archive", &tar), of("dir", &copied));
    run(Command::new("skopeo").args(["copy", "-q", &from, &to]));
    assert_eq!(check_copied(&copied), image.digest());
    let podman = Podman::new("airgap-export");
    let said = text_of(podman.command(&[]).args(["load", "-q", "-i"]).arg(&tar));
    assert!(said.contains(NAME), "{said}");
}

/// What openssl does with a kind of key.
struct Openssl {
    generate: &'static [&'static str],
    verify: fn(&Bundle) -> Vec<String>,
    sign: fn(&Bundle) -> Vec<String>,
}

/// The files of a bundle, and its keys.
struct Bundle {
    key: String,
    public: String,
    said: String,
    signature: String,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn bundle(name: &str, openssl: &Openssl) {
    let (files, layout, _) = image(name);
    let satellite = held(&format!("{name}-signs"), &layout);
    let tool = |words: &[String]| run(Command::new("openssl").args(words));
    let file = |name: &str| path(&files.join(name)).to_owned();
    let bundle = Bundle {
        key: file("key"),
        public: file("pub"),
        said: file("bundle/moonlet-bundle.json"),
        signature: file("bundle/moonlet-bundle.sig"),
    };
    tool(&[words(openssl.generate), words(&["-out", &bundle.key])].concat());
    tool(&words(&["pkey", "-in", &bundle.key, "-pubout", "-out", &bundle.public]));
    let tar = files.join("bundle.tar");
    let sign = ["--sign", &bundle.key, "--sequence", "2"];
    satellite.expect(&[&["image", "export", NAME, path(&tar)], &sign[..]].concat());
    let unpacked = files.join("bundle");
    std::fs::create_dir(&unpacked).unwrap();
    run(Command::new("tar").arg("-C").arg(&unpacked).arg("-xf").arg(&tar));
    tool(&(openssl.verify)(&bundle));

    let trusts = store(name, &format!("[import]\nkey_file = {:?}", bundle.public));
    import(&trusts, &tar);
    let text = std::fs::read_to_string(&bundle.said).unwrap();
    let later = text.replace("\"sequence\": 2", "\"sequence\": 3");
    assert_ne!(later, text);
    std::fs::write(&bundle.said, later).unwrap();
    let refused = |place: &Path| trusts.run(&["image", "import", path(place)]);
    let (code, _, said) = refused(&unpacked);
    assert!(code != 0 && said.contains("signature"), "changed, and imported: {code} {said}");
    tool(&(openssl.sign)(&bundle));
    import(&trusts, &unpacked);
    let (code, _, said) = refused(&tar);
    assert!(code != 0 && said.contains("sequence"), "an older one: {code} {said}");
}

#[test]
fn bundles_of_ed25519_are_signed_and_checked_by_both() {
    if missing("bundles_of_ed25519_are_signed_and_checked_by_both", &["openssl"]) {
        return;
    }
    bundle(
        "ed25519",
        &Openssl {
            generate: &["genpkey", "-algorithm", "ed25519"],
            verify: |b| {
                let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", &b.public];
                words(&[&verify[..], &["-in", &b.said, "-sigfile", &b.signature]].concat())
            },
            sign: |b| {
                let sign = ["pkeyutl", "-sign", "-rawin", "-inkey", &b.key];
                words(&[&sign[..], &["-in", &b.said, "-out", &b.signature]].concat())
            },
        },
    );
}

#[test]
fn bundles_of_p256_are_signed_and_checked_by_both() {
    if missing("bundles_of_p256_are_signed_and_checked_by_both", &["openssl"]) {
        return;
    }
    bundle(
        "p256",
        &Openssl {
            generate: &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            verify: |b| {
                words(&[
                    "dgst",
                    "-sha256",
                    "-verify",
                    &b.public,
                    "-signature",
                    &b.signature,
                    &b.said,
                ])
            },
            sign: |b| words(&["dgst", "-sha256", "-sign", &b.key, "-out", &b.signature, &b.said]),
        },
    );
}
