//! Images from files: what is good is held and served without a network, and stays; what is cut
//! short, corrupt or hostile is reported in one clear line, and nothing of it is visible.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use moonlet::oci::Digest;
use moonlet::tar;

use crate::registry::Image;
use crate::satellite::{Satellite, get, prepare, text, wait_until};

/// A satellite without images and upstreams.
pub fn alone(name: &str) -> Satellite {
    prepare(name, |directory| text(directory, "1s", &[], &[]))
}

pub type Files = Vec<(String, Vec<u8>)>;

fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    let digest = Digest::sha256(bytes).to_string();
    (format!("blobs/{}", digest.replace(':', "/")), bytes.to_vec())
}

fn listed(manifest: &[u8], more: &str) -> String {
    let (digest, size) = (Digest::sha256(manifest), manifest.len());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}{more}}}"#)
}

fn named(name: &str) -> String {
    format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#)
}

/// The files of an OCI layout with an image under a name.
pub fn layout(image: &Image, name: &str) -> Files {
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed(&image.manifest, &named(name)));
    vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.into_bytes()),
        blob(&image.manifest),
        blob(&image.config),
        blob(&image.layer),
    ]
}

pub fn pack(files: &Files) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, bytes) in files {
        let size = bytes.len() as u64;
        all.extend([tar::head(name, size).as_slice(), bytes, tar::padding(size)].concat());
    }
    all.extend(tar::END);
    all
}

/// A symbolic link in a tar.
fn link(name: &str, to: &str) -> Vec<u8> {
    let mut head = tar::head(name, 0);
    head[156] = b'2';
    head[157..157 + to.len()].copy_from_slice(to.as_bytes());
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

fn write(path: PathBuf, bytes: &[u8]) -> PathBuf {
    fs::write(&path, bytes).unwrap();
    path
}

fn unpack(directory: PathBuf, files: &Files) -> PathBuf {
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    directory
}

fn gzip(path: &Path) -> PathBuf {
    let status = std::process::Command::new("gzip").arg("--keep").arg(path).status().unwrap();
    assert!(status.success());
    PathBuf::from(format!("{}.gz", path.display()))
}

/// Imports and expects it to work; returns what was printed.
fn import(satellite: &Satellite, file: &Path, more: &[&str]) -> String {
    let words = [&["image", "import", file.to_str().unwrap()], more].concat();
    let (code, out, err) = satellite.run(&words);
    assert_eq!(code, 0, "{words:?}: {out}{err}");
    out
}

/// Imports and expects an error with `expected` in it.
fn refused(satellite: &Satellite, file: &Path, more: &[&str], expected: &str) {
    let words = [&["image", "import", file.to_str().unwrap()], more].concat();
    let (code, out, err) = satellite.run(&words);
    assert!(code == 2 && out.is_empty(), "{words:?}: {code} {out}{err}");
    let line = err.lines().last().unwrap_or_default();
    assert!(line.starts_with("moonlet: ") && line.contains(expected), "{expected}: {err}");
}

fn serves(satellite: &Satellite, tag: &str, image: &Image) {
    let path = format!("/v2/registry.test/app/manifests/{tag}");
    assert_eq!(satellite.get(&path), (200, image.manifest.clone()));
    for bytes in [&image.layer, &image.config] {
        let path = format!("/v2/registry.test/app/blobs/{}", Digest::sha256(bytes));
        assert_eq!(satellite.get(&path), (200, bytes.clone()));
    }
}

/// Waits until the running satellite has made two passes.
fn passes(satellite: &Satellite) {
    let address = satellite.await_line("status, metrics and health on ");
    let address = address.rsplit(' ').next().unwrap().to_owned();
    let runs = || {
        let (_, body) = get(&address, "/metrics", "");
        let text = String::from_utf8(body).unwrap();
        let mut lines =
            text.lines().filter_map(|line| line.strip_prefix("moonlet_sync_runs_total "));
        lines.next().unwrap().parse::<u64>().unwrap()
    };
    // The second begins when the first has given up what is not desired.
    wait_until(|| runs() >= 2, || "no two passes".to_owned());
}

#[test]
fn images_are_imported_served_kept_and_removed() {
    let mut satellite = alone("import");
    let images = [1, 2, 3].map(|seed| Image::new(seed, 300_000));
    let files = |number: usize| layout(&images[number], &format!("registry.test/app:{number}"));
    let directory = unpack(satellite.directory.join("layout"), &files(0));
    let tar = write(satellite.directory.join("x.tar"), &pack(&files(1)));
    let mut backwards = files(2);
    backwards.reverse();
    let gz = gzip(&write(satellite.directory.join("y.tar"), &pack(&backwards)));
    for (file, tag) in [(&directory, "0"), (&tar, "1"), (&gz, "2")] {
        let out = import(&satellite, file, &[]);
        assert!(out.contains(&format!("registry.test/app:{tag}: sha256:")), "{out}");
        assert!(out.contains("no [[image]] names it: held until moonlet image rm"), "{out}");
    }
    let (_, out, _) = satellite.run(&["image", "ls"]);
    assert!(out.contains("registry.test/app:0") && out.contains("held"), "{out}");
    satellite.start_again();
    passes(&satellite);
    for (tag, image) in images.iter().enumerate() {
        serves(&satellite, &tag.to_string(), image);
    }
    // One at a time at a store.
    refused(&satellite, &tar, &[], "is in use by another moonlet: stop it first");
    assert!(!satellite.log().contains("is not desired any more"));
    satellite.kill();
    assert_eq!(satellite.run(&["image", "rm", "registry.test/app:1"]).0, 0);
    let (code, _, err) = satellite.run(&["image", "rm", "registry.test/app:1"]);
    assert!(code == 2 && err.contains("is not held"), "{err}");
    satellite.start_again();
    assert_eq!(satellite.get("/v2/registry.test/app/manifests/1").0, 404);
    serves(&satellite, "2", &images[2]);
}

#[test]
fn what_is_desired_is_not_kept_beyond_that() {
    let image = Image::new(1, 300_000);
    let images = ["registry.test/app:1"];
    let mut satellite = prepare("import-desired", |at| text(at, "1s", &[], &images));
    let file = write(satellite.directory.join("x.tar"), &pack(&layout(&image, images[0])));
    let out = import(&satellite, &file, &[]);
    assert!(!out.contains("image rm"), "{out}");
    // Its registry is out of reach.
    satellite.start_again();
    passes(&satellite);
    serves(&satellite, "1", &image);
    let (code, _, err) = {
        satellite.kill();
        satellite.run(&["image", "rm", "registry.test/app:1"])
    };
    assert!(code == 2 && err.contains("is desired"), "{err}");
    satellite.start_again();
    satellite.reload(&text(&satellite.directory, "1s", &[], &[]));
    satellite.await_line("registry.test/app:1 is not desired any more");
}

#[test]
fn names_come_from_the_file_or_the_command() {
    let satellite = alone("import-names");
    let (one, two) = (Image::new(1, 5_000), Image::new(2, 5_000));
    let nameless = write(satellite.directory.join("n.tar"), &pack(&layout(&one, "latest")));
    refused(&satellite, &nameless, &[], "no image in it has a name, expected --name REFERENCE");
    let out = import(&satellite, &nameless, &["--name", "registry.test/app:7"]);
    assert!(out.starts_with("registry.test/app:7: "), "{out}");
    let mut both = layout(&one, "registry.test/app:1");
    let index = format!(
        r#"{{"manifests":[{},{}]}}"#,
        listed(&one.manifest, &named("registry.test/app:1")),
        listed(&two.manifest, &named("registry.test/app:2"))
    );
    both[1].1 = index.into_bytes();
    both.extend(layout(&two, "").into_iter().skip(2));
    let both = write(satellite.directory.join("b.tar"), &pack(&both));
    assert_eq!(import(&satellite, &both, &[]).matches("sha256:").count(), 2);
    let out = import(&satellite, &both, &["--name", "registry.test/app:2"]);
    assert_eq!(out.matches("sha256:").count(), 1);
    let other = ["--name", "registry.test/app:3"];
    refused(
        &satellite,
        &both,
        &other,
        "holds registry.test/app:1, registry.test/app:2: expected one",
    );
    // Manifests for several platforms, without an index of their own: index.json is one.
    let platform = |name: &str| format!(r#","platform":{{"os":"linux","architecture":"{name}"}}"#);
    let index = format!(
        r#"{{"manifests":[{},{}]}}"#,
        listed(&one.manifest, &platform("amd64")),
        listed(&two.manifest, &platform("arm64"))
    );
    let mut files = layout(&one, "");
    files[1].1 = index.clone().into_bytes();
    files.extend(layout(&two, "").into_iter().skip(2));
    let file = write(satellite.directory.join("i.tar"), &pack(&files));
    let out = import(&satellite, &file, &["--name", "registry.test/app:9", "--platform", "all"]);
    assert!(out.contains(&Digest::sha256(index.as_bytes()).to_string()), "{out}");
    let pinned = format!("registry.test/app:2@{}", Digest::sha256(b"x"));
    refused(&satellite, &both, &["--name", &pinned], "expected sha256:");
}

#[test]
fn what_is_wrong_is_refused_and_nothing_of_it_is_visible() {
    let mut satellite = alone("import-wrong");
    let image = Image::new(1, 700_000);
    let good = || layout(&image, "registry.test/app:1");
    let at = satellite.directory.clone();
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = good();
        change(&mut files);
        pack(&files)
    };
    let whole = pack(&good());
    let head = |name: &str| tar::head(name, 5);
    let layer = Digest::sha256(&image.layer);
    let cases: Vec<(Vec<u8>, String)> = vec![
        // The configuration first: once it is held, the file's is not looked at.
        (changed(&|files| files[3].1[1] ^= 1), "the bytes that arrived have digest".to_owned()),
        (changed(&|files| files[4].1[99] ^= 1), "the bytes that arrived have digest".to_owned()),
        (changed(&|files| files[2].1[1] ^= 1), "the file is corrupt".to_owned()),
        (changed(&|files| drop(files.pop())), format!("has no blob {layer}, and it is not held")),
        (
            changed(&|files| files[4].1.truncate(699_999)),
            "has 699999 bytes, expected 700000".to_owned(),
        ),
        (changed(&|files| drop(files.remove(2))), "has no manifest sha256:".to_owned()),
        (changed(&|files| files[0].1 = b"{}".to_vec()), "oci-layout is not of the".to_owned()),
        (changed(&|files| files[1].1 = b"[}".to_vec()), "index.json is not of the".to_owned()),
        (changed(&|files| files[1].1 = vec![b' '; 300_000]), "expected at most 262144".to_owned()),
        (changed(&|files| drop(files.remove(0))), "expected an OCI layout".to_owned()),
        (
            changed(&|files| files[3].0 = "../../escaped".to_owned()),
            "leads out of the tar".to_owned(),
        ),
        (
            changed(&|files| files[3].0 = "/tmp/escaped".to_owned()),
            "leads out of the tar".to_owned(),
        ),
        ([head("a"), whole.clone()].concat(), "checksum is wrong".to_owned()),
        (whole[..whole.len() / 2].to_vec(), "cut short within".to_owned()),
        (whole[..700].to_vec(), "no index.json, expected one".to_owned()),
        (tar::head("oci-layout", 1 << 49), "cut short within".to_owned()),
        (b"no tar at all, but long enough to be one".repeat(99), "expected a directory".to_owned()),
        (Vec::new(), "expected an OCI layout".to_owned()),
    ];
    for (bytes, expected) in cases {
        refused(&satellite, &write(at.join("w.tar"), &bytes), &[], &expected);
    }
    let link = unpack(at.join("links"), &good());
    let (path, _) = blob(&image.layer);
    fs::remove_file(link.join(&path)).unwrap();
    std::os::unix::fs::symlink("/dev/zero", link.join(&path)).unwrap();
    refused(&satellite, &link, &[], "is a symbolic link");
    refused(&satellite, &at.join("nothing"), &[], "No such file");
    // A head that names 70 GiB, and 64 MiB of zeros, before the layout.
    let bomb = at.join("bomb.tar");
    let mut file = fs::File::create(&bomb).unwrap();
    file.write_all(&tar::head("zeros", 70 << 30)).unwrap();
    file.set_len(64 << 20).unwrap();
    refused(&satellite, &gzip(&bomb), &[], "inflates to more than 64 GiB");
    let large = layout(&Image::new(9, 40 << 20), "registry.test/large:1");
    refused(&satellite, &write(at.join("l.tar"), &pack(&large)), &[], "no room: needs 40.0 MiB");
    let other = ["--platform", "linux/arm/v5"];
    let index = br#"{"schemaVersion":2,"manifests":[{"digest":"DIGEST","size":1,"platform":{"os":"linux","architecture":"s390x"}}]}"#;
    let index = String::from_utf8(index.to_vec()).unwrap();
    let index = index.replace("DIGEST", &Digest::sha256(&image.manifest).to_string());
    let mut files = good();
    let root = listed(index.as_bytes(), &named("registry.test/app:1"));
    files[1].1 =
        format!(r#"{{"manifests":[{root}]}}"#).replace("manifest.v1", "index.v1").into_bytes();
    files.push(blob(index.as_bytes()));
    let platforms = write(at.join("p.tar"), &pack(&files));
    refused(
        &satellite,
        &platforms,
        &other,
        "no manifest for linux/arm/v5; the index offers linux/s390x",
    );
    satellite.start_again();
    for path in ["manifests/1".to_owned(), format!("blobs/{layer}")] {
        assert_eq!(satellite.get(&format!("/v2/registry.test/app/{path}")).0, 404, "{path}");
    }
    satellite.kill();
    import(&satellite, &write(at.join("g.tar"), &whole), &[]);
    let out = import(&satellite, &platforms, &["--platform", "all"]);
    assert!(out.contains(&Digest::sha256(index.as_bytes()).to_string()), "{out}");
}

#[test]
fn an_import_that_was_killed_goes_on_where_it_was() {
    let image = Image::new(1, 20 << 20);
    for seed in 0..2 {
        let mut satellite = alone(&format!("import-killed-{seed}"));
        let file = satellite.directory.join("x.tar");
        let mut file = write(file, &pack(&layout(&image, "registry.test/app:1")));
        if seed == 1 {
            file = gzip(&file);
        }
        let mut child = satellite.child(&["image", "import", file.to_str().unwrap()]);
        let io = format!("/proc/{}/io", child.id());
        // The store is read at first, and a compressed tar as a whole.
        let least = (8 << 20) + if seed == 1 { 20 << 20 } else { 0 };
        let has_read = || {
            let text = fs::read_to_string(&io).unwrap_or_default();
            let read = text.lines().find_map(|line| line.strip_prefix("rchar: "));
            read.is_some_and(|bytes| bytes.parse::<u64>().unwrap() > least)
        };
        wait_until(has_read, || "it reads nothing".to_owned());
        child.kill().unwrap();
        child.wait().unwrap();
        let (_, out, _) = satellite.run(&["store", "stat", "--json"]);
        assert!(out.contains("\"partial_blobs\": 1"), "{out}");
        let words = ["image", "import", file.to_str().unwrap()];
        let (code, _, err) = satellite.run(&words);
        assert_eq!(code, 0, "{err}");
        let line = err.lines().find(|line| line.contains("are there already")).unwrap();
        assert!(!line.contains(" 0 B are there already"), "{line}");
        satellite.start_again();
        serves(&satellite, "1", &image);
    }
}

#[test]
fn what_is_exported_is_imported_elsewhere_as_it_was() {
    let (image, other) = (Image::new(1, 900_000), Image::new(2, 900_000));
    let first = alone("export");
    // A signature that is only listed, and refers to the image.
    let (digest, size) = (Digest::sha256(&image.manifest), image.manifest.len());
    let subject = format!(r#""subject":{{"digest":"{digest}","size":{size}}},"config""#);
    let signature = String::from_utf8(Image::new(3, 10).manifest).unwrap();
    let signature = signature.replacen("\"config\"", &subject, 1).into_bytes();
    let mut files = layout(&image, "registry.test/app:1");
    let index = format!(
        r#"{{"manifests":[{},{}]}}"#,
        listed(&image.manifest, &named("registry.test/app:1")),
        listed(&signature, "")
    );
    files[1].1 = index.into_bytes();
    files.push(blob(&signature));
    files.extend(layout(&Image::new(3, 10), "").into_iter().skip(3));
    import(&first, &write(first.directory.join("x.tar"), &pack(&files)), &[]);
    let files = layout(&other, "registry.test/app:2");
    import(&first, &write(first.directory.join("y.tar"), &pack(&files)), &[]);
    let (tar, directory) = (first.directory.join("all.tar"), first.directory.join("one"));
    let export = |words: &[&str], file: &Path| {
        let words = [&["image", "export"], words, &[file.to_str().unwrap()]].concat();
        first.run(&words)
    };
    let (code, out, err) = export(&["--all"], &tar);
    assert!(code == 0 && out.contains("all.tar: 2 images"), "{out}{err}");
    assert_eq!(export(&["registry.test/app:1"], &directory).0, 0);
    let (code, _, err) = export(&["registry.test/app:1"], &directory);
    assert!(code == 2 && err.contains("is there already, expected a new name"), "{err}");
    let (code, _, err) = export(&["registry.test/app:9"], &first.directory.join("none"));
    assert!(code == 2 && err.contains("registry.test/app:9 is not held"), "{err}");
    assert!(!first.directory.join("none").exists());
    for (file, count) in [(&tar, 2), (&directory, 1)] {
        let mut second = alone(&format!("export-{count}"));
        assert_eq!(import(&second, file, &[]).matches(": sha256:").count(), count);
        second.start_again();
        serves(&second, "1", &image);
        let (_, list) = second.get(&format!("/v2/registry.test/app/referrers/{digest}"));
        let list = String::from_utf8(list).unwrap();
        assert!(list.contains(&Digest::sha256(&signature).to_string()), "{list}");
        let found = second.get("/v2/registry.test/app/manifests/2").0;
        assert_eq!(found, if count == 2 { 200 } else { 404 });
    }
}

#[test]
fn a_docker_archive_gets_manifests() {
    let mut satellite = alone("import-docker");
    let at = satellite.directory.clone();
    let (plain, packed) = (vec![7_u8; 300_000], vec![8_u8; 400_000]);
    let compressed = fs::read(gzip(&write(at.join("layer"), &packed))).unwrap();
    let config = |diff_ids: &[Digest]| {
        let ids: Vec<String> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
        let ids = ids.join(",");
        format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#
        )
    };
    let archive = |config: &str, layers: &str| {
        let hex = Digest::sha256(config.as_bytes()).to_string().replace("sha256:", "");
        let manifest = format!(
            r#"[{{"Config":"{hex}.json","RepoTags":["registry.test/app:1"],"Layers":[{layers}]}}]"#
        );
        vec![
            ("a/layer.tar".to_owned(), plain.clone()),
            ("b.tar.gz".to_owned(), compressed.clone()),
            (format!("{hex}.json"), config.as_bytes().to_vec()),
            ("manifest.json".to_owned(), manifest.into_bytes()),
        ]
    };
    let ids = [Digest::sha256(&plain), Digest::sha256(&packed)];
    let both = r#""a/layer.tar","b.tar.gz""#;
    let file = |files: &Files| write(at.join("d.tar"), &pack(files));
    let wrong = config(&[ids[0], ids[0]]);
    refused(&satellite, &file(&archive(&wrong, both)), &[], "inflates to the digest");
    let wrong = config(&[ids[1], ids[1]]);
    refused(&satellite, &file(&archive(&wrong, both)), &[], "the bytes that arrived have digest");
    refused(&satellite, &file(&archive(&config(&ids), r#""a/layer.tar""#)), &[], "names 2 layers");
    refused(&satellite, &file(&archive(&config(&ids[..1]), r#""c""#)), &[], "no c, expected one");
    let mut other = archive(&config(&ids), both);
    other[2].1.push(b' ');
    refused(&satellite, &file(&other), &[], "the file is corrupt");
    let linked = pack(&archive(&config(&[ids[0], ids[0]]), r#""a/layer.tar","c/layer.tar""#));
    let linked = [link("c/layer.tar", "../a/layer.tar"), linked].concat();
    let out = import(&satellite, &write(at.join("linked.tar"), &linked), &[]);
    assert!(out.contains("registry.test/app:1: sha256:"), "{out}");
    let config = config(&ids);
    let out = import(&satellite, &gzip(&file(&archive(&config, both))), &[]);
    assert!(out.contains("made of a docker-archive"), "{out}");
    satellite.start_again();
    let (code, manifest) = satellite.get("/v2/registry.test/app/manifests/1");
    let manifest = String::from_utf8(manifest).unwrap();
    assert!(code == 200 && manifest.contains(&Digest::sha256(config.as_bytes()).to_string()));
    for layer in [&plain, &compressed] {
        let digest = Digest::sha256(layer);
        assert!(manifest.contains(&digest.to_string()), "{manifest}");
        let path = format!("/v2/registry.test/app/blobs/{digest}");
        assert_eq!(satellite.get(&path), (200, layer.clone()));
    }
}

#[test]
fn only_good_and_later_bundles_are_let_in() {
    let maker = alone("bundle-maker");
    let at = maker.directory.clone();
    let image = Image::new(1, 50_000);
    let plain = write(at.join("x.tar"), &pack(&layout(&image, "registry.test/app:1")));
    import(&maker, &plain, &[]);
    let kinds = [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256];
    let keys = kinds.map(|kind| rcgen::KeyPair::generate_for(kind).unwrap());
    let public: String = keys.iter().map(rcgen::KeyPair::public_key_pem).collect();
    let public = write(at.join("keys.pem"), public.as_bytes());
    let stranger = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let bundle = |key: &rcgen::KeyPair, sequence: &str, more: &[&str]| {
        let key = write(at.join("key.pem"), key.serialize_pem().as_bytes());
        let file = at.join(format!("bundle-{sequence}-{}.tar", more.len()));
        let _ = fs::remove_file(&file);
        let name = ["image", "export", "registry.test/app:1", file.to_str().unwrap()];
        let sign = ["--sign", key.to_str().unwrap(), "--sequence", sequence];
        let (code, _, err) = maker.run(&[&name, &sign, more].concat());
        assert_eq!(code, 0, "{err}");
        file
    };
    let guarded = prepare("bundle", |directory| {
        format!("{}[import]\nkey_file = {public:?}\n", text(directory, "1s", &[], &[]))
    });
    refused(&guarded, &plain, &[], "not a signed bundle");
    refused(&guarded, &bundle(&stranger, "9", &[]), &[], "by none of the keys");
    let five = bundle(&keys[0], "5", &[]);
    refused(&guarded, &five, &["--name", "registry.test/b:1"], "keeps its names");
    let mut changed = fs::read(&five).unwrap();
    let at_sequence = changed.windows(13).position(|part| part == b"\"sequence\": 5").unwrap();
    changed[at_sequence + 12] = b'6';
    refused(&guarded, &write(at.join("changed.tar"), &changed), &[], "by none of the keys");
    let mine = bundle(&keys[1], "7", &["--for", "edge-9"]);
    let theirs = bundle(&keys[1], "8", &["--for", "other", "--log-level", "error"]);
    refused(&guarded, &theirs, &[], "a bundle for \"other\", this is \"edge-9\"");
    import(&guarded, &five, &[]);
    import(&guarded, &five, &[]);
    import(&guarded, &mine, &[]);
    refused(&guarded, &five, &[], "a bundle of sequence 5, the last was 7: expected more");
    refused(&guarded, &bundle(&keys[0], "7", &[]), &[], "a bundle of sequence 7, the last was 7");
    // What the satellite has by its own report is left out, and what it has not is missed.
    let (_, report, _) = guarded.run(&["image", "ls", "--json"]);
    let report = write(at.join("report.json"), report.as_bytes());
    let less = bundle(&keys[0], "10", &["--lacking", report.to_str().unwrap()]);
    assert!(fs::metadata(&less).unwrap().len() < 10_000, "it has the layer");
    import(&guarded, &less, &[]);
    let empty = prepare("bundle-empty", |directory| {
        format!("{}[import]\nkey_file = {public:?}\n", text(directory, "1s", &[], &[]))
    });
    refused(&empty, &less, &[], "and it is not held");
    // Where no key is asked for it is a layout like others.
    let open = alone("bundle-open");
    import(&open, &theirs, &[]);
}
