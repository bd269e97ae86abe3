//! Nested calls: those of a signal handler that interrupted the allocator on its own thread.
//!
//! The interrupted call may hold the thread's cache, an arena's lock, or the spare mapping's, and does not go on
//! before the handler is done. So nothing here waits and nothing here touches the cache: a block is a mapping of its
//! own, a mapping goes straight back to the system, and a chunk is left for the next holder of its arena's lock by way
//! of the lock-free list that other threads use for it (`remote`). All of that costs more than an ordinary call, and
//! happens as seldom as a signal strikes inside one.

use core::ptr::null_mut;

use crate::chunk::{MAPPED, MAX_REQUEST};
use crate::{Malloc, System};

impl<S: System> Malloc<S> {
    /// A block of `size` bytes at a multiple of `align`, a power of two; or null.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_nested(&self, align: usize, size: usize) -> *mut u8 {
        self.start();
        if size > MAX_REQUEST || align > MAX_REQUEST {
            return null_mut();
        }
        if self.guard.is_on() {
            return self.guarded(align, size);
        }
        let Some(fresh) = self.map_alone(size, align) else { return null_mut() };
        self.perturbed(fresh.chunk.hand_out(self.secret()))
    }

    /// Gives a block back, of whatever kind it is.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_nested(&self, at: *mut u8) {
        let chunk = self.living_to_free(at);
        chunk.take_back(self.secret());
        if chunk.has(MAPPED) {
            self.unmap_block(chunk);
        } else {
            self.arena_of(chunk).leave(chunk, self.secret());
        }
    }
}
