//! Bits that flip in the log's file, while the satellite runs and while it does not: nothing wrong
//! is sent as a complete answer, and what is corrupt is fetched again.
//!
//! For a figure, `MOONLET_FLIPS` is the number of flips, and `MOONLET_TEST_PROGRAM` what is
//! measured; the outcome is printed.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use moonlet::oci::Digest;

use crate::registry::{Fault, Image, Registry, Show};
use crate::satellite::{Satellite, get, start};

const CHUNK_BYTES: usize = 256 << 10;

/// A satellite that holds an image, and whose registry is of no use any more.
struct Held {
    satellite: Satellite,
    registry: Registry,
    image: Image,
    /// Where the layer lies in the log's file.
    at: usize,
}

fn held(name: &str, layer_bytes: usize) -> Held {
    let image = Image::new(5, layer_bytes);
    let registry = Registry::start(Show { image: image.clone(), fault: Fault::None, tls: None });
    let satellite = start(name, &format!("http://{}", registry.address), "");
    satellite.await_line("held at");
    let log = std::fs::read(satellite.directory.join("store/log")).unwrap();
    let first = &image.layer[..64];
    let at = log.windows(64).rposition(|window| window == first).unwrap();
    assert!(log[at..at + layer_bytes] == image.layer, "expected the layer in one piece");
    let show = Show { image: image.clone(), fault: Fault::RedirectLoop, tls: None };
    registry.show(show);
    Held { satellite, registry, image, at }
}

impl Held {
    fn path(&self) -> String {
        format!("/v2/app/blobs/{}", Digest::sha256(&self.image.layer))
    }

    fn chunks(&self) -> usize {
        self.image.layer.len().div_ceil(CHUNK_BYTES)
    }

    /// Flips a bit of a chunk, one or another as `round` says.
    fn flip(&self, chunk: usize, round: usize) {
        let length = CHUNK_BYTES.min(self.image.layer.len() - chunk * CHUNK_BYTES);
        let offset = chunk * CHUNK_BYTES + (round * 7919 + chunk * 104_729) % length;
        flip(&self.satellite.directory, self.at + offset, (round + chunk) % 8);
    }

    /// Asks for one chunk.
    fn ask(&self, chunk: usize) -> Answer {
        let (from, layer) = (chunk * CHUNK_BYTES, &self.image.layer);
        let to = (from + CHUNK_BYTES).min(layer.len());
        let range = format!("Range: bytes={from}-{}\r\n", to - 1);
        let (status, body) = get(&self.satellite.served, &self.path(), &range);
        match status {
            206 if body == layer[from..to] => Answer::Right,
            206 if body.len() == to - from => Answer::Wrong,
            206 => Answer::Short,
            other => Answer::Status(other),
        }
    }
}

/// What comes of a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    /// All of it.
    Right,
    /// As many bytes, and others.
    Wrong,
    /// Fewer bytes than were promised.
    Short,
    /// Another status than that of a part.
    Status(u16),
}

fn flip(directory: &Path, at: usize, bit: usize) {
    let log = std::fs::File::options().read(true).write(true).open(directory.join("store/log"));
    let (log, at) = (log.unwrap(), at as u64);
    let mut byte = [0];
    log.read_exact_at(&mut byte, at).unwrap();
    log.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

#[test]
fn no_flip_is_sent_as_right() {
    let count = std::env::var("MOONLET_FLIPS").ok().and_then(|count| count.parse().ok());
    let count: usize = count.unwrap_or(60);
    let mut held = held("flips", 7_900_000);
    held.satellite.kill();
    let store = held.satellite.directory.join("store/log");
    let gold = std::fs::read(&store).unwrap();
    let (mut live, mut at_rest) = (0, 0);
    let (mut wrong, mut refused) = (0, 0);
    for round in 0.. {
        if live + at_rest >= count {
            break;
        }
        std::fs::write(&store, &gold).unwrap();
        let is_live = round % 2 == 0;
        // Chunk 0 is asked for first and stays as it is.
        let chunks = 1..held.chunks().min(1 + count - live - at_rest);
        if is_live {
            held.satellite.start_again();
            assert_eq!(held.ask(0), Answer::Right);
        }
        chunks.clone().for_each(|chunk| held.flip(chunk, round));
        if !is_live {
            held.satellite.start_again();
            assert_eq!(held.ask(0), Answer::Right);
        }
        for chunk in chunks {
            match held.ask(chunk) {
                Answer::Right => panic!("chunk {chunk} was not flipped"),
                Answer::Wrong => wrong += 1,
                Answer::Short => {}
                Answer::Status(status) => refused += usize::from(status == 503),
            }
            *if is_live { &mut live } else { &mut at_rest } += 1;
        }
        held.satellite.kill();
    }
    println!("flips {} wrong {wrong} refused {refused}", live + at_rest);
    assert_eq!((wrong, refused), (0, live + at_rest), "{live} live, {at_rest} at rest");
}

#[test]
fn a_body_ends_before_what_is_corrupt_and_that_is_fetched_again() {
    let held = held("midway", 2_500_000);
    held.flip(4, 1);
    let (status, body) = held.satellite.get(&held.path());
    assert_eq!(status, 200);
    assert!(body == held.image.layer[..4 * CHUNK_BYTES], "{} bytes", body.len());
    assert_eq!(held.ask(4), Answer::Status(503));
    assert_eq!(held.satellite.get(&held.path()).0, 503);
    assert_eq!(held.ask(5), Answer::Right);
    held.registry.show(Show { image: held.image.clone(), fault: Fault::None, tls: None });
    let deadline = Instant::now() + Duration::from_secs(120);
    while held.satellite.get(&held.path()) != (200, held.image.layer.clone()) {
        assert!(Instant::now() < deadline, "not fetched again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn many_clients_of_a_corrupt_trailer_are_served() {
    let held = held("trailer", 5_000_000);
    flip(&held.satellite.directory, held.at + held.image.layer.len() + 40, 3);
    let (served, path, layer) = (&held.satellite.served, held.path(), &held.image.layer);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let (status, body) = get(served, &path, "");
                assert!(status == 200 && body == *layer, "{status}, {} bytes", body.len());
            });
        }
    });
}

#[test]
fn each_of_several_parts_is_checked() {
    let held = held("flips-parts", 3_000_000);
    held.flip(5, 1);
    let from = 5 * CHUNK_BYTES;
    let range = format!("Range: bytes=0-99,{from}-{},-10\r\n", from + CHUNK_BYTES - 1);
    let (status, body) = get(&held.satellite.served, &held.path(), &range);
    assert_eq!(status, 206);
    let head = body.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    assert!(body[head..].starts_with(&held.image.layer[..100]), "the first part is right");
    assert!(body.len() < head + 500, "{} bytes of a chunk that is wrong", body.len());
    assert!(body.ends_with(b"\r\n\r\n"), "nothing of the part, and of the next one");
    let (status, _) = get(&held.satellite.served, &held.path(), &range);
    assert_eq!(status, 503, "now it is known before");
}
