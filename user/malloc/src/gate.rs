//! The gate of a thread's cache: shut while an allocator call runs on the thread.
//!
//! A signal's handler may run between any two instructions of a call, and may call the allocator itself. It then finds
//! the gate shut and takes another path (`nested`), which needs neither the cache nor a lock, since the interrupted
//! call may be using both. A handler that runs while the gate is open makes an ordinary call, which is over before the
//! interrupted code goes on.
//!
//! The whole protocol: read the gate; if it is open, shut it; work; restore the value read. A call that comes between
//! the read and the shutting leaves the gate as it was, so nothing needs to be read again; but cache contents read
//! before the gate was shut must not be used.
//!
//! Only its own thread looks at a gate, so the order of the instructions is all that matters: the fences hold the
//! compiler to it, and a processor lets no thread see its own accesses in another order.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst, compiler_fence};

use crate::cache::{Cache, ThreadBlock};
use crate::{Malloc, System};

/// What a gate shows:
///
/// | value | meaning |
/// | --- | --- |
/// | 0 | open; the thread has no cache |
/// | odd | open; the thread has a cache, and this is the secret of its blocks' seals |
/// | even, but not 0 | shut |
#[repr(transparent)]
pub struct Gate(AtomicU64);

/// Shut by a call on a slow path.
const AT_WORK: u64 = 2;
/// Shut from before a fork to after it.
const FORKING: u64 = 4;

impl Gate {
    pub const fn new() -> Gate {
        Gate(AtomicU64::new(0))
    }

    /// What it shows.
    #[inline(always)]
    pub fn look(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Shuts it; `mark` is any even number but 0, which the fast paths have at hand.
    #[inline(always)]
    pub fn shut(&self, mark: u64) {
        self.0.store(mark, Relaxed);
        compiler_fence(SeqCst);
    }

    /// Makes it show `seen` again.
    #[inline(always)]
    pub fn open(&self, seen: u64) {
        compiler_fence(SeqCst);
        self.0.store(seen, Relaxed);
    }
}

/// The right to use the calling thread's cache and to wait for locks, until it is dropped.
pub struct Inside {
    block: NonNull<ThreadBlock>,
}

impl Inside {
    #[inline(always)]
    pub fn cache(&mut self) -> &mut Cache {
        // SAFETY: the block is this thread's, and there is one `Inside` a thread at a time: the gate was open when
        // this one was made, and is shut as long as it lives.
        unsafe { &mut *(*self.block.as_ptr()).cache.get() }
    }
}

impl Drop for Inside {
    #[inline(always)]
    fn drop(&mut self) {
        let seen = self.cache().open;
        // SAFETY: the block is this thread's and lives as long as the thread.
        unsafe { (*self.block.as_ptr()).gate.open(seen) };
    }
}

impl<S: System> Malloc<S> {
    /// Shuts the calling thread's gate; `None` if it is shut: this call comes in the middle of another.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Option<Inside> {
        self.enter_as(AT_WORK)
    }

    #[inline(always)]
    fn enter_as(&self, mark: u64) -> Option<Inside> {
        let block = self.system.thread_block();
        // SAFETY: the block is this thread's and lives as long as the thread.
        let gate = unsafe { &(*block.as_ptr()).gate };
        let seen = gate.look();
        if seen & 1 == 0 && seen != 0 {
            return None;
        }
        gate.shut(mark);
        Some(Inside { block })
    }

    /// Shuts the gate for a fork; returns whether it was open.
    pub(crate) fn enter_fork(&self) -> bool {
        self.enter_as(FORKING).map(core::mem::forget).is_some()
    }

    /// Whether [`enter_fork`](Malloc::enter_fork) shut the gate: if so, the right to open it again.
    pub(crate) fn inside_fork(&self) -> Option<Inside> {
        let block = self.system.thread_block();
        // SAFETY: the block is this thread's and lives as long as the thread.
        let forking = unsafe { (*block.as_ptr()).gate.look() } == FORKING;
        forking.then_some(Inside { block })
    }

    /// Runs `f`, which may hold a lock that the system's own functions for this allocator take, as if it were a call
    /// of the allocator: a signal's handler meanwhile does without such locks.
    pub fn undisturbed<R>(&self, f: impl FnOnce() -> R) -> R {
        let _inside = self.enter();
        f()
    }
}
