//! What recycling costs: bytes copied to make room, over ten times the capacity at 80 % full.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use moonlet::blob::Store;
use moonlet::flash::sim;
use moonlet::flash::{Device, Geometry, file};
use moonlet::oci::Digest;

use crate::content::{Random, blob};
use crate::fill::put;
use crate::{Outcome, figure, open};

/// A gateway's eMMC and raw NAND, small enough to be held in memory.
const EMMC: Geometry =
    Geometry { segment_count: 512, segment_bytes: 256 << 10, program_bytes: 4096, reprogram: true };
const NAND: Geometry = Geometry {
    segment_count: 1024,
    segment_bytes: 128 << 10,
    program_bytes: 2048,
    reprogram: false,
};

/// On a simulated device.
pub fn simulated(shape: &str, mix: &str) -> Outcome<()> {
    let geometry = if shape == "emmc" { EMMC } else { NAND };
    churn(Arc::new(sim::Device::new(geometry)), mix)
}

/// On a store of 512 MiB in a directory, which is made for it.
pub fn on_files(directory: &Path, mix: &str) -> Outcome<()> {
    churn(Arc::new(file::Device::open(directory, 512 << 20)?), mix)
}

fn churn(device: Arc<dyn Device>, mix: &str) -> Outcome<()> {
    let geometry = device.geometry();
    let (store, _) = open(device)?;
    let capacity = store.stat().size_max_bytes;
    let mut churn = Churn { store, random: Random::new(1), held: VecDeque::new(), made: 0 };
    match mix {
        "images" => churn.images(capacity, geometry)?,
        "mixed" => churn.mixed(capacity)?,
        other => return Err(format!("{other}: expected images or mixed").into()),
    }
    let stat = churn.store.stat();
    let per_byte = |bytes: u64| format!("{:.4}", bytes as f64 / stat.image_bytes as f64);
    figure("capacity", capacity, "bytes");
    figure("image", stat.image_bytes, "bytes");
    figure("copied", stat.copied_bytes, "bytes");
    figure("programmed", stat.programmed_bytes, "bytes");
    figure("copying", per_byte(stat.image_bytes + stat.copied_bytes), "bytes/byte");
    figure("amplification", per_byte(stat.programmed_bytes), "bytes/byte");
    Ok(())
}

struct Churn {
    store: Store,
    random: Random,
    /// Images, the oldest first, each with its bytes.
    held: VecDeque<(Vec<Digest>, u64)>,
    made: u64,
}

impl Churn {
    /// Images of several layers, a configuration and a manifest come, and go whole.
    fn images(&mut self, capacity: u64, geometry: Geometry) -> Outcome<()> {
        let segment = u64::from(geometry.segment_bytes);
        // A fleet's images are tens of megabytes on a card of gigabytes: so much of a segment.
        let layer = |random: &mut Random| random.size(segment * 2, segment * 12);
        while self.store.stat().image_bytes < CAPACITIES * capacity {
            let mut sizes = vec![self.random.size(1 << 10, 4 << 10)];
            sizes.push(self.random.size(2 << 10, 16 << 10));
            let layers = 2 + self.random.below(4);
            sizes.extend((0..layers).map(|_| layer(&mut self.random)));
            let victim = |random: &mut Random, count: usize| random.below(count as u64) as usize;
            self.make_room(sizes.iter().sum(), capacity, victim)?;
            self.add(&sizes)?;
        }
        Ok(())
    }

    /// Blobs of all sizes, and any of them goes.
    fn mixed(&mut self, capacity: u64) -> Outcome<()> {
        while self.store.stat().image_bytes < CAPACITIES * capacity {
            let size = self.random.size(1 << 10, 8 << 20);
            let victim = |random: &mut Random, count: usize| random.below(count as u64) as usize;
            self.make_room(size, capacity, victim)?;
            self.add(&[size])?;
        }
        Ok(())
    }

    fn make_room(
        &mut self,
        wanted: u64,
        capacity: u64,
        victim: impl Fn(&mut Random, usize) -> usize,
    ) -> Outcome<()> {
        let held = |churn: &Self| churn.held.iter().map(|(_, bytes)| bytes).sum::<u64>();
        while !self.held.is_empty() && held(self) + wanted > capacity / 10 * 8 {
            let index = victim(&mut self.random, self.held.len());
            let (digests, _) = self.held.remove(index).unwrap_or_default();
            smol::block_on(self.store.delete(&digests))?;
        }
        Ok(())
    }

    fn add(&mut self, sizes: &[u64]) -> Outcome<()> {
        let mut digests = Vec::new();
        for size in sizes {
            self.made += 1;
            let (digest, bytes) = blob(self.made, *size);
            smol::block_on(put(&self.store, &digest, &bytes))?;
            digests.push(digest);
        }
        smol::block_on(self.store.flush())?;
        smol::block_on(self.store.pin(&digests, true))?;
        self.held.push_back((digests, sizes.iter().sum()));
        Ok(())
    }
}

/// How many times the capacity is written.
const CAPACITIES: u64 = 10;
