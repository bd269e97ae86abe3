//! The cross-thread free path: a lock-free stack of chunks for an arena whose lock somebody else holds.
//!
//! A thread whose cache overflows with another arena's chunks does not wait for that arena: it pushes them here, and
//! whoever holds the arena's lock next takes them all. Taking everything at once leaves no room for the ABA problem.

#[cfg(loom)]
use loom::sync::atomic::{AtomicPtr, Ordering};

#[cfg(not(loom))]
use core::sync::atomic::{AtomicPtr, Ordering};

/// The stack. The links lie in the chunks; the caller says how they are written.
pub struct Remote {
    head: AtomicPtr<u8>,
}

impl Remote {
    #[cfg(not(loom))]
    pub const fn new() -> Remote {
        Remote { head: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Loom's atomics cannot be made in a constant.
    #[cfg(loom)]
    pub fn new() -> Remote {
        Remote { head: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Pushes the chain from `first` to `last`. `link` writes the address of what follows `last`.
    pub fn push(&self, first: *mut u8, mut link: impl FnMut(*mut u8)) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link(head);
            // Release: whoever takes the chain sees the links, and that its pushers are done with the chunks.
            match self.head.compare_exchange_weak(head, first, Ordering::Release, Ordering::Relaxed) {
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
