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
    /// Linked while it waits; the thread that unlinks it hands it the turn.
    link: LinkedListLink,
}

intrusive_adapter!(InTurn = UnsafeRef<Waiter>: Waiter { link => LinkedListLink });

struct Line {
    is_taken: bool,
    waiters: LinkedList<InTurn>,
}

// SAFETY: links and nodes are only touched under the lock; a node is taken out before its stack frame ends.
unsafe impl Send for Line {}

/// The lock.
pub struct Turn {
    line: SpinLock<Line>,
}

impl Turn {
    /// A lock that is not held.
    pub const fn new() -> Self {
        let line = Line { is_taken: false, waiters: LinkedList::new(InTurn::NEW) };
        Self { line: SpinLock::new(Cpu, Rank::WaitQueue, line) }
    }

    /// Takes it if it is free; EAGAIN if not.
    pub fn take_now(&self) -> Result<TurnGuard<'_>, Errno> {
        let was_taken = core::mem::replace(&mut self.line.lock().is_taken, true);
        if was_taken { Err(Errno::EAGAIN) } else { Ok(TurnGuard(self)) }
    }

    /// Sleeps until the caller holds it; EINTR if the sleep was interrupted.
    pub fn take(&self, cut: Sleep) -> Result<TurnGuard<'_>, Errno> {
        let waiter = Waiter { thread: current(), link: LinkedListLink::new() };
        {
            let mut line = self.line.lock();
            if !line.is_taken {
                line.is_taken = true;
                return Ok(TurnGuard(self));
            }
            // SAFETY: it is unlinked below, or by the thread that hands over the turn, before this frame ends.
            line.waiters.push_back(unsafe { UnsafeRef::from_raw(&waiter) });
        }
        let is_given = || {
            let _line = self.line.lock();
            !waiter.link.is_linked()
        };
        let result = wait::sleep(cut, None, || is_given().then_some(()));
        let mut line = self.line.lock();
        if waiter.link.is_linked() {
            // SAFETY: a linked node is in this list, whose lock is held.
            unsafe { line.waiters.cursor_mut_from_ptr(&waiter).remove() };
            result?;
        }
        // The turn was handed over, perhaps while the sleep was interrupted.
        drop(line);
        Ok(TurnGuard(self))
    }

    fn pass_on(&self) {
        let mut line = self.line.lock();
        match line.waiters.pop_front() {
            // SAFETY: the waiter was in the list, so its thread is still inside `take`, which takes the lock that is
            // held here before it returns.
            Some(next) => _ = sched::wake(unsafe { &*next.thread }),
            None => line.is_taken = false,
        }
    }
}

/// The held lock; dropping it hands it to the next waiter.
pub struct TurnGuard<'a>(&'a Turn);

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}
