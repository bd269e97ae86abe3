//! Quire's user-space allocator: `malloc` for C and [`GlobalAlloc`] for Rust, on brk and mmap.
//!
//! It sees the system through one trait, [`System`], so the same code serves Quire, Linux on AArch64 and the x86_64
//! host that it is tested on.
//!
//! The path of a malloc: the calling thread's stack of chunks of that size (`cache`); if it is empty, a batch from the
//! thread's arena (`arenas`, `arena`): its fast bins, its small bins, the best fit among the rest (`bins`, `large`),
//! the top chunk, more from the system (`heap`). Large ones: the arena's free chunks, else a mapping (`mapped`). The
//! path of a free: the seal is checked and taken off (`chunk`), the chunk goes onto the thread's stack; a full stack
//! gives half to the chunks' arenas, or leaves them there without waiting (`remote`). A call from a signal's handler in
//! the middle of another: neither cache nor lock (`gate`, `nested`).
//!
//! Lock order: the lock under which arenas are made, arenas in the order of their list, the spare mapping, the
//! quarantine. Only a fork holds more than one arena.
#![cfg_attr(not(test), no_std)]

mod arena;
mod arenas;
mod bins;
mod cache;
mod chunk;
mod gate;
mod guard;
mod heap;
mod info;
mod large;
mod lock;
mod malloc;
mod mapped;
mod nested;
mod options;
mod remote;
mod resize;
mod system;
mod walk;

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic;

pub use cache::ThreadBlock;
pub use info::Mallinfo;
pub use malloc::Malloc;
pub use options::Parameter;
pub use system::{Advice, PAGE, System};
pub use walk::{Kind, Seen, Totals};

// SAFETY: blocks are disjoint, as large and as aligned as asked for, and stay until they are freed.
unsafe impl<S: System> GlobalAlloc for Malloc<S> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.memalign(layout.align(), layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= chunk::ALIGN {
            return self.calloc(1, layout.size());
        }
        let at = self.memalign(layout.align(), layout.size());
        if !at.is_null() {
            // SAFETY: the block holds `size` bytes and nobody else knows it.
            unsafe { at.write_bytes(0, layout.size()) };
        }
        at
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, _: Layout) {
        // SAFETY: `at` came from `alloc`, says the caller.
        unsafe { self.free(at) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= chunk::ALIGN {
            // SAFETY: `at` came from `alloc`, and `size` is not 0, says the caller.
            return unsafe { self.realloc(at, size) };
        }
        let new = self.memalign(layout.align(), size);
        if !new.is_null() {
            // SAFETY: both blocks are alive, disjoint, and as large as the smaller size.
            unsafe {
                new.copy_from_nonoverlapping(at, layout.size().min(size));
                self.free(at);
            }
        }
        new
    }
}
