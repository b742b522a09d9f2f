//! The heap, watched. It is the process's: a test that measures it stands alone in its file.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

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
pub fn bytes() -> usize {
    HEAP.now.load(Ordering::Relaxed)
}

/// The most bytes that were allocated at once since [`forget_peak`].
pub fn peak_bytes() -> usize {
    HEAP.peak.load(Ordering::Relaxed)
}

/// Begins to look for the peak from here on.
pub fn forget_peak() {
    HEAP.peak.store(bytes(), Ordering::Relaxed);
}

/// Blocks from this size on are mappings of their own.
const MOVED_BYTES_MIN: usize = 128 << 10;
