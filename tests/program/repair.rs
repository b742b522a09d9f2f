//! What is corrupt on flash is fetched again at once, each chunk by itself.

use moonlet::oci::Digest;

use crate::many_images::{Answer, ManyImages};
use crate::registry::Image;
use crate::satellite::{Satellite, start_with};

/// Flips a bit of a layer where it lies on flash.
fn damage(satellite: &Satellite, image: &Image) {
    let path = satellite.directory.join("store/log");
    let mut log = std::fs::read(&path).unwrap();
    let bytes = &image.layer[DAMAGED_AT..DAMAGED_AT + 64];
    let at = log.windows(64).position(|window| window == bytes).unwrap();
    log[at] ^= 1;
    std::fs::write(&path, log).unwrap();
}

#[test]
fn one_chunk_that_cannot_be_had_leaves_the_others_to_be_repaired() {
    let registry = ManyImages::start();
    let images: Vec<Image> = (1..=2).map(|seed| Image::new(seed, LAYER_BYTES)).collect();
    registry.push("1", &images[0]);
    registry.push("2", &images[1]);
    let url = format!("url = \"{}\"", registry.url());
    let references = ["registry.test/app:1", "registry.test/app:2"];
    // No poll comes that could do it.
    let mut satellite = start_with("repair", "12h", &[("registry.test", &url)], &references);
    satellite.await_line("sync: 2 images held");
    // What was written shortly before is checked after the start.
    satellite.kill();
    images.iter().for_each(|image| damage(&satellite, image));
    let gone = Digest::sha256(&images[0].layer).to_string();
    registry.forget();
    registry.fault(move |request, _| request.is("GET", &gone).then(|| Answer::status(404)));
    satellite.start_again();
    let repaired = Digest::sha256(&images[1].layer).to_string();
    satellite.await_line(&format!("{repaired}: chunk 2 was corrupt on flash and is repaired"));
    let asked = registry.asked();
    let again = asked.iter().filter(|request| request.path.contains(&repaired));
    let again: Vec<_> = again.filter_map(|request| request.range.clone()).collect();
    let chunk = (again.first().cloned(), again.len());
    assert_eq!(chunk, (Some(2 * CHUNK_BYTES..3 * CHUNK_BYTES), 1));
    let path = format!("/v2/app/blobs/{repaired}");
    assert_eq!(satellite.get(&path), (200, images[1].layer.clone()));
}

const LAYER_BYTES: usize = 1_000_000;
const CHUNK_BYTES: usize = 256 << 10;
/// In the third chunk.
const DAMAGED_AT: usize = 600_000;
