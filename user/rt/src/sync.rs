//! A mutual-exclusion lock on a futex.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use quire_abi::{Errno, nr};

use crate::sys;

const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;
const FUTEX_PRIVATE: usize = 128;

/// Sleeps while `word` has the value `expected`; EAGAIN if it does not, ETIMEDOUT after `nanoseconds`.
pub fn futex_wait(word: &AtomicU32, expected: u32, nanoseconds: Option<u64>) -> Result<(), Errno> {
    wait(word, expected, nanoseconds, FUTEX_PRIVATE)
}

/// As [`futex_wait`], on a word in memory that several processes share.
pub fn futex_wait_shared(word: &AtomicU32, expected: u32, nanoseconds: Option<u64>) -> Result<(), Errno> {
    wait(word, expected, nanoseconds, 0)
}

fn wait(word: &AtomicU32, expected: u32, nanoseconds: Option<u64>, flags: usize) -> Result<(), Errno> {
    let time = nanoseconds.map(crate::time::timespec);
    let time_ptr = time.as_ref().map_or(0, |time| time as *const _ as usize);
    // SAFETY: the kernel reads the word, which is alive, and the time, which outlives the call.
    unsafe { sys::call(nr::FUTEX, [word.as_ptr() as usize, FUTEX_WAIT | flags, expected as usize, time_ptr]) }.map(drop)
}

/// Wakes up to `count` sleepers and returns how many.
pub fn futex_wake(word: &AtomicU32, count: u32) -> Result<usize, Errno> {
    sys::plain!(nr::FUTEX, word.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE, count)
}

/// As [`futex_wake`], on a word in memory that several processes share.
pub fn futex_wake_shared(word: &AtomicU32, count: u32) -> Result<usize, Errno> {
    sys::plain!(nr::FUTEX, word.as_ptr(), FUTEX_WAKE, count)
}

/// States of the lock word.
const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and someone may be asleep on the word.
const CONTENDED: u32 = 2;

/// A value that one thread at a time may use.
pub struct Mutex<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives one thread at a time access to the value, so sharing the lock only moves the value between
// threads.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// The right to use the value of a [`Mutex`], until it is dropped.
pub struct Guard<'a, T>(&'a Mutex<T>);

impl<T> Mutex<T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Self {
        Mutex { word: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Waits for the value.
    pub fn lock(&self) -> Guard<'_, T> {
        if self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
                // An error means that the word has changed or a signal has arrived: in either case the loop tries
                // again.
                let _ = futex_wait(&self.word, CONTENDED, None);
            }
        }
        Guard(self)
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if self.0.word.swap(FREE, Ordering::Release) == CONTENDED {
            // Waking fails for a bad address only, and the lock's is good.
            let _ = futex_wake(&self.0.word, 1);
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this thread holds the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists, so this thread holds the lock, and it is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}
