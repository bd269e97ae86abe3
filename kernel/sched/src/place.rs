//! The two words that synchronise a change of a thread's class with its queue.
//!
//! When a thread enters a queue, the queue reads the class and places the thread by it, under the queue's lock. Whoever
//! changes the class does so without a lock, and then looks up the thread's queue, to have the thread placed anew
//! there. At this moment the thread may be entering that queue, or moving from one queue to another. Each side writes
//! its own word and then reads the other one, with a fence in between: so either the queue has seen the new class, or
//! whoever changed it sees the queue.
//!
//! `tests/loom_place.rs` compiles this file a second time, with loom's atomics.

use super::atomic::Ordering::{Relaxed, SeqCst};
use super::atomic::{AtomicU32, AtomicU64, fence};

/// The number of no queue.
pub const NOWHERE: u32 = u32::MAX;

/// See the module.
pub struct Place {
    traits: AtomicU64,
    queue: AtomicU32,
}

impl Place {
    /// In no queue.
    pub fn new(traits: u64) -> Self {
        Self { traits: AtomicU64::new(traits), queue: AtomicU32::new(NOWHERE) }
    }

    /// The value by which the thread is placed.
    #[inline]
    pub fn traits(&self) -> u64 {
        self.traits.load(Relaxed)
    }

    /// Changes that value. The caller must then call [`Place::queue_after_change`].
    #[inline]
    pub fn set_traits(&self, traits: u64) {
        self.traits.store(traits, Relaxed);
    }

    /// The queue in which the thread may still be placed by its class before [`Place::set_traits`]. The caller takes
    /// that queue's lock and checks whether the thread [is there](Place::is_in): if so, it has the thread placed anew;
    /// if not, it asks again. `None`: the thread is in no queue, and the next one that it enters will see the change.
    pub fn queue_after_change(&self) -> Option<u32> {
        // With that in `enter`.
        fence(SeqCst);
        let queue = self.queue.load(Relaxed);
        (queue != NOWHERE).then_some(queue)
    }

    /// Enters a queue, whose lock is held; returns the value by which the thread is to be placed.
    #[inline]
    pub fn enter(&self, queue: u32) -> u64 {
        self.queue.store(queue, Relaxed);
        // With that in `queue_after_change`.
        fence(SeqCst);
        self.traits.load(Relaxed)
    }

    /// Leaves the thread's queue, whose lock is held.
    #[inline]
    pub fn leave(&self) {
        self.queue.store(NOWHERE, Relaxed);
    }

    /// Whether the thread is in this queue, whose lock is held. The answer is valid for as long as it is held.
    #[inline]
    pub fn is_in(&self, queue: u32) -> bool {
        self.queue.load(Relaxed) == queue
    }
}
