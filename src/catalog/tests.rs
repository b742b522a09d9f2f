use std::sync::Arc;

use super::*;
use crate::flash::{Geometry, sim};
use crate::metrics::Metrics;
use crate::oci::media_type;

/// A store that is filled by hand.
struct Fixture {
    store: Store,
    catalog: Catalog,
}

impl Fixture {
    fn new() -> Self {
        let geometry = Geometry {
            segment_count: 32,
            segment_bytes: 65536,
            program_bytes: 64,
            reprogram: true,
        };
        let device = Arc::new(sim::Device::new(geometry));
        let (store, _) = Store::open(device, Rc::new(Metrics::default())).unwrap();
        let catalog = Catalog::new(store.clone());
        Self { store, catalog }
    }

    fn put(&self, text: &str, media_type: Option<&str>) -> Digest {
        let digest = Digest::sha256(text.as_bytes());
        smol::block_on(self.store.put(&digest, text.as_bytes(), media_type)).unwrap();
        digest
    }

    fn delete(&self, digest: &Digest) {
        smol::block_on(self.store.delete(&[*digest])).unwrap();
    }

    fn blob(&self, text: &str) -> Digest {
        self.put(text, None)
    }

    /// An image of a configuration and one layer; what is held of it is up to the caller.
    fn image(&self, name: &str, rest: &str) -> [Digest; 3] {
        let [config, layer] = ["config", "layer"].map(|kind| format!("{kind} of {name}"));
        let [config, layer] = [config, layer].map(|text| Digest::sha256(text.as_bytes()));
        let text = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]{rest}}}"#,
            descriptor(&config, ""),
            descriptor(&layer, "")
        );
        [self.put(&text, Some(media_type::OCI_MANIFEST)), config, layer]
    }

    fn index(&self, children: &[String]) -> Digest {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(","));
        self.put(&text, Some(media_type::OCI_INDEX))
    }

    fn complete(&self, root: &Digest, platform: &str) -> bool {
        self.catalog.complete(root, &[platform.parse().unwrap()]).unwrap()
    }
}

fn descriptor(digest: &Digest, rest: &str) -> String {
    format!(r#"{{"mediaType":"m","digest":"{digest}","size":9{rest}}}"#)
}

fn child(digest: &Digest, os: &str, architecture: &str) -> String {
    let platform = format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#);
    descriptor(digest, &platform)
}

#[test]
fn what_accompanies_an_image_is_not_asked_to_be_held() {
    let held = Fixture::new();
    let [image, config, layer] = held.image("amd64", "");
    let [other, ..] = held.image("arm64", "");
    let gone = Digest::sha256(b"an attestation");
    let attests = format!(r#","annotations":{{"vnd.docker.reference.digest":"{image}"}}"#);
    let index = held.index(&[
        child(&image, "linux", "amd64"),
        child(&other, "linux", "arm64"),
        descriptor(&gone, &attests),
    ]);
    assert!(!held.complete(&index, "linux/amd64"), "no blob is held");
    held.blob("config of amd64");
    assert!(!held.complete(&index, "linux/amd64"), "the layer is missing");
    held.blob("layer of amd64");
    assert!(held.complete(&index, "linux/amd64"));
    assert!(!held.complete(&index, "linux/arm64"), "of that only the manifest is held");
    assert!(!held.complete(&index, "linux/s390x"));
    held.delete(&other);
    assert!(held.complete(&index, "linux/amd64"));
    for required in [config, layer, image] {
        held.delete(&required);
        assert!(!held.complete(&index, "linux/amd64"), "{required}");
    }
}

#[test]
fn a_foreign_layer_may_be_missing() {
    let held = Fixture::new();
    let [config, layer] = ["config", "layer"].map(|text| held.blob(text));
    let foreign = Digest::sha256(b"foreign");
    let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let text = format!(
        r#"{{"config":{},"layers":[{{"mediaType":"{nondistributable}","digest":"{foreign}",
            "size":7}},{}]}}"#,
        descriptor(&config, ""),
        descriptor(&layer, "")
    );
    let image = held.put(&text, Some(media_type::OCI_MANIFEST));
    assert!(held.complete(&image, "linux/amd64"));
    assert!(
        held.catalog.reachable(&[Root::whole(image)]).unwrap().contains(&foreign),
        "kept if it is held"
    );
    held.delete(&layer);
    assert!(!held.complete(&image, "linux/amd64"));
}

#[test]
fn a_manifest_that_was_written_ahead_is_not_believed() {
    let held = Fixture::new();
    let [image, ..] = held.image("amd64", "");
    let index = held.index(&[child(&image, "linux", "amd64")]);
    held.blob("config of amd64");
    held.blob("layer of amd64");
    held.delete(&image);
    held.catalog.refresh().unwrap();
    let text = {
        let other = Fixture::new();
        other.image("amd64", "");
        other.store.read_all(&image, 4096).unwrap()
    };
    held.blob(std::str::from_utf8(&text).unwrap());
    assert!(!held.complete(&index, "linux/amd64"));
    smol::block_on(held.store.set_media_type(&image, media_type::OCI_MANIFEST)).unwrap();
    assert!(held.complete(&index, "linux/amd64"));
}

#[test]
fn layers_of_other_platforms_are_not_reached() {
    let held = Fixture::new();
    let [image, config, layer] = held.image("amd64", "");
    let [other, other_config, other_layer] = held.image("arm64", "");
    let index = held.index(&[child(&image, "linux", "amd64"), child(&other, "linux", "arm64")]);
    let subject = format!(r#","subject":{}"#, descriptor(&image, ""));
    let [signature, signature_config, signature_layer] = held.image("signature", &subject);
    let subject = format!(r#","subject":{}"#, descriptor(&signature, ""));
    let [of_signature, ..] = held.image("signature of signature", &subject);
    let reach = |platforms: &[&str]| {
        let platforms: Vec<Platform> = platforms.iter().map(|text| text.parse().unwrap()).collect();
        held.catalog.reachable(&[Root { digest: index, platforms: &platforms }]).unwrap()
    };
    let amd64 = reach(&["linux/amd64"]);
    for digest in [index, image, config, layer, other, other_config] {
        assert!(amd64.contains(&digest));
    }
    for digest in [signature, signature_config, signature_layer, of_signature] {
        assert!(amd64.contains(&digest));
    }
    assert!(!amd64.contains(&other_layer));
    for platforms in [&["linux/amd64", "linux/arm64"][..], &["all"]] {
        assert!(reach(platforms).contains(&other_layer), "{platforms:?}");
    }
    assert!(reach(&[]).contains(&other_layer));
    let arm64 = reach(&["linux/arm64"]);
    assert!(arm64.contains(&other_layer) && !arm64.contains(&layer));
    assert!(!arm64.contains(&signature), "of what is not held here");
}

#[test]
fn a_manifest_is_read_once() {
    let held = Fixture::new();
    let [image, ..] = held.image("amd64", "");
    held.blob("config of amd64");
    held.blob("layer of amd64");
    let index = held.index(&[child(&image, "linux", "amd64")]);
    let platforms = ["linux/amd64".parse().unwrap()];
    smol::block_on(held.catalog.learn(&platforms)).unwrap();
    assert_eq!(held.catalog.selections.borrow().len(), 1);
    assert!(held.complete(&index, "linux/amd64"));
    let known = Rc::clone(&held.catalog.known.borrow()[&index]);
    let selections = held.catalog.selections.borrow().len();
    for _ in 0..3 {
        assert!(held.complete(&index, "linux/amd64"));
        held.catalog.refresh().unwrap();
    }
    assert!(Rc::ptr_eq(&known, &held.catalog.known.borrow()[&index]));
    assert_eq!((selections, held.catalog.selections.borrow().len()), (1, 1));
    held.delete(&index);
    held.catalog.refresh().unwrap();
    assert!(held.catalog.selections.borrow().is_empty());
    assert!(!held.catalog.known.borrow().contains_key(&index));
}

#[test]
fn annotations_of_referrers_are_read_when_they_are_asked_for() {
    let held = Fixture::new();
    let [image, ..] = held.image("amd64", r#","annotations":{"not":"listed"}"#);
    let subject = descriptor(&image, "");
    let rest = format!(r#","artifactType":"sig","annotations":{{"a":"b"}},"subject":{subject}"#);
    let [signature, ..] = held.image("signature", &rest);
    held.catalog.refresh().unwrap();
    let size = held.store.entry(&signature).unwrap().size;
    let after = |kind, after| held.catalog.referrer_after(&image, kind, after);
    assert_eq!(after(None, None), Some((signature, size)));
    assert_eq!(after(Some("sig"), None), Some((signature, size)));
    assert_eq!(after(Some("sbom"), None), None);
    assert_eq!(after(None, Some(&signature)), None);
    let text = serde_json::to_string(&held.catalog.referrer(&signature)).unwrap();
    let expected = format!(
        r#"{{"mediaType":"{}","digest":"{signature}","size":{size},"artifactType":"sig","annotations":{{"a":"b"}}}}"#,
        media_type::OCI_MANIFEST
    );
    assert_eq!(text, expected);
    assert_eq!(held.catalog.referrer_after(&signature, None, None), None);
}
