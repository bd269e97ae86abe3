//! A mutex of one word on the system's wait and wake.
//!
//! Loom's test builds this file over loom's atomics, which is why they come from `super`.

use core::cell::UnsafeCell;

use super::atomic::{AtomicU32, Ordering};
use crate::System;

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// A value under a lock. Taking it needs the system, so there is no guard that unlocks by itself:
/// [`with`](Lock::with) and [`try_with`](Lock::try_with) bracket the use.
pub struct Lock<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached under the lock, by one thread at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A lock over `word`, which must be 0: loom's atomics cannot be made in a constant.
    pub const fn new(word: AtomicU32, value: T) -> Lock<T> {
        Lock { word, value: UnsafeCell::new(value) }
    }

    #[inline(always)]
    pub fn with<R>(&self, system: &impl System, f: impl FnOnce(&mut T) -> R) -> R {
        self.acquire(system);
        // SAFETY: this thread holds the lock, so no other reference is alive.
        let answer = f(unsafe { &mut *self.value.get() });
        self.release(system);
        answer
    }

    /// As [`with`](Lock::with), but answers `Err(f)` at once if somebody holds the lock.
    #[inline(always)]
    pub fn try_with<R, F: FnOnce(&mut T) -> R>(&self, system: &impl System, f: F) -> Result<R, F> {
        if !self.try_acquire() {
            return Err(f);
        }
        // SAFETY: as above.
        let answer = f(unsafe { &mut *self.value.get() });
        self.release(system);
        Ok(answer)
    }

    #[inline(always)]
    fn try_acquire(&self) -> bool {
        self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock and keeps it past this call; used around a fork.
    #[inline(always)]
    pub fn acquire(&self, system: &impl System) {
        if !self.try_acquire() {
            self.acquire_slow(system);
        }
    }

    #[cold]
    fn acquire_slow(&self, system: &impl System) {
        while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
            system.wait(&self.word, CONTENDED);
        }
    }

    /// Gives the lock up.
    #[inline(always)]
    pub fn release(&self, system: &impl System) {
        if self.word.swap(FREE, Ordering::Release) == CONTENDED {
            system.wake(&self.word);
        }
    }

    /// In the child of a fork, where the thread that took the lock is the only one: frees it without waking anyone.
    pub fn reset(&self) {
        self.word.store(FREE, Ordering::Release);
    }
}
