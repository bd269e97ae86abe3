//! Locks, and the order in which they may be taken.
//!
//! Every lock has a [`Rank`]. Locks are taken in ascending rank only; debug builds assert it with one word of bits.
//!
//! - A [`SpinLock`] is never held across a sleep, so it is held by a CPU. Interrupts are masked while one is held,
//!   since a handler may take the same locks, and so that the holder is not delayed. So critical sections are bounded
//!   and short, and never wait for memory.
//! - A [`SharedLock`] sleeps. A thread takes it with no spin lock held.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

pub(crate) mod queue;
mod shared;
#[cfg(test)]
mod tests;

/// The atomics, which loom replaces.
mod atomic {
    pub use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    /// How often a thread polls before it sleeps: about as long as a switch to another thread and back takes. (Threads
    /// of tests should sleep.)
    pub const LOOKS: u32 = if cfg!(test) { 2 } else { 100 };
}

pub use shared::{IntentGuard, ReadGuard, SharedLock, WriteGuard};

use atomic::{AtomicU32, Ordering};

use crate::machine::Machine;

/// The lock order of the whole kernel: lower ranks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rank {
    /// The turn of a file in memory.
    FileTurn = 1,
    /// Whose turn it is to look for pages of a node to reclaim.
    ReclaimTurn = 2,
    /// Whose turn it is to compact a zone.
    Compaction = 3,
    /// The table of processes and their family tree.
    Processes = 4,
    /// A process: its threads, signals, children.
    Process = 5,
    /// A descriptor table, or a table of handles.
    Descriptors = 6,
    /// A second table of handles.
    HandlesSecond = 7,
    /// An open object: a pipe, the console.
    Object = 8,
    /// A set of what is kept of servers' names.
    Names = 10,
    /// The areas of an address space.
    AddressSpace = 12,
    /// A second address space: fork's child.
    AddressSpaceChild = 13,
    /// An `AnonVma`'s family (reverse mapping).
    AnonVma = 16,
    /// Pages of a memory object.
    MemoryObject = 18,
    /// A page of translation table.
    PageTable = 20,
    /// A second page of translation table: fork's child.
    PageTableChild = 21,
    /// The store of swap.
    SwapStore = 22,
    /// ASID allocation.
    Asid = 24,
    /// A futex bucket.
    Futex = 26,
    /// A second futex bucket.
    FutexSecond = 27,
    /// The area tree of vmalloc.
    Vmalloc = 30,
    /// Slots of kernel stacks.
    Stacks = 32,
    /// Kernel translation tables.
    KernelTable = 33,
    /// The list of slab caches.
    SlabCaches = 34,
    /// The bitmaps of per-CPU memory.
    PerCpuAreas = 35,
    /// A node of a slab cache.
    SlabNode = 36,
    /// Timers of a CPU.
    Timers = 40,
    /// The list of pressure triggers, or the window of one.
    Triggers = 42,
    /// The queue of a sleeping lock.
    SleepQueue = 43,
    /// A wait queue.
    WaitQueue = 44,
    /// The tree of control groups.
    Groups = 46,
    /// The pressure of a control group.
    GroupPressure = 47,
    /// A run queue.
    RunQueue = 48,
    /// Reclaim's state of a node.
    Reclaim = 50,
    /// A whole page of 2 MiB.
    Whole = 51,
    /// A zone of the page allocator.
    Zone = 52,
    /// The boot heap.
    BootHeap = 54,
    /// The kernel log's ring.
    Log = 60,
    /// The line discipline of the terminal.
    Terminal = 61,
    /// The random number generator.
    Random = 58,
    /// The shared words of the interrupt controller.
    InterruptController = 59,
    /// The UART.
    Uart = 62,
}

impl Rank {
    /// Whether locks of this rank are [`SharedLock`]s.
    const fn sleeps(self) -> bool {
        1 << self as u8 & SLEEPING != 0
    }
}

/// The ranks of sleeping locks, a bit for each: those that a thread may hold across a switch.
pub const SLEEPING: u64 = WAITING
    | 1 << Rank::ReclaimTurn as u8
    | 1 << Rank::Compaction as u8
    | 1 << Rank::AddressSpace as u8
    | 1 << Rank::AddressSpaceChild as u8;

/// The ranks of locks, a bit for each, that a thread may hold while it waits for memory: no thread that makes memory
/// available takes them.
pub const WAITING: u64 = 1 << Rank::FileTurn as u8;

/// A ticket spin lock over `T` that masks interrupts while it is held. Fair: waiters are served in order.
pub struct SpinLock<T, M: Machine> {
    next: AtomicU32,
    serving: AtomicU32,
    rank: Rank,
    machine: M,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out `&mut T` to one CPU at a time, so sharing it only moves `T` between CPUs.
unsafe impl<T: Send, M: Machine> Sync for SpinLock<T, M> {}
// SAFETY: owning the lock is owning the `T`.
unsafe impl<T: Send, M: Machine> Send for SpinLock<T, M> {}

impl<T, M: Machine> SpinLock<T, M> {
    /// An open lock.
    pub const fn new(machine: M, rank: Rank, value: T) -> Self {
        Self { next: AtomicU32::new(0), serving: AtomicU32::new(0), rank, machine, value: UnsafeCell::new(value) }
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T, M> {
        self.lock_as(self.rank)
    }

    /// As [`SpinLock::lock`], for the second of two locks of one kind: `rank` replaces the lock's own.
    #[inline]
    pub fn lock_as(&self, rank: Rank) -> SpinGuard<'_, T, M> {
        let irq = self.machine.irq_save();
        note_taken(self.machine, rank);
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        while self.serving.load(Ordering::Acquire) != ticket {
            self.machine.relax();
        }
        SpinGuard { lock: self, rank, irq }
    }

    /// Takes the lock if it is free and has no waiters.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T, M>> {
        let irq = self.machine.irq_save();
        let serving = self.serving.load(Ordering::Relaxed);
        let free =
            self.next.compare_exchange(serving, serving.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !free {
            self.machine.irq_restore(irq);
            return None;
        }
        note_taken(self.machine, self.rank);
        Some(SpinGuard { lock: self, rank: self.rank, irq })
    }

    /// The value, without locking: `&mut` is exclusive.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Whether the lock is held now.
    pub fn is_locked(&self) -> bool {
        self.next.load(Ordering::Relaxed) != self.serving.load(Ordering::Relaxed)
    }

    /// The value's address, for a panicking kernel that reads it without the lock.
    pub fn as_ptr(&self) -> *mut T {
        self.value.get()
    }
}

/// The right to the value; releases the lock when dropped.
pub struct SpinGuard<'a, T, M: Machine> {
    lock: &'a SpinLock<T, M>,
    rank: Rank,
    irq: usize,
}

impl<T, M: Machine> Deref for SpinGuard<'_, T, M> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this CPU holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, M: Machine> DerefMut for SpinGuard<'_, T, M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists, so this CPU holds the lock; `&mut self` makes this the only reference.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, M: Machine> Drop for SpinGuard<'_, T, M> {
    #[inline]
    fn drop(&mut self) {
        let lock = self.lock;
        let now = lock.serving.load(Ordering::Relaxed);
        lock.serving.store(now.wrapping_add(1), Ordering::Release);
        note_released(lock.machine, self.rank);
        lock.machine.irq_restore(self.irq);
    }
}

/// Debug builds: asserts that no lock of this rank or a higher one is held, and records this one.
#[inline]
pub fn note_taken<M: Machine>(machine: M, rank: Rank) {
    if cfg!(debug_assertions) {
        let held = machine.held_ranks();
        let bits = held.load(Ordering::Relaxed);
        assert!(bits >> rank as u8 == 0, "lock order: {rank:?} taken while ranks {bits:#x} are held");
        assert!(!rank.sleeps() || bits & !SLEEPING == 0, "{rank:?} taken under a spin lock of ranks {bits:#x}");
        held.store(bits | 1 << rank as u8, Ordering::Relaxed);
    }
}

/// Debug builds: forgets a lock that [`note_taken`] remembered. A spin lock is released before those that were taken
/// before it: each restores the interrupt mask that it found, so in another order interrupts would be enabled while a
/// lock is held, and stay masked when none is.
#[inline]
pub fn note_released<M: Machine>(machine: M, rank: Rank) {
    if cfg!(debug_assertions) {
        let held = machine.held_ranks();
        let bits = held.load(Ordering::Relaxed);
        let later = bits & !SLEEPING & u64::MAX << rank as u8 & !(1 << rank as u8);
        assert!(rank.sleeps() || later == 0, "{rank:?} released before ranks {later:#x}");
        held.store(bits & !(1 << rank as u8), Ordering::Relaxed);
    }
}
