//! A sleeping lock for long work: its holder may sleep, reschedule and access user memory.
//!
//! It is handed from its holder directly to the longest waiter: a thread that takes it repeatedly cannot starve others.

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_mm::sync::Rank;

use super::entity::{Entity, current};
use super::sched;
use super::wait::{self, Sleep};
use crate::vm::{Cpu, SpinLock};

struct Waiter {
    thread: *const Entity,
    /// Linked while it waits; the thread that unlinks it hands it the lock.
    link: LinkedListLink,
}

intrusive_adapter!(InQueue = UnsafeRef<Waiter>: Waiter { link => LinkedListLink });

struct Queue {
    is_taken: bool,
    waiters: LinkedList<InQueue>,
}

// SAFETY: links and nodes are only touched under the lock; a node is taken out before its stack frame ends.
unsafe impl Send for Queue {}

/// The lock.
pub struct Mutex {
    queue: SpinLock<Queue>,
}

impl Mutex {
    /// A lock that is not held.
    pub const fn new() -> Self {
        let queue = Queue { is_taken: false, waiters: LinkedList::new(InQueue::NEW) };
        Self { queue: SpinLock::new(Cpu, Rank::WaitQueue, queue) }
    }

    /// Takes it if it is free; EAGAIN if not.
    pub fn try_lock(&self) -> Result<MutexGuard<'_>, Errno> {
        let was_taken = core::mem::replace(&mut self.queue.lock().is_taken, true);
        if was_taken { Err(Errno::EAGAIN) } else { Ok(MutexGuard(self)) }
    }

    /// Sleeps until the caller holds it; EINTR if the sleep was interrupted.
    pub fn lock(&self, cut: Sleep) -> Result<MutexGuard<'_>, Errno> {
        let waiter = Waiter { thread: current(), link: LinkedListLink::new() };
        {
            let mut queue = self.queue.lock();
            if !queue.is_taken {
                queue.is_taken = true;
                return Ok(MutexGuard(self));
            }
            // SAFETY: it is unlinked below, or by the thread that hands over the lock, before this frame ends.
            queue.waiters.push_back(unsafe { UnsafeRef::from_raw(&waiter) });
        }
        let is_given = || {
            let _queue = self.queue.lock();
            !waiter.link.is_linked()
        };
        let result = wait::sleep(cut, None, || is_given().then_some(()));
        let mut queue = self.queue.lock();
        if waiter.link.is_linked() {
            // SAFETY: a linked node is in this list, whose lock is held.
            unsafe { queue.waiters.cursor_mut_from_ptr(&waiter).remove() };
            result?;
        }
        // The lock was handed over, perhaps while the sleep was interrupted.
        drop(queue);
        Ok(MutexGuard(self))
    }

    fn pass_on(&self) {
        let mut queue = self.queue.lock();
        match queue.waiters.pop_front() {
            // SAFETY: the waiter was in the list, so its thread is still inside `lock`, which takes the lock that is
            // held here before it returns.
            Some(next) => _ = sched::wake(unsafe { &*next.thread }),
            None => queue.is_taken = false,
        }
    }
}

/// The held lock; dropping it hands it to the next waiter.
pub struct MutexGuard<'a>(&'a Mutex);

impl Drop for MutexGuard<'_> {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}
