//! Quire's user-space allocator: `malloc` for C and [`GlobalAlloc`] for Rust, on brk and mmap.
//!
//! It sees the system through one trait, [`System`], so the same code serves Quire, Linux on AArch64 and the x86_64
//! host that it is tested on.
#![cfg_attr(not(test), no_std)]

mod simple;
mod system;

use core::alloc::{GlobalAlloc, Layout};

pub use simple::{Malloc, ThreadBlock};
pub use system::{Advice, PAGE, System};

// SAFETY: blocks are disjoint, as large and as aligned as asked for, and stay until they are freed.
unsafe impl<S: System> GlobalAlloc for Malloc<S> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.memalign(layout.align(), layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let at = self.memalign(layout.align(), layout.size());
        if !at.is_null() {
            // SAFETY: the block holds `size` bytes and nobody else knows it.
            unsafe { at.write_bytes(0, layout.size()) };
        }
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, _: Layout) {
        // SAFETY: `at` came from `alloc`, says the caller.
        unsafe { self.free(at) }
    }
}
