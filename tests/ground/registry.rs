//! Debian's docker-registry on loopback, with files of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moonlet::oci::Digest;
use serde_json::json;

use crate::harness::{Answer, Client, Database};
use crate::satellite::wait_until;

/// A registry that runs until it is dropped.
pub struct Registry {
    child: Child,
    pub address: SocketAddr,
    directory: PathBuf,
}

impl Registry {
    pub fn start(database: &Database) -> Self {
        Self::start_at(&database.directory().with_extension("registry"), free_address(), "")
    }

    /// The same where only `publisher`, with the password `push`, may do anything.
    pub fn start_guarded(database: &Database) -> Self {
        let directory = database.directory().with_extension("guarded");
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("htpasswd");
        std::fs::write(&file, HTPASSWD).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {file:?}}}}}\n");
        Self::start_at(&directory, free_address(), &auth)
    }

    pub fn start_at(directory: &Path, address: SocketAddr, lines: &str) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let file = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {directory:?}}}, \
             delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\"}}\n{lines}"
        );
        std::fs::write(&file, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry: scripts/ground installs it");
        wait_until(|| TcpStream::connect(address).is_ok(), || "docker-registry".to_owned());
        Self { child, address, directory: directory.to_owned() }
    }

    /// Ends it; its files stay, and where they are is returned.
    pub fn stop(mut self) -> PathBuf {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::take(&mut self.directory)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn blob(&self, repository: &str, bytes: &str) -> serde_json::Value {
        let client = Client::at(self.address);
        let digest = Digest::sha256(bytes.as_bytes());
        let begun = client.expect(202, "POST", &format!("/v2/{repository}/blobs/uploads/"), "");
        let location = begun.header("location").unwrap().to_owned();
        let path = &location[location.find("/v2/").unwrap()..];
        client.expect(201, "PUT", &format!("{path}&digest={digest}"), bytes);
        json!({ "mediaType": "application/octet-stream", "digest": digest.to_string(),
            "size": bytes.len() })
    }

    /// Puts an image of one layer under a tag.
    pub fn push(&self, repository: &str, tag: &str, layer: &str) -> Digest {
        let layer = self.blob(repository, layer);
        let mut config = self.blob(repository, r#"{"os":"linux","architecture":"amd64"}"#);
        config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
            "layers": [layer] })
        .to_string();
        let path = format!("/v2/{repository}/manifests/{tag}");
        let body = format!("Content-Type: {MANIFEST}\r\n");
        let answer = Client::at(self.address).ask_with("PUT", &path, &body, &manifest);
        assert_eq!(answer.status, 201, "{}", answer.text());
        Digest::sha256(manifest.as_bytes())
    }

    /// What is under `latest` of a repository, asked by `publisher`.
    pub fn latest(&self, repository: &str, method: &str) -> Answer {
        let basic = STANDARD.encode("publisher:push");
        let lines = format!(
            "Authorization: Basic {basic}\r\n\
             Accept: application/vnd.docker.distribution.manifest.v2+json\r\n"
        );
        let path = format!("/v2/{repository}/manifests/latest");
        Client::at(self.address).ask_with(method, &path, &lines, "")
    }

    /// Its digest, if there is one.
    pub fn latest_digest(&self, repository: &str) -> Option<String> {
        let answer = self.latest(repository, "HEAD");
        let digest = answer.header("docker-content-digest").map(str::to_owned);
        digest.filter(|_| answer.status == 200)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.directory.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// An address that nothing listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// By `htpasswd -nbB publisher push`.
const HTPASSWD: &str = "publisher:$2y$05$QIt0f9L3FLbF0qnPCJ4Rje99cWfxcBgBdzX7gBn2d2QG/J2B8HMDe\n";
