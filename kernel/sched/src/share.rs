//! A thread's share of its CPU: its due time, and its position in a queue.
//!
//! The fields are written under the lock of the queue that the share is in, or by the CPU that runs its thread; others
//! only read them.

use core::cell::Cell;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use intrusive_collections::RBTreeLink;

use super::class::{Class, Traits, UNIT};
use super::place::{NOWHERE, Place};

/// Which of a queue's trees a share is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    Urgent,
    Eligible,
    Later,
}

/// See the module. Virtual times are nanoseconds of a thread of nice 0; for a thread of half its weight they pass twice
/// as fast. (They start at 13 days, so that every thread can be behind, and they do not wrap: a CPU would have to run
/// SCHED_IDLE alone for 1.7 years, or nice 0 for 580.)
pub struct Share {
    pub(crate) link: RBTreeLink,
    /// The key in its tree, the tree, and the weight with which it was entered. Under the queue's lock.
    pub(crate) key: Cell<(u64, i64)>,
    pub(crate) tree: Cell<Tree>,
    pub(crate) entered: Cell<u32>,
    /// The class ([`Traits`]), and the queue that it is in.
    pub(crate) place: Place,
    /// The run time, in virtual time; for a real-time thread, nanoseconds of its turn.
    pub(crate) run: AtomicU64,
    /// The deadline of its present request, in virtual time.
    pub(crate) deadline: AtomicU64,
    /// The slice that it requests, in nanoseconds; 0 for the usual one.
    slice: AtomicU64,
    /// How far it was behind its queue when it left, in virtual time.
    pub(crate) lag: AtomicI64,
    /// When it last moved from another queue.
    moved_at: AtomicU64,
    /// The number of its present or last queue.
    pub(crate) home: AtomicU32,
}

// SAFETY: the cells and the link are only touched under the lock of the queue that the share is in, or is entering.
unsafe impl Sync for Share {}
// SAFETY: as above.
unsafe impl Send for Share {}

impl Share {
    /// A new thread's.
    pub fn new() -> Self {
        Self {
            link: RBTreeLink::new(),
            key: Cell::new((0, 0)),
            tree: Cell::new(Tree::Later),
            entered: Cell::new(0),
            place: Place::new(Traits::new(Class::NORMAL).to_word()),
            run: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            slice: AtomicU64::new(0),
            lag: AtomicI64::new(0),
            moved_at: AtomicU64::new(0),
            home: AtomicU32::new(NOWHERE),
        }
    }

    /// How it is scheduled.
    #[inline]
    pub fn class(&self) -> Class {
        self.traits().class()
    }

    /// Changes how the thread is scheduled. If it has run before, the caller must then call
    /// [`Share::queue_after_change`].
    pub fn set_class(&self, class: Class) {
        self.place.set_traits(Traits::new(class).to_word());
    }

    /// The slice that it requests, or `usual`.
    #[inline]
    pub fn slice(&self, usual: u64) -> u64 {
        match self.slice.load(Relaxed) {
            0 => usual,
            own => own,
        }
    }

    /// Sets the slice for the next request and the following ones: 0 for the usual one. A shorter slice is served
    /// earlier, and ends sooner.
    pub fn set_slice(&self, ns: u64) {
        self.slice.store(ns, Relaxed);
    }

    /// Its weight.
    #[inline]
    pub fn weight(&self) -> u32 {
        self.traits().weight()
    }

    #[inline]
    pub(crate) fn traits(&self) -> Traits {
        Traits::from_word(self.place.traits())
    }

    /// 0 for threads that share by weight, otherwise the priority.
    #[inline]
    pub fn rank(&self) -> u32 {
        self.traits().rank()
    }

    /// After [`Share::set_class`]: the number of the queue in which the thread may still be placed by its former class,
    /// if there is one. The caller takes that queue's lock; if the queue [has](super::Queue::has) the share, the caller
    /// [enters it anew](super::Queue::reenter), and otherwise asks again.
    pub fn queue_after_change(&self) -> Option<usize> {
        self.place.queue_after_change().map(|queue| queue as usize)
    }

    /// It comes from another queue.
    pub(crate) fn note_move(&self, now: u64) {
        self.moved_at.store(now, Relaxed);
    }

    /// Whether it moved from another queue within `ns` nanoseconds before `now`.
    pub fn has_moved_within(&self, ns: u64, now: u64) -> bool {
        now < self.moved_at.load(Relaxed).saturating_add(ns)
    }

    #[cfg(test)]
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.load(Relaxed)
    }

    /// Charges its thread for time that it ran, on the CPU that calls.
    #[inline]
    pub fn charge(&self, ns: u64) {
        let traits = self.traits();
        let run = if traits.rank() == 0 { virtually(ns, traits.weight()) } else { ns };
        self.run.store(self.run.load(Relaxed) + run, Relaxed);
    }

    /// Notes that its thread lets others run first: it gives up the rest of its request, or its turn is over.
    #[inline]
    pub fn yields(&self, slice: u64) {
        let traits = self.traits();
        if traits.rank() != 0 {
            self.run.store(u64::MAX / 2, Relaxed);
        } else {
            let next = self.run.load(Relaxed) + virtually(slice, traits.weight());
            self.deadline.store(self.deadline.load(Relaxed).max(next), Relaxed);
        }
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::new()
    }
}

/// A time of a thread of this weight as virtual time.
#[inline]
pub(crate) fn virtually(ns: u64, weight: u32) -> u64 {
    if weight == UNIT { ns } else { ns.saturating_mul(u64::from(UNIT)) / u64::from(weight) }
}
