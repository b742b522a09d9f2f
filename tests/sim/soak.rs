//! Lives drawn at random: work, power cuts with all that goes wrong around them, work again.
//!
//! A failure prints the command that replays it. `SEEDS` says how many lives (10,000;
//! `scripts/soak` runs a million), `SEED` the first of them.

use std::sync::Arc;

use moonlet::flash::Geometry;
use moonlet::flash::sim::{Aftermath, Device};

use crate::check::{check, check_served, finish_partials};
use crate::model::{self, Blobs, Model, Step, models};
use crate::run::{mount, run_noting};
use crate::{EMMC, NAND, NOR};

#[test]
fn random_lives_keep_every_promise() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seeds: u64 = number("SEEDS").unwrap_or(10_000);
    let first: u64 = number("SEED").unwrap_or(1);
    let blobs = Blobs::new();
    for seed in first..first + seeds {
        if let Err(why) = live(seed, &blobs) {
            panic!("{why}\nreplay: SEED={seed} SEEDS=1 cargo test --test sim random_lives");
        }
        if seed % 50_000 == 0 {
            eprintln!("{seed}: so far so good");
        }
    }
}

/// The harness must notice when a promise is broken: here by somebody who takes a blob away.
#[test]
fn a_life_in_which_something_vanishes_is_noticed() {
    let blobs = Blobs::new();
    let device = Arc::new(Device::new(shape(&mut Random(7))));
    let steps = [Step::Put(9), Step::Put(10)];
    run_noting(&device, &blobs, &steps, |_| {});
    let (store, _) = mount(&device).unwrap();
    let gone = store.digests()[0];
    smol::block_on(store.delete(&[gone])).unwrap();
    let end = models(&steps, steps.len()).0;
    assert!(check(&store, &blobs, &end, &end).is_err());
}

/// One device's life: a few power cuts, and work between them.
fn live(seed: u64, blobs: &Blobs) -> Result<(), String> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let geometry = shape(&mut random);
    let mut device = Arc::new(Device::new(geometry));
    let mut promised = Model::default();
    for cut in 0..1 + random.below(3) {
        let what = |why: String| format!("seed {seed}, {geometry:?}, cut {cut}: {why}");
        let steps = steps(&mut random);
        device.cut_after(random.below(60));
        let mut done = 0;
        run_noting(&device, blobs, &steps, |count| done = count);
        let aftermath = Aftermath {
            resurrection: random.below(2) == 0,
            // Then only what is served is promised: see the next life.
            decay: random.below(8) == 0,
        };
        let survivor = Arc::new(device.survivor_of(random.below(1 << 20), aftermath));
        let before = steps.iter().take(done).fold(promised.clone(), |m, step| m.after(*step));
        let after = steps.get(done).map_or_else(|| before.clone(), |step| before.after(*step));
        let (store, report) = mount(&survivor).map_err(|error| what(error.to_string()))?;
        if aftermath.decay {
            let served = check_served(&store, blobs).map_err(what)?;
            let missing = before.missing(&after, &served);
            return match missing {
                0 | 1 => Ok(()),
                more => Err(what(format!("{more} blobs are gone; {report}"))),
            };
        }
        check(&store, blobs, &before, &after).map_err(|why| what(format!("{why}; {report}")))?;
        promised = before.observed(&after, &store, blobs);
        if random.below(2) == 0 {
            finish_partials(&store, blobs).map_err(what)?;
            promised = promised.finished();
        }
        drop(store);
        device = survivor;
    }
    Ok(())
}

/// Small devices of all kinds.
fn shape(random: &mut Random) -> Geometry {
    let shape = [EMMC, NAND, NOR][random.below(3) as usize];
    let segment_bytes = [16 << 10, 64 << 10][random.below(2) as usize];
    let data = (560 << 10) / segment_bytes + random.below(6) as u32;
    let segment_count = data + if shape.reprogram { 4 } else { 8 };
    Geometry { segment_count, segment_bytes, ..shape }
}

/// Up to a dozen steps, the same blobs again and again.
fn steps(random: &mut Random) -> Vec<Step> {
    const TAGS: [&str; 3] = ["a", "b", "c"];
    let mut held = Vec::new();
    let mut steps = Vec::new();
    for _ in 0..random.below(12) {
        let blob = BLOBS[random.below(BLOBS.len() as u64) as usize];
        let tag = TAGS[random.below(3) as usize];
        let known = (!held.is_empty()).then(|| held[random.below(held.len() as u64) as usize]);
        match (random.below(14), known) {
            (0..4, _) => {
                steps.push(Step::Put(blob));
                held.push(blob);
            }
            (10, _) => {
                steps.push(Step::PutSmall);
                held.extend(model::SMALL);
            }
            (11, _) => {
                let pulled = PULLS[random.below(PULLS.len() as u64) as usize];
                steps.push(Step::Pull(pulled));
                held.extend(pulled);
            }
            (12, _) => steps.push(Step::Document(tag, random.below(3) as usize * 2000)),
            (13, _) => steps.push(Step::Spend(random.below(1000))),
            (4, _) => steps.push(Step::Begin(blob, model::SIZES[blob] / 2)),
            (5, Some(known)) => steps.push(Step::Tag(tag, known)),
            (6, _) => steps.push(Step::Untag(tag)),
            (7, Some(known)) => steps.push(Step::Pin(known)),
            (8, _) => steps.push(Step::Remount),
            (_, Some(known)) => {
                steps.push(Step::Delete(known));
                held.retain(|held| *held != known);
            }
            (_, None) => {}
        }
    }
    steps
}

/// Xorshift64* (Vigna 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % limit
    }
}

/// Blobs that fit, all of them together.
const BLOBS: [usize; 8] = [0, 1, 4, 7, 9, 10, 19, 20];
/// Images of them.
const PULLS: [&[usize]; 3] = [&[9, 10, 1], &[20, 0, 19, 4], &[7, 10]];
