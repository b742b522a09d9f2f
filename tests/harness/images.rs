//! Images that other people's programs take: an OCI layout in files, pushed by skopeo.

use std::path::{Path, PathBuf};
use std::process::Command;

use moonlet::oci::Digest;
use serde_json::{Value, json};

use super::{Directory, run};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub struct Layout {
    directory: Directory,
    manifests: Vec<Value>,
}

impl Layout {
    pub fn new(name: &str) -> Self {
        let directory = Directory::new(&format!("layout-{name}"));
        std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { directory, manifests: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a blob there; returns its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes).to_string();
        std::fs::write(self.blob_file(&digest), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    pub fn blob_file(&self, digest: &str) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// Makes an image for an architecture, with a file of so many bytes that no compression makes
    /// smaller in each layer; returns the descriptor of its manifest.
    pub fn image(&mut self, tag: &str, architecture: &str, files: &[usize]) -> Image {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for (number, bytes) in files.iter().enumerate() {
            let root = self.directory.join("root");
            std::fs::create_dir_all(root.join("srv")).unwrap();
            let name = format!("srv/{tag}-{number}");
            std::fs::write(root.join(&name), noise(&format!("{tag}-{number}"), *bytes)).unwrap();
            let tar = self.directory.join("layer.tar");
            run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(name));
            diff_ids.push(Digest::sha256(&std::fs::read(&tar).unwrap()).to_string());
            let layer = run(Command::new("gzip").args(["-n", "-c"]).arg(&tar));
            layers.push(self.blob("application/vnd.oci.image.layer.v1.tar+gzip", &layer));
            std::fs::remove_file(tar).unwrap();
            std::fs::remove_dir_all(root).unwrap();
        }
        let config = json!({ "architecture": architecture, "os": "linux",
            "config": { "Cmd": ["/bin/sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let config =
            self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
            "layers": layers })
        .to_string();
        let descriptor = self.blob(MANIFEST, manifest.as_bytes());
        let mut named = descriptor.clone();
        named["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        self.manifests.push(named);
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        std::fs::write(self.directory.join("index.json"), index.to_string()).unwrap();
        Image { manifest, descriptor, diff_ids, layers }
    }

    /// Copies an image into a registry on loopback: `host:port/name:tag`.
    pub fn push(&self, tag: &str, destination: &str) {
        let source = format!("oci:{}:{tag}", self.path().display());
        run(Command::new("skopeo")
            .args(["copy", "--quiet", "--dest-tls-verify=false", &source])
            .arg(format!("docker://{destination}")));
    }
}

pub struct Image {
    pub manifest: String,
    pub descriptor: Value,
    /// Of its layers, uncompressed.
    pub diff_ids: Vec<String>,
    pub layers: Vec<Value>,
}

impl Image {
    pub fn digest(&self) -> &str {
        self.descriptor["digest"].as_str().unwrap()
    }
}

fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// Every blob of a `skopeo copy ... dir:` has the digest of its name; returns the manifest's.
pub fn check_copied(directory: &Path) -> String {
    let mut blobs = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "manifest.json" || name == "version" || name.starts_with("signature-") {
            continue;
        }
        let digest = Digest::sha256(&std::fs::read(directory.join(&name)).unwrap()).to_string();
        assert_eq!(digest, format!("sha256:{name}"));
        blobs += 1;
    }
    assert!(blobs >= 2, "{blobs} blobs: a config and a layer are the least");
    Digest::sha256(&std::fs::read(directory.join("manifest.json")).unwrap()).to_string()
}
