//! A registry with images, and a satellite that holds them.

use std::path::Path;

use moonlet::oci::Digest;
use serde_json::{Value, json};

use crate::harness::free_port;
use crate::harness::http::{Answer, Client};
use crate::harness::images::{INDEX, Image, Layout, MANIFEST};
use crate::harness::registry::DockerRegistry;
use crate::harness::satellite::{Satellite, prepare};

/// The registry has `demo/app:1` of three layers, and `demo/multi:1`, an index for two platforms.
pub struct Scene {
    pub registry: DockerRegistry,
    pub layout: Layout,
    pub app: Image,
    /// What `demo/app:1` may be moved to.
    pub next: Image,
    /// Of `demo/multi:1`, for ARM.
    pub arm: Image,
    pub multi: String,
}

impl Scene {
    pub fn new(name: &str) -> Self {
        let registry = DockerRegistry::start(name);
        let mut layout = Layout::new(name);
        let app = layout.image("app", "amd64", &[1000, 3 << 20, 4 << 20]);
        let next = layout.image("next", "amd64", &[1 << 20]);
        let arm = layout.image("arm", "arm", &[1 << 20]);
        let amd64 = layout.image("amd64", "amd64", &[1 << 20]);
        let address = registry.address;
        layout.push("app", &format!("{address}/demo/app:1"));
        layout.push("arm", &format!("{address}/demo/multi:arm"));
        layout.push("amd64", &format!("{address}/demo/multi:amd64"));
        let child = |image: &Image, platform: Value| {
            let mut descriptor = image.descriptor.clone();
            descriptor["platform"] = platform;
            descriptor
        };
        let children = [
            child(&arm, json!({ "architecture": "arm", "variant": "v7", "os": "linux" })),
            child(&amd64, json!({ "architecture": "amd64", "os": "linux" })),
        ];
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
        let index = index.to_string();
        let multi = put_manifest(&registry, INDEX, "demo/multi/manifests/1", &index);
        Self { registry, layout, app, next, arm, multi }
    }

    /// Moves `demo/app:1`.
    pub fn push_app(&self, tag: &str) {
        self.layout.push(tag, &format!("{}/demo/app:1", self.registry.address));
    }

    /// A configuration that desires both images.
    pub fn config(&self, directory: &Path) -> String {
        text(directory, &self.registry.url(), "", &["demo/app:1", "demo/multi:1"])
    }

    /// A satellite that holds them.
    pub fn held(&self, name: &str) -> Satellite {
        let mut satellite = prepare(name, |directory| self.config(directory));
        satellite.start_again();
        satellite.await_held();
        satellite
    }
}

/// A configuration that desires `images` for ARM of `registry.test`, which is at `url`; `lines` are
/// more of its section.
pub fn text(directory: &Path, url: &str, lines: &str, images: &[&str]) -> String {
    let store = directory.join("store");
    // Commands ask a satellite that runs at the address in its configuration.
    let admin = free_port();
    let mut text = format!(
        "name = \"peers\"\n[serve]\nlisten = [\"127.0.0.1:0\"]\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         [store]\npath = {store:?}\nsize_max = \"48MiB\"\n[sync]\npoll_interval = \"1s\"\n\
         [[upstream]]\nregistry = \"registry.test\"\nurl = \"{url}\"\n{lines}\n"
    );
    for image in images {
        let reference = format!("reference = \"registry.test/{image}\"");
        text += &format!("[[image]]\n{reference}\nplatforms = [\"linux/arm/v7\"]\n");
    }
    text
}

/// Puts a manifest into the registry; returns its digest.
pub fn put_manifest(registry: &DockerRegistry, kind: &str, path: &str, body: &str) -> String {
    let line = format!("Content-Type: {kind}\r\n");
    let answer = Client::at(registry.address).ask_with("PUT", &format!("/v2/{path}"), &line, body);
    assert_eq!(answer.status, 201, "{path}: {}", answer.text());
    Digest::sha256(body.as_bytes()).to_string()
}

/// Asks for a manifest as a client does that takes an index as well.
pub fn manifest(client: &Client, path: &str) -> Answer {
    let accept = format!("Accept: {INDEX}\r\nAccept: {MANIFEST}\r\n");
    client.ask_with("GET", &format!("/v2/{path}"), &accept, "")
}

/// The digest of a manifest that is there, or the status that says that it is not.
pub fn digest(client: &Client, path: &str) -> Result<String, u16> {
    let answer = manifest(client, path);
    match answer.status {
        200 => Ok(Digest::sha256(&answer.body).to_string()),
        status => Err(status),
    }
}

/// What the registry itself has under a name: its digest.
pub fn remote(registry: &DockerRegistry, path: &str) -> String {
    digest(&Client::at(registry.address), path).unwrap()
}
