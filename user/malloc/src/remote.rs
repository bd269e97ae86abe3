//! The cross-thread free path: a lock-free stack of chunks for an arena whose lock somebody else holds.
//!
//! A thread whose cache overflows with another arena's chunks does not wait for that arena: it pushes them here, and
//! whoever holds the arena's lock next takes them all. Taking everything at once leaves no room for the ABA problem.
//!
//! Loom's test builds this file over loom's atomics, which is why they come from `super`.

use super::atomic::{AtomicPtr, Ordering};

/// The stack. The links lie in the chunks; the caller says how they are written.
pub struct Remote {
    head: AtomicPtr<u8>,
}

impl Remote {
    /// A stack over `head`, which must be null: loom's atomics cannot be made in a constant.
    pub const fn new(head: AtomicPtr<u8>) -> Remote {
        Remote { head }
    }

    /// Pushes a chunk. `link` writes the address of what follows into it.
    pub fn push(&self, chunk: *mut u8, mut link: impl FnMut(*mut u8)) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link(head);
            // Release: the thread that takes the chunk sees its link and all earlier writes of the pushing thread.
            match self.head.compare_exchange_weak(head, chunk, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether there is nothing to take; a hint.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes the whole chain: its first chunk, or null.
    pub fn take_all(&self) -> *mut u8 {
        self.head.swap(core::ptr::null_mut(), Ordering::Acquire)
    }
}
