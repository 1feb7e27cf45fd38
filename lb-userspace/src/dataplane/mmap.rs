//! BPF arrays mapped into our memory: aligned words that are loaded and stored atomically.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The words of an mmapable array.
#[derive(Debug)]
pub(super) struct Words {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    count: usize,
}

// SAFETY: the memory is shared with the kernel anyway, and only accessed through atomics.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps `count` 8-byte words of the array behind `map`, whose value size is a multiple of 8.
    pub(super) fn map(map: impl AsFd, count: usize) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(count * 8).ok_or(io::ErrorKind::InvalidInput)?;
        // The kernel refuses a mapping longer than the array's pages, and rounds shorter ones up itself.
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { start, bytes, count })
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: `count` aligned words are mapped as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.count) }
    }

    /// The word at `index`; zero beyond the end.
    pub(super) fn load(&self, index: usize) -> u64 {
        self.all().get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Replaces the word at `index`; false beyond the end.
    pub(super) fn store(&self, index: usize, value: u64) -> bool {
        self.all().get(index).map(|word| word.store(value, Ordering::Release)).is_some()
    }

    /// Adds to the word at `index`, whatever others add meanwhile; false beyond the end.
    pub(super) fn add(&self, index: usize, by: i64) -> bool {
        self.all().get(index).map(|word| word.fetch_add(by as u64, Ordering::AcqRel)).is_some()
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing borrows from it any more.
        let unmapped = unsafe { munmap(self.start, self.bytes.get()) };
        debug_assert!(unmapped.is_ok());
    }
}
