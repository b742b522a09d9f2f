//! Images that do not fit cost the link nothing, and downloads that no image waits for are dropped.

use std::sync::{Arc, Condvar, Mutex};

use moonlet::oci::Digest;

use crate::many_images::{Answer, ManyImages};
use crate::registry::Image;
use crate::satellite::start_with;

#[test]
fn the_first_image_is_held_and_what_does_not_fit_beside_it_is_not_fetched() {
    let registry = ManyImages::start();
    let (first, second) = (Image::new(1, 12_000_000), Image::new(2, 24_000_000));
    registry.push("1", &first);
    registry.push("2", &second);
    // The second one's manifest is known first.
    let known = Arc::new((Mutex::new(false), Condvar::new()));
    let second_manifest = format!("manifests/{}", Digest::sha256(&second.manifest));
    let (first_manifest, path) =
        (Digest::sha256(&first.manifest).to_string(), second_manifest.clone());
    registry.fault(move |request, _| {
        let (is_known, changed) = &*known;
        if request.is("GET", &path) {
            *is_known.lock().unwrap() = true;
            changed.notify_all();
        }
        if request.is("GET", &first_manifest) {
            let is_known = is_known.lock().unwrap();
            drop(changed.wait_while(is_known, |is_known| !*is_known).unwrap());
        }
        None
    });
    let satellite = start_with("fits", "1s", &[(NAME, &url(&registry))], &REFERENCES);
    let refused = satellite.await_error("registry.test/app:2: no room: needs 22.8 MiB, ");
    assert!(refused.contains("raise size_max or remove images"), "{refused}");
    satellite.await_line("sync: 1 images held, 1 not");
    let heads = registry.count("HEAD", "manifests/2");
    registry.await_count("HEAD", "manifests/2", heads + 3);
    let layer = Digest::sha256(&second.layer).to_string();
    assert_eq!((registry.count("GET", &second_manifest), registry.count("GET", &layer)), (1, 0));
    assert_eq!(
        satellite.log().matches("ERROR registry.test/app:2: no room").count(),
        1,
        "{}",
        satellite.log()
    );
    // The image changed.
    registry.push("2", &Image::new(3, 9_000_000));
    satellite.await_line("registry.test/app:2: held at");
    satellite.await_line("sync: 2 images held, 0 not");
}

#[test]
fn a_download_that_nobody_waits_for_gives_way() {
    let registry = ManyImages::start();
    let (old, new) = (Image::new(1, 24_000_000), Image::new(2, 18_000_000));
    registry.push("1", &old);
    let layer = Digest::sha256(&old.layer).to_string();
    registry.fault(move |request, _| {
        let is_far = request.range.as_ref().is_some_and(|range| range.start > 16_000_000);
        (is_far && request.is("GET", &layer)).then(|| Answer::status(404))
    });
    let satellite = start_with("way", "1s", &[(NAME, &url(&registry))], &REFERENCES[..1]);
    satellite.await_error("status 404");
    registry.push("1", &new);
    satellite.await_line("1 downloads that were begun are dropped for registry.test/app:1");
    satellite.await_line("held at");
}

fn url(registry: &ManyImages) -> String {
    format!("url = \"{}\"", registry.url())
}

const NAME: &str = "registry.test";
const REFERENCES: [&str; 2] = ["registry.test/app:1", "registry.test/app:2"];
