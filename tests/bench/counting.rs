//! What the others count the calls to a device with.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moonlet::flash::{Device, Error, Geometry};

/// A device whose calls are counted.
pub struct Counted {
    device: Arc<dyn Device>,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    programs: AtomicU64,
    syncs: AtomicU64,
}

impl Counted {
    /// All of them, of `device`.
    pub fn new(device: Arc<dyn Device>) -> Self {
        let zero = || AtomicU64::new(0);
        let [reads, read_bytes, programs, syncs] = [zero(), zero(), zero(), zero()];
        Self { device, reads, read_bytes, programs, syncs }
    }

    /// Reads, the bytes of them, programs, syncs.
    pub fn counts(&self) -> [u64; 4] {
        [&self.reads, &self.read_bytes, &self.programs, &self.syncs]
            .map(|counter| counter.load(Ordering::Relaxed))
    }
}

fn count(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Device for Counted {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn read(&self, segment: u32, offset: u32, buffer: &mut [u8]) -> Result<(), Error> {
        count(&self.reads, 1);
        count(&self.read_bytes, buffer.len() as u64);
        self.device.read(segment, offset, buffer)
    }

    fn program(&self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        count(&self.programs, 1);
        self.device.program(segment, offset, bytes)
    }

    fn erase(&self, segment: u32) -> Result<(), Error> {
        self.device.erase(segment)
    }

    fn sync(&self) -> Result<(), Error> {
        count(&self.syncs, 1);
        self.device.sync()
    }

    fn is_slow(&self) -> bool {
        self.device.is_slow()
    }

    fn read_only(&self) -> Option<&str> {
        self.device.read_only()
    }

    fn give_up_from(&self, segment_count: u32) -> Result<(), Error> {
        self.device.give_up_from(segment_count)
    }

    fn file_span(&self, segment: u32, offset: u32) -> Option<(Arc<File>, u64)> {
        self.device.file_span(segment, offset)
    }
}
