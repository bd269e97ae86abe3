//! A lock that is waited for asleep, for work that takes long: its holder may sleep, reschedule and touch user memory.
//!
//! It goes from its holder to the one that has waited longest, directly: a thread that takes it again and again keeps
//! nobody else from it.

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_mm::sync::Rank;

use super::sched;
use super::thread::{Thread, current};
use super::wait::{self, Sleep};
use crate::vm::{Cpu, SpinLock};

struct Waiter {
    thread: *const Thread,
    /// Linked while it waits; whoever unlinks it gives it the turn.
    link: LinkedListLink,
}

intrusive_adapter!(InTurn = UnsafeRef<Waiter>: Waiter { link => LinkedListLink });

struct Line {
    is_taken: bool,
    waiters: LinkedList<InTurn>,
}

// SAFETY: links and nodes are only touched under the lock; a node is taken out before its stack frame ends.
unsafe impl Send for Line {}

/// Whose turn it is.
pub struct Turn {
    line: SpinLock<Line>,
}

impl Turn {
    /// Nobody's.
    pub const fn new() -> Self {
        let line = Line { is_taken: false, waiters: LinkedList::new(InTurn::NEW) };
        Self { line: SpinLock::new(Cpu, Rank::WaitQueue, line) }
    }

    /// Takes it if it is nobody's: EAGAIN else.
    pub fn take_now(&self) -> Result<TurnGuard<'_>, Errno> {
        let was_taken = core::mem::replace(&mut self.line.lock().is_taken, true);
        if was_taken { Err(Errno::EAGAIN) } else { Ok(TurnGuard(self)) }
    }

    /// Sleeps until it is the caller's; EINTR when the sleep was cut short.
    pub fn take(&self, cut: Sleep) -> Result<TurnGuard<'_>, Errno> {
        let waiter = Waiter { thread: current(), link: LinkedListLink::new() };
        {
            let mut line = self.line.lock();
            if !line.is_taken {
                line.is_taken = true;
                return Ok(TurnGuard(self));
            }
            // SAFETY: taken out below, or by whoever gives the turn, before this frame ends.
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
        // Given, be it as the sleep was cut short.
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

/// The turn; the next one has it when this is dropped.
pub struct TurnGuard<'a>(&'a Turn);

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}
