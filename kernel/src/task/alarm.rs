//! Alarms: what is to happen at a time, from the timer interrupt.
//!
//! An armed alarm is in the tree of the CPU that armed it, whose timer interrupt takes it out and rings it: it calls its owner,
//! with no lock held. Whoever owns the alarm calls [`Alarm::arm`] and [`Alarm::disarm`] under a lock of its own. The ring may
//! come late, when the alarm has been disarmed, or armed again: so the owner notes its deadline under that lock, and
//! compares. Before the owner goes, [`Alarm::cancel`] waits for a ring that is under way.
//!
//! Lock order: the owner's lock, then a tree ([`Rank::Timers`]).

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use intrusive_collections::{KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_mm::machine::MAX_CPUS;
use quire_mm::sync::Rank;

use super::{percpu, sched};
use crate::arch::{cpu, timer};
use crate::vm::{Cpu, SpinLock};

/// The owner of an alarm.
pub trait Ring: Sync + 'static {
    /// The alarm has expired, unless that changed meanwhile. In the timer interrupt, with no lock held.
    fn ring(&self, now: u64);
}

/// See the module. The deadline, the CPU and the owner change only while the alarm is in no tree.
pub struct Alarm {
    link: RBTreeLink,
    deadline: AtomicU64,
    cpu: AtomicU32,
    /// Rings under way.
    ringing: AtomicU32,
    owner: UnsafeCell<Option<*const dyn Ring>>,
}

// SAFETY: the link and the owner belong to the tree's lock; the rest is atomic.
unsafe impl Sync for Alarm {}
// SAFETY: as above.
unsafe impl Send for Alarm {}

intrusive_adapter!(ByDeadline = UnsafeRef<Alarm>: Alarm { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ByDeadline {
    type Key = u64;
    fn get_key(&self, alarm: &'a Alarm) -> u64 {
        alarm.deadline.load(Ordering::Relaxed)
    }
}

struct Tree(RBTree<ByDeadline>);

// SAFETY: the links are only touched under the lock that this lives in, and an alarm is taken out before its owner goes.
unsafe impl Send for Tree {}

static TREES: [SpinLock<Tree>; MAX_CPUS] =
    [const { SpinLock::new(Cpu, Rank::Timers, Tree(RBTree::new(ByDeadline::NEW))) }; MAX_CPUS];

/// The earliest deadline of each tree, `u64::MAX` for an empty one. Changed under the tree's lock.
static NEXT: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(u64::MAX) }; MAX_CPUS];

/// No interrupt for a CPU's alarms before this.
static NOT_BEFORE: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

impl Alarm {
    /// Not armed.
    pub const fn new() -> Self {
        Self {
            link: RBTreeLink::new(),
            deadline: AtomicU64::new(0),
            cpu: AtomicU32::new(0),
            ringing: AtomicU32::new(0),
            owner: UnsafeCell::new(None),
        }
    }

    /// Rings `owner` at `deadline` (nanoseconds since power-on). The alarm is not armed.
    ///
    /// # Safety
    /// The alarm and its owner neither move nor go before [`Alarm::cancel`] has returned. Calls for one alarm exclude each other.
    pub unsafe fn arm<T: Ring>(&self, owner: &T, deadline: u64) {
        debug_assert!(!self.link.is_linked(), "an alarm that is armed twice");
        let irq = cpu::irq_save();
        let here = percpu::this();
        {
            let mut tree = TREES[here.id()].lock();
            self.deadline.store(deadline.max(1), Ordering::Relaxed);
            self.cpu.store(here.id() as u32, Ordering::Relaxed);
            // SAFETY: it is in no tree, so nobody reads the owner; the caller promises that it stays until it is taken out.
            unsafe {
                *self.owner.get() = Some(core::ptr::from_ref(owner));
                tree.0.insert(UnsafeRef::from_raw(self));
            }
            note_next(here.id(), &tree);
        }
        sched::program_timer(here);
        cpu::irq_restore(irq);
    }

    /// Takes it out of its tree, if it is in one. It may be about to ring. Calls for one alarm exclude each other.
    pub fn disarm(&self) {
        let cpu = self.cpu.load(Ordering::Relaxed) as usize;
        let mut tree = TREES[cpu].lock();
        if self.link.is_linked() {
            // SAFETY: a linked alarm is in the tree of `cpu`, whose lock is held.
            unsafe { tree.0.cursor_mut_from_ptr(self).remove() };
            note_next(cpu, &tree);
        }
    }

    /// Disarms it for good, and waits for a ring that is under way on another CPU. The caller is in process context and holds no
    /// lock.
    pub fn cancel(&self) {
        if self.deadline() == 0 {
            return;
        }
        self.disarm();
        while self.ringing.load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
    }

    /// When it was last to ring; 0 if it never was.
    pub fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }
}

fn note_next(cpu: usize, tree: &Tree) {
    let next = tree.0.front().get().map_or(u64::MAX, Alarm::deadline);
    NEXT[cpu].store(next, Ordering::Relaxed);
}

/// When a CPU's alarms need an interrupt next; `u64::MAX` for never.
#[inline]
pub fn next(cpu: usize) -> u64 {
    NEXT[cpu].load(Ordering::Relaxed).max(NOT_BEFORE[cpu].load(Ordering::Relaxed))
}

/// Rings this CPU's expired alarms, at most `BATCH` at a time. In the timer interrupt, with no lock held. For the rest the
/// interrupt fires again after a pause as long as this took, so that the interrupted code proceeds too.
pub fn expire(now: u64) {
    const BATCH: usize = 4;
    let cpu = cpu::this().id();
    for _ in 0..BATCH {
        if NEXT[cpu].load(Ordering::Relaxed) > now {
            return;
        }
        ring_first(cpu, now);
    }
    let end = timer::now_ns();
    NOT_BEFORE[cpu].store(end + (end - now), Ordering::Relaxed);
}

fn ring_first(cpu: usize, now: u64) {
    let (alarm, owner) = {
        let mut tree = TREES[cpu].lock();
        let Some(alarm) = tree.0.front_mut().remove() else { return };
        note_next(cpu, &tree);
        alarm.ringing.fetch_add(1, Ordering::Relaxed);
        // SAFETY: it was in this tree until now, so that nobody changes the owner.
        let owner = unsafe { *alarm.owner.get() };
        (alarm, owner)
    };
    if let Some(owner) = owner {
        // SAFETY: `cancel` waits for this ring, and before that the owner stays.
        unsafe { (*owner).ring(now) };
    }
    alarm.ringing.fetch_sub(1, Ordering::Release);
}
