//! The two words by which a thread's class and its queue find each other.
//!
//! A queue places a thread by the class that it reads when the thread enters, under the queue's lock. Whoever changes
//! the class does so without a lock, and then looks in which queue the thread is, to have it placed anew there. The
//! thread may be entering that queue at this moment, or be on its way from one to another. Each side writes its word
//! and then reads the other's, with a fence between the two: so either the queue has seen the new class, or whoever
//! changed it sees the queue.
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

    /// What the thread is placed by.
    #[inline]
    pub fn traits(&self) -> u64 {
        self.traits.load(Relaxed)
    }

    /// Changes that. [`Place::queue_after_change`] says what is to be done next.
    #[inline]
    pub fn set_traits(&self, traits: u64) {
        self.traits.store(traits, Relaxed);
    }

    /// The queue in which the thread may be by what it was before [`Place::set_traits`]. The caller takes that queue's
    /// lock, looks whether it [is there](Place::is_in), and then has it placed anew; if it is not, the caller asks
    /// again. If it is in no queue, the next one that it enters sees the change.
    pub fn queue_after_change(&self) -> Option<u32> {
        // With that in `enter`.
        fence(SeqCst);
        let queue = self.queue.load(Relaxed);
        (queue != NOWHERE).then_some(queue)
    }

    /// It enters a queue, whose lock is held: what it is to be placed by.
    #[inline]
    pub fn enter(&self, queue: u32) -> u64 {
        self.queue.store(queue, Relaxed);
        // With that in `queue_after_change`.
        fence(SeqCst);
        self.traits.load(Relaxed)
    }

    /// It leaves the queue that it is in, whose lock is held.
    #[inline]
    pub fn leave(&self) {
        self.queue.store(NOWHERE, Relaxed);
    }

    /// Whether it is in this queue, whose lock is held, and as long as it is.
    #[inline]
    pub fn is_in(&self, queue: u32) -> bool {
        self.queue.load(Relaxed) == queue
    }
}
