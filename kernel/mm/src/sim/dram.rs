//! Physical memory on the host's heap.

use std::alloc::{Layout, alloc_zeroed};
use std::vec::Vec;

use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::buddy::MAX_ORDER;

use super::config::Bank;

/// Zeroed memory, as aligned as the largest block of frames is, that is never freed. The host backs it when it is
/// touched.
pub(super) struct Zeroed(*mut u8, #[cfg_attr(not(test), expect(dead_code, reason = "only tests give it back"))] usize);

// SAFETY: this is an address only; who may touch what lies there is the memory manager's business.
unsafe impl Send for Zeroed {}
// SAFETY: as above.
unsafe impl Sync for Zeroed {}

impl Zeroed {
    pub(super) fn new(bytes: usize) -> Self {
        // Aligned by hand: the host's allocator fills aligned allocations with zeros itself, which touches them.
        let layout = Layout::from_size_align(bytes + LARGEST_BLOCK, 16).expect("a size that fits");
        // SAFETY: the size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        assert!(!start.is_null(), "the host has no {bytes} bytes");
        Self(start.wrapping_add(start.align_offset(LARGEST_BLOCK)), bytes)
    }

    /// Gives the host's pages back; what is read from now on is zeros.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        // SAFETY: whole pages of this memory, which is never freed: it is aligned, and its length is rounded down.
        unsafe { libc::madvise(self.0.cast(), self.1 & !(PAGE_SIZE - 1), libc::MADV_DONTNEED) };
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.0
    }
}

const LARGEST_BLOCK: usize = PAGE_SIZE << MAX_ORDER;

struct Arena {
    /// Of the first block that reaches into the bank: its frames are aligned alike on both sides.
    start: usize,
    size: usize,
    host: Zeroed,
}

/// All banks.
pub(super) struct Dram(Vec<Arena>);

impl Dram {
    pub(super) fn new(banks: &[Bank]) -> Self {
        let arena = |bank: &Bank| {
            let start = bank.start & !(LARGEST_BLOCK - 1);
            let size = bank.start + bank.size - start;
            Arena { start, size, host: Zeroed::new(size) }
        };
        Self(banks.iter().map(arena).collect())
    }

    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.0.iter().for_each(|arena| arena.host.forget());
    }

    /// # Panics
    /// Where there is no memory.
    pub(super) fn host_address(&self, addr: PhysAddr) -> *mut u8 {
        let offset = |arena: &Arena| addr.get().checked_sub(arena.start).filter(|&offset| offset < arena.size);
        let find = |arena: &Arena| Some(arena.host.start().wrapping_add(offset(arena)?));
        self.0.iter().find_map(find).unwrap_or_else(|| panic!("there is no memory at {addr}"))
    }

    /// # Panics
    /// If no bank has this byte.
    pub(super) fn physical_address(&self, ptr: *const u8) -> PhysAddr {
        let offset =
            |arena: &Arena| ptr.addr().checked_sub(arena.host.start().addr()).filter(|&offset| offset < arena.size);
        let find = |arena: &Arena| Some(PhysAddr::new(arena.start + offset(arena)?));
        self.0.iter().find_map(find).unwrap_or_else(|| panic!("{ptr:p} is not in the direct map"))
    }
}
