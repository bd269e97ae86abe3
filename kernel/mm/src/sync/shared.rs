//! A sleeping lock with readers, one intending writer, and short exclusive phases.
//!
//! Readers run concurrently, also with a writer that only *intends* to write: it reads, prepares and allocates while
//! they continue. It excludes them only for the short change itself ([`IntentGuard::write`]). Intending writers exclude
//! each other, so what one has read stays valid until it writes.
//!
//! # Who may take it, and who may hold it
//! A thread takes such a lock where it may sleep: with interrupts enabled and no spin lock held, which debug builds
//! assert. The thread, not its CPU, holds it: a holder may pass a preemption point ([`Threads::resched_point`]), and
//! waiters sleep. A holder never waits for memory, a server or a device, so it always makes progress, and a wait is
//! only as long as the holders' work.
//!
//! [`Threads::resched_point`]: crate::machine::Threads::resched_point
//!
//! # The word
//! ```text
//!  31      4      3         2        1       0
//! | readers | overdue | queued | write | intent |
//! ```
//! Without contention each operation is one atomic operation on it. `queued` says that the queue is not empty: then
//! every release serves the queue. It only changes under the queue's lock.
//!
//! # The queue
//! A thread that finds the lock taken polls a few times, since critical sections are short, and then queues and sleeps.
//! - Only `write` excludes readers. When it is cleared, all queued readers get the lock: the first [`BATCH`] at once,
//!   and each of them hands it to [`RELAY`] more, since how many there are is up to programs, and interrupts are masked
//!   meanwhile.
//! - The first intending writer in the queue is woken when `intent` is cleared, and competes for it: a running thread
//!   may be faster. Handing the lock directly to the sleeper would make every later owner sleep as well, as long as two
//!   threads compete. A thread that was woken and still found the lock taken sets `overdue`: then no other thread takes
//!   `intent` before it, so no thread starves.
//! - A writer that waits for readers to leave is recorded in the queue, and the last reader wakes it. New readers
//!   cannot enter meanwhile.
//!
//! Lock order: the queue's own lock is of `Rank::SleepQueue`; a thread is woken under it.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use super::atomic::{AtomicU32, LOOKS, Ordering};
use super::queue::{List, Waiter};
use super::{Rank, SpinLock, note_released, note_taken};
use crate::machine::{Killed, Machine};

const INTENT: u32 = 1;
const WRITE: u32 = 2;
const QUEUED: u32 = 4;
const OVERDUE: u32 = 8;
const READER: u32 = 16;

/// How many readers a release admits at once.
const BATCH: usize = 16;

/// How many further readers each of them admits.
const RELAY: usize = 2;

/// See the module.
pub struct SharedLock<T, M: Machine> {
    word: AtomicU32,
    rank: Rank,
    machine: M,
    queue: SpinLock<Queue, M>,
    value: UnsafeCell<T>,
}

// SAFETY: readers on several CPUs get `&T`, a writer `&mut T` alone.
unsafe impl<T: Send + Sync, M: Machine> Sync for SharedLock<T, M> {}
// SAFETY: owning the lock is owning the `T`.
unsafe impl<T: Send, M: Machine> Send for SharedLock<T, M> {}

/// What a queued thread waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Read,
    Intent,
}

impl Wanted {
    /// The bits that keep a thread that is not queued from taking it.
    #[inline(always)]
    const fn obstacles(self) -> u32 {
        match self {
            Self::Read => WRITE,
            Self::Intent => INTENT | OVERDUE,
        }
    }
}

/// The waiting threads, and the writer that waits for readers to leave.
struct Queue {
    readers: List,
    /// Those that want to write.
    writers: List,
    writer: Option<usize>,
}

impl Queue {
    fn list(&mut self, wanted: Wanted) -> &mut List {
        match wanted {
            Wanted::Read => &mut self.readers,
            Wanted::Intent => &mut self.writers,
        }
    }
}

impl<T, M: Machine> SharedLock<T, M> {
    /// An open lock.
    pub fn new(machine: M, rank: Rank, value: T) -> Self {
        debug_assert!(rank.sleeps());
        let queue = SpinLock::new(
            machine,
            Rank::SleepQueue,
            Queue { readers: List::EMPTY, writers: List::EMPTY, writer: None },
        );
        Self { word: AtomicU32::new(0), rank, machine, queue, value: UnsafeCell::new(value) }
    }

    /// Waits until there is no writer, and takes the lock for reading.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_, T, M> {
        self.take(Wanted::Read, self.rank);
        ReadGuard { lock: self }
    }

    /// Waits until no other thread has the intent, and takes it; readers continue.
    #[inline]
    pub fn intend(&self) -> IntentGuard<'_, T, M> {
        self.intend_as(self.rank)
    }

    /// As [`SharedLock::intend`], but gives up when the thread is killed.
    #[inline]
    pub fn intend_killable(&self) -> Result<IntentGuard<'_, T, M>, Killed> {
        note_taken(self.machine, self.rank);
        if !self.try_take(Wanted::Intent, Wanted::Intent.obstacles()) && !self.wait(Wanted::Intent, true) {
            note_released(self.machine, self.rank);
            return Err(Killed);
        }
        Ok(IntentGuard::new(self, self.rank))
    }

    /// As [`SharedLock::intend`], with another rank: for the second of two such locks.
    #[inline]
    pub fn intend_as(&self, rank: Rank) -> IntentGuard<'_, T, M> {
        self.take(Wanted::Intent, rank);
        IntentGuard::new(self, rank)
    }

    /// The value, without locking: `&mut` is exclusive.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The number of queued threads, for tests.
    #[cfg(test)]
    pub(super) fn waiters(&self) -> usize {
        let queue = self.queue.lock();
        queue.readers.len() + queue.writers.len() + usize::from(queue.writer.is_some())
    }

    /// Whether it is free and has no waiters, for tests.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.word.load(Ordering::Relaxed) == 0
    }

    #[inline]
    fn take(&self, wanted: Wanted, rank: Rank) {
        note_taken(self.machine, rank);
        if !self.try_take(wanted, wanted.obstacles()) {
            self.wait(wanted, false);
        }
    }

    /// Takes it if none of `obstacles` is in the word.
    #[inline]
    fn try_take(&self, wanted: Wanted, obstacles: u32) -> bool {
        let more = if wanted == Wanted::Read { READER } else { INTENT };
        let word = self.word.load(Ordering::Relaxed);
        if word & obstacles != 0 {
            return false;
        }
        match self.word.compare_exchange_weak(word, word + more, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => true,
            Err(now) => self.try_take_from(now, more, obstacles),
        }
    }

    /// As [`SharedLock::try_take`], once the word has changed meanwhile.
    #[cold]
    #[inline(never)]
    fn try_take_from(&self, mut word: u32, more: u32, obstacles: u32) -> bool {
        while word & obstacles == 0 {
            match self.word.compare_exchange_weak(word, word + more, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Waits until this thread has the lock, or, if `killable`, until the thread is killed: `false`.
    #[cold]
    #[inline(never)]
    fn wait(&self, wanted: Wanted, killable: bool) -> bool {
        for _ in 0..LOOKS {
            self.machine.relax();
            if self.try_take(wanted, wanted.obstacles()) {
                return true;
            }
        }
        let waiter = Waiter::new(self.machine.this_thread());
        {
            let mut queue = self.queue.lock();
            // Set before the last check: a thread that releases the lock afterwards sees that there are waiters.
            self.word.fetch_or(QUEUED, Ordering::Relaxed);
            if self.try_take(wanted, wanted.obstacles()) {
                self.note_if_empty(&queue);
                return true;
            }
            // SAFETY: it leaves before this function does.
            unsafe { queue.list(wanted).push(&waiter) };
        }
        let mut won = false;
        let mut was_woken = false;
        self.machine.park(killable, &mut || {
            // Readers only get the lock by a grant.
            if wanted == Wanted::Intent && !won {
                // The first call comes before the first sleep: the writer may have been woken already, when it was not
                // asleep yet, and nobody wakes it again for that. It leaves the intent to a writer for whom it is
                // overdue.
                won = self.try_take(Wanted::Intent, if was_woken { INTENT } else { INTENT | OVERDUE });
                if !won && was_woken {
                    self.word.fetch_or(OVERDUE, Ordering::Relaxed);
                    // A thread that released the lock before that has not seen it.
                    won = self.try_take(Wanted::Intent, INTENT);
                }
            }
            was_woken = true;
            won || waiter.granted.load(Ordering::Acquire)
        });
        let mut queue = self.queue.lock();
        let granted = waiter.granted.load(Ordering::Acquire);
        if !granted {
            // SAFETY: it has entered this list.
            unsafe { queue.list(wanted).remove(&waiter) };
        } else if wanted == Wanted::Read {
            self.let_in(&mut queue, RELAY);
        }
        self.leave(&queue, wanted);
        won || granted
    }

    /// Called when a waiter has left the queue, which is locked.
    fn leave(&self, queue: &Queue, wanted: Wanted) {
        if wanted == Wanted::Intent {
            // Only the first writer in the queue sets it, which this thread was until now.
            self.word.fetch_and(!OVERDUE, Ordering::Relaxed);
            // It may have been woken and have left without taking the intent, so wake the next one.
            if self.word.load(Ordering::Relaxed) & INTENT == 0
                && let Some(next) = queue.writers.front()
            {
                // SAFETY: a waiter leaves the queue under its lock, so its thread cannot have ended.
                unsafe { self.machine.unpark(next.thread) };
            }
        }
        self.note_if_empty(queue);
    }

    /// Clears `queued` if the queue is empty. The queue is locked.
    fn note_if_empty(&self, queue: &Queue) {
        if queue.readers.is_empty() && queue.writers.is_empty() {
            self.word.fetch_and(!QUEUED, Ordering::Relaxed);
        }
    }

    /// Serves the queue after a release. O(1).
    #[cold]
    #[inline(never)]
    fn serve(&self) {
        let mut queue = self.queue.lock();
        self.let_in(&mut queue, BATCH);
        if let Some(first) = queue.writers.front() {
            if self.word.load(Ordering::Relaxed) & OVERDUE == 0 {
                // SAFETY: a waiter leaves the queue under its lock, so its thread cannot have ended.
                unsafe { self.machine.unpark(first.thread) };
            } else if self.try_take(Wanted::Intent, INTENT) {
                let thread = self.grant(first);
                queue.writers.pop();
                // SAFETY: as in `let_in`.
                unsafe { self.machine.unpark(thread) };
            }
        }
        self.note_if_empty(&queue);
    }

    /// Gives the lock to the first readers of the queue, at most `most`, unless there is a writer.
    fn let_in(&self, queue: &mut Queue, most: usize) {
        for _ in 0..most {
            let Some(first) = queue.readers.front() else { return };
            if !self.try_take(Wanted::Read, WRITE) {
                return;
            }
            let thread = self.grant(first);
            queue.readers.pop();
            // SAFETY: the thread takes the queue's lock, which is held here, before it continues, so it has not ended.
            unsafe { self.machine.unpark(thread) };
        }
    }

    /// Tells a waiter that it has the lock; the caller then takes it out of the queue and wakes its thread.
    fn grant(&self, waiter: &Waiter) -> usize {
        waiter.granted.store(true, Ordering::Release);
        waiter.thread
    }

    /// Called when the last reader has left and a writer waits for that.
    #[cold]
    #[inline(never)]
    fn wake_writer(&self) {
        if let Some(thread) = self.queue.lock().writer {
            // SAFETY: a writer clears its entry, under the lock that is held here, before it continues.
            unsafe { self.machine.unpark(thread) };
        }
    }

    /// Waits until the readers have left.
    #[cold]
    #[inline(never)]
    fn wait_for_readers(&self) {
        let have_left = || self.word.load(Ordering::Acquire) < READER;
        for _ in 0..LOOKS {
            self.machine.relax();
            if have_left() {
                return;
            }
        }
        // Set before the next check: a reader that leaves afterwards finds the entry.
        self.queue.lock().writer = Some(self.machine.this_thread());
        self.machine.park(false, &mut || have_left());
        self.queue.lock().writer = None;
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
        // SAFETY: while a reader is counted, no writer with WRITE proceeds, so there is no `&mut T`.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, M: Machine> Drop for ReadGuard<'_, T, M> {
    #[inline]
    fn drop(&mut self) {
        let lock = self.lock;
        let old = lock.word.fetch_sub(READER, Ordering::Release);
        note_released(lock.machine, lock.rank);
        if old & WRITE != 0 && old < 2 * READER {
            lock.wake_writer();
        }
    }
}

/// The exclusive right to write next, and to read meanwhile.
pub struct IntentGuard<'a, T, M: Machine> {
    lock: &'a SharedLock<T, M>,
    /// The rank that was recorded; nothing is recorded without debug assertions.
    #[cfg(debug_assertions)]
    rank: Rank,
}

impl<'a, T, M: Machine> IntentGuard<'a, T, M> {
    #[inline]
    fn new(lock: &'a SharedLock<T, M>, _rank: Rank) -> Self {
        Self {
            lock,
            #[cfg(debug_assertions)]
            rank: _rank,
        }
    }

    /// Waits for the readers to leave, and excludes new ones until the result is dropped.
    #[inline]
    pub fn write(&mut self) -> WriteGuard<'_, 'a, T, M> {
        let lock = self.lock;
        if lock.word.fetch_or(WRITE, Ordering::Acquire) >= READER {
            lock.wait_for_readers();
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
        let old = self.lock.word.fetch_and(!INTENT, Ordering::Release);
        #[cfg(debug_assertions)]
        note_released(self.lock.machine, self.rank);
        if old & QUEUED != 0 {
            self.lock.serve();
        }
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
        let lock = self.intent.lock;
        if lock.word.fetch_and(!WRITE, Ordering::Release) & QUEUED != 0 {
            lock.serve();
        }
    }
}
