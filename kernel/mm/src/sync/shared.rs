//! A spinning lock with readers, one intending writer, and moments of exclusion.
//!
//! Readers run side by side, and beside a writer that only *intends* to write: it looks, prepares and allocates
//! while they go on. For the short moment of the change it excludes them ([`IntentGuard::write`]). Intending
//! writers exclude each other, so what one has seen stays true until it writes.
//!
//! Interrupts stay enabled: no interrupt handler may take such a lock. The kernel must not switch tasks while
//! one is held. The lock's word:
//!
//! ```text
//!  31        2    1      0
//! | readers  | write | intent |
//! ```

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use super::{Rank, note_released, note_taken};
use crate::machine::Machine;

const INTENT: u32 = 1;
const WRITE: u32 = 2;
const READER: u32 = 4;

/// See the module.
pub struct SharedLock<T, M: Machine> {
    word: AtomicU32,
    rank: Rank,
    machine: M,
    value: UnsafeCell<T>,
}

// SAFETY: readers on several CPUs get `&T`, a writer `&mut T` alone.
unsafe impl<T: Send + Sync, M: Machine> Sync for SharedLock<T, M> {}
// SAFETY: owning the lock is owning the `T`.
unsafe impl<T: Send, M: Machine> Send for SharedLock<T, M> {}

impl<T, M: Machine> SharedLock<T, M> {
    /// An open lock.
    pub const fn new(machine: M, rank: Rank, value: T) -> Self {
        Self { word: AtomicU32::new(0), rank, machine, value: UnsafeCell::new(value) }
    }

    /// Waits until nobody writes, and reads.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_, T, M> {
        note_taken(self.machine, self.rank);
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & WRITE == 0
                && self.word.compare_exchange_weak(word, word + READER, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return ReadGuard { lock: self };
            }
            self.machine.relax();
        }
    }

    /// Waits until nobody else intends to write; readers go on.
    #[inline]
    pub fn intend(&self) -> IntentGuard<'_, T, M> {
        self.intend_as(self.rank)
    }

    /// As [`SharedLock::intend`], with another place in the lock order: for the second of two such locks.
    #[inline]
    pub fn intend_as(&self, rank: Rank) -> IntentGuard<'_, T, M> {
        note_taken(self.machine, rank);
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & INTENT == 0
                && self.word.compare_exchange_weak(word, word | INTENT, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return IntentGuard { lock: self, rank };
            }
            self.machine.relax();
        }
    }

    /// The value, without locking: whoever has `&mut` is alone.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// The right to read.
pub struct ReadGuard<'a, T, M: Machine> {
    lock: &'a SharedLock<T, M>,
}

impl<T, M: Machine> Deref for ReadGuard<'_, T, M> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while a reader is counted nobody has WRITE and proceeds, so there is no `&mut T`.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, M: Machine> Drop for ReadGuard<'_, T, M> {
    #[inline]
    fn drop(&mut self) {
        self.lock.word.fetch_sub(READER, Ordering::Release);
        note_released(self.lock.machine, self.lock.rank);
    }
}

/// The sole right to write next, and to read meanwhile.
pub struct IntentGuard<'a, T, M: Machine> {
    lock: &'a SharedLock<T, M>,
    rank: Rank,
}

impl<'a, T, M: Machine> IntentGuard<'a, T, M> {
    /// Waits for the readers to leave, and writes. No new reader comes in until the answer is dropped.
    #[inline]
    pub fn write(&mut self) -> WriteGuard<'_, 'a, T, M> {
        let lock = self.lock;
        lock.word.fetch_or(WRITE, Ordering::Relaxed);
        while lock.word.load(Ordering::Acquire) >= READER {
            lock.machine.relax();
        }
        WriteGuard { intent: self }
    }
}

impl<T, M: Machine> Deref for IntentGuard<'_, T, M> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `&mut T` exists only inside a `WriteGuard`, which borrows the one `IntentGuard` mutably.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, M: Machine> Drop for IntentGuard<'_, T, M> {
    #[inline]
    fn drop(&mut self) {
        self.lock.word.fetch_and(!INTENT, Ordering::Release);
        note_released(self.lock.machine, self.rank);
    }
}

/// Exclusion, within an intent.
pub struct WriteGuard<'g, 'a, T, M: Machine> {
    intent: &'g mut IntentGuard<'a, T, M>,
}

impl<T, M: Machine> Deref for WriteGuard<'_, '_, T, M> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as for `DerefMut`.
        unsafe { &*self.intent.lock.value.get() }
    }
}

impl<T, M: Machine> DerefMut for WriteGuard<'_, '_, T, M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: WRITE is set and the readers have left; INTENT keeps other writers out.
        unsafe { &mut *self.intent.lock.value.get() }
    }
}

impl<T, M: Machine> Drop for WriteGuard<'_, '_, T, M> {
    #[inline]
    fn drop(&mut self) {
        self.intent.lock.word.fetch_and(!WRITE, Ordering::Release);
    }
}
