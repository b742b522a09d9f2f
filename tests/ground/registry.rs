//! A docker-registry that images are put into as a client does, and artifacts by Ground Control.

use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moonlet::oci::Digest;
use serde_json::json;

use crate::common::registry::DockerRegistry;
use crate::harness::{Answer, Client, Database};

/// A registry that runs until it is dropped.
pub struct Registry {
    docker: DockerRegistry,
    pub address: SocketAddr,
}

impl Registry {
    pub fn start(database: &Database) -> Self {
        Self::named(database, "open")
    }

    /// The same where only `publisher`, with the password `push`, may do anything.
    pub fn start_guarded(database: &Database) -> Self {
        let mut registry = Self::named(database, "guarded");
        let file = registry.docker.file("htpasswd");
        std::fs::write(&file, HTPASSWD).unwrap();
        registry
            .docker
            .configure(&format!("auth: {{htpasswd: {{realm: test, path: {file:?}}}}}\n"));
        registry
    }

    /// From now on only tokens of a server, signed by the key of this certificate, open it.
    pub fn take_tokens(&mut self, realm: &str, certificate: &Path) {
        self.docker.configure(&format!(
            "auth: {{token: {{realm: {realm:?}, service: ground-control-registry, \
             issuer: ground-control, rootcertbundle: {certificate:?}}}}}\n"
        ));
    }

    /// One of several that are of a database.
    pub fn named(database: &Database, name: &str) -> Self {
        let of = database.directory().file_name().unwrap().to_str().unwrap();
        let docker = DockerRegistry::start(&format!("{of}-{name}"));
        Self { address: docker.address, docker }
    }

    /// Ends it; its files stay.
    pub fn stop(&mut self) {
        self.docker.stop();
    }

    pub fn start_again(&mut self) {
        self.docker.start_again();
    }

    pub fn url(&self) -> String {
        self.docker.url()
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

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// By `htpasswd -nbB publisher push`.
const HTPASSWD: &str = "publisher:$2y$05$QIt0f9L3FLbF0qnPCJ4Rje99cWfxcBgBdzX7gBn2d2QG/J2B8HMDe\n";
