//! Sleepers with a deadline: one tree per CPU, ordered by time. A thread sleeps on at most one deadline, so the link is
//! part of the thread and nothing is allocated. Every operation is O(log n).
//!
//! Programs decide how many deadlines expire together. An interrupt wakes at most [`BATCH`] sleepers; the next one
//! comes after a pause as long as that took, so that the interrupted code makes progress too.

use core::sync::atomic::Ordering;

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};

use super::entity::Entity;
use super::sched;
use crate::arch::{self, cpu};
use crate::task::percpu::{self, PERCPU};

intrusive_adapter!(pub ByDeadline = UnsafeRef<Entity>: Entity { timer_link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ByDeadline {
    type Key = (u64, usize);
    fn get_key(&self, thread: &'a Entity) -> Self::Key {
        (thread.deadline.load(Ordering::Relaxed), core::ptr::from_ref(thread).addr())
    }
}

/// Sleepers that one interrupt wakes: some 15,000 instructions.
const BATCH: usize = 32;

/// The sleepers of one CPU.
pub struct Timers {
    tree: RBTree<ByDeadline>,
    /// No interrupt for them before this.
    not_before: u64,
}

// SAFETY: the links are only touched under the lock that this lives in, and a thread in the tree outlives its
// membership: it sleeps in `sleep_until`, which takes it out.
unsafe impl Send for Timers {}

impl Timers {
    /// No sleepers.
    pub const fn new() -> Self {
        Self { tree: RBTree::new(ByDeadline::NEW), not_before: 0 }
    }

    /// When they need an interrupt next; `u64::MAX` for never.
    pub fn next(&self) -> u64 {
        self.tree.front().get().map_or(u64::MAX, |t| t.deadline.load(Ordering::Relaxed).max(self.not_before))
    }

    /// Removes a sleeper whose deadline has passed.
    fn pop_due(&mut self, now: u64) -> Option<UnsafeRef<Entity>> {
        let mut first = self.tree.upper_bound_mut(Bound::Included(&(now, usize::MAX)));
        first.remove()
    }
}

/// Arms a deadline for this thread: [`sched::block`] then ends at `deadline` (nanoseconds) at the latest.
/// [`disarm`] must follow.
pub fn arm(thread: &Entity, deadline: u64) {
    let irq = cpu::irq_save();
    let here = percpu::this();
    {
        let mut timers = here.timers.lock();
        thread.deadline.store(deadline, Ordering::Relaxed);
        thread.timer_cpu.store(here.id() as u32, Ordering::Relaxed);
        // SAFETY: the thread is current and takes itself out in `disarm` before it can end.
        timers.tree.insert(unsafe { UnsafeRef::from_raw(thread) });
    }
    sched::program_timer(here);
    cpu::irq_restore(irq);
}

/// Disarms the deadline, whether or not it has passed.
pub fn disarm(thread: &Entity) {
    let mut timers = PERCPU[thread.timer_cpu.load(Ordering::Relaxed) as usize].timers.lock();
    if thread.timer_link.is_linked() {
        // SAFETY: a linked thread is in the tree of `timer_cpu`, whose lock is held.
        unsafe { timers.tree.cursor_mut_from_ptr(thread).remove() };
    }
}

/// Wakes this CPU's sleepers whose deadlines have passed, at most [`BATCH`] of them. In the timer interrupt; each costs
/// O(log n), and the lock is released between them.
pub fn wake_due(now: u64) {
    let timers = &percpu::this().timers;
    for _ in 0..BATCH {
        let mut timers = timers.lock();
        let Some(thread) = timers.pop_due(now) else { return };
        // Under the lock: a thread that something else wakes meanwhile takes it in `disarm`, and may end right after.
        sched::wake(&thread);
    }
    let end = arch::timer::now_ns();
    timers.lock().not_before = end + (end - now);
}
