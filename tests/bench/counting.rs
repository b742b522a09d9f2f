//! What the others count with: memory, and calls to a device.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use moonlet::flash::{Device, Error, Geometry};

/// The system's allocator, watched.
pub struct Heap {
    now: AtomicUsize,
    peak: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap { now: AtomicUsize::new(0), peak: AtomicUsize::new(0) };

impl Heap {
    fn grow(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn shrink(&self, bytes: usize) {
        self.now.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it is; only numbers are kept beside it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.grow(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.shrink(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // A large block is moved by its pages, by glibc and musl alike; a small one is there twice
        // for a moment.
        if layout.size() >= MOVED_BYTES_MIN {
            self.shrink(layout.size());
            self.grow(bytes);
        } else {
            self.grow(bytes);
            self.shrink(layout.size());
        }
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

/// Bytes allocated now.
pub fn heap_bytes() -> usize {
    HEAP.now.load(Ordering::Relaxed)
}

/// The most bytes that were allocated at once since [`forget_peak`].
pub fn heap_peak_bytes() -> usize {
    HEAP.peak.load(Ordering::Relaxed)
}

/// Begins to look for the peak from here on.
pub fn forget_peak() {
    HEAP.peak.store(heap_bytes(), Ordering::Relaxed);
}

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

/// Blocks from this size on are mappings of their own.
const MOVED_BYTES_MIN: usize = 128 << 10;

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
